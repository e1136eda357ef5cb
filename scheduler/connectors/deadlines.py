"""Deadlines of calls: one task for all, since a scope and a task for each cost more than most calls do."""

import heapq
from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import count
from types import TracebackType
from typing import Final

import trio
from attrs import define

_MOST_ENDED: Final = 1_000
"""Deadlines of calls that have ended which are kept, beside as many as there are of others."""


@define(eq=False)
class _Deadline:
    """A deadline, as a context; without what it leads to once it does not count any more."""

    expire: Callable[[], None] | None
    deadlines: "Deadlines"

    def __enter__(self) -> None:
        """Begin; the time counts already."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End it, if it has not come."""
        if self.expire is not None:
            self.expire = None
            self.deadlines.note_end()


class Deadlines:
    """Calls functions whose time has come, unless what they are about has ended before."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, _Deadline]] = []
        self._numbers = count()
        self._ended = 0
        """Number of deadlines in the heap that do not count any more."""
        self._news = trio.Event()

    def within(self, seconds: float, expire: Callable[[], None]) -> AbstractContextManager[None]:
        """Call a function once this context has lasted so long, from now on; it must not raise."""
        deadline = _Deadline(expire, self)
        at = trio.current_time() + seconds
        heapq.heappush(self._heap, (at, next(self._numbers), deadline))
        if self._heap[0][2] is deadline:
            self._news.set()
        return deadline

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

    def note_end(self) -> None:
        """Count a deadline that ended before its time; remove those, once they are more than the others."""
        self._ended += 1
        if self._ended > _MOST_ENDED and self._ended * 2 > len(self._heap):
            self._heap = [one for one in self._heap if one[2].expire is not None]
            heapq.heapify(self._heap)
            self._ended = 0
