"""What the components of a build can see between them, in one index for queries over all of it.

What one of them sees is what exists, in its place what its own dependencies returned, and behind that what
else they returned. Where a document stands in that order is its position: what exists has its number, what
is new the number of its change behind those. So one index serves all components; which document stands at
a position depends on who looks.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from scheduler.definition.graph import Vertex
from scheduler.definition.template import Found, Shared, Work
from scheduler.definition.template.index import Index
from scheduler.definition.template.paths import Query

_PER_DOCUMENT: Final = 60
_PER_POSITION: Final = 40
_PER_ANOTHER: Final = 8
"""Work for one document more that may stand at the same position."""
_ELEMENT_BITS: Final = 32
"""Bits of the number of an element, of those that a ``find`` returned."""


class Catalogue:
    """The documents of a build by position.

    It is not for two threads at once, but for `seen`.

    Args:
        existing: what exists, by id and in order.
        instant: the changes that are done without being sent, which are seen as they are defined.
        shared: what the build keeps.
    """

    def __init__(
        self,
        existing: Mapping[str, Found],
        instant: Iterable[tuple[Vertex, str, Found]],
        shared: Shared,
    ) -> None:
        self._index = Index(shared)
        self._existing = list(existing.values())
        self._numbers = {name: number for number, name in enumerate(existing)}
        self._instead: dict[int, tuple[tuple[int, Found], ...]] = {}
        """By number of what exists: what was returned under its id, in the order of the changes."""
        self._new: dict[int, Found] = {}
        """By position."""
        self._positions: dict[str, int] = {}
        """Of what is new, by id."""
        self.complete = True
        """Whether it can say where everything stands: not where several changes return what is new."""
        for number, found in enumerate(self._existing):
            self._index.add(number, found)
        for vertex, name, found in instant:
            if name not in self._numbers:
                self._add_new(name, vertex << _ELEMENT_BITS, found)

    def book(self, vertex: Vertex, documents: Sequence[tuple[str, Found]]) -> None:
        """Add what a change returned: documents with their ids, each id once."""
        for at, (name, found) in enumerate(documents):
            place = vertex << _ELEMENT_BITS | at
            number = self._numbers.get(name)
            if number is None:
                self._add_new(name, place, found)
            else:
                others = self._instead.get(number, ())
                every = [one for one in others if one[0] != place] + [(place, found)]
                self._instead[number] = tuple(sorted(every, key=_place))
                self._index.add(number, found)

    def _add_new(self, name: str, place: int, found: Found) -> None:
        position = len(self._existing) + place
        if self._positions.setdefault(name, position) != position:
            self.complete = False
        self._new[position] = found
        self._index.add(position, found)

    def others(self, name: str) -> int:
        """How many were returned under an id that exists."""
        number = self._numbers.get(name)
        return 0 if number is None else len(self._instead.get(number, ()))

    def positions(self, query: Query, work: Work) -> Iterable[int]:
        """Where a query may hold, in order (`Index.candidates`)."""
        return self._index.candidates(query, work.spend_shared)

    def seen(self, positions: Iterable[int], dependencies: bytes, work: Work) -> Iterator[Found]:
        """What stands at ``positions`` for a component with these dependencies, direct or not.

        Args:
            positions: in order.
            dependencies: a bit for each vertex.
            work: is told of the work.
        """
        count = len(self._existing)
        for position in positions:
            work.spend(_PER_POSITION)
            if position >= count:
                if _has(dependencies, (position - count) >> _ELEMENT_BITS):
                    yield self._new[position]
                continue
            instead = self._instead.get(position, ())
            work.spend(_PER_ANOTHER * len(instead))
            for place, found in reversed(instead):
                if _has(dependencies, place >> _ELEMENT_BITS):
                    yield found
                    break
            else:
                yield self._existing[position]


def documents_work(count: int) -> int:
    """Work for adding so many documents."""
    return _PER_DOCUMENT * (1 + count)


def _place(one: tuple[int, Found]) -> int:
    return one[0]


def _has(bits: bytes, at: int) -> bool:
    return bool(bits[at >> 3] >> (at & 7) & 1)
