"""What an operator does to one build: what it does, what is said, persisted and told, and what is refused."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

from collections.abc import Awaitable, Callable
from typing import TypeAlias

import pytest
import trio
from support.fakes import JSON, Reply, World, change, document, finished, ignore, open_world, started, states
from support.walks import Run, attempts, steering_of, tick
from trio.testing import MockClock, wait_all_tasks_blocked

from scheduler.errors import Refused
from scheduler.journal import orders
from scheduler.journal.events import (
    Cancelled,
    Event,
    Extended,
    Limited,
    Paused,
    Retried,
    Settled,
    Supplied,
    Unpaused,
)
from scheduler.plan import Phase
from scheduler.walk import Observer, Steering

Order: TypeAlias = Callable[[Steering], Awaitable[object]]


class Told(Observer):
    """Notes what is told of a build."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def waits(self, vertex: int) -> None:
        self.words.append(f"waits {vertex}")

    def settled(self, vertex: int, attempt: int, error: str | None) -> None:
        self.words.append(f"settled {vertex}")

    def happened(self, what: str, vertex: int | None = None, order: orders.Order | None = None) -> None:
        self.words.append(what if vertex is None else f"{what} {vertex}")


def listen(run: Run) -> Told:
    """What is told from now on."""
    told = Told()
    run.told.to = told
    return told


def persisted(run: Run) -> list[Event]:
    """What operators did, as it was persisted."""
    kinds = Cancelled | Extended | Limited | Paused | Retried | Supplied | Unpaused
    return [event for event in run.events if isinstance(event, kinds)]


async def begin(world: World, nursery: trio.Nursery, value: JSON) -> Run:
    run = Run(world, value)
    await run.start(nursery)
    return run


async def fail(run: Run, name: str) -> None:
    run.world.cloud.answer(name, Reply("errored", fields={"error": "busy"}))
    await wait_all_tasks_blocked()


# ---- what is told and persisted


async def test_each_order_is_told_and_persisted_once(autojump_clock: MockClock) -> None:
    """By the words of the events, with the component that it is about."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = await begin(world, nursery, document("abcd", [("b", "d")], options={"on_error": "continue"}))
        told = listen(run)
        wheel = steering_of(run)
        await wheel.pause()
        await wheel.resume()
        await wheel.extend(0, 5)
        await wheel.limit({"*": 9})
        await fail(run, "b")
        await wheel.retry(1)
        await wheel.supply(2, {"x": 1})
        await wheel.cancel(now=False, reason="enough")
        assert told.words == [
            "paused",
            "resumed",
            "extended 0",
            "limited",
            "settled 1",
            "retried 1",
            "waits 1",
            "waits 3",
            "skipped 2",
            "settled 2",
            "cancelled",
        ]
        assert persisted(run) == [
            Paused(),
            Unpaused(),
            Extended("a", 5),
            Limited({"*": 9}),
            Retried(("b",), 1),
            Supplied("c", {"x": 1}),
            Cancelled("cancelled: enough"),
        ]
        nursery.cancel_scope.cancel()


async def test_a_cancelled_build_that_gives_up_later_is_cancelled_once(autojump_clock: MockClock) -> None:
    """The second command is about what is in flight only, and so is its reason; the first one stands."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = await begin(world, nursery, document("ab", [("a", "b")]))
        told = listen(run)
        await steering_of(run).cancel(now=False, reason="first")
        text = await steering_of(run).cancel(now=True, reason="second")
        assert text == "cancelled: gave up on 1 component in flight, their outcome unknown"
        await tick()
        assert persisted(run) == [Cancelled("cancelled: first")]
        assert told.words.count("cancelled") == 1
        assert run.done["error"] == "cancelled: first"
        [component] = [one for one in run.done["changes"] if one["_component_id"] == "a"]
        given_up = "outcome unknown: given up by an operator, who cancelled the build"
        assert component["error"] == f"{given_up}: second"
        run.check_end()


async def test_a_reason_has_no_secrets(autojump_clock: MockClock) -> None:
    """Neither in the report nor in the log."""
    secret = "hunter2hunter2"
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = await begin(world, nursery, document([change("a", password=secret)]))
        await steering_of(run).cancel(now=True, reason=f"it is {secret}")
        await tick()
        assert secret not in run.done["error"]
        assert secret not in str(persisted(run))


async def test_a_later_reason_has_no_secrets(autojump_clock: MockClock) -> None:
    """It stands in the errors of what was in flight."""
    secret = "hunter2hunter2"
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = await begin(world, nursery, document([change("a", password=secret)]))
        await steering_of(run).cancel(now=False, reason="")
        await steering_of(run).cancel(now=True, reason=f"it is {secret}")
        await tick()
        error = run.walk.plan.error(0)
        assert error is not None
        assert error.endswith("cancelled the build: it is ***")


async def test_an_output_has_its_secrets_masked_from_then_on(autojump_clock: MockClock) -> None:
    """As a connector's reply would have."""
    secret = "hunter2hunter2"
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = await begin(world, nursery, document("ab"))
        await steering_of(run).supply(0, {"password": secret})
        world.cloud.answer("b", Reply("errored", fields={"error": f"no {secret}"}))
        await tick()
        assert run.done["error"] == f"b: no {secret}"
        assert run.walk.plan.texts.cause == "b: no ***"


async def test_what_is_being_persisted_is_taken_back_by_a_cancel(autojump_clock: MockClock) -> None:
    """It has not left, and never does."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        gate = world.fake_store.hold(started("a"))
        run = Run(world, document("a"))
        nursery.start_soon(run.go)
        await gate.reached.wait()
        await steering_of(run).cancel(now=True, reason="")
        gate.open()
        await tick()
        assert states(run.done) == {"a": "waiting"}
        assert world.cloud.asked == []
        run.check_end()


@pytest.mark.parametrize("order", ["retry", "supply", "resume", "limit"])
async def test_nothing_leaves_because_of_an_order_before_that_is_persisted(
    order: str, autojump_clock: MockClock
) -> None:
    """Otherwise a process that dies in between would know of a request and not of its reason."""
    value = document(
        "abcd", [("a", "b")], options={"on_error": "continue", "limits": {"*": 2 if order == "limit" else 3}}
    )
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = Run(world, value)
        world.slots.open(run.plan, run.plan.state.rules)
        await run.start(nursery)
        if order == "resume":
            await steering_of(run).pause()
        if order != "limit":
            await fail(run, "a")
            if order == "resume":
                await steering_of(run).supply(0, {})
        kinds = Retried | Supplied | Unpaused | Limited
        gate = world.fake_store.hold(lambda event: isinstance(event, kinds))
        before = list(world.cloud.asked)
        wheel = steering_of(run)
        actions: dict[str, Order] = {
            "retry": lambda wheel: wheel.retry(0),
            "supply": lambda wheel: wheel.supply(0, {}),
            "resume": lambda wheel: wheel.resume(),
            "limit": lambda wheel: wheel.limit({"*": 9}),
        }
        nursery.start_soon(actions[order], wheel)
        await gate.reached.wait()
        await tick(5)
        assert world.cloud.asked == before
        gate.open()
        await tick()
        assert len(world.cloud.asked) == len(before) + 1
        nursery.cancel_scope.cancel()


async def test_all_that_has_failed_is_tried_again_by_one_order(autojump_clock: MockClock) -> None:
    """With how many that are; what was left out behind them waits for them again."""
    value = document("abcd", [("a", "c"), ("b", "c")], options={"on_error": "continue"})
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = await begin(world, nursery, value)
        await fail(run, "a")
        await fail(run, "b")
        assert run.plan.phases[2] is Phase.SKIPPED
        assert await steering_of(run).retry(None) == ("3 components will be sent, 2 of them again", 3)
        await wait_all_tasks_blocked()
        for name in "abdc":
            world.cloud.answer(name)
            await wait_all_tasks_blocked()
        assert set(states(run.done).values()) == {"completed"}
        run.check_end()


async def test_of_several_that_failed_one_is_tried_again(autojump_clock: MockClock) -> None:
    """The build goes on without the other one, whose dependents stay out; at the end it is one error."""
    value = document("abcdx", [("a", "c"), ("b", "d")])
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = await begin(world, nursery, value)
        await fail(run, "a")
        await fail(run, "b")
        await steering_of(run).retry(0)
        await wait_all_tasks_blocked()
        for name in "axc":
            world.cloud.answer(name)
            await wait_all_tasks_blocked()
        found = states(run.done)
        assert found == {"a": "completed", "b": "errored", "c": "completed", "d": "waiting", "x": "completed"}
        assert run.done["error"] == "b: busy"
        run.check_end()


async def test_a_late_success_is_taken_instead_of_another_attempt(autojump_clock: MockClock) -> None:
    """What timed out is there already: it is adopted, and said so."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = await begin(world, nursery, document([change("a", _timeout=5), "hold"]))
        await tick(6)
        first = next(one for one in world.cloud.requests if one[1]["_component_id"] == "a")
        world.cloud.say(*first, Reply(via="reply", fields={"vpc_id": "v1"}))
        await wait_all_tasks_blocked()
        text, number = await steering_of(run).retry(None)
        assert text == "0 components will be sent again; of 1 a late success is taken instead"
        assert number == 1
        world.cloud.answer("hold")
        await tick()
        assert attempts(world, "a") == ["b1/a/1"]
        assert set(states(run.done).values()) == {"completed"}
        run.check_end()


# ---- what is refused


async def check_refused(run: Run, order: Order, code: str, text: str) -> None:
    """An order is refused; nothing is persisted, told or changed."""
    told, events = listen(run), len(run.events)
    phases, held = [run.plan.phases[v] for v in range(len(run.plan.phases))], run.plan.state.held
    with pytest.raises(Refused) as caught:
        await order(steering_of(run))
    assert caught.value.code == code
    assert text in str(caught.value)
    await wait_all_tasks_blocked()
    assert (told.words, len(run.events)) == ([], events)
    assert [run.plan.phases[v] for v in range(len(run.plan.phases))] == phases
    assert run.plan.state.held is held


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), 30 * 86_400 + 1])
async def test_only_so_much_more_time_is_given(seconds: float, autojump_clock: MockClock) -> None:
    """Above nothing, and at most thirty days."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = await begin(world, nursery, document("a"))
        await check_refused(run, lambda wheel: wheel.extend(0, seconds), "invalid", "seconds: above 0")
        nursery.cancel_scope.cancel()


def extending(vertex: int) -> Order:
    return lambda wheel: wheel.extend(vertex, 5)


async def test_only_what_is_in_flight_is_given_more_time(autojump_clock: MockClock) -> None:
    """Everything else has no time; the refusal says where it stands."""
    value = document(
        ["a", "b", change("c", _retry={"attempts": 2}), "d", "e", "x"],
        [("a", "b"), ("d", "e")],
        options={"on_error": "continue"},
    )
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = await begin(world, nursery, value)
        world.cloud.answer("c", Reply("errored", fields={"error": "busy", "retry_after": 100}))
        await fail(run, "d")
        world.cloud.answer("x")
        await wait_all_tasks_blocked()
        for vertex, where in enumerate(["", "waiting", "retrying", "errored", "skipped", "completed"]):
            if where:
                text = f"{'abcdex'[vertex]} is {where}: only what is in flight"
                await check_refused(run, extending(vertex), "conflict", text)
        nursery.cancel_scope.cancel()


async def test_only_what_has_failed_is_tried_again(autojump_clock: MockClock) -> None:
    """And where nothing has, nothing is."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = await begin(world, nursery, document("ab", [("a", "b")]))
        await check_refused(run, lambda wheel: wheel.retry(None), "conflict", "no component has failed")
        await check_refused(
            run, lambda wheel: wheel.retry(0), "conflict", "a is running: only what has failed"
        )
        await check_refused(
            run, lambda wheel: wheel.retry(1), "conflict", "b is waiting: only what has failed"
        )
        nursery.cancel_scope.cancel()


async def test_what_was_cancelled_is_not_gone_on_with_before_its_end(autojump_clock: MockClock) -> None:
    """Neither by a retry nor by a supplied failure nor by a pause."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = await begin(world, nursery, document("abc", [("b", "c")]))
        await steering_of(run).cancel(now=False, reason="enough")
        await fail(run, "a")
        await check_refused(run, lambda wheel: wheel.retry(None), "conflict", "it was cancelled; try again")
        await check_refused(run, lambda wheel: wheel.supply(0, {}), "conflict", "it was cancelled; try again")
        await check_refused(run, lambda wheel: wheel.pause(), "conflict", "any more: cancelled: enough")
        await check_refused(run, lambda wheel: wheel.resume(), "conflict", "it is not paused")
        text = "it was cancelled before"
        await check_refused(run, lambda wheel: wheel.cancel(now=False, reason=""), "conflict", text)
        # What is in flight can be supplied all the same.
        await steering_of(run).supply(1, {})
        await tick()
        assert states(run.done) == {"a": "errored", "b": "completed", "c": "waiting"}
        run.check_end()


async def test_what_is_completed_is_not_supplied(autojump_clock: MockClock) -> None:
    """What is there is there."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = await begin(world, nursery, document("ab"))
        world.cloud.answer("a")
        await wait_all_tasks_blocked()
        await check_refused(run, lambda wheel: wheel.supply(0, {}), "conflict", "a is completed already")
        nursery.cancel_scope.cancel()


async def test_what_is_halted_is_not_paused_and_what_is_paused_not_twice(autojump_clock: MockClock) -> None:
    """Each refusal says why."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = await begin(world, nursery, document("ab"))
        await steering_of(run).pause()
        await check_refused(run, lambda wheel: wheel.pause(), "conflict", "it is paused already")
        await steering_of(run).resume()
        await check_refused(run, lambda wheel: wheel.resume(), "conflict", "it is not paused")
        await fail(run, "a")
        await check_refused(run, lambda wheel: wheel.pause(), "conflict", "any more: a: busy")
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("limits", [{"vpc": 3}, {"*": 0}, {"*": "3/d"}, {f"a{n}.*.*": 1 for n in range(101)}])
async def test_limits_that_cannot_be_read_leave_those_that_are(
    limits: dict[str, int | str], autojump_clock: MockClock
) -> None:
    """The refusal says what is wrong with them."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = await begin(world, nursery, document("a", options={"limits": {"*": 7}}))
        rules = run.plan.state.rules
        await check_refused(run, lambda wheel: wheel.limit(limits), "invalid", "limits: ")
        assert run.plan.state.rules == rules
        nursery.cancel_scope.cancel()


async def test_a_build_that_another_process_has_is_not_steered(autojump_clock: MockClock) -> None:
    """Nor one that is about to report."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        gate = world.fake_store.hold(finished)
        run = await begin(world, nursery, document("a"))
        world.cloud.answer("a")
        await gate.reached.wait()
        with pytest.raises(Refused, match="is starting or finishing") as caught:
            steering_of(run)
        assert caught.value.code == "unavailable"
        gate.open()
        await tick()
        fenced = await begin(world, nursery, document("a", build="b2"))
        fenced.walk._recording.fenced = True
        with pytest.raises(Refused, match="is starting or finishing"):
            steering_of(fenced)
        nursery.cancel_scope.cancel()


async def test_an_outcome_counts_that_comes_while_an_order_is_persisted(autojump_clock: MockClock) -> None:
    """A reply is not held up by what an operator does."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = await begin(world, nursery, document("ab", [("a", "b")]))
        gate = world.fake_store.hold(lambda event: isinstance(event, Limited))
        nursery.start_soon(lambda: steering_of(run).limit({"*": 5}))
        await gate.reached.wait()
        world.cloud.answer("a")
        await tick()
        assert any(isinstance(event, Settled) for event in run.events)
        gate.open()
        await tick()
        world.cloud.answer("b")
        await tick()
        assert set(states(run.done).values()) == {"completed"}
