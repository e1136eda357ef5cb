"""Waves of a build: each component stands behind the last one that it needs. Pure."""

import math
from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

import msgspec

from scheduler.runtime.yielding import yield_now

_GAP: Final = 0.75
"""Empty space between two waves, columns; room for the curves of edges."""
CELL: Final = 200 / 38
"""Width of the place of a component for its height, as `static/model.js` draws it."""
_ASPECT: Final = 3.0
"""Width of a drawing for its height, about, where waves are long; windows are as wide, below a board."""
_LEAST: Final = 8
"""Components of a wave that stand in one column in any case."""
_AT_ONCE: Final = 100


class Placed(msgspec.Struct, frozen=True):
    """Places of components, one unit from one to the next."""

    x: list[float]
    y: list[float]
    width: float
    height: float


def waves_of(needs: Sequence[Sequence[int]]) -> list[int]:
    """Return the wave of each component: the length of the longest chain before it.

    Args:
        needs: dependencies of each, without cycles; what is in one anyhow stands in the first wave.
    """
    waits = [len(set(one)) for one in needs]
    dependents: list[list[int]] = [[] for _ in needs]
    for vertex, found in enumerate(needs):
        for one in set(found):
            dependents[one].append(vertex)
    wave = [0] * len(needs)
    ready = [vertex for vertex, count in enumerate(waits) if not count]
    for done, vertex in enumerate(ready):
        if not done % _AT_ONCE:
            yield_now()
        for one in dependents[vertex]:
            wave[one] = max(wave[one], wave[vertex] + 1)
            waits[one] -= 1
            if not waits[one]:
                # The list grows behind the place that is read.
                ready.append(one)
    return wave


def rows_of(wave: Sequence[int]) -> list[list[int]]:
    """Return the components of each wave, as they were submitted."""
    rows: list[list[int]] = [[] for _ in range(max(wave, default=-1) + 1)]
    for vertex, number in enumerate(wave):
        rows[number].append(vertex)
    return rows


def place(rows: Sequence[Sequence[int]]) -> Placed:
    """Place components in columns by wave, a long wave in several.

    Args:
        rows: components of each wave, in their order.
    """
    count = sum(map(len, rows))
    height = _height(rows)
    x, y = [0.0] * count, [0.0] * count
    left = 0.0
    for row in rows:
        yield_now()
        columns = max(1, math.ceil(len(row) / height))
        inside = math.ceil(len(row) / columns)
        for number, vertex in enumerate(row):
            # Neighbours of the order stay near each other: along the wave first, then across its columns.
            down, across = divmod(number, columns)
            x[vertex] = left + across + 0.5
            y[vertex] = (height - inside) / 2 + down + 0.5
        left += columns + _GAP
    return Placed(x, y, max(1.0, left - _GAP), float(max(1, height)))


def _height(rows: Sequence[Sequence[int]]) -> int:
    """Return the most components in a column: the fewest with which the drawing is not too wide."""
    sizes = [len(row) for row in rows]
    tallest = max(sizes, default=1)
    if tallest <= _LEAST:
        return tallest

    def fits(height: int) -> bool:
        columns = sum(math.ceil(size / height) for size in sizes)
        return (columns + _GAP * (len(sizes) - 1)) * CELL <= _ASPECT * height

    return bisect_left(range(tallest), True, lo=_LEAST, key=fits)


def longest_chain(needs: Sequence[Sequence[int]], wave: Sequence[int]) -> list[int]:
    """Return the components of a longest chain, first to last; the critical path where no times are known."""
    if not wave:
        return []
    vertex = max(range(len(wave)), key=wave.__getitem__)
    path = [vertex]
    while wave[vertex]:
        vertex = next(one for one in needs[vertex] if wave[one] == wave[vertex] - 1)
        path.append(vertex)
    return path[::-1]


class Folded(msgspec.Struct, frozen=True):
    """Components of one type in one wave, and the rectangle that they stand in."""

    wave: int
    type: int
    x: float
    y: float
    width: float
    height: float
    members: list[int]


def folds_of(placed: Placed, wave: Sequence[int], types: Sequence[int]) -> list[Folded]:
    """Return the groups of components that may be drawn as one where they are small."""
    groups: dict[tuple[int, int], list[int]] = {}
    for vertex, key in enumerate(zip(wave, types, strict=True)):
        groups.setdefault(key, []).append(vertex)
    found = []
    for (number, type_), members in sorted(groups.items()):
        yield_now()
        xs, ys = [placed.x[one] for one in members], [placed.y[one] for one in members]
        left, top = min(xs) - 0.5, min(ys) - 0.5
        width, height = max(xs) + 0.5 - left, max(ys) + 0.5 - top
        found.append(Folded(number, type_, left, top, width, height, members))
    return found
