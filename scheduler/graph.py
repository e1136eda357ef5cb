"""Who waits for whom: dependencies and dependents of a build's changes, indexed once.

Vertices are positions in the build's ``changes``; ids are looked up once, here.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

from attrs import field, frozen

Vertex: TypeAlias = int

_MOST_CYCLES = 100
"""How many cycles are named; a build with more has been told enough."""


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
        """Cycles that together show every edge that closes one; each a path that ends where it began.

        All elementary cycles can be exponentially many. For every edge inside a strongly connected
        component the shortest cycle through it is found instead, so that nobody who breaks all that is
        reported is told of another. At most 100, and one at least for every component.
        """
        found: dict[tuple[Vertex, ...], None] = {}
        for group in self._knots():
            members = set(group)
            for vertex in group:
                for dependent in self.dependents[vertex]:
                    if dependent in members and (len(found) < _MOST_CYCLES or vertex == group[0]):
                        path = self._path(dependent, vertex, members)
                        turn = path.index(min(path))
                        found[tuple(path[turn:] + path[:turn])] = None
        return [[*cycle, cycle[0]] for cycle in found]

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

    def _knots(self) -> Iterator[list[Vertex]]:
        """The strongly connected components that hold a cycle (Tarjan's algorithm, without recursion)."""
        order: dict[Vertex, int] = {}
        low: dict[Vertex, int] = {}
        stack: list[Vertex] = []
        on_stack: set[Vertex] = set()
        for root in range(len(self.ids)):
            if root in order:
                continue
            trail = [(root, iter(self.dependents[root]))]
            order[root] = low[root] = len(order)
            stack.append(root)
            on_stack.add(root)
            while trail:
                vertex, rest = trail[-1]
                for dependent in rest:
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
