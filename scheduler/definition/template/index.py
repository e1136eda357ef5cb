"""An index of components by their content, so that a query over all of them need not look at each.

The index tells which components may match, never that one does: the caller looks at those. So it may keep
documents that were replaced, and fields whose value is still open (a string that is a template itself).
"""

from bisect import insort
from collections.abc import Callable, Iterable, Iterator
from heapq import merge
from typing import Any, Final, cast

from scheduler.definition.places import MAX_PLACE, Place, fields_work
from scheduler.definition.template import references
from scheduler.definition.template.paths import MAX_PATH, Path, PathQuery, Walker, Where
from scheduler.definition.template.scopes import Found, Shared
from scheduler.definition.template.work import AbortedError

MAX_PATHS: Final = 4
"""Paths of queries that are indexed at a time."""
_ADDING: Final = 40
"""Units of work for an entry, beside those of finding out its value."""

_WHILES: Final = 3

Slots = int | list[int]
"""One position, or several in order."""


class _UnsureError(AbortedError):
    """The value of a path is a template, or lies behind one."""


class _Probe(Walker):
    """Walks documents without resolving anything in them, except values resolved for all alike."""

    def __init__(self, shared: Shared, spend: Callable[[int], None]) -> None:
        self._shared = shared
        self._spend = spend

    def spend(self, work: int) -> None:
        self._spend(work)

    def settle(self, value: Any, where: Where) -> Any:
        if not references.may_refer(value):
            return value
        place = cast("Place", where)
        if place.size > MAX_PLACE:
            raise _UnsureError
        self.spend(place.size)
        kept = self._shared.values.get((id(place.owner.document), place.text))
        if kept is None:
            raise _UnsureError
        return kept.value if kept.failure is None else None

    def whole(self, value: Any, where: Where | None) -> Any:
        if where is not None:
            raise _UnsureError
        return value


class _Values:
    """Positions of documents by the value of one path in them."""

    __slots__ = ("done", "truths", "unsure", "values", "whiles")

    def __init__(self) -> None:
        self.done = 0
        """Entries of the index that were looked at."""
        self.values: dict[str | int | float, Slots] = {}
        self.truths: dict[bool, Slots] = {}
        self.unsure: list[tuple[int, Found]] = []
        self.whiles = _WHILES
        """Times that unsure entries are still looked at again: most of them are known after some time."""

    def add(self, slot: int, value: object) -> None:
        match value:
            case bool():
                _put(self.truths, value, slot)
            case str() if len(value) <= MAX_PATH:
                _put(self.values, value, slot)
            case int() | float():
                _put(self.values, value, slot)

    def fitting(self, query: PathQuery) -> Iterator[Slots]:
        yield self.values.get(query.value, [])
        if query.number is not None:
            yield self.values.get(query.number, [])
        if query.value in {"true", "false"}:
            yield self.truths.get(query.value == "true", [])
        yield [slot for slot, _ in self.unsure]


def _put(places: dict[Any, Slots], key: object, slot: int) -> None:
    slots = places.setdefault(key, slot)
    if isinstance(slots, list):
        if slot > slots[-1]:
            slots.append(slot)
        else:
            insort(slots, slot)
    elif slots != slot:
        places[key] = [slots, slot] if slots < slot else [slot, slots]


class DocumentIndex:
    """Documents, each at a position, by the values of queried paths in them.

    Args:
        shared: what the build keeps.
    """

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._entries: list[tuple[int, Found]] = []
        self._paths: dict[Path, _Values] = {}

    def add(self, slot: int, found: Found) -> None:
        """Add a document at a position, beside those that are there already."""
        self._entries.append((slot, found))

    def candidates(self, query: PathQuery, spend: Callable[[int], None]) -> Iterable[int]:
        """Return positions of documents for which ``query``, a comparison for equality, may hold.

        Args:
            query: the query.
            spend: function that is called with the work before it is done; if it raises, finished work is
                kept.

        Returns:
            Positions in order, each once; not to be iterated while documents are added.
        """
        values = self._paths.pop(query.path, None) or _Values()
        self._paths[query.path] = values
        if len(self._paths) > MAX_PATHS:
            del self._paths[next(iter(self._paths))]
        probe = _Probe(self._shared, spend)
        if values.unsure and values.whiles:
            values.whiles -= 1
            before, still = values.unsure, []
            for slot, found in before:
                if not self._look(query, slot, found, values, probe):
                    still.append((slot, found))
            values.unsure = still
        while values.done < len(self._entries):
            slot, found = self._entries[values.done]
            if not self._look(query, slot, found, values, probe):
                insort(values.unsure, (slot, found), key=_slot)
            values.done += 1
        lists = [[slots] if isinstance(slots, int) else slots for slots in values.fitting(query)]
        spend(_ADDING * len(lists) + sum(map(len, lists)))
        copies = [slots.copy() for slots in lists if slots]
        return _once(copies[0] if len(copies) == 1 else merge(*copies))

    def _look(self, query: PathQuery, slot: int, found: Found, values: _Values, probe: _Probe) -> bool:
        """Put a document where it belongs; return whether that is known."""
        probe.spend(_ADDING)
        where: Place | None = None
        if found.definition:
            probe.spend(fields_work(found.document))
            where = Place.of(self._shared.owner(found.document))
        try:
            value, place = probe.walk(query.path, found.document, where)
            if place is not None and isinstance(value, str):
                value = probe.settle(value, place)
        except _UnsureError:
            return False
        values.add(slot, value)
        return True


def _slot(one: tuple[int, Found]) -> int:
    return one[0]


def _once(slots: Iterable[int]) -> Iterator[int]:
    before: int | None = None
    for slot in slots:
        if slot != before:
            before = slot
            yield slot
