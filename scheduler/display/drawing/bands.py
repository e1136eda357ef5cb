"""Bands: the columns of a graph in rows below each other, and the edges between their items."""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from math import ceil, sqrt
from typing import Final, NamedTuple

from attrs import define, field

from scheduler.display.drawing.grid import LANE, Edge, Grid

ASPECT: Final = 1.7
"""Aimed ratio of width to height of a wrapped picture."""
_STRIP: Final = 3.0
"""Ratio of width to height from which on a picture is wrapped."""
_PAGE: Final = 1_400.0
"""Largest width that is never wrapped, px."""
_NARROW, _WIDE = 52.0, 150.0
"""Gap between two columns, px: the steeper its edges are, the wider it is."""
_SLOPE: Final = 0.12
_CHANNEL: Final = 22.0
"""Gap between a band and the edges that lead to the next one, px."""
_LEVEL: Final = 0.05


class BandPlace(NamedTuple):
    """Rectangle of a node, px; x and y are its upper left corner."""

    x: float
    y: float
    width: float
    height: float


Point = tuple[float, float]
Route = list[Point]
"""Points of an edge: two on a level, or one above the other, are joined by a line, others by an S."""


@define
class _Band:
    """Columns beside each other, and the edges from the band above."""

    columns: range
    crossing: list[int] = field(factory=list)
    """Items of the last column above that have edges to this band, from top to bottom."""
    top: float = 0.0
    """Upper end of its columns, px, on the scale of their items' heights; see ``shift``."""
    channel: float = 0.0
    """Height of the uppermost edge from above, px."""
    shift: float = 0.0
    """Offset that is added to heights, px."""


class Bands:
    """Columns in bands below each other."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        gaps = [self._gap(column) for column in range(len(grid.columns) - 1)]
        self._bands = [_Band(columns) for columns in self._wrapped(gaps)]
        self._band_of = {column: band for band in self._bands for column in band.columns}
        for band in self._bands[1:]:
            last = grid.columns[band.columns.start - 1]
            band.crossing = [item for item in last if grid.after.get(item)]
        most = max(len(band.crossing) for band in self._bands)
        # Room for the edges from band to band, left of the columns.
        left = _CHANNEL + most * LANE if most else 0.0
        self._x: list[float] = []
        self.width = 0.0
        for index, band in enumerate(self._bands):
            x = left
            for column in band.columns:
                self._x.append(x)
                end = x + grid.width_of[column]
                x = end + (gaps[column] if column < len(gaps) else 0.0)
            below = self._bands[index + 1].crossing if index + 1 < len(self._bands) else []
            self.width = max(self.width, end + (_CHANNEL + len(below) * LANE if below else 0.0))
        self.height = 0.0
        for band in self._bands:
            low, high = self._extent(band.columns)
            if band.crossing:
                band.channel = self.height + _CHANNEL
                self.height = band.channel + (len(band.crossing) - 1) * LANE + _CHANNEL
            band.shift = self.height - low
            self.height += high - low

    def _gap(self, column: int) -> float:
        y = self._grid.y
        steepest = max(
            (
                abs(y[item] - y[other])
                for item in self._grid.columns[column]
                for other in self._grid.after.get(item, ())
            ),
            default=0.0,
        )
        return min(_WIDE, _NARROW + steepest * _SLOPE)

    def _extent(self, columns: range) -> tuple[float, float]:
        """Return the upper and lower end of columns, by their items' heights."""
        grid = self._grid
        ends = [
            (grid.y[item], grid.heights.get(item, 0.0) / 2)
            for column in columns
            for item in (grid.columns[column][0], grid.columns[column][-1])
        ]
        return min(y - half for y, half in ends), max(y + half for y, half in ends)

    def _wrapped(self, gaps: Sequence[float]) -> list[range]:
        grid = self._grid
        steps = [wide + gap for wide, gap in zip(grid.width_of, [*gaps, 0.0], strict=True)]
        low, high = self._extent(range(len(steps)))
        width, height = sum(steps), high - low + 3 * _CHANNEL
        if width <= max(_PAGE, _STRIP * height):
            return [range(len(steps))]
        lines = min(ceil(sqrt(width / (ASPECT * height))), ceil(width / _PAGE))
        middles = (end - step / 2 for end, step in zip(accumulate(steps), steps, strict=True))
        line_of = [int(middle * lines / width) for middle in middles]
        starts = [
            column for column in range(len(steps)) if not column or line_of[column] > line_of[column - 1]
        ]
        return [range(start, end) for start, end in pairwise([*starts, len(steps)])]

    def place(self, node: int) -> BandPlace:
        """Return the rectangle of a node."""
        grid = self._grid
        column, height = grid.column_of[node], grid.heights[node]
        return BandPlace(self._x[column], self._height(node) - height / 2, grid.width_of[column], height)

    def _height(self, item: int) -> float:
        return self._grid.y[item] + self._band_of[self._grid.column_of[item]].shift

    def route(self, edge: Edge) -> Route:
        """Return the points of an edge, from its source's right side to its destination's left side."""
        chain = self._grid.chain(edge)
        points: Route = [self._right(chain[0])]
        for before, item in pairwise(chain):
            left = self._x[self._grid.column_of[item]], self._height(item)
            if self._band_of[self._grid.column_of[before]] is not self._band_of[self._grid.column_of[item]]:
                points += self._descent(before, left)
            points.append(left)
            if item != edge[1]:
                points.append(self._right(item))
        return _straight(points)

    def _right(self, item: int) -> Point:
        column = self._grid.column_of[item]
        return self._x[column] + self._grid.width_of[column], self._height(item)

    def _descent(self, item: int, end: Point) -> Route:
        """Lead an edge from the end of a band to the beginning of the next; none cross there."""
        band = self._band_of[self._grid.column_of[item] + 1]
        number = band.crossing.index(item)
        inner = len(band.crossing) - 1 - number
        x, y = self._right(item)
        right, left = x + _CHANNEL + inner * LANE, end[0] - _CHANNEL - number * LANE
        level = band.channel + inner * LANE
        return [(right, y), (right, level), (left, level), (left, end[1])]


def _straight(points: Route) -> Route:
    """Remove points that lie between two others on a level."""
    kept = points[:1]
    for index in range(1, len(points) - 1):
        y = points[index][1]
        if abs(kept[-1][1] - y) > _LEVEL or abs(points[index + 1][1] - y) > _LEVEL:
            kept.append(points[index])
    return [*kept, points[-1]]
