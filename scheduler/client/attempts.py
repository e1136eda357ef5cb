"""Attempts that a display shows: running ones, those to be repeated, and the slowest."""

import heapq
from collections.abc import Iterable, Mapping
from typing import Any

from attrs import evolve, frozen

from scheduler.client.lenient import number, objects, text
from scheduler.client.timeline import Span
from scheduler.text import so_far

SLOWEST = 10
"""Largest number of slowest components to keep."""


@frozen
class Running:
    """Component with an attempt in flight."""

    component: str
    since: float
    """Time at which it was sent, our clock, seconds."""
    note: str = ""
    """Last word of its connector: how far it is."""


@frozen
class Failing:
    """Component that failed and will be sent again."""

    component: str
    attempt: int
    """Number of the failed attempt."""
    at: float | None
    """Time of the next attempt, our clock, seconds."""
    error: str


def note_beats(running: dict[str, Running], beats: Any) -> None:
    """Note what connectors say of running components, by the ``beats`` of a message."""
    for one in objects(beats):
        component = text(one.get("component"))
        if component in running:
            running[component] = evolve(running[component], note=read_note(one))


def read_note(one: Mapping[str, Any]) -> str:
    """Read what the connector of a component says of it."""
    progress = number(one.get("progress"))
    return so_far(None if progress is None else min(max(progress, 0.0), 1.0), text(one.get("message")))


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
