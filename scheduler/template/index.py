"""Components by what stands in them, so that a query over all of them need not look at each.

The index says which components may fit, never that one does: whoever asks looks at those. So it may hold
what was there once, and what may turn out to be anything (a string that is a template itself).
"""

from bisect import insort
from collections.abc import Callable, Iterable, Iterator, Mapping
from heapq import merge
from typing import Any, Final

from scheduler.template import references
from scheduler.template.paths import MAX_PATH, Path, Query, Walker, Where
from scheduler.template.places import Owner, Place, fields_work
from scheduler.template.scopes import Found
from scheduler.template.work import AbortedError

MAX_PATHS: Final = 4
"""Paths of queries that are indexed at a time."""
_ADDING: Final = 40
"""Work for an entry, beside that of finding out what it is."""

Slots = int | list[int]
"""One position, or several in order."""


class _UnsureError(AbortedError):
    """What a path leads to is a template, or goes through one."""


class _Probe(Walker):
    """Walks documents without resolving anything in them."""

    def __init__(self, spend: Callable[[int], None]) -> None:
        self._spend = spend

    def spend(self, work: int) -> None:
        self._spend(work)

    def settle(self, value: Any, where: Where) -> Any:  # noqa: ARG002
        if references.may_refer(value):
            raise _UnsureError
        return value

    def whole(self, value: Any, where: Where | None) -> Any:
        if where is not None:
            raise _UnsureError
        return value


class _Values:
    """Positions of documents by what one path leads to in them."""

    __slots__ = ("done", "truths", "unsure", "values")

    def __init__(self) -> None:
        self.done = 0
        """Entries of the index that were looked at."""
        self.values: dict[str | int | float, Slots] = {}
        self.truths: dict[bool, Slots] = {}
        self.unsure: list[int] = []

    def add(self, slot: int, value: object) -> None:
        match value:
            case bool():
                _put(self.truths, value, slot)
            case str() if len(value) <= MAX_PATH:
                _put(self.values, value, slot)
            case int() | float():
                _put(self.values, value, slot)

    def fitting(self, query: Query) -> Iterator[Slots]:
        yield self.values.get(query.value, [])
        if query.number is not None:
            yield self.values.get(query.number, [])
        if query.value in {"true", "false"}:
            yield self.truths.get(query.value == "true", [])
        yield self.unsure


def _put(places: dict[Any, Slots], key: object, slot: int) -> None:
    slots = places.setdefault(key, slot)
    if isinstance(slots, list):
        if slot > slots[-1]:
            slots.append(slot)
        else:
            insort(slots, slot)
    elif slots != slot:
        places[key] = [slots, slot] if slots < slot else [slot, slots]


class Index:
    """Documents, each at a position, by what the paths of queries lead to in them.

    Args:
        owner: The owner of a submitted document.
    """

    def __init__(self, owner: Callable[[Mapping[str, Any]], Owner]) -> None:
        self._owner = owner
        self._entries: list[tuple[int, Found]] = []
        self._paths: dict[Path, _Values] = {}

    def add(self, slot: int, found: Found) -> None:
        """Another document at a position, beside those that are there already."""
        self._entries.append((slot, found))

    def candidates(self, query: Query, spend: Callable[[int], None]) -> Iterable[int]:
        """Positions at which the comparison of ``query``, for equality, may hold for one of the documents.

        Args:
            query: Which.
            spend: Is told of the work before it is done; whatever it raises, what was done is kept.

        Returns:
            Positions in order, each once; not to be gone through while documents are added.
        """
        values = self._paths.pop(query.path, None) or _Values()
        self._paths[query.path] = values
        if len(self._paths) > MAX_PATHS:
            del self._paths[next(iter(self._paths))]
        probe = _Probe(spend)
        while values.done < len(self._entries):
            slot, found = self._entries[values.done]
            spend(_ADDING)
            where: Place | None = None
            if found.definition:
                spend(fields_work(found.document))
                where = Place.of(self._owner(found.document))
            try:
                value, place = probe.walk(query.path, found.document, where)
                if place is not None and isinstance(value, str):
                    value = probe.settle(value, place)
                values.add(slot, value)
            except _UnsureError:
                insort(values.unsure, slot)
            values.done += 1
        lists = [[slots] if isinstance(slots, int) else slots for slots in values.fitting(query)]
        spend(_ADDING * len(lists) + (sum(map(len, lists)) >> 3))
        copies = [slots.copy() for slots in lists if slots]
        return _once(copies[0] if len(copies) == 1 else merge(*copies))


def _once(slots: Iterable[int]) -> Iterator[int]:
    before: int | None = None
    for slot in slots:
        if slot != before:
            before = slot
            yield slot
