"""The format of a build's log: records as JSON, and their headers.

A record holds everything that became true since the one before it::

    {"v":1, "n":7, "epoch":2, "instance":"host-1", "record_id":"...", "at":1700000000000,
     "reply_position":[815,1700000000000000000], "events":[{"event":"sent", ...}, ...]}

Where the replies of single providers have streams of their own, ``"reply_positions":{"aws":[815,17...],
...}`` follows the position in the stream of all other replies.

Reading is strict. Anything that this version does not know is an `errors.UnreadableLog`, and never skipped: a
build resumed from half of its log would do things twice. A change of the format must increase `VERSION`, and
keep reading what earlier versions wrote. New events, and new members that may be missing, need no new
version: earlier ones refuse them by name.

Times are those of the build's clock (`scheduler.runtime.clock`): ``at`` is the time of a record, ``time``
that of an event, which is earlier where the record had to wait. ``at`` never goes back.

Begin reading with `record`; `wire` has the events, and `headers` what can be told without the record. Who had
it done stands in a header as well (`orders`), and so does the trace of the build (`traces`): earlier versions
ignore these.
"""

from scheduler.journal.records.headers import (
    COUNTED_HEADER,
    DIGEST_HEADER,
    GIVEN_HEADER,
    HANGS_HEADER,
    LEFT,
    LOADS_HEADER,
    RECORD_HEADER,
    REMOVED_HEADER,
    STATUS_HEADER,
    Headings,
    Status,
    first_headers,
    headers_of,
    instance_of,
    read_headers,
    record_id_of,
)
from scheduler.journal.records.orders import (
    ORDERS_HEADER,
    ORDERS_IN_A_RECORD,
    encode_order,
    orders_header,
    read_orders,
)
from scheduler.journal.records.record import (
    VERSION,
    Position,
    Record,
    compose,
    decode_record,
    earliest,
    record_schema,
)
from scheduler.journal.records.tombstone import TOMBSTONE_KEPT, is_tombstone, tombstone
from scheduler.journal.records.traces import (
    TRACEPARENT_HEADER,
    TRACESTATE_HEADER,
    read_trace,
    trace_headers,
)
from scheduler.journal.records.wire import (
    TIMED,
    Elsewhere,
    accepted_chunks,
    decode_event,
    document_chunks,
    encode_event,
)

__all__ = [
    "COUNTED_HEADER",
    "DIGEST_HEADER",
    "GIVEN_HEADER",
    "HANGS_HEADER",
    "LEFT",
    "LOADS_HEADER",
    "ORDERS_HEADER",
    "ORDERS_IN_A_RECORD",
    "RECORD_HEADER",
    "REMOVED_HEADER",
    "STATUS_HEADER",
    "TIMED",
    "TOMBSTONE_KEPT",
    "TRACEPARENT_HEADER",
    "TRACESTATE_HEADER",
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
    "encode_order",
    "first_headers",
    "headers_of",
    "instance_of",
    "is_tombstone",
    "orders_header",
    "read_headers",
    "read_orders",
    "read_trace",
    "record_id_of",
    "record_schema",
    "tombstone",
    "trace_headers",
]
