"""Other instances of a fleet, as far as they are seen from one, and the control of that one."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
from attrs import define, evolve, field

from scheduler.bus import Message
from scheduler.config import Settings
from scheduler.control.endpoint import Control
from scheduler.control.eta import EtaEstimator
from scheduler.control.parts import Parts
from scheduler.fleet.absences import answer_of
from scheduler.fleet.bucket import LeaseBucket
from scheduler.fleet.fleet import Fleet
from scheduler.fleet.lease import PERIOD, Lease, Load, Standing
from scheduler.jetstream.api import JetStream
from scheduler.recovery.replaying import Replayer
from scheduler.service import Service
from scheduler.stores.jetstream import JetStreamStore
from support.asking import Answer
from support.durable import Broker, open_store, until, wall_clock
from support.fakes import JSON, encode

Said = Callable[[str, JSON], Any]
"""Function for the answer to a verb and a question; None: none is given."""


@define
class Other:
    """Another instance: keeps its lease, and answers what a test says.

    Its process is called as `Broker.write` calls the writer of records.
    """

    broker: Broker
    name: str = "beta"
    instance: str = "other"
    lease: Lease = field(init=False)
    says: Said = lambda verb, question: {"id": question.get("id"), "status": verb}
    there: bool = True
    """Whether it answers whether it is there."""
    renews: bool = True
    asked: list[tuple[str, JSON, dict[str, str]]] = field(factory=list)
    """Verb, question and headers of all that it was asked, in order."""

    def __attrs_post_init__(self) -> None:
        began = wall_clock()
        self.lease = Lease(
            instance=self.instance, name=self.name, version="1", began=began, load=Load(2, 30, 4)
        )

    async def open(self, nursery: trio.Nursery) -> None:
        """Take the lease, and answer from now on."""
        await self.broker.bus.subscribe(f"scheduler.instance.{self.name}.*", self._handle)
        await self.renew()
        nursery.start_soon(self._renew_often)

    async def renew(self, standing: Standing = Standing.ACTIVE) -> None:
        """Renew the lease."""
        bucket = LeaseBucket(JetStream(self.broker.bus))
        last = await bucket.last(self.name)
        self.lease = Lease(
            instance=self.instance,
            name=self.name,
            version=self.lease.version,
            began=self.lease.began,
            renewed=wall_clock(),
            load=self.lease.load,
            standing=standing,
            limits=self.lease.limits,
        )
        await bucket.write(self.name, self.lease, expected=0 if last is None else last.sequence)

    async def _renew_often(self) -> None:
        while True:
            await trio.sleep(PERIOD)
            if self.renews:
                await self.renew()

    def _handle(self, message: Message) -> None:
        verb = message.subject.rpartition(".")[2]
        if verb == "ping":
            if self.there:
                self.broker.bus.deliver(message.reply, answer_of(self.instance))
            return
        question = json.loads(message.data)
        self.asked.append((verb, question, dict(message.headers or {})))
        said = self.says(verb, question)
        if said is not None:
            body, headers = said if isinstance(said, tuple) else (said, None)
            self.broker.bus.deliver(message.reply, encode(body), headers=headers)


@define
class Desk:
    """The control of one instance, ``alpha``, whose store and leases are real."""

    broker: Broker
    store: JetStreamStore
    fleet: Fleet
    parts: Parts
    control: Control
    nursery: trio.Nursery

    async def join(self, **options: Any) -> Other:
        """Have another instance join, and wait until it is seen here."""
        other = Other(self.broker, **options)
        await other.open(self.nursery)
        await until(lambda: other.instance in self.fleet.owners(), 10)
        return other

    async def ask_raw(
        self, verb: str, data: bytes, *, to: str = "scheduler.build.", headers: dict[str, str] | None = None
    ) -> Answer:
        """Ask as an operator does, or ``to`` the subjects of the instance as another one does."""
        message = await self.broker.bus.request(f"{to}{verb}", data, headers=headers)
        return Answer(json.loads(message.data), dict(message.headers or {}))

    async def ask(self, verb: str, build: str = "b1", **fields: Any) -> JSON:
        """Return the answer to a question, which must not be refused."""
        answer = await self.ask_raw(verb, encode({"id": build, **fields}))
        assert answer.headers == {}, answer.body
        return answer.body

    async def refused(self, verb: str, build: str = "b1", **fields: Any) -> tuple[str, str]:
        """The code and the text with which a question is refused."""
        answer = await self.ask_raw(verb, encode({"id": build, **fields}))
        return answer.code, answer.text

    @property
    def log_reads(self) -> int:
        """Number of times that somebody read a message of the logs."""
        asked = [one.subject for one in self.broker.bus.published]
        return asked.count("$JS.API.STREAM.MSG.GET.SCHEDULER_LOG")


@asynccontextmanager
async def open_desk(*, shared: bool = True) -> AsyncIterator[Desk]:
    """A control that answers; not ``shared``: as of a store that only one process uses."""
    broker = Broker()
    async with open_store(broker) as store, trio.open_nursery() as nursery:
        service = Service(Settings(), broker.bus, store)
        fleet = Fleet(store.js, instance="me", name="alpha", version="1", wall_clock=wall_clock)
        await fleet.join()
        nursery.start_soon(fleet.run)
        parts = Parts.of(
            service.roster,
            store,
            service.slots,
            eta=EtaEstimator(service.planner.durations, (), 1),
            reader=service.reader,
            replayer=Replayer(store, service.planner, service.reader.read_accepted),
        )
        parts = evolve(parts, fleet=fleet if shared else None)
        control = Control(broker.bus, parts)
        await nursery.start(control.run)
        yield Desk(broker, store, fleet, parts, control, nursery)
        nursery.cancel_scope.cancel()
