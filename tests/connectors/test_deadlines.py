"""Deadlines of calls: they come in time, in their order, and not where a call has ended."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

import gc
import weakref

import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from scheduler.connectors.deadlines import Deadlines


async def calls_expire(times: list[tuple[float, float]]) -> list[tuple[float, int]]:
    """Make calls that last so long, with so much time; return when which ones expired."""
    deadlines, expired = Deadlines(), list[tuple[float, int]]()
    began = trio.current_time()

    async def call(number: int, lasts: float, seconds: float) -> None:
        with deadlines.within(seconds, lambda: expired.append((trio.current_time() - began, number))):
            await trio.sleep(lasts)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(deadlines.run)
        async with trio.open_nursery() as calls:
            for number, (lasts, seconds) in enumerate(times):
                calls.start_soon(call, number, lasts, seconds)
        nursery.cancel_scope.cancel()
    return expired


async def test_a_call_expires_when_its_time_has_come(autojump_clock: MockClock) -> None:
    """Not earlier, not twice; one that is added later may come first."""
    assert await calls_expire([(100, 5), (100, 3), (2, 4)]) == [(3.0, 1), (5.0, 0)]


LASTS = st.integers(0, 40)


@settings(max_examples=50, deadline=None)
@given(times=st.lists(st.tuples(LASTS.map(lambda n: n + 0.5), LASTS.map(float)), max_size=30))
def test_exactly_the_calls_that_last_too_long_expire(times: list[tuple[float, float]]) -> None:
    """Each at its time."""
    found = trio.run(calls_expire, times, clock=MockClock(autojump_threshold=0))
    assert sorted(found) == sorted(
        (seconds, number) for number, (lasts, seconds) in enumerate(times) if lasts > seconds
    )


async def test_calls_that_have_ended_leave_nothing_behind(autojump_clock: MockClock) -> None:
    """What would have been called is freed at once, though its time is an hour away."""

    class Job:
        def expire(self) -> None: ...

    deadlines = Deadlines()
    gc.disable()
    try:
        seen = []
        for _ in range(5_000):
            job = Job()
            seen.append(weakref.ref(job))
            with deadlines.within(3_600, job.expire):
                pass
        del job
        assert not any(ref() for ref in seen)
        assert len(deadlines._heap) <= 2_000
    finally:
        gc.enable()
