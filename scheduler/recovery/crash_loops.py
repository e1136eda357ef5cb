"""Crash-loop protection: builds that processes died of while they took them up, or hung over.

How often stands in headers of each of a build's records, from the first time on. Such a build is *unproven*:
a process takes it up last, when all others have gone on, and alone. One that goes on killing is left alone:
it is quarantined, until an operator releases it.
"""

import secrets
import time
from collections.abc import Callable
from typing import Final

from attrs import evolve

from scheduler.errors import StoreError, UnreadableLog, WrongLastSequence
from scheduler.jetstream.api import JetStream
from scheduler.jetstream.streams import LOG, log_subject
from scheduler.journal.events import Released
from scheduler.journal.records import (
    Headings,
    Status,
    compose,
    decode_record,
    encode_event,
    headers_of,
    is_tombstone,
    read_headers,
)

UNPROVEN_LOADS: Final = 2
"""Processes in a row that may die while they take up several builds; then each of those is taken up alone."""
MOST_LOADS: Final = UNPROVEN_LOADS + 3
"""... and then three that may die of that build alone, before it is left as it is. Whoever kills processes at
random will hardly hit the same build three times; what it cannot survive, it does."""
MOST_HANGS: Final = 3
"""Processes that may hang over a build before it is left as it is: which build it was is known for sure."""
_ATTEMPTS = 5


def counts(headings: Headings | UnreadableLog) -> tuple[int, int]:
    """How many processes hung over a build, and how many in a row died while they took it up."""
    return (0, 0) if isinstance(headings, UnreadableLog) else (headings.hangs, headings.loads)


def is_unproven(headings: Headings | UnreadableLog) -> bool:
    """Whether processes died of a build, as far as can be told, and it is to be tried again all the same."""
    hangs, loads = counts(headings)
    return hangs < MOST_HANGS and loads < MOST_LOADS and (hangs > 0 or loads >= UNPROVEN_LOADS)


def why_left_alone(headings: Headings) -> str:
    """Why a build is not taken up any more; empty where it is."""
    if headings.hangs >= MOST_HANGS:
        return f"{headings.hangs} processes hung over it"
    if headings.loads >= MOST_LOADS:
        return f"{headings.loads} processes in a row ended while they took it up"
    return ""


async def record_hang(js: JetStream, build: str) -> None:
    """Write into the log of a build that this process hangs over it, and is about to end.

    Nothing of that process can be written into it any more.

    Raises:
        StoreError: there is no such log, or the build is over.
        UnreadableLog: its last record cannot be read.
        BusError: JetStream could not be asked.
    """

    def hung(headings: Headings) -> Headings:
        if headings.status is Status.REPORTED:
            raise StoreError(f"{build} is finished")
        return evolve(headings, hangs=headings.hangs + 1)

    for attempt in range(1, _ATTEMPTS + 1):
        try:
            await _write(js, build, "watchdog", "hung", hung)
        except WrongLastSequence:
            # What the process had under way came in between.
            if attempt == _ATTEMPTS:
                raise
        else:
            return


async def release(js: JetStream, build: str) -> None:
    """Write into the log of a build that processes died of, or hung over, that the next one may try again.

    Raises:
        StoreError: there is no such build, or it is none of those: somebody may be writing to its log.
        UnreadableLog: its last record cannot be read.
        BusError: JetStream could not be asked.
    """

    def released(headings: Headings) -> Headings:
        if not why_left_alone(headings):
            raise StoreError(f"{build} is not one that schedulers died of: it needs no release")
        return evolve(headings, loads=0, hangs=0)

    await _write(js, build, "release", "release", released, encode_event(Released()))


async def _write(
    js: JetStream,
    build: str,
    instance: str,
    word: str,
    change: Callable[[Headings], Headings],
    *events: bytes,
) -> None:
    """Append one record to a log that this process does not hold, with other counts in its headers."""
    subject = log_subject(build)
    last = await js.last(LOG, subject)
    if last is None or is_tombstone(last.headers):
        raise StoreError(f"there is no build {build!r} in the log")
    headings, record = change(read_headers(last.headers)), decode_record(last.data)
    record_id = f"{word}-{secrets.token_hex(8)}"
    data = compose(
        n=record.n + 1,
        epoch=record.epoch,
        instance=instance,
        record_id=record_id,
        at=max(record.at, int(time.time() * 1_000)),
        position=record.position,
        events=list(events),
    )
    headers = headers_of(record_id, headings.status, headings.loads, headings.hangs)
    await js.publish(subject, data, expected=last.sequence, headers=headers)
