"""Paths into JSON, in the grammar of gjson 1.0 (WIRE: "References"), and walking them.

::

    name.first               keys; a backslash makes the next character an ordinary one
    children.1               an index, where there is an array
    children.#               the length of an array
    friends.#.first          of each element that has it: an array
    friends.#[last="x"].age  the first element for which the comparison holds; == != < <= > >= % as well
    friends.#[age>40]#.name  of all of them: an array, empty if none has it; nothing at all if there are none
    fri*.?                   the first key that matches and leads to something

A path is text from outside: its length and its parts are limited, and so is the work of walking it, for which
the `Walker` accounts. Nothing here backtracks.

One file on purpose: the grammar of a path, and the rules for walking it, are read side by side.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from itertools import chain
from typing import Any, Final, Literal, NamedTuple, Protocol, TypeAlias, TypeVar

from scheduler.definition.template.patterns import Pattern
from scheduler.definition.template.work import AbortedError, free
from scheduler.errors import TemplateError

MAX_PATH = 2048
"""Most characters of a path: four of the longest ids."""
MAX_SEGMENTS = 64

_STEPS = 4
"""Parts of a path that are paid for at a time."""
_PER_STEPS = 32
_PER_STEPS_WITH_PLACES = 80
_PER_ELEMENT = 32
"""Units of work for each element that is looked at."""
_PER_PLACE = 24
"""Units of work for each element whose place is kept."""
_READING_A_PART = 100
_READING_A_CHARACTER = 8
"""Units of work for reading a character of a path."""


class Mark(Enum):
    """Values that no JSON has."""

    EACH = "#"
    MISSING = "missing"


EACH: Final = Mark.EACH
MISSING: Final = Mark.MISSING


class PathQuery(NamedTuple):
    """``#[path op value]``, with ``#`` after it if it asks for all."""

    path: "Path"
    operator: str
    value: str
    number: int | float | None
    """The value, if it can be read as a number."""
    pattern: Pattern | None
    every: bool


Segment: TypeAlias = "str | Pattern | PathQuery | Literal[Mark.EACH]"
Path: TypeAlias = "tuple[Segment, ...]"

# Possessive throughout: text that was read is never read again in another way.
_KEY = re.compile(r"(?:[^.\\]++|\\.)*+", re.DOTALL)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_QUERY = re.compile(
    r"""\#\[ \s*+ (?P<path>[^\s!=<>%\]]*+) \s*+ (?P<operator>==|!=|<=|>=|=|<|>|%) \s*+
    (?: "(?P<quoted>(?:[^"\\]++|\\.)*+)" \s*+ | (?P<bare>[^"\]][^\]]*+)?+ )
    \] (?P<every>\#?+) (?=\.|\Z)""",
    re.DOTALL | re.VERBOSE,
)
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")


def parse(text: str, spend: Callable[[int], None] = free) -> Path:
    """Split a path into its parts.

    Args:
        text: the path as a user wrote it.
        spend: function that is called with the work before it is done.

    Raises:
        TemplateError: it cannot be read, or is over a limit.
    """
    if len(text) > MAX_PATH:
        raise TemplateError(f"a path of {len(text)} characters; the limit is {MAX_PATH}")
    parts = min(text.count(".") + text.count("["), 2 * MAX_SEGMENTS)
    spend(_READING_A_PART * (2 + parts) + _READING_A_CHARACTER * len(text))
    return _parse(text)


def _parse(text: str) -> Path:
    segments: list[Segment] = []
    segment: Segment
    at = 0
    while True:
        if text.startswith("#[", at):
            segment, at = _parse_query(text, at)
        else:
            segment, at = _parse_key(text, at)
        segments.append(segment)
        if len(segments) > MAX_SEGMENTS:
            raise TemplateError(f"a path of more than {MAX_SEGMENTS} parts")
        if at == len(text):
            return tuple(segments)
        at += 1


def _parse_key(text: str, at: int) -> tuple[Segment, int]:
    found = _KEY.match(text, at)
    assert found is not None
    key, end = found[0], found.end()
    if end < len(text) and text[end] == "\\":
        raise TemplateError("a path that ends in a single backslash")
    if key == "#":
        return EACH, end
    plain = _ESCAPE.sub("", key) if "\\" in key else key
    if "*" in plain or "?" in plain:
        return Pattern(key), end
    return _ESCAPE.sub(r"\1", key) if "\\" in key else key, end


def _parse_query(text: str, at: int) -> tuple[PathQuery, int]:
    found = _QUERY.match(text, at)
    if found is None:
        raise TemplateError(f'a query that cannot be read at character {at + 1}; it is #[key="value"]')
    if not found["path"]:
        raise TemplateError(f"a query that names no key at character {at + 1}")
    quoted = found["quoted"]
    written = (found["bare"] or "").rstrip() if quoted is None else quoted
    value = written if quoted is None or "\\" not in written else _ESCAPE.sub(r"\1", written)
    operator = found["operator"].replace("==", "=")
    pattern = Pattern(written) if operator == "%" else None
    query = PathQuery(_parse(found["path"]), operator, value, _number(value), pattern, found["every"] == "#")
    return query, found.end()


def _number(text: str) -> int | float | None:
    found = _NUMBER.fullmatch(text)
    if found is None:
        return None
    return int(text) if found[1] is None and found[2] is None else float(text)


def cost(path: Path) -> int:
    """Return the number of nodes of a path, including those of its queries."""
    return sum(1 + cost(part.path) if isinstance(part, PathQuery) else 1 for part in path)


def shown(path: Path) -> str:
    """Return ``path`` for a message, much as it was written."""
    return ".".join(_shown(part) for part in path)


def _shown(part: Segment) -> str:
    match part:
        case str():
            return part
        case Pattern():
            return part.text
        case PathQuery():
            return f'#[{shown(part.path)}{part.operator}"{part.value}"]{"#" if part.every else ""}'
    return "#"


class Where(Protocol):
    """The place of a value below which strings may be templates."""

    def child(self, key: str | int) -> "Where | None":
        """Return the place of the value under ``key``; None if it is plain data."""
        ...


class Elements:
    """An array whose elements come from several places, each with its own; made when it is looked at."""

    __slots__ = ("_make", "_pairs")

    def __init__(self, make: "Callable[[], Sequence[Place]]") -> None:
        self._make = make
        self._pairs: Sequence[Place] | None = None

    @property
    def pairs(self) -> "Sequence[Place]":
        """Elements, each with its place."""
        if self._pairs is None:
            self._pairs = self._make()
        return self._pairs


Place: TypeAlias = "tuple[Any, Where | None]"
_T = TypeVar("_T", int, float, str)


class Walker:
    """Walks paths over plain JSON. If parts of it may be templates, a subclass resolves them."""

    def spend(self, work: int) -> None:
        """Account for work that an author of templates causes; raise if it is too much."""

    def settle(self, value: Any, where: Where) -> Any:  # noqa: ARG002 - of plain JSON, all values are settled
        """Return the value at ``where``, where ``value`` was written: a string that may be a template."""
        return value

    def whole(self, value: Any, where: Where | None) -> Any:  # noqa: ARG002
        """Return ``value`` with every string in it settled."""
        return value

    def walk(self, path: Path, value: Any, where: Where | None = None) -> Place:
        """Return the value of ``path`` from ``value``, and its place; ``MISSING`` if there is none."""
        for at, segment in enumerate(path):
            if not at % _STEPS:
                self.spend(_PER_STEPS if where is None else _PER_STEPS_WITH_PLACES)
            if where is not None and isinstance(value, str):
                value, where = self.settle(value, where), None
            if isinstance(value, dict):
                if isinstance(segment, Pattern):
                    return self._walk_matching(segment, path[at + 1 :], value, where)
                key = segment if isinstance(segment, str) else "#" if segment is EACH else None
                if key is None or key not in value:
                    return MISSING, None
                value = value[key]
                where = where and where.child(key)
            elif isinstance(value, list | Elements):
                if not isinstance(segment, str):
                    return self._walk_elements(segment, path[at + 1 :], value, where)
                value, where = _element(value, where, segment)
            else:
                return MISSING, None
        return value, where

    def _walk_matching(
        self, pattern: Pattern, rest: Path, value: Mapping[str, Any], where: Where | None
    ) -> Place:
        for key, item in value.items():
            self.spend(_PER_ELEMENT + pattern.cost * len(key))
            if pattern.matches(key):
                found = self.walk(rest, item, where and where.child(key))
                if found[0] is not MISSING:
                    return found
        return MISSING, None

    def _walk_elements(
        self,
        segment: Pattern | PathQuery | Literal[Mark.EACH],
        rest: Path,
        value: list[Any] | Elements,
        where: Where | None,
    ) -> Place:
        match segment:
            case Mark.EACH if not rest:
                return len(value.pairs if isinstance(value, Elements) else value), None
            case Mark.EACH:
                return self._collect(rest, _pairs(value, where)), None
            case PathQuery(every=True):
                chosen = self.chosen(segment, value, where)
                first = next(chosen, None)
                return (MISSING if first is None else self._collect(rest, chain((first,), chosen))), None
            case PathQuery():
                for item, place in self.chosen(segment, value, where):
                    return self.walk(rest, item, place)
        return MISSING, None

    def chosen(self, query: PathQuery, value: list[Any] | Elements, where: Where | None) -> Iterator[Place]:
        """Return the elements for which ``query`` holds, in order."""
        return self.select(query, _pairs(value, where))

    def _collect(self, rest: Path, pairs: Iterator[Place]) -> list[Any]:
        collected = []
        for item, place in pairs:
            self.spend(_PER_ELEMENT if place is None else _PER_ELEMENT + _PER_PLACE)
            found, found_place = self.walk(rest, item, place)
            if found is not MISSING:
                collected.append(self.whole(found, found_place))
        return collected

    def select(self, query: PathQuery, pairs: Iterable[Place]) -> Iterator[Place]:
        """Yield those of ``pairs`` for which ``query`` holds."""
        for value, where in pairs:
            self.spend(_PER_ELEMENT if where is None else _PER_ELEMENT + _PER_PLACE)
            item, place = value, where
            try:
                if place is not None and isinstance(item, str):
                    item, place = self.settle(item, place), None
                found, found_place = (
                    self.walk(query.path, item, place) if isinstance(item, dict) else (MISSING, None)
                )
                if found_place is not None and isinstance(found, str):
                    found = self.settle(found, found_place)
            except AbortedError:
                raise
            except TemplateError:
                # The element's own template is wrong, not the reference that looks at it in passing.
                continue
            if isinstance(found, str):
                self.spend(len(query.value) if query.pattern is None else query.pattern.cost * len(found))
            if holds(query, found):
                yield item, place


def _element(value: list[Any] | Elements, where: Where | None, segment: str) -> Place:
    if not (segment.isascii() and segment.isdigit()):
        return MISSING, None
    index = int(segment)
    if isinstance(value, Elements):
        return value.pairs[index] if index < len(value.pairs) else (MISSING, None)
    return (value[index], where and where.child(index)) if index < len(value) else (MISSING, None)


def _pairs(value: list[Any] | Elements, where: Where | None) -> Iterator[Place]:
    if isinstance(value, Elements):
        return iter(value.pairs)
    if where is None:
        return ((item, None) for item in value)
    return ((item, where.child(index)) for index, item in enumerate(value))


def holds(query: PathQuery, found: object) -> bool:
    """Whether the comparison of ``query`` holds for the value of its path.

    Text is compared with text, and a number with a number; null, arrays, objects and missing values match
    nothing, not even ``!=``.
    """
    match found:
        case str():
            if query.pattern is not None:
                return query.pattern.matches(found)
            return _compare(query.operator, found, query.value)
        case bool():
            # As in gjson: false is less than true, and any other word is neither.
            if query.value in {"true", "false"}:
                return _compare(query.operator, int(found), int(query.value == "true"))
            return query.operator == "!="
        case int() | float():
            if query.number is None:
                return query.operator == "!="
            return _compare(query.operator, found, query.number)
    return False


def _compare(operator: str, left: _T, right: _T) -> bool:
    match operator:
        case "=":
            return left == right
        case "!=":
            return left != right
        case "<":
            return left < right
        case "<=":
            return left <= right
        case ">":
            return left > right
        case ">=":
            return left >= right
    return False
