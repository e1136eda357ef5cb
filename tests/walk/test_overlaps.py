"""Orders that come together, with one another and with whatever else happens in the same moment."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
import trio
from attrs import frozen
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fakes import (
    JSON,
    Diary,
    Reply,
    World,
    change,
    document,
    encode,
    ignore,
    open_world,
    prepare,
)
from support.logs import record
from support.walks import ORDERS, Log, Run, attempts_of, steer, steering_of, tick
from trio.testing import MockClock, wait_all_tasks_blocked

from scheduler.definition.model import State
from scheduler.definition.rules import parse_limits
from scheduler.dispatch.slots import Slots
from scheduler.errors import Refused
from scheduler.journal.events import Extended
from scheduler.journal.history import History
from scheduler.journal.records import Position
from scheduler.plan import Phase, Plan
from scheduler.plan.outcome import failure
from scheduler.plan.summary import accepted_of
from scheduler.recovery.replaying import Replayer
from scheduler.walk import Resumption, Walk

SECONDS = (0.0, 1.0, 2.0, 3.0)
"""All that takes time takes one of these: much happens in the same moment."""


@frozen
class Case:
    """A build, and orders by the second in which they come."""

    value: JSON
    orders: tuple[tuple[int, tuple[tuple[str, int], ...]], ...]
    seed: int


@st.composite
def cases(draw: st.DrawFn) -> Case:
    size = draw(st.integers(2, 6))
    names = [f"c{number}" for number in range(size)]
    pairs = [(one, other) for other in names for one in names if one < other]
    edges = draw(st.lists(st.sampled_from(pairs), max_size=6, unique=True)) if pairs else []
    options: JSON = {}
    if draw(st.booleans()):
        options["on_error"] = "continue"
    if draw(st.booleans()):
        options["limits"] = {"vpc.*.*": draw(st.integers(1, 2))}
    changes = [
        change(name, _retry={"attempts": draw(st.sampled_from((1, 1, 2, 3))), "backoff": 0}, _timeout=4.0)
        for name in names
    ]
    # Most is refused if it comes too early: what can follow on a failure is asked more often.
    verbs = (*ORDERS, "retry", "retry", "retry", "supply", "supply")
    order = st.tuples(st.sampled_from(verbs), st.integers(0, size - 1))
    together = st.lists(order, min_size=1, max_size=3).map(tuple)
    orders = draw(st.lists(st.tuples(st.integers(0, 8), together), max_size=8))
    return Case(
        document(changes, edges, options=options),
        tuple(sorted(orders, key=lambda one: one[0])),
        draw(st.integers(0, 2**32)),
    )


class Process:
    """Has the build from its submission or from its log on, until it dies."""

    def __init__(self, world: World, case: Case, log: Log) -> None:
        self._world = world
        self._case = case
        self._log = log
        self._scope = trio.CancelScope()
        self.run = Run(world, case.value)
        resumption: Resumption | None = None
        if log.records:
            history, self.run.plan = self.replayed()
            caught_up = trio.Event()
            caught_up.set()
            # As `Replayer` has it of the real log.
            clock: Any = SimpleNamespace(_store=SimpleNamespace(wall_clock=lambda: log.now / 1_000))
            resumption = Replayer.resumption(clock, self.run.plan, history, caught_up, Position())
        self.run.walk = Walk(
            self.run.plan,
            world.connectors,
            log,
            world.slots,
            Diary(self.run.plan.graph.ids, self.run.observed),
            key="0123456789abcdef",
            resumption=resumption,
        )

    def replayed(self) -> tuple[History, Plan]:
        """The plan as the next process makes it of the log: it must be able to."""
        plan, history = Plan(prepare(self._case.value)), History()
        history.add(record(1, accepted_of(plan)))
        for n, (at, events) in enumerate(self._log.records, 2):
            history.add(record(n, *events, at=at))
        for step in history.steps:
            plan.replay(step)
        return history, plan

    async def go(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        self._world.slots.open(self.run.plan, self.run.plan.state.rules)
        with self._scope:
            async with trio.open_nursery() as self.nursery:
                task_status.started()
                await self.run.go()

    async def die(self) -> None:
        """Nothing that was not kept is left of it."""
        self._scope.cancel()
        await wait_all_tasks_blocked()
        self._log.forget()
        self._world.slots.close(self.run.plan)


def luck_of(seed: int) -> Callable[[JSON], Sequence[Reply]]:
    randomness = random.Random(seed)

    def script(_component: JSON) -> Sequence[Reply]:
        luck = randomness.random()
        after = randomness.choice(SECONDS)
        if luck < 0.2:
            # Silent; or late by as much, when another attempt is on its way.
            return [] if luck < 0.1 else [Reply(after=4.0 + after, via="reply")]
        if luck < 0.5:
            busy: JSON = {"error": "busy", "retry_after": randomness.choice(SECONDS)}
            return [Reply("errored", after=after, fields=busy)]
        return [Reply(after=after)]

    return script


@given(cases(), st.lists(st.integers(0, 8), max_size=2))
@settings(max_examples=200)
def test_whatever_is_asked_at_a_time_the_next_process_can_go_on(case: Case, deaths: list[int]) -> None:
    """At any moment the log is understood, and says where the build stands; there is one report."""

    async def main() -> None:
        log = Log(random.Random(case.seed))
        # With room for all; or for the bytes of few, or of one at a time.
        slots = Slots(max_bytes=(1_000_000, 4_000, 1_000)[case.seed % 3])
        async with (
            open_world(script=luck_of(case.seed), store=log, slots=slots) as world,
            trio.open_nursery() as nursery,
        ):
            process = Process(world, case, log)
            await nursery.start(process.go)
            moments = [*case.orders, *((at, ()) for at in deaths)]
            for at, orders in sorted(moments, key=lambda moment: moment[0]):
                await trio.sleep_until(began + at)
                for order, vertex in orders if not process.run.ends else ():
                    process.nursery.start_soon(steer, process.run, order, vertex)
                await trio.lowlevel.checkpoint()
                if not orders and not process.run.ends:
                    await process.die()
                    process = Process(world, case, log)
                    await nursery.start(process.go)
            run = process.run
            await trio.sleep(10)
            with trio.fail_after(1_000):
                while not run.ends:
                    if run.plan.state.paused and not run.plan.state.over:
                        await steer(run, "resume", 0)
                    await trio.sleep(1)
            run.check_end()
            assert run.report is not None
            assert "fault" not in run.report.get("error", "")
            # What was under way when a process died goes out again, under the same id.
            assert max(Counter(attempts_of(world)).values(), default=1) <= 1 + len(deaths)
            _, plan = process.replayed()
            vertices = range(len(plan.phases))
            for one in vertices:
                assert plan.phases[one] is run.plan.phases[one]
                assert plan.attempt(one) == run.plan.attempt(one)
            state, lived = plan.state, run.plan.state
            assert (state.cause, state.finished, state.rules) == (lived.cause, True, lived.rules)

    clock = MockClock(autojump_threshold=0)
    began = clock.current_time()
    with structlog.testing.capture_logs():
        trio.run(main, clock=clock)


# ---- what a component waits for, and news of it meanwhile


async def test_a_late_success_ends_the_wait_for_the_end_of_a_pause(autojump_clock: MockClock) -> None:
    """Nothing has to be sent for it: where it was the last one the build is over, paused or not."""
    value = document([change("a", _timeout=5, _retry={"attempts": 2, "backoff": 0})])
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = Run(world, value)
        await run.start(nursery)
        await steering_of(run).pause()
        await tick(6)
        world.cloud.answer("a", Reply(via="reply"))
        await tick()
        assert run.done["changes"][0]["_state"] == "completed"
        assert len(world.cloud.requests) == 1
        run.check_end()


async def test_what_is_supplied_waits_for_no_end_of_a_pause(autojump_clock: MockClock) -> None:
    """It has failed once, and nothing has to be sent for it any more."""
    value = document([change("a", _timeout=5, _retry={"attempts": 2, "backoff": 0})])
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = Run(world, value)
        await run.start(nursery)
        await steering_of(run).pause()
        await tick(6)
        await steering_of(run).supply(0, {"out": 1})
        await tick()
        assert run.done["changes"][0]["out"] == 1
        run.check_end()


async def test_what_is_supplied_waits_for_no_slot(autojump_clock: MockClock) -> None:
    """Another build has the only one: what need not be sent is completed all the same."""
    value = document(["a", change("n", action="none")], [("a", "n")], build="b2")
    slots = Slots(parse_limits("*=1"))
    async with open_world(script=ignore, slots=slots) as world, trio.open_nursery() as nursery:
        await Run(world, document("x")).start(nursery)
        run = Run(world, value)
        await run.start(nursery)
        await steering_of(run).supply(0, {})
        await tick()
        assert {one["_state"] for one in run.done["changes"]} == {"completed"}
        assert slots.waiters == 0
        nursery.cancel_scope.cancel()


async def test_a_late_success_ends_the_wait_for_a_slot(autojump_clock: MockClock) -> None:
    """Another build took the only one during the pause between two attempts."""
    value = document([change("a", _timeout=5, _retry={"attempts": 2, "backoff": 0})], build="b1")
    slots = Slots(parse_limits("*=1"))
    async with open_world(script=ignore, slots=slots) as world, trio.open_nursery() as nursery:
        run = Run(world, value)
        await run.start(nursery)
        await Run(world, document("x", build="b2")).start(nursery)
        await tick(6)
        assert world.cloud.asked == ["a", "x"]
        world.cloud.say(*world.cloud.requests[0], Reply(via="reply"))
        await tick()
        assert run.done["changes"][0]["_state"] == "completed"
        assert slots.taken == 1
        nursery.cancel_scope.cancel()


async def test_what_has_just_been_answered_needs_no_more_time(autojump_clock: MockClock) -> None:
    """Behind its outcome the log has no place for that: the next process would not understand it."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = Run(world, document("a"))
        await run.start(nursery)
        call = run.walk.call_of(0)
        assert call is not None
        call.deliver(failure("broken"))
        with pytest.raises(Refused, match="a has just been answered"):
            await steering_of(run).extend(0, 5)
        await tick()
        assert Extended("a", 5) not in run.events
        run.check_end()


# ---- what an earlier process sent, before its task has begun


MANY = [f"c{number:02}" for number in range(60)]
"""More than begin in one moment."""


@asynccontextmanager
async def just_resumed() -> AsyncIterator[Run]:
    """A build whose components are all in flight, and which can just be steered."""
    value = document([change(name, _state="running") for name in MANY])
    async with open_world(script=ignore, timeout=1_000) as world, trio.open_nursery() as nursery:
        run = Run(world, value, resumed=True)
        nursery.start_soon(run.go)
        for _ in range(100):
            if run.walk.steerable:
                break
            await trio.lowlevel.checkpoint()
        assert len(run.walk.calls()) < len(MANY)
        yield run


def answer_all_but_the_last(run: Run) -> None:
    for name in MANY[:-1]:
        body = {**change(name), "_state": "completed", "service": "b1"}
        run.world.bus.deliver("vpc.create.aws.done", encode(body))


async def test_what_was_resumed_is_supplied_at_once(autojump_clock: MockClock) -> None:
    """Nobody waits for a reply to it until its time is over."""
    async with just_resumed() as run:
        last = len(MANY) - 1
        await steering_of(run).supply(last, {"out": 1})
        answer_all_but_the_last(run)
        await tick()
        assert run.done["changes"][last]["out"] == 1
        told = [state for name, state, _ in run.observed if name == MANY[last]]
        assert told == [State.COMPLETED]
        run.check_end()


async def test_what_was_resumed_is_given_up_at_once(autojump_clock: MockClock) -> None:
    """All of it, whether or not its task has begun to wait."""
    async with just_resumed() as run:
        await steering_of(run).cancel(now=True, reason="")
        await tick()
        assert {one["_state"] for one in run.done["changes"]} == {"errored"}
        run.check_end()


async def test_what_was_resumed_is_extended_at_once(autojump_clock: MockClock) -> None:
    """Before its clock runs as well as later."""
    async with just_resumed() as run:
        last = len(MANY) - 1
        await steering_of(run).extend(last, 50)
        await tick(1_020)
        assert run.plan.phases[0] is Phase.ERRORED
        assert run.plan.phases[last] is Phase.RUNNING
        await tick(40)
        assert run.done["changes"][last]["error"] == "timed out after 1050 s"
