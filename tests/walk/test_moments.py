"""What happens in one moment of a component's turn: an error, the end of a pause, an operator's order."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

import random

import pytest
import trio
from support.fakes import Reply, change, document, ignore, open_world, settled, started, states
from support.walks import Log, Run, attempts, steering_of, tick
from trio.testing import MockClock, wait_all_tasks_blocked

from scheduler.definition.graph import Vertex
from scheduler.dispatch.call import Signal
from scheduler.dispatch.slots import Slots
from scheduler.errors import Fenced
from scheduler.journal.events import Event, Retrying, Settled, Started
from scheduler.plan import Phase, Request, steering
from scheduler.plan.outcome import Outcome, failure
from scheduler.walk import Observer


async def test_an_error_in_the_moment_in_which_a_pause_ends_hangs_nothing(autojump_clock: MockClock) -> None:
    """What was held back by the pause is about to be entered anew, and is not to begin any more."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = Run(world, document(["a", "b", "c", "d"], [("a", "c"), ("a", "d")]))
        await run.start(nursery)
        await steering_of(run).pause()
        world.cloud.answer("a")
        await wait_all_tasks_blocked()
        steering.pause(run.plan, on=False)
        run.walk._hold.unpause()
        run.walk.halt("the store failed")
        world.cloud.answer("b")
        await tick()
        assert states(run.done) == {"a": "completed", "b": "completed", "c": "waiting", "d": "waiting"}
        assert world.cloud.asked == ["a", "b"]
        run.check_end()


async def test_a_late_success_is_persisted_before_its_dependents_leave(
    autojump_clock: MockClock,
) -> None:
    """It comes while it is being persisted that the attempt has timed out."""
    value = document([change("a", _timeout=5, _retry={"attempts": 2, "backoff": 1_000}), "b"], [("a", "b")])
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        gate = world.fake_store.hold(lambda event: isinstance(event, Retrying))
        outcome = world.fake_store.hold(settled("a"))
        run = Run(world, value)
        await run.start(nursery)
        await tick(6)
        assert gate.reached.is_set()
        world.cloud.answer("a", Reply(via="reply"))
        gate.open()
        await wait_all_tasks_blocked()
        assert world.cloud.asked == ["a"]
        outcome.open()
        await wait_all_tasks_blocked()
        assert world.cloud.asked == ["a", "b"]
        world.cloud.answer("b")
        await tick()
        assert states(run.done) == {"a": "completed", "b": "completed"}
        run.check_end()


async def test_a_late_success_of_what_was_withdrawn_is_persisted(
    autojump_clock: MockClock,
) -> None:
    """It waits again, and nothing begins any more: yet what is reported is what was persisted."""
    value = document([change("a", _timeout=5, _retry={"attempts": 2, "backoff": 0}), "b"])
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        gate = world.fake_store.hold(lambda event: isinstance(event, Started) and event.failed == 1)
        run = Run(world, value)
        await run.start(nursery)
        await tick(6)
        assert gate.reached.is_set()
        run.walk.halt("cancelled")
        gate.open()
        await wait_all_tasks_blocked()
        assert run.plan.phases[0] is Phase.WAITING
        world.cloud.answer("a", Reply(via="reply"))
        await wait_all_tasks_blocked()
        world.cloud.answer("b")
        await tick()
        assert states(run.done) == {"a": "completed", "b": "completed"}
        assert {event.component for event in run.events if isinstance(event, Settled)} == {"a", "b"}
        run.check_end()


async def test_what_is_retried_before_its_own_task_looks_is_waited_for(autojump_clock: MockClock) -> None:
    """Its failure was booked by another task; what depends on it does not begin before it is done."""
    log = Log(random.Random(0))
    async with open_world(script=ignore, store=log) as world, trio.open_nursery() as nursery:
        run = Run(world, document(["a", "b"], [("a", "b")], options={"on_error": "continue"}))
        nursery.start_soon(run.go)
        await tick(10)
        call = run.walk.call_of(0)
        assert call is not None
        call.deliver(failure("busy", retryable=False))
        run.walk._outcomes.book()
        await steering_of(run).retry(0)
        await tick(10)
        assert attempts(world, "a") == ["b1/a/1", "b1/a/2"]
        world.cloud.answer("a")
        await tick(10)
        world.cloud.answer("b")
        await tick(10)
        assert states(run.done) == {"a": "completed", "b": "completed"}
        run.check_end()


async def test_an_error_that_has_come_in_stops_what_is_about_to_leave(autojump_clock: MockClock) -> None:
    """Although the task whose component has failed did not look yet."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        gate = world.fake_store.hold(started("b"))
        run = Run(world, document("ab"))
        await run.start(nursery)
        await gate.reached.wait()

        def fail(build: str, event: Event) -> None:
            call = run.walk.call_of(0)
            if call is not None and started("b")(event):
                call.deliver(failure("busy", retryable=False))

        world.fake_store.after = fail
        gate.open()
        await wait_all_tasks_blocked()
        assert world.cloud.asked == ["a"]
        assert states(run.done) == {"a": "errored", "b": "waiting"}
        run.check_end()


class Fencing(Observer):
    """Has the build lost to another process as soon as a request has left."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def sent(self, vertex: Vertex, attempt: int) -> None:
        self._run.walk._recording.fence(Fenced("another process has it"))


async def test_fenced_while_it_sends_it_awaits_no_reply(
    autojump_clock: MockClock,
) -> None:
    """Not even that to a request which was sent for a task that had not come to it yet."""
    async with open_world(script=ignore) as world:
        run = Run(world, document([f"c{number}" for number in range(30)]))
        run.told.to = Fencing(run)
        await run.go()
        assert run.report is None
        assert not run.walk.calls()
        assert world.connectors.router.by_token == {}
        assert world.slots.taken == 0


class Batches(trio.abc.Instrument):
    """Counts how many tasks go on between two looks at everything else, at most."""

    def __init__(self) -> None:
        self.most = self._tasks = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._tasks += 1
        self.most = max(self.most, self._tasks)

    def before_io_wait(self, timeout: float) -> None:
        self._tasks = 0


@pytest.mark.parametrize("paused", [False, True])
async def test_halted_many_are_sent_off_little_by_little(paused: bool, autojump_clock: MockClock) -> None:
    """Be they waiting for slots or for the end of a pause: other builds go on meanwhile."""
    slots = Slots(per_instance=1, per_build=1)
    names = [f"c{number}" for number in range(1_500)]
    async with open_world(script=ignore, slots=slots) as world, trio.open_nursery() as nursery:
        run = Run(world, document(["a", *names], [("a", name) for name in names]))
        await run.start(nursery)
        if paused:
            await steering_of(run).pause()
        world.cloud.answer("a")
        await wait_all_tasks_blocked()
        trio.lowlevel.add_instrument(batches := Batches())
        await steering_of(run).cancel(now=True, reason="")
        await wait_all_tasks_blocked()
        trio.lowlevel.remove_instrument(batches)
        assert batches.most <= 100
        assert run.done["error"] == "cancelled"
        run.check_end()


@pytest.mark.parametrize("answer", [Signal.LEFT, failure("given up")])
async def test_what_ends_an_attempt_outdoes_that_nobody_listens(answer: Signal | Outcome) -> None:
    """Both may come before its task looks; then it is not sent again."""
    async with open_world(script=ignore) as world:
        request = world.plan(document("a")).begin(0)
        assert isinstance(request, Request)
        call = world.connectors.send(request)
        assert call.deliver(Signal.NOBODY)
        assert call.deliver(answer)
        assert call.answered
        assert await call.outcome() is answer
        assert len(world.cloud.requests) <= 1
