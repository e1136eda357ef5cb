"""Bytes of requests in flight: how they are counted, shared and waited for."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

import gc
import random
import weakref
from collections.abc import Sequence
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fakes import JSON, Reply, change, document, encode, ignore, open_world, states, succeed
from support.patients import Patient
from support.walks import Run, retrying, steering_of
from trio.testing import MockClock, wait_all_tasks_blocked

from scheduler.definition.rules import parse_limits
from scheduler.dispatch.slots import Slots
from scheduler.plan import Phase

VPC = "vpc.create.aws"
MOST = 64_000
"""Bytes of the budget in most of these tests."""


def large(name: str, size: int = 10_000, **fields: Any) -> JSON:
    """A change whose request takes about so many bytes."""
    return change(name, pad="x" * (size - 700), **fields)


def send(slots: Slots, build: str, size: int) -> bool:
    """Take what a request needs, if it is there; the slots are given back where there is no room."""
    if not slots.try_take(build, VPC):
        return False
    if slots.weigh(build, size):
        return True
    slots.release(build, VPC)
    return False


# ---- shares


async def test_one_build_has_half_of_it() -> None:
    """What is left is for all others."""
    slots = Slots(max_bytes=1_000)
    assert [send(slots, "a", 100) for _ in range(6)] == [True] * 5 + [False]
    assert send(slots, "b", 100)


@pytest.mark.parametrize("builds", [2, 3, 9])
async def test_builds_share_it_evenly(builds: int) -> None:
    """Each has as much as is left when none gets any more."""
    slots = Slots(max_bytes=12_000)
    for _ in range(2_000):
        for build in range(builds):
            send(slots, f"b{build}", 10)
    each = [slots.limiter.usages.make(f"b{build}").account.bytes for build in range(builds)]
    assert max(each) - min(each) <= 10
    assert each[0] == pytest.approx(12_000 / (builds + 1), abs=20)


@pytest.mark.parametrize("size", [200, 1_000, 200_000])
async def test_however_many_builds_there_are_a_smaller_request_goes(size: int) -> None:
    """A thousand builds whose connectors never answer leave room for one of half the size."""
    slots = Slots(per_instance=1_000_000, max_bytes=1_000_000)
    for build in range(1_000):
        while send(slots, f"b{build}", size):
            pass
    assert slots.budget.in_flight > 500_000
    assert send(slots, "healthy", size // 2)


async def test_what_is_larger_than_a_quarter_goes_beside_the_others_one_at_a_time() -> None:
    """So it waits for no quiet moment, and a full budget does not keep it."""
    slots = Slots(max_bytes=1_000)
    while send(slots, "a", 10):
        pass
    assert send(slots, "b", 5_000)
    assert not send(slots, "c", 251)
    assert send(slots, "d", 10)
    slots.release("b", VPC, 5_000)
    assert send(slots, "c", 251)


async def test_a_build_that_is_closed_gives_all_back() -> None:
    """Also what counts beside the others."""
    slots = Slots(max_bytes=1_000)
    slots.open("a")
    assert send(slots, "a", 200)
    assert send(slots, "a", 100)
    assert send(slots, "a", 2_000)
    assert slots.budget.in_flight == 2_300
    slots.close("a")
    assert slots.budget.in_flight == 0
    assert send(slots, "b", 2_000)


async def test_who_needs_least_goes_first() -> None:
    """Of builds that wait, the one that will have least in flight; of equal ones who waited first."""
    slots = Slots(max_bytes=1_000)
    assert [send(slots, build, 200) for build in ("a", "a", "b")] == [True, True, True]
    served: list[str] = []

    def wait(build: str, name: str, size: int) -> None:
        slots.queue(build, VPC, 0.0, lambda _: served.append(name), size=size)
        slots.serve(build)

    wait("c", "middle", 240)
    wait("d", "later", 240)
    wait("e", "small", 220)
    assert served == []
    slots.release("a", VPC, 200)
    assert served == ["small"]
    slots.release("a", VPC, 200)
    assert served == ["small", "middle"]
    slots.release("b", VPC, 200)
    assert served == ["small", "middle", "later"]


async def test_who_leaves_keeps_nobody_behind_it() -> None:
    """The large request of a build is done with: the small one behind it needs less."""
    slots = Slots(max_bytes=1_000)
    assert send(slots, "a", 240)
    assert send(slots, "a", 240)
    served: list[str] = []
    first = slots.queue("b", VPC, 1.0, lambda _: served.append("large"), size=250)
    assert send(slots, "c", 100)
    slots.queue("b", VPC, 0.0, lambda _: served.append("small"), size=100)
    slots.serve("b")
    assert served == []
    assert slots.blocking("b", VPC) == ["max_bytes_in_flight=1000"]
    assert slots.waiting("b") == {"max_bytes_in_flight=1000": 2}
    slots.leave(first)
    assert served == ["small"]


async def test_who_waits_for_bytes_is_not_kept_alive_by_that() -> None:
    """A build that is over goes at once, though its place among those who wait is still there."""

    class Build:
        pass

    slots = Slots(max_bytes=1_000)
    assert send(slots, "a", 240)
    assert send(slots, "a", 240)
    assert send(slots, "b", 50)
    build = Build()
    slots.open(build)
    slots.queue(build, VPC, 0.0, lambda _: None, size=240)
    slots.queue(build, VPC, 0.0, lambda _: None, size=900)
    slots.serve(build)
    assert slots.blocking(build, VPC)
    slots.close(build)
    gone = weakref.ref(build)
    gc.disable()
    try:
        del build
        assert gone() is None
    finally:
        gc.enable()


sizes = st.integers(1, 400)
crowds = st.lists(
    st.tuples(st.sampled_from("abcdef"), sizes, st.sampled_from([VPC, "net.create.aws"]), st.floats(0, 9)),
    min_size=1,
    max_size=40,
)


@given(crowds, st.integers(2, 6), st.booleans(), st.integers(0, 2**32))
@settings(max_examples=200)
def test_whatever_is_sent_the_budget_holds_and_all_are_served(
    crowd: list[tuple[str, int, str, float]], per_instance: int, limited: bool, seed: int
) -> None:
    """Requests of any size, under other limits as well: never too much in flight, and no deadlock."""

    luck = random.Random(seed)

    async def main() -> None:
        rules = parse_limits("vpc.*.*=2") if limited else ()
        slots = Slots(rules, per_instance=per_instance, max_bytes=1_000)
        flying: list[tuple[str, int]] = []

        def check() -> None:
            ordinary = [(build, size) for build, size in flying if size <= 250]
            total = sum(size for _, size in ordinary)
            assert len(flying) - len(ordinary) <= 1
            assert total <= 1_000
            # Who was served just now has not come round to it.
            assert slots.budget.in_flight >= sum(size for _, size in flying)
            assert slots.taken >= len(flying)

        async def work(build: str, size: int, subject: str, priority: float) -> None:
            known = 0
            await trio.sleep(luck.random())
            while True:
                if not slots.try_take(build, subject, priority, known):
                    assert await slots.take(build, subject, priority, known)
                if known or slots.weigh(build, size):
                    break
                slots.release(build, subject)
                known = size
            flying.append((build, size))
            check()
            await trio.sleep(luck.random())
            flying.remove((build, size))
            slots.release(build, subject, size)

        with trio.fail_after(3_600):
            async with trio.open_nursery() as nursery:
                for build, size, subject, priority in crowd:
                    nursery.start_soon(work, build, size, subject, priority)
        assert slots.taken == slots.waiters == slots.budget.in_flight == len(slots.limiter.usages) == 0
        assert not list(slots.budget.freed())

    trio.run(main, clock=MockClock(autojump_threshold=0))


# ---- builds


async def test_components_leave_in_the_order_of_the_edges_though_they_wait_for_bytes(
    autojump_clock: MockClock,
) -> None:
    """Large and small ones: none overtakes one that waits, and there is never too much in flight."""
    luck = random.Random(1)
    names = [f"c{number}" for number in range(60)]
    value = document([large(name, luck.choice([800, 3_000, 15_000])) for name in names])
    slots = Slots(max_bytes=MOST)
    peak = 0

    def script(component: JSON) -> Sequence[Reply]:
        nonlocal peak
        peak = max(peak, slots.budget.in_flight)
        return [Reply(after=luck.uniform(0.1, 3.0))]

    async with open_world(script=script, slots=slots) as world:
        run = Run(world, value)
        await run.walk.run()
        assert world.cloud.asked == names
        assert 16_000 < peak <= MOST // 2
        assert slots.budget.in_flight == slots.budget._kept == slots.taken == slots.waiters == 0


async def test_a_silent_connector_keeps_no_other_build_from_sending(autojump_clock: MockClock) -> None:
    """Neither by its bytes nor by the slots of what waits for bytes: a build beside begins at once."""
    names = [f"c{number}" for number in range(200)]
    slots = Slots(per_instance=50, per_build=50, max_bytes=MOST)
    async with open_world(script=ignore, slots=slots) as world, trio.open_nursery() as nursery:
        for build in range(10):
            run = Run(world, document([large(name) for name in names], build=f"large-{build}"))
            await run.start(nursery)
        assert 3 <= slots.taken <= 6
        began = trio.current_time()
        healthy = Run(world, document(["x"], build="healthy"))
        await healthy.start(nursery)
        world.cloud.answer("x")
        await wait_all_tasks_blocked()
        assert states(healthy.done) == {"x": "completed"}
        assert trio.current_time() == began
        nursery.cancel_scope.cancel()


async def test_what_waits_for_bytes_is_not_persisted_as_started(autojump_clock: MockClock) -> None:
    """It is waiting, for people too, and `why` names the limit."""
    async with open_world(script=ignore, slots=Slots(max_bytes=MOST)) as world:
        patient = Patient(world, document([large(name) for name in "abcdef"]))
        async with trio.open_nursery() as nursery:
            await patient.start(nursery)
            assert world.cloud.asked == ["a", "b", "c"]
            told = [type(event).__name__ for event in world.fake_store.of("b1")]
            assert told.count("Started") == 3
            assert patient.plan.phases.shown()["waiting"] == 3
            why = patient.why("d")
            assert why["text"] == "it is due, and waits for the limit max_bytes_in_flight=64000"
            assert why["limit"] == "max_bytes_in_flight=64000"
            assert patient.reasons[0] == "3 components wait for the limit max_bytes_in_flight=64000"
            nursery.cancel_scope.cancel()


async def test_bodies_that_wait_are_bounded(autojump_clock: MockClock) -> None:
    """Of a hundred builds that wait with a large request a few keep it, the others render it again."""
    slots = Slots(max_bytes=MOST)
    async with open_world(script=ignore, slots=slots) as world, trio.open_nursery() as nursery:
        runs = [Run(world, document([large("a"), large("b")], build=f"b{n}")) for n in range(100)]
        for run in runs:
            await run.start(nursery)
        kept = sum(len(run.walk._unsent._kept) for run in runs)
        assert 0 < kept * 10_000 <= MOST // 4
        assert sum(len(run.walk._unsent.sizes) for run in runs) >= 90
        world.cloud.script = succeed
        for message, component in list(world.cloud.requests):
            world.cloud.say(message, component, Reply())
        await trio.sleep(1)
        assert len(world.cloud.asked) == 200
        assert slots.budget._kept == slots.budget.in_flight == 0


@pytest.mark.parametrize("how", ["cancel", "error", "stop"])
async def test_what_waits_for_bytes_is_not_sent_after_a_halt(autojump_clock: MockClock, how: str) -> None:
    """The build ends when what is in flight is answered."""
    slots = Slots(max_bytes=MOST)
    async with open_world(script=ignore, slots=slots) as world, trio.open_nursery() as nursery:
        run = Run(world, document([large(name) for name in "abcdef"]))
        await run.start(nursery)
        if how == "cancel":
            nursery.start_soon(lambda: steering_of(run).cancel(now=False, reason=""))
        elif how == "stop":
            run.walk.stop()
        world.cloud.answer("a", Reply("errored") if how == "error" else None)
        await wait_all_tasks_blocked()
        world.cloud.answer("b")
        world.cloud.answer("c")
        await wait_all_tasks_blocked()
        assert world.cloud.asked == ["a", "b", "c"]
        run.check_end()
        assert slots.budget.in_flight == slots.budget._kept == slots.waiters == 0


async def test_a_pause_holds_what_waits_for_bytes(autojump_clock: MockClock) -> None:
    """It leaves when the pause is over, in its order; meanwhile its bytes are free."""
    slots = Slots(max_bytes=MOST)
    async with open_world(script=ignore, slots=slots) as world, trio.open_nursery() as nursery:
        run = Run(world, document([large(name) for name in "abcdef"]))
        await run.start(nursery)
        await steering_of(run).pause()
        for name in "abc":
            world.cloud.answer(name)
        await wait_all_tasks_blocked()
        assert world.cloud.asked == ["a", "b", "c"]
        assert slots.budget.in_flight == slots.budget._kept == 0
        await steering_of(run).resume()
        await wait_all_tasks_blocked()
        assert world.cloud.asked == list("abcdef")
        for name in "def":
            world.cloud.answer(name)
        await wait_all_tasks_blocked()
        run.check_end()


async def test_what_an_operator_supplies_while_it_waits_is_not_sent(autojump_clock: MockClock) -> None:
    """And nothing is kept of its request; what is behind it goes on."""
    slots = Slots(max_bytes=MOST)
    async with open_world(script=ignore, slots=slots) as world, trio.open_nursery() as nursery:
        run = Run(world, document([large(name) for name in "abcd"] + ["e"], [("d", "e")]))
        await run.start(nursery)
        assert world.cloud.asked == ["a", "b", "c"]
        await steering_of(run).supply(run.plan.graph.index["d"], {"id": 1})
        await wait_all_tasks_blocked()
        assert world.cloud.asked == ["a", "b", "c", "e"]
        assert slots.budget._kept == 0
        for name in "abce":
            world.cloud.answer(name)
        await wait_all_tasks_blocked()
        run.check_end()


async def test_another_attempt_counts_as_the_first_one_did(autojump_clock: MockClock) -> None:
    """It waits for room, remembers that it is another attempt, and goes when there is some."""
    slots = Slots(max_bytes=MOST)
    again = {**retrying("a"), "pad": "x" * 9_300}
    async with open_world(script=ignore, slots=slots) as world, trio.open_nursery() as nursery:
        run = Run(world, document([again, *[large(name) for name in "bcdef"]]))
        await run.start(nursery)
        world.cloud.answer("a", Reply("errored", fields={"retry_after": 60, "error": "busy"}))
        await wait_all_tasks_blocked()
        assert world.cloud.asked == ["a", "b", "c", "d"]
        await trio.sleep(61)
        assert world.cloud.asked == ["a", "b", "c", "d"]
        assert run.plan.phases[0] is Phase.RETRYING
        for name in "bcd":
            world.cloud.answer(name)
            await wait_all_tasks_blocked()
        assert sorted(world.cloud.asked) == sorted(["a", "a", *"bcdef"])
        for name in "aef":
            world.cloud.answer(name)
        await wait_all_tasks_blocked()
        run.check_end()
        assert slots.budget.in_flight == 0


async def test_what_an_earlier_process_sent_counts(autojump_clock: MockClock) -> None:
    """With the bytes that its request takes: nothing new is sent before there is room beside it."""
    slots = Slots(max_bytes=MOST)
    running = [large(name, _state="running") for name in "abc"]
    async with open_world(script=ignore, slots=slots) as world, trio.open_nursery() as nursery:
        run = Run(world, document([*running, large("d"), large("e")]), resumed=True)
        await run.start(nursery)
        assert slots.budget.in_flight == pytest.approx(30_000, rel=0.1)
        assert world.cloud.asked == []
        answer = {**running[0], "service": "b1", "_state": "completed"}
        world.bus.deliver(f"{run.plan.requests.subject(0)}.done", encode(answer))
        await wait_all_tasks_blocked()
        assert world.cloud.asked == ["d"]
        nursery.cancel_scope.cancel()


async def test_those_behind_a_request_that_finds_no_room_are_called_when_it_gives_its_slots_back() -> None:
    """It was tried again outside the queue, and is not queued: they wait for it no more."""
    subject = "vpc.create.fake"
    slots = Slots(max_bytes=1_000)
    for build in "abcd":
        slots.open(build)
    for build, size in (("b", 250), ("c", 250), ("d", 100)):
        assert slots.try_take(build, subject)
        assert slots.weigh(build, size)
    first: list[bool] = []
    behind: list[bool] = []
    assert slots.try_take("a", subject)
    assert not slots.weigh("a", 250)
    slots.queue("a", subject, 0.0, first.append, size=250, again=0)
    slots.release("a", subject)
    slots.serve("a")
    slots.release("b", subject, 250)
    assert first == [True]
    slots.release("a", subject, 250)
    assert slots.try_take("b", subject)
    assert slots.weigh("b", 250)
    assert slots.try_take("a", subject)
    slots.queue("a", subject, 0.0, behind.append)
    slots.serve("a")
    assert not slots.weigh("a", 250)
    slots.release("a", subject)
    assert behind == [True]
