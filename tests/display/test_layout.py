"""Pictures of graphs: where nodes and edges are, and that no edge runs through a node."""

import re
import time
from itertools import pairwise
from typing import NamedTuple
from xml.etree import ElementTree as ET

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from scheduler.display.drawing import MOST_EDGES, MOST_NODES, Drawing, Node, svg

SVG = "{http://www.w3.org/2000/svg}"
Edges = list[tuple[int, int]]
Point = tuple[float, float]


class Box(NamedTuple):
    left: float
    top: float
    right: float
    bottom: float

    def holds(self, point: Point, slack: float = -0.5) -> bool:
        """Whether the point is inside, half a pixel from the border at least."""
        x, y = point
        return self.left - slack < x < self.right + slack and self.top - slack < y < self.bottom + slack


class Picture:
    """What an SVG document shows: a box for each node, the points of each edge."""

    def __init__(self, document: str) -> None:
        root = ET.fromstring(document)
        self.width, self.height = (float(root.get(name, "")) for name in ("width", "height"))
        self.boxes: list[Box] = []
        for group in root.iter(f"{SVG}g"):
            if group.find(f"{SVG}title") is not None:
                found = [self._box(one) for one in group.findall(f"{SVG}rect")]
                lefts, tops, rights, bottoms = zip(*found, strict=True)
                self.boxes.append(Box(min(lefts), min(tops), max(rights), max(bottoms)))
        (edges,) = [one for one in root.iter(f"{SVG}g") if one.get("marker-end")]
        self.edges = [flattened(path.get("d", "")) for path in edges]

    @staticmethod
    def _box(rectangle: ET.Element) -> Box:
        x, y, width, height = (float(rectangle.get(name, "")) for name in ("x", "y", "width", "height"))
        return Box(x, y, x + width, y + height)


def flattened(path: str) -> list[Point]:
    """Points on a path, a few pixels from one to the next."""
    points: list[Point] = []
    for command, text in re.findall(r"([MLQC])([^MLQC]*)", path):
        numbers = [float(one) for one in text.split()]
        given_points = list(zip(numbers[::2], numbers[1::2], strict=True))
        if command == "M":
            points += given_points
            continue
        curve = [points[-1], *given_points]
        length = sum(abs(a[0] - b[0]) + abs(a[1] - b[1]) for a, b in pairwise(curve))
        steps = max(1, int(length / 3))
        points += [bezier(curve, step / steps) for step in range(1, steps + 1)]
    return points


def bezier(curve: list[Point], at: float) -> Point:
    while len(curve) > 1:
        curve = [(a[0] + (b[0] - a[0]) * at, a[1] + (b[1] - a[1]) * at) for a, b in pairwise(curve)]
    return curve[0]


def drawn(count: int, edges: Edges, *, wide: int = 0) -> Picture:
    """A graph of so many nodes, one of which has a long name and one of which stands for several."""
    nodes = [
        Node("x" * wide if one == 1 else f"t::{one}", "t", "create", 1 + one % 2) for one in range(count)
    ]
    return Picture(svg(Drawing("t", nodes, edges)))


CASE: Edges = [(0, 1), (0, 4), (0, 5), (1, 3), (1, 4), (1, 6), (2, 3), (2, 6), (3, 4), (3, 5), (4, 5), (4, 6)]


@st.composite
def graphs(draw: st.DrawFn) -> tuple[int, Edges]:
    """Any graph, mostly without cycles; with cycles too, since components drawn as one may make them."""
    count = draw(st.integers(1, 40))
    node = st.integers(0, count - 1)
    edges = draw(st.lists(st.tuples(node, node), max_size=3 * count, unique=True))
    if draw(st.booleans()):
        edges = list(dict.fromkeys((min(edge), max(edge)) for edge in edges))
    return count, edges


@given(graphs(), st.integers(0, 40))
@example((9, CASE), 0)
@example((500, [(one, one + 1) for one in range(499)]), 0)
@example((61, [(0, one) for one in range(1, 61)]), 0)
def test_no_edge_runs_through_a_node(graph: tuple[int, Edges], wide: int) -> None:
    """Each edge leads from the border of its source to that of its destination, and is in no box between."""
    picture = drawn(*graph, wide=wide)
    edges = [edge for edge in graph[1] if edge[0] != edge[1]]
    for (source, destination), points in zip(edges, picture.edges, strict=True):
        assert picture.boxes[source].holds(points[0], slack=0.2)
        assert picture.boxes[destination].holds(points[-1], slack=0.2)
        low, high = (min(x for x, _ in points), max(x for x, _ in points))
        near = [box for box in picture.boxes if box.left < high and low < box.right]
        assert not [point for point in points for box in near if box.holds(point)]


@given(graphs())
def test_boxes_are_apart_and_inside_the_picture(graph: tuple[int, Edges]) -> None:
    """No two boxes touch; they and the edges are within the document."""
    picture = drawn(*graph)
    for number, box in enumerate(picture.boxes):
        for other in picture.boxes[:number]:
            apart = max(
                other.left - box.right, box.left - other.right, other.top - box.bottom, box.top - other.bottom
            )
            assert apart >= 8
    ends = [(x, y) for box in picture.boxes for x, y in ((box.left, box.top), (box.right, box.bottom))]
    for x, y in [*ends, *(point for points in picture.edges for point in points)]:
        assert 0 <= x <= picture.width - 50
        assert 0 <= y <= picture.height - 90


def test_waves_are_columns() -> None:
    """What can start at the same time stands in one column, and edges lead from left to right."""
    picture = drawn(7, [(0, 1), (0, 2), (1, 3), (2, 4), (4, 5), (0, 5), (3, 6)])
    columns: dict[float, set[int]] = {}
    for node, box in enumerate(picture.boxes):
        columns.setdefault(box.left, set()).add(node)
    assert [columns[left] for left in sorted(columns)] == [{0}, {1, 2}, {3, 4}, {5, 6}]


def test_nodes_without_edges_are_in_rows_of_their_own() -> None:
    """They stand below all others, and do not make a wave taller."""
    picture = drawn(30, [(0, 1), (1, 2)])
    lowest = max(box.bottom for box in picture.boxes[:3])
    assert min(box.top for box in picture.boxes[3:]) > lowest
    assert len({box.top for box in picture.boxes[3:]}) > 1


@pytest.mark.parametrize(("chains", "length"), [(1, 30), (1, 100), (10, 50), (2, 250), (100, 5)])
def test_long_rows_are_wrapped(chains: int, length: int) -> None:
    """A picture of chains is a page and not a strip."""
    edges = [
        (chain * length + one, chain * length + one + 1)
        for chain in range(chains)
        for one in range(length - 1)
    ]
    picture = drawn(chains * length, edges)
    assert picture.width < max(1_500, 3.5 * picture.height)
    assert picture.height < 3.5 * picture.width


def test_a_tall_wave_is_several_columns() -> None:
    """Hundreds of components that depend on one are a page as well."""
    picture = drawn(400, [(0, one) for one in range(1, 400)])
    assert 0.3 < picture.width / picture.height < 3.5


def test_the_largest_graphs_take_a_moment() -> None:
    """As many waves as nodes, and as many edges across them as are drawn: seconds, not minutes."""
    edges = [(one, one + 1) for one in range(MOST_NODES - 1)]
    edges += [(one, (one * 7919) % (MOST_NODES - one) + one) for one in range(MOST_NODES)]
    edges = [edge for edge in dict.fromkeys(edges) if edge[0] != edge[1]][:MOST_EDGES]
    began = time.process_time()
    drawn(MOST_NODES, edges)
    assert time.process_time() - began < 30
