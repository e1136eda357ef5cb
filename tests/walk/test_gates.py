"""Gates in the walk of one build: what waits for a person, for how long, and what follows from a decision."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

from typing import Any

import pytest
import trio
from support.fakes import (
    JSON,
    FakeStore,
    Reply,
    World,
    change,
    document,
    ignore,
    open_world,
    settled,
    states,
)
from support.walks import Run, steering_of
from trio.testing import MockClock, wait_all_tasks_blocked

from scheduler.dispatch.slots import Slots
from scheduler.errors import Refused
from scheduler.journal.events import Extended, Settled, Started
from scheduler.journal.orders import Order
from scheduler.plan import Phase
from scheduler.walk import Observer

ANN = Order("approve", 1_700_000_000.0, "g", claim="ann", reason="seen")


class Words(Observer):
    """Notes what happened to a build."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def happened(self, what: str, vertex: int | None = None, order: Order | None = None) -> None:
        self.words.append(what if vertex is None else f"{what} {vertex}")


def gate(name: str = "g", **fields: Any) -> JSON:
    return change(name, action="approve", **fields)


def chain(**fields: Any) -> JSON:
    """A component, a gate behind it, and a component behind that."""
    return document(["a", gate(**fields), "z"], [("a", "g"), ("g", "z")])


async def begin(world: World, nursery: trio.Nursery, value: JSON, **options: Any) -> Run:
    run = Run(world, value, **options)
    await run.start(nursery)
    return run


async def refused(awaitable: Any) -> str:
    with pytest.raises(Refused) as refusal:
        await awaitable
    return f"{refusal.value.code}: {refusal.value}"


async def test_a_gate_waits_until_it_is_approved_and_is_never_sent(autojump_clock: MockClock) -> None:
    """However long that takes; then what depends on it begins."""
    async with open_world() as world, trio.open_nursery() as nursery:
        run = await begin(world, nursery, chain())
        autojump_clock.jump(1_000_000)
        await wait_all_tasks_blocked()
        assert world.cloud.asked == ["a"]
        assert run.report is None
        assert await steering_of(run).approve(1, ANN) == "g is approved"
        await wait_all_tasks_blocked()
        assert world.cloud.asked == ["a", "z"]
        assert states(run.done) == dict.fromkeys("agz", "completed")


async def test_an_approval_stands_in_the_gate_for_others_to_refer_to(autojump_clock: MockClock) -> None:
    """By whom, when and why; its own fields are rendered, and the words of a person never are."""
    value = document(
        ["a", gate(what="{{ components['a'].x }}"), change("z", by="{{ components['g'].approved_by }}",
         why="{{ components['g'].approval_reason }}", what="$(components.#[_component_id=\"g\"].what)")],
        [("a", "g")],
    )  # fmt: skip
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = await begin(world, nursery, value)
        world.cloud.answer("a", Reply(fields={"x": "vpc-1"}))
        await wait_all_tasks_blocked()
        await steering_of(run).approve(1, Order("approve", 1.5, "g", user="ACC/ann", reason="{{ build.id }}"))
        await wait_all_tasks_blocked()
        body = world.cloud.requests[-1][1]
        assert (body["by"], body["why"], body["what"]) == ("ACC/ann", "{{ build.id }}", "vpc-1")
        world.cloud.answer("z")
        await wait_all_tasks_blocked()
        kept = run.done["changes"][1]
        assert kept["approved_at"] == "1970-01-01T00:00:01.500Z"
        assert [one["_component_id"] for one in run.done["components"]] == ["a", "z"]


async def test_a_gate_is_not_reached_before_what_it_depends_on(autojump_clock: MockClock) -> None:
    """It is refused until then, and a second decision afterwards."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = await begin(world, nursery, chain())
        steering = steering_of(run)
        text = "conflict: g is not reached yet: it waits for a"
        assert await refused(steering.approve(1, ANN)) == text
        assert await refused(steering.reject(1, ANN)) == text
        assert await refused(steering.extend(1, 5)) == text
        assert "a is no gate" in await refused(steering.approve(0, ANN))
        world.cloud.answer("a")
        await wait_all_tasks_blocked()
        await steering.approve(1, ANN)
        assert await refused(steering.approve(1, ANN)) == "conflict: g is approved already, by ann"
        assert await refused(steering.reject(1, ANN)) == "conflict: g is approved already, by ann"
        nursery.cancel_scope.cancel()


async def test_a_rejection_fails_the_gate_as_any_error_does(autojump_clock: MockClock) -> None:
    """The build ends, and what is behind the gate was never sent."""
    async with open_world() as world, trio.open_nursery() as nursery:
        run = await begin(world, nursery, chain())
        await steering_of(run).reject(1, Order("reject", 1.0, "g", claim="bob", reason="not on a Friday"))
        await wait_all_tasks_blocked()
        assert run.done["error"] == "g: rejected by bob: not on a Friday"
        assert states(run.done) == {"a": "completed", "g": "errored", "z": "waiting"}


async def test_after_a_rejection_the_rest_continues_where_the_build_says_so(
    autojump_clock: MockClock,
) -> None:
    """What depends on the gate is left out; a retry asks again."""
    value = document([gate(), "z", "y"], [("g", "z")], options={"on_error": "continue"})
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = await begin(world, nursery, value)
        words = Words()
        run.told.to = words
        steering = steering_of(run)
        await steering.reject(0, Order("reject", 1.0))
        await wait_all_tasks_blocked()
        assert await refused(steering.approve(0, ANN)) == (
            "conflict: g has failed (rejected): scheduler retry b1 g asks again"
        )
        text, number = await steering.retry(0)
        assert (text, number) == ("1 component will be sent; 1 gate will ask for approval again", 2)
        await wait_all_tasks_blocked()
        await steering.approve(0, ANN)
        await wait_all_tasks_blocked()
        assert words.words == ["rejected 0", "retried 0", "gated 0", "approved 0"]
        assert world.cloud.asked == ["y", "z"]
        nursery.cancel_scope.cancel()


async def test_a_gate_fails_when_its_time_is_over(autojump_clock: MockClock) -> None:
    """After its `_timeout`, whatever the timeout of attempts; extended by what operators add."""
    async with open_world() as world:
        async with trio.open_nursery() as nursery:
            run = await begin(world, nursery, chain(_timeout=7_200))
            began = trio.current_time()
            await trio.sleep(7_199)  # by the autojump clock
            assert await steering_of(run).extend(1, 100) == "g has 100 s more"
        assert trio.current_time() - began == pytest.approx(7_300, abs=1.5)
        assert run.done["error"] == "g: not approved within 7300 s"
        assert [event for event in run.events if isinstance(event, Extended)] == [Extended("g", 100)]


async def test_a_gate_without_a_timeout_needs_no_more_time(autojump_clock: MockClock) -> None:
    """To give it more is refused, as that would say that it has a deadline."""
    async with open_world() as world, trio.open_nursery() as nursery:
        run = await begin(world, nursery, chain())
        assert "has no _timeout" in await refused(steering_of(run).extend(1, 5))
        nursery.cancel_scope.cancel()


async def test_a_gate_takes_no_slot_and_holds_none_up(autojump_clock: MockClock) -> None:
    """With one slot for all, everything that does not depend on gates is done beside them."""
    value = document([gate("g"), gate("h"), "a", "b"], [("start", "g"), ("start", "h"), ("start", "a")])
    async with (
        open_world(slots=Slots(per_instance=1, per_build=1)) as world,
        trio.open_nursery() as nursery,
    ):
        run = await begin(world, nursery, value)
        assert world.cloud.asked == ["a", "b"]
        assert run.report is None
        nursery.cancel_scope.cancel()


async def test_a_gate_asks_in_a_pause_and_what_follows_waits_for_its_end(autojump_clock: MockClock) -> None:
    """Nothing is sent by an approval, so a pause does not keep anybody from it."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = await begin(world, nursery, chain())
        steering = steering_of(run)
        await steering.pause()
        world.cloud.answer("a")
        await wait_all_tasks_blocked()
        await steering.approve(1, ANN)
        await wait_all_tasks_blocked()
        assert world.cloud.asked == ["a"]
        await steering.resume()
        await wait_all_tasks_blocked()
        assert world.cloud.asked == ["a", "z"]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("way", ["cancel", "failure"])
async def test_a_gate_of_a_halted_build_ends_as_waiting(autojump_clock: MockClock, way: str) -> None:
    """Nobody has to decide about it any more, and nobody can."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = await begin(world, nursery, document(["a", "b", gate()]))
        steering = steering_of(run)
        if way == "cancel":
            await steering.cancel(now=False, reason="")
        else:
            world.cloud.answer("a", Reply("errored"))
        await wait_all_tasks_blocked()
        assert "nothing new begins any more" in await refused(steering.approve(2, ANN))
        world.cloud.answer("a")
        world.cloud.answer("b")
        await wait_all_tasks_blocked()
        assert states(run.done)["g"] == "waiting"


async def test_nothing_follows_from_an_approval_before_it_is_persisted(autojump_clock: MockClock) -> None:
    """Neither a request nor the end of the build."""
    async with open_world() as world, trio.open_nursery() as nursery:
        hold = world.fake_store.hold(settled("g"))
        run = await begin(world, nursery, document([gate()]))
        nursery.start_soon(steering_of(run).approve, 0, ANN)
        await wait_all_tasks_blocked()
        assert run.report is None
        hold.open()
        await wait_all_tasks_blocked()
        assert states(run.done) == {"g": "completed"}


async def test_a_gate_whose_reference_leads_to_nothing_fails_when_it_is_reached(
    autojump_clock: MockClock,
) -> None:
    """Before anybody is asked."""
    async with open_world() as world, trio.open_nursery() as nursery:
        run = await begin(world, nursery, chain(what="{{ components['a'].nothing }}"))
        await wait_all_tasks_blocked()
        assert run.done["error"].startswith("g: what: ")


async def test_a_gate_of_an_earlier_process_waits_again_and_is_not_taken_for_running(
    autojump_clock: MockClock,
) -> None:
    """By the states of a build in a store without a log, whichever state the gate has there."""
    value = document([change("a", _state="completed"), gate(_state="running"), "z"], [("a", "g"), ("g", "z")])
    async with open_world(store=FakeStore(resumable=True)) as world, trio.open_nursery() as nursery:
        run = await begin(world, nursery, value, resumed=True)
        assert world.cloud.asked == []
        await steering_of(run).approve(1, ANN)
        await wait_all_tasks_blocked()
        assert states(run.done) == dict.fromkeys("agz", "completed")
        assert not any(isinstance(one, Started) and one.component == "g" for one in run.events)
        assert [one.component for one in run.events if isinstance(one, Settled)][:2] == ["g", "z"]


async def test_the_time_of_a_gate_stands_still_while_the_broker_is_away(autojump_clock: MockClock) -> None:
    """Nobody can approve it then."""
    async with open_world() as world, trio.open_nursery() as nursery:
        run = await begin(world, nursery, document([gate(_timeout=60)]))
        world.bus.disconnect()
        await trio.sleep(1_000)
        assert run.report is None
        world.bus.reconnect()
        await trio.sleep(70)
        assert run.done["error"] == "g: not approved within 60 s"


@pytest.mark.parametrize("resumable", [True, False])
async def test_a_gate_is_left_to_the_next_process_where_there_is_one(
    autojump_clock: MockClock, resumable: bool
) -> None:
    """Otherwise it is reported as everything that still waits at the end of the process."""
    async with open_world(store=FakeStore(resumable=resumable)) as world, trio.open_nursery() as nursery:
        run = await begin(world, nursery, chain(_timeout=60))
        run.walk.stop()
        await wait_all_tasks_blocked()
        assert run.ends == 1
        if resumable:
            assert run.report is None
        else:
            assert states(run.done) == {"a": "completed", "g": "waiting", "z": "waiting"}
        assert not world.connectors.timers._heap or all(
            timer.cancelled for _, _, timer in world.connectors.timers._heap
        )


class SlowStore(FakeStore):
    """Store that takes a second for each outcome."""

    async def append(self, build: str, events: Any) -> None:
        if any(isinstance(event, Settled) for event in events):
            await trio.sleep(1)
        await super().append(build, events)


@pytest.mark.parametrize("rejects", [False, True])
async def test_a_gate_that_is_retried_while_its_failure_is_persisted_has_all_its_time(
    autojump_clock: MockClock, rejects: bool
) -> None:
    """It asks afresh, instead of failing again at once."""
    async with open_world(store=SlowStore()) as world, trio.open_nursery() as nursery:
        run = await begin(world, nursery, document([gate(_timeout=10)]))
        run.told.to = words = Words()
        if rejects:
            await trio.sleep(9)
            nursery.start_soon(steering_of(run).reject, 0, ANN)
            await trio.sleep(0.5)
        else:
            await trio.sleep(10.5)
        assert run.plan.phases[0] is Phase.ERRORED
        await steering_of(run).retry(0)
        await trio.sleep(8)
        assert run.ends == 0
        assert words.words[-1] == "gated 0"
        assert await steering_of(run).approve(0, ANN) == "g is approved"
        await trio.sleep(5)
        assert states(run.done) == {"g": "completed"}
        run.check_end()
