"""Requests of a build that were rendered, and found no room in flight: they wait, and their size is known.

Of most of them the body is kept, so that it need not be rendered again. All builds together keep so many
bytes at most; what is beyond that is rendered again when its time has come.
"""

from scheduler.definition.graph import Vertex
from scheduler.dispatch.slots import Slots
from scheduler.plan import Request

_BESIDE = 512
"""Bytes that a subject and headers take, roughly."""


class Unsent:
    """Those of one build.

    Args:
        slots: know how much may be kept.
    """

    __slots__ = ("_kept", "_sizes", "_slots")

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._sizes: dict[Vertex, int] = {}
        self._kept: dict[Vertex, Request] = {}

    def __contains__(self, vertex: Vertex) -> bool:
        return vertex in self._sizes

    def __bool__(self) -> bool:
        return bool(self._sizes)

    def put(self, vertex: Vertex, request: Request) -> None:
        """A request is to wait."""
        self._sizes[vertex] = size = size_of(request)
        if self._slots.budget.keep(size):
            self._kept[vertex] = request

    def size(self, vertex: Vertex) -> int:
        """The bytes that the request of a component takes; 0 where that is not known yet."""
        return self._sizes.get(vertex, 0)

    def pop(self, vertex: Vertex) -> Request | None:
        """Its time has come: its request, where that was kept."""
        self._sizes.pop(vertex, None)
        return self.let_go(vertex)

    def let_go(self, vertex: Vertex) -> Request | None:
        """Keep its request no more; how large that is stays known. Idempotent."""
        request = self._kept.pop(vertex, None)
        if request is not None:
            self._slots.budget.drop(size_of(request))
        return request

    def clear(self) -> None:
        """Nothing is sent any more. Idempotent."""
        for vertex in list(self._kept):
            self.let_go(vertex)
        self._sizes.clear()


def size_of(request: Request) -> int:
    """The bytes that a request takes while it is in flight."""
    return len(request.body) + _BESIDE
