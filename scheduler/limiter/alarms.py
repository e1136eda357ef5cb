"""The times at which a rate that kept somebody waiting has room again."""

import heapq
import math
from collections.abc import Callable, Iterator
from itertools import count

from scheduler.limiter.limits import RateLimit


class Alarms:
    """The rates that keep somebody waiting, the soonest to have room first.

    Args:
        sooner: called when the next alarm is sooner than it was.
    """

    __slots__ = ("_heap", "_numbers", "_sooner", "due")

    def __init__(self, sooner: Callable[[], object]) -> None:
        self._heap: list[tuple[float, int, RateLimit]] = []
        self._numbers = count()
        self._sooner = sooner
        self.due = math.inf
        """The time of the next alarm in seconds; infinite if there is none."""

    def set(self, rate: RateLimit) -> None:
        """Set the alarm of a rate that has no room now. Idempotent; none where only a larger part helps."""
        if rate.alarmed or rate.due == math.inf:
            return
        rate.alarmed = True
        heapq.heappush(self._heap, (rate.due, next(self._numbers), rate))
        if rate.due < self.due:
            self.due = rate.due
            self._sooner()

    def drop(self, rate: RateLimit) -> None:
        """Forget the alarm of a rate, as its part has changed. Idempotent."""
        if rate.alarmed:
            rate.alarmed = False
            self._heap = [entry for entry in self._heap if entry[2] is not rate]
            heapq.heapify(self._heap)
            self.due = self._heap[0][0] if self._heap else math.inf

    def pop_due(self, now: float) -> Iterator[RateLimit]:
        """Yield the rates whose time has come, each once."""
        while self.due <= now:
            rate = heapq.heappop(self._heap)[2]
            self.due = self._heap[0][0] if self._heap else math.inf
            rate.alarmed = False
            yield rate
