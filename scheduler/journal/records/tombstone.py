"""The tombstone of a log: the record that stands for a while in place of a log removed on purpose.

It is a record without events on the log's subject, marked by a header. Earlier versions take it for the last
record of a reported build, and leave it alone. A log that is gone without a tombstone was removed by hand.
"""

from collections.abc import Mapping
from typing import Final

from scheduler.journal.records.headers import REMOVED_HEADER, Status, headers_of
from scheduler.journal.records.record import Position, compose

TOMBSTONE_KEPT: Final = 86_400.0
"""Seconds for which a tombstone is kept: long enough for a process that had the build to look at its log."""


def is_tombstone(headers: Mapping[str, str]) -> bool:
    """Whether the message with these headers is a tombstone, and the log before it has ended."""
    return REMOVED_HEADER in headers


def tombstone(record_id: str, *, instance: str, at: int, why: str) -> tuple[bytes, dict[str, str]]:
    """Return data and headers of a tombstone.

    Args:
        record_id: an id unlike any other.
        instance: name of the process that removes the log, for people.
        at: time in milliseconds since 1970.
        why: reason in a word, for people.
    """
    data = compose(
        n=1, epoch=1, instance=instance, record_id=record_id, at=at, position=Position(), events=()
    )
    return data, {**headers_of(record_id, Status.REPORTED, 0), REMOVED_HEADER: why}
