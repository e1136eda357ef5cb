"""Baseline of all comparisons: nats-py publishing and receiving, and nothing else.

The *bare loop*: this process publishes the requests of a build, with the subjects and the bodies that the
scheduler would send (without headers and reply subject), to the same connector process over the same
nats-server, and counts the replies on ``<subject>.done``. `WINDOW` requests are in flight at a time, as
many as the scheduler has. There is one connection with nats-py's defaults, and one callback subscription per
subject. The bodies are made beforehand, and no reply is decoded or matched. The time is from the first
publish to the last reply.
"""

import asyncio
from time import perf_counter

from nats.aio.msg import Msg

from benchmarks import builds, connector
from benchmarks.client import DEADLINE, Client

WINDOW = 500


async def run_loop(client: Client, requests: list[tuple[str, bytes]]) -> float:
    """Measure messages per second, each a request out and a reply in."""
    nats = client.nats
    received = 0
    progress = asyncio.Event()

    async def on_reply(_: Msg) -> None:
        nonlocal received
        received += 1
        progress.set()

    subscriptions = [await nats.subscribe(f"{subject}.done", cb=on_reply) for subject in builds.SUBJECTS]
    await nats.flush()
    began = perf_counter()
    async with asyncio.timeout(DEADLINE):
        for sent, (subject, body) in enumerate(requests):
            while sent - received >= WINDOW:
                progress.clear()
                await progress.wait()
            await nats.publish(subject, body)
        while received < len(requests):
            progress.clear()
            await progress.wait()
    seconds = perf_counter() - began
    for subscription in subscriptions:
        await subscription.unsubscribe()
    return len(requests) / seconds


async def round_trips(client: Client, count: int, body: bytes) -> list[float]:
    """Measure the seconds from a message of the connector to this process's immediate answer.

    It is measured at the same place, and in the same way, as the latency from a reply to the next request.
    """

    async def on_echo(message: Msg) -> None:
        await client.nats.publish(f"{message.subject}.done", message.data)

    subscription = await client.nats.subscribe(connector.ECHO, cb=on_echo)
    await client.nats.flush()
    found: list[float] = await client.command("round trips", count=count, body=body.decode())
    await subscription.unsubscribe()
    return found
