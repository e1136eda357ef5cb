"""Shapes: components that differ only in texts and numbers, each read by one look at its JSON.

The thousands of components of a build have some twenty shapes: the same keys in the same order, with the same
kinds of values. A shape is learnt from a component that was read in the general way (`codec`, `converter`,
`template.standard`), as a regular expression for the JSON of all that look like it. What holds of all of
them is found out once: that the JSON is compact, its order with sorted keys, that no name is a secret's, that
there are no settings, where references stand. So a component of a known shape is not even decoded.

A component with anything special in it has no shape. It is left to the general way, which reads every
component to the same effect, and is the only place that writes messages.
"""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from operator import itemgetter
from typing import Any, Final, NamedTuple, TypeAlias

from scheduler.definition.keys import mistakable
from scheduler.definition.limits import Limits
from scheduler.definition.model import ATTEMPTS, PSEUDO_IDS, SETTINGS, Action, Change, State
from scheduler.definition.places import MAX_PLACE
from scheduler.definition.secrets.names import has_secret_names, may_name_value
from scheduler.definition.strictjson import Raw, encode, encode_sorted
from scheduler.definition.template.references import READING
from scheduler.definition.template.standard import (
    EXPRESSION,
    INDEX,
    MOST_NODES,
    PATH,
    Standard,
    form_of,
)

Share: TypeAlias = Callable[[str, str], str]
"""Function that returns the one copy of a text that is kept."""

_LONGEST: Final = 2 * 1024
_MOST_GROUPS: Final = 32
"""Bytes of a component that has a shape, and groups in its pattern: one for a text or a number, two or three
for a reference. To learn it takes up to 3 ms; with 900 groups it would take 130 ms."""
_EVERY: Final = 32
"""Components read in the general way for each one that a shape is learnt from."""
_OF_A_TYPE: Final = 4
_TYPES: Final = 64
"""Shapes that are kept of a type of component, those that matched last; and types."""
_TYPE: Final = b'"_component":"'

_PLAIN: Final = rb"[ !#%-\[\]-z|}~]"
"""A character that JSON has as it is, and that begins no reference."""
_TEXT: Final = rb"(%b*+)" % _PLAIN
_IDENTITY: Final = rb"([ !#%-\[\]-z|~]++)"
_NUMBER: Final = rb"(0|-?[1-9][0-9]{0,14}+)"
"""A number within all limits, written as it is encoded."""
_KEYS_OF_PATH: Final = rb"([A-Za-z_][A-Za-z0-9_]*+(?:\.[A-Za-z_][A-Za-z0-9_]*+){0,7}+)"
_KEYS_OF_EXPRESSION: Final = rb"((?:\.[A-Za-z][A-Za-z0-9_]*+)*+)"
_is_plain: Final = re.compile(rb"%b*+" % _PLAIN).fullmatch
_is_number: Final = re.compile(_NUMBER).fullmatch
_is_key: Final = re.compile(r"[A-Za-z0-9_.:/-]++").fullmatch
_SEAM: Final = b"\0"
"""Byte around the number of a hole; JSON has no such byte."""

_FIXED: Final = frozenset({"_component", "_provider", "_action", "_state"})
"""Fields whose values belong to the shape."""
_OF_THE_SCHEDULER: Final = (*_FIXED, "_component_id", "service")
"""Fields without references."""
_SPECIAL: Final = frozenset({*SETTINGS, ATTEMPTS, "adoptable"})
_SPECIAL_BELOW: Final = frozenset({"service", "adoptable"})
_AT: Final = ord("@")
"""As a number: to look for bytes in bytes with `in` takes ten times as long."""
_NO_SETTINGS: Final[Mapping[str, Any]] = {}
_WAITING: Final = State.WAITING

Known: TypeAlias = tuple[tuple[str, ...], Change, bytes, tuple[Standard, int] | None]
"""A change of a known shape: the names of its fields; the change; its JSON with sorted keys, and a comma; its
references, where expressions count, with the units of work for them: None where they are to be looked for."""


class _Hole(NamedTuple):
    """A text or a number that varies within a shape."""

    pattern: bytes
    template: bytes
    groups: range
    """Indices of the groups in its pattern; their texts go into its template."""


class _Reference(NamedTuple):
    """A reference in the JSON of a shape."""

    group: int
    """Index of the group of its id; the next one has the keys behind it."""
    before: int
    """Bytes of it before its id."""
    fixed: int
    """Bytes of it beside its id and its keys."""


class _UnfitError(Exception):
    """A component that has no shape."""


class _Holes:
    """The holes of a component, in the order of its JSON."""

    def __init__(self) -> None:
        self.holes: list[_Hole] = []
        self.references: list[_Reference] = []
        self._groups = 0

    def cut(self, value: Any) -> Any:
        """Return a value with its texts and numbers cut out: a hole in place of each."""
        if isinstance(value, dict):
            if not _SPECIAL_BELOW.isdisjoint(value) or may_name_value(value):
                raise _UnfitError
            return {self._key(key): self.cut(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.cut(item) for item in value]
        if isinstance(value, str):
            return self.cut_text(encode(value))
        if type(value) is int:
            if not _is_number(encode(value)):
                raise _UnfitError
            return self._add(_NUMBER, b"%b", 1)
        if type(value) is float:
            # Nothing of a build is kept but names: neither its texts nor its numbers.
            raise _UnfitError
        return value

    def cut_text(self, text: bytes) -> Raw:
        """Return the hole for a text in JSON."""
        if _is_plain(text, 1, len(text) - 1):
            return self._add(b'"%b"' % _TEXT, b'"%b"', 1)
        path = PATH.fullmatch(text)
        if path is not None:
            pattern, template = self._reference(path, _KEYS_OF_PATH)
            return self._add(pattern, template, 2)
        pattern, template, groups, end = b'"%b' % _TEXT, b'"%b', 1, 1
        for found in EXPRESSION.finditer(text):
            if not _is_plain(text, end, found.start()):
                raise _UnfitError
            own, filled = self._reference(found, _KEYS_OF_EXPRESSION, groups)
            pattern, template = pattern + own + _TEXT, template + filled + b"%b"
            groups, end = groups + 3, found.end()
        if not _is_plain(text, end, len(text) - 1):
            raise _UnfitError
        return self._add(pattern + b'"', template + b'"', groups)

    def _key(self, key: str) -> str:
        # The settings of the scheduler mean nothing further down, but are looked for in the text.
        if key.startswith("_") or not _is_key(key):
            raise _UnfitError
        return key

    def _reference(self, found: re.Match[bytes], keys: bytes, groups: int = 0) -> tuple[bytes, bytes]:
        """Add a reference, behind so many groups of its text; return its pattern and its template."""
        (begin, end), (first, second), (third, fourth) = found.regs
        text = found.string
        before, between, behind = text[begin:first], text[second:third], text[fourth:end]
        fixed = len(before) + len(between) + len(behind)
        self.references.append(_Reference(self._groups + groups, len(before), fixed))
        parts = re.escape(before), _IDENTITY, re.escape(between), keys, re.escape(behind)
        return b"".join(parts), _literal(before) + b"%b" + _literal(between) + b"%b" + _literal(behind)

    def _add(self, pattern: bytes, template: bytes, groups: int) -> Raw:
        begin = self._groups
        self._groups += groups
        if self._groups > _MOST_GROUPS:
            raise _UnfitError
        self.holes.append(_Hole(pattern, template, range(begin, self._groups)))
        return Raw(b"%b%d%b" % (_SEAM, len(self.holes) - 1, _SEAM))


class Shape:
    """A shape of changes that are to be done.

    Args:
        value: a change that has it.

    Raises:
        _UnfitError: it has no shape.
    """

    def __init__(self, value: Mapping[str, Any]) -> None:
        holes = _Holes()
        holed: dict[str, Any] = {}
        groups: dict[str, int] = {}
        for key, item in value.items():
            groups[key] = len(holes.holes) and holes.holes[-1].groups.stop
            if not _is_key(key):
                raise _UnfitError
            holed[key] = item if key in _FIXED else holes.cut(item)
        self.names: tuple[str, ...] = tuple(value)
        """Names of the fields."""
        self._of = value["_component"], Action(value["_action"]), value["_provider"]
        self._id = groups["_component_id"]
        self._service = groups.get("service", -1)
        literals, numbers = _taken_apart(encode(holed))
        patterns = [re.escape(literals[0])]
        for number, literal in zip(numbers, literals[1:], strict=True):
            patterns += holes.holes[number].pattern, re.escape(literal)
        self._match = re.compile(b"".join(patterns)).fullmatch
        self._lists = INDEX * sum(literal.count(b"[") for literal in literals)
        """Characters of a place for lists, at most, beyond the bytes that they take in JSON."""
        literals, numbers = _taken_apart(encode_sorted(holed))
        template = [_literal(literals[0])]
        order: list[int] = []
        for number, literal in zip(numbers, literals[1:], strict=True):
            template += holes.holes[number].template, _literal(literal)
            order += holes.holes[number].groups
        self._sorted = b"".join(template) + b","
        self._in_order = itemgetter(*order)
        self._references = tuple(holes.references)

    def read(self, data: bytes, build: bytes, share: Share) -> Known | None:
        """Read a change; None where it has another shape.

        Args:
            data: its JSON.
            build: id of its build.
            share: keeps ids.
        """
        match = self._match(data)
        if match is None:
            return None
        groups = match.groups()
        name = groups[self._id].decode()
        if not name or name in PSEUDO_IDS:
            return None
        type_, action, provider = self._of
        # There is no `@` in the names of fields.
        sensitive = _AT in data
        own = share(name, name)
        change = Change(own, type_, action, provider, _WAITING, data, None, None, 0, _NO_SETTINGS, sensitive)
        digested = self._sorted % self._in_order(groups)
        serviced = self._service >= 0
        if serviced and groups[self._service] != build:
            return self.names, change, digested, None
        names: list[str] = []
        paths: list[bytes] = []
        places: list[int] = []
        begin = end = 0
        for at, before, fixed in self._references:
            text, path = groups[at], groups[at + 1]
            begin = match.start(at + 1) - before
            end = begin + fixed + len(text) + len(path)
            places += begin, end
            name = text.decode()
            names.append(share(name, name))
            paths.append(path)
        form = form_of(tuple(paths), serviced)
        if form.nodes > MOST_NODES or begin + self._lists > MAX_PLACE:
            return self.names, change, digested, None
        found = Standard(form, tuple(names), form.places.pack(*places))
        return self.names, change, digested, (found, READING * len(names) + (end >> 2))


class Shapes:
    """Shapes that are known; threads may use them at the same time."""

    def __init__(self) -> None:
        self._by_type: dict[bytes, tuple[Shape, ...]] = {}
        """Shapes by type of component, the last one that matched first."""
        self._unknown = 0

    def read(self, data: bytes, build: bytes, share: Share) -> Known | None:
        """Read a change of a known shape (`Shape.read`); None for any other."""
        if len(data) > _LONGEST:
            return None
        type_ = _type_of(data)
        shapes = self._by_type.get(type_)
        if shapes is None:
            return None
        for shape in shapes:
            known = shape.read(data, build, share)
            if known is not None:
                if shape is not shapes[0]:
                    self._keep(type_, shape, shapes)
                return known
        return None

    def learn(self, data: bytes, value: Mapping[str, Any]) -> None:
        """Learn the shape of one in many changes that were read in the general way.

        Args:
            data: its JSON as it came.
            value: the same, decoded.
        """
        self._unknown += 1
        if self._unknown % _EVERY or len(data) > _LONGEST or not _may_have_shape(data, value):
            return
        try:
            shape = Shape(value)
        except _UnfitError:
            return
        type_ = _type_of(data)
        if len(self._by_type) >= _TYPES and type_ not in self._by_type:
            self._by_type.clear()
        self._keep(type_, shape, self._by_type.get(type_, ()))

    def _keep(self, type_: bytes, first: Shape, shapes: tuple[Shape, ...]) -> None:
        others = [shape for shape in shapes if shape is not first]
        self._by_type[type_] = (first, *others[: _OF_A_TYPE - 1])


@lru_cache(maxsize=4)
def shapes_within(limits: Limits) -> Shapes:  # noqa: ARG001 - each has its own
    """Return the shapes of this process, of components that are within these limits."""
    return Shapes()


def _type_of(data: bytes) -> bytes:
    """Return the type of a component by its JSON: right for those that have a shape."""
    begin = data.find(_TYPE) + len(_TYPE)
    return data[begin : data.find(b'"', begin)]


def _may_have_shape(data: bytes, value: Mapping[str, Any]) -> bool:
    """Whether a change that was read without a mistake is one of many."""
    return (
        value.get("_state") == State.WAITING
        and _SPECIAL.isdisjoint(value)
        and isinstance(value.get("service", ""), str)
        and all(_is_plain(value[key].encode()) for key in _OF_THE_SCHEDULER if key in value)
        and not mistakable("", value)
        and not has_secret_names(value, texts=False)
        and not may_name_value(value)
        # So it is compact, and no name stands in it twice.
        and encode(value) == data
    )


def _taken_apart(text: bytes) -> tuple[list[bytes], list[int]]:
    """Return the literal parts of a component with holes, and the numbers of the holes between them."""
    parts = text.split(_SEAM)
    return parts[::2], [int(number) for number in parts[1::2]]


def _literal(text: bytes) -> bytes:
    return text.replace(b"%", b"%%")
