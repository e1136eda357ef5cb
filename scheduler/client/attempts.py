"""Attempts that a display shows: running ones, those to be repeated, and the slowest."""

import heapq
from collections.abc import Iterable

from attrs import frozen

from scheduler.client.timeline import Span

SLOWEST = 10
"""Largest number of slowest components to keep."""


@frozen
class Running:
    """Component with an attempt in flight."""

    component: str
    since: float
    """Time at which it was sent, our clock, seconds."""


@frozen
class Failing:
    """Component that failed and will be sent again."""

    component: str
    attempt: int
    """Number of the failed attempt."""
    at: float | None
    """Time of the next attempt, our clock, seconds."""
    error: str


class Slowest:
    """The slowest components so far, at most `SLOWEST` of them."""

    def __init__(self, spans: Iterable[Span] = ()) -> None:
        self._heap = [(span.working, span.component) for span in spans]
        heapq.heapify(self._heap)

    def add(self, took: float, component: str) -> None:
        """Add a component that took so many seconds."""
        if len(self._heap) < SLOWEST:
            heapq.heappush(self._heap, (took, component))
        else:
            heapq.heappushpop(self._heap, (took, component))

    def ranked(self) -> list[tuple[float, str]]:
        """Return seconds and component, the longest first."""
        return sorted(self._heap, key=lambda pair: (-pair[0], pair[1]))
