"""Reading of a submitted build, piece by piece; every mistake is named with its place.

`converter` has the conversion of a single document.
"""

from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any, TypeVar

import msgspec
from attrs import frozen

from scheduler.definition.converter import (
    BUILD_ID,
    LISTS,
    Document,
    Malformed,
    build_id_of,
    converter,
)
from scheduler.definition.keys import mistakable
from scheduler.definition.limits import DEFAULT_LIMITS, Limits
from scheduler.definition.malformed import explain
from scheduler.definition.model import (
    BUILD_ACTIONS,
    DEFAULT_BUILD_ACTION,
    Build,
    Change,
    Component,
    Edge,
)
from scheduler.definition.plain_edges import digest_text, read_plain_edges
from scheduler.definition.shapes import shapes_within
from scheduler.definition.strictjson import Raw, decode, encode_sorted, split_list, split_object
from scheduler.definition.template.standard import Standard
from scheduler.errors import InvalidBuild, InvalidJSON, OverLimit, Problem
from scheduler.runtime.yielding import yield_now

_T = TypeVar("_T")

_EDGES = 32
"""Edges that are read at a time: in that of two components."""
_MOST_LISTS = 1_000
_LONGEST_LIST = 64
"""Lists of names that are remembered, and the names in one of them."""


@frozen
class ParsedBuild:
    """A build as far as it could be read, and all mistakes found so far."""

    build: Build
    digest: bytes
    """Digest of the content, independent of the order of keys and of white space."""
    known: frozenset[str]
    """Component ids that could be read, also those of elements with other mistakes."""
    places: tuple[int, ...]
    """Position of each of the build's changes in the submitted list."""
    edge_places: tuple[int, ...]
    """Position of each of the build's edges in the submitted list."""
    found: tuple[tuple[Standard, int] | None, ...]
    """References of each of the build's changes, with the units of work for them, where they are known
    already and expressions count."""
    names: frozenset[str]
    """Names of all fields of its components and changes that begin with ``_``."""
    problems: tuple[Problem, ...]


def parse_build(
    data: bytes, limits: Limits = DEFAULT_LIMITS, *, action: str | None = None, accepted: bool = False
) -> ParsedBuild:
    """Read a submitted build; mistakes in single elements are collected, not raised.

    The build is decoded piece by piece. So a mistake is named with its component, and no single call into the
    decoder holds the interpreter for long, whatever the size of the build.

    Args:
        data: the build's JSON.
        limits: bounds on its content.
        action: one of `BUILD_ACTIONS`, used whatever the build says itself. None: the action in the build if
            it is one of them, and otherwise ``build.create``.
        accepted: whether it was accepted before, perhaps by a version that was less strict.

    Raises:
        InvalidBuild: it is not a JSON object, or a list is over its limit. Other known mistakes are named as
            well.
    """
    try:
        members = split_object(data, limits)
    except InvalidJSON as error:
        raise InvalidBuild(
            "invalid", [Problem("", f"a build is a JSON object: {_located(data, error)}")]
        ) from None
    reader = _Reader(limits, data, accepted=accepted)
    fields = {
        key: reader.read(key, raw, level=1)
        for key, raw in members.items()
        if key not in LISTS or _is_null(raw)
    }
    build_id = reader.take("id", lambda: build_id_of(fields)) or ""
    if action is None:
        action = own if (own := fields.get("action")) in BUILD_ACTIONS else DEFAULT_BUILD_ACTION
    # The action is part of the content: the same bytes on another subject are another build.
    fields["action"] = action
    reader.note("action", action)
    components = reader.elements("components", members, Component, limits.max_components)
    reader.build = build_id.encode()
    changes = reader.elements("changes", members, Change, limits.max_changes)
    edges = reader.elements("edges", members, Edge, limits.max_edges)
    if reader.over_limit:
        raise InvalidBuild("limit", reader.problems)
    absent = frozenset(name for name in LISTS if name not in members)
    build = Build(
        build_id, action, tuple(components.items), tuple(changes.items), tuple(edges.items), fields, absent
    )
    names = frozenset(name for name in reader.names if name.startswith("_"))
    places, edge_places, found = tuple(changes.places), tuple(edges.places), tuple(changes.found)
    known, problems = frozenset(reader.known), tuple(reader.problems)
    return ParsedBuild(build, reader.digest(), known, places, edge_places, found, names, problems)


def _located(data: bytes, error: InvalidJSON, part: bytes | None = None) -> str:
    """Return the text of an error in a build or in a part of it, with line and column if known."""
    if isinstance(error, OverLimit):
        return str(error)
    # If the same bytes stand there twice, the first ones have the same mistake.
    return explain(data, error.what, error.at, 0 if part is None else data.find(part))


_SHARED = ("_component_id", "_component", "_provider", "source", "destination")


def _is_null(raw: Raw) -> bool:
    # A list of megabytes is not copied for this.
    return len(memoryview(raw)) == 4 and bytes(raw) == b"null"


class _Reader:
    """Collects the mistakes while a build is read."""

    def __init__(self, limits: Limits, data: bytes, *, accepted: bool) -> None:
        self.limits = limits
        self.accepted = accepted
        self.data = data
        self.problems: list[Problem] = []
        self.over_limit = False
        self.known: set[str] = set()
        self.names: set[str] = set()
        self._digests: dict[str, bytes] = {}
        # The same few words stand in every component, and its id in every edge to it: each is kept once.
        self._words: dict[str, str] = {}
        self._name_lists: set[tuple[str, ...]] = set()
        """Names of the fields of components, in order, that are in ``names``, and no mistake."""
        self.build = b""
        """Id of the build, once it is known."""
        self._shapes = shapes_within(limits)

    def read(self, place: str, raw: Raw, *, level: int) -> Any:
        try:
            value = decode(raw, self.limits, level=level)
        except InvalidJSON as error:
            self.problems.append(Problem(place, _located(self.data, error, bytes(raw))))
            return None
        self.note(place, value)
        return value

    def note(self, place: str, value: Any) -> None:
        """Include ``value``, which stands at ``place``, in the digest."""
        self._digests[place] = blake2b(encode_sorted(value)).digest()

    def digest(self) -> bytes:
        """Return the digest of everything that was read: 16 bytes."""
        whole = blake2b(digest_size=16)
        for key in sorted(self._digests):
            whole.update(encode_sorted(key) + self._digests[key])
        return whole.digest()

    def take(self, place: str, read: Callable[[], _T]) -> _T | None:
        try:
            return read()
        except Malformed as error:
            self.problems.extend(Problem(place, problem.message) for problem in error.problems)
            return None

    def elements(self, name: str, members: dict[str, Raw], cls: type, most: int) -> "_Elements":
        """Return the readable elements of a list, each with its position.

        They are decoded, taken apart and freed one by one: together, as Python objects, they would take many
            times the memory of their JSON.
        """
        into = _Elements(name, converter.get_structure_hook(cls), cls)
        raws = self._split(name, members, most)
        if cls is Edge:
            for start in range(0, len(raws), _EDGES):
                yield_now()
                self._read_edges(raws[start : start + _EDGES], start, into)
        else:
            self._read_each(raws, 0, into)
            self._check_ids(name, into.ids)
            self.known.update(one for _, one in into.ids)
        self._digests[name] = into.digest.digest()
        return into

    def _split(self, name: str, members: dict[str, Raw], most: int) -> list[Raw]:
        """Return the elements of a list, not yet decoded; none where it cannot be read, or has too many."""
        raw_list = members.get(name)
        if raw_list is None or _is_null(raw_list):
            return []
        try:
            raws = split_list(raw_list, self.limits)
        except InvalidJSON as error:
            self.problems.append(Problem(name, str(error)))
            return []
        if len(raws) > most:
            self.problems.append(Problem(name, f"{len(raws)} of them; max_{name} is {most}"))
            self.over_limit = True
            return []
        return raws

    def _read_each(self, raws: Sequence[Raw], start: int, into: "_Elements") -> None:
        name, cls, structure, digest = into.name, into.cls, into.structure, into.digest
        most = self.limits.max_component_bytes
        for position, raw in enumerate(raws, start):
            yield_now()
            data = bytes(raw)
            if len(data) > most:
                text = f"{len(data)} bytes; max_component_bytes is {most}"
                self.problems.append(Problem(f"{name}[{position}]", text))
                continue
            if cls is Change and self._read_known(data, position, into):
                continue
            try:
                value = decode(data, self.limits, level=2)
                digest.update(encode_sorted(value) + b",")
                if type(value) is dict:
                    self._look_at_names(f"{name}[{position}]", value, checked=cls is not Edge)
                    self._share(value)
                    if type(one := value.get("_component_id")) is str:
                        into.ids.append((position, one))
                into.items.append(structure(value, cls))
            except InvalidJSON as error:
                self.problems.append(Problem(f"{name}[{position}]", _located(self.data, error, data)))
            except Malformed as error:
                self.problems.extend(
                    Problem(f"{name}[{position}]{inner.place and '.'}{inner.place}", inner.message)
                    for inner in error.problems
                )
            else:
                into.places.append(position)
                into.found.append(None)
                if cls is Change:
                    self._shapes.learn(data, value)

    def _read_known(self, data: bytes, position: int, into: "_Elements") -> bool:
        """Read a change of a known shape; return whether it is one."""
        known = self._shapes.read(data, self.build, self._words.setdefault)
        if known is None:
            return False
        names, change, digested, found = known
        if names not in self._name_lists:
            self.names.update(names)
            self._name_lists.add(names)
        into.digest.update(digested)
        into.ids.append((position, change.id))
        into.items.append(change)
        into.found.append(found)
        into.places.append(position)
        return True

    def _read_edges(self, raws: Sequence[Raw], start: int, into: "_Elements") -> None:
        edges = read_plain_edges(raws, self._words.setdefault)
        if edges is not None:
            into.digest.update(digest_text(edges))
            into.items += edges
            into.places += range(start, start + len(edges))
        elif len(raws) > 1:
            # A plain one is read as such whatever stands beside it: the digest depends on that.
            for position, raw in enumerate(raws, start):
                self._read_edges([raw], position, into)
        else:
            self._read_each(raws, start, into)

    def _look_at_names(self, place: str, value: Document, *, checked: bool) -> None:
        """Check the names of an object's fields, unless they are the same as in an object before it."""
        shape = tuple(value)
        if shape in self._name_lists:
            return
        self.names.update(shape)
        wrong = mistakable(place, value) if checked and not self.accepted else []
        self.problems += wrong
        if checked and not wrong and len(shape) <= _LONGEST_LIST and len(self._name_lists) < _MOST_LISTS:
            self._name_lists.add(shape)

    def _share(self, value: Document) -> None:
        words = self._words
        for key in _SHARED:
            word = value.get(key)
            if type(word) is str:
                value[key] = words.setdefault(word, word)

    def _check_ids(self, name: str, ids: list[tuple[int, str]]) -> None:
        first: dict[str, int] = {}
        for position, one in ids:
            place = f"{name}[{position}]._component_id"
            if (size := len(one.encode())) > self.limits.max_id_bytes:
                text = f"{size} bytes; max_id_bytes is {self.limits.max_id_bytes}"
                self.problems.append(Problem(place, text))
            elif one and first.setdefault(one, position) != position:
                text = f"{one!r} is the id of {name}[{first[one]}] already"
                self.problems.append(Problem(place, text))


class _Elements:
    """One list of a build while it is read."""

    __slots__ = ("cls", "digest", "found", "ids", "items", "name", "places", "structure")

    def __init__(self, name: str, structure: Callable[[Any, Any], Any], cls: type) -> None:
        self.name = name
        self.structure = structure
        self.cls = cls
        self.digest = blake2b()
        self.items: list[Any] = []
        """Elements that could be read."""
        self.places: list[int] = []
        """Position of each of them."""
        self.found: list[tuple[Standard, int] | None] = []
        """References of each of them that is of a known shape."""
        self.ids: list[tuple[int, str]] = []
        """Ids, each with its position, also those of elements with other mistakes."""


class _Head(msgspec.Struct):
    id: Raw = Raw(b"null")


_decode_head = msgspec.json.Decoder(_Head).decode
_MOST_ID_BYTES = 1_024


def read_id(data: bytes) -> str | None:
    """Return the id of a submitted build if it can be read, whatever other mistakes it has."""
    # Not by `split_object`: a million unneeded members would take half a second.
    try:
        raw = _decode_head(data).id
        value = decode(raw) if len(raw) <= _MOST_ID_BYTES else None
    except (InvalidJSON, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return value if isinstance(value, str) and BUILD_ID.fullmatch(value) else None
