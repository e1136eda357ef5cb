"""Needs: the components that a reference can touch, also through definitions; and the id that was meant."""

from collections.abc import Callable, Iterable, Iterator
from difflib import get_close_matches
from itertools import islice
from typing import Any
from unicodedata import combining, normalize

from scheduler.definition.places import MAX_PLACE, Owner, Place, fields_work
from scheduler.definition.template import references
from scheduler.definition.template.references import Syntax, Text
from scheduler.definition.template.scopes import Scope
from scheduler.definition.template.work import AbortedError, free
from scheduler.errors import TemplateError

_PER_TARGET = 80
_PER_ITEM = 24
_PER_TEXT = 80
"""Units of work for following a reference, for each step on the way, and for a text that may refer."""

Spot = tuple[str, tuple[str | int, ...]]
"""Target of a reference: a component, and the keys from there."""


class Needs:
    """Components that the references of one build can touch by constant ids, each found out once.

    The target of a reference may refer further, and thousands of references may begin with the same target.
    So the sets of all reachable components are made from the ends, and a circle of references has one set for
    all of it.

    Args:
        scope: the submitted build.
        syntax: valid forms of references.
        wanted: function that says whether an id is of interest; nothing is kept of all others.
        spend: function that is called with the work before it is done.
    """

    def __init__(
        self,
        scope: Scope,
        syntax: Syntax,
        wanted: Callable[[str], bool],
        spend: Callable[[int], None] = free,
    ) -> None:
        self._scope = scope
        self._syntax = syntax
        self._wanted = wanted
        self._spend = spend
        self._leads_on: dict[str, bool] = {}
        self._reached: dict[Spot, int] = {}
        """Bit set of the wanted ids that are reachable from each spot."""
        self._bits: dict[str, int] = {}
        self._ids: list[str] = []

    def of(self, spots: Iterable[Spot]) -> list[str]:
        """Return every wanted id that following references to ``spots`` can touch."""
        ids: dict[str, None] = {}
        bits = 0
        for spot in spots:
            name = spot[0]
            leads_on = self._leads_on.get(name)
            if leads_on is None:
                self._spend(_PER_TARGET)
                found = self._scope.find(name)
                leads_on = self._leads_on[name] = found is not None and found.definition
            if leads_on:
                self._spend(_PER_TARGET)
                if spot not in self._reached:
                    self._reach(spot)
                bits |= self._reached[spot]
            elif self._wanted(name):
                ids[name] = None
        while bits:
            self._spend(_PER_TARGET)
            lowest = bits & -bits
            ids[self._ids[lowest.bit_length() - 1]] = None
            bits ^= lowest
        return list(ids)

    def _reach(self, first: Spot) -> None:
        """Find everything reachable from ``first``, and from every spot behind it (Tarjan's algorithm)."""
        numbers: dict[Spot, int] = {}
        lowest: dict[Spot, int] = {}
        bits: dict[Spot, int] = {}
        open_: list[Spot] = []
        path: list[tuple[Spot, Iterator[Spot]]] = []

        def enter(spot: Spot) -> None:
            numbers[spot] = lowest[spot] = len(numbers)
            bits[spot] = self._bit(spot[0])
            open_.append(spot)
            path.append((spot, iter(self._behind(spot))))

        enter(first)
        while path:
            spot, following = path[-1]
            self._spend(_PER_TARGET + len(self._ids) // 64)
            after = next(following, None)
            if after is None:
                path.pop()
                if lowest[spot] == numbers[spot]:
                    circle = [open_.pop()]
                    while circle[-1] != spot:
                        circle.append(open_.pop())
                    every = 0
                    for one in circle:
                        every |= bits[one]
                    for one in circle:
                        self._reached[one] = every
                if path:
                    before = path[-1][0]
                    lowest[before] = min(lowest[before], lowest[spot])
                    bits[before] |= bits[spot]
            elif after in self._reached:
                bits[spot] |= self._reached[after]
            elif after in numbers:
                lowest[spot] = min(lowest[spot], numbers[after])
            else:
                enter(after)

    def _bit(self, id: str) -> int:  # noqa: A002 - the word of the model
        if not self._wanted(id):
            return 0
        bit = self._bits.get(id)
        if bit is None:
            bit = self._bits[id] = 1 << len(self._ids)
            self._ids.append(id)
        return bit

    def _behind(self, spot: Spot) -> list[Spot]:
        """Return the targets of the definition at ``spot``, its references to its own fields followed."""
        found = self._scope.find(spot[0])
        if found is None or not found.definition:
            return []
        self._spend(fields_work(found.document))
        shared = self._scope.shared
        owner = Owner(found.document) if shared is None else shared.owner(found.document)
        seen: set[str] = set()
        spots: dict[Spot, None] = {}
        todo = [spot[1]]
        while todo:
            for text in self._texts_below(owner, todo.pop(), seen):
                for target in text.targets():
                    self._spend(_PER_TARGET)
                    if target.root == "component":
                        todo.append(target.keys)
                    elif target.id is not None:
                        spots[target.id, target.keys] = None
        return list(spots)

    def _texts_below(self, owner: Owner, keys: tuple[str | int, ...], seen: set[str]) -> Iterable[Text]:
        """Yield the templates on the way along ``keys``, and within the value that they lead to."""
        value: Any = owner.document
        where: Place | None = Place.of(owner)
        for key in keys:
            self._spend(_PER_ITEM)
            if where is None:
                return
            if isinstance(value, dict) and key in value:
                value = value[key]
            elif isinstance(value, list) and str(key).isdecimal() and int(key) < len(value):
                value = value[int(key)]
            else:
                break
            where = where.child(key)
        todo: list[tuple[Any, Place | None]] = [(value, where)]
        while todo:
            value, where = todo.pop()
            if where is None:
                continue
            if isinstance(value, dict | list):
                self._spend(_PER_ITEM * (1 + len(value)))
                items: Iterable[tuple[Any, Any]] = (
                    value.items() if isinstance(value, dict) else enumerate(value)
                )
                todo.extend((item, where.child(key)) for key, item in items if not _is_plain(item))
            elif isinstance(value, str) and references.may_refer(value) and where.size <= MAX_PLACE:
                self._spend(_PER_TEXT + where.size)
                if where.text in seen:
                    continue
                seen.add(where.text)
                try:
                    text = references.read(value, self._syntax, self._spend)
                except AbortedError:
                    raise
                except TemplateError:
                    continue  # Reported when it is rendered.
                if text is not None:
                    yield text


def _is_plain(value: object) -> bool:
    return not isinstance(value, dict | list) and not (isinstance(value, str) and references.may_refer(value))


_LONGEST = 200
"""Most characters of an id for which a similar one is searched."""
_PAIRS = 100_000
"""Pairs of letters that are compared for that: some milliseconds."""
_LETTERS = 100_000
"""Letters that are composed again for that."""


def suggestion(name: str, ids: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?`` if there is something similar, with a difference that cannot be seen."""
    if len(name) > _LONGEST:
        return ""
    ids = list(ids)
    same = _composed_otherwise(name, ids)
    if same is not None:
        return f"; did you mean '{same}'? It reads the same, but has {_difference(same, name)}"
    kind = name[:3]
    like = (one for one in ids if abs(len(one) - len(name)) <= 4 and one[:3] == kind)
    candidates = islice(like, 1 + _PAIRS // (1 + len(name) * len(name)))
    found = get_close_matches(name, candidates, n=1, cutoff=0.75)
    return f"; did you mean '{found[0]}'?" if found else ""


def _composed_otherwise(name: str, ids: Iterable[str]) -> str | None:
    """Return the id that differs only in the composition of its letters: U+00FC, or u and U+0308."""
    whole = normalize("NFC", name)
    plain = name.isascii()
    # If a plain letter follows the first one, no other letter is composed with the first one.
    first = name[:1] if name[:2].isascii() else ""
    left = _LETTERS
    for one in ids:
        if (not plain or not one.isascii()) and one.startswith(first) and len(one) <= 4 * len(name):
            left -= len(one)
            if left < 0:
                break
            if normalize("NFC", one) == whole:
                return one
    return None


def _difference(there: str, here: str) -> str:
    """Return the first letter that is composed differently in two texts that read the same."""
    letters = zip(_letters(there), _letters(here), strict=False)
    one, other = next(((one, other) for one, other in letters if one != other), (there, here))
    return f"{_points(one)} where this has {_points(other)}"


def _points(letter: str) -> str:
    return " ".join(f"U+{ord(point):04X}" for point in letter)


def _letters(text: str) -> list[str]:
    """Split ``text`` before each letter: marks stay with their letter."""
    letters: list[str] = []
    for point in text:
        if letters and combining(point):
            letters[-1] += point
        else:
            letters.append(point)
    return letters
