"""Builds and senders take turns: the one served longest ago is next."""

import heapq
from itertools import count
from typing import Final, Generic, TypeVar

from scheduler.limiter.alarms import Alarms

_MOST_LEFT: Final = 100
"""Places of finished takers in a heap that are not worth clearing it up."""

FoundT = TypeVar("FoundT")


class Taker(Generic[FoundT]):
    """A taker of turns."""

    __slots__ = ("left", "queued", "served")

    def __init__(self) -> None:
        self.served = 0.0
        """The number of the turn in which it was served last."""
        self.queued = False
        """Whether it waits for its turn: not while limits of its own keep it."""
        self.left = False
        """Whether it is finished."""

    def ready(self, now: float, alarms: Alarms) -> FoundT | None:
        """Return the part of it that goes on, if it is its turn now; None where limits of its own keep it."""
        raise NotImplementedError


class Turns(Generic[FoundT]):
    """The takers that wait for their turn, the one served longest ago first."""

    __slots__ = ("_heap", "_left", "_numbers")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Taker[FoundT]]] = []
        self._left = 0
        """Places of finished takers."""
        self._numbers = count()

    def __bool__(self) -> bool:
        """Whether somebody may be waiting here."""
        return bool(self._heap)

    def add(self, taker: Taker[FoundT]) -> None:
        """Queue a taker for its turn."""
        taker.queued = True
        heapq.heappush(self._heap, (taker.served, next(self._numbers), taker))

    def head(self, now: float, alarms: Alarms) -> FoundT | None:
        """Return the part to serve of the taker whose turn it is; drop takers that their own limits keep."""
        heap = self._heap
        while heap:
            served, number, taker = heap[0]
            if taker.left:
                heapq.heappop(heap)
                self._left -= 1
            elif served != taker.served:
                # Served in another fair queue meanwhile: it moves back.
                heapq.heapreplace(heap, (taker.served, number, taker))
            else:
                found = taker.ready(now, alarms)
                if found is not None:
                    return found
                heapq.heappop(heap)
                taker.queued = False
        return None

    def leave(self, taker: Taker[FoundT]) -> None:
        """Finish with a taker: its place goes when its turn comes, or when half of them are such."""
        taker.left = True
        if not taker.queued:
            return
        self._left += 1
        if self._left > _MOST_LEFT and self._left * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if not entry[2].left]
            heapq.heapify(self._heap)
            self._left = 0

    def clear(self) -> None:
        """Let go of all takers."""
        self._heap.clear()
        self._left = 0
