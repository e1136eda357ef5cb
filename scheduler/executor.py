"""Runs synchronous work that input can make long beside the loop: few threads, each owner in its turn.

A thread that computes has the loop wait for the interpreter's lock: with one beside it the loop gets its turn
within 1.2 ms (p99), with two within 6 ms, with three within 13 ms (at the switch interval that
`scheduler.tuning` sets). So there are two in the whole process; and as a job may take a second, one of them
takes short jobs only.
"""

import contextvars
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

import trio
from attrs import define, field

if TYPE_CHECKING:
    import outcome

_T = TypeVar("_T")

THREADS: Final = 2
"""Threads that work on input at a time, in the whole process."""
_LONG: Final = 1
"""Of these, as many at most have a long job."""


class Executor(Protocol):
    """Runs jobs beside the loop, fairly between their owners."""

    async def run(self, owner: str, job: Callable[[], _T], *, long: bool = False) -> _T:
        """Run a job beside the loop; other tasks go on meanwhile.

        The caller may be cancelled: what the job comes to is then dropped, and the job keeps its thread until
        it ends. So a job needs a bound of its own.

        Args:
            owner: whose work it is, a build's id: owners have their turns in rotation, however many jobs
                each of them has.
            job: must not touch what the loop changes meanwhile.
            long: it may take longer than a tenth of a second.

        Returns:
            What the job returns; what it raises is raised.
        """
        ...


@define(eq=False)
class _Waiter:
    owner: str
    long: bool
    granted: trio.Event = field(factory=trio.Event)


class _Rotation:
    """Who waits for a thread, by owner."""

    def __init__(self) -> None:
        self._owners: OrderedDict[str, deque[_Waiter]] = OrderedDict()

    def add(self, waiter: _Waiter) -> None:
        self._owners.setdefault(waiter.owner, deque()).append(waiter)

    def remove(self, waiter: _Waiter) -> None:
        waiters = self._owners[waiter.owner]
        waiters.remove(waiter)
        if not waiters:
            del self._owners[waiter.owner]

    def next(self) -> _Waiter | None:
        if not self._owners:
            return None
        owner, waiters = self._owners.popitem(last=False)
        waiter = waiters.popleft()
        if waiters:
            self._owners[owner] = waiters
        return waiter


class _Threads:
    """The threads of one run of Trio, and who waits for them. Used in the loop's thread only."""

    def __init__(self) -> None:
        self.taken = 0
        self.long = 0
        self.waiting = {False: _Rotation(), True: _Rotation()}

    def take(self, *, long: bool) -> bool:
        if self.taken == THREADS or (long and self.long == _LONG):
            return False
        self.taken += 1
        self.long += long
        return True

    def release(self, *, long: bool) -> None:
        self.taken -= 1
        self.long -= long
        for kind in (True, False):
            while self.take(long=kind):
                waiter = self.waiting[kind].next()
                if waiter is None:
                    self.taken -= 1
                    self.long -= kind
                    break
                waiter.granted.set()


_threads: trio.lowlevel.RunVar[_Threads] = trio.lowlevel.RunVar("threads for work on input")


class ThreadExecutor:
    """The `Executor` that a process uses. All of them share the threads of the run."""

    async def run(self, owner: str, job: Callable[[], _T], *, long: bool = False) -> _T:
        """As `Executor.run`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            threads = _threads.get()
        except LookupError:
            threads = _Threads()
            _threads.set(threads)
        if not threads.take(long=long):
            waiter = _Waiter(owner, long)
            threads.waiting[long].add(waiter)
            try:
                await waiter.granted.wait()
            except trio.Cancelled:
                threads.waiting[long].remove(waiter)
                raise
        # From here to the start of the thread there is no checkpoint: only its end gives it back.
        results: list[outcome.Outcome[_T]] = []
        done = trio.Event()
        token = trio.lowlevel.current_trio_token()

        def finish(result: "outcome.Outcome[_T]") -> None:
            threads.release(long=long)
            results.append(result)
            done.set()

        def deliver(result: "outcome.Outcome[_T]") -> None:
            # Unless the run is over: then nobody waits for it, or for the thread.
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(finish, result)

        in_context: Callable[[], _T] = partial(contextvars.copy_context().run, job)
        trio.lowlevel.start_thread_soon(in_context, deliver)
        await done.wait()
        return results.pop().unwrap()
