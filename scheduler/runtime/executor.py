"""Runs synchronous work of unknown length in few threads beside the loop, with turns for each owner.

While a thread computes, the loop waits for the interpreter's lock: beside one thread it gets the lock within
1.2 ms (p99), beside two within 6 ms, beside three within 13 ms (at the switch interval that
`scheduler.runtime.tuning` sets). This happens each time that the loop has released the lock: dozens of times
in the shortest build. So there are two threads in the whole process. As a job may take a second, one of them
takes short jobs only. Besides, only one thread computes at a time, for a millisecond; then none does, for as
long if the loop has work. See `TimeSlices`.
"""

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final, Protocol, TypeVar, cast

import trio
from attrs import define, field

from scheduler.runtime.yielding import yielding

_T = TypeVar("_T")

THREADS: Final = 2
"""Largest number of threads at work, in the whole process."""
_LONG: Final = 1
"""Largest number of threads with a long job."""


_SLICE: Final = 0.001
"""Seconds for which a job computes before it leaves the interpreter to others."""
_PAUSE: Final = 0.001
"""Shortest pause of a job if the loop has work, in seconds."""
_GLANCE: Final = 0.0001
"""Seconds after which this is known: a loop that waits for the interpreter gets it at once."""
_NOTHING: Final = 0.00001
"""Seconds up to which the loop's computing meanwhile counts as no work."""
_PATIENCE: Final = 0.02
"""Seconds to wait for another job's pause: it may have none for long, such as inside a decoder."""


class Executor(Protocol):
    """Executor of jobs beside the loop, fair between their owners."""

    async def run(self, owner: str, job: Callable[[], _T], *, long: bool = False) -> _T:
        """Run a job beside the loop; other tasks run meanwhile.

        If the caller is cancelled, the job's result is dropped, but the job keeps its thread until it ends.
        So a job needs its own bound.

        Args:
            owner: the id of the build that the job is for; owners take turns, however many jobs each has.
            job: the work; it must not touch anything that the loop changes meanwhile. If it takes more than a
                millisecond, it has yield points (`scheduler.runtime.yielding`).
            long: whether it may take more than 0.1 s.

        Returns:
            The result of the job; its exceptions are raised.
        """
        ...


class TimeSlices:
    """Time slices of a job: a millisecond of computing, then a pause.

    The pause is as long if the loop then computes, and a fifth of that if it does not.

    Two threads that compute at once finish no sooner, and make the loop wait longer: when one of them
    releases the interpreter, the other one gets it before the loop. So they take turns, too.

    Args:
        turn: the lock held by the job that computes, shared by all jobs.
        clock: returns the time in seconds.
        sleep: waits for a number of seconds.
        loop: returns the seconds that the loop has computed so far; None if unknown: it counts as busy.
    """

    def __init__(
        self,
        turn: threading.Lock,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
        loop: Callable[[], float | None] = lambda: None,
    ) -> None:
        self._turn = turn
        self._loop = loop
        self._clock = clock
        self._sleep = sleep
        self._until = 0.0
        self._mine = False

    def run(self, job: Callable[[], _T]) -> _T:
        """Run a job with pauses at its yield points (`scheduler.runtime.yielding`)."""
        self._begin()
        try:
            with yielding(self.yield_now):
                return job()
        finally:
            self._end()

    def yield_now(self) -> None:
        """Pause if this slice has lasted long enough."""
        if self._clock() < self._until:
            return
        # First only the loop may compute, without any other job; then another job, too.
        before = self._loop()
        self._sleep(_GLANCE)
        after = self._loop()
        idle = before is not None and after is not None and after - before <= _NOTHING
        if not idle:
            self._sleep(_PAUSE / 2)
        self._end()
        self._sleep(_GLANCE if idle else _PAUSE / 2)
        self._begin()

    def _begin(self) -> None:
        self._mine = self._turn.acquire(timeout=_PATIENCE)
        self._until = self._clock() + _SLICE

    def _end(self) -> None:
        if self._mine:
            self._mine = False
            self._turn.release()


_turn: Final = threading.Lock()
"""Lock shared by all jobs of the process, whatever loop they are beside: there is one interpreter."""


def clock_of_this_thread() -> Callable[[], float | None]:
    """Return a clock of the seconds that this thread has computed, for other threads; None once it ended."""
    if not hasattr(time, "pthread_getcpuclockid"):
        return lambda: None
    number = time.pthread_getcpuclockid(threading.get_ident())

    def taken() -> float | None:
        try:
            return time.clock_gettime(number)
        except OSError:
            return None

    return taken


@define(eq=False)
class _Waiter:
    owner: str
    long: bool
    granted: trio.Event = field(factory=trio.Event)


class _Rotation:
    """Queue of jobs that wait for a thread, with turns for each owner."""

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
    """Threads of one run of Trio, and the jobs that wait for them. Used in the loop's thread only."""

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


class _Pass:
    """Limiter for one job, in the form of `trio.to_thread.run_sync`."""

    def __init__(self, owner: str, *, long: bool) -> None:
        self._owner = owner
        self._long = long
        try:
            self._threads = _threads.get()
        except LookupError:
            self._threads = _Threads()
            _threads.set(self._threads)

    async def acquire_on_behalf_of(self, _: object) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._threads.take(long=self._long):
            await trio.lowlevel.cancel_shielded_checkpoint()
            return
        waiter = _Waiter(self._owner, self._long)
        self._threads.waiting[self._long].add(waiter)
        try:
            await waiter.granted.wait()
        except trio.Cancelled:
            self._threads.waiting[self._long].remove(waiter)
            raise

    def release_on_behalf_of(self, _: object) -> None:
        self._threads.release(long=self._long)


class ThreadExecutor:
    """`Executor` of the service; all instances share the threads of a run of Trio."""

    async def run(self, owner: str, job: Callable[[], _T], *, long: bool = False) -> _T:
        """Run a job; see `Executor.run`."""
        limiter = cast("trio.CapacityLimiter", _Pass(owner, long=long))
        # Each job has its own slices, since an abandoned job continues beside the next one.
        slices = TimeSlices(_turn, loop=clock_of_this_thread())
        return await trio.to_thread.run_sync(slices.run, job, limiter=limiter, abandon_on_cancel=True)
