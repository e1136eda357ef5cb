"""Runs a scenario: the real service in a simulated world, with everything that goes wrong on the way."""

import json
import random
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeAlias
from unittest import mock

import trio
from support.fake_jetstream import Kept, Later, Stream

import scheduler.process
from scheduler.config import Settings, parse_resend, parse_retry_rules, parse_rules
from scheduler.errors import NoResponders
from scheduler.jetstream.streams import SENTINEL
from scheduler.stores.jetstream import JetStreamStore
from simulation import determinism
from simulation.clocks import Clocks
from simulation.connectors import TYPES, Connector
from simulation.drifting import drifting
from simulation.faults import Faults
from simulation.freezing import Freezer
from simulation.memory import Memory
from simulation.moving import never, often
from simulation.network import SimBus
from simulation.operators import Operator
from simulation.processes import Process
from simulation.scenario import Scenario, Submission, imagine, subject_of
from simulation.shadow import Shadow
from simulation.trace import Trace
from simulation.who import WHO
from simulation.world import World

JSON: TypeAlias = dict[str, Any]

_LONGEST = 400.0
"""Seconds after the last fault within which every build has to finish,"""
_LONGEST_BETWEEN = 70.0
"""unless there was a record in so many seconds: of a few starts a minute others may follow."""
_ASK_AGAIN_AFTER = 2.0
_AFTERMATH = 1.0
"""Seconds for which the world then continues: nothing more may happen to the builds."""
_REOPENED_WITHIN = 10.0
"""Seconds after the last fault within which what an operator asked for may still begin a new run."""
_MOST_STEPS = 60_000
LOG = "SCHEDULER_LOG"
_FAILURES = (b'"_state":"errored"', b'"event":"retrying"')


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
            heartbeats=(("*.*.*", scenario.pulse.within),) if scenario.pulse.within else (),
            start_timeout=scenario.start_timeout,
            resend=parse_resend(scenario.resend),
            grace=scenario.grace,
            rules=parse_rules(scenario.operating.rules),
            retries=parse_retry_rules(scenario.operating.retries),
            max_bytes_in_flight=scenario.operating.max_bytes or Settings().max_bytes_in_flight,
        )
        self.world.broker.size = scenario.cluster.servers
        self.memory = Memory()
        self.clocks = Clocks(scenario.clocks)
        self.freezer = Freezer()
        self.processes: list[Process] = []
        self.connectors = [
            Connector(self.world, f"{kind}-connector", kind, manners, scenario.pulse)
            for kind, manners in zip(TYPES, scenario.manners, strict=True)
        ]
        self.client = SimBus(self.world, "client")
        self.operator = Operator(self)
        self.over: set[str] = set()
        self.purged: set[str] = set()
        """Builds whose logs were purged by hand."""
        self.handing_in = Counter(
            scenario.builds[submission.build]["id"] for submission in scenario.submissions
        )
        """Number of submissions of each build without an answer."""
        self.on_heal: list[Callable[[], None]] = []
        """What ends faults, at the latest when all of them end."""
        self.stuck = False
        """Whether the run did not finish."""
        self._nursery: trio.Nursery | None = None
        self._submitting = 0
        self._progress = trio.Event()
        self._advanced = 0.0
        """Time of the last record in a log of a build."""

    def log(self, level: str, event: JSON) -> None:
        """Note what the package logs as an error."""
        process = WHO.get()
        # What a killed process would have logged nobody ever reads.
        if self._nursery is not None and (process is None or not process.bus.dead):
            self.trace.add("logs", level, detail=f"{event.get('event')}: {event.get('error', '')}"[:300])
            if event.get("exc_info"):
                detail = f"{event.get('event')}: {_place(sys.exc_info()[1])}"
                self.trace.add("fault", level, detail=detail)

    def differs(self, build: str, how: str) -> None:
        """A log does not say what a plan has done."""
        self.trace.add("differs", build=build, detail=how[:600])

    def held(self, task: str, seconds: float) -> None:
        """A task has kept the loop for too long."""
        self.trace.add("held", task, detail=seconds)

    async def run(self) -> Trace:
        """Run it to its end."""
        jetstream = self.world.broker.jetstream
        faults = Faults(self)
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            for connector in self.connectors:
                await connector.start()
            await self.client.connect()
            jetstream.kept = self._kept
            self._start_all()
            for submission in self.scenario.submissions:
                self._submitting += 1
                nursery.start_soon(self._submit, submission)
            await self.operator.start(nursery)
            for fault in self.scenario.faults:
                nursery.start_soon(faults.cause, fault)
            await trio.sleep_until(self.scenario.heals_at)
            faults.heal()
            self.stuck = True
            while self.stuck and await self._all_over():
                await trio.sleep(_AFTERMATH)
                # What an operator asked for long ago may have begun a new run only now.
                self.stuck = not self._is_over()
            for who, build in self.memory.kept(lambda build: build in self.over):
                self.trace.add("remembers", who, build)
            self.trace.add("end")
            nursery.cancel_scope.cancel()
        return self.trace

    async def _all_over(self) -> bool:
        """Wait until all builds have finished; returns whether they have."""
        healed = trio.current_time()
        while not self._is_over():
            if trio.current_time() > max(healed + _LONGEST, self._advanced + _LONGEST_BETWEEN):
                return False
            assert len(self.trace.steps) < _MOST_STEPS, "it goes round in circles"
            self._progress = trio.Event()
            with trio.move_on_after(1.0):
                await self._progress.wait()
        return True

    def _is_over(self) -> bool:
        names = {build["id"] for build in self.scenario.builds}
        if self._submitting or self.operator.pending or names - self.over - self.purged:
            return False
        # Whoever holds a build whose log is gone is about to report it.
        if any(process.holds(build) for process in self.living() for build in self.purged):
            return False
        # What was asked before may still come, and begin a new run.
        reopens = any(order.verb in {"retry", "skip"} for order in self.scenario.operating.orders)
        return not reopens or trio.current_time() >= self.scenario.heals_at + _REOPENED_WITHIN

    def _kept(self, stream: Stream, kept: Kept) -> None:
        self.world.kept(stream, kept)
        if stream.name != LOG or kept.subject == SENTINEL:
            return
        self._advanced = trio.current_time()
        build = kept.subject.rpartition(".")[2]
        if any(word in kept.data for word in _FAILURES):
            self.trace.add("failed", build=build)
        if (kept.headers or {}).get("Scheduler-Status") == "reported":
            self.over.add(build)
            self.trace.add("over", build=build)
            self.look()
        else:
            self.over.discard(build)

    def look(self) -> None:
        """Note a change, after which the run may be finished."""
        self._progress.set()

    # Processes.

    def _start_all(self) -> None:
        number, named = self.scenario.instances.number, self.scenario.instances.named
        names = [f"i{position}" if named else "" for position in range(number)]
        self.start(names[0])
        for name in names[1:]:
            self.world.later.after(self.rng.uniform(0.0, 1.0), partial(self.start, name))

    def start(self, instance: str = "") -> None:
        """Start one more process of the service.

        Args:
            instance: name of a process before it, which it is to have, too.
        """
        assert self._nursery is not None
        number, rates = len(self.processes), self.scenario.instances.rates
        process = Process(self, f"s{number + 1}", instance, rates[number % len(rates)])
        self.clocks.started(process, number)
        self.processes.append(process)
        self._nursery.start_soon(process.run, name=process.name)

    def ended(self) -> None:
        """A process is gone by itself: where none is left, whoever looks after it starts another."""
        if self._nursery is not None and not self._nursery.cancel_scope.cancel_called:
            self.world.later.after(self.rng.uniform(0.5, 1.5), self.start_another)

    def start_another(self) -> None:
        """Start one where none is left."""
        if not self.living():
            self.start(self.processes[-1].instance)

    def living(self) -> list[Process]:
        """The processes that are there."""
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
                message = await self.client.request(subject_of(build), data)
                answer = json.loads(message.data)
                code = answer.get("error", {}).get("code", "")
                detail = (answer["status"], code, submission.altered)
                self.trace.add("answered", "client", build["id"], detail=detail)
            if answer.get("status") == "accepted" or (answer and code in {"running", "finished"}):
                break
            await trio.sleep(self.rng.uniform(0.1, 1.0))
        self._submitting -= 1
        self.handing_in[build["id"]] -= 1
        self._progress.set()


def _place(error: BaseException | None) -> str:
    """Describe an exception and its place."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if error is None:
        return "?"
    frames = traceback.extract_tb(error.__traceback__)[-4:]
    return f"{error!r} in {' > '.join(f'{frame.name}:{frame.lineno}' for frame in frames)}"


def simulate(seed: int) -> Driver:
    """Run the scenario of a seed, and give the driver with its trace."""
    drivers: list[Driver] = []

    async def main(clockwork: determinism.Clockwork) -> None:
        driver = Driver(imagine(seed), clockwork)
        drivers.append(driver)
        clockwork.labour.tell = driver.held
        # Its default was bound when the module was imported.
        store = partial(JetStreamStore, wall_clock=driver.clocks.wall_clock)
        with (
            driver.memory.watched(),
            driver.clocks.in_use(),
            drifting(),
            Shadow(driver.differs).watching(),
            often() if driver.scenario.moving else never(),
            mock.patch.object(scheduler.process, "JetStreamStore", store),
        ):
            await driver.run()

    def log(level: str, event: JSON) -> None:
        if drivers:
            drivers[0].log(level, event)

    determinism.run(seed, main, log)
    return drivers[0]
