"""Grid: assigns the items of a graph to columns, with an order and heights."""

from bisect import bisect_right, insort
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import accumulate, groupby, pairwise
from math import ceil, sqrt
from typing import Final

from attrs import define, field

GAP: Final = 18.0
"""Gap between two nodes of a column, px."""
LANE: Final = 9.0
"""Gap between two lanes, px; it is a little more between a lane and a node."""
_ROWS: Final = 24
"""Largest number of nodes that always form one column."""
_TALL: Final = 1.6
"""Largest height of a column beyond that, as a multiple of the square root of the number of nodes."""
_SWEEPS: Final = 6
_FEW: Final = 2
_MANY: Final = 10_000
"""Number of items from which on fewer rounds are made."""

Edge = tuple[int, int]
Near = dict[int, Counter[int]]
"""Neighbours of an item, each with the number of edges."""


@define
class Grid:
    """Columns of items: the nodes, by their numbers, and lanes, by numbers beyond them."""

    columns: list[list[int]]
    """Items of each column, from top to bottom."""
    column_of: dict[int, int]
    width_of: list[float]
    """Width of each column, px."""
    heights: dict[int, float]
    """Height of each node, px; lanes have none."""
    lanes: dict[Edge, tuple[int, int]]
    """First lane of an edge, and the number that follow; each column has the next number."""
    before: Near = field(factory=dict)
    """Neighbours in the column before, by item."""
    after: Near = field(factory=dict)
    y: dict[int, float] = field(factory=dict)
    """Middle of each item, px."""

    @classmethod
    def of(cls, nodes: Sequence[int], sizes: Sequence[tuple[float, float]], edges: Sequence[Edge]) -> "Grid":
        """Make the columns, not yet in a good order."""
        edges = [edge for edge in dict.fromkeys(edges) if edge[0] != edge[1]]
        columns = _columns(nodes, edges)
        column_of = {node: place for place, column in enumerate(columns) for node in column}
        grid = cls(
            columns,
            column_of,
            [max(sizes[node][0] for node in column) for column in columns],
            {node: sizes[node][1] for node in nodes},
            {},
        )
        grid._make_lanes(edges, len(sizes))
        for edge in edges:
            for item, following in pairwise(grid.chain(edge)):
                grid.after.setdefault(item, Counter())[following] += 1
                grid.before.setdefault(following, Counter())[item] += 1
        return grid

    def _make_lanes(self, edges: Sequence[Edge], first: int) -> None:
        long = [edge for edge in edges if self.column_of[edge[1]] - self.column_of[edge[0]] > 1]
        out, into = Counter(edge[0] for edge in long), Counter(edge[1] for edge in long)
        shared: dict[tuple[int, bool], list[Edge]] = {}
        for edge in long:
            leaving = out[edge[0]] >= into[edge[1]]
            shared.setdefault((edge[0] if leaving else edge[1], leaving), []).append(edge)
        for group in shared.values():
            begin = min(self.column_of[source] for source, _ in group) + 1
            end = max(self.column_of[destination] for _, destination in group)
            for column in range(begin, end):
                self.columns[column].append(first + column - begin)
                self.column_of[first + column - begin] = column
            for source, destination in group:
                start = self.column_of[source] + 1
                self.lanes[source, destination] = (
                    first + start - begin,
                    self.column_of[destination] - start,
                )
            first += end - begin

    def chain(self, edge: tuple[int, int]) -> list[int]:
        """Return the items on the way of an edge, one in each column."""
        lane, count = self.lanes.get(edge, (0, 0))
        return [edge[0], *range(lane, lane + count), edge[1]]

    def reduce_crossings(self) -> None:
        """Order each column by the positions of its items' neighbours; keep the best order found."""
        best, fewest = [list(column) for column in self.columns], None
        sweeps = _SWEEPS if len(self.column_of) < _MANY else _FEW
        for sweep in range(2 * sweeps):
            towards = self.before if sweep % 2 == 0 else self.after
            order = range(len(self.columns)) if sweep % 2 == 0 else range(len(self.columns) - 1, -1, -1)
            place: dict[int, int] = {}
            for column in order:
                self._order(column, place, towards)
            crossings = self._crossings()
            if fewest is None or crossings < fewest:
                best, fewest = [list(column) for column in self.columns], crossings
            if not fewest:
                break
        self.columns = best

    def _order(self, column: int, place: dict[int, int], towards: Near) -> None:
        items = self.columns[column]
        wanted: dict[int, float] = {}
        for number, item in enumerate(items):
            near = towards.get(item)
            if near:
                wanted[item] = sum(place[one] * times for one, times in near.items()) / near.total()
            else:
                wanted[item] = float(number)
        items.sort(key=wanted.__getitem__)
        ordered: list[int] = []
        for _, tied in groupby(items, key=wanted.__getitem__):
            # A lane that passes goes through the middle of the nodes that stay.
            equal = list(tied)
            nodes = [item for item in equal if item in self.heights]
            lanes = [item for item in equal if item not in self.heights]
            ordered += [*nodes[: len(nodes) // 2], *lanes, *nodes[len(nodes) // 2 :]]
        items[:] = ordered
        place.update((item, number) for number, item in enumerate(ordered))

    def _crossings(self) -> int:
        total = 0
        for column, following in pairwise(self.columns):
            place = {item: number for number, item in enumerate(following)}
            met: list[int] = []
            for item in column:
                ends = [place[other] for other in self.after.get(item, ())]
                total += sum(len(met) - bisect_right(met, end) for end in ends)
                for end in ends:
                    insort(met, end)
        return total

    def settle(self) -> None:
        """Compute the height of each item."""
        apart = [list(accumulate(self._distances(column), initial=0.0)) for column in self.columns]
        for items, offsets in zip(self.columns, apart, strict=True):
            for item, offset in zip(items, offsets, strict=True):
                self.y[item] = offset - offsets[-1] / 2
        rounds = _SWEEPS if len(self.column_of) < _MANY else _FEW
        onward, back = range(len(self.columns)), range(len(self.columns) - 1, -1, -1)
        for _ in range(rounds):
            for order, sides in ((onward, (self.before,)), (back, (self.after,))):
                for column in order:
                    self._draw_near(column, apart[column], sides)
        for way in (onward, back, onward):
            for column in way:
                self._draw_near(column, apart[column], (self.before, self.after))

    def _distances(self, column: Sequence[int]) -> Iterator[float]:
        for above, below in pairwise(column):
            halves = (self.heights.get(above, 0.0) + self.heights.get(below, 0.0)) / 2
            nodes = (above in self.heights) + (below in self.heights)
            yield halves + (LANE, (LANE + GAP) / 2, GAP)[nodes]

    def _draw_near(self, column: int, offsets: Sequence[float], sides: tuple[Near, ...]) -> None:
        items = self.columns[column]
        wanted, weights = [], []
        for item, offset in zip(items, offsets, strict=True):
            weight = height = 0.0
            for side in sides:
                for other in side.get(item, ()):
                    # A long edge should rather be straight than short.
                    heavy = 1.0 if item in self.heights and other in self.heights else 2.0
                    heavy *= 1.0 if item in self.heights or other in self.heights else 50.0
                    weight += heavy
                    height += heavy * self.y[other]
            if not weight:
                weight, height = 0.1, 0.1 * self.y[item]
            wanted.append(height / weight - offset)
            weights.append(weight)
        for item, offset, found in zip(items, offsets, _isotonic(wanted, weights), strict=True):
            self.y[item] = found + offset


def _isotonic(wanted: Sequence[float], weights: Sequence[float]) -> Iterator[float]:
    """Return the rising sequence nearest to ``wanted``, by weighted squares: pool adjacent violators."""
    pools: list[tuple[float, float, int]] = []
    for value, weight in zip(wanted, weights, strict=True):
        mean, total, count = value, weight, 1
        while pools and pools[-1][0] > mean:
            above, heavy, many = pools.pop()
            mean = (mean * total + above * heavy) / (total + heavy)
            total, count = total + heavy, count + many
        pools.append((mean, total, count))
    for mean, _, count in pools:
        yield from [mean] * count


def _columns(nodes: Sequence[int], edges: Sequence[Edge]) -> list[list[int]]:
    """Make columns of the waves; a large wave becomes several, with nodes without dependents in the first."""
    following: dict[int, list[int]] = {node: [] for node in nodes}
    missing = dict.fromkeys(nodes, 0)
    for source, destination in edges:
        following[source].append(destination)
        missing[destination] += 1
    most = max(_ROWS, int(_TALL * sqrt(len(nodes))))
    columns: list[list[int]] = []
    wave = [node for node in nodes if not missing[node]]
    while wave:
        parts = ceil(len(wave) / most)
        ordered = sorted(wave, key=lambda node: bool(following[node])) if parts > 1 else wave
        bounds = [len(wave) * part // parts for part in range(parts + 1)]
        columns += [ordered[low:high] for low, high in pairwise(bounds)]
        due: list[int] = []
        for node in wave:
            for other in following[node]:
                missing[other] -= 1
                if not missing[other]:
                    due.append(other)
        wave = due
    return columns
