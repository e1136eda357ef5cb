"""The frontier of a build: the components that have settled, and those that this makes due. Synchronous."""

from collections.abc import Iterable, Sequence
from typing import Final

from scheduler.definition.graph import Graph, Vertex
from scheduler.definition.model import START, Edge

_UNCOUNTED: Final = -1


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
        self._left = [_UNCOUNTED] * len(graph.ids)
        """Number of dependencies that have not settled, by vertex; counted when it is asked for first."""
        for vertex in waiting:
            self.settled[vertex] = False

    def is_ready(self, vertex: Vertex) -> bool:
        """Return whether all dependencies of a vertex have settled."""
        left = self._left[vertex]
        return not (self._count(vertex) if left == _UNCOUNTED else left)

    def _count(self, vertex: Vertex) -> int:
        """Count the dependencies of a vertex that have not settled."""
        settled, left = self.settled, 0
        for dependency in self._graph.dependencies[vertex]:
            if not settled[dependency]:
                left += 1
        self._left[vertex] = left
        return left

    def settle(self, vertex: Vertex) -> list[Vertex]:
        """Note that a vertex has settled; return its dependents that wait for nothing else, in edge order.

        Idempotent: the second time it returns none.
        """
        if self.settled[vertex]:
            return []
        self.settled[vertex] = True
        ready, counts = [], self._left
        for dependent in self._graph.dependents[vertex]:
            left = counts[dependent]
            if left > 1:
                counts[dependent] = left - 1
            elif left == 1 or not self._count(dependent):
                counts[dependent] = 0
                ready.append(dependent)
        return ready

    def reopen(self, vertices: Iterable[Vertex]) -> None:
        """Note that these have not settled (any more)."""
        for vertex in vertices:
            self.settled[vertex] = False
        # The counts of other vertices may be wrong now.
        self._left = [_UNCOUNTED] * len(self._left)


def from_the_start(graph: Graph, edges: Iterable[Edge]) -> Sequence[Vertex]:
    """Return every vertex, in the order in which those without dependencies begin.

    First those that an edge leads to from ``start``, in the order of these edges; then the others, in the
    order of the changes.
    """
    index = graph.index
    first = (index[edge.destination] for edge in edges if edge.source == START and edge.destination in index)
    # Those of the index, as each task keeps its own: others would take 28 bytes more for each.
    return list(dict.fromkeys([*first, *index.values()]))
