"""When builds that run will be over, for whoever asks."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest
import trio
from attrs import evolve
from support.fakes import JSON, change, document, ignore, open_world, prepare
from support.patients import Patient
from trio.testing import MockClock

from scheduler.control.eta import EtaEstimator
from scheduler.definition.rules import parse_limits
from scheduler.forecast import forecast
from scheduler.forecast.durations import Durations
from scheduler.forecast.preview import preview

TEN = Durations([("*.*.*", 10.0)])


@pytest.fixture(autouse=True)
def threads(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What was done in threads: here at once, since a clock that jumps would not wait for them."""
    done: list[object] = []

    async def run_sync(function: Callable[..., Any], *arguments: Any, **_: Any) -> Any:
        await trio.lowlevel.checkpoint()
        done.append(function)
        return function(*arguments)

    monkeypatch.setattr("trio.to_thread.run_sync", run_sync)
    return done


def eta(durations: Durations = TEN, limits: str = "", cap: int = 500) -> EtaEstimator:
    return EtaEstimator(durations, parse_limits(limits), cap)


@asynccontextmanager
async def ill(value: JSON) -> AsyncIterator[Patient]:
    """A build whose first requests nobody has answered yet."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        patient = Patient(world, value)
        await patient.start(nursery)
        yield patient
        nursery.cancel_scope.cancel()


async def test_what_has_begun_has_less_left(autojump_clock: MockClock) -> None:
    """A chain of three takes thirty seconds; what ran for four has six left."""
    async with ill(document("abc", pairwise("abc"))) as patient:
        assert await eta().eta(patient.seen) == 30
        await trio.sleep(4)
        assert await eta().eta(patient.seen) == 26
        await patient.complete("a")
        assert await eta().eta(patient.seen) == 20


async def test_what_takes_longer_than_expected_is_expected_at_any_moment(autojump_clock: MockClock) -> None:
    """Never is anything over in the past."""
    async with ill(document("a")) as patient:
        await trio.sleep(100)
        assert 0 <= (await eta().eta(patient.seen) or 0.0) < 100


async def test_an_attempt_that_is_late_makes_the_build_overdue(autojump_clock: MockClock) -> None:
    """By as much as it is past what was expected, and more every second; until it is answered."""
    async with ill(document("abc", pairwise("abc"))) as patient:
        asked = eta()
        await trio.sleep(10.5)
        assert (await asked.overdue(patient.seen), await asked.eta(patient.seen) is None) == (None, False)
        await trio.sleep(1_139.5)
        assert await asked.overdue(patient.seen) == pytest.approx(1_140)
        assert await asked.eta(patient.seen) is None
        await trio.sleep(0.5)
        assert await asked.overdue(patient.seen) == pytest.approx(1_140.5)
        await patient.complete("a")
        assert await asked.overdue(patient.seen) is None
        await trio.sleep(1)
        assert await asked.eta(patient.seen) == pytest.approx(19)


async def test_what_takes_longer_than_a_mere_guess_is_not_overdue(autojump_clock: MockClock) -> None:
    """Nothing is known of such requests: there is no end in sight, and nobody is late."""
    async with ill(document("ab", [("a", "b")])) as patient:
        asked = eta(Durations())
        assert await asked.end(patient.seen) == (2.0, None)
        await trio.sleep(60)
        assert await asked.end(patient.seen) == (None, None)


async def test_an_attempt_that_the_end_does_not_wait_for_is_not_what_is_overdue(
    autojump_clock: MockClock,
) -> None:
    """As long as the rest takes longer; nor is one that is late by little of what is left."""
    durations = Durations((("vm.*.*", 1_000.0), ("*.*.*", 10.0)))
    async with ill(document(["a", change("b", kind="vm")])) as patient:
        await trio.sleep(200)
        asked = eta(durations)
        assert await asked.overdue(patient.seen) is None
        assert await asked.eta(patient.seen) == pytest.approx(800)
    async with ill(document(["a", change("b", kind="vm")], [("a", "b")])) as patient:
        await trio.sleep(100)
        assert await eta(durations).overdue(patient.seen) is None
        await trio.sleep(20)
        assert await eta(durations).overdue(patient.seen) == pytest.approx(110)


async def test_what_is_late_and_holds_a_slot_makes_the_build_overdue(autojump_clock: MockClock) -> None:
    """The end waits for it also where no edge says so."""
    async with ill(document("ab", options={"limits": {"*": 1}})) as patient:
        await trio.sleep(60)
        assert await eta().overdue(patient.seen) == pytest.approx(50)


async def test_an_attempt_is_late_by_its_own_time(autojump_clock: MockClock) -> None:
    """The attempts before it, and the pauses between them, are none of it."""
    value = document([change("a", _retry={"attempts": 2, "backoff": 0})])
    async with ill(value) as patient:
        await trio.sleep(9)
        await patient.fail("a", "busy", retry_after=30)
        await trio.sleep(32)
        assert await eta().overdue(patient.seen) is None
        await trio.sleep(20)
        assert await eta().overdue(patient.seen) == pytest.approx(12, abs=1)


async def test_recorded_durations_count(autojump_clock: MockClock) -> None:
    """Each by its subject."""
    durations = Durations()
    durations.record("vpc.create.aws", 5.0)
    durations.record("vm.create.aws", 60.0)
    async with ill(document(["a", change("b", kind="vm")], [("a", "b")])) as patient:
        assert await eta(durations).eta(patient.seen) == 65


@pytest.mark.parametrize(
    ("limits", "cap", "seconds"), [("", 500, 10), ("vpc.create.*=2", 500, 30), ("", 3, 20), ("*=1", 500, 60)]
)
async def test_limits_are_foreseen(autojump_clock: MockClock, limits: str, cap: int, seconds: float) -> None:
    """Those of the instance and how much a build may have in flight: six that do not depend on each other."""
    waiting = document([change("z"), *"abcdef"], [("z", name) for name in "abcdef"])
    async with ill(waiting) as patient:
        assert await eta(limits=limits, cap=cap).eta(patient.seen) == 10 + seconds


async def test_limits_of_the_build_are_foreseen_as_they_are_now(autojump_clock: MockClock) -> None:
    """Also where an operator has just changed them."""
    value = document(["z", *"abcd"], [("z", name) for name in "abcd"], options={"limits": {"*": 1}})
    async with ill(value) as patient:
        assert await eta().eta(patient.seen) == 50
        await patient.commands.limit({"*": 2})
        assert await eta().eta(patient.seen) == 30


async def test_a_pause_before_another_attempt_is_foreseen(autojump_clock: MockClock) -> None:
    """And after it a whole attempt."""
    value = document([change("a", _retry={"attempts": 2}), "b"], [("a", "b")])
    async with ill(value) as patient:
        await patient.fail("a", "busy", retry_after=60)
        assert await eta().eta(patient.seen) == pytest.approx(80)
        await trio.sleep(20)
        assert await eta().eta(patient.seen) == pytest.approx(60)


async def test_what_is_skipped_takes_no_time(autojump_clock: MockClock) -> None:
    """Nor does what has failed."""
    value = document("abcx", pairwise("abc"), options={"on_error": "continue"})
    async with ill(value) as patient:
        assert await eta().eta(patient.seen) == 30
        await patient.fail("a")
        assert await eta().eta(patient.seen) == 10


@pytest.mark.parametrize("how", ["cancelled", "failed", "stopped"])
async def test_of_what_starts_nothing_more_no_end_is_foreseen(autojump_clock: MockClock, how: str) -> None:
    """What is awaited is not what was asked for; nor is it late."""
    async with ill(document("abcx", pairwise("abc"))) as patient:
        await trio.sleep(3)
        if how == "cancelled":
            await patient.commands.cancel(now=False, reason="")
        elif how == "failed":
            await patient.fail("x")
        else:
            patient.seen.plan.state.stop()
        asked = eta()
        assert (await asked.eta(patient.seen), await asked.overdue(patient.seen)) == (None, None)
        await trio.sleep(300)
        assert (await asked.eta(patient.seen), await asked.overdue(patient.seen)) == (None, None)


async def test_of_what_is_paused_nobody_can_say(autojump_clock: MockClock) -> None:
    """Nor of what is paused and then cancelled."""
    async with ill(document("ab", [("a", "b")])) as patient:
        await patient.commands.pause()
        assert await eta().eta(patient.seen) is None
        await patient.commands.cancel(now=False, reason="")
        assert await eta().eta(patient.seen) is None


async def test_of_what_is_over_or_elsewhere_nobody_can_say(autojump_clock: MockClock) -> None:
    """There is nothing to wait for, or nobody here knows."""
    async with ill(document("a")) as patient:
        assert await eta().eta(evolve(patient.seen, walk=None)) is None
        await patient.complete("a")
        assert patient.seen.over
        assert await eta().eta(patient.seen) is None


async def test_it_is_predicted_once_a_second(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In between the last prediction counts down."""
    made = 0

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal made
        made += 1
        return forecast(*arguments, **options)

    monkeypatch.setattr("scheduler.control.eta.forecast", counted)
    async with ill(document("ab", [("a", "b")])) as patient:
        asked = eta()
        assert [await asked.eta(patient.seen) for _ in range(5)] == [20] * 5
        await trio.sleep(0.5)
        assert (await asked.eta(patient.seen), made) == (19.5, 1)
        await trio.sleep(0.6)
        assert await asked.eta(patient.seen) == pytest.approx(18.9)
        assert made == 2


async def test_a_large_build_is_predicted_beside_the_loop_and_less_often(
    autojump_clock: MockClock, threads: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that who looks at it all the time costs two percent at most."""
    clock = iter(range(0, 1_000, 3))
    monkeypatch.setattr("scheduler.control.eta.time.thread_time", lambda: float(next(clock)))
    names = [f"c{number}" for number in range(150)]
    async with ill(document(names, pairwise(names))) as patient:
        asked = eta()
        assert await asked.eta(patient.seen) == 1_500
        assert len(threads) == 1
        await trio.sleep(140)
        assert (await asked.eta(patient.seen), len(threads)) == (1_360, 1)
        await trio.sleep(20)
        await asked.eta(patient.seen)
        assert len(threads) == 2


async def test_what_it_looked_at_may_change_while_it_is_predicted(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In its thread nothing of the build is asked that lives."""
    names = [f"c{number}" for number in range(150)]
    async with ill(document(names, pairwise(names))) as patient:

        async def run_sync(function: Callable[..., Any], *arguments: Any, **_: Any) -> Any:
            await patient.complete("c0")
            return function(*arguments)

        monkeypatch.setattr("trio.to_thread.run_sync", run_sync)
        assert await eta().eta(patient.seen) == 1_500


async def test_a_preview_is_that_of_the_command(autojump_clock: MockClock, threads: list[object]) -> None:
    """The same document, made beside the loop where it is a large one."""
    for size, beside in ((5, 0), (150, 1)):
        names = [f"c{number}" for number in range(size)]
        prepared = prepare(document(names, pairwise(names)))
        rules = parse_limits("*=2")
        found = await EtaEstimator(TEN, rules, 7).preview(prepared)
        assert found == preview(prepared, TEN, rules, cap=7).document()
        assert len(threads) == beside
