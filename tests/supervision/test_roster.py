"""Builds by their ids: which are held, which wait for another, and when none is left."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from scheduler.dispatch.senders import UNKNOWN
from scheduler.errors import InvalidBuild
from scheduler.supervision import roster as module
from scheduler.supervision.roster import Held, Roster


async def test_one_that_is_refused_meanwhile_refuses_the_same_that_waits(nursery: trio.Nursery) -> None:
    """Of two that come at once the second waits, and what the first could not do it cannot do either."""
    roster = Roster(10)
    first = await roster.enter("b1", b"same", "one")
    assert first is not None
    codes: list[str] = []

    async def enter(digest: bytes) -> None:
        try:
            held = await roster.enter("b1", digest, "two")
        except InvalidBuild as refusal:
            codes.append(refusal.code)
        else:
            codes.append("held" if held is not None else "runs")

    nursery.start_soon(enter, b"same")
    nursery.start_soon(enter, b"other")
    await wait_all_tasks_blocked()
    assert codes == []
    first.refusal = "store", "it is away"
    assert roster.remove(first)
    await wait_all_tasks_blocked()
    assert sorted(codes) == ["held", "store"]


async def test_what_is_removed_twice_leaves_its_successor_alone() -> None:
    """The id may be held again by then, for another sender."""
    roster = Roster(10)
    first = await roster.enter("b1", b"one", "one")
    assert first is not None
    assert roster.remove(first)
    second = await roster.enter("b1", b"two", "two")
    assert second is not None
    assert not roster.remove(first)
    assert roster.holds("b1")
    assert roster.sender_of("b1") == "two"
    assert roster.sender_of("b2") == UNKNOWN


async def test_a_log_that_is_being_read_keeps_nobody_waiting(autojump_clock: MockClock) -> None:
    """A process that stops waits for builds that run, not for those that it only looks at."""
    roster = Roster(10)
    reserved = await roster.reserve("b1")
    with trio.fail_after(1):
        await roster.until_idle()
    held = await roster.enter("b2", b"", "one")
    assert held is not None
    assert reserved is not None
    with trio.move_on_after(1) as slow:
        await roster.until_idle()
    assert slow.cancelled_caught
    roster.remove(held)
    with trio.fail_after(1):
        await roster.until_idle()
    assert len(roster) == 1


@pytest.mark.parametrize("stopping", [False, True])
async def test_only_so_many_are_held(stopping: bool) -> None:
    """What was left by an earlier process counts; once it stops none is taken, whatever room there is."""
    roster = Roster(2)
    roster.hold(Held("b1"))
    if stopping:
        roster.refuse_new()
    else:
        roster.hold(Held("b2"))
    with pytest.raises(InvalidBuild) as refused:
        roster.check_room()
    assert refused.value.code == ("shutting_down" if stopping else "busy")


def test_only_the_last_ends_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process runs for months, and need not know of every build that it has reported."""
    monkeypatch.setattr(module, "_MOST_REPORTED", 3)
    roster = Roster(2)
    for number in range(5):
        roster.note_reported(f"b{number}")
    assert [roster.has_reported(f"b{number}") for number in range(5)] == [False, False, True, True, True]


async def test_the_wait_for_the_end_of_one_that_is_not_held_is_short() -> None:
    """It has ended already, or never was here."""
    roster = Roster(2)
    with trio.fail_after(1):
        await roster.until_gone("b1")
