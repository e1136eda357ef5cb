"""Deadlines of attempts: one task for all of them, on a clock that stands still while the broker is away."""

import heapq
from collections.abc import Callable
from itertools import count
from typing import Any

import msgspec
import trio

from scheduler.bus import Bus

_TICK = 1.0
"""Seconds between two looks at the connection; so exactly is the length of an outage known."""
_LONGEST_LOOK = 5 * _TICK
"""Seconds that count at most between two looks: after more the process itself stood still, say stopped."""
_AT_ONCE = 500
"""Timers that expire between two looks at everything else: about a millisecond, as they only queue work."""
_GRAIN = 1e-6
"""Seconds within which a timer counts as due: sums of times are rounded, and the task must not spin."""


def _nothing(*_: object) -> None:
    """Stand in for the callback of a timer that has ended, which keeps nothing alive then."""


class Timer(msgspec.Struct, eq=False):
    """Deadline; made by `Timers.start`."""

    expire: Callable[..., None]
    args: tuple[Any, ...]
    due: float
    """Time at which it expires, by `Timers.now`, in seconds."""
    cancelled: bool = False
    """Whether it will not expire any more: it was cancelled, or it has."""


def _expire(timer: Timer) -> None:
    """Call back, once, and let go of the callback."""
    timer.cancelled = True
    expire, args = timer.expire, timer.args
    timer.expire, timer.args = _nothing, ()
    expire(*args)


class Timers:
    """Calls back when a time has passed during which the broker was there.

    A task and a cancel scope per attempt would cost more than everything else an attempt does; a heap
    costs a push. Cancelled timers stay in it until they are due or are more than half of it.

    Args:
        bus: connection; time passes while it is connected
        available: and while this returns true.
        on_resumed: callback with the seconds for which the clock stood still, when it runs again.
    """

    def __init__(
        self,
        bus: Bus,
        available: Callable[[], bool] = lambda: True,
        on_resumed: Callable[[float], None] = lambda _: None,
    ) -> None:
        self._bus = bus
        self._available = available
        self._on_resumed = on_resumed
        # `trio.current_time` looks the clock up each time.
        self._clock = trio.lowlevel.current_clock().current_time
        self._heap: list[tuple[float, int, Timer]] = []
        self._cancelled = 0
        self._number = count()
        self._wake = trio.Event()
        self._seen = 0.0
        """Time of the last look, by Trio's clock, in seconds."""
        self._passed = 0.0
        """Seconds until then during which the broker was there."""
        self._up = True
        self._down_since = 0.0

    def start(self, seconds: float, expire: Callable[..., None], *args: Any) -> Timer:
        """Call ``expire`` once with these arguments, ``seconds`` from now; it must not block or raise."""
        due = self.now() + seconds
        timer = Timer(expire, args, due)
        heap = self._heap
        if not heap or due < heap[0][0]:
            self._wake.set()
        heapq.heappush(heap, (due, next(self._number), timer))
        return timer

    def cancel(self, timer: Timer) -> None:
        """Forget a timer; harmless where it has ended."""
        if timer.cancelled:
            return
        timer.cancelled = True
        timer.expire, timer.args = _nothing, ()
        self._cancelled += 1
        if self._cancelled > 1_000 and self._cancelled * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if not entry[2].cancelled]
            heapq.heapify(self._heap)
            self._cancelled = 0

    def now(self) -> float:
        """Return the seconds during which the broker was there, since the first look."""
        now = self._clock()
        if self._up:
            passed = now - self._seen
            self._passed += min(_LONGEST_LOOK, passed)
        self._seen = now
        return self._passed

    def _look(self) -> None:
        """Note whether time passes from now on."""
        up = self._bus.connected and self._available()
        if self._up and not up:
            self._down_since = trio.current_time()
        elif up and not self._up:
            self._on_resumed(trio.current_time() - self._down_since)
        self._up = up

    def _expire_some(self, now: float) -> bool:
        """Let timers that are due expire, and drop those that were cancelled before them.

        Returns:
            Whether there may be more of them: others have a turn first.
        """
        due = now + _GRAIN
        for _ in range(_AT_ONCE):
            # The heap may be another one after each of them.
            heap = self._heap
            if not heap:
                return False
            at, _, timer = heap[0]
            if timer.cancelled:
                heapq.heappop(heap)
                self._cancelled -= 1
            elif at <= due:
                heapq.heappop(heap)
                _expire(timer)
            else:
                return False
        return True

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Watch the clock; never returns."""
        self._seen = trio.current_time()
        task_status.started()
        while True:
            now = self.now()
            self._look()
            more = self._expire_some(now)
            while more:
                await trio.lowlevel.checkpoint()
                more = self._expire_some(now)
            self._wake = trio.Event()
            nap = _TICK
            if not self._heap:
                nap = float("inf") if self._up else _TICK
            elif self._up:
                nap = min(nap, max(self._heap[0][0] - self.now(), 0.0))
            with trio.move_on_after(nap):
                await self._wake.wait()
