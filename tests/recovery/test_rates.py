"""A build's own rates over restarts: what an earlier process sent counts, whatever the clocks say."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

from contextlib import AsyncExitStack

import pytest
import trio
from attrs import evolve
from support.asking import ask
from support.durable import Plant, wall_clock
from support.fakes import JSON, Reply, change, document, ignore, prepare
from support.logs import NOW, record
from support.stretches import measured_stretches
from trio.testing import MockClock

from scheduler.definition.model import State
from scheduler.journal.events import Accepted, Event, Retrying, Sent, Settled, Started, Withdrawn
from scheduler.journal.history import History
from scheduler.plan import Plan
from scheduler.recovery.rates import recent_starts

SECOND = 1_000


def build(names: str = "abcdef", rate: str = "3/m", **limits: str) -> JSON:
    return {**document(list(names)), "options": {"limits": limits or {"*": rate}}}


class Log:
    """A log that several processes write, each by its own clock."""

    def __init__(self, value: JSON) -> None:
        self.plan = Plan(prepare(value))
        self.history = History()
        self.n = 0
        self.write("one", 0, Accepted({"id": "b-1"}))

    def write(self, process: str, seconds: float, *events: Event) -> None:
        """Write a record at a time by the clock of a process."""
        self.n += 1
        at = NOW + int(seconds * SECOND)
        self.history.add(evolve(record(self.n, *events, at=at), instance=process))

    async def starts(self, process: str, seconds: float) -> list[float]:
        """Return how long ago requests left at least, as a process knows at a time by its clock."""
        now = max(NOW + seconds * SECOND, self.history.latest)
        doubt = 0.0 if self.history.writer == process else self.history.doubt(now)
        found = await recent_starts(self.plan, self.history, now, doubt)
        return [round(ago, 3) for _, ago in reversed(found)]


def begin(name: str, attempt: int = 1) -> Started:
    return Started(name, f"b1/{name}/{attempt}", b"")


def left(name: str, seconds: float, attempt: int = 1) -> Sent:
    return Sent(name, f"b1/{name}/{attempt}", NOW / SECOND + seconds)


def settled(name: str, sent: float | None = None, at: float = 0.0) -> Settled:
    sent = None if sent is None else NOW / SECOND + sent
    return Settled(name, {"_state": State.COMPLETED.value}, sent=sent, time=NOW / SECOND + at)


async def test_without_rates_of_its_own_the_log_is_not_looked_at() -> None:
    """Limits on what is in flight need no history."""
    log = Log(build(rate="3"))
    log.write("one", 1, begin("a"), left("a", 1))
    assert await log.starts("one", 2) == []


async def test_requests_count_from_when_they_left() -> None:
    """As the log tells, in an event of its own or with the outcome; once, although it was sent again."""
    log = Log(build(rate="9/m"))
    log.write("one", 1, begin("a"), begin("b"), begin("c"))
    log.write("one", 5, left("a", 4), left("b", 3))
    log.write("one", 6, left("a", 6), settled("b"))
    log.write("one", 10, settled("c", sent=2, at=9))
    assert sorted(await log.starts("one", 10)) == [4, 7, 8]


async def test_each_attempt_counts() -> None:
    """Be it followed by another one, and be its departure told with its failure."""
    log = Log(build(rate="9/m"))
    log.write("one", 1, begin("a"))
    told = NOW / SECOND
    log.write("one", 3, Retrying("a", "b1/a/1", "quota", 1.0, sent=told + 2, time=told + 3))
    log.write("one", 5, begin("a", 2), left("a", 5, 2))
    assert await log.starts("one", 10) == [8, 5]


async def test_what_has_not_left_does_not_count() -> None:
    """It was withdrawn, or is in flight and not known to have left."""
    log = Log(build(rate="9/m"))
    log.write("one", 1, begin("a"), begin("b"))
    log.write("one", 2, Withdrawn("a", b""))
    assert await log.starts("one", 3) == []


async def test_without_a_departure_the_start_counts() -> None:
    """As in the logs of earlier versions."""
    log = Log(build(rate="9/m"))
    log.write("one", 1, begin("a"))
    log.write("one", 5, Settled("a", {"_state": "completed"}))
    assert await log.starts("one", 10) == [9]


@pytest.mark.parametrize("ahead", [0, 5, 29])
async def test_a_clock_that_is_ahead_makes_no_request_older(ahead: float) -> None:
    """Of the time between two processes only that counts which surely has passed."""
    log = Log(build(rate="9/m"))
    log.write("one", 1, begin("a"), left("a", 1))
    log.write("one", 4)
    log.write("two", 4 + ahead)
    log.write("two", 10 + ahead)
    assert await log.starts("two", 10 + ahead) == [9]
    assert await log.starts("three", 20 + ahead) == [9]
    assert await log.starts("three", 60 + ahead) == [29]


async def test_after_a_long_time_clocks_are_believed_but_for_half_a_minute() -> None:
    """So a build waits for no period that has passed while nobody had it."""
    log = Log(build(rate="9/h"))
    log.write("one", 1, begin("a"), left("a", 1))
    log.write("two", 1_001)
    assert await log.starts("two", 1_001) == [970]


async def test_older_requests_are_left_out() -> None:
    """They are a period ago, or there are as many later ones as the rate allows."""
    log = Log(build(rate="2/m"))
    for place, name in enumerate("abc"):
        log.write("one", 100 + place, begin(name), left(name, 100 + place))
    assert await log.starts("one", 130) == [29, 28]
    assert await log.starts("one", 161.5) == [59.5]
    assert await log.starts("one", 300) == []


async def test_what_falls_under_no_rate_is_left_out() -> None:
    """And what may fall under one counts: references supplied a part of its subject."""
    value = document([change("a"), change("b", kind="net"), change("c", provider="$(options.p)")])
    log = Log({**value, "options": {"p": "aws", "limits": {"net.*.*": "9/m"}}})
    log.write("one", 1, begin("a"), left("a", 1), begin("b"), left("b", 1))
    log.write("one", 2, begin("c"), left("c", 2))
    assert await log.starts("one", 3) == [2, 1]


async def test_a_long_log_is_looked_at_in_slices() -> None:
    """Others have a turn after a millisecond or two."""
    names = [f"c{number}" for number in range(10_000)]
    log = Log(document(names, options={"limits": {"*": "100000/h"}}))
    log.write("one", 1, *(event for name in names for event in (begin(name), left(name, 1), settled(name))))
    with measured_stretches() as stretches:
        assert len(await log.starts("one", 2)) == len(names)
    assert max(one.seconds for one in stretches.tasks) < 0.01


@pytest.mark.parametrize("ahead", [0, 20])
async def test_the_next_process_begins_no_more_than_the_rate(autojump_clock: MockClock, ahead: float) -> None:
    """Whatever its clock says: the requests of the last one count for a period."""
    plant = Plant(ignore)
    async with plant.run() as process:
        assert (await process.submit(build(rate="3/m")))["status"] == "accepted"
        await trio.sleep(2)
        for name in "abc":
            plant.answer(name)
        await trio.sleep(1)
    assert len(plant.requests) == 3
    plant.wall_clock = lambda: wall_clock() + ahead
    async with plant.run():
        await trio.sleep(56)
        assert len(plant.requests) == 3
        await trio.sleep(30)
        assert len(plant.requests) == 6


async def test_a_request_that_the_next_process_sends_counts_from_then_on(autojump_clock: MockClock) -> None:
    """It is not known to have left, so it leaves now."""
    plant = Plant(ignore)
    await plant.broker.set_up()
    value = build("abcd", rate="2/m")
    plant.broker.write(Accepted(value, "00" * 16, "0123456789abcdef"), digest="00" * 16)
    plant.broker.write(begin("a"))
    async with plant.run():
        await trio.sleep(50)
        assert [one["_component_id"] for _, one in plant.requests] == ["a", "b"]
        await trio.sleep(30)
        assert len(plant.requests) == 4


@pytest.mark.parametrize("another", [False, True])
async def test_a_new_run_counts_what_the_one_before_has_sent(
    autojump_clock: MockClock, another: bool
) -> None:
    """In the same process as in another one, whose clock is ahead."""
    plant = Plant(lambda _: [Reply("errored", fields={"error": "no"})] if len(plant.requests) < 3 else [])
    async with AsyncExitStack() as stack:
        async with AsyncExitStack() as first:
            process = await first.enter_async_context(plant.run())
            assert (await process.submit(build("ab", rate="2/m")))["status"] == "accepted"
            await trio.sleep(5)
            assert len(process.reports) == 1
            if not another:
                stack.push_async_exit(first.pop_all())
        if another:
            plant.wall_clock = lambda: wall_clock() + 25
            process = await stack.enter_async_context(plant.run())
        await ask(process, "retry")
        await trio.sleep(40)
        assert len(plant.requests) == 2
        await trio.sleep(30)
        assert len(plant.requests) == 4
