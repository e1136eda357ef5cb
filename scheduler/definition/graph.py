"""The graph of a build: dependencies and dependents of its changes, indexed once.

Vertices are positions in the build's ``changes``; ids are looked up once, here.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from attrs import field, frozen

from scheduler.definition.cycles import Knot, find_knots

Vertex: TypeAlias = int
Pair: TypeAlias = tuple[Vertex, Vertex]
"""An edge: its source and its destination."""


@frozen
class Graph:
    """Dependencies and dependents of a build's changes. Made by `Graph.of`; it never changes."""

    ids: tuple[str, ...]
    index: Mapping[str, Vertex] = field(repr=False)
    dependencies: tuple[tuple[Vertex, ...], ...] = field(repr=False)
    dependents: tuple[tuple[Vertex, ...], ...] = field(repr=False)

    @classmethod
    def of(cls, ids: Sequence[str], edges: Iterable[tuple[str, str]]) -> "Graph":
        """Make the graph over ``ids``, with an edge from each source to each destination.

        An edge that names anything but two of the ids is skipped: existing components and the pseudo ids need
            no waiting (WIRE: "Intake"). The same edge twice is one edge.
        """
        index = {name: vertex for vertex, name in enumerate(ids)}
        ends = ((index.get(source), index.get(destination)) for source, destination in edges)
        pairs = {(head, tail): None for head, tail in ends if head is not None and tail is not None}
        return cls.of_pairs(tuple(ids), index, pairs)

    @classmethod
    def of_pairs(cls, ids: tuple[str, ...], index: Mapping[str, Vertex], pairs: Iterable[Pair]) -> "Graph":
        """Make the graph over ``ids`` with these edges, each once; ``index`` has the vertex of each id."""
        before: list[list[Vertex]] = [[] for _ in ids]
        after: list[list[Vertex]] = [[] for _ in ids]
        for source, destination in pairs:
            before[destination].append(source)
            after[source].append(destination)
        return cls(ids, index, tuple(map(tuple, before)), tuple(map(tuple, after)))

    def is_acyclic(self) -> bool:
        """Whether there is no cycle."""
        missing = list(map(len, self.dependencies))
        order = [vertex for vertex, count in enumerate(missing) if not count]
        dependents = self.dependents
        for vertex in order:
            for dependent in dependents[vertex]:
                missing[dependent] -= 1
                if not missing[dependent]:
                    order.append(dependent)
        return len(order) == len(missing)

    def layers(self) -> list[list[Vertex]]:
        """Return the vertices by the length of the longest chain before them, without those on a cycle."""
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
        """Return the most expensive chain, first to last; without ``cost`` every vertex costs 1.

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
        """Return, for every vertex, the cost of the most expensive chain from it to an end, itself included.

        Only for graphs without cycles.
        """
        total = list(cost)
        for layer in reversed(self.layers()):
            for vertex in layer:
                dependents = self.dependents[vertex]
                if dependents:
                    total[vertex] += max([total[dependent] for dependent in dependents])
        return total

    def ancestors(self, *vertices: Vertex) -> set[Vertex]:
        """Return all dependencies of the vertices, direct or not."""
        return _reached(self.dependencies, vertices)

    def descendants(self, *vertices: Vertex) -> set[Vertex]:
        """Return all dependents of the vertices, direct or not."""
        return _reached(self.dependents, vertices)

    def knots(self) -> list[Knot]:
        """Return the cycles as knots of connected cycles, in the order of their vertices."""
        # A vertex with a layer is on no cycle: that decides it for nearly every build.
        rest = set(range(len(self.ids))).difference(*self.layers())
        return sorted(find_knots(self.dependents, rest), key=lambda knot: knot.cycle) if rest else []


def _reached(next_ones: Sequence[Sequence[Vertex]], starts: Iterable[Vertex]) -> set[Vertex]:
    """Return what can be reached from the starts, which are among it only if one leads to another."""
    found: set[Vertex] = set()
    todo = [one for start in starts for one in next_ones[start]]
    while todo:
        one = todo.pop()
        if one not in found:
            found.add(one)
            todo.extend(next_ones[one])
    return found
