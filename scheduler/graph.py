"""Who waits for whom: dependencies and dependents of a build's changes, indexed once.

Vertices are positions in the build's ``changes``; ids are looked up once, here.
"""

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TypeAlias

from attrs import field, frozen

Vertex: TypeAlias = int

_MOST_CYCLES = 100
"""How many cycles are named; a build with more has been told enough."""
_SMALL_KNOT = 100
"""Vertices up to which all elementary cycles of a knot are looked for."""


@frozen
class Graph:
    """The structure of a build. Made by `Graph.of`; never changes."""

    ids: tuple[str, ...]
    index: Mapping[str, Vertex] = field(repr=False)
    dependencies: tuple[tuple[Vertex, ...], ...] = field(repr=False)
    dependents: tuple[tuple[Vertex, ...], ...] = field(repr=False)

    @classmethod
    def of(cls, ids: Sequence[str], edges: Iterable[tuple[str, str]]) -> "Graph":
        """The graph over ``ids`` with an edge from each source to each destination.

        Edges that name something else than two of the ids are passed over: what already exists and the
        pseudo ids are satisfied (WIRE: "Intake"). The same edge twice is one edge.
        """
        index = {name: vertex for vertex, name in enumerate(ids)}
        before: list[dict[Vertex, None]] = [{} for _ in ids]
        after: list[dict[Vertex, None]] = [{} for _ in ids]
        for source, destination in edges:
            head, tail = index.get(source), index.get(destination)
            if head is not None and tail is not None:
                before[tail][head] = None
                after[head][tail] = None
        return cls(tuple(ids), index, tuple(map(tuple, before)), tuple(map(tuple, after)))

    def layers(self) -> list[list[Vertex]]:
        """The vertices by the length of the longest chain before them; what is on a cycle is left out."""
        missing = [len(dependencies) for dependencies in self.dependencies]
        layer = [vertex for vertex, count in enumerate(missing) if not count]
        layers = []
        while layer:
            layers.append(layer)
            following = []
            for vertex in layer:
                for dependent in self.dependents[vertex]:
                    missing[dependent] -= 1
                    if not missing[dependent]:
                        following.append(dependent)
            layer = following
        return layers

    def critical_path(self, cost: Sequence[float] | None = None) -> list[Vertex]:
        """The most expensive chain, first to last; without ``cost`` every vertex costs 1.

        Only for graphs without cycles.
        """
        total: dict[Vertex, float] = {}
        previous: dict[Vertex, Vertex] = {}
        for layer in self.layers():
            for vertex in layer:
                dependency = max(self.dependencies[vertex], key=total.__getitem__, default=None)
                own = 1.0 if cost is None else cost[vertex]
                total[vertex] = own + (0.0 if dependency is None else total[dependency])
                if dependency is not None:
                    previous[vertex] = dependency
        path: list[Vertex] = []
        last = max(total, key=total.__getitem__, default=None)
        while last is not None:
            path.append(last)
            last = previous.get(last)
        return path[::-1]

    def remaining(self, cost: Sequence[float]) -> list[float]:
        """For every vertex the cost of the most expensive chain from it to an end, itself included.

        Only for graphs without cycles.
        """
        total = list(cost)
        for layer in reversed(self.layers()):
            for vertex in layer:
                dependents = self.dependents[vertex]
                if dependents:
                    total[vertex] += max([total[dependent] for dependent in dependents])
        return total

    def ancestors(self, vertex: Vertex) -> set[Vertex]:
        """Every dependency of ``vertex``, direct or not."""
        found: set[Vertex] = set()
        todo = list(self.dependencies[vertex])
        while todo:
            one = todo.pop()
            if one not in found:
                found.add(one)
                todo.extend(self.dependencies[one])
        return found

    def cycles(self) -> list[list[Vertex]]:
        """Every elementary cycle, each a path that ends where it began.

        There can be exponentially many. Where a knot holds more than can be named, the shortest cycle through
        each of its edges is, as far as no cycle named before goes through it: at most 100 in all, and one at
        least for every knot.
        """
        found: list[list[Vertex]] = []
        # Whatever has a layer is on no cycle: that settles it for nearly every build.
        rest = set(range(len(self.ids))).difference(*self.layers())
        for knot in self._knots(rest):
            most = max(1, _MOST_CYCLES - len(found))
            every = list(islice(self._elementary(knot), most + 1)) if len(knot) <= _SMALL_KNOT else []
            found.extend(every if 0 < len(every) <= most else islice(self._covering(knot), most))
        return [[*cycle, cycle[0]] for cycle in found]

    def _elementary(self, knot: list[Vertex]) -> Iterator[list[Vertex]]:
        """All elementary cycles of a knot (Johnson's algorithm, without recursion)."""
        knots = [knot]
        while knots:
            members = set(knots.pop())
            start = min(members)
            yield from self._through(start, members)
            members.discard(start)
            knots.extend(self._knots(members))

    def _through(self, start: Vertex, members: set[Vertex]) -> Iterator[list[Vertex]]:
        """The elementary cycles through ``start``; ``members`` all lie on cycles with it.

        A vertex that led back to the path only stays blocked until one of those it leads to is free again.
        """
        path: list[Vertex] = []
        trail: list[tuple[Vertex, Iterator[Vertex]]] = []
        blocked: set[Vertex] = set()
        frees: dict[Vertex, set[Vertex]] = {}
        closing: set[Vertex] = set()

        def enter(vertex: Vertex) -> None:
            path.append(vertex)
            trail.append((vertex, iter(self.dependents[vertex])))
            blocked.add(vertex)
            closing.discard(vertex)

        enter(start)
        while trail:
            vertex, rest = trail[-1]
            for dependent in rest:
                if dependent == start:
                    yield path.copy()
                    closing.update(path)
                elif dependent in members and dependent not in blocked:
                    enter(dependent)
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
                    for dependent in self.dependents[vertex]:
                        frees.setdefault(dependent, set()).add(vertex)

    def _covering(self, knot: list[Vertex]) -> Iterator[list[Vertex]]:
        """Cycles that together go through every edge of a knot."""
        members = set(knot)
        covered: set[tuple[Vertex, Vertex]] = set()
        for vertex in knot:
            for dependent in self.dependents[vertex]:
                if dependent in members and (vertex, dependent) not in covered:
                    path = self._path(dependent, vertex, members)
                    covered.update(zip(path, [*path[1:], path[0]], strict=True))
                    turn = path.index(min(path))
                    yield path[turn:] + path[:turn]

    def _path(self, start: Vertex, goal: Vertex, members: set[Vertex]) -> list[Vertex]:
        """The shortest way from ``start`` to ``goal`` along edges inside ``members``."""
        came_from = {start: start}
        todo = deque([start])
        while goal not in came_from:
            vertex = todo.popleft()
            for dependent in self.dependents[vertex]:
                if dependent in members and dependent not in came_from:
                    came_from[dependent] = vertex
                    todo.append(dependent)
        path = [goal]
        while path[-1] != start:
            path.append(came_from[path[-1]])
        return path[::-1]

    def _knots(self, members: Collection[Vertex]) -> Iterator[list[Vertex]]:
        """The strongly connected parts of ``members`` that hold a cycle (Tarjan, without recursion)."""
        order: dict[Vertex, int] = {}
        low: dict[Vertex, int] = {}
        stack: list[Vertex] = []
        on_stack: set[Vertex] = set()
        for root in members:
            if root in order:
                continue
            trail = [(root, iter(self.dependents[root]))]
            order[root] = low[root] = len(order)
            stack.append(root)
            on_stack.add(root)
            while trail:
                vertex, rest = trail[-1]
                for dependent in rest:
                    if dependent not in members:
                        continue
                    if dependent not in order:
                        order[dependent] = low[dependent] = len(order)
                        stack.append(dependent)
                        on_stack.add(dependent)
                        trail.append((dependent, iter(self.dependents[dependent])))
                        break
                    if dependent in on_stack:
                        low[vertex] = min(low[vertex], order[dependent])
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
                        if len(group) > 1 or vertex in self.dependents[vertex]:
                            yield sorted(group)
