"""The catalogue: everything that the components of a build can see, in one index for queries over all of it.

A component sees the components that exist, in their place the results of its own dependencies under the same
ids, and after them the other results of its dependencies. The place of a document in that order is its
position: an existing component has its number, and a new one the number of its change after those. So one
index serves all components; which document stands at a position depends on the component that looks.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from scheduler.definition.graph import Vertex
from scheduler.definition.template import Found, Shared, Work
from scheduler.definition.template.index import DocumentIndex
from scheduler.definition.template.paths import PathQuery

_PER_DOCUMENT: Final = 60
_PER_POSITION: Final = 40
_PER_ANOTHER: Final = 8
"""Units of work for one more document that may stand at the same position."""
_ELEMENT_BITS: Final = 32
"""Bits of an element's number, among those that a ``find`` returned."""


class Catalogue:
    """Documents of a build by position.

    Only `seen` may be called by two threads at once.

    Args:
        existing: components that exist, by id and in order.
        instant: changes that complete without being sent, which are seen as they are defined.
        shared: what the build keeps.
    """

    def __init__(
        self,
        existing: Mapping[str, Found],
        instant: Iterable[tuple[Vertex, str, Found]],
        shared: Shared,
    ) -> None:
        self._index = DocumentIndex(shared)
        self._existing = list(existing.values())
        self._numbers = {name: number for number, name in enumerate(existing)}
        self._instead: dict[int, tuple[tuple[int, Found], ...]] = {}
        """Documents returned under an existing id, by number of that component, in the order of the
        changes."""
        self._new: dict[int, Found] = {}
        """New documents by position."""
        self._positions: dict[str, int] = {}
        """Positions of new documents by id."""
        self.complete = True
        """Whether every position is known: not if several changes return new documents."""
        for number, found in enumerate(self._existing):
            self._index.add(number, found)
        for vertex, name, found in instant:
            if name not in self._numbers:
                self._add_new(name, vertex << _ELEMENT_BITS, found)

    def book(self, vertex: Vertex, documents: Sequence[tuple[str, Found]]) -> None:
        """Add the documents that a change returned, with their ids, each id once."""
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
        """Return the number of documents that were returned under an existing id."""
        number = self._numbers.get(name)
        return 0 if number is None else len(self._instead.get(number, ()))

    def positions(self, query: PathQuery, work: Work) -> Iterable[int]:
        """Return the positions that may match a query, in order (`DocumentIndex.candidates`)."""
        return self._index.candidates(query, work.spend_shared)

    def seen(self, positions: Iterable[int], dependencies: bytes, work: Work) -> Iterator[Found]:
        """Yield the documents at ``positions`` for a component with these dependencies, direct or not.

        Args:
            positions: positions in order.
            dependencies: a bit for each vertex.
            work: budget that the work is charged to.
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
    """Return the units of work for adding so many documents."""
    return _PER_DOCUMENT * (1 + count)


def _place(one: tuple[int, Found]) -> int:
    return one[0]


def _has(bits: bytes, at: int) -> bool:
    return bool(bits[at >> 3] >> (at & 7) & 1)
