"""Runs a scenario: the real service in a simulated world, with everything that goes wrong on the way."""

import json
import random
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from typing import Any, TypeAlias
from unittest import mock

import attrs
import trio
from attrs import define, field
from fake_jetstream import NO_ROOM, UNAVAILABLE, Kept, Later, Stream

import scheduler.process
from scheduler.config import Settings, parse_resend
from scheduler.errors import NoResponders
from scheduler.process import open_store
from scheduler.service import Service
from scheduler.stores.jetstream import JetStreamStore
from simulation import determinism
from simulation.connectors import TYPES, Connector
from simulation.scenario import MOMENTS, Fault, Scenario, Submission, imagine
from simulation.trace import Trace
from simulation.world import SimBus, World

JSON: TypeAlias = dict[str, Any]

LONGEST = 150.0
"""Seconds after the last fault within which every build has to be over."""
_ASK_AGAIN_AFTER = 2.0
_AFTERMATH = 1.0
"""Seconds that the world goes on after that: nothing more may happen to the builds."""
_MOST_STEPS = 60_000
LOG = "SCHEDULER_LOG"


@define(eq=False)
class Process:
    """One process of the service."""

    driver: "Driver"
    name: str
    bus: SimBus = field(init=False)
    service: Service | None = None
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    over: trio.Event = field(factory=trio.Event)

    def __attrs_post_init__(self) -> None:
        self.bus = SimBus(self.driver.world, self.name)

    async def run(self) -> None:
        """What `scheduler serve` does, over the simulated bus."""
        WHO.set(self)
        trace = self.driver.trace
        trace.add("starts", self.name)
        settings = attrs.evolve(self.driver.settings, name=self.name)
        try:
            with self.scope:
                await self.bus.connect()
                store = await open_store(settings, self.bus)
                self.service = Service(settings, self.bus, store)
                await self.service.run()
        except Exception as error:  # noqa: BLE001 - it is what the process ends with
            # What comes out of a killed process is nobody's business: it could not say so.
            if not self.bus.dead:
                trace.add("fails", self.name, detail=_unwrapped(error))
        finally:
            self.over.set()
            if not self.bus.dead:
                trace.add("ends", self.name)
                self.bus.die(keep=1_000_000)
                self.driver.ended()

    def kill(self) -> None:
        """kill -9: in this very moment, wherever it is."""
        if self.alive:
            self.driver.trace.add("killed", self.name)
            self.bus.die(keep=self.driver.world.rng.choice((0, 1, 1_000_000)))
            self.scope.cancel()

    @property
    def alive(self) -> bool:
        """Whether it is there."""
        return not self.over.is_set() and not self.bus.dead


WHO: ContextVar[Process | None] = ContextVar("WHO", default=None)
"""The process that a task belongs to."""


def _unwrapped(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return repr(error)


class Driver:
    """One run of one scenario."""

    def __init__(self, scenario: Scenario, later: Later) -> None:
        self.scenario = scenario
        self.trace = Trace()
        self.rng = random.Random(f"driver {scenario.seed}")
        self.world = World(random.Random(f"world {scenario.seed}"), self.trace, later)
        self.settings = Settings(
            store="jetstream",
            attempt_timeout=scenario.attempt_timeout,
            start_timeout=scenario.start_timeout,
            resend=parse_resend(scenario.resend),
            grace=scenario.grace,
        )
        self.processes: list[Process] = []
        self.connectors = [
            Connector(self.world, f"{kind}-connector", kind, manners)
            for kind, manners in zip(TYPES, scenario.manners, strict=True)
        ]
        self.client = SimBus(self.world, "client")
        self.over: set[str] = set()
        self.stuck = False
        """Whether the run did not come to its end."""
        self._nursery: trio.Nursery | None = None
        self._submitting = 0
        self._progress = trio.Event()

    def log(self, level: str, event: JSON) -> None:
        """Note what the package logs as an error."""
        process = WHO.get()
        # What a killed process would have logged nobody ever reads.
        if self._nursery is not None and (process is None or not process.bus.dead):
            self.trace.add("logs", level, detail=f"{event.get('event')}: {event.get('error', '')}"[:300])
            if event.get("exc_info"):
                self.trace.add("fault", level, detail=str(event.get("event")))

    async def run(self) -> Trace:
        """Run it to its end."""
        jetstream = self.world.broker.jetstream
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            for connector in self.connectors:
                await connector.start()
            await self.client.connect()
            jetstream.kept = self._kept
            self._start()
            for submission in self.scenario.submissions:
                self._submitting += 1
                nursery.start_soon(self._submit, submission)
            for fault in self.scenario.faults:
                nursery.start_soon(self._cause, fault)
            await trio.sleep_until(self.scenario.heals_at)
            self._heal()
            self.stuck = True
            with trio.move_on_after(LONGEST):
                await self._all_over()
                self.stuck = False
            await trio.sleep(_AFTERMATH)
            self.trace.add("end")
            nursery.cancel_scope.cancel()
        return self.trace

    async def _all_over(self) -> None:
        while self._submitting or len(self.over) < len(self.scenario.builds):
            assert len(self.trace.steps) < _MOST_STEPS, "it goes round in circles"
            self._progress = trio.Event()
            with trio.move_on_after(1.0):
                await self._progress.wait()

    def _kept(self, stream: Stream, kept: Kept) -> None:
        self.world.kept(stream, kept)
        if stream.name == LOG and (kept.headers or {}).get("Scheduler-Status") == "reported":
            self.over.add(kept.subject.rpartition(".")[2])
            self._progress.set()

    # Processes.

    def _start(self) -> Process:
        assert self._nursery is not None
        process = Process(self, f"s{len(self.processes) + 1}")
        self.processes.append(process)
        self._nursery.start_soon(process.run, name=process.name)
        return process

    def ended(self) -> None:
        """A process is gone by itself: where none is left, whoever looks after it starts another."""
        if self._nursery is not None and not self._nursery.cancel_scope.cancel_called:
            self.world.later.after(self.rng.uniform(0.5, 1.5), self._start_another)

    def _start_another(self) -> None:
        if not self._living():
            self._start()

    def _living(self) -> list[Process]:
        return [process for process in self.processes if process.alive]

    # Clients.

    async def _submit(self, submission: Submission) -> None:
        await trio.sleep_until(submission.at)
        build = self.scenario.builds[submission.build]
        if submission.altered:
            build = {**build, "name": "other content"}
        data = json.dumps(build).encode()
        self.trace.add("submits", "client", build["id"], detail=submission.altered)
        while True:
            answer: JSON = {}
            with trio.move_on_after(_ASK_AGAIN_AFTER + self.rng.random()), suppress(NoResponders):
                message = await self.client.request(build["action"].replace("patch", "create"), data)
                answer = json.loads(message.data)
                code = answer.get("error", {}).get("code", "")
                detail = (answer["status"], code, submission.altered)
                self.trace.add("answered", "client", build["id"], detail=detail)
            if answer.get("status") == "accepted" or (answer and code in {"running", "finished"}):
                break
            await trio.sleep(self.rng.uniform(0.1, 1.0))
        self._submitting -= 1
        self._progress.set()

    # Faults.

    async def _cause(self, fault: Fault) -> None:
        await trio.sleep_until(fault.at)
        self.trace.add("fault begins", detail=(fault.kind, round(fault.seconds, 3), fault.number))
        name = f"_{fault.kind.replace(' ', '_')}"
        until = min(fault.seconds, max(0.01, self.scenario.heals_at - trio.current_time()))
        await getattr(self, name)(fault, until)

    def _heal(self) -> None:
        broker = self.world.broker
        if not broker.up:
            broker.restart()
        if broker.jetstream.silent:
            broker.regain_quorum()
        broker.jetstream.refusal = None
        broker.jetstream.no_room = False
        broker.slow_disk = 0.0
        self.trace.add("healed")
        if not self._living():
            self._start()

    def _victim(self, number: int) -> Process | None:
        living = self._living()
        return living[number % len(living)] if living else None

    async def _crash(self, fault: Fault, _: float) -> None:
        victim = self._victim(fault.number)
        if victim is not None:
            victim.kill()
        await self._restart_later(fault.seconds)

    async def _crash_at(self, fault: Fault, _: float) -> None:
        """Kill it right after a step of the trace: the moments that matter are few and short."""
        await self._moment(fault, lambda victim: victim.kill())
        await self._restart_later(fault.seconds)

    async def _cut_at(self, fault: Fault, _: float) -> None:
        """Cut its connection there: what it has just written is lost, or comes much later."""
        late = fault.seconds if fault.number % 2 else 0.0
        await self._moment(fault, lambda victim: self.world.cut_off(victim.bus, late))

    async def _moment(self, fault: Fault, strike: Callable[[Process], None]) -> None:
        """Wait for the step of the trace that a fault is aimed at, and do it there."""
        moment = MOMENTS[fault.number % len(MOMENTS)]
        which = fault.number // len(MOMENTS) % 7
        reached = trio.Event()
        add = self.trace.add
        seen = 0

        def watch(kind: str, *args: Any, **more: Any) -> None:
            nonlocal seen
            add(kind, *args, **more)
            if kind == moment and not reached.is_set():
                seen += 1
                if seen > which:
                    reached.set()
                    victim = self._victim(fault.number)
                    if victim is not None:
                        strike(victim)

        self.trace.add = watch  # type: ignore[method-assign]
        with trio.move_on_at(self.scenario.heals_at):
            await reached.wait()
        reached.set()

    async def _restart_later(self, seconds: float) -> None:
        await trio.sleep(min(seconds, 5.0))
        self._start_another()

    async def _drain(self, fault: Fault, _: float) -> None:
        victim = self._victim(fault.number)
        if victim is None:
            return
        self.trace.add("stopping", victim.name)
        if victim.service is None or not victim.service.ready:
            victim.kill()
        else:
            victim.service.stop()
            await victim.over.wait()
        await self._restart_later(fault.seconds)

    async def _second(self, fault: Fault, _: float) -> None:
        """Another instance starts; the first one may go silent, and come back."""
        first = self._victim(fault.number)
        self._start()
        if first is not None and fault.number % 3:
            self.world.silence(first.bus, min(fault.seconds, 9.0))

    async def _cut(self, fault: Fault, _: float) -> None:
        victim = self._victim(fault.number)
        if victim is not None:
            self.world.cut(victim.bus)

    async def _silence(self, fault: Fault, until: float) -> None:
        victim = self._victim(fault.number)
        if victim is not None:
            self.world.silence(victim.bus, until)

    async def _slow_reader(self, fault: Fault, _: float) -> None:
        victim = self._victim(fault.number)
        if victim is not None:
            self.world.drop_slow(victim.bus)

    async def _cut_connector(self, fault: Fault, _: float) -> None:
        self.world.cut(self.connectors[fault.number % len(self.connectors)].bus)

    async def _connector_dies(self, fault: Fault, until: float) -> None:
        connector = self.connectors[fault.number % len(self.connectors)]
        connector.die()
        await trio.sleep(until)
        await connector.start()

    async def _cut_client(self, _: Fault, __: float) -> None:
        self.world.cut(self.client)

    async def _broker(self, fault: Fault, until: float) -> None:
        broker = self.world.broker
        if not broker.up:
            return
        broker.crash()
        self.trace.add("broker dies")
        replies = broker.jetstream.streams.get("SCHEDULER_REPLIES")
        if replies is not None and fault.number % 2:
            # What an asynchronous stream had not written yet is gone.
            lost = replies.lose_tail(fault.number // 2 % 4)
            self.trace.add("replies lost", detail=[kept.sequence for kept in lost])
        await trio.sleep(until)
        if not self.world.broker.up:
            broker.restart()
            self.trace.add("broker is back")

    async def _quorum(self, _: Fault, until: float) -> None:
        broker = self.world.broker
        broker.lose_quorum()
        await trio.sleep(until)
        if broker.jetstream.silent:
            broker.regain_quorum()
        self.trace.add("quorum is back")

    async def _refusal(self, fault: Fault, until: float) -> None:
        jetstream = self.world.broker.jetstream
        jetstream.refusal = (UNAVAILABLE, NO_ROOM)[fault.number % 2]
        await trio.sleep(until)
        jetstream.refusal = None

    async def _full(self, _: Fault, until: float) -> None:
        jetstream = self.world.broker.jetstream
        jetstream.no_room = True
        await trio.sleep(until)
        jetstream.no_room = False

    async def _slow_disk(self, fault: Fault, until: float) -> None:
        self.world.broker.slow_disk = (0.2, 1.0, 6.0)[fault.number % 3]
        await trio.sleep(until)
        self.world.broker.slow_disk = 0.0

    async def _consumers(self, _: Fault, __: float) -> None:
        """Consumers in memory are gone, as after a change of leader."""
        self.world.broker.jetstream.restart()


def simulate(seed: int) -> Driver:
    """Run the scenario of a seed, and give the driver with its trace."""
    drivers: list[Driver] = []

    async def main(later: Later) -> None:
        drivers.append(Driver(imagine(seed), later))
        await drivers[0].run()

    def log(level: str, event: JSON) -> None:
        if drivers:
            drivers[0].log(level, event)

    # Its default was bound when the module was imported.
    told = partial(JetStreamStore, wall_clock=determinism.wall_clock)
    with mock.patch.object(scheduler.process, "JetStreamStore", told):
        determinism.run(seed, main, log)
    return drivers[0]
