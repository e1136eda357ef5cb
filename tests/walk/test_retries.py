"""Attempts and the pauses between them, where operators, halts, the store and restarts get in their way."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
import trio
from support.asking import ask
from support.durable import LOGS, Fate, Plant, until
from support.fakes import (
    JSON,
    FakeStore,
    Match,
    Reply,
    change,
    document,
    ignore,
    open_world,
    settled,
    started,
    states,
    unmarked,
    withdrawn,
)
from support.walks import Run, attempts, steering_of, tick
from trio.testing import MockClock, wait_all_tasks_blocked

from scheduler.definition.rules import Retry
from scheduler.dispatch.slots import Slots
from scheduler.journal.events import Paused, Retrying, Settled, Started
from scheduler.plan import Phase
from scheduler.plan.attempts import RetryRules


def busy(pause: float = 500.0, **fields: Any) -> Reply:
    """An attempt failed; the next one follows after so many seconds."""
    return Reply("errored", fields={"error": "busy", "retry_after": pause, **fields})


def patient(name: str, number: int = 3, **fields: Any) -> JSON:
    """A change that is tried so often, at once."""
    return change(name, _retry={"attempts": number, "backoff": 0}, **fields)


def tried_again(name: str) -> Match:
    """Matches that a component is to be tried again."""
    return lambda event: isinstance(event, Retrying) and event.component == name


def errors(run: Run) -> dict[str, str]:
    """What is reported of those that have failed."""
    return {one["_component_id"]: one["error"] for one in run.done["changes"] if "error" in one}


# ---- how often, and when


@pytest.mark.parametrize("luck", [0.0, 0.5, 1.0])
async def test_a_pause_is_a_random_part_of_one_that_doubles(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, luck: float
) -> None:
    """One, two, four seconds and so on at most, up to the longest one."""
    monkeypatch.setattr("random.random", lambda: luck)
    rule = {"attempts": 6, "backoff": 1, "max_backoff": 5}
    times: list[float] = []

    def script(_component: JSON) -> Sequence[Reply]:
        times.append(trio.current_time())
        return [Reply("errored", fields={"error": "busy"})]

    async with open_world(script=script) as world:
        run = Run(world, document([change("a", _retry=rule)]))
        await run.go()
        pauses = [later - earlier for earlier, later in pairwise(times)]
        assert pauses == pytest.approx([luck * most for most in (1, 2, 4, 5, 5)])
        assert errors(run) == {"a": "busy (after 6 attempts)"}
        run.check_end()


async def test_a_connector_may_ask_for_a_longer_pause_and_not_for_a_shorter_one(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`retry_after` is the least."""
    monkeypatch.setattr("random.random", lambda: 1.0)
    value = document([change("a", _retry={"attempts": 3, "backoff": 10})])
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = Run(world, value)
        await run.start(nursery)
        world.cloud.answer("a", busy(1))
        await tick(9)
        assert len(attempts(world, "a")) == 1
        await tick(2)
        assert len(attempts(world, "a")) == 2
        world.cloud.answer("a", busy(100))
        await tick(99)
        assert len(attempts(world, "a")) == 2
        await tick(2)
        assert len(attempts(world, "a")) == 3
        nursery.cancel_scope.cancel()


async def test_a_connector_may_say_that_there_is_no_point(autojump_clock: MockClock) -> None:
    """`retryable: false` ends it, and the error says so where there were others."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = Run(world, document([patient("a", 5)]))
        await run.start(nursery)
        world.cloud.answer("a", busy(1))
        await tick(2)
        world.cloud.answer("a", busy(1, retryable=False))
        await tick(100)
        assert attempts(world, "a") == ["b1/a/1", "b1/a/2"]
        assert errors(run) == {"a": "busy (attempt 2 of 5; not retryable)"}


async def test_what_nobody_is_subscribed_to_is_tried_again(autojump_clock: MockClock) -> None:
    """The start timeout is that of an attempt."""
    async with open_world(cloud=False, start_timeout=10.0) as world, trio.open_nursery() as nursery:
        run = Run(world, document([patient("a")]))
        await run.start(nursery)
        await tick(15)
        assert (run.ends, run.plan.attempt(0)) == (0, 2)
        await world.cloud.open(nursery)
        await tick(15)
        assert states(run.done) == {"a": "completed"}
        nursery.cancel_scope.cancel()


async def test_a_component_has_its_own_rule_before_that_of_its_build(autojump_clock: MockClock) -> None:
    """And that of the build goes before that of the operator."""
    value = document(
        [patient("a", 3), "b"],
        options={"retry": {"attempts": 2, "backoff": 0}, "on_error": "continue"},
    )

    def script(_component: JSON) -> Sequence[Reply]:
        return [Reply("errored", fields={"error": "busy"})]

    async with open_world(script=script) as world:
        run = Run(world, value)
        own = run.plan.prepared.policy.retry
        run.plan.requests._rules = RetryRules(own, [("*.*.*", Retry(9, 0.0))])
        await run.go()
        assert (len(attempts(world, "a")), len(attempts(world, "b"))) == (3, 2)


async def test_what_depends_on_what_is_tried_again_waits(autojump_clock: MockClock) -> None:
    """It is neither skipped nor sent before that."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = Run(world, document([patient("a"), "b"], [("a", "b")], options={"on_error": "continue"}))
        await run.start(nursery)
        world.cloud.answer("a", busy(50))
        await tick(20)
        assert run.plan.phases[1] is Phase.WAITING
        await tick(40)
        world.cloud.answer("a")
        await tick()
        assert world.cloud.asked == ["a", "a", "b"]
        nursery.cancel_scope.cancel()


async def test_each_attempt_is_persisted_before_it_leaves(autojump_clock: MockClock) -> None:
    """Its start, with how many have failed before; and what failed before anything follows from it."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = Run(world, document([patient("a")]))
        failed = world.fake_store.hold(tried_again("a"))
        await run.start(nursery)
        world.cloud.answer("a", busy(0))
        await failed.reached.wait()
        await tick(5)
        assert len(world.cloud.requests) == 1
        again = world.fake_store.hold(started("a"))
        failed.open()
        await again.reached.wait()
        await tick(5)
        assert len(world.cloud.requests) == 1
        again.open()
        await tick()
        assert len(world.cloud.requests) == 2
        starts = [event for event in run.events if isinstance(event, Started)]
        assert [(one.attempt, one.failed) for one in starts] == [("b1/a/1", 0), ("b1/a/2", 1)]
        nursery.cancel_scope.cancel()


# ---- late successes


async def late(run: Run, number: int, state: str = "completed") -> None:
    """An attempt is answered that was given up."""
    message, body = run.world.cloud.requests[number - 1]
    run.world.cloud.say(message, body, Reply(state, via="reply", fields={"vpc_id": f"v{number}"}))
    await wait_all_tasks_blocked()


async def test_a_late_success_counts_while_the_next_attempt_is_being_persisted(
    autojump_clock: MockClock,
) -> None:
    """That one does not leave any more."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = Run(world, document([patient("a", _timeout=5)]))
        await run.start(nursery)
        gate = world.fake_store.hold(started("a"))
        await gate.reached.wait()
        await late(run, 1)
        gate.open()
        await tick()
        assert len(world.cloud.requests) == 1
        assert run.done["changes"][0]["vpc_id"] == "v1"
        run.check_end()


async def test_a_late_success_counts_while_the_failure_is_being_persisted(
    autojump_clock: MockClock,
) -> None:
    """Both are persisted, in their order, and nothing waits for the pause."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = Run(world, document([change("a", _timeout=5, _retry={"attempts": 2, "backoff": 1e5})]))
        gate = world.fake_store.hold(tried_again("a"))
        await run.start(nursery)
        await gate.reached.wait()
        await late(run, 1)
        assert run.walk.retry_in(0) is None, "it waits for none any more"
        gate.open()
        began = trio.current_time()
        await tick()
        assert trio.current_time() == began
        assert states(run.done) == {"a": "completed"}
        assert [type(event) for event in run.events][1:3] == [Retrying, Settled]
        run.check_end()


async def test_a_late_success_of_any_attempt_counts(autojump_clock: MockClock) -> None:
    """Also that of the first, while the third is awaited; what comes after that changes nothing."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = Run(world, document([patient("a", _timeout=5), "hold"]))
        await run.start(nursery)
        await tick(12)
        assert len(attempts(world, "a")) == 3
        first = next(n for n, (_, one) in enumerate(world.cloud.requests, 1) if one["_component_id"] == "a")
        await late(run, first)
        await late(run, len(world.cloud.requests))
        world.cloud.answer("hold")
        await tick()
        [found] = [one for one in run.done["changes"] if one["_component_id"] == "a"]
        assert (found["_state"], found["vpc_id"]) == ("completed", f"v{first}")
        assert sum(settled("a")(event) for event in run.events) == 1


async def test_only_so_many_attempts_are_kept_for_a_late_success(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest are forgotten, and of none is the request kept."""
    monkeypatch.setattr("scheduler.walk.outcomes._MOST_GIVEN_UP", 3)
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = Run(world, document([patient("a", 10, _timeout=5)]))
        await run.start(nursery)
        await tick(42)
        assert len(attempts(world, "a")) == 9
        assert [one.request.attempt for one in run.walk._outcomes.given_up] == [
            f"b1/a/{n}" for n in range(4, 9)
        ]
        assert not any(one.request.body or one.outgoing for one in run.walk._outcomes.given_up)
        await late(run, 3)
        assert run.plan.phases[0] is Phase.RUNNING
        assert world.connectors.dropped["to no request that waits"] == 1
        await late(run, 4)
        await tick()
        assert run.done["changes"][0]["vpc_id"] == "v4"


async def test_a_late_failure_changes_nothing(autojump_clock: MockClock) -> None:
    """That attempt counts as failed already."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = Run(world, document([patient("a", 2, _timeout=5)]))
        await run.start(nursery)
        await tick(6)
        await late(run, 1, "errored")
        assert run.plan.phases[0] is Phase.RUNNING
        world.cloud.answer("a")
        await tick()
        assert states(run.done) == {"a": "completed"}


# ---- with operators


async def test_what_is_due_for_another_attempt_in_a_pause_waits_for_its_end(
    autojump_clock: MockClock,
) -> None:
    """It goes out as soon as the build is resumed, and not a second time."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = Run(world, document([patient("a")]))
        await run.start(nursery)
        world.cloud.answer("a", busy(10))
        await wait_all_tasks_blocked()
        await steering_of(run).pause()
        await tick(100)
        assert (attempts(world, "a"), world.slots.taken) == (["b1/a/1"], 0)
        await steering_of(run).resume()
        await tick()
        assert attempts(world, "a") == ["b1/a/1", "b1/a/2"]
        nursery.cancel_scope.cancel()


async def test_a_short_pause_of_the_build_does_not_shorten_that_before_an_attempt(
    autojump_clock: MockClock,
) -> None:
    """Nor make it longer."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = Run(world, document([patient("a")]))
        await run.start(nursery)
        world.cloud.answer("a", busy(10))
        await tick(1)
        await steering_of(run).pause()
        await tick(2)
        await steering_of(run).resume()
        await tick(6)
        assert len(attempts(world, "a")) == 1
        await tick(2)
        assert len(attempts(world, "a")) == 2
        nursery.cancel_scope.cancel()


async def test_an_attempt_that_is_being_persisted_when_a_pause_begins_is_taken_back(
    autojump_clock: MockClock,
) -> None:
    """And goes out under the same number afterwards."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = Run(world, document([patient("a")]))
        await run.start(nursery)
        gate = world.fake_store.hold(started("a"))
        world.cloud.answer("a", busy(1))
        await gate.reached.wait()
        await steering_of(run).pause()
        gate.open()
        await tick(10)
        assert attempts(world, "a") == ["b1/a/1"]
        await steering_of(run).resume()
        await tick()
        assert attempts(world, "a") == ["b1/a/1", "b1/a/2"]
        assert any(isinstance(event, Paused) for event in run.events)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("now", [False, True])
async def test_cancelled_it_is_not_tried_again(now: bool, autojump_clock: MockClock) -> None:
    """What waits for its next attempt has failed, at once."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = Run(world, document([patient("a")]))
        await run.start(nursery)
        world.cloud.answer("a", busy())
        await wait_all_tasks_blocked()
        began = trio.current_time()
        assert await steering_of(run).cancel(now=now, reason="") == "cancelled: nothing was in flight"
        await tick()
        assert trio.current_time() == began
        assert run.done["error"] == "cancelled"
        assert errors(run) == {"a": "busy (not tried again: the build was halted)"}
        run.check_end()


async def test_cancelled_now_what_is_in_flight_is_not_tried_again_either(autojump_clock: MockClock) -> None:
    """Whatever its rule says."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = Run(world, document([patient("a")]))
        await run.start(nursery)
        await steering_of(run).cancel(now=True, reason="")
        await tick(100)
        assert attempts(world, "a") == ["b1/a/1"]
        assert "outcome unknown" in errors(run)["a"]
        run.check_end()


async def halted_while_it_pauses(run: Run, nursery: trio.Nursery, held: Match) -> Any:
    """A build of which ``a`` waits for an attempt, ``b`` fails, ``c`` is in flight; held at an event."""
    await run.start(nursery)
    gate = run.world.fake_store.hold(held)
    run.world.cloud.answer("a", busy())
    await wait_all_tasks_blocked()
    run.world.cloud.answer("b", Reply("errored", fields={"error": "broken"}))
    await wait_all_tasks_blocked()
    assert run.plan.state.halted
    return gate


async def test_what_an_operator_has_tried_again_does_not_wait_for_a_pause_of_before(
    autojump_clock: MockClock,
) -> None:
    """The pause was that of an attempt that there will not be."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = Run(world, document([patient("a"), "b", "c"]))
        gate = await halted_while_it_pauses(run, nursery, tried_again("a"))
        gate.open()
        await wait_all_tasks_blocked()
        assert run.plan.phases[0] is Phase.ERRORED
        await steering_of(run).retry(None)
        await tick()
        assert attempts(world, "a") == ["b1/a/1", "b1/a/2"]
        for name in "abc":
            world.cloud.answer(name)
        await tick()
        assert set(states(run.done).values()) == {"completed"}


async def test_a_halt_that_is_taken_back_at_once_shortens_no_pause(autojump_clock: MockClock) -> None:
    """What waits for its next attempt goes on doing so."""
    value = document([patient("a"), "b", "c"], options={"max_failures": 1})
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = Run(world, value)
        await run.start(nursery)
        world.cloud.answer("a", busy(50))
        world.cloud.answer("b", Reply("errored", fields={"error": "broken"}))
        await wait_all_tasks_blocked()
        run.walk.halt("for no reason")
        await steering_of(run).retry(1)
        await tick(40)
        assert (attempts(world, "a"), attempts(world, "b")) == (["b1/a/1"], ["b1/b/1", "b1/b/2"])
        await tick(15)
        assert attempts(world, "a") == ["b1/a/1", "b1/a/2"]
        nursery.cancel_scope.cancel()


async def test_what_is_tried_again_while_it_is_given_up_is_not_forgotten(autojump_clock: MockClock) -> None:
    """That it has failed is being persisted when an operator has it tried again."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = Run(world, document([patient("a"), "b", "c"]))
        gate = await halted_while_it_pauses(run, nursery, settled("a"))
        assert gate.reached.is_set()
        await steering_of(run).retry(None)
        gate.open()
        await tick()
        assert attempts(world, "a") == ["b1/a/1", "b1/a/2"]
        for name in "abc":
            world.cloud.answer(name)
        await tick()
        assert set(states(run.done).values()) == {"completed"}
        run.check_end()


async def test_what_is_tried_again_has_all_its_time_again(autojump_clock: MockClock) -> None:
    """`total_timeout` bounds the attempts since an operator said so."""
    rule = {"attempts": 9, "backoff": 0, "total_timeout": 12}
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = Run(world, document([change("a", _timeout=5, _retry=rule), "hold"]))
        await run.start(nursery)
        await tick(13)
        assert (run.plan.phases[0], len(attempts(world, "a"))) == (Phase.ERRORED, 3)
        await steering_of(run).retry(0)
        await tick(4)
        assert (run.plan.phases[0], len(attempts(world, "a"))) == (Phase.RUNNING, 4)
        await tick(4)
        assert len(attempts(world, "a")) == 5
        await tick(5)
        assert (run.plan.phases[0], len(attempts(world, "a"))) == (Phase.ERRORED, 6)
        nursery.cancel_scope.cancel()


async def test_what_is_tried_again_has_all_its_attempts_again(autojump_clock: MockClock) -> None:
    """Their numbers go on."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = Run(world, document([patient("a", 2), "hold"]))
        await run.start(nursery)
        for _ in range(2):
            for _ in range(2):
                world.cloud.answer("a", busy(0))
                await tick(0.1)
            assert run.plan.phases[0] is Phase.ERRORED
            await steering_of(run).retry(0)
            await tick()
        assert attempts(world, "a") == [f"b1/a/{number}" for number in range(1, 6)]
        nursery.cancel_scope.cancel()


async def test_supplied_while_its_next_attempt_is_being_persisted_it_does_not_leave(
    autojump_clock: MockClock,
) -> None:
    """And its slot is free."""
    slots = Slots(per_instance=1, per_build=1)
    async with open_world(script=ignore, slots=slots) as world, trio.open_nursery() as nursery:
        run = Run(world, document([patient("a"), "b"], [("a", "b")]))
        await run.start(nursery)
        gate = world.fake_store.hold(started("a"))
        world.cloud.answer("a", busy(1))
        await gate.reached.wait()
        await steering_of(run).supply(0, {"x": 1})
        gate.open()
        await tick(10)
        assert attempts(world, "a") == ["b1/a/1"]
        assert world.cloud.asked == ["a", "b"]
        world.cloud.answer("b")
        await tick()
        run.check_end()


# ---- with stops and restarts


@pytest.mark.parametrize("resumable", [False, True])
async def test_a_stop_ends_the_pause(resumable: bool, autojump_clock: MockClock) -> None:
    """With a store that can be gone on from it is left; otherwise it is reported as failed."""
    store = FakeStore(resumable=resumable)
    async with open_world(script=ignore, store=store) as world, trio.open_nursery() as nursery:
        run = Run(world, document([patient("a"), "b"], [("a", "b")]))
        await run.start(nursery)
        world.cloud.answer("a", busy())
        await wait_all_tasks_blocked()
        began = trio.current_time()
        run.walk.stop()
        await wait_all_tasks_blocked()
        assert (run.ends, trio.current_time()) == (1, began)
        if resumable:
            assert run.report is None
            assert isinstance(run.events[-1], Retrying)
        else:
            assert errors(run)["a"].startswith("busy (not tried again: the scheduler was shut down")
            assert states(run.done) == {"a": "errored", "b": "waiting"}


def names(plant: Plant) -> list[str]:
    """The attempt ids that connectors of a plant were asked under, without their marks."""
    return [unmarked((message.headers or {})["Nats-Msg-Id"]) for message, _ in plant.requests]


async def test_the_next_process_waits_for_the_rest_of_the_pause(autojump_clock: MockClock) -> None:
    """It is no longer, and no shorter, for the restart; numbers and reply subjects go on."""
    plant = Plant(ignore)
    async with plant.run() as process:
        await process.submit(document([patient("a")]))
        await trio.sleep(1)
        plant.answer("a", busy(100))
        await trio.sleep(1)
    answered = trio.current_time() - 1
    await trio.sleep(30)
    async with plant.run() as process:
        await trio.sleep(answered + 99 - trio.current_time())
        assert names(plant) == ["b1/a/1"]
        await trio.sleep(3)
        assert names(plant) == ["b1/a/1", "b1/a/2"]
        plant.answer("a", Reply(via="reply"))
        await until(lambda: process.reports)
        assert states(process.report[1]) == {"a": "completed"}
    assert len({message.reply for message, _ in plant.requests}) == 2


async def test_a_pause_that_is_over_when_the_next_process_starts_is_over(autojump_clock: MockClock) -> None:
    """The attempt goes out as soon as it is there."""
    plant = Plant(ignore)
    async with plant.run() as process:
        await process.submit(document([patient("a")]))
        await trio.sleep(1)
        plant.answer("a", busy(20))
        await trio.sleep(1)
    await trio.sleep(100)
    async with plant.run():
        await trio.sleep(2)
        assert names(plant) == ["b1/a/1", "b1/a/2"]


async def test_the_total_time_goes_on_over_a_restart(autojump_clock: MockClock) -> None:
    """What is begun by the next process has no more than what is left."""
    rule = {"attempts": 9, "backoff": 0, "total_timeout": 60}
    plant = Plant(ignore)
    async with plant.run() as process:
        await process.submit(document([change("a", _timeout=40, _retry=rule)]))
        began = trio.current_time()
        await trio.sleep(1)
        plant.answer("a", busy(30))
        await trio.sleep(1)
    async with plant.run() as process:
        await trio.sleep(33)
        assert names(plant) == ["b1/a/1", "b1/a/2"]
        await until(lambda: process.reports)
        assert trio.current_time() - began == pytest.approx(60, abs=3)
        assert "total_timeout of 60 s" in process.report[1]["error"]


async def test_the_total_time_stands_still_while_the_build_is_paused(autojump_clock: MockClock) -> None:
    """Waiting for another attempt, a component loses nothing by a pause; in flight, it goes on."""
    rule = {"attempts": 9, "backoff": 0, "total_timeout": 60}
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = Run(world, document([change("a", _timeout=40, _retry=rule)]))
        await run.start(nursery)
        await tick(2)
        await steering_of(run).pause()
        await tick(8)
        world.cloud.answer("a", busy(5))
        await tick(1_000)
        assert attempts(world, "a") == ["b1/a/1"]
        await steering_of(run).resume()
        await tick(39)
        await steering_of(run).pause()
        await tick(2)
        assert run.plan.phases[0] is Phase.RETRYING
        await tick(1_000)
        await steering_of(run).resume()
        # Of 60 seconds 10 and 40 have passed.
        await tick(9)
        assert (run.plan.phases[0], attempts(world, "a")[2:]) == (Phase.RUNNING, ["b1/a/3"])
        await tick(2)
        assert "total_timeout of 60 s" in errors(run)["a"]


async def test_the_total_time_stands_still_over_a_restart_in_a_pause(autojump_clock: MockClock) -> None:
    """Neither the pause before nor that after it counts, nor what lies between the processes."""
    rule = {"attempts": 9, "backoff": 0, "total_timeout": 60}
    plant = Plant(ignore)
    async with plant.run() as process:
        await process.submit(document([change("a", _timeout=40, _retry=rule)]))
        await trio.sleep(10)
        plant.answer("a", busy(5))
        await trio.sleep(1)
        await ask(process, "pause")
        await trio.sleep(500)
    await trio.sleep(500)
    async with plant.run() as process:
        await trio.sleep(500)
        await ask(process, "resume")
        await trio.sleep(1)
        assert names(plant) == ["b1/a/1", "b1/a/2"]
    async with plant.run() as process:
        # What had passed is known to the third one, too.
        resumed = trio.current_time() - 1
        await until(lambda: process.reports)
        assert "total_timeout of 60 s" in process.report[1]["error"]
        assert trio.current_time() - resumed == pytest.approx(49, abs=3)


async def test_the_total_time_of_what_a_pause_took_back_begins_in_the_next_process(
    autojump_clock: MockClock,
) -> None:
    """Nobody had the request: neither the time before the pause counts, nor the pause."""
    rule = {"attempts": 9, "backoff": 0, "total_timeout": 60}
    plant = Plant(ignore)
    async with plant.run(connectors=False) as process:
        await process.submit(document([change("a", _timeout=40, _retry=rule)]))
        await trio.sleep(5)
        assert (await ask(process, "pause"))["status"] == "paused"
        await trio.sleep(500)
    async with plant.run() as process:
        await trio.sleep(2)
        await ask(process, "resume")
        await trio.sleep(30)
        plant.answer("a", busy(5))
        await trio.sleep(10)
        assert names(plant) == ["b1/a/1", "b1/a/2"]


async def test_what_an_operator_did_holds_in_the_next_process(autojump_clock: MockClock) -> None:
    """Paused before its next attempt, it waits until it is resumed there."""
    plant = Plant(ignore)
    async with plant.run() as process:
        await process.submit(document([patient("a")]))
        await trio.sleep(1)
        plant.answer("a", busy(5))
        await trio.sleep(1)
        await ask(process, "pause")
    async with plant.run() as process:
        await trio.sleep(60)
        assert names(plant) == ["b1/a/1"]
        await ask(process, "resume")
        await trio.sleep(1)
        assert names(plant) == ["b1/a/1", "b1/a/2"]


async def test_cancelled_before_a_restart_it_is_not_tried_again(autojump_clock: MockClock) -> None:
    """The next process awaits what is in flight, and reports."""
    plant = Plant(ignore)
    async with plant.run() as process:
        await process.submit(document([patient("a"), patient("b")]))
        await trio.sleep(1)
        plant.answer("a", busy(500))
        await trio.sleep(1)
        await ask(process, "cancel", reason="enough")
    plant.answer("b", busy(1))
    async with plant.run() as process:
        await until(lambda: process.reports, 60)
        assert process.report[1]["error"] == "cancelled: enough"
        assert states(process.report[1]) == {"a": "errored", "b": "errored"}
        assert sorted(names(plant)) == ["b1/a/1", "b1/b/1"]


async def test_in_flight_over_a_restart_it_has_what_is_left_of_the_total_time(
    autojump_clock: MockClock,
) -> None:
    """The time that has passed counts once: against that of the attempt, and that of all together."""
    rule = {"attempts": 2, "backoff": 0, "total_timeout": 100}
    plant = Plant(ignore)
    async with plant.run() as process:
        await process.submit(document([change("a", _timeout=200, _retry=rule)]))
        began = trio.current_time()
        await trio.sleep(40)
    async with plant.run() as process:
        await until(lambda: process.reports)
        assert trio.current_time() - began == pytest.approx(100, abs=3)
        assert names(plant) == ["b1/a/1"]


async def test_an_extension_holds_in_the_next_process(autojump_clock: MockClock) -> None:
    """However much longer it is than what had passed of the time."""
    plant = Plant(ignore)
    async with plant.run() as process:
        await process.submit(document([change("a", _timeout=10)]))
        began = trio.current_time()
        await trio.sleep(2)
        await ask(process, "extend", component="a", seconds=100)
        await trio.sleep(2)
    async with plant.run() as process:
        await until(lambda: process.reports)
        assert trio.current_time() - began == pytest.approx(110, abs=3)
        assert process.report[1]["error"] == "a: timed out after 110 s"


async def test_what_a_pause_holds_back_over_a_restart_can_be_extended(autojump_clock: MockClock) -> None:
    """It may have left, or not: all its time, and what was added, begin when the pause is over."""
    plant = Plant(ignore)
    # That its start was persisted it does not hear before it dies.
    plant.broker.line.plan(LOGS, Fate.PASS, Fate.MUTE)
    async with plant.run() as process:
        await process.submit(document([change("a", _timeout=10)]))
        await wait_all_tasks_blocked()
    plant.broker.write(Paused())
    async with plant.run() as process:
        await trio.sleep(3)
        await ask(process, "extend", component="a", seconds=30)
        await trio.sleep(100)
        assert process.reports == []
        began = trio.current_time()
        await ask(process, "resume")
        await until(lambda: process.reports)
        assert trio.current_time() - began == pytest.approx(40, abs=1)
        assert names(plant) == ["b1/a/1"]


async def test_a_start_that_was_withdrawn_does_not_renew_the_total_time(autojump_clock: MockClock) -> None:
    """Its next attempt never left, as another component had failed; an operator has the build continue."""
    rule = {"attempts": 9, "backoff": 0, "total_timeout": 60}
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = Run(world, document([change("a", _retry=rule), "b", "c"]))
        await run.start(nursery)
        world.cloud.answer("a", busy(50))
        await tick(1)
        gate = world.fake_store.hold(started("a"))
        await tick(50)
        world.cloud.answer("b", Reply("errored", fields={"error": "no"}))
        await tick(1)
        gate.open()
        await tick(1)
        assert any(withdrawn("a")(event) for event in run.events)
        await steering_of(run).retry(1)
        await tick(1)
        world.cloud.answer("a", busy(20))
        await tick(1)
        assert run.plan.phases[0] is Phase.ERRORED, "sixty seconds have nearly passed since it was first sent"
        nursery.cancel_scope.cancel()
