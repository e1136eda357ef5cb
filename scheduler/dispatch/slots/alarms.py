"""When a rate has room again, for those who wait for it."""

import heapq
from collections.abc import Iterable, Iterator
from itertools import count

import trio

from scheduler.dispatch.slots.pools import AnyPool, Rate


class Alarms:
    """The rates that somebody waits for, the soonest first."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Rate]] = []
        self._numbers = count()
        self._news = trio.Event()

    def block(self, pools: Iterable[AnyPool], now: float) -> bool:
        """Whether one of these has no room; if the first such one is a rate, there will be an alarm."""
        for pool in pools:
            if not pool.room(now):
                if isinstance(pool, Rate) and not pool.alarmed:
                    self._set(pool)
                return True
        return False

    def _set(self, rate: Rate) -> None:
        rate.alarmed = True
        heapq.heappush(self._heap, (rate.due, next(self._numbers), rate))
        if self._heap[0][2] is rate:
            self._news.set()

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
