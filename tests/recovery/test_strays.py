"""Replies for builds that are not held: how many are kept while the store is asked, and for whom."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

import pytest
import trio
from trio.testing import MockClock

from scheduler.bus import Message
from scheduler.dispatch.router import Stray
from scheduler.recovery import strays as module
from scheduler.recovery.strays import Strays
from scheduler.supervision.roster import Held, Roster


def stray(build: str = "b1", component: str = "a", size: int = 10) -> Stray:
    return Stray(build, component, Message("vpc.create.aws.done", b"x" * size))


async def test_a_build_is_asked_about_once_and_has_all_its_replies() -> None:
    """What comes while the store is asked is kept with the first one, in order."""
    strays = Strays(Roster(10))
    assert [strays.take(stray(component=name)) for name in "abc"] == [True] * 3
    with trio.fail_after(1):
        assert list(await strays.to_ask()) == ["b1"]
    assert strays.take(stray(component="d"))
    assert strays.components("b1") == set("abcd")
    assert [one.component for one in strays.end("b1")] == list("abcd")


async def test_a_build_that_is_held_or_was_reported_is_not_asked_about() -> None:
    """A late reply must not revive it."""
    roster = Roster(10)
    strays = Strays(roster)
    roster.hold(Held("b1"))
    roster.note_reported("b2")
    assert not strays.take(stray("b1"))
    assert not strays.take(stray("b2"))
    assert not strays.begin("b1")
    assert strays.begin("b3")
    assert not strays.begin("b3"), "it is being asked about"


async def test_a_no_is_remembered_for_a_while(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not of every build that somebody makes up: of so many at a time."""
    monkeypatch.setattr(module, "_MOST_UNKNOWN", 2)
    strays = Strays(Roster(10))
    for build in ("b1", "b2", "b3"):
        strays.remember_unknown(build)
    assert [strays.take(stray(build)) for build in ("b1", "b2", "b3")] == [False, False, True]
    await trio.sleep(11)
    strays.remember_unknown("b4")
    assert [strays.take(stray(build)) for build in ("b1", "b2", "b4")] == [True, True, False]


async def test_what_is_kept_is_bounded_in_bytes_and_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reply beyond the bound is not kept, and nobody is asked because of it."""
    monkeypatch.setattr(module, "_MOST_BYTES", 100)
    strays = Strays(Roster(10))
    assert strays.take(stray("b1", size=90))
    assert not strays.take(stray("b2", size=20))
    assert list(await strays.to_ask()) == ["b1"]
    strays.end("b1")
    assert strays.take(stray("b2", size=20))
    assert list(await strays.to_ask()) == ["b2"]


async def test_of_one_build_only_so_many_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others have room beside it."""
    monkeypatch.setattr(module, "_MOST_STRAYS", 2)
    strays = Strays(Roster(10))
    assert [strays.take(stray()) for _ in range(3)] == [True, True, False]
    assert strays.take(stray("b2"))
