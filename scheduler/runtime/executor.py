"""Runs synchronous work that input can make long beside the loop: few threads, each owner in its turn.

A thread that computes has the loop wait for the interpreter's lock: with one beside it the loop gets its turn
within 1.2 ms (p99), with two within 6 ms, with three within 13 ms (at the switch interval that
`scheduler.runtime.tuning` sets), and so each time that it has let go of it: dozens of times in the shortest
build. So there are two in the whole process; and as a job may take a second, one of them takes short jobs
only. Besides, only one of them computes at a time, a millisecond, and then none does, for as long where the
loop has something to do. See `Stints`.
"""

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final, Protocol, TypeVar, cast

import trio
from attrs import define, field

from scheduler.runtime.breath import breathing

_T = TypeVar("_T")

THREADS: Final = 2
"""Threads that work on input at a time, in the whole process."""
_LONG: Final = 1
"""Of these, as many at most have a long job."""


_STINT: Final = 0.001
"""Seconds for which a job computes before others have the interpreter."""
_PAUSE: Final = 0.001
"""Seconds for which it then leaves it to them, at least, where the loop has something to do."""
_GLANCE: Final = 0.0001
"""Seconds after which it shows whether it has: the loop gets the interpreter at once, if it waits for it."""
_NOTHING: Final = 0.00001
"""Seconds that the loop has computed meanwhile, at most, where it has not."""
_PATIENCE: Final = 0.02
"""Seconds to wait for another job's pause: it may be where it has none for long, as within a decoder."""


class Executor(Protocol):
    """Runs jobs beside the loop, fairly between their owners."""

    async def run(self, owner: str, job: Callable[[], _T], *, long: bool = False) -> _T:
        """Run a job beside the loop; other tasks go on meanwhile.

        The caller may be cancelled: what the job comes to is then dropped, and the job keeps its thread until
        it ends. So a job needs a bound of its own.

        Args:
            owner: whose work it is, a build's id: owners have their turns in rotation, however many jobs
                each of them has.
            job: must not touch what the loop changes meanwhile. Where it runs for more than a millisecond it
                breathes (`scheduler.runtime.breath`).
            long: it may take longer than a tenth of a second.

        Returns:
            What the job returns; what it raises is raised.
        """
        ...


class Stints:
    """A job's time with the interpreter, in stints of a millisecond with a pause after each.

    The pause is as long where the loop then computes, and a fifth of that where it does not.

    Two threads that compute at once get nothing done sooner, and have the loop wait longer: whichever of them
    lets go, the other one has the interpreter before the loop does. So they take turns as well.

    Args:
        turn: held by the job that computes; shared by all of them.
        clock: seconds.
        sleep: waits for some seconds.
        loop: seconds that the loop has computed so far; None where nobody can tell, and it counts as busy.
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
        """Do a job, with pauses where it breathes (`scheduler.runtime.breath`)."""
        self._begin()
        try:
            with breathing(self.breathe):
                return job()
        finally:
            self._end()

    def breathe(self) -> None:
        """Leave the interpreter to others if this stint has lasted long enough."""
        if self._clock() < self._until:
            return
        # First to the loop, which nobody else computes beside; then to another job as well.
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
        self._until = self._clock() + _STINT

    def _end(self) -> None:
        if self._mine:
            self._mine = False
            self._turn.release()


_turn: Final = threading.Lock()
"""Of all jobs of the process, whichever loop they are beside: it has one interpreter."""


def clock_of_this_thread() -> Callable[[], float | None]:
    """Seconds that this thread has computed, for another one to ask; None once it is gone."""
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


class _Pass:
    """One job's way to a thread: a limiter as `trio.to_thread.run_sync` takes them."""

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
    """The `Executor` that a process uses. All of them share the threads of the run."""

    async def run(self, owner: str, job: Callable[[], _T], *, long: bool = False) -> _T:
        """As `Executor.run`."""
        limiter = cast("trio.CapacityLimiter", _Pass(owner, long=long))
        # A job of its own for each: what is abandoned goes on beside the next.
        stints = Stints(_turn, loop=clock_of_this_thread())
        return await trio.to_thread.run_sync(stints.run, job, limiter=limiter, abandon_on_cancel=True)
