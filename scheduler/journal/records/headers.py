"""The headers of a record: enough to find unfinished builds without reading their logs."""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from attrs import frozen

from scheduler.journal.events import Accepted
from scheduler.journal.records.strict import left, left_for_another, shown
from scheduler.journal.records.traces import trace_headers

RECORD_HEADER = "Scheduler-Record"
STATUS_HEADER = "Scheduler-Status"
LOADS_HEADER = "Scheduler-Loads"
HANGS_HEADER = "Scheduler-Hangs"
DIGEST_HEADER = "Scheduler-Digest"
REMOVED_HEADER = "Scheduler-Removed"
GIVEN_HEADER = "Scheduler-Given-To"
"""Process that is to take a build over which the writer of the record has left to it."""
COUNTED_HEADER = "Scheduler-Counted-By"
"""Process in whose part of the limits over the fleet the requests in flight count, of a build left by
one which could not take it up, and does not count them."""

_OF_A_BUILD = re.compile(r"(.+)-[0-9]+-[0-9]+-[0-9a-f]{8}")
LEFT: Final = "-left"
"""End of the id of a record with which a process leaves a build; every version reads it as of no owner."""
_COUNT = re.compile(r"[0-9]{1,9}")


class Status(StrEnum):
    """Status of a build after a record."""

    OPEN = "open"
    FINISHED = "finished"
    """Nothing more will be done; the report may not be out yet."""
    REPORTED = "reported"


_STATUSES = frozenset(Status)


@frozen
class Headings:
    """Content of a record's headers."""

    record_id: str
    status: Status
    """Status of the build after this record."""
    loads: int
    """Number of ``loading`` marks at the end of the log."""
    digest: str = ""
    """Digest of the build's content; beside its first record, and empty elsewhere."""
    hangs: int = 0
    """Number of processes that hung over the build, so far."""
    removed: bool = False
    """Whether the record is a tombstone: the log was removed on purpose."""


def headers_of(record_id: str, status: str, loads: int, hangs: int = 0) -> dict[str, str]:
    """Return the headers of a record (see `Headings`); the number of hangs only where there were any."""
    headers = {RECORD_HEADER: record_id, STATUS_HEADER: str(status), LOADS_HEADER: str(loads)}
    return headers | {HANGS_HEADER: str(hangs)} if hangs else headers


def first_headers(event: Accepted) -> dict[str, str]:
    """Return the headers that only the first record of a log has: digest and trace, where there are any."""
    headers = {DIGEST_HEADER: event.digest} if event.digest else {}
    return headers if event.trace is None else headers | trace_headers(event.trace)


def record_id_of(instance: str, epoch: int, n: int, random: str) -> str:
    """Return the id of a record: of the process that writes it, unlike that of any other record.

    Args:
        instance: name of the process.
        epoch: number of times that the build was taken up.
        n: number of the record in its log.
        random: eight random hexadecimal digits: a record that was given up may still be under way.
            With `LEFT` behind them the process leaves the build.
    """
    return f"{instance}-{epoch}-{n}-{random}"


def instance_of(record_id: str) -> str:
    """Return the process that has the build after a record; empty where none has, by the id of the record."""
    found = _OF_A_BUILD.fullmatch(record_id)
    return "" if found is None else found[1]


def read_headers(headers: Mapping[str, str]) -> Headings:
    """Read the headers of a record; foreign ones are ignored.

    Raises:
        UnreadableLog: a header is missing, or has a value that this version does not know.
    """
    record_id = headers.get(RECORD_HEADER)
    if not record_id:
        raise left(f"a record without the header {RECORD_HEADER}")
    status, loads = headers.get(STATUS_HEADER), headers.get(LOADS_HEADER)
    if status is None or loads is None:
        missing = STATUS_HEADER if status is None else LOADS_HEADER
        raise left(f"record {shown(record_id)}: it has no header {missing}")
    if status not in _STATUSES:
        raise left_for_another(
            f"record {shown(record_id)}: {STATUS_HEADER} {shown(status)} is not known here"
        )
    hangs = headers.get(HANGS_HEADER, "0")
    for header, count in ((LOADS_HEADER, loads), (HANGS_HEADER, hangs)):
        if not _COUNT.fullmatch(count):
            raise left(f"record {shown(record_id)}: {header} is no count: {shown(count)}")
    return Headings(
        record_id,
        Status(status),
        int(loads),
        headers.get(DIGEST_HEADER, ""),
        int(hangs),
        REMOVED_HEADER in headers,
    )
