"""The same small build again and again, disturbed at every single step that it has."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count

import pytest
import structlog
import trio
from support.fake_bus import FakeBus
from support.fakes import JSON, LOST, FakeStore, Reply, Trace, World, change, document, open_world, states
from support.walks import Run
from trio.abc import Instrument
from trio.testing import MockClock

from scheduler.bus import HeaderBlock, Headers, Outgoing
from scheduler.dispatch.slots import Slots
from scheduler.errors import BusFull, InvalidSubject, StoreError
from scheduler.journal.events import Event

VALUE = document(
    ["a", "b", "c", change("n", action="none"), "d", "e"],
    [("a", "c"), ("b", "c"), ("b", "n"), ("n", "d"), ("c", "e"), ("d", "e")],
)
RESUMED = document(
    [change("a", _state="running"), "b", "c", change("x", _state="completed"), "d"],
    [("a", "c"), ("b", "c"), ("x", "d")],
)


def script(component: JSON) -> Sequence[Reply]:
    """Some answer at once, some later, some twice."""
    name = component["_component_id"]
    return [Reply(after=0.5 if name in "bd" else None, via="both" if name == "c" else "subject")]


class Disturbance(Instrument):
    """Acts right before the n-th step of any task, as a task that runs in the same tick would."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.steps = 0
        self.act: Callable[[], object] | None = None

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if self.act is None:
            return
        self.steps += 1
        if self.steps == self.at:
            self.act()


@contextmanager
def disturbed(at: int, act: Callable[[], object]) -> Iterator[Disturbance]:
    disturbance = Disturbance(at)
    disturbance.act = act
    trio.lowlevel.add_instrument(disturbance)
    try:
        yield disturbance
    finally:
        trio.lowlevel.remove_instrument(disturbance)


class Scene:
    """One run, and what was true when it was disturbed."""

    def __init__(self, world: World, value: JSON, *, resumed: bool) -> None:
        self.world = world
        self.trace = Trace(world, value)
        self.run = Run(world, value, resumed=resumed)
        self.scope = trio.CancelScope()
        self.sent_before: int | None = None

    def note(self) -> None:
        self.sent_before = len(self.world.sent)

    def cancel(self) -> None:
        self.scope.cancel()

    def halt(self) -> None:
        self.note()
        self.run.walk.halt("enough")

    def stop(self) -> None:
        self.note()
        self.run.walk.stop()

    def give_up(self) -> None:
        self.stop()
        self.run.walk.abandon(0.1)

    def check(self) -> None:
        """What holds at the end, however it came."""
        self.trace.check()
        assert self.world.slots.taken == 0
        assert self.world.slots.waiters == 0
        assert self.world.connectors.router.by_token == {}
        assert self.world.connectors.router.by_component == {}
        if self.sent_before is not None:
            assert len(self.world.sent) == self.sent_before, "sent after the halt"

    def check_report(self) -> None:
        """What the report says is what was persisted and sent."""
        assert self.run.ends == 1
        if self.run.report is None:
            assert self.run.walk.plan.state.stopped
            return
        assert self.run.plan.phases.in_flight == 0
        assert ("Finished", "") in self.trace.steps
        for name, state in states(self.run.report).items():
            if state == "waiting":
                assert name not in self.trace.sent
                assert self.trace.last(name) in {"", "Withdrawn"} or self.run.walk.plan.state.stopped
            elif name != "x":
                assert self.trace.last(name) == state
        all_done = set(states(self.run.report).values()) == {"completed"}
        assert ("error" not in self.run.report) or not all_done or self.run.report["error"] == "enough"


async def play(at: int, act: str, *, resumable: bool, resumed: bool) -> bool:
    """Run the build, disturbed at one step; False where it was over before."""
    store = FakeStore(resumable=resumable)
    slots = Slots(per_instance=2, per_build=2)
    async with open_world(script=script, store=store, slots=slots) as world, trio.open_nursery() as nursery:
        scene = Scene(world, RESUMED if resumed else VALUE, resumed=resumed)
        if resumed:
            nursery.start_soon(_answer_what_runs, world.bus)
        with disturbed(at, getattr(scene, act)) as disturbance:
            with scene.scope, trio.move_on_after(60) as hung:
                await scene.run.go()
            assert not hung.cancelled_caught, "it hangs"
        scene.check()
        if act != "cancel":
            scene.check_report()
        nursery.cancel_scope.cancel()
    return disturbance.steps >= at


async def _answer_what_runs(bus: FakeBus) -> None:
    await trio.sleep(0.3)
    bus.deliver("vpc.create.aws.done", b'{"service":"b1","_component_id":"a","_state":"completed"}')


@pytest.mark.parametrize("resumed", [False, True], ids=["new", "resumed"])
@pytest.mark.parametrize("resumable", [False, True], ids=["memory", "resumable"])
@pytest.mark.parametrize("act", ["cancel", "halt", "stop", "give_up"])
def test_disturbed_at_any_step_it_keeps_every_promise(act: str, resumable: bool, resumed: bool) -> None:
    """Cancelled, halted, stopped or given up at any step: order holds, nothing is sent after or twice."""
    # Several times: which task runs first in a tick is left to chance.
    for _ in range(4):
        times = repeat(partial(play, act=act, resumable=resumable, resumed=resumed))
        assert times > 25, "that was no build"


def repeat(disturb: Callable[[int], Awaitable[bool]]) -> int:
    """Disturb at 1, 2, 3 ... until there is nothing left to be disturbed; how often that was."""
    for at in count(1):
        # What is logged would be drawn with every local variable, hundreds of times.
        with structlog.testing.capture_logs():
            if not trio.run(disturb, at, clock=MockClock(autojump_threshold=0)):
                return at - 1
    raise AssertionError


class FailingStore(FakeStore):
    """Fails at one append, for good or for that one time."""

    def __init__(self, at: int, error: Exception, *, applied: bool, once: bool) -> None:
        super().__init__()
        self.at = at
        self.count = 0
        self.error = error
        self.applied = applied
        self.once = once

    async def append(self, build: str, events: Sequence[Event]) -> None:
        self.count += 1
        failing = self.count == self.at or (self.count > self.at and not self.once)
        if not failing or self.applied:
            await super().append(build, events)
        if failing:
            await trio.lowlevel.checkpoint()
            raise self.error


@pytest.mark.parametrize("error", [StoreError("broken"), LOST, RuntimeError("a bug")], ids=repr)
@pytest.mark.parametrize("applied", [False, True], ids=["not applied", "applied"])
@pytest.mark.parametrize("once", [False, True], ids=["for good", "once"])
def test_a_store_that_fails_at_any_append_costs_one_build_and_no_promise(
    error: Exception, applied: bool, once: bool
) -> None:
    """Whichever append fails, applied or not: one report with the cause, and order kept."""

    async def play_failing(at: int) -> bool:
        store = FailingStore(at, error, applied=applied, once=once)
        slots = Slots(per_instance=2, per_build=2)
        async with open_world(script=script, store=store, slots=slots) as world:
            scene = Scene(world, VALUE, resumed=False)
            with trio.fail_after(60):
                await scene.run.go()
            if store.count < at:
                return False
            scene.check()
            report = scene.run.done
            expected = (
                "internal error in the scheduler" if isinstance(error, RuntimeError) else f"store: {error}"
            )
            assert expected in report["error"]
            for name, state in states(report).items():
                assert state != "running"
                if state == "waiting":
                    assert name not in scene.trace.sent
            return True

    assert repeat(play_failing) >= (8 if once else 1), "that was no build"


class FailingBus(FakeBus):
    """Refuses one message."""

    def __init__(self, at: int, error: Exception) -> None:
        super().__init__()
        self.at = at
        self.count = 0
        self.error = error

    def publish(
        self, subject: str, data: bytes, *, reply: str = "", headers: Headers | HeaderBlock = None
    ) -> Outgoing:
        self.count += 1
        if self.count == self.at:
            raise self.error
        return super().publish(subject, data, reply=reply, headers=headers)


@pytest.mark.parametrize(
    "error", [BusFull("no room"), InvalidSubject("bad"), RuntimeError("a bug")], ids=repr
)
def test_a_bus_that_refuses_any_request_costs_that_component_and_no_promise(error: Exception) -> None:
    """Whichever request is refused, its component fails, nothing more is sent, and one report comes."""

    async def play_failing(at: int) -> bool:
        bus = FailingBus(at, error)
        slots = Slots(per_instance=2, per_build=2)
        async with open_world(script=script, bus=bus, slots=slots) as world:
            scene = Scene(world, VALUE, resumed=False)
            with trio.fail_after(60):
                await scene.run.go()
            if bus.count < at:
                return False
            scene.check()
            report = scene.run.done
            assert "errored" in states(report).values()
            bug = isinstance(error, RuntimeError)
            assert ("internal error in the scheduler" if bug else "the request cannot be sent") in report[
                "error"
            ]
            return True

    assert repeat(play_failing) == 5
