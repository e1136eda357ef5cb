"""Walks of one build, on the mock clock, with connectors under control of the test."""

import json
import random
from collections.abc import Callable, Sequence
from typing import Any

import trio
from trio.testing import wait_all_tasks_blocked

from scheduler.definition.model import State
from scheduler.errors import Refused, StoreError
from scheduler.journal.events import Event, Sent, Started
from scheduler.journal.orders import Order
from scheduler.stores import Departure, Journal
from scheduler.walk import Observer, Steering, Walk
from support.durable import word
from support.fakes import (
    JSON,
    Diary,
    FakeStore,
    Reply,
    World,
    change,
)
from support.logs import NOW


class Relay(Observer):
    """Tells another observer, which may be exchanged."""

    def __init__(self, to: Observer) -> None:
        self.to = to

    def __getattribute__(self, name: str) -> Any:
        return object.__getattribute__(self, name) if name == "to" else getattr(self.to, name)


class Run:
    """A walk in a task of its own, and its end."""

    def __init__(
        self, world: World, value: JSON, *, resumed: bool = False, priorities: Sequence[float] = ()
    ) -> None:
        self.world = world
        self.observed: list[tuple[str, State, str | None]] = []
        self.plan = world.plan(value, resumed=resumed)
        self.told = Relay(Diary(self.plan.graph.ids, self.observed))
        """What the walk tells; tests may have it told to another observer."""
        self.walk = Walk(
            self.plan,
            world.connectors,
            world.store,
            world.slots,
            self.told,
            priorities=priorities,
            executor=world.executor,
        )
        self.ends = 0
        self.report: JSON | None = None

    async def go(self) -> None:
        report = await self.walk.run()
        self.report = None if report is None else json.loads(b"".join(report.chunks()))
        self.ends += 1

    async def start(self, nursery: trio.Nursery) -> None:
        """Start it and let it get as far as it gets."""
        nursery.start_soon(self.go)
        await wait_all_tasks_blocked()

    @property
    def events(self) -> list[Event]:
        return self.world.fake_store.of(self.walk.id)

    @property
    def done(self) -> JSON:
        """The one report there is."""
        assert self.ends == 1
        assert self.report is not None
        return self.report

    def check_end(self) -> None:
        """Check what holds at the end of every walk."""
        assert self.plan.phases.in_flight == 0
        assert self.world.slots.taken == 0
        assert self.world.slots.waiters == 0
        assert self.world.slots.budget.in_flight == 0
        assert not self.walk._unsent.sizes
        assert self.world.connectors.router.by_component == {}
        assert self.world.connectors.router.by_token == {}


def fail(*names: str) -> Callable[[JSON], Sequence[Reply]]:
    """Connectors that fail these components, and do the others."""

    def script(component: JSON) -> Sequence[Reply]:
        if component["_component_id"] in names:
            return [Reply("errored", fields={"error": "quota exceeded"})]
        return [Reply()]

    return script


def steering_of(run: Run) -> Steering:
    """The commands of a build that is under way; refused where it is not."""
    return run.walk.steer()


def attempts(world: World, name: str) -> list[str]:
    """The attempt ids under which a component was asked for, in order."""
    return [
        (message.headers or {})["Nats-Msg-Id"]
        for message, component in world.cloud.requests
        if component["_component_id"] == name
    ]


def retrying(name: str, **retry: Any) -> JSON:
    return change(name, _retry={"attempts": 3, "backoff": 0, **retry})


async def tick(seconds: float = 0.0) -> None:
    await trio.sleep(seconds)
    await wait_all_tasks_blocked()


ORDERS = ("pause", "resume", "cancel", "cancel now", "retry", "retry now", "supply", "extend", "limit")


def attempts_of(world: World) -> list[str]:
    return [(message.headers or {})["Nats-Msg-Id"] for message, _ in world.cloud.requests]


async def steer(run: Run, order: str, vertex: int) -> None:
    """Give one order; that it is refused is fine."""
    try:
        wheel = steering_of(run)
        match order:
            case "pause":
                await wheel.pause()
            case "resume":
                await wheel.resume()
            case "cancel" | "cancel now":
                await wheel.cancel(now=order == "cancel now", reason="")
            case "retry":
                await wheel.retry(vertex if vertex % 2 else None)
            case "retry now":
                await wheel.retry_now(vertex, reason="")
            case "supply":
                await wheel.supply(vertex, {"out": 1})
            case "extend":
                await wheel.extend(vertex, 1)
            case _:
                await wheel.limit({"vpc.*.*": 1 + vertex % 3})
    except Refused:
        pass


_LATENCY = 0.001
"""Seconds that a broker needs at least: no answer comes in the moment of the question."""


class Ordered(FakeStore):
    """Base of stores that take events at once, and persist them in order."""

    def __init__(self) -> None:
        super().__init__(resumable=True)
        self.in_order = True

    def note(self, *events: Event) -> int:
        raise NotImplementedError

    async def persisted(self, number: int) -> None:
        raise NotImplementedError

    def note_sent(self, event: Sent, departure: Departure) -> None:
        raise NotImplementedError

    def journal(self, build: str, on_failure: Callable[[StoreError], None]) -> Journal:
        return OrderedJournal(build, self, on_failure)


class OrderedJournal:
    """Journal of a build in such a store."""

    in_order = True
    begin_waits = False
    ends = 0

    def __init__(self, build: str, store: Ordered, on_failure: Callable[[StoreError], None]) -> None:
        self.build = build
        self.store = store
        self.on_failure = on_failure

    def end(self, event: Event, then: Callable[[], None]) -> None:
        self.store.note(event)
        then()

    async def ended(self) -> None:
        pass

    async def begin(self, event: Started) -> tuple[int, bool]:
        return self.store.note(event), False

    async def persisted(self, number: int) -> None:
        await self.store.persisted(number)

    def record(self, *events: Event, lazily: bool = False) -> None:
        self.store.note(*events)

    def record_sent(self, event: Sent, departure: Departure) -> None:
        self.store.note_sent(event, departure)

    async def commit(self, *events: Event, order: Order | None = None) -> None:
        await self.store.append(self.build, events)

    def close(self) -> None:
        self.on_failure = lambda _: None


class Log(Ordered):
    """Store that keeps events in the order of a build's log, and nothing else."""

    def __init__(self, luck: random.Random) -> None:
        super().__init__()
        self.records: list[tuple[int, list[Event]]] = []
        """Kept events by record, with the time of each record."""
        self._luck = luck
        self._queue: list[Event] = []
        self._lazy: list[Event] = []
        self._leaving: list[tuple[Sent, Departure]] = []
        self._put = self._committed = 0
        self._lane = trio.Lock()

    def note(self, *events: Event) -> int:
        self._queue += events
        self._put += len(events)
        return self._put

    async def persisted(self, number: int) -> None:
        await self._commit(number)

    def note_sent(self, event: Sent, departure: Departure) -> None:
        self._leaving.append((event, departure))

    @property
    def now(self) -> int:
        """Time of the next record."""
        return NOW + int(trio.current_time() * 1_000)

    def forget(self) -> None:
        """The process has died: what is not kept is gone."""
        self._queue, self._lazy, self._leaving = [], [], []
        self._committed = self._put

    async def append(self, build: str, events: Sequence[Event]) -> None:
        await self._commit(self.note(*events))

    async def _commit(self, put: int) -> None:
        async with self._lane:
            if self._committed >= put:
                return
            taken, self._queue = self._queue, []
            events, at = [*self._lazy, *taken], self.now
            self._lazy, leaving = [], list(self._leaving)
            arrives = self._luck.choice((0.0, 1.0)) * (seconds := self._luck.choice((_LATENCY, 1.0)))
            await trio.sleep(arrives)
            # Whether or not the answer comes: it is kept now.
            self.records.append((at, events))
            await trio.sleep(seconds - arrives + _LATENCY)
            self._committed += len(taken)
            # As `stores.log` does it: what went out before, and still waits, has arrived.
            del self._leaving[: len(leaving)]
            for event, departure in leaving:
                if not (departure.closed or departure.unheard or departure.reached):
                    departure.reached = True
                    self._lazy.append(event)


class OrderedStore(Ordered):
    """Store that takes events at once and commits in order, when an append is awaited or a little later."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []
        """Events in order, committed or not."""
        self.departures: list[tuple[Sent, Departure]] = []
        self.failure: StoreError | None = None
        self._noted: list[Event] = []
        self._number = self._committed = 0
        self._lock = trio.Lock()
        self._handler: Callable[[StoreError], None] = lambda _: None

    def note(self, *events: Event) -> int:
        self.told += map(word, events)
        self._noted += events
        self._number += len(events)
        return self._number

    async def persisted(self, number: int) -> None:
        async with self._lock:
            if self._committed < number:
                self._committed = self._number
                await self._commit([])

    def note_sent(self, event: Sent, departure: Departure) -> None:
        self.departures.append((event, departure))

    def journal(self, build: str, on_failure: Callable[[StoreError], None]) -> Journal:
        self._handler = on_failure
        return super().journal(build, on_failure)

    def lose(self, error: StoreError) -> None:
        """Fail all commits from now on, and tell the callers that asked for them."""
        self.failure = error
        self._handler(error)

    async def append(self, build: str, events: Sequence[Event]) -> None:
        self.told += map(word, events)
        await self._commit(events)

    async def _commit(self, events: Sequence[Event]) -> None:
        noted, self._noted = self._noted, []
        if self.failure is not None:
            await trio.lowlevel.checkpoint()
            raise self.failure
        await super().append("b1", [*noted, *events])

    @property
    def committed(self) -> list[str]:
        return [word(event) for _, event in self.events]
