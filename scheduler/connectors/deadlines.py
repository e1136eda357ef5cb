"""Deadlines of calls: one task for all, since a scope and a task for each cost more than most calls do."""

import heapq
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Final

import trio
from attrs import define

_MOST_ENDED: Final = 1_000
"""Deadlines of calls that have ended which are kept, beside as many as there are of others."""


@define(eq=False)
class _Deadline:
    """A deadline; without what it leads to once it does not count any more."""

    expire: Callable[[], None] | None


class Deadlines:
    """Calls functions whose time has come, unless what they are about has ended before."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, _Deadline]] = []
        self._numbers = count()
        self._ended = 0
        """Number of deadlines in the heap that do not count any more."""
        self._news = trio.Event()

    @contextmanager
    def within(self, seconds: float, expire: Callable[[], None]) -> Iterator[None]:
        """Call a function once this context has lasted so long; it must not raise."""
        deadline = _Deadline(expire)
        at = trio.current_time() + seconds
        heapq.heappush(self._heap, (at, next(self._numbers), deadline))
        if self._heap[0][2] is deadline:
            self._news.set()
        try:
            yield
        finally:
            if deadline.expire is not None:
                deadline.expire = None
                self._ended += 1
                self._tidy()

    async def run(self) -> None:
        """Watch the time, until cancelled."""
        while True:
            self._news = trio.Event()
            now = trio.current_time()
            while self._heap and (self._heap[0][0] <= now or self._heap[0][2].expire is None):
                deadline = heapq.heappop(self._heap)[2]
                if deadline.expire is None:
                    self._ended -= 1
                else:
                    expire, deadline.expire = deadline.expire, None
                    expire()
            with trio.move_on_at(self._heap[0][0] if self._heap else float("inf")):
                await self._news.wait()

    def _tidy(self) -> None:
        """Remove deadlines that do not count any more, once they are more than the others."""
        if self._ended > _MOST_ENDED and self._ended * 2 > len(self._heap):
            self._heap = [one for one in self._heap if one[2].expire is not None]
            heapq.heapify(self._heap)
            self._ended = 0
