"""Replies in turns: order within a build, fairness between builds."""

from functools import partial
from itertools import pairwise

import pytest
import structlog
import trio
from trio.testing import wait_all_tasks_blocked

from scheduler.dispatch import fairness
from scheduler.dispatch.fairness import FairDispatcher


async def test_while_there_is_little_to_do_it_is_done_at_once() -> None:
    """A reply that comes alone is passed on in the same breath."""
    seen: list[int] = []
    FairDispatcher().take("b", partial(seen.append, 1))
    assert seen == [1]


async def test_room_is_made_before_it_runs_out() -> None:
    """Half of it is always there when something comes in, and then some."""
    seen: list[int] = []
    work = FairDispatcher()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(work.run)
        for number in range(10 * fairness._AT_ONCE):
            work.take("b", partial(seen.append, number))
            assert len(seen) == number + 1
            if number % fairness._FEW == 0:
                await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


async def test_a_small_build_is_not_behind_a_large_one() -> None:
    """What comes in for another build has its turn while hundreds wait; each build keeps its order."""
    seen: list[tuple[str, int]] = []
    work = FairDispatcher()
    for number in range(500):
        work.take("large", partial(seen.append, ("large", number)))
    work.take("small", partial(seen.append, ("small", 0)))
    assert len(seen) == fairness._AT_ONCE
    async with trio.open_nursery() as nursery:
        nursery.start_soon(work.run)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert seen.index(("small", 0)) < 3 * fairness._AT_ONCE
    assert [number for build, number in seen if build == "large"] == list(range(500))


async def test_a_sender_is_not_behind_the_many_builds_of_another() -> None:
    """Senders take turns, and so do the builds of each: who sent a thousand, and who sent two."""
    seen: list[str] = []
    work = FairDispatcher(lambda build: build.partition("-")[0])
    for number in range(1_000):
        work.take(f"many-{number}", partial(seen.append, "many"))
    for number in range(20):
        work.take(f"few-{number % 2}", partial(seen.append, f"few-{number % 2}"))
    begun = len(seen)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(work.run)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert len(seen) == 1_020
    few = [place for place, one in enumerate(seen) if one.startswith("few")]
    assert few[0] <= begun + 1
    assert few[-1] <= begun + 3 * 20, "it had about every other turn"
    assert {seen[place] for place in few[:10]} == {"few-0", "few-1"}, "its builds take turns"


async def test_between_turns_others_run() -> None:
    """A task that is ready gets to run every few replies, not after all of them."""
    seen: list[int] = []
    work = FairDispatcher()
    for number in range(20 * fairness._AT_ONCE):
        work.take("large", partial(seen.append, number))
    looks: list[int] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(work.run)
        while len(seen) < 20 * fairness._AT_ONCE:
            await trio.lowlevel.checkpoint()
            looks.append(len(seen))
        nursery.cancel_scope.cancel()
    assert max(after - before for before, after in pairwise(looks)) <= 2 * fairness._AT_ONCE


async def test_of_what_is_large_few_are_dealt_with_at_once() -> None:
    """Replies of 64 KB have others run after each of them; a build with small ones still has its turn."""
    seen: list[str] = []
    work = FairDispatcher()
    for number in range(40):
        work.take(f"large-{number % 2}", partial(seen.append, "large"), weight=fairness._AT_ONCE)
    work.take("small", partial(seen.append, "small"))
    looks: list[int] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(work.run)
        while len(seen) < 41:
            await trio.lowlevel.checkpoint()
            looks.append(len(seen))
        nursery.cancel_scope.cancel()
    assert max(after - before for before, after in pairwise(looks)) <= 3, "one a turn, or two if one is small"
    assert seen.index("small") <= 3


async def test_a_reply_that_cannot_be_handled_costs_no_other() -> None:
    """Called at once or in its turn: a fault is logged, and the next reply is passed on."""
    seen: list[int] = []
    work = FairDispatcher()

    def broken() -> None:
        raise RuntimeError("broken")

    with structlog.testing.capture_logs() as logs:
        for number in range(fairness._AT_ONCE):
            work.take("b", broken if number == 0 else partial(seen.append, number))
        work.take("b", broken)
        work.take("b", partial(seen.append, -1))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(work.run)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    assert seen == [*range(1, fairness._AT_ONCE), -1]
    assert [line["event"] for line in logs] == ["a reply could not be handled"]


async def test_the_queue_of_a_build_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than can be in flight is mostly duplicates: it is dealt with on the spot, and nothing is lost."""
    monkeypatch.setattr(fairness, "_MOST", 5)
    seen: list[int] = []
    work = FairDispatcher()
    for number in range(fairness._AT_ONCE + 10):
        work.take("b", partial(seen.append, number))
    # The first of a queue opens it, whatever its bound.
    assert len(seen) == fairness._AT_ONCE + 5


async def test_what_is_prepared_first_keeps_its_place_in_its_build_and_delays_no_other() -> None:
    """Also where preparing it fails: then it is dealt with as it is."""
    seen: list[str] = []
    work, prepared = FairDispatcher(), trio.Event()

    async def broken() -> None:
        await prepared.wait()
        raise RuntimeError("broken")

    work.take("a", partial(seen.append, "a1"))
    work.take("a", partial(seen.append, "a2"), prepare=prepared.wait)
    work.take("a", partial(seen.append, "a3"))
    work.take("a", partial(seen.append, "a4"), prepare=broken)
    work.take("a", partial(seen.append, "a5"))
    work.take("b", partial(seen.append, "b1"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(work.run)
        nursery.start_soon(work.through)
        await wait_all_tasks_blocked()
        work.take("b", partial(seen.append, "b2"))
        assert sorted(seen) == ["a1", "b1", "b2"]
        prepared.set()
        with structlog.testing.capture_logs() as logs:
            await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert [one for one in seen if one < "b"] == ["a1", "a2", "a3", "a4", "a5"]
    assert [line["event"] for line in logs] == ["a reply could not be read"]
