"""Reads the log of a finished build in the durable store."""

import msgspec
from attrs import frozen
from nats.js.api import AckPolicy, ConsumerConfig

from benchmarks.client import Client
from scheduler.jetstream.streams import LOG, log_subject

_AT_ONCE = 500


class _Record(msgspec.Struct):
    events: list[msgspec.Raw]


@frozen
class Log:
    """Size of a log."""

    records: int
    """Number of records, one for each commit."""
    events: int


async def measure(client: Client, build: str) -> Log:
    """Read the log of a finished build."""
    reader = await client.nats.jetstream().pull_subscribe(
        log_subject(build), stream=LOG, config=ConsumerConfig(ack_policy=AckPolicy.NONE, mem_storage=True)
    )
    records = events = 0
    left = (await reader.consumer_info()).num_pending or 0
    while records < left:
        for message in await reader.fetch(min(_AT_ONCE, left - records)):
            records += 1
            events += len(msgspec.json.decode(message.data, type=_Record).events)
    await reader.unsubscribe()
    return Log(records, events)
