"""The format of a build's log: what stands in a record, as JSON, and what its headers say.

A record is everything that became true since the one before it::

    {"v":1, "n":7, "epoch":2, "instance":"host-1", "record_id":"...", "at":1700000000000,
     "reply_position":[815,1700000000000000000], "events":[{"event":"sent", ...}, ...]}

Where single providers' replies are in streams of their own, ``"reply_positions":{"aws":[815,17...], ...}``
stands behind the position in the stream of all the others.

Reading is strict. What this version does not know is an `errors.UnreadableLog`, never passed over: a build
that is resumed from half of its log does things twice. Whoever changes the format counts `VERSION` up
and goes on reading what earlier versions wrote. New events, and new members that may be missing, need no
other version: an earlier one refuses them by their names.

Times are those of the build's clock (`scheduler.runtime.clock`): ``at`` of a record is when it was written,
``time`` of an event when that happened, which is earlier where the record had to wait. ``at`` never goes
back.

`record` is where to begin reading; `wire` has the events, `headers` what can be told without the record.
"""

from scheduler.journal.records.headers import (
    DIGEST_HEADER,
    HANGS_HEADER,
    LOADS_HEADER,
    RECORD_HEADER,
    REMOVED_HEADER,
    STATUS_HEADER,
    Headings,
    Status,
    headers_of,
    read_headers,
)
from scheduler.journal.records.record import VERSION, Position, Record, compose, decode_record, earliest
from scheduler.journal.records.tombstone import TOMBSTONE_KEPT, is_tombstone, tombstone
from scheduler.journal.records.wire import (
    TIMED,
    Elsewhere,
    accepted_chunks,
    decode_event,
    document_chunks,
    encode_event,
)

__all__ = [
    "DIGEST_HEADER",
    "HANGS_HEADER",
    "LOADS_HEADER",
    "RECORD_HEADER",
    "REMOVED_HEADER",
    "STATUS_HEADER",
    "TIMED",
    "TOMBSTONE_KEPT",
    "VERSION",
    "Elsewhere",
    "Headings",
    "Position",
    "Record",
    "Status",
    "accepted_chunks",
    "compose",
    "decode_event",
    "decode_record",
    "document_chunks",
    "earliest",
    "encode_event",
    "headers_of",
    "is_tombstone",
    "read_headers",
    "tombstone",
]
