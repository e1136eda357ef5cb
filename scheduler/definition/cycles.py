"""Cycles in a graph, described knot by knot.

A *knot* is a strongly connected part of a graph that holds a cycle. One wrong edge in a build can close
exponentially many cycles, all of them in one knot. So a knot counts as one mistake. It is described by its
shortest cycle, the number of other cycles, and the edges that are on all of them.

A graph is given as the sequence of its rows: for each vertex the targets of its edges, each once. Everything
takes time in proportion to the graph, and limited work beyond that; nothing recurses.
"""

from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Final, TypeAlias

from attrs import field, frozen

Rows: TypeAlias = Sequence[Sequence[int]]
_Inner: TypeAlias = Mapping[int, Sequence[int]]
"""Rows of a knot: its vertices in ascending order, and those of their edges that stay within it."""

MOST_COUNTED: Final = 1_000
"""Number up to which the cycles of a knot are counted."""
_MOST_STEPS: Final = 500_000
"""Most edges that are followed to find the shortest cycles of all knots, and again to count: 0.1 s each."""


@frozen
class Knot:
    """Description of a knot."""

    cycle: tuple[int, ...]
    """Shortest cycle, as a path that ends where it began, at its smallest vertex; just a short one if no edge
    is on all cycles and the search exceeds its limit."""
    others: int
    """Number of other elementary cycles, as far as they were counted."""
    counted: bool
    """Whether ``others`` is the exact number."""
    shared: tuple[tuple[int, int], ...] = field(repr=False)
    """Edges on every cycle, in the order of ``cycle``: without any one of them there is no cycle."""


class _Steps:
    """A limit for the number of edges that are followed."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = _MOST_STEPS


def find_knots(rows: Rows, vertices: Collection[int]) -> Iterator[Knot]:
    """Yield the knots among some vertices of a graph, each once."""
    searching, counting = _Steps(), _Steps()
    for members in _components(rows, vertices):
        within = set(members)
        inner = {vertex: [one for one in rows[vertex] if one in within] for vertex in members}
        cycle = _first(inner)
        shared = _shared(inner, cycle)
        if shared:
            # Every cycle is a way back from the end of such an edge to its beginning.
            source, end = shared[0]
            cycle = _turned(_way(inner, end, source))
            count = _ways(inner, end, source)
        else:
            cycle = _turned(_shortest(inner, cycle, searching))
            count = _count(inner, counting)
        around, on_all = (*cycle, cycle[0]), set(shared)
        ordered = tuple(edge for edge in pairwise(around) if edge in on_all)
        yield Knot(around, abs(count) - 1, 0 < count <= MOST_COUNTED, ordered)


def _turned(cycle: Sequence[int]) -> list[int]:
    """Return ``cycle`` turned to begin with its smallest vertex."""
    turn = min(range(len(cycle)), key=cycle.__getitem__)
    return [*cycle[turn:], *cycle[:turn]]


def _first(inner: _Inner) -> list[int]:
    """Return any cycle, one vertex after another."""
    start = next(iter(inner))
    if start in inner[start]:
        return [start]
    return _way(inner, inner[start][0], start)


def _way(inner: _Inner, start: int, goal: int) -> list[int]:
    """Return the shortest way from ``start`` to ``goal``."""
    came_from = {start: start}
    todo = deque([start])
    while goal not in came_from:
        vertex = todo.popleft()
        for one in inner[vertex]:
            if one not in came_from:
                came_from[one] = vertex
                todo.append(one)
    way = [goal]
    while way[-1] != start:
        way.append(came_from[way[-1]])
    return way[::-1]


def _shared(inner: _Inner, cycle: Sequence[int]) -> list[tuple[int, int]]:
    """Return the edges that are on every cycle; they are all on ``cycle``, which is any.

    Take the edges of ``cycle`` away. If a cycle is left, no edge is shared. Otherwise number the vertices of
    ``cycle`` by their places on it: a way through what is left, from place p to place q, closes a cycle with
    the part of ``cycle`` that leads from q to p, and an edge is shared if and only if it is in all of these
    parts. For each vertex it is enough to know the least and the greatest place that can be reached from it,
    and the greatest place from which it can be reached.
    """
    size = len(cycle)
    place = {vertex: at for at, vertex in enumerate(cycle)}
    after = {vertex: cycle[(at + 1) % size] for vertex, at in place.items()}
    left = {vertex: [one for one in row if after.get(vertex) != one] for vertex, row in inner.items()}
    order = _sorted(left)
    if order is None:
        return []
    first, last = size, 0
    beyond = [0] * (size + 1)
    least = dict.fromkeys(inner, size)
    greatest = dict.fromkeys(inner, -1)
    for vertex in reversed(order):
        for one in left[vertex]:
            at = place.get(one, -1)
            least[vertex] = min(least[vertex], least[one], size if at < 0 else at)
            greatest[vertex] = max(greatest[vertex], greatest[one], at)
        at = place.get(vertex, -1)
        if at >= 0:
            if least[vertex] < at:
                first = min(first, at)
            if greatest[vertex] > at:
                beyond[at] += 1
                beyond[greatest[vertex]] -= 1
    source = dict.fromkeys(inner, -1)
    for vertex in order:
        at = place.get(vertex, -1)
        if source[vertex] > at >= 0:
            last = max(last, at)
        at = max(at, source[vertex])
        for one in left[vertex]:
            source[one] = max(source[one], at)
    shared = []
    avoided = 0
    for at, vertex in enumerate(cycle):
        avoided += beyond[at]
        if last <= at < first and not avoided:
            shared.append((vertex, after[vertex]))
    return shared


def _sorted(rows: _Inner) -> list[int] | None:
    """Return the vertices, each before the targets of its edges; None if there is a cycle."""
    missing = dict.fromkeys(rows, 0)
    for row in rows.values():
        for one in row:
            missing[one] += 1
    order = [vertex for vertex, count in missing.items() if not count]
    for vertex in order:
        for one in rows[vertex]:
            missing[one] -= 1
            if not missing[one]:
                order.append(one)
    return order if len(order) == len(rows) else None


def _ways(inner: _Inner, start: int, goal: int) -> int:
    """Return the number of ways from ``start`` to ``goal``; the edge back is on every cycle.

    They are counted up to one more than `MOST_COUNTED`.
    """
    without = {**inner, goal: [one for one in inner[goal] if one != start]}
    ways = dict.fromkeys(inner, 0)
    ways[start] = 1
    for vertex in _sorted(without) or ():
        if ways[vertex]:
            for one in without[vertex]:
                ways[one] = min(ways[one] + ways[vertex], MOST_COUNTED + 1)
    return ways[goal]


def _shortest(inner: _Inner, cycle: list[int], steps: _Steps) -> list[int]:
    """Return the shortest cycle, or the shortest one found within the limit; ``cycle`` is any.

    The search begins at the few vertices of which every cycle has one.
    """
    for start in _met_again(inner):
        came_from = {start: start}
        layer = [start]
        depth = 1
        while layer and depth < len(cycle):
            following = []
            for vertex in layer:
                steps.left -= len(inner[vertex])
                for one in inner[vertex]:
                    if one == start:
                        cycle = [vertex]
                        while cycle[-1] != start:
                            cycle.append(came_from[cycle[-1]])
                        cycle.reverse()
                        break
                    if one not in came_from:
                        came_from[one] = vertex
                        following.append(one)
                if len(cycle) == depth:
                    break
                if steps.left < 0:
                    return cycle
            layer = following
            depth += 1
    return cycle


def _met_again(inner: _Inner) -> list[int]:
    """Return the vertices that a depth-first search meets again on its own path: every cycle has one."""
    met: dict[int, None] = {}
    on_path: dict[int, bool] = {}
    root = next(iter(inner))
    trail = [(root, iter(inner[root]))]
    on_path[root] = True
    while trail:
        vertex, rest = trail[-1]
        for one in rest:
            if one not in on_path:
                on_path[one] = True
                trail.append((one, iter(inner[one])))
                break
            if on_path[one]:
                met[one] = None
        else:
            trail.pop()
            on_path[vertex] = False
    return list(met)


def _count(inner: _Inner, steps: _Steps) -> int:
    """Return the number of elementary cycles; if not all could be counted, the negative of the count.

    They are counted up to one more than `MOST_COUNTED` (Johnson's algorithm, without recursion).
    """
    count = 0
    knots: list[_Inner] = [inner]
    while knots:
        knot = knots.pop()
        start = next(iter(knot))
        for _ in _through(knot, start, steps):
            count += 1
            if count > MOST_COUNTED:
                return count
        rest = {vertex: [one for one in row if one != start] for vertex, row in knot.items()}
        del rest[start]
        steps.left -= sum(map(len, rest.values()))
        if steps.left < 0:
            # If no edge is on all cycles, there are at least two.
            return -max(count, 2)
        for members in _components(rest, rest):
            within = set(members)
            knots.append({vertex: [one for one in rest[vertex] if one in within] for vertex in members})
    return count


def _through(knot: _Inner, start: int, steps: _Steps) -> Iterator[None]:
    """Yield once for each elementary cycle through ``start``, in a knot; end early when the steps run out.

    A vertex that only led back to the path stays blocked until one of its targets is free again.
    """
    path: list[int] = []
    trail: list[tuple[int, Iterator[int]]] = []
    blocked: set[int] = set()
    frees: dict[int, set[int]] = {}
    closing: set[int] = set()

    def enter(vertex: int) -> None:
        steps.left -= len(knot[vertex])
        path.append(vertex)
        trail.append((vertex, iter(knot[vertex])))
        blocked.add(vertex)
        closing.discard(vertex)

    enter(start)
    while trail and steps.left >= 0:
        vertex, rest = trail[-1]
        for one in rest:
            if one == start:
                yield None
                steps.left -= len(path)
                closing.update(path)
            elif one not in blocked:
                enter(one)
                break
        else:
            trail.pop()
            path.pop()
            if vertex in closing:
                todo = [vertex]
                while todo:
                    free = todo.pop()
                    if free in blocked:
                        blocked.discard(free)
                        todo.extend(frees.pop(free, ()))
            else:
                for one in knot[vertex]:
                    frees.setdefault(one, set()).add(vertex)


def _components(rows: Rows | _Inner, members: Collection[int]) -> Iterator[list[int]]:
    """Yield the strongly connected parts of ``members`` with a cycle, each in order (Tarjan's algorithm)."""
    order: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    on_stack: set[int] = set()
    for root in members:
        if root in order:
            continue
        trail = [(root, iter(rows[root]))]
        order[root] = low[root] = len(order)
        stack.append(root)
        on_stack.add(root)
        while trail:
            vertex, rest = trail[-1]
            for one in rest:
                if one not in members:
                    continue
                if one not in order:
                    order[one] = low[one] = len(order)
                    stack.append(one)
                    on_stack.add(one)
                    trail.append((one, iter(rows[one])))
                    break
                if one in on_stack:
                    low[vertex] = min(low[vertex], order[one])
            else:
                trail.pop()
                if trail:
                    parent = trail[-1][0]
                    low[parent] = min(low[parent], low[vertex])
                if low[vertex] == order[vertex]:
                    group = []
                    while True:
                        member = stack.pop()
                        on_stack.discard(member)
                        group.append(member)
                        if member == vertex:
                            break
                    if len(group) > 1 or vertex in rows[vertex]:
                        yield sorted(group)
