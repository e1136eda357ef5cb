"""Splitting of a large build, or its report, into its fields and the elements of its lists.

One call of the decoder holds the interpreter from beginning to end: 0.2 s for a report of 70 MB, in a thread
as well. So a list is cut where an element seems to end, at about every 128 KiB, and the decoder judges each
cut: what stands from the beginning of an element up to a brace is a number of whole elements if, and only if,
it is a list with brackets around it. A cut inside a text or an object fails, and another one is made further
on.
"""

import re
from collections.abc import Mapping
from typing import Final

import msgspec
from attrs import field, frozen

from scheduler.definition.converter import LISTS
from scheduler.definition.strictjson import Raw, split_list, split_object
from scheduler.errors import InvalidJSON
from scheduler.runtime.yielding import yield_now

PIECE: Final = 128 * 1024
"""Bytes that are split at a time: a fraction of a millisecond."""
_SMALL: Final = 1024 * 1024
"""Bytes up to which a document is split in one go: two milliseconds."""
_MOST_GUESSES: Final = 100
"""Wrong beginnings of lists after which a document is split in one go."""
_TRIES: Final = 32
"""Wrong ends of elements after which they are looked for further and further away."""
_LONGEST_NAME: Final = 100
"""Bytes of the first name of an element that is looked for again."""
_MARKS: Final = {name: b'"%b":[' % name.encode() for name in LISTS}
_TRAILING: Final = re.compile(r"trailing characters \(byte ([0-9]+)\)")
_decode_list = msgspec.json.Decoder(list[Raw]).decode


@frozen
class SplitBuild:
    """Build, or its report, as JSON text in parts."""

    fields: Mapping[str, Raw] = field(repr=False)
    """Fields of the build itself; a list that is null stands here."""
    lists: Mapping[str, list[Raw]] = field(repr=False)
    """Elements of ``components``, ``changes`` and ``edges``, in this order; only of those that it has."""
    size: int
    """Bytes of the whole."""


class _Unusual(Exception):
    """The text is no JSON, or written in another way than ours."""


def split_build(data: bytes, small: int = _SMALL) -> SplitBuild:
    """Split a build or its report; for a thread, unless it is small.

    Args:
        data: its JSON.
        small: bytes up to which it is split in one go.

    Raises:
        InvalidJSON: it is not a JSON object, or something else than a list stands for a list.
    """
    fields: dict[str, Raw] = {}
    lists: dict[str, list[Raw]] = {}
    try:
        if len(data) > small:
            _split_in_pieces(data, fields, lists)
    except (_Unusual, InvalidJSON):
        fields, lists = {}, {}
    if not fields and not lists:
        fields = split_object(data)
    for name in LISTS:
        raw = fields.get(name)
        if raw is not None and bytes(memoryview(raw)[:4]) != b"null":
            lists[name] = split_list(fields.pop(name))
    return SplitBuild(fields, {name: lists[name] for name in LISTS if name in lists}, len(data))


def _split_in_pieces(data: bytes, fields: dict[str, Raw], lists: dict[str, list[Raw]]) -> None:
    """Split a document that is written without spaces between its lists and their names.

    Raises:
        _Unusual, InvalidJSON: it is not.
    """
    at = begin = data.find(b"{") + 1
    guesses = 0
    while (found := _next_list(data, at)) is not None:
        name, start, at = found
        try:
            # A name that stands inside another object, or in a text, leaves something open before it.
            fields |= _members(data[begin:start], first=not lists)
        except (_Unusual, InvalidJSON):
            guesses += 1
            if guesses == _MOST_GUESSES:
                raise
            continue
        if name in lists:
            raise _Unusual
        lists[name], at = _elements(data, at)
        begin = at
    end = data.rstrip()
    if not end.endswith(b"}") or data[: data.find(b"{")].strip():
        raise _Unusual
    fields |= _members(data[begin : len(end) - 1] + b",", first=not lists)


def _next_list(data: bytes, at: int) -> tuple[str, int, int] | None:
    """Return the name of the next list, where that begins, and where its elements do; None without one."""
    for start in range(at, len(data), PIECE):
        yield_now()
        found = [
            (place, name)
            for name, mark in _MARKS.items()
            if (place := data.find(mark, start, start + PIECE + len(mark))) >= 0
        ]
        if found:
            place, name = min(found)
            return name, place, place + len(_MARKS[name])
    return None


def _members(text: bytes, *, first: bool) -> dict[str, Raw]:
    """Return the members in a part of an object: it ends with a comma, and begins with one if not first."""
    text = text.strip()
    if not first:
        if not text.startswith(b","):
            raise _Unusual
        text = text[1:]
    if not text:
        return {}
    if not text.endswith(b",") or text == b",":
        raise _Unusual
    return split_object(b"{%b}" % text[:-1])


def _elements(data: bytes, at: int) -> tuple[list[Raw], int]:
    """Return the elements of the list whose first one begins at ``at``, and the place behind the list.

    Raises:
        _Unusual: the list does not end.
    """
    elements: list[Raw] = []
    size, failed = PIECE, 0
    while True:
        yield_now()
        cut = _cut(data, at, at + size)
        end = cut + 1 if cut >= 0 else min(at + size + PIECE, len(data))
        text = b"[%b]" % data[at:end]
        try:
            some = _decode_list(text)
        except msgspec.DecodeError as error:
            if (trailing := _TRAILING.search(str(error))) is not None:
                # The list has ended before.
                close = text.rfind(b"]", 0, int(trailing[1]) - 1)
                return elements + _last(text[: close + 1]), at + close
        else:
            if cut >= 0:
                elements += some
                at, size, failed = cut + 2, PIECE, 0
                continue
        if end == len(data):
            raise _Unusual
        # The next one is mostly close; but within an element of megabytes all of them are wrong.
        failed += 1
        size = end - at + 2 ** max(0, failed - _TRIES)


def _cut(data: bytes, at: int, after: int) -> int:
    """Return the place of a brace at which an element may end; negative if there is none near.

    Args:
        data: the document.
        at: beginning of an element: most begin with the same name, and lists inside of them with another one.
        after: place behind which to look.
    """
    colon = data.find(b":", at, at + _LONGEST_NAME)
    found = -1
    if colon > 0:
        found = data.find(b"},%b" % data[at : colon + 1], after, after + PIECE)
    return found if found >= 0 else data.find(b'},{"', after, after + PIECE)


def _last(text: bytes) -> list[Raw]:
    try:
        return _decode_list(text)
    except msgspec.DecodeError:
        raise _Unusual from None
