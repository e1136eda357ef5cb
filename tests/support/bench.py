"""Connectors on a bus in memory, and whoever waits for their replies."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
from trio.testing import wait_all_tasks_blocked

from scheduler.bus import Message
from scheduler.dispatch.call import Call, Signal
from scheduler.dispatch.router import Stray
from scheduler.journal.records import Position
from scheduler.plan import Plan, Request
from scheduler.plan.outcome import Outcome
from support.fake_bus import Published
from support.fakes import JSON, World, change, document, encode, open_world, prepare

SUBJECT = "vpc.create.aws"
KEY = "0123456789abcdef0123456789abcdef"


def request(name: str = "a", *, build: str = "b1", **fields: Any) -> Request:
    """The request for a build's only component."""
    step = Plan(prepare(document([change(name, **fields)], build=build))).begin(0)
    assert isinstance(step, Request)
    return step


class Attempt:
    """A call, and how it ended."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.ended: list[Outcome | Signal] = []

    async def run(self) -> None:
        self.ended.append(await self.call.outcome())

    @property
    def outcome(self) -> Outcome:
        """The one outcome that there is."""
        [outcome] = self.ended
        assert isinstance(outcome, Outcome)
        return outcome

    @property
    def failed(self) -> str:
        """Why it failed, as it did."""
        outcome = self.outcome
        assert not outcome.completed
        assert outcome.error
        return outcome.error


class KeptStrays:
    """Keeps every reply for a build that is not held."""

    def __init__(self) -> None:
        self.kept: list[Stray] = []

    def keep(self, stray: Stray) -> bool:
        """Keep one."""
        self.kept.append(stray)
        return True


class Bench:
    """A waiter table on a bus on which requests are taken, and nobody answers by himself."""

    def __init__(self, world: World, nursery: trio.Nursery) -> None:
        self.world = world
        self.bus = world.bus
        self.connectors = world.connectors
        self.nursery = nursery

    async def send(self, one: Request | None = None) -> Attempt:
        """Send a request and wait until it got as far as it gets."""
        return await self.watch(self.connectors.send(one or request()))

    async def watch(self, call: Call) -> Attempt:
        attempt = Attempt(call)
        self.nursery.start_soon(attempt.run)
        await wait_all_tasks_blocked()
        return attempt

    async def say(self, subject: str, body: Any, headers: dict[str, str] | None = None) -> None:
        """Publish as another client."""
        data = body if isinstance(body, bytes) else encode(body)
        self.bus.deliver(subject, data, headers=headers)
        await wait_all_tasks_blocked()

    async def take_requests(self, subject: str = SUBJECT) -> None:
        """Subscribe as another client that never answers."""
        await self.bus.subscribe(subject, lambda _: None)

    @property
    def requests(self) -> list[Published]:
        return self.world.sent


@asynccontextmanager
async def open_bench(*, listening: bool = True, **options: Any) -> AsyncIterator[Bench]:
    async with open_world(cloud=False, **options) as world, trio.open_nursery() as nursery:
        bench = Bench(world, nursery)
        if listening:
            await bench.take_requests()
        yield bench
        nursery.cancel_scope.cancel()


def reply(**fields: Any) -> JSON:
    """A reply to the request for component a of build b1."""
    return {**change("a"), "service": "b1", "_state": "running", **fields}


def place(sequence: int) -> Position:
    return Position(sequence, sequence * 10)


def capture(bench: Bench, subject: str, body: JSON, sequence: int) -> None:
    """Have the stream's next message be this reply."""
    bench.connectors.on_captured(Message(subject, encode(body)), place(sequence))


def dealt_with(bench: Bench, build: str = "b1") -> int:
    """Up to which captured reply a record of a build may say that all were dealt with."""
    return bench.connectors.positions.position(build).sequence
