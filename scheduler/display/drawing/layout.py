"""Places a graph's nodes and leads its edges around them: a layered drawing, from left to right.

Sugiyama's method, with columns that mean something:

1. A wave is a column, a tall wave several columns. An edge that passes a column has a *lane* in it, which
   takes up room as a node does. Edges of one node share a lane.
2. Each column is ordered so that few edges cross (barycentres, in both directions).
3. Heights are least squares: as near to the neighbours as order and gaps allow.
4. A long row of columns is wrapped into *bands*, as text is into lines.

There are no nodes between columns, and inside a column an edge is level, in its lane. So no edge runs through
a node, whatever the graph. Nodes without edges stand below, in rows of their own.
"""

from collections.abc import Iterator, Sequence
from math import ceil, sqrt

from attrs import frozen

from scheduler.display.drawing.bands import ASPECT, BandPlace, Bands, Route
from scheduler.display.drawing.grid import GAP, Edge, Grid


@frozen
class Layout:
    """Layout of a graph, from (0, 0) to (``width``, ``height``)."""

    places: Sequence[BandPlace]
    routes: Sequence[Route]
    """Route of each edge; empty for an edge from a node to itself."""
    width: float
    height: float


def lay_out(sizes: Sequence[tuple[float, float]], edges: Sequence[Edge]) -> Layout:
    """Lay a graph out.

    Args:
        sizes: width and height of each node, px; all nodes of a column become as wide as its widest.
        edges: edges from node to node, as positions; cycles are drawn with edges that lead back.
    """
    places = [BandPlace(0.0, 0.0, *size) for size in sizes]
    forward, turned = _acyclic(len(sizes), edges)
    linked = sorted({one for edge in forward for one in edge})
    width = height = 0.0
    routes: list[Route] = [[] for _ in edges]
    if linked:
        grid = Grid.of(linked, sizes, forward)
        grid.reduce_crossings()
        grid.settle()
        bands = Bands(grid)
        width, height = bands.width, bands.height
        for node in linked:
            places[node] = bands.place(node)
        for number, (edge, back) in enumerate(zip(forward, turned, strict=True)):
            if edge[0] != edge[1]:
                route = bands.route(edge)
                routes[number] = route[::-1] if back else route
    alone = sorted(set(range(len(sizes))) - set(linked))
    if alone:
        top = height + 2 * GAP if linked else 0.0
        width, height = _rows(alone, places, top, width)
    return Layout(places, routes, width, height)


def _acyclic(count: int, edges: Sequence[Edge]) -> tuple[list[Edge], list[bool]]:
    """Turn round the edges that close a cycle; return the edges, and which of them were turned."""
    following: list[list[int]] = [[] for _ in range(count)]
    for source, destination in edges:
        following[source].append(destination)
    finished: list[int] = []
    seen = [False] * count
    for root in range(count):
        if seen[root]:
            continue
        seen[root] = True
        path: list[tuple[int, Iterator[int]]] = [(root, iter(following[root]))]
        while path:
            node, rest = path[-1]
            for other in rest:
                if not seen[other]:
                    seen[other] = True
                    path.append((other, iter(following[other])))
                    break
            else:
                path.pop()
                finished.append(node)
    rank = {node: -place for place, node in enumerate(finished)}
    turned = [rank[source] > rank[destination] for source, destination in edges]
    return [(b, a) if back else (a, b) for (a, b), back in zip(edges, turned, strict=True)], turned


def _rows(alone: Sequence[int], places: list[BandPlace], top: float, width: float) -> tuple[float, float]:
    """Put nodes into rows below ``top``; return the width and height of all."""
    wide = max(places[one].width for one in alone) + GAP
    tall = max(places[one].height for one in alone) + GAP
    across = max(1, int((width + GAP) / wide), ceil(sqrt(len(alone) * tall * ASPECT / wide)))
    for number, node in enumerate(alone):
        row, column = divmod(number, across)
        places[node] = BandPlace(column * wide, top + row * tall, wide - GAP, places[node].height)
    rows = ceil(len(alone) / across)
    return max(width, min(across, len(alone)) * wide - GAP), top + rows * tall - GAP
