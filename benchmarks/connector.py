"""Connector of every measurement: a bare nats-py loop, in a separate process.

It answers each request on ``<subject>.done`` at once, for the scheduler and for the bare loop. On `CONTROL`
it takes commands: to hold or delay replies, to answer on reply subjects, to note the times of messages, to
measure a bare round trip.
"""

import asyncio
import sys
from collections.abc import Sequence
from time import perf_counter
from typing import Any

import msgspec
import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

from benchmarks import builds

CONTROL = "bench.control"
ECHO = "bench.echo"
"""Subject of the bare round trip: here the benchmark process answers on ``.done``, as a connector does."""
READY = "ready"


class _Asked(msgspec.Struct):
    bench_seconds: float | None = None


class Connector:
    """Connector that answers requests."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.hold = b""
        """Text of requests whose replies are held."""
        self.answers: int | None = None
        """Number of requests answered before all other replies are held; None without a limit."""
        self.delay: float | None = None
        """Delay of an answer in seconds, unless the request names one; None: at once, without looking."""
        self.directly = False
        """Whether it answers on the request's own reply subject."""
        self.answering: set[asyncio.Task[None]] = set()
        self.held: list[Msg] = []
        self.kept = asyncio.Event()
        self.arrived = asyncio.Event()
        self.tracing = False
        self.came: list[float] = []
        self.went: list[float] = []

    async def on_request(self, message: Msg) -> None:
        """Answer a request, unless its reply is to be held or delayed."""
        if self.tracing:
            self.came.append(perf_counter())
            self.arrived.set()
        if self.answers == 0 or (self.hold and self.hold in message.data):
            self.held.append(message)
            self.kept.set()
            return
        if self.answers is not None:
            self.answers -= 1
        if self.delay is not None:
            asked = msgspec.json.decode(message.data, type=_Asked)
            seconds = self.delay if asked.bench_seconds is None else asked.bench_seconds
            asyncio.get_running_loop().call_later(seconds, self.begin_answer, message)
            return
        await self.answer(message)
        if self.tracing:
            self.went.append(perf_counter())

    def begin_answer(self, message: Msg) -> None:
        """Answer in a separate task."""
        task = asyncio.ensure_future(self.answer(message))
        self.answering.add(task)
        task.add_done_callback(self.answering.discard)

    async def answer(self, message: Msg) -> None:
        """Reply with the completed component."""
        subject = message.reply if self.directly else f"{message.subject}.done"
        await self.client.publish(subject, builds.answer(message.data))

    async def on_command(self, message: Msg) -> None:
        """Carry out a command, and answer."""
        command = msgspec.json.decode(message.data)
        result: Any = None
        match command["do"]:
            case "hold":
                self.hold = command["text"].encode()
            case "delay":
                self.delay = command["seconds"]
            case "answer directly":
                self.directly = command["directly"]
            case "answer":
                self.answers = command["count"]
            case "release":
                self.hold, self.answers = b"", None
                for held in self.held:
                    await self.answer(held)
                self.held.clear()
            case "await held":
                while len(self.held) < command["count"]:
                    self.kept.clear()
                    await self.kept.wait()
            case "trace":
                self.came, self.went, self.tracing = [], [], True
                self.arrived.clear()
            case "first request":
                # The machine's clock.
                await self.arrived.wait()
                self.tracing = False
                result = self.came[0]
            case "latencies":
                # In one chain each reply but the last is followed by one request.
                self.tracing = False
                result = [came - went for went, came in zip(self.went, self.came[1:], strict=False)]
            case "round trips":
                # Not in the callback of this subscription's queue, since the answer takes a while.
                result = await self.round_trips(command["count"], command["body"].encode())
        await message.respond(msgspec.json.encode(result))

    async def round_trips(self, times: int, body: bytes) -> list[float]:
        """Measure seconds from messages to their answers, one after another."""
        came: asyncio.Queue[float] = asyncio.Queue()

        async def on_answer(_: Msg) -> None:
            came.put_nowait(perf_counter())

        subscription = await self.client.subscribe(f"{ECHO}.done", cb=on_answer)
        found = []
        for _ in range(times):
            await self.client.publish(ECHO, body)
            went = perf_counter()
            found.append(await came.get() - went)
        await subscription.unsubscribe()
        return found


async def main(urls: Sequence[str]) -> None:
    """Serve at each URL until standard input ends, so that it never outlives its parent."""
    clients = [await _serve(url) for url in urls]
    sys.stdout.write(f"{READY}\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    for client in clients:
        await client.close()


async def _serve(url: str) -> Client:
    client = await nats.connect(url)
    connector = Connector(client)
    for subject in builds.SUBJECTS:
        await client.subscribe(subject, cb=connector.on_request)
    await client.subscribe(CONTROL, cb=connector.on_command)
    await client.flush()
    return client


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
