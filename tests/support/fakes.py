"""Helpers of the concurrent tests: builds, a store with gates, connectors under control of the test.

Longer than most modules: a walk needs all of these fakes together, and they know each other.
"""

import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeAlias, TypeVar

import trio
from attrs import define, field, frozen
from trio.testing import wait_all_tasks_blocked

from scheduler.bus import Listener, Message
from scheduler.config import Settings
from scheduler.definition.model import State
from scheduler.definition.subjects import REPLY_SUBJECTS
from scheduler.definition.validation import Prepared, read_build
from scheduler.dispatch.call import Call
from scheduler.dispatch.client import Capture, ConnectorClient
from scheduler.dispatch.router import Stray
from scheduler.dispatch.slots import Slots
from scheduler.dispatch.timers import Timers
from scheduler.errors import BuildLost, StoreError
from scheduler.journal.events import Accepted, Event, Finished, Settled, Started, Withdrawn
from scheduler.metrics.commits import CommitTally
from scheduler.notifying.poster import Poster
from scheduler.plan import Plan
from scheduler.runtime.executor import Executor
from scheduler.service import Service
from scheduler.stores import Journal, Store
from scheduler.stores.memory import MemoryStore
from scheduler.stores.step_journal import StepJournal
from scheduler.tracing.tracer import Tracer
from scheduler.walk import Observer
from support.fake_bus import FakeBus, Published

JSON: TypeAlias = dict[str, Any]
_T = TypeVar("_T")

REQUEST_SUBJECTS = tuple(f"*.{action}.*" for action in ("create", "update", "delete", "get", "find"))
SYSTEM = {"build", "service", "environment", "scheduler"}


def change(
    name: str, *, action: str = "create", kind: str = "vpc", provider: str = "aws", **fields: Any
) -> JSON:
    """A change to be done."""
    return {
        "_component_id": name,
        "_component": kind,
        "_action": action,
        "_provider": provider,
        "_state": "waiting",
        **fields,
    }


def document(
    changes: Iterable[str | JSON],
    edges: Iterable[tuple[str, str]] = (),
    *,
    build: str = "b1",
    action: str = "build.create",
    **fields: Any,
) -> JSON:
    """A build; changes that are given by their id are to be created."""
    return {
        "id": build,
        "name": "test",
        "action": action,
        "components": [],
        "changes": [change(one) if isinstance(one, str) else one for one in changes],
        "edges": [{"source": source, "destination": destination} for source, destination in edges],
        **fields,
    }


def unmarked(identity: str) -> str:
    """An attempt id without the mark of the build's acceptance at its end."""
    return identity.rpartition("/")[0]


def encode(value: Any) -> bytes:
    return json.dumps(value).encode()


def prepare(value: JSON, *, resumed: bool = False) -> Prepared:
    return read_build(encode(value), resumed=resumed)


Match: TypeAlias = Callable[[Event], bool]


def accepted(event: Event) -> bool:
    return isinstance(event, Accepted)


def finished(event: Event) -> bool:
    return isinstance(event, Finished)


def started(name: str) -> Match:
    """Matches the event that a component starts."""
    return lambda event: isinstance(event, Started) and event.component == name


def settled(name: str) -> Match:
    """Matches the outcome of a component."""
    return lambda event: isinstance(event, Settled) and event.component == name


def withdrawn(name: str) -> Match:
    """Matches that a component is waiting again."""
    return lambda event: isinstance(event, Withdrawn) and event.component == name


class Gate:
    """Holds appends back until it is opened."""

    def __init__(self) -> None:
        self.reached = trio.Event()
        """Set once an append waits here."""
        self._open = trio.Event()

    def open(self) -> None:
        self._open.set()

    async def passed(self) -> None:
        self.reached.set()
        await self._open.wait()


class FakeStore:
    """A store in memory that can be slow, fail, or wait at a gate; each append is a checkpoint."""

    def __init__(self, *, resumable: bool = False) -> None:
        self.name = "fake"
        self.resumable = resumable
        self.in_order = False
        self.available = True
        self.commits: CommitTally | None = None
        self.may_ask: Callable[[], bool] = lambda: True
        self.events: list[tuple[str, Event]] = []
        """Persisted events, in order."""
        self.documents: dict[str, JSON] = {}
        """Builds that `load` finds."""
        self.unfinished_ids: list[str] = []
        self.actions: dict[str, str] = {}
        """Actions that `action_of` returns."""
        self.loads: list[str] = []
        """Ids for which `load` was called, in order."""
        self.loading: Callable[[str], Any] | None = None
        """An async function that is awaited before `load` answers."""
        self.after: Callable[[str, Event], None] | None = None
        """Callback for each persisted event."""
        self.delay: Callable[[], float] | None = None
        """Says of each append how many seconds it takes."""
        self._gates: list[tuple[Match, Gate]] = []
        self._failures: list[tuple[Match, Exception]] = []

    def journal(self, build: str, on_failure: Callable[[StoreError], None]) -> Journal:
        return StepJournal(build, self.append, on_failure)

    async def settle(self) -> None:
        pass

    def close(self, build: str) -> None:
        pass

    def hold(self, match: Match) -> Gate:
        """Make appends with such an event wait."""
        gate = Gate()
        self._gates.append((match, gate))
        return gate

    def fail(self, match: Match, error: Exception) -> None:
        """Make appends with such an event raise."""
        self._failures.append((match, error))

    def recover(self) -> None:
        """Fail no more."""
        self._failures.clear()

    def of(self, build: str) -> list[Event]:
        """Return the persisted events of one build."""
        return [event for name, event in self.events if name == build]

    async def append(self, build: str, events: Sequence[Event]) -> None:
        await trio.lowlevel.checkpoint()
        if self.delay is not None:
            await trio.sleep(self.delay())
        for event in events:
            for match, gate in self._gates:
                if match(event):
                    await gate.passed()
        for event in events:
            for match, error in self._failures:
                if match(event):
                    raise error
        for event in events:
            self.events.append((build, event))
            if self.after is not None:
                self.after(build, event)

    async def load(self, build: str) -> JSON | None:
        self.loads.append(build)
        await trio.lowlevel.checkpoint()
        if self.loading is not None:
            await self.loading(build)
        return self.documents.get(build)

    async def unfinished(self) -> AsyncIterator[str]:
        for build in self.unfinished_ids:
            await trio.lowlevel.checkpoint()
            yield build

    async def action_of(self, build: str) -> str | None:
        await trio.lowlevel.checkpoint()
        return self.actions.get(build)


LOST = BuildLost("record not found")


@frozen
class Reply:
    """Reply of a connector to a request."""

    state: str | None = "completed"
    after: float | None = None
    """Seconds; None: at once, in the same breath as the request."""
    via: str = "subject"
    """``subject``, ``reply`` (the NATS reply subject) or ``both``."""
    fields: JSON = field(factory=dict)
    drop: tuple[str, ...] = ()
    """Fields that this connector does not know."""


Script: TypeAlias = Callable[[JSON], Sequence[Reply]]


def succeed(_component: JSON) -> Sequence[Reply]:
    """Answers every request with success."""
    return [Reply()]


def ignore(_component: JSON) -> Sequence[Reply]:
    """Takes every request and answers none."""
    return []


@define(eq=False)
class Cloud:
    """ConnectorClient for everything: they answer each request as the script says."""

    bus: FakeBus
    script: Script
    requests: list[tuple[Message, JSON]] = field(factory=list)
    """Requests, in order."""
    nursery: trio.Nursery | None = None

    @property
    def asked(self) -> list[str]:
        """The ids of the components that were asked for, in order."""
        return [component["_component_id"] for _, component in self.requests]

    @property
    def counts(self) -> Counter[tuple[str, str]]:
        """Number of requests for each component of each build."""
        return Counter((component["service"], component["_component_id"]) for _, component in self.requests)

    async def open(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        for subject in REQUEST_SUBJECTS:
            await self.bus.subscribe(subject, self._on_request)

    def _on_request(self, message: Message) -> None:
        if message.subject.partition(".")[0] in SYSTEM:
            return
        component = json.loads(message.data)
        self.requests.append((message, component))
        for reply in self.script(component):
            if reply.after is None:
                self.say(message, component, reply)
            else:
                assert self.nursery is not None
                self.nursery.start_soon(self._later, message, component, reply)

    async def _later(self, message: Message, component: JSON, reply: Reply) -> None:
        assert reply.after is not None
        await trio.sleep(reply.after)
        self.say(message, component, reply)

    def say(self, message: Message, component: JSON, reply: Reply) -> None:
        """Answer a request."""
        body = {key: value for key, value in component.items() if key not in reply.drop}
        if reply.state is not None:
            body["_state"] = reply.state
        body |= reply.fields
        suffix = "error" if reply.state == "errored" else "done"
        if reply.via in {"subject", "both"}:
            self.bus.deliver(f"{message.subject}.{suffix}", encode(body))
        if reply.via in {"reply", "both"}:
            self.bus.deliver(message.reply, encode(body))

    def answer(self, name: str, reply: Reply | None = None) -> None:
        """Answer the latest request for a component now."""
        for message, component in reversed(self.requests):
            if component["_component_id"] == name:
                self.say(message, component, reply or Reply())
                return
        raise AssertionError(f"{name} was not asked for")


class FakeExecutor:
    """An `Executor` without threads: a job takes no time, or as long as it is held."""

    def __init__(self) -> None:
        self.owners: list[str] = []
        """Owners of submitted jobs, in order."""
        self.long: list[bool] = []
        """Which of them were long ones."""
        self.gate: Gate | None = None
        """Gate at which jobs wait from now on."""

    async def run(self, owner: str, job: Callable[[], _T], *, long: bool = False) -> _T:
        self.owners.append(owner)
        self.long.append(long)
        await trio.lowlevel.checkpoint()
        if self.gate is not None:
            await self.gate.passed()
        return job()


class World:
    """Everything a build runs on, in memory."""

    def __init__(
        self,
        *,
        script: Script = succeed,
        store: Store | None = None,
        slots: Slots | None = None,
        bus: FakeBus | None = None,
        timeout: float = 3_600.0,
        heartbeat: float | None = None,
        start_timeout: float = 10.0,
        listener: Listener | None = None,
        shared: FakeBus | None = None,
        capture: Capture | None = None,
        on_stray: Callable[[Stray], bool] = lambda _: False,
        on_beat: Callable[[Call], None] = lambda _: None,
    ) -> None:
        self.bus = bus or FakeBus()
        self.fake_store = FakeStore()
        self.store: Store = store or self.fake_store
        if isinstance(store, FakeStore):
            self.fake_store = store
        self.slots = slots or Slots()
        self.timers = Timers(self.bus)
        self.executor = FakeExecutor()
        self.connectors = ConnectorClient(
            self.bus,
            self.timers,
            timeouts=lambda _: timeout,
            heartbeats=lambda _: heartbeat,
            start_timeout=start_timeout,
            listener=listener,
            shared=shared,
            executor=self.executor,
            capture=capture,
            on_stray=on_stray,
            on_beat=on_beat,
        )
        self.cloud = Cloud(self.bus, script)

    @property
    def sent(self) -> list[Published]:
        """The requests that reached the broker, in order."""
        return [one for one in self.bus.published if one.reply.startswith("scheduler.reply.")]

    def plan(self, value: JSON, *, resumed: bool = False) -> Plan:
        return Plan(prepare(value, resumed=resumed), resumed=resumed)


@asynccontextmanager
async def open_world(*, cloud: bool = True, **options: Any) -> AsyncIterator[World]:
    """A world whose clocks run and whose subscriptions stand; without ``cloud`` nobody takes requests."""
    world = World(**options)
    async with trio.open_nursery() as nursery:
        await nursery.start(world.timers.run)
        nursery.start_soon(world.connectors.dispatcher.run)
        nursery.start_soon(world.connectors.beats.run)
        nursery.start_soon(world.connectors.cancelling.run)
        nursery.start_soon(world.connectors.returned.run)
        await world.connectors.listen()
        if cloud:
            await world.cloud.open(nursery)
        yield world
        nursery.cancel_scope.cancel()


def states(report: JSON) -> dict[str, str]:
    """The state of each change in a report."""
    return {one["_component_id"]: one["_state"] for one in report["changes"]}


def is_reply_subject(subject: str) -> bool:
    """Tell whether connectors' replies arrive on this subscription."""
    return subject in REPLY_SUBJECTS or subject.startswith("scheduler.reply.")


class Trace:
    """Persisted events of a build and requests to connectors, in one order."""

    def __init__(self, world: World, value: JSON) -> None:
        self.steps: list[tuple[str, str]] = []
        self._ids = {one["_component_id"] for one in value["changes"] if one["_state"] != "completed"}
        self._dependencies: dict[str, set[str]] = {name: set() for name in self._ids}
        for edge in value["edges"]:
            if {edge["source"], edge["destination"]} <= self._ids:
                self._dependencies[edge["destination"]].add(edge["source"])
        self._build = value["id"]
        world.fake_store.after = self._persisted
        world.bus.lose = self._published

    def _persisted(self, build: str, event: Event) -> None:
        if build == self._build:
            kind = type(event).__name__
            if isinstance(event, Settled):
                # A late success is kept beside the outcome, which it does not change.
                kind = "adopted" if "adoptable" in event.body else str(event.body["_state"])
            self.steps.append((kind, getattr(event, "component", "")))

    def _published(self, message: Published) -> bool:
        if message.reply.startswith("scheduler.reply."):
            component = json.loads(message.data)
            if component["service"] == self._build:
                self.steps.append(("sent", component["_component_id"]))
        return False

    @property
    def sent(self) -> list[str]:
        """The components whose request left, in order."""
        return [name for kind, name in self.steps if kind == "sent"]

    def index(self, kind: str, name: str) -> int:
        return self.steps.index((kind, name))

    def check(self) -> None:
        """Check what holds at any moment (order, one outcome, at most one request)."""
        assert max(Counter(self.sent).values(), default=0) <= 1
        for position, (kind, name) in enumerate(self.steps):
            before = self.steps[:position]
            if kind == "sent":
                assert ("Started", name) in before, f"{name} left before its start was persisted"
                for dependency in self._dependencies[name]:
                    assert ("completed", dependency) in before, f"{name} left before {dependency} was done"
        outcomes = Counter(name for kind, name in self.steps if kind in {"completed", "errored"})
        assert max(outcomes.values(), default=0) <= 1
        assert sum(kind == "Finished" for kind, _ in self.steps) <= 1

    def last(self, name: str) -> str:
        """Return the last persisted state of a component."""
        passed_over = {"sent", "adopted"}
        return next(
            (kind for kind, other in reversed(self.steps) if other == name and kind not in passed_over), ""
        )


class Site:
    """A service on a bus in memory, and what one sees of it from outside."""

    def __init__(self, bus: FakeBus, service: Service, cloud: Cloud, nursery: trio.Nursery) -> None:
        self.bus = bus
        self.service = service
        self.cloud = cloud
        self.nursery = nursery

    async def submit(
        self,
        value: JSON | bytes,
        subject: str = "build.create",
        sender: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> JSON:
        """Hand a build in, on a connection of this name, and return the answer."""
        data = value if isinstance(value, bytes) else encode(value)
        inbox = f"_INBOX.{sender}.1" if sender else self.bus.new_inbox()
        answers: list[bytes] = []
        answered = trio.Event()

        def take(message: Message) -> None:
            answers.append(message.data)
            answered.set()

        subscription = await self.bus.subscribe(inbox, take)
        self.bus.deliver(subject, data, reply=inbox, headers=headers)
        await answered.wait()
        await subscription.unsubscribe()
        [answer] = answers
        decoded: JSON = json.loads(answer)
        return decoded

    async def publish(self, value: JSON | bytes, subject: str = "build.create") -> None:
        """Publish a build as Ernest does, without waiting for an answer."""
        self.bus.deliver(subject, value if isinstance(value, bytes) else encode(value))
        await wait_all_tasks_blocked()

    @property
    def reports(self) -> list[tuple[str, JSON]]:
        """Messages published on ``build.*.done`` and the like, in order."""
        return [
            (one.subject, json.loads(one.data))
            for one in self.bus.published
            if one.subject.split(".")[0] in {"build", "service"}
            and one.subject.split(".")[-1] in {"done", "error"}
        ]

    @property
    def report(self) -> tuple[str, JSON]:
        """The one report."""
        [report] = self.reports
        return report


@asynccontextmanager
async def open_service(
    *,
    script: Script = succeed,
    store: Store | None = None,
    bus: FakeBus | None = None,
    executor: Executor | None = None,
    poster: Poster | None = None,
    tracer: Tracer | None = None,
    **settings: Any,
) -> AsyncIterator[Site]:
    """Run a service until it is ready, with connectors under control of the test."""
    bus = bus or FakeBus()
    cloud = Cloud(bus, script)
    service = Service(
        Settings(**settings), bus, store or MemoryStore(), executor=executor, poster=poster, tracer=tracer
    )
    async with trio.open_nursery() as nursery:
        await cloud.open(nursery)
        await nursery.start(service.run)
        yield Site(bus, service, cloud, nursery)
        nursery.cancel_scope.cancel()


class Diary(Observer):
    """Notes what a walk tells of its components."""

    def __init__(self, ids: Sequence[str], entries: list[tuple[str, State, str | None]]) -> None:
        self.ids = ids
        self.entries = entries

    def sent(self, vertex: int, attempt: int) -> None:
        self.entries.append((self.ids[vertex], State.RUNNING, None))

    def resumed(self, vertex: int, attempt: int) -> None:
        self.sent(vertex, attempt)

    def waits(self, vertex: int) -> None:
        self.entries.append((self.ids[vertex], State.WAITING, None))

    def settled(self, vertex: int, attempt: int, error: str | None) -> None:
        state = State.COMPLETED if error is None else State.ERRORED
        self.entries.append((self.ids[vertex], state, error))
