"""Builds that a process hung over, on record in their own logs.

How often stands in a header of each of a build's records, from the first time on. So whoever takes such a
build up does that last, when all others have gone on; and one that hung processes again and again is
quarantined.
"""

import secrets
import time
from typing import Final

from scheduler.errors import StoreError, WrongLastSequence
from scheduler.jetstream.api import JetStream
from scheduler.jetstream.streams import LOG, log_subject
from scheduler.journal.records import Status, compose, decode_record, headers_of, is_tombstone, read_headers

MOST_HANGS: Final = 3
"""Processes that may hang over a build before it is left as it is: which build it was is known for sure."""
_ATTEMPTS = 5


async def record_hang(js: JetStream, build: str) -> None:
    """Write into the log of a build that this process hangs over it, and is about to end.

    Nothing of that process can be written into it any more.

    Raises:
        StoreError: there is no such log, or the build is over.
        UnreadableLog: its last record cannot be read.
        BusError: JetStream could not be asked.
    """
    subject = log_subject(build)
    for attempt in range(1, _ATTEMPTS + 1):
        last = await js.last(LOG, subject)
        if last is None or is_tombstone(last.headers):
            raise StoreError(f"there is no build {build!r} in the log")
        headings, record = read_headers(last.headers), decode_record(last.data)
        if headings.status is Status.REPORTED:
            raise StoreError(f"{build} is over")
        record_id = f"hung-{secrets.token_hex(8)}"
        data = compose(
            n=record.n + 1,
            epoch=record.epoch,
            instance="watchdog",
            record_id=record_id,
            at=max(record.at, int(time.time() * 1_000)),
            position=record.position,
            events=[],
        )
        headers = headers_of(record_id, headings.status, headings.loads, headings.hangs + 1)
        try:
            await js.publish(subject, data, expected=last.sequence, headers=headers)
        except WrongLastSequence:
            # What the process had under way came in between.
            if attempt == _ATTEMPTS:
                raise
        else:
            return
