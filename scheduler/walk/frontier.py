"""The frontier of a build: the components that have settled, and those that this makes due. Synchronous."""

from collections.abc import Iterable, Sequence

from scheduler.definition.graph import Graph, Vertex
from scheduler.definition.model import START, Edge


class Frontier:
    """The line between what has settled and what has not.

    Args:
        graph: graph of the build. The dependents of each vertex stand in the order of the edges; behind
            these, in the order of changes, those whose edge is implied.
        waiting: the vertices that have not settled yet.
    """

    def __init__(self, graph: Graph, waiting: Iterable[Vertex]) -> None:
        self.settled = bytearray(b"\1" * len(graph.ids))
        """Whether a vertex has settled, so that none need wait for it, by vertex."""
        self._graph = graph
        self._looked = [0] * len(graph.ids)
        """Number of dependencies, from the first on, that are known to have settled, by vertex.

        So each edge is examined once or twice, however many dependencies a vertex has."""
        for vertex in waiting:
            self.settled[vertex] = False

    def is_ready(self, vertex: Vertex) -> bool:
        """Return whether all dependencies of a vertex have settled."""
        dependencies, settled = self._graph.dependencies[vertex], self.settled
        looked, most = self._looked[vertex], len(dependencies)
        while looked < most and settled[dependencies[looked]]:
            looked += 1
        self._looked[vertex] = looked
        return looked == most

    def settle(self, vertex: Vertex) -> list[Vertex]:
        """Note that a vertex has settled; return its dependents that wait for nothing else, in edge order.

        Idempotent: the second time it returns none.
        """
        if self.settled[vertex]:
            return []
        self.settled[vertex] = True
        return [dependent for dependent in self._graph.dependents[vertex] if self.is_ready(dependent)]

    def reopen(self, vertices: Iterable[Vertex]) -> None:
        """Note that these have not settled (any more)."""
        for vertex in vertices:
            self.settled[vertex] = False
        # The counts of other vertices may be wrong now.
        self._looked = [0] * len(self._looked)


def from_the_start(graph: Graph, edges: Iterable[Edge]) -> Sequence[Vertex]:
    """Return every vertex, in the order in which those without dependencies begin.

    First those that an edge leads to from ``start``, in the order of these edges; then the others, in the
    order of the changes.
    """
    index = graph.index
    first = (index[edge.destination] for edge in edges if edge.source == START and edge.destination in index)
    return list(dict.fromkeys([*first, *range(len(graph.ids))]))
