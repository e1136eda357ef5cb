"""Orders the components of each wave so that few edges cross: by the mean place of their neighbours. Pure.

The method of Sugiyama, Tagawa and Toda: sweeps from the first wave to the last and back, in each of which a
component goes to the mean place of its neighbours in the waves before, or behind. An edge over several waves
counts by its ends alone: with a place in each wave between, 20,000 edges would become hundreds of thousands.
"""

from collections.abc import Sequence
from typing import Final

_SWEEPS: Final = 12
"""Sweeps; few edges change places after these."""


def order(rows: Sequence[Sequence[int]], needs: Sequence[Sequence[int]]) -> list[list[int]]:
    """Return the components of each wave in a better order; it depends on nothing but the arguments.

    Args:
        rows: components of each wave.
        needs: dependencies of each component.
    """
    dependents: list[list[int]] = [[] for _ in needs]
    for vertex, found in enumerate(needs):
        for one in found:
            dependents[one].append(vertex)
    best = [list(row) for row in rows]
    place = [0.0] * len(needs)
    _note(best, place)
    least = _lengths(needs, place)
    current = [list(row) for row in best]
    for sweep in range(_SWEEPS):
        down = not sweep % 2
        neighbours = needs if down else dependents
        for number in range(len(current)) if down else range(len(current) - 1, -1, -1):
            row = current[number]
            row.sort(key=lambda vertex: _mean(neighbours[vertex], place, place[vertex]))
            _note_row(row, place)
        length = _lengths(needs, place)
        if length < least:
            least, best = length, [list(row) for row in current]
    return best


def _note(rows: Sequence[Sequence[int]], place: list[float]) -> None:
    for row in rows:
        _note_row(row, place)


def _note_row(row: Sequence[int], place: list[float]) -> None:
    """Note the place of each component in its wave, from 0 to 1, as waves have different lengths."""
    size = len(row)
    for number, vertex in enumerate(row):
        place[vertex] = (number + 0.5) / size


def _mean(neighbours: Sequence[int], place: Sequence[float], otherwise: float) -> float:
    if not neighbours:
        return otherwise
    return sum(place[one] for one in neighbours) / len(neighbours)


def _lengths(needs: Sequence[Sequence[int]], place: Sequence[float]) -> float:
    """Return how far apart the ends of all edges are, together; short edges cross few others."""
    return sum(abs(place[one] - place[vertex]) for vertex, found in enumerate(needs) for one in found)
