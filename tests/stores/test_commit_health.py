"""Commit health: which commits are in trouble, and what is logged when."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest
import structlog
import trio
from trio.testing import MockClock

from scheduler.errors import (
    BusClosed,
    BusError,
    JetStreamError,
    JetStreamUnavailable,
    LogMissing,
    MessageTooLarge,
    StreamNotFound,
    WrongLastSequence,
)
from scheduler.stores.commit_health import CommitHealth, patiently

SUSPENDED = "builds are suspended: nothing can be committed"
AGAIN = "commits go through again: builds resume"


class Station:
    """CommitHealth that is watched, and what was said of it."""

    def __init__(self, grace: float, lines: Sequence[Mapping[str, Any]]) -> None:
        self.health = CommitHealth(grace, lambda: self.connected)
        self.lines = lines
        self.connected = True

    @property
    def said(self) -> list[tuple[str, str]]:
        """Level and text of each line."""
        return [(line["log_level"], line["event"]) for line in self.lines]

    @property
    def loud(self) -> list[int]:
        """After how many seconds of trouble it was said loudly."""
        return [line["seconds"] for line in self.lines if line["log_level"] == "error"]


@asynccontextmanager
async def open_station(grace: float = 600.0) -> AsyncIterator[Station]:
    with structlog.testing.capture_logs() as lines:
        station = Station(grace, lines)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(station.health.watch)
            yield station
            nursery.cancel_scope.cancel()


def good(health: CommitHealth) -> bool:
    """As things are now."""
    return health.good


def failing(*errors: BusError, answer: str = "answer") -> Callable[[], Any]:
    """Raises these, one after another, and answers then."""
    left = list(errors)

    async def ask() -> str:
        await trio.lowlevel.checkpoint()
        if left:
            raise left.pop(0)
        return answer

    return ask


async def test_it_is_fine_unless_somebody_is_in_trouble() -> None:
    """An attempt is not in trouble before its first failure, nor after leaving."""
    health = CommitHealth(600)
    assert good(health)
    with health.pending() as one, health.pending() as other:
        assert good(health)
        one.failed("no quorum")
        one.failed("no quorum")
        other.failed("no room")
        assert not good(health)
    assert good(health)


async def test_one_who_is_in_trouble_is_enough() -> None:
    """That others get through does not mean that all do."""
    health = CommitHealth(600)
    with health.pending() as one:
        one.failed("no")
        with health.pending() as other:
            other.failed("no")
        assert not good(health)
    assert good(health)


async def test_who_gives_up_is_not_in_trouble_any_more() -> None:
    """However it ends, no clock stands still for it afterwards."""
    health = CommitHealth(600)
    with pytest.raises(ZeroDivisionError), health.pending() as trouble:  # noqa: PT012
        trouble.failed("no")
        raise ZeroDivisionError
    assert good(health)


async def test_short_trouble_is_not_worth_a_line(autojump_clock: MockClock) -> None:
    """A leader that changes is not told of."""
    async with open_station() as station:
        for _ in range(10):
            with station.health.pending() as trouble:
                trouble.failed("no leader")
                await trio.sleep(1.5)
            await trio.sleep(5)
        assert station.said == []


async def test_trouble_that_lasts_is_said_once_and_so_is_its_end(autojump_clock: MockClock) -> None:
    """A line when it begins, with the reason, and one when it is over, with its length."""
    async with open_station() as station:
        with station.health.pending() as trouble:
            for _ in range(100):
                trouble.failed("no quorum")
                await trio.sleep(1)
        await trio.sleep(50)
        assert station.said == [("warning", SUSPENDED), ("warning", AGAIN)]
        assert station.lines[0]["reason"] == "no quorum"
        assert station.lines[1]["seconds"] == pytest.approx(100, abs=2.5)


async def test_it_is_said_again_when_it_comes_again(autojump_clock: MockClock) -> None:
    """Each time of trouble has its own lines."""
    async with open_station() as station:
        for _ in range(2):
            with station.health.pending() as trouble:
                trouble.failed("no")
                await trio.sleep(10)
            await trio.sleep(10)
        assert [text for _, text in station.said] == [SUSPENDED, AGAIN] * 2


async def test_beyond_the_grace_it_is_said_loudly_each_time_that_it_has_doubled(
    autojump_clock: MockClock,
) -> None:
    """Ten minutes, twenty, forty: loud, and no flood. Nothing else follows from it."""
    async with open_station(grace=600) as station:
        with station.health.pending() as trouble:
            trouble.failed("no quorum")
            await trio.sleep(3_000)
        assert station.loud == pytest.approx([600, 1_200, 2_400], abs=2)
        assert "check the broker" in station.lines[1]["event"]
        await trio.sleep(5)
        with station.health.pending() as trouble:
            trouble.failed("no quorum")
            await trio.sleep(700)
        assert station.loud == pytest.approx([600, 1_200, 2_400, 600], abs=2)


async def test_without_a_connection_nothing_can_be_committed(autojump_clock: MockClock) -> None:
    """That is logged even without an attempt."""
    async with open_station() as station:
        station.connected = False
        await trio.sleep(700)
        station.connected = True
        await trio.sleep(5)
        assert station.said[0] == ("warning", SUSPENDED)
        assert station.lines[0]["reason"] == "there is no connection to the broker"
        assert station.loud == pytest.approx([600], abs=2)
        assert station.said[-1] == ("warning", AGAIN)


async def test_a_reason_is_cut(autojump_clock: MockClock) -> None:
    """Whatever a server says, the line stays readable."""
    async with open_station() as station:
        with station.health.pending() as trouble:
            trouble.failed("x" * 100_000)
            await trio.sleep(700)
        assert max(len(line.get("reason", "")) for line in station.lines) <= 1_000


async def test_a_log_that_is_missing_ends_the_watch() -> None:
    """It is raised where the store runs, at once."""
    health = CommitHealth(600)
    error = LogMissing("gone")
    health.missing(error)
    with pytest.raises(LogMissing, match="gone"):
        await health.watch()


# ---- asking until there is an answer


async def test_it_asks_until_it_is_answered(autojump_clock: MockClock) -> None:
    """With growing pauses of a second at most, and in trouble meanwhile."""
    health = CommitHealth(600)
    times: list[float] = []

    async def ask() -> str:
        times.append(trio.current_time())
        assert health.good is (len(times) == 1)
        if len(times) < 12:
            raise JetStreamUnavailable("no leader")
        return "answer"

    assert await patiently(health, ask) == "answer"
    assert good(health)
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert pauses == sorted(pauses)
    assert pauses[0] < 0.1
    assert pauses[-1] == pytest.approx(1.0)


@pytest.mark.parametrize(
    "error", [BusClosed("closed"), MessageTooLarge("a record", 2, 1), StreamNotFound("no stream")]
)
async def test_what_no_waiting_cures_is_raised(error: BusError) -> None:
    """And whatever the caller takes for an answer."""
    health = CommitHealth(600)
    with pytest.raises(type(error)):
        await patiently(health, failing(error), StreamNotFound)
    assert good(health)


async def test_an_answer_that_is_an_error_ends_trouble(autojump_clock: MockClock) -> None:
    """The broker works again, even if what it says is no."""
    health = CommitHealth(600)
    ask = failing(JetStreamUnavailable("no"), WrongLastSequence("another"))
    with pytest.raises(WrongLastSequence):
        await patiently(health, ask, WrongLastSequence)
    assert good(health)


async def test_a_refusal_that_should_not_be_is_said_and_asked_again(autojump_clock: MockClock) -> None:
    """Once a minute, not each time; once an operator has mended it, it resumes by itself."""
    with structlog.testing.capture_logs() as lines:
        asked = failing(*[JetStreamError("not allowed", code=403)] * 150)
        assert await patiently(CommitHealth(600), asked) == "answer"
    assert [line["log_level"] for line in lines] == ["error"] * 3
    assert "not allowed" in lines[0]["reason"]


async def test_who_stops_asking_is_not_in_trouble_any_more(autojump_clock: MockClock) -> None:
    """A caller that goes away leaves no trouble behind."""
    health = CommitHealth(600)
    with trio.move_on_after(5):
        await patiently(health, failing(*[JetStreamUnavailable("no")] * 100))
    assert good(health)
