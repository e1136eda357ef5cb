"""Who waits for whom: dependencies and dependents of a build's changes, indexed once.

Vertices are positions in the build's ``changes``; ids are looked up once, here.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from attrs import field, frozen

from scheduler.definition.cycles import Knot, find_knots

Vertex: TypeAlias = int


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

    def knots(self) -> list[Knot]:
        """The cycles: one knot for all those that hang together, in the order of their vertices."""
        # Whatever has a layer is on no cycle: that settles it for nearly every build.
        rest = set(range(len(self.ids))).difference(*self.layers())
        return sorted(find_knots(self.dependents, rest), key=lambda knot: knot.cycle) if rest else []
