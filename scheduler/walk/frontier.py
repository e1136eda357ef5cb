"""Which components wait for which: what one that has settled makes due, and in which order. Synchronous."""

from collections.abc import Iterable, Sequence

from scheduler.definition.graph import Graph, Vertex
from scheduler.definition.model import START, Edge


class Frontier:
    """The line between what has settled and what has not.

    Args:
        graph: of the build. The dependents of each of its vertices stand in the order of the edges, and
            behind these, in the order of changes, those whose edge is implied.
        waiting: the vertices that have not settled yet.
    """

    def __init__(self, graph: Graph, waiting: Iterable[Vertex]) -> None:
        self.settled = bytearray(b"\1" * len(graph.ids))
        """By vertex: whether nobody has to wait for it (any more)."""
        self._graph = graph
        self._looked = [0] * len(graph.ids)
        """By vertex: how many of its dependencies, from the first on, are known to have settled.

        So each edge is looked at once, and twice at most, however many dependencies something has."""
        for vertex in waiting:
            self.settled[vertex] = False

    def is_ready(self, vertex: Vertex) -> bool:
        """Whether all that a vertex depends on has settled."""
        dependencies, settled = self._graph.dependencies[vertex], self.settled
        looked, most = self._looked[vertex], len(dependencies)
        while looked < most and settled[dependencies[looked]]:
            looked += 1
        self._looked[vertex] = looked
        return looked == most

    def settle(self, vertex: Vertex) -> list[Vertex]:
        """A vertex has settled; returns its dependents that wait for nothing else, in the order of the edges.

        Idempotent: the second time there are none.
        """
        if self.settled[vertex]:
            return []
        self.settled[vertex] = True
        return [dependent for dependent in self._graph.dependents[vertex] if self.is_ready(dependent)]

    def reopen(self, vertices: Iterable[Vertex]) -> None:
        """These wait again, or are waited for again."""
        for vertex in vertices:
            self.settled[vertex] = False
        # What was seen of others may be no longer so.
        self._looked = [0] * len(self._looked)


def from_the_start(graph: Graph, edges: Iterable[Edge]) -> Sequence[Vertex]:
    """Every vertex in the order in which those begin that wait for nothing.

    First those that an edge leads to from ``start``, in the order of these edges; then the others, in the
    order of the changes.
    """
    index = graph.index
    first = (index[edge.destination] for edge in edges if edge.source == START and edge.destination in index)
    return list(dict.fromkeys([*first, *range(len(graph.ids))]))
