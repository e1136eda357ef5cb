"""Walks that try again, and that operators steer: on the mock clock, with connectors that do as told."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

import json
import random
from collections import Counter
from collections.abc import Sequence

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from support.durable import until
from support.fakes import (
    JSON,
    FakeStore,
    Reply,
    change,
    document,
    encode,
    ignore,
    open_world,
    started,
    states,
    succeed,
)
from support.walks import ORDERS, Run, attempts, attempts_of, fail, retrying, steer, steering_of, tick
from trio.testing import MockClock, wait_all_tasks_blocked

from scheduler.bus import Message
from scheduler.definition.rules import parse_limits
from scheduler.dispatch.slots import Slots
from scheduler.errors import Refused, StoreUnavailable
from scheduler.journal.events import (
    Cancelled,
    Extended,
    Limited,
    Paused,
    Retried,
    Retrying,
    Settled,
    Supplied,
    Unpaused,
    Withdrawn,
)
from scheduler.plan import Phase
from scheduler.plan.outcome import failure
from scheduler.walk import Observer


async def answer_badly(run: Run, name: str) -> None:
    """An attempt in flight is answered with an error."""
    run.world.cloud.answer(name, Reply("errored", fields={"error": "busy"}))
    await wait_all_tasks_blocked()


# ---- retries


async def test_each_attempt_has_an_id_and_a_reply_subject_of_its_own(autojump_clock: MockClock) -> None:
    """What failed is asked for again under the next number, until it is done."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = Run(world, document([retrying("a")]))
        await run.start(nursery)
        for _ in range(2):
            world.cloud.answer("a", Reply("errored", fields={"error": "busy"}))
            await tick(0.01)
        world.cloud.answer("a")
        await tick()
        assert attempts(world, "a") == ["b1/a/1", "b1/a/2", "b1/a/3"]
        assert len({message.reply for message, _ in world.cloud.requests}) == 3
        assert states(run.done) == {"a": "completed"}
        run.check_end()


async def test_its_pause_is_waited_without_a_slot(autojump_clock: MockClock) -> None:
    """Meanwhile another component has the only one there is."""
    later = {"retry_after": 60, "error": "busy"}
    slots = Slots(per_instance=1, per_build=1)
    async with open_world(script=ignore, slots=slots) as world, trio.open_nursery() as nursery:
        run = Run(world, document([retrying("a")], build="b1"))
        other = Run(world, document("x", build="b2"))
        await run.start(nursery)
        await other.start(nursery)
        assert world.cloud.asked == ["a"]
        began = trio.current_time()
        world.cloud.answer("a", Reply("errored", fields=later))
        await wait_all_tasks_blocked()
        assert world.cloud.asked == ["a", "x"]
        world.cloud.answer("x")
        await tick(61)
        assert world.cloud.asked == ["a", "x", "a"]
        assert trio.current_time() - began >= 60
        world.cloud.answer("a")
        await tick()
        assert states(run.done) == {"a": "completed"}


async def test_a_late_success_ends_the_pause_without_another_request(autojump_clock: MockClock) -> None:
    """The attempt timed out, and its answer comes while the next one waits: there is no next one."""
    value = document([change("a", _timeout=5, _retry={"attempts": 2, "backoff": 1_000}), "b"], [("a", "b")])
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        random.seed(1)
        run = Run(world, value)
        await run.start(nursery)
        await tick(6)
        assert run.plan.phases[0] is Phase.RETRYING
        world.cloud.answer("a", Reply(via="reply"))
        await wait_all_tasks_blocked()
        assert world.cloud.asked == ["a", "b"]
        world.cloud.answer("b")
        await tick()
        assert states(run.done) == {"a": "completed", "b": "completed"}
        run.check_end()


async def test_a_late_success_counts_for_the_attempt_that_runs(autojump_clock: MockClock) -> None:
    """What the first attempt has made is there: the second need not be answered."""
    value = document([change("a", _timeout=5, _retry={"attempts": 2, "backoff": 0})])
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = Run(world, value)
        await run.start(nursery)
        await tick(6)
        first, _ = world.cloud.requests[0]
        assert len(world.cloud.requests) == 2
        world.cloud.say(first, {**world.cloud.requests[0][1]}, Reply(via="reply"))
        await tick()
        assert states(run.done) == {"a": "completed"}


async def test_all_attempts_together_have_a_time(autojump_clock: MockClock) -> None:
    """Nothing is begun that could not end within it, and the last attempt has no more than what is left."""
    rule = {"attempts": 10, "backoff": 0, "total_timeout": 12}
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = Run(world, document([change("a", _timeout=5, _retry=rule)]))
        await run.start(nursery)
        await tick(20)
        assert len(world.cloud.requests) == 3
        error = next(one["error"] for one in run.done["changes"])
        assert "total_timeout of 12 s" in error


async def test_a_halted_build_tries_nothing_again(autojump_clock: MockClock) -> None:
    """What waits for its next attempt has failed, with what was said the last time."""
    value = document([change("a", _retry={"attempts": 2, "backoff": 1_000}), "b"])
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = Run(world, value)
        await run.start(nursery)
        world.cloud.answer("a", Reply("errored", fields={"error": "busy", "retry_after": 500}))
        await wait_all_tasks_blocked()
        world.cloud.answer("b", Reply("errored", fields={"error": "broken"}))
        await tick()
        assert run.done["error"] == "b: broken"
        errors = {one["_component_id"]: one["error"] for one in run.done["changes"]}
        assert errors["a"] == "busy (not tried again: the build was halted)"
        run.check_end()


async def test_a_process_that_stops_leaves_it_to_the_next(autojump_clock: MockClock) -> None:
    """With a store that can be gone on from, what waits for another attempt stays as it is."""
    store = FakeStore(resumable=True)
    value = document([change("a", _retry={"attempts": 2, "backoff": 1_000})])
    async with open_world(script=ignore, store=store) as world, trio.open_nursery() as nursery:
        run = Run(world, value)
        await run.start(nursery)
        world.cloud.answer("a", Reply("errored", fields={"error": "busy", "retry_after": 500}))
        await wait_all_tasks_blocked()
        run.walk.stop()
        await wait_all_tasks_blocked()
        assert (run.ends, run.report) == (1, None)
        last = run.events[-1]
        assert isinstance(last, Retrying)
        assert last.body["_state"] == "waiting"
        assert last.body["_attempts"] == 1


async def test_what_does_not_depend_on_a_failure_goes_on(autojump_clock: MockClock) -> None:
    """With on_error continue: dependents are left out, and the end is one error."""
    value = document("abcd", [("a", "b"), ("c", "d")], options={"on_error": "continue"})
    async with open_world(script=fail("a")) as world:
        run = Run(world, value)
        await run.go()
        assert sorted(world.cloud.asked) == ["a", "c", "d"]
        assert states(run.done) == {"a": "errored", "b": "waiting", "c": "completed", "d": "completed"}
        assert run.done["error"] == "a: quota exceeded"
        run.check_end()


async def test_the_longest_way_goes_first_when_slots_are_scarce(autojump_clock: MockClock) -> None:
    """Of ten that are due, the one that most depends on is begun first, whatever its place."""
    edges = [("h", "x"), ("x", "y"), ("y", "z")]
    slots = Slots(parse_limits("*=1"))
    async with open_world(script=succeed, slots=slots) as world:
        value = document("abcdefghijxyz", edges)
        run = Run(world, value, priorities=world.plan(value).graph.remaining([1.0] * 13))
        await run.go()
        assert world.cloud.asked[0] == "h"


# ---- pauses


async def test_a_pause_holds_what_was_not_sent(autojump_clock: MockClock) -> None:
    """What is due, what waits for a slot and what is being persisted: nothing leaves until it is resumed."""
    slots = Slots(parse_limits("*=2"))  # with a limit by subject the first two begin first
    async with open_world(script=ignore, slots=slots) as world, trio.open_nursery() as nursery:
        gate = world.fake_store.hold(started("b"))
        run = Run(world, document("abc"))
        nursery.start_soon(run.go)
        await gate.reached.wait()
        await wait_all_tasks_blocked()
        before = list(world.cloud.asked)
        assert "b" not in before
        flying = f"{len(before)} component{'s' * (len(before) != 1)} in flight"
        assert await steering_of(run).pause() == f"paused: nothing new is sent; {flying}"
        gate.open()
        for name in before:
            world.cloud.answer(name)
        await tick(100)
        assert world.cloud.asked == before
        await steering_of(run).resume()
        await wait_all_tasks_blocked()
        assert set(world.cloud.asked) == set("abc")
        for name in set("abc") - set(before):
            world.cloud.answer(name)
        await tick()
        assert set(states(run.done).values()) == {"completed"}
        kinds = [type(event) for event in run.events]
        assert kinds.index(Paused) < kinds.index(Unpaused)
        run.check_end()


async def test_what_waits_for_the_connection_is_taken_back_by_a_pause(autojump_clock: MockClock) -> None:
    """It would leave as soon as the broker is there. Nobody had it: it is sent when the build is resumed."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        world.bus.disconnect()
        run = Run(world, document("abc", [("a", "c")]))
        await run.start(nursery)
        assert await steering_of(run).pause() == "paused: nothing new is sent; 0 components in flight"
        world.bus.reconnect()
        await tick(100)
        assert world.cloud.asked == []
        assert {event.component for event in run.events if isinstance(event, Withdrawn)} == set("ab")
        await steering_of(run).resume()
        await wait_all_tasks_blocked()
        for name in "abc":
            world.cloud.answer(name)
            await tick()
        assert sorted(world.cloud.asked) == ["a", "b", "c"]
        assert set(states(run.done).values()) == {"completed"}
        run.check_end()


async def test_many_that_were_taken_back_begin_in_slices_after_the_pause(autojump_clock: MockClock) -> None:
    """Other builds have a turn in between."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        world.bus.disconnect()
        run = Run(world, document([f"c{number}" for number in range(300)]))
        await run.start(nursery)
        await steering_of(run).pause()
        await tick(1)
        await steering_of(run).resume()
        phases, most = run.plan.phases, 0
        with trio.fail_after(60):
            while (before := phases.in_flight) < 300:
                await trio.lowlevel.checkpoint()
                most = max(most, phases.in_flight - before)
        assert most <= 100
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("after", [0.0, 1.0])
async def test_what_nobody_listens_to_is_not_tried_again_in_a_pause(
    after: float, autojump_clock: MockClock
) -> None:
    """Whether or not the word that nobody listens has come before: a connector that comes is not asked."""
    async with open_world(cloud=False) as world, trio.open_nursery() as nursery:
        run = Run(world, document("a"))
        nursery.start_soon(run.go)
        await until(lambda: len(world.sent) > 0)
        await trio.sleep(after)
        await steering_of(run).pause()
        await tick()
        tried = len(world.sent)
        await tick(600)
        assert len(world.sent) == tried
        assert run.ends == 0, "a pause is no reason to fail"
        await steering_of(run).resume()
        await tick()
        assert len(world.sent) > tried
        nursery.cancel_scope.cancel()


async def test_a_pause_between_start_and_sending_stops_the_total_time(autojump_clock: MockClock) -> None:
    """An attempt that is taken back is none: neither it nor the time of the pause counts."""
    rule = {"attempts": 9, "backoff": 0, "total_timeout": 60}
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        world.bus.disconnect()
        run = Run(world, document([change("a", _retry=rule)]))
        await run.start(nursery)
        await steering_of(run).pause()
        world.bus.reconnect()
        await tick(1000)
        await steering_of(run).resume()
        await tick(1)
        for _ in range(3):
            world.cloud.answer("a", Reply("errored", fields={"error": "busy"}))
            await tick(1)
        assert world.cloud.asked == ["a"] * 4
        nursery.cancel_scope.cancel()


async def test_the_total_time_of_what_was_taken_back_stands_still_in_the_next_pause(
    autojump_clock: MockClock,
) -> None:
    """It was tried before, and waits for its slot in the second pause."""
    rule = {"attempts": 9, "backoff": 0, "total_timeout": 60}
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = Run(world, document([change("a", _retry=rule), change("b")]))
        await run.start(nursery)
        world.bus.disconnect()
        world.connectors.router.by_component["b1", "a"].deliver(failure("busy"))
        await tick(1)
        await steering_of(run).pause()
        await wait_all_tasks_blocked()
        assert run.plan.phases[0] is Phase.WAITING
        await steering_of(run).limit({"*.*.*": 1})
        world.bus.reconnect()
        await steering_of(run).resume()
        await tick(1)
        await steering_of(run).pause()
        await tick(1_000)
        await steering_of(run).resume()
        world.cloud.answer("b")
        await tick(1)
        for _ in range(3):
            world.cloud.answer("a", Reply("errored", fields={"error": "busy"}))
            await tick(1)
        assert world.cloud.asked.count("a") == 5
        nursery.cancel_scope.cancel()


async def test_a_paused_build_can_be_cancelled(autojump_clock: MockClock) -> None:
    """Nothing is in flight: it ends at once."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = Run(world, document("ab", [("a", "b")]))
        await run.start(nursery)
        await steering_of(run).pause()
        world.cloud.answer("a")
        await tick()
        assert run.ends == 0
        assert await steering_of(run).cancel(now=False, reason="") == "cancelled: nothing was in flight"
        await tick()
        assert run.done["error"] == "cancelled"
        assert states(run.done) == {"a": "completed", "b": "waiting"}
        run.check_end()


# ---- cancel


async def test_cancelled_it_awaits_what_is_in_flight(autojump_clock: MockClock) -> None:
    """And starts nothing more; a second cancel is refused."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = Run(world, document("ab", [("a", "b")]))
        await run.start(nursery)
        await steering_of(run).cancel(now=False, reason="wrong region")
        with pytest.raises(Refused, match="cancelled before"):
            await steering_of(run).cancel(now=False, reason="")
        assert any(isinstance(event, Cancelled) for event in run.events)
        world.cloud.answer("a")
        await tick()
        assert run.done["error"] == "cancelled: wrong region"
        assert world.cloud.asked == ["a"]


async def test_cancelled_now_it_gives_up(autojump_clock: MockClock) -> None:
    """Also where it was cancelled before, and what is in flight does not come."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = Run(world, document("a"))
        await run.start(nursery)
        await steering_of(run).cancel(now=False, reason="")
        await tick(10)
        assert run.ends == 0
        await steering_of(run).cancel(now=True, reason="")
        await tick()
        assert "outcome unknown" in run.done["changes"][0]["error"]
        run.check_end()


# ---- retry and supply


async def test_an_attempt_is_given_up_and_another_one_is_sent(autojump_clock: MockClock) -> None:
    """Under another id, at once; what depends on it begins when that is answered."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        cancels: list[JSON] = []
        await world.bus.subscribe(
            "scheduler.cancel.*.*.*", lambda message: cancels.append(json.loads(message.data))
        )
        run = Run(world, document("abc", [("a", "b")]))
        await run.start(nursery)
        said = await steering_of(run).retry_now(0, reason="")
        assert said == ("gave up on attempt 1 of a; it is sent again now", 1)
        await wait_all_tasks_blocked()
        assert world.cloud.asked == ["a", "c", "a"]
        assert len(set(attempts(world, "a"))) == 2
        [told] = cancels
        assert (told["attempt"], told["component"]) == (attempts(world, "a")[0], "a")
        for name in "acb":
            world.cloud.answer(name)
            await tick()
        assert states(run.done) == dict.fromkeys("abc", "completed")
        run.check_end()


async def test_a_late_success_of_an_attempt_given_up_counts_for_the_next_one(
    autojump_clock: MockClock,
) -> None:
    """What the first one has made is there: the second need not be answered."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = Run(world, document("a", []))
        await run.start(nursery)
        await steering_of(run).retry_now(0, reason="")
        await wait_all_tasks_blocked()
        first, body = world.cloud.requests[0]
        assert len(world.cloud.requests) == 2
        world.cloud.say(first, {**body}, Reply(via="reply"))
        await tick()
        assert states(run.done) == {"a": "completed"}
        run.check_end()


async def test_an_attempt_given_up_in_a_paused_build_is_followed_after_the_pause(
    autojump_clock: MockClock,
) -> None:
    """Nothing new is sent while it is paused; a late success ends the wait all the same."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = Run(world, document("ab", []))
        await run.start(nursery)
        await steering_of(run).pause()
        assert "when the build is resumed" in (await steering_of(run).retry_now(0, reason=""))[0]
        assert "when the build is resumed" in (await steering_of(run).retry_now(1, reason=""))[0]
        await tick(100)
        assert world.cloud.asked == ["a", "b"]
        first, body = world.cloud.requests[0]
        world.cloud.say(first, {**body}, Reply(via="reply"))
        await tick()
        assert run.plan.phases[0] is Phase.COMPLETED
        await steering_of(run).resume()
        await wait_all_tasks_blocked()
        assert world.cloud.asked == ["a", "b", "b"]
        world.cloud.answer("b")
        await tick()
        assert states(run.done) == {"a": "completed", "b": "completed"}
        run.check_end()


async def test_what_waits_for_its_next_attempt_is_sent_at_once(autojump_clock: MockClock) -> None:
    """It has all its attempts again, and all the time for them."""
    rule = {"attempts": 2, "backoff": 1_000, "total_timeout": 3_000}
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = Run(world, document([change("a", _retry=rule)]))
        await run.start(nursery)
        await answer_badly(run, "a")
        assert run.plan.phases[0] is Phase.RETRYING
        said = await steering_of(run).retry_now(0, reason="")
        assert said == ("a does not wait any longer; it is sent again now", 1)
        await wait_all_tasks_blocked()
        assert len(world.cloud.requests) == 2
        await answer_badly(run, "a")
        assert run.plan.phases[0] is Phase.RETRYING
        nursery.cancel_scope.cancel()


async def test_a_hung_component_is_unstuck_in_a_build_that_drains(autojump_clock: MockClock) -> None:
    """The build continues without what failed, as with any retry."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = Run(world, document("abcd", [("a", "c"), ("b", "d")]))
        await run.start(nursery)
        await answer_badly(run, "a")
        assert run.plan.state.halted
        await steering_of(run).retry_now(1, reason="it hangs")
        await wait_all_tasks_blocked()
        for name in "bd":
            world.cloud.answer(name)
            await tick()
        assert states(run.done) == {"a": "errored", "b": "completed", "c": "waiting", "d": "completed"}
        run.check_end()


async def test_an_attempt_of_an_earlier_process_is_given_up(autojump_clock: MockClock) -> None:
    """One that is awaited here, and was sent there."""
    value = document([change("a", _state="running"), change("b")], [("a", "b")])
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = Run(world, value, resumed=True)
        await run.start(nursery)
        assert world.cloud.asked == []
        await steering_of(run).retry_now(0, reason="")
        await wait_all_tasks_blocked()
        assert world.cloud.asked == ["a"]
        for name in "ab":
            world.cloud.answer(name)
            await tick()
        assert states(run.done) == {"a": "completed", "b": "completed"}
        run.check_end()


async def test_what_nobody_received_is_sent_again_at_once(autojump_clock: MockClock) -> None:
    """A request that waits for a connector is no longer tried under its first id."""
    async with open_world(cloud=False) as world, trio.open_nursery() as nursery:
        run = Run(world, document("a", []))
        await run.start(nursery)
        await tick(1)
        await steering_of(run).retry_now(0, reason="")
        await tick(100)
        assert "no connector is subscribed" in run.done["changes"][0]["error"]
        run.check_end()


async def test_a_build_that_drains_goes_on_when_it_is_retried(autojump_clock: MockClock) -> None:
    """What had ended without being sent is due again, once what failed is done."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = Run(world, document("abcd", [("a", "b"), ("b", "c")]))
        await run.start(nursery)
        world.cloud.answer("a", Reply("errored", fields={"error": "busy"}))
        await tick()
        assert await steering_of(run).retry(None) == ("3 components will be sent, 1 of them again", 3)
        await wait_all_tasks_blocked()
        for name in "adbc":
            world.cloud.answer(name)
            await wait_all_tasks_blocked()
        assert set(states(run.done).values()) == {"completed"}
        assert attempts(world, "a") == ["b1/a/1", "b1/a/2"]
        assert any(isinstance(event, Retried) for event in run.events)
        run.check_end()


@pytest.mark.parametrize("phase", ["waiting", "running", "retrying", "errored", "skipped"])
async def test_a_component_is_supplied_wherever_it_stands(phase: str, autojump_clock: MockClock) -> None:
    """It completes with the output, is not sent again, and what depends on it goes on."""
    policy = {"on_error": "continue"} if phase in {"errored", "skipped"} else {}
    value = document(
        ["top", change("a", _retry={"attempts": 2 if phase == "retrying" else 1}), "b", "hold"],
        [("top", "a"), ("a", "b")],
        options=policy,
    )
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = Run(world, value)
        await run.start(nursery)
        if phase == "skipped":
            world.cloud.answer("top", Reply("errored", fields={"error": "busy"}))
        elif phase != "waiting":
            world.cloud.answer("top")
            await wait_all_tasks_blocked()
        if phase in {"retrying", "errored"}:
            world.cloud.answer("a", Reply("errored", fields={"error": "busy", "retry_after": 500}))
        await wait_all_tasks_blocked()
        assert run.plan.phases[1].value == phase
        before = len(attempts(world, "a"))
        await steering_of(run).supply(1, {"vpc_id": "vpc-7"})
        await wait_all_tasks_blocked()
        if phase == "waiting":
            world.cloud.answer("top")
            await wait_all_tasks_blocked()
        assert len(attempts(world, "a")) == before
        assert "b" in world.cloud.asked
        world.cloud.answer("b")
        world.cloud.answer("hold")
        await tick()
        found = next(one for one in run.done["changes"] if one["_component_id"] == "a")
        assert (found["_state"], found["vpc_id"]) == ("completed", "vpc-7")
        assert any(isinstance(event, Supplied) for event in run.events)
        if phase == "running":
            world.cloud.answer("a")  # what comes now changes nothing
        run.check_end()


async def test_a_supplied_component_is_persisted_before_what_depends_on_it_leaves(
    autojump_clock: MockClock,
) -> None:
    """As a reply's outcome would be."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = Run(world, document("ab", [("a", "b")]))
        await run.start(nursery)
        await steering_of(run).supply(0, {})
        await wait_all_tasks_blocked()
        names = [(type(event).__name__, getattr(event, "component", "")) for event in run.events]
        assert names.index(("Supplied", "a")) < names.index(("Settled", "a")) < names.index(("Started", "b"))
        world.cloud.answer("b")
        await tick()
        run.check_end()


# ---- time and limits


async def test_what_is_in_flight_gets_more_time(autojump_clock: MockClock) -> None:
    """It times out as much later, and says how long it had; what is not in flight has no time."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = Run(world, document([change("a", _timeout=10), "b"], [("a", "b")]))
        await run.start(nursery)
        await steering_of(run).extend(0, 20)
        with pytest.raises(Refused, match="b is waiting"):
            await steering_of(run).extend(1, 20)
        with pytest.raises(Refused, match="above 0"):
            await steering_of(run).extend(0, -1)
        assert Extended("a", 20) in run.events
        await tick(29)
        assert run.ends == 0
        await tick(2)
        assert run.done["changes"][0]["error"] == "timed out after 30 s"


async def test_a_build_has_limits_of_its_own_that_change(autojump_clock: MockClock) -> None:
    """As many are in flight as they say, and as the new ones say."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = Run(world, document("abcde", options={"limits": {"vpc.*.*": 2}}))
        world.slots.open(run.plan, run.plan.state.rules)
        await run.start(nursery)
        assert len(world.cloud.asked) == 2
        assert await steering_of(run).limit({"vpc.create.*": 4}) == "limits: vpc.create.*=4"
        await wait_all_tasks_blocked()
        assert len(world.cloud.asked) == 4
        with pytest.raises(Refused, match="limits: 'vpc'"):
            await steering_of(run).limit({"vpc": 4})
        assert Limited({"vpc.create.*": 4}) in run.events
        for _ in range(2):
            for name in "abcde":
                if name in world.cloud.asked:
                    world.cloud.answer(name)
            await wait_all_tasks_blocked()
        assert set(states(run.done).values()) == {"completed"}


async def test_nobody_steers_what_has_ended(autojump_clock: MockClock) -> None:
    """Nor what has not begun: that is said, and nothing is persisted."""
    async with open_world(script=succeed) as world:
        run = Run(world, document("a"))
        with pytest.raises(Refused, match="is starting or finishing"):
            steering_of(run)
        await run.go()
        with pytest.raises(Refused, match="is starting or finishing"):
            steering_of(run)


async def test_an_order_that_cannot_be_persisted_is_refused(autojump_clock: MockClock) -> None:
    """And the build ends, since nothing else can be persisted either."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = Run(world, document("ab", [("a", "b")]))
        await run.start(nursery)
        world.fake_store.fail(lambda event: isinstance(event, Paused), StoreUnavailable("gone"))
        with pytest.raises(Refused, match="could not be persisted") as refused:
            await steering_of(run).pause()
        assert refused.value.code == "unavailable"
        world.cloud.answer("a")
        await tick()
        assert run.done["error"] == "store: gone"


# ---- whatever happens


@st.composite
def cases(draw: st.DrawFn) -> tuple[JSON, list[tuple[float, str, int]], int]:
    """A random graph, orders at random moments, and a seed for what connectors say."""
    size = draw(st.integers(1, 7))
    names = [f"c{number}" for number in range(size)]
    edges = [
        (names[one], names[other])
        for other in range(size)
        for one in range(other)
        if draw(st.integers(0, 3)) == 0
    ]
    options: JSON = {}
    if draw(st.booleans()):
        options["on_error"] = "continue"
    if draw(st.booleans()):
        options["limits"] = {"vpc.*.*": draw(st.integers(1, 3))}
    changes = [
        change(name, _retry={"attempts": draw(st.integers(1, 3)), "backoff": 0.3}, _timeout=4.0)
        for name in names
    ]
    orders = draw(
        st.lists(st.tuples(st.floats(0, 12), st.sampled_from(ORDERS), st.integers(0, size - 1)), max_size=8)
    )
    return document(changes, edges, options=options), sorted(orders), draw(st.integers(0, 2**32))


@given(cases())
@settings(max_examples=150)
def test_whatever_operators_do_a_walk_ends_once(case: tuple[JSON, list[tuple[float, str, int]], int]) -> None:
    """One report; nothing is sent while it is paused, no attempt twice, and no slot is lost."""
    value, orders, seed = case
    randomness = random.Random(seed)

    def script(_component: JSON) -> Sequence[Reply]:
        luck = randomness.random()
        if luck < 0.1:
            return []
        state = "errored" if luck < 0.4 else "completed"
        return [Reply(state, after=randomness.random() * 5, fields={"error": "busy"} if luck < 0.4 else {})]

    async def main() -> None:
        async with open_world(script=script) as world, trio.open_nursery() as nursery:
            run = Run(world, value)
            world.slots.open(run.plan, run.plan.state.rules)
            ended = trio.Event()

            async def go() -> None:
                await run.go()
                ended.set()

            nursery.start_soon(go)
            for at, order, vertex in orders:
                await trio.sleep_until(began + at)
                await steer(run, order, vertex)
                if run.plan.state.paused and not run.plan.state.halted:
                    sent = len(world.cloud.requests)
                    await trio.sleep(0.5)
                    assert len(world.cloud.requests) == sent
            if run.walk.steerable and run.plan.state.paused:
                await steering_of(run).resume()
            with trio.fail_after(500):
                await ended.wait()
            run.check_end()
            assert max(Counter(attempts_of(world)).values(), default=1) == 1
            report = run.done
            if "error" not in report:
                assert set(states(report).values()) == {"completed"}
            completed = [
                event.component
                for event in run.events
                if isinstance(event, Settled) and event.body["_state"] == "completed"
            ]
            assert len(completed) == len(set(completed))

    clock = MockClock(autojump_threshold=0)
    began = clock.current_time()
    trio.run(main, clock=clock)


# ---- what is given up and sent again


async def test_a_success_in_the_moment_of_a_retry_now_counts(autojump_clock: MockClock) -> None:
    """Also before the task of the component has looked at the end of its attempt: nothing is made twice."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = Run(world, document("a"))
        await run.start(nursery)
        message, component = world.cloud.requests[0]
        command = steering_of(run).retry_now(0, reason="")
        told = run.told.to

        class Answering(Observer):
            """Connector that answers as soon as the attempt is given up."""

            def due(self, vertex: int) -> None:
                run.told.to = told
                body = encode({**component, "_state": "completed"})
                world.connectors.take(Message(message.reply, body))

        async with trio.open_nursery() as orders:
            orders.start_soon(lambda: command)
            run.told.to = Answering()
        await tick()
        assert attempts(world, "a") == ["b1/a/1"]
        assert states(run.done) == {"a": "completed"}
        run.check_end()


async def test_a_resumed_attempt_that_is_given_up_at_once_holds_no_slot(autojump_clock: MockClock) -> None:
    """Before its task has looked at it; the next attempt takes the slot again."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        value = document([change(f"c{number}", _state="running") for number in range(100)])
        run = Run(world, value, resumed=True)
        world.slots.open(run.plan, run.plan.state.rules)
        nursery.start_soon(run.go)
        while not run.walk.steerable:
            await trio.lowlevel.checkpoint()
        assert run.walk._runs[99].resumed is not None
        await steering_of(run).retry_now(99, reason="")
        await wait_all_tasks_blocked()
        assert attempts(world, "c99") == ["b1/c99/2"]
        assert world.slots.taken == run.plan.phases.in_flight == 100
        nursery.cancel_scope.cancel()
