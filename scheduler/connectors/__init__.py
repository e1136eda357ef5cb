"""The connector kit: typed functions that create, update, delete, get and find components.

::

    connectors = Connectors(provider="aws", concurrency=8)

    @connectors.create("vpc", timeout=600)
    async def create_vpc(request: Vpc, context: Context) -> Vpc:
        ...

    trio.run(connectors.run, "nats://127.0.0.1:4222")

    assert connectors.test("vpc.create.aws", {"name": "a"})["_state"] == "completed"

A plain function runs in a thread, an ``async def`` on Trio's loop, or on asyncio's where ``Connectors`` or
the decorator says ``backend="asyncio"``. The kit converts requests and replies, bounds the calls at a time,
sends heartbeats, answers a key that was done before from its record, passes cancellations on, and ends in
order on SIGTERM. It stands on the `scheduler.bus` port, and nothing of the service runs with it.

Heartbeats come from Trio's loop: a Trio function that blocks it stops those of all, and one that shields
itself from cancellation is awaited at the end. A request without the header ``Scheduler-Component-Key`` is
not in the record.

*Stable*: the names below, the methods of `Connectors` and `Context`, the port `Store`; of a `Handler` its
``subject``, ``type``, ``action``, ``name``, ``request``, ``timeout``, ``concurrency``, ``summary`` and
``counts``; and ``run(beside=[...])``, where a function gets the `Running` connector and returns a context.
All else may change.

Records that outlive the process are `scheduler.connectors.sqlite.SQLiteStore`, a file that processes of one
machine may share, and `scheduler.connectors.bucket.BucketStore`, in JetStream.
"""

from scheduler.connectors.connectors import Connectors
from scheduler.connectors.context import Cancellation, Context
from scheduler.connectors.engine import Companion, Running
from scheduler.connectors.handlers import Counts, Handler
from scheduler.connectors.outcomes import Permanent, Retry
from scheduler.connectors.stores import Begun, Busy, Completed, MemoryStore, Store

__all__ = [
    "Begun",
    "Busy",
    "Cancellation",
    "Companion",
    "Completed",
    "Connectors",
    "Context",
    "Counts",
    "Handler",
    "MemoryStore",
    "Permanent",
    "Retry",
    "Running",
    "Store",
]
