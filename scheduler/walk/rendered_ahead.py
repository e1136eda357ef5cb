"""Requests of a build that were rendered and found no room in flight; their size is known while they wait.

Most bodies are kept, so that they need not be rendered again. The bytes kept for all builds are bounded; a
request beyond that is rendered again when it begins.
"""

from scheduler.definition.graph import Vertex
from scheduler.dispatch.slots import Slots
from scheduler.plan import Request

_BESIDE = 512
"""Size of subject and headers, roughly, in bytes."""


class RenderedAhead:
    """Rendered requests of one build that wait for room.

    Args:
        slots: slots with the bound on the bytes kept.
    """

    __slots__ = ("_kept", "_slots", "sizes")

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self.sizes: dict[Vertex, int] = {}
        """Bytes that each of these requests takes."""
        self._kept: dict[Vertex, Request] = {}

    def put(self, vertex: Vertex, request: Request) -> None:
        """Let a request wait."""
        self.sizes[vertex] = size = size_of(request)
        if self._slots.budget.keep(size):
            self._kept[vertex] = request

    def pop(self, vertex: Vertex) -> Request | None:
        """Take out a request that is about to begin; return it where it was kept."""
        self.sizes.pop(vertex, None)
        return self.let_go(vertex)

    def let_go(self, vertex: Vertex) -> Request | None:
        """Stop keeping the request of a component; its size stays known. Idempotent."""
        request = self._kept.pop(vertex, None)
        if request is not None:
            self._slots.budget.drop(size_of(request))
        return request

    def clear(self) -> None:
        """Forget all requests, as nothing is sent any more. Idempotent."""
        for vertex in list(self._kept):
            self.let_go(vertex)
        self.sizes.clear()


def size_of(request: Request) -> int:
    """Return the bytes that a request takes while it is in flight."""
    return len(request.body) + _BESIDE
