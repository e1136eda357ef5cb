"""Durable builds without a broker: a JetStream in memory, and processes that begin and die beside it."""

import json
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from enum import Enum
from typing import Any

import trio
from attrs import define, evolve, field

from scheduler.bus import Message
from scheduler.bus.subjects import matches
from scheduler.config import Settings
from scheduler.definition.tokens import encode_token
from scheduler.jetstream.api import JetStream
from scheduler.jetstream.capturing import layout_of
from scheduler.jetstream.objects import Objects
from scheduler.jetstream.setup import set_up
from scheduler.jetstream.streams import LOG, OBJECTS, REPLIES, REPORTS, StreamLayout
from scheduler.journal.events import Event
from scheduler.journal.records import (
    DIGEST_HEADER,
    Elsewhere,
    Position,
    Record,
    compose,
    decode_record,
    encode_event,
    headers_of,
)
from scheduler.notifying.poster import Poster
from scheduler.runtime.executor import Executor
from scheduler.service import Service, Stopping
from scheduler.stores.jetstream import JetStreamStore
from scheduler.tracing.tracer import Tracer
from support.fake_bus import FakeBus, Published
from support.fake_jetstream import DAY_ZERO, SECOND, FakeJetStream, _FakeBroker
from support.fakes import JSON, Cloud, Reply, Script, Site, encode, succeed

LOGS = "scheduler.log.*"


def wall_clock() -> float:
    """Return the time of the broker's clock, in seconds since 1970."""
    return DAY_ZERO / SECOND + trio.current_time()


async def until(holds: Callable[[], object], seconds: float = 10_000.0) -> float:
    """Let time pass (of a mock clock) until something holds; the seconds that it took."""
    began = trio.current_time()
    while not holds():
        assert trio.current_time() - began < seconds
        await trio.sleep(0.01)
    return trio.current_time() - began


class Fate(Enum):
    """Fate of a message to JetStream."""

    PASS = "it arrives, and is answered"
    LOSE = "it never arrives"
    MUTE = "it arrives, and the answer is lost"
    HOLD = "it is under way until it is let go"


class Line:
    """Line between a bus and JetStream, on which messages or answers may be lost or late."""

    def __init__(self, jetstream: FakeJetStream) -> None:
        self.jetstream = jetstream
        self.held: list[Published] = []
        """Messages under way, in order."""
        self.passed: list[Published] = []
        """Messages that arrived, in order."""
        self._fates: list[tuple[str, deque[Fate]]] = []

    def plan(self, subject: str, *fates: Fate) -> None:
        """The next messages on a subject (a pattern) fare so, one after another."""
        self._fates.append((subject, deque(fates)))

    def take(self, message: Published) -> bool:
        """As `FakeJetStream.take`."""
        fate = Fate.PASS
        for pattern, fates in self._fates:
            if fates and matches(pattern, message.subject):
                fate = fates.popleft()
                break
        match fate:
            case Fate.LOSE:
                return True
            case Fate.HOLD:
                self.held.append(message)
                return True
            case Fate.MUTE:
                message = evolve(message, reply="")
        self.passed.append(message)
        return self.jetstream.take(message)

    def release(self, subject: str = ">", *, answered: bool = True) -> None:
        """Deliver the messages under way; their answers arrive if ``answered``, or are lost."""
        held = [message for message in self.held if matches(subject, message.subject)]
        self.held = [message for message in self.held if not matches(subject, message.subject)]
        for message in held:
            arrived = message if answered else evolve(message, reply="")
            self.passed.append(arrived)
            self.jetstream.take(arrived)

    async def reached(self, subject: str) -> None:
        """Wait until a message on a subject (a pattern) is held."""
        await until(lambda: any(matches(subject, message.subject) for message in self.held))

    def clear(self) -> None:
        """From now on all is well."""
        self._fates.clear()
        self.release()


@define
class Broker:
    """A JetStream that outlives its clients; one bus at a time is connected to it."""

    bus: FakeBus = field(factory=FakeBus)
    jetstream: FakeJetStream = field(init=False)
    line: Line = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.jetstream = FakeJetStream(_FakeBroker(self.bus))
        self.line = Line(self.jetstream)
        self.bus.taps.append(self.line.take)

    def plug(self, bus: FakeBus | None = None) -> FakeBus:
        """Connect another bus instead: what the last one says arrives no more."""
        self.bus.disconnect()
        self.bus = bus or FakeBus()
        self.jetstream._broker = _FakeBroker(self.bus)
        self.jetstream.restart()
        self.bus.taps.append(self.line.take)
        return self.bus

    async def set_up(self) -> None:
        """Make the streams."""
        assert await set_up(JetStream(self.bus), StreamLayout()) == []

    def publish(self, subject: str, data: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Publish as another client, whether or not a bus is connected."""
        if self.bus.connected:
            self.bus.deliver(subject, data, headers=headers)
        else:
            self.jetstream.take(Published(subject, data, "", headers))

    # What stands in it.

    def messages(self, stream: str, subject: str = ">") -> list[Any]:
        """Return the messages of a stream on a subject, in order."""
        kept = self.jetstream.streams[stream].messages.values()
        return [one for one in kept if matches(subject, one.subject)]

    def records(self, build: str = "b1") -> list[Record]:
        """The log of a build."""
        return [decode_record(one.data) for one in self.messages(LOG, log_of(build))]

    def told(self, build: str = "b1") -> list[list[str]]:
        """The log of a build in words, by record: ``started a``."""
        return [[word(event) for event in record.events] for record in self.records(build)]

    def headers(self, build: str = "b1") -> list[Mapping[str, str]]:
        """The headers of a build's records."""
        return [one.headers or {} for one in self.messages(LOG, log_of(build))]

    def positions(self, build: str = "b1") -> list[int]:
        """Of each record, up to which reply it says that all were dealt with."""
        return [record.position.sequence for record in self.records(build)]

    def reports(self, build: str = "b1") -> list[JSON]:
        """The reports of a build that are stored."""
        subject = f"scheduler.report.{encode_token(build)}.*"
        return [json.loads(one.data) for one in self.messages(REPORTS, subject)]

    @property
    def replies(self) -> int:
        """Number of replies ever captured."""
        return self.jetstream.streams[REPLIES].last

    @property
    def objects(self) -> list[str]:
        """The names of the objects that are visible."""
        metas = [json.loads(one.data) for one in self.messages(OBJECTS, "$O.*.M.>")]
        return [meta["name"] for meta in metas if not meta.get("deleted")]

    def write(
        self,
        *events: Event | Elsewhere,
        build: str = "b1",
        epoch: int = 1,
        status: str = "open",
        loads: int = 0,
        at: float | None = None,
        position: Position | None = None,
        digest: str = "",
    ) -> None:
        """Append a record to a log, as another process would."""
        n = len(self.messages(LOG, log_of(build))) + 1
        record_id = f"other-{epoch}-{n}-0123abcd"
        data = compose(
            n=n,
            epoch=epoch,
            instance="other",
            record_id=record_id,
            at=int((wall_clock() if at is None else at) * 1_000),
            position=position or Position(),
            events=[encode_event(event) for event in events],
        )
        said = headers_of(record_id, status, loads)
        if digest:
            said[DIGEST_HEADER] = digest
        self.jetstream.take(Published(log_of(build), data, "", said))


def log_of(build: str) -> str:
    """Return the place of a build's log."""
    return f"scheduler.log.{encode_token(build)}"


def word(event: Event | Elsewhere) -> str:
    """An event in a word or two."""
    name = type(event).__name__.lower()
    component = getattr(event, "component", "")
    return f"{name} {component}" if component else name


def flat(told: Iterable[list[str]]) -> list[str]:
    """Return the events of a log, without their records."""
    return [one for record in told for one in record]


@asynccontextmanager
async def open_store(broker: Broker, **options: Any) -> AsyncIterator[JetStreamStore]:
    """A store that runs; at the end its process dies."""
    if LOG not in broker.jetstream.streams:
        await broker.set_up()
    options = {"instance": "me", "wall_clock": wall_clock, **options}
    store = JetStreamStore(broker.bus, **options)
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        yield store
        nursery.cancel_scope.cancel()


class Process(Site):
    """A service with a durable store, until it dies."""

    def __init__(
        self, bus: FakeBus, service: Service, cloud: Cloud, nursery: trio.Nursery, store: JetStreamStore
    ) -> None:
        super().__init__(bus, service, cloud, nursery)
        self.store = store

    @property
    def requests(self) -> list[str]:
        """The components that this process sent requests for, in order."""
        sent = [one for one in self.bus.published if one.reply.startswith("scheduler.reply.")]
        return [json.loads(one.data)["_component_id"] for one in sent]


class Plant:
    """A broker and connectors, and schedulers that are started beside them one after another.

    Args:
        script: what connectors say; they take requests while a process is there.
        settings: of all processes.
    """

    def __init__(self, script: Script = succeed, *, lays: bool = False, **settings: Any) -> None:
        self.broker = Broker()
        self.lays = lays
        """Whether each process sets up the streams, by its settings."""
        self.script = script
        self.settings = settings
        self.started = 0
        self.wall_clock = wall_clock
        """Of the processes to come."""
        self.requests: list[tuple[Message, JSON]] = []
        """Requests of all processes to connectors, in order."""
        self.executor: Executor | None = None
        """Of the processes to come; None: theirs."""
        self.poster: Poster | None = None
        """Posts the notifications of the processes to come; None: they make their own."""
        self.stopping: Stopping | None = None
        """Stops the next process; None: it is stopped by itself."""
        self.tracer: Tracer | None = None
        """Begins the traces of builds of the processes to come."""

    def answer(self, name: str, reply: Reply | None = None) -> None:
        """Answer the last request for a component as its connector, even without a listener."""
        reply = reply or Reply()
        for message, component in reversed(self.requests):
            if component["_component_id"] == name:
                body = encode({**component, "_state": reply.state, **reply.fields})
                suffix = "error" if reply.state == "errored" else "done"
                to = message.reply if reply.via == "reply" else f"{message.subject}.{suffix}"
                self.broker.publish(to, body)
                return
        raise AssertionError(f"{name} was not asked for")

    @asynccontextmanager
    async def run(
        self, script: Script | None = None, *, connectors: bool = True, **settings: Any
    ) -> AsyncIterator[Process]:
        """A process that is ready; at the end it dies without another word."""
        self.started += 1
        bus = self.broker.plug() if self.started > 1 else self.broker.bus
        if LOG not in self.broker.jetstream.streams and not self.lays:
            await self.broker.set_up()
        options = Settings(**{**self.settings, **settings})
        store = JetStreamStore(
            bus,
            instance=f"p{self.started}",
            wall_clock=self.wall_clock,
            layout=layout_of(options),
            lays=self.lays,
        )
        cloud = Cloud(bus, script or self.script, self.requests)
        service = Service(
            options,
            bus,
            store,
            executor=self.executor,
            poster=self.poster,
            tracer=self.tracer,
            stopping=self.stopping,
        )
        async with trio.open_nursery() as nursery:
            if connectors:
                await cloud.open(nursery)
            await nursery.start(service.run)
            try:
                yield Process(bus, service, cloud, nursery, store)
            finally:
                bus.disconnect()
                nursery.cancel_scope.cancel()


class Peer:
    """Another scheduler on the same broker, as far as it is seen from here."""

    def __init__(self, process: Process, name: str = "other") -> None:
        self._bus = process.bus
        self._name = name
        self.there = True

    async def open(self) -> None:
        await self._bus.subscribe("$SRV.PING.scheduler", self._answer)

    def _answer(self, message: Message) -> None:
        if self.there:
            self._bus.deliver(message.reply, encode({"name": "scheduler", "id": self._name}))


async def stored(broker: Broker, name: str) -> bytes | None:
    """The content of an object."""
    return await Objects(JetStream(broker.bus)).get(name, most=1 << 40)
