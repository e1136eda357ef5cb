"""Deadlines of attempts: when they are called, and when time stands still."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

import gc
import weakref
from itertools import pairwise

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from support.fake_bus import FakeBus
from trio.testing import MockClock, wait_all_tasks_blocked

from scheduler.dispatch.timers import Timer, Timers


class Log:
    """Notes at what time of Trio's clock each timer was called."""

    def __init__(self, timers: Timers) -> None:
        self.timers = timers
        self.calls: list[tuple[str, float]] = []

    def start(self, name: str, seconds: float) -> Timer:
        return self.timers.start(
            seconds, lambda: self.calls.append((name, round(trio.current_time() - self.began, 3)))
        )

    def begin(self) -> None:
        self.began = trio.current_time()


@pytest.fixture
async def log(fake_bus: FakeBus, nursery: trio.Nursery) -> Log:
    timers = Timers(fake_bus)
    await nursery.start(timers.run)
    log = Log(timers)
    log.begin()
    return log


async def test_each_is_called_once_when_its_time_has_passed(log: Log, autojump_clock: MockClock) -> None:
    """Timers are called in the order in which they are due, whatever the order they were started in."""
    for name, seconds in (("c", 30.5), ("a", 0.25), ("b", 7.0)):
        log.start(name, seconds)
    await trio.sleep(100)
    assert log.calls == [("a", 0.25), ("b", 7.0), ("c", 30.5)]


async def test_one_that_is_due_earlier_than_all_others_wakes_the_clock(
    log: Log, autojump_clock: MockClock
) -> None:
    """A short timer that is started while the clock sleeps for a long one is called in its time."""
    log.start("long", 50.0)
    await trio.sleep(0.3)
    log.start("short", 0.2)
    await trio.sleep(0.3)
    assert log.calls == [("short", 0.5)]


async def test_a_cancelled_one_is_not_called(log: Log, autojump_clock: MockClock) -> None:
    """What was cancelled is forgotten; cancelling it again, or after it was called, changes nothing."""
    gone = log.start("gone", 1.0)
    kept = log.start("kept", 2.0)
    log.timers.cancel(gone)
    log.timers.cancel(gone)
    await trio.sleep(5)
    log.timers.cancel(kept)
    assert log.calls == [("kept", 2.0)]
    assert log.timers._cancelled == 0


async def test_one_may_start_another_when_it_is_called(log: Log, autojump_clock: MockClock) -> None:
    """A timer that is started by a timer's call is called in its turn."""

    def start_another() -> None:
        log.start("second", 1.0)

    log.timers.start(1.0, start_another)
    await trio.sleep(5)
    assert log.calls == [("second", 2.0)]


async def test_one_may_cancel_another_that_is_due_at_the_same_time(
    log: Log, autojump_clock: MockClock
) -> None:
    """A timer that is cancelled by an earlier one in the same moment is not called."""
    timers: list[Timer] = []
    log.timers.start(1.0, lambda: log.timers.cancel(timers[0]))
    timers.append(log.start("late", 1.0))
    await trio.sleep(5)
    assert log.calls == []


async def test_cancelled_ones_do_not_pile_up(log: Log, autojump_clock: MockClock) -> None:
    """When most of what is kept was cancelled, it is thrown away, and the rest is still called."""
    log.start("rest", 5_000.0)
    references = []
    for _ in range(5_000):
        timer = log.timers.start(3_600.0, lambda: None)
        references.append(weakref.ref(timer.expire))
        log.timers.cancel(timer)
    del timer
    gc.collect()
    assert len(log.timers._heap) < 2_100
    await trio.sleep(6_000)
    assert log.calls == [("rest", 5_000.0)]
    assert not log.timers._heap


async def test_time_stands_still_while_the_broker_is_away(
    log: Log, fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    """An outage does not count, up to the second in which it is noticed."""
    log.start("one", 10.0)
    await trio.sleep(5)
    fake_bus.disconnect()
    await trio.sleep(1_000)
    assert log.calls == []
    fake_bus.reconnect()
    await trio.sleep(100)
    [(_, at)] = log.calls
    assert 1_009 <= at <= 1_011.5


async def test_an_outage_while_nothing_is_timed_is_noticed_when_something_is(
    log: Log, fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    """A timer that is started while the broker is away waits for it, though the clock slept until then."""
    await trio.sleep(50)
    fake_bus.disconnect()
    await trio.sleep(50)
    log.start("one", 3.0)
    await trio.sleep(50)
    assert log.calls == []
    fake_bus.reconnect()
    await trio.sleep(50)
    [(_, at)] = log.calls
    assert 153 <= at <= 154.5


async def test_it_sleeps_while_there_is_nothing_to_do(log: Log, autojump_clock: MockClock) -> None:
    """Without timers the clock is not looked at: nothing is scheduled for ever and a day."""
    log.start("one", 1.0)
    await trio.sleep(10)
    await wait_all_tasks_blocked()
    assert trio.lowlevel.current_statistics().seconds_to_next_deadline == float("inf")


async def test_many_are_called_each_in_its_time(log: Log, autojump_clock: MockClock) -> None:
    """Ten thousand timers in any order, most of them cancelled, are called exactly when they are due."""
    kept = []
    for number in range(10_000):
        due = 1 + number * 7_919 % 10_000 * 0.01
        timer = log.start(str(number), due)
        if number % 3:
            log.timers.cancel(timer)
        else:
            kept.append((round(due, 3), str(number)))
    await trio.sleep(1_000)
    assert log.calls == [(name, due) for due, name in sorted(kept)]


@given(st.lists(st.floats(0.001, 1e6, allow_nan=False), min_size=1, max_size=8), st.floats(0, 1e6))
def test_no_rounding_keeps_a_timer_from_being_called(delays: list[float], since: float) -> None:
    """Whatever the numbers, the clock is not looked at again and again without end."""

    async def main() -> None:
        timers = Timers(FakeBus())
        calls: list[float] = []
        looks = 0
        look = timers.now

        def count() -> float:
            nonlocal looks
            looks += 1
            assert looks < 1_000, "the clock is looked at without end"
            return look()

        async with trio.open_nursery() as nursery:
            await trio.sleep(since)
            await nursery.start(timers.run)
            timers._passed = since / 3
            for delay in delays:
                timers.start(delay % 100, lambda: calls.append(0.0))
            timers.now = count  # type: ignore[method-assign]
            await trio.sleep(200)
            nursery.cancel_scope.cancel()
        assert len(calls) == len(delays)

    trio.run(main, clock=MockClock(autojump_threshold=0))


# ---- outages that are told


class Watch:
    """A clock, what may stop it, and what it tells of outages."""

    def __init__(self, bus: FakeBus) -> None:
        self.bus = bus
        self.available = True
        self.outages: list[tuple[float, float]] = []
        """When each was over, and how many seconds it took."""
        self.timers = Timers(
            bus,
            lambda: self.available,
            lambda seconds: self.outages.append((trio.current_time(), seconds)),
        )
        self.log = Log(self.timers)

    def stop(self, why: str) -> None:
        if why == "bus":
            self.bus.disconnect()
        else:
            self.available = False

    def resume(self, why: str) -> None:
        if why == "bus":
            self.bus.reconnect()
        else:
            self.available = True


@pytest.fixture
async def watch(fake_bus: FakeBus, nursery: trio.Nursery) -> Watch:
    watch = Watch(fake_bus)
    await nursery.start(watch.timers.run)
    watch.log.begin()
    return watch


WHY = pytest.mark.parametrize("why", ["bus", "store"])


@WHY
async def test_time_stands_still_while_nothing_can_be_persisted(
    watch: Watch, autojump_clock: MockClock, why: str
) -> None:
    """Whether the broker is away or does not commit: what is in flight has all of its time."""
    watch.log.start("a", 100.0)
    await trio.sleep(50)
    watch.stop(why)
    await trio.sleep(1_000)
    watch.resume(why)
    await trio.sleep(45)
    assert watch.log.calls == []
    await trio.sleep(10)
    assert [name for name, _ in watch.log.calls] == ["a"]


@WHY
async def test_the_end_of_an_outage_is_told_with_its_length(
    watch: Watch, autojump_clock: MockClock, why: str
) -> None:
    """Within a second, so that deadlines that are written down can be moved by as much as those in memory."""
    watch.log.start("a", 5_000.0)
    for length in (10.0, 300.0):
        await trio.sleep(20.25)
        watch.stop(why)
        await trio.sleep(length)
        assert len(watch.outages) < 2
        watch.resume(why)
        back = trio.current_time()
        await trio.sleep(5)
        when, seconds = watch.outages[-1]
        assert when - back <= 1.0
        assert seconds == pytest.approx(length, abs=1.01)
    assert len(watch.outages) == 2
    await trio.sleep(6_000)
    [(_, due)] = watch.log.calls
    assert due == pytest.approx(5_000.0 + sum(seconds for _, seconds in watch.outages), abs=0.01)


async def test_two_reasons_are_one_outage(watch: Watch, autojump_clock: MockClock) -> None:
    """It lasts until neither holds any more."""
    watch.log.start("a", 1_000.0)
    await trio.sleep(10)
    watch.stop("bus")
    await trio.sleep(10)
    watch.stop("store")
    watch.resume("bus")
    await trio.sleep(10)
    assert watch.outages == []
    watch.resume("store")
    await trio.sleep(10)
    [(_, seconds)] = watch.outages
    assert seconds == pytest.approx(20.0, abs=1.01)


async def test_an_outage_that_outlasts_every_timer_is_told(watch: Watch, autojump_clock: MockClock) -> None:
    """The clock watches on although nothing is in flight any more."""
    timer = watch.log.start("a", 1_000.0)
    await trio.sleep(10)
    watch.stop("bus")
    await trio.sleep(10)
    watch.timers.cancel(timer)
    await trio.sleep(2_000)
    watch.resume("bus")
    await trio.sleep(10)
    [(_, seconds)] = watch.outages
    assert seconds == pytest.approx(2_010.0, abs=1.01)


@WHY
@pytest.mark.parametrize("alone", [True, False])
async def test_a_timer_that_starts_during_an_outage_begins_after_it(
    watch: Watch, autojump_clock: MockClock, why: str, alone: bool
) -> None:
    """Nothing of its time passes before, whether or not the clock had anything to watch."""
    if not alone:
        watch.log.start("first", 500.0)
    await trio.sleep(10)
    watch.stop(why)
    await trio.sleep(10)
    watch.log.start("second", 20.0)
    await trio.sleep(1_000)
    watch.resume(why)
    back = trio.current_time()
    await trio.sleep(18.9)
    assert watch.log.calls == []
    await trio.sleep(3)
    [(name, when)] = watch.log.calls
    assert name == "second"
    assert when + watch.log.began - back == pytest.approx(20, abs=1.01)


async def test_without_an_outage_nothing_is_told(watch: Watch, autojump_clock: MockClock) -> None:
    """However long the clock runs."""
    watch.log.start("a", 100.0)
    await trio.sleep(1_000)
    assert watch.outages == []


async def test_timers_that_are_due_together_expire_in_slices(log: Log, autojump_clock: MockClock) -> None:
    """Others have their turn between them, however many there are."""
    seen: list[int] = []
    due = trio.Event()
    log.timers.start(5.0, due.set)
    for number in range(2_000):
        log.start(str(number), 5.0)
    await due.wait()
    while len(log.calls) < 2_000:
        seen.append(len(log.calls))
        await trio.lowlevel.checkpoint()
    seen.append(len(log.calls))
    steps = {later - earlier for earlier, later in pairwise(seen)}
    assert max(steps) <= 2 * 500, "two slices may follow each other: tasks run in any order"
