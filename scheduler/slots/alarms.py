"""When a rate has room again, for those who wait for it."""

import heapq
from collections.abc import Iterator
from itertools import count

import trio

from scheduler.slots.pools import AnyPool, Rate


class Alarms:
    """The rates that somebody waits for, the soonest first."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Rate]] = []
        self._numbers = count()
        self._news = trio.Event()

    def blocked(self, pool: AnyPool, now: float) -> bool:
        """Whether ``pool`` has no room; if it is a rate, there will be an alarm when it has."""
        if pool.room(now):
            return False
        if isinstance(pool, Rate) and not pool.alarmed:
            pool.alarmed = True
            heapq.heappush(self._heap, (pool.due, next(self._numbers), pool))
            if self._heap[0][2] is pool:
                self._news.set()
        return True

    def due(self, now: float) -> bool:
        """Whether there is an alarm that nobody followed yet."""
        return bool(self._heap) and self._heap[0][0] <= now

    def pop_due(self, now: float) -> Iterator[Rate]:
        """The rates whose time has come, each once."""
        while self.due(now):
            rate = heapq.heappop(self._heap)[2]
            rate.alarmed = False
            yield rate

    async def wait(self) -> None:
        """Wait for the next alarm."""
        while not self.due(trio.current_time()):
            self._news = trio.Event()
            with trio.move_on_at(self._heap[0][0] if self._heap else float("inf")):
                # Something sooner may come in while we wait for the soonest.
                await self._news.wait()
