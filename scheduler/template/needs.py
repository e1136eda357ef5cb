"""Which components a reference can touch, through definitions in turn; and which one was perhaps meant."""

from collections.abc import Iterable
from difflib import get_close_matches
from itertools import islice
from typing import Any
from unicodedata import combining, normalize

from scheduler.errors import TemplateError
from scheduler.template import references
from scheduler.template.places import Owner, Place
from scheduler.template.references import Syntax, Target, Text
from scheduler.template.scopes import Scope


def needed(targets: Iterable[Target], scope: Scope, syntax: Syntax) -> frozenset[str]:
    """Every id that following ``targets`` can touch, as far as ids are constant."""
    ids: set[str] = set()
    todo = list(targets)
    seen: set[tuple[int, str]] = set()
    while todo:
        target = todo.pop()
        if target.id is None:
            continue
        ids.add(target.id)
        found = scope.find(target.id)
        if found is not None and found.definition:
            todo.extend(_behind(Owner(found.document), target.keys, syntax, seen))
    return frozenset(ids)


def _behind(
    owner: Owner, keys: tuple[str | int, ...], syntax: Syntax, seen: set[tuple[int, str]]
) -> Iterable[Target]:
    """The references in what ``keys`` lead to within a definition, those to its own fields followed."""
    todo = [keys]
    while todo:
        for text in _texts_below(owner, todo.pop(), syntax, seen):
            for target in text.targets():
                if target.root == "component":
                    todo.append(target.keys)
                else:
                    yield target


def _texts_below(
    owner: Owner, keys: tuple[str | int, ...], syntax: Syntax, seen: set[tuple[int, str]]
) -> Iterable[Text]:
    """The templates that are met on the way along ``keys``, or within what they lead to."""
    value: Any = owner.document
    where: Place | None = Place.of(owner)
    for key in keys:
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
        if isinstance(value, dict):
            todo.extend((item, where.child(key)) for key, item in value.items() if not _is_plain(item))
        elif isinstance(value, list):
            todo.extend((item, where.child(index)) for index, item in enumerate(value) if not _is_plain(item))
        elif isinstance(value, str) and references.may_refer(value):
            place = (id(owner.document), where.text)
            if place in seen:
                continue
            seen.add(place)
            try:
                text = references.read(value, syntax)
            except TemplateError:
                continue  # Whoever renders it is told so.
            if text is not None:
                yield text


def _is_plain(value: object) -> bool:
    return not isinstance(value, dict | list) and not (isinstance(value, str) and references.may_refer(value))


_CANDIDATES = 500
"""Ids that a mistyped one is compared with: some milliseconds."""


def suggestion(name: str, ids: Iterable[str]) -> str:
    """``; did you mean 'x'?``, if there is something like it, with the difference where it cannot be seen."""
    ids = list(ids)
    same = _composed_otherwise(name, ids)
    if same is not None:
        return f"; did you mean '{same}'? It reads the same, but has {_difference(same, name)}"
    kind = name[:3]
    like = (one for one in ids if abs(len(one) - len(name)) <= 4 and one[:3] == kind)
    found = get_close_matches(name, islice(like, _CANDIDATES), n=1, cutoff=0.75)
    return f"; did you mean '{found[0]}'?" if found else ""


def _composed_otherwise(name: str, ids: Iterable[str]) -> str | None:
    """The id that differs only in how its letters are composed: U+00FC, or u and U+0308."""
    whole = normalize("NFC", name)
    plain = name.isascii()
    for one in ids:
        if (not plain or not one.isascii()) and normalize("NFC", one) == whole:
            return one
    return None


def _difference(there: str, here: str) -> str:
    """The first letter that is composed otherwise in two texts that read the same."""
    letters = zip(_letters(there), _letters(here), strict=False)
    one, other = next(((one, other) for one, other in letters if one != other), (there, here))
    return f"{_points(one)} where this has {_points(other)}"


def _points(letter: str) -> str:
    return " ".join(f"U+{ord(point):04X}" for point in letter)


def _letters(text: str) -> list[str]:
    """``text`` cut apart before each letter: what is only put on a letter stays with it."""
    letters: list[str] = []
    for point in text:
        if letters and combining(point):
            letters[-1] += point
        else:
            letters.append(point)
    return letters
