"""The tombstone of a log: what is left, for a while, where a build's log was removed on purpose.

It is a record without events on the log's subject, told by a header. Earlier versions take it for the last
record of a build that was reported, and leave it alone. A log that is gone without one was removed by hand.
"""

from collections.abc import Mapping
from typing import Final

from scheduler.journal.records.headers import REMOVED_HEADER, Status, headers_of
from scheduler.journal.records.record import Position, compose

TOMBSTONE_KEPT: Final = 86_400.0
"""Seconds for which a tombstone is kept: whoever had the build has long looked at its log by then."""


def is_tombstone(headers: Mapping[str, str]) -> bool:
    """Whether the message with these headers is a tombstone: the log before it is none any more."""
    return REMOVED_HEADER in headers


def tombstone(record_id: str, *, instance: str, at: int, why: str) -> tuple[bytes, dict[str, str]]:
    """The data and the headers of one.

    Args:
        record_id: unlike any other's.
        instance: who removes the log: a name for people.
        at: when, in milliseconds since 1970.
        why: in a word, for people.
    """
    data = compose(
        n=1, epoch=1, instance=instance, record_id=record_id, at=at, position=Position(), events=()
    )
    return data, {**headers_of(record_id, Status.REPORTED, 0), REMOVED_HEADER: why}
