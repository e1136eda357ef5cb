"""Clocks that step, within a process and from one to the next: what is told, what is kept, what is left."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

import json
from typing import Any

import pytest
import trio
from support.asking import ask
from support.durable import Plant, Process, log_of, until, wall_clock
from support.fakes import Reply, change, document, ignore
from trio.testing import MockClock

from scheduler.client.timeline import read_timeline
from scheduler.journal.events import Sent, Settled
from scheduler.runtime.clock import BuildClock

JSON = dict[str, Any]
HOUR = 3_600.0
DAY = 86_400.0


class Clock:
    """A wall clock that is set while it runs."""

    def __init__(self) -> None:
        self.off = 0.0

    def __call__(self) -> float:
        return wall_clock() + self.off


def events(process: Process) -> list[JSON]:
    """Everything that a process told of builds, in order."""
    told = [one for one in process.bus.published if one.subject.startswith("scheduler.event.")]
    return [event for one in told for event in json.loads(one.data)["events"]]


async def test_a_clock_that_is_set_does_not_move_a_builds_time(autojump_clock: MockClock) -> None:
    """A build's clock looks at the wall clock once."""
    clock = Clock()
    mine = BuildClock(clock)
    began = mine()
    clock.off = -DAY
    await trio.sleep(2)
    assert mine() - began == pytest.approx(2)
    assert BuildClock(clock)() == pytest.approx(began + 2 - DAY)


async def test_a_builds_time_is_never_behind_what_has_been(autojump_clock: MockClock) -> None:
    """Where the wall clock is behind, it goes on from what is known; where it is ahead, from that."""
    now = wall_clock()
    assert BuildClock(wall_clock, now + DAY)() == pytest.approx(now + DAY)
    assert BuildClock(wall_clock, now - DAY)() == pytest.approx(now)
    mine = BuildClock(wall_clock)
    mine.go_on_after(now - DAY)
    assert mine() == pytest.approx(now)
    mine.go_on_after(now + DAY)
    await trio.sleep(1)
    assert mine() == pytest.approx(now + DAY + 1)


@pytest.mark.parametrize("step", [HOUR, -HOUR])
async def test_a_duration_is_by_no_clock_that_can_be_set(autojump_clock: MockClock, step: float) -> None:
    """An attempt of two seconds took two, in events, in the timeline, in the log, and for what is learnt."""
    plant, clock = Plant(ignore), Clock()
    plant.wall_clock = clock
    async with plant.run() as process:
        await process.submit(document([change("a"), change("b")], [("a", "b")]))
        await trio.sleep(1)
        clock.off += step
        await trio.sleep(1)
        plant.answer("a")
        await trio.sleep(1)
        plant.answer("b")
        await until(lambda: process.reports)
        await trio.sleep(1)
        took = {one["component"]: one["seconds"] for one in events(process) if "seconds" in one}
        assert took == {"a": pytest.approx(2, abs=0.1), "b": pytest.approx(1, abs=0.1)}
        times = [event["time"] for event in events(process)]
        assert times == sorted(times)
        learnt = process.service.planner.durations.recorded()
        assert max(learnt.values()) < 2.1
        found = read_timeline(await ask(process, "get", graph=True))
        assert {one.component: one.working for one in found.spans} == {
            "a": pytest.approx(2, abs=0.1),
            "b": pytest.approx(1, abs=0.1),
        }
        assert found.seconds == pytest.approx(3, abs=0.1)
        history = await process.store.logs.history(log_of("b1"))
        assert history.times == sorted(history.times)
        assert history.latest - history.times[0] == pytest.approx(3_000, abs=100)


@pytest.mark.parametrize("off", [-DAY, 0.0, DAY])
async def test_of_a_pause_no_more_is_left_than_the_pause(autojump_clock: MockClock, off: float) -> None:
    """However far the next process's clock is behind, or ahead."""
    plant, clock = Plant(ignore), Clock()
    plant.wall_clock = clock
    async with plant.run() as process:
        await process.submit(document([change("a", _retry={"attempts": 2, "backoff": 0})]))
        await trio.sleep(1)
        plant.answer("a", Reply("errored", fields={"error": "busy", "retry_after": 4.0}))
        await trio.sleep(1)
    clock.off = off
    async with plant.run() as process:
        began = trio.current_time()
        await until(lambda: len(plant.requests) == 2)
        assert trio.current_time() - began < 5


@pytest.mark.parametrize("off", [-DAY, 0.0, DAY])
async def test_of_a_deadline_no_more_is_left_than_the_deadline(autojump_clock: MockClock, off: float) -> None:
    """An attempt, and all attempts together, end when they have to at the latest, and never in the past."""
    plant, clock = Plant(ignore), Clock()
    plant.wall_clock = clock
    rule = {"attempts": 2, "backoff": 0, "total_timeout": 200}
    async with plant.run() as process:
        await process.submit(document([change("a", _timeout=30), change("b", _timeout=150, _retry=rule)]))
        await trio.sleep(10)
    clock.off = off
    async with plant.run() as process:
        began = trio.current_time()
        failed: dict[str, float] = {}

        def both() -> bool:
            for event in events(process):
                if event.get("state") in {"errored", "retrying"}:
                    failed.setdefault(event["component"], trio.current_time() - began)
            return bool(process.reports)

        await until(both)
        assert failed["a"] <= 31
        assert failed["b"] <= 151
        assert trio.current_time() - began <= 202


@pytest.mark.parametrize(("off", "took"), [(0.0, 15.0), (-2.0, 13.0), (-DAY, 5.3)])
async def test_a_builds_time_never_goes_back_over_a_restart(
    autojump_clock: MockClock, off: float, took: float
) -> None:
    """Events and records of the next process are later than those before, and what ran ran through."""
    plant, clock = Plant(ignore), Clock()
    plant.wall_clock = clock
    async with plant.run() as process:
        await process.submit(document([change("a"), change("b")], [("a", "b")]))
        await trio.sleep(10)
        before = events(process)
    clock.off = off
    async with plant.run() as process:
        await trio.sleep(5)
        plant.answer("a")
        await trio.sleep(1)
        plant.answer("b")
        await until(lambda: process.reports)
        await trio.sleep(1)
        told = events(process)
        assert min(one["time"] for one in told) > max(one["time"] for one in before)
        assert {one["component"]: one["seconds"] for one in told if "seconds" in one} == {
            "a": pytest.approx(took, abs=0.5),
            "b": pytest.approx(1, abs=0.1),
        }
        history = await process.store.logs.history(log_of("b1"))
        assert history.times == sorted(history.times)


async def test_the_log_says_when_things_happened(autojump_clock: MockClock) -> None:
    """Not when it was written down: the word that a request has left waits for company."""
    plant = Plant(ignore)
    async with plant.run() as process:
        await process.submit(document([change("a"), change("b")], [("a", "b")]))
        await trio.sleep(0.01)
        left = wall_clock()
        await trio.sleep(3)
        plant.answer("a")
        await trio.sleep(0.05)
        plant.answer("b")
        await until(lambda: process.reports)
        history = await process.store.logs.history(log_of("b1"))
        sent = {one.component: one.time for one in history.steps if isinstance(one, Sent)}
        assert sent == {"a": pytest.approx(left, abs=0.02)}
        settled: dict[str, Any] = {
            one.component: (one.sent, one.time) for one in history.steps if isinstance(one, Settled)
        }
        assert settled == {
            "a": (None, pytest.approx(left + 3, abs=0.02)),
            # Answered before its departure was worth a word.
            "b": (pytest.approx(left + 3, abs=0.02), pytest.approx(left + 3.05, abs=0.02)),
        }
