"""Lines of a build's file at which its values stand, found by their places: ``changes[3]._provider``.

They are looked for when there is something to say, never before: a valid build costs nothing.
"""

import json
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from attrs import define, field

_IN_A_LIST: Final = re.compile(r"(?:changes|components|edges)(?:\[|\Z)")
_SCAN: Final = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=str).raw_decode
"""Reads a value, and tells where it ends; numbers may be of any length."""
_WHITE: Final = re.compile(r"[ \t\n\r]*+")
_INDEX: Final = re.compile(r"\[([0-9]{1,9})\]")
_SEPARATOR: Final = re.compile(r"[.\[]|\Z")


class _Member(NamedTuple):
    """A member of an object, or an element of a list, by offsets in the text."""

    begin: int
    """Offset of its key; of an element, where it begins."""
    value: int
    """Offset of its value."""


class Lines:
    """Finder of lines in a document.

    Args:
        text: the document as JSON; it must be valid.
        marks: offsets in ``text``, in bytes, with the lines that count there; None: those of the text itself.
    """

    def __init__(self, text: bytes, marks: tuple[Sequence[int], Sequence[int]] | None = None) -> None:
        self._bytes = text
        self._marks = marks
        self._known: _Document | None = None

    def of(self, place: str) -> int | None:
        """Return the line of a place, from 1; that of what it would stand in if there is nothing there.

        Args:
            place: as in `errors.Problem`: a path in the build, or a component's id and a path in it.
        """
        if not place:
            return None
        if self._known is None:
            try:
                self._known = _Document(self._bytes.decode())
            except (ValueError, RecursionError, StopIteration):
                # It is no build, or not even JSON: the message has its own place.
                self._known = _Document("{}")
        at = self._known.find(place)
        return None if at is None else self._line(at)

    def _line(self, at: int) -> int:
        assert self._known is not None
        text = self._known.text
        if self._marks is None:
            return text.count("\n", 0, at) + 1
        offsets, lines = self._marks
        inside = at if text.isascii() else len(text[:at].encode())
        return lines[bisect_right(offsets, inside) - 1]


@define(eq=False)
class _Document:
    text: str
    _members: dict[int, dict[str | int, _Member]] = field(factory=dict)
    """Members of the lists and objects that were looked into, by their offsets."""
    _places: dict[str, tuple[str, int]] = field(factory=dict)
    """List and position of each component, by its id."""
    _root: int = 0

    def __attrs_post_init__(self) -> None:
        self._root = _skip(self.text, 0)
        document, _ = _SCAN(self.text, self._root)
        for name in ("components", "changes"):
            elements = document.get(name) if isinstance(document, Mapping) else None
            for position, one in enumerate(elements if isinstance(elements, list) else ()):
                id_ = one.get("_component_id") if isinstance(one, dict) else None
                if isinstance(id_, str):
                    self._places[id_] = name, position

    def find(self, place: str) -> int | None:
        """Return the offset of a place; None if not even its beginning is there."""
        if _IN_A_LIST.match(place):
            return self._down(self._root, place)
        for end in reversed([*_ends(place)]):
            if (known := self._places.get(place[:end])) is not None:
                return self._down(self._root, f"{known[0]}[{known[1]}]{place[end:]}")
        return self._down(self._root, place)

    def _down(self, at: int, rest: str) -> int | None:
        found: int | None = None
        while rest:
            members = self._look_into(at)
            index = _INDEX.match(rest)
            key: str | int | None
            if index is not None and int(index[1]) in members:
                key, rest = int(index[1]), rest[index.end() :]
            else:
                rest = rest.removeprefix(".")
                # A key may have a dot in it.
                key = next((rest[:end] for end in _ends(rest) if rest[:end] in members), None)
                if key is None:
                    break
                assert isinstance(key, str)
                rest = rest[len(key) :]
            found, at = members[key]
        return found

    def _look_into(self, at: int) -> dict[str | int, _Member]:
        if at not in self._members:
            self._members[at] = dict(_members(self.text, at))
        return self._members[at]


def _ends(text: str) -> Iterator[int]:
    """Yield where a key at the beginning of ``text`` may end, the shortest one first."""
    return (found.start() for found in _SEPARATOR.finditer(text) if found.start())


def _skip(text: str, at: int) -> int:
    found = _WHITE.match(text, at)
    return at if found is None else found.end()


def _members(text: str, at: int) -> Iterator[tuple[str | int, _Member]]:
    """Yield the members of the object, or the elements of the list, that begins at ``at``."""
    opened = text[at]
    if opened not in "{[":
        return
    at, position = _skip(text, at + 1), 0
    while text[at] not in "}]":
        begin, key = at, position
        name: Any = key
        if opened == "{":
            name, at = _SCAN(text, at)
            at = _skip(text, _skip(text, at) + 1)
        yield name, _Member(begin, at)
        _, at = _SCAN(text, at)
        at, position = _skip(text, at), position + 1
        if text[at] == ",":
            at = _skip(text, at + 1)
