"""Work beside the loop: how many threads, whose turn it is, and what becomes of work nobody waits for."""

import threading
from functools import partial

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from scheduler.runtime.executor import THREADS, ThreadExecutor

_DEADLINE = 20.0


class Held:
    """A job that runs until it is let go."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self._end = threading.Event()

    def __call__(self) -> None:
        self.begun.set()
        assert self._end.wait(_DEADLINE)

    def end(self) -> None:
        self._end.set()

    async def has_begun(self) -> None:
        assert await trio.to_thread.run_sync(self.begun.wait, _DEADLINE)


async def test_what_a_job_returns_or_raises_comes_back() -> None:
    executor = ThreadExecutor()
    assert await executor.run("b", lambda: threading.current_thread() is threading.main_thread()) is False
    with pytest.raises(ZeroDivisionError):
        await executor.run("b", lambda: 1 // 0)


async def _order(owners: str, cancelled: str = "") -> str:
    """In which order the jobs of these owners run while one thread is free for them."""
    executor = ThreadExecutor()
    blockers = [Held() for _ in range(THREADS)]
    ran: list[str] = []

    async def run(owner: str, scope: trio.CancelScope) -> None:
        with scope:
            await executor.run(owner, partial(ran.append, owner))

    async with trio.open_nursery() as nursery:
        for blocker in blockers:
            nursery.start_soon(executor.run, "blocker", blocker)
            await blocker.has_begun()
        async with trio.open_nursery() as runs:
            for owner in owners:
                scope = trio.CancelScope()
                runs.start_soon(run, owner, scope)
                await wait_all_tasks_blocked()
                if owner in cancelled:
                    scope.cancel()
            await wait_all_tasks_blocked()
            assert not ran
            blockers[0].end()
        blockers[1].end()
    return "".join(ran)


async def test_owners_have_their_turns_in_rotation() -> None:
    assert await _order("aaaaabc") == "abcaaaa"


async def test_whoever_was_cancelled_while_it_waited_takes_no_turn() -> None:
    assert await _order("aabcc", cancelled="b") == "acac"


async def test_a_long_job_waits_for_the_long_one_before_it_and_short_ones_do_not() -> None:
    executor = ThreadExecutor()
    long, ran = Held(), []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: executor.run("a", long, long=True))
        await long.has_begun()
        nursery.start_soon(lambda: executor.run("b", lambda: ran.append("long"), long=True))
        await wait_all_tasks_blocked()
        for _ in range(10):
            await executor.run("c", lambda: ran.append("short"))
        assert ran == ["short"] * 10
        long.end()
    assert ran[-1] == "long"


async def test_a_job_that_nobody_waits_for_keeps_its_thread_until_it_ends() -> None:
    executor = ThreadExecutor()
    held = [Held() for _ in range(THREADS)]
    ran: list[str] = []
    async with trio.open_nursery() as nursery:
        async with trio.open_nursery() as given_up:
            for one in held:
                given_up.start_soon(executor.run, "a", one)
                await one.has_begun()
            given_up.cancel_scope.cancel()
        nursery.start_soon(lambda: executor.run("b", lambda: ran.append("b")))
        await wait_all_tasks_blocked()
        assert not ran
        for one in held:
            one.end()
    assert ran == ["b"]
