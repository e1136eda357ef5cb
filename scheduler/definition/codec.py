"""Conversion of documents to the model and back; every mistake is named with its place.

A document is decoded JSON. cattrs does the conversion, with one explicit pair of hooks for each class: the
fields that the scheduler looks at are checked and typed, and the whole object is passed on as ``fields``, so
that everything is kept that a user or a connector put into it.

One file on purpose: reading a build piece by piece, and the hooks for its parts, share the list of problems.
"""

import re
from collections.abc import Callable
from hashlib import blake2b
from typing import Any, TypeAlias, TypeVar
from urllib.parse import unquote

import msgspec
from attrs import frozen
from cattrs import Converter

from scheduler.definition.keys import mistakable
from scheduler.definition.limits import DEFAULT_LIMITS, Limits
from scheduler.definition.malformed import explain
from scheduler.definition.model import (
    ATTEMPTS,
    BUILD_ACTIONS,
    DEFAULT_BUILD_ACTION,
    PSEUDO_IDS,
    SETTINGS,
    Action,
    Build,
    Change,
    Component,
    Edge,
    State,
    written,
)
from scheduler.definition.nearly import nearly
from scheduler.definition.rules import Retry, found, in_seconds, read_retry
from scheduler.definition.secrets.names import has_secret_names
from scheduler.definition.strictjson import Raw, decode, encode, encode_sorted, kind, split_list, split_object
from scheduler.errors import InvalidBuild, InvalidJSON, InvalidRule, OverLimit, Problem
from scheduler.runtime.breath import breathe

Document: TypeAlias = dict[str, Any]
_T = TypeVar("_T")

_BUILD_ID = re.compile(r"[A-Za-z0-9._:@/-]{1,128}")
_UNSAFE_IN_TOKEN = re.compile(rb"[^A-Za-z0-9_-]")
_ACTIONS = {action.value: action for action in Action}
_STATES = {state.value: state for state in State} | {"": State.WAITING, None: State.WAITING}
_MAX_TIMEOUT = 366 * 86_400.0
_EDGE_KEYS = {"source", "destination", "length"}
_NONE: Document = {}
_MOST_ATTEMPTS = 1_000_000
_EDGES = 16
"""Edges that are read in the time of a component."""


def encode_token(text: str) -> str:
    """Return ``text`` as one subject token: every byte outside ``[A-Za-z0-9_-]`` becomes ``=XX``."""
    return _UNSAFE_IN_TOKEN.sub(lambda match: b"=%02X" % match[0][0], text.encode()).decode("ascii")


def decode_token(token: str) -> str:
    """Return the text of a token made by `encode_token`; for any other token, the result is arbitrary."""
    return unquote(token.replace("=", "%"))


@frozen
class Parsed:
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
    names: frozenset[str]
    """Names of all fields of its components and changes that begin with ``_``."""
    problems: tuple[Problem, ...]


class _Malformed(Exception):
    """All mistakes in one object, with places relative to it."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(problems)
        self.problems = problems


def parse_build(
    data: bytes, limits: Limits = DEFAULT_LIMITS, *, action: str | None = None, accepted: bool = False
) -> Parsed:
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
        if key not in _LISTS or _is_null(raw)
    }
    build_id = reader.take("id", lambda: _build_id(fields)) or ""
    if action is None:
        action = own if (own := fields.get("action")) in BUILD_ACTIONS else DEFAULT_BUILD_ACTION
    # The action is part of the content: the same bytes on another subject are another build.
    fields["action"] = action
    reader.note("action", action)
    components, _ = reader.elements("components", members, Component, limits.max_components)
    changes, places = reader.elements("changes", members, Change, limits.max_changes)
    edges, edge_places = reader.elements("edges", members, Edge, limits.max_edges)
    if reader.over_limit:
        raise InvalidBuild("limit", reader.problems)
    absent = frozenset(name for name in _LISTS if name not in members)
    build = Build(build_id, action, components, changes, edges, fields, absent)
    names = frozenset(name for name in reader.names if name.startswith("_"))
    return Parsed(
        build, reader.digest(), frozenset(reader.known), places, edge_places, names, tuple(reader.problems)
    )


def _located(data: bytes, error: InvalidJSON, part: bytes | None = None) -> str:
    """Return the text of an error in a build or in a part of it, with line and column if known."""
    if isinstance(error, OverLimit):
        return str(error)
    # If the same bytes stand there twice, the first ones have the same mistake.
    return explain(data, error.what, error.at, 0 if part is None else data.find(part))


_LISTS = ("components", "changes", "edges")
_REQUIRED = ("_component_id", "_component", "_provider", "_action")
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
        except _Malformed as error:
            self.problems.extend(Problem(place, problem.message) for problem in error.problems)
            return None

    def elements(
        self, name: str, members: dict[str, Raw], cls: type[_T], most: int
    ) -> tuple[tuple[_T, ...], tuple[int, ...]]:
        """Return the readable elements of a list, each with its position.

        They are decoded, taken apart and freed one by one: together, as Python objects, they would take many
            times the memory of their JSON.
        """
        digest = blake2b()
        self._digests[name] = digest.digest()
        raw_list = members.get(name)
        if raw_list is None or _is_null(raw_list):
            return (), ()
        try:
            raws = split_list(raw_list, self.limits)
        except InvalidJSON as error:
            self.problems.append(Problem(name, str(error)))
            return (), ()
        if len(raws) > most:
            self.problems.append(Problem(name, f"{len(raws)} of them; max_{name} is {most}"))
            self.over_limit = True
            return (), ()
        structure = _converter.get_structure_hook(cls)
        items: list[_T] = []
        places: list[int] = []
        ids: list[tuple[int, str]] = []
        for position, raw in enumerate(raws):
            if cls is not Edge or not position % _EDGES:
                breathe()
            data = bytes(raw)
            if cls is Edge and (edge := self._plain_edge(data)) is not None:
                digest.update(_digest_text(edge))
                items.append(edge)
                places.append(position)
                continue
            if len(data) > self.limits.max_component_bytes:
                text = f"{len(data)} bytes; max_component_bytes is {self.limits.max_component_bytes}"
                self.problems.append(Problem(f"{name}[{position}]", text))
                continue
            try:
                value = decode(data, self.limits, level=2)
                digest.update(encode_sorted(value) + b",")
                if type(value) is dict:
                    if not (self.accepted or cls is Edge):
                        self.problems += mistakable(f"{name}[{position}]", value)
                    self._share(value)
                    self.names.update(value)
                    if type(one := value.get("_component_id")) is str:
                        ids.append((position, one))
                items.append(structure(value, cls))
            except InvalidJSON as error:
                self.problems.append(Problem(f"{name}[{position}]", _located(self.data, error, data)))
            except _Malformed as error:
                self.problems.extend(
                    Problem(f"{name}[{position}]{inner.place and '.'}{inner.place}", inner.message)
                    for inner in error.problems
                )
            else:
                places.append(position)
        if cls is not Edge:
            self._check_ids(name, ids)
            self.known.update(one for _, one in ids)
        self._digests[name] = digest.digest()
        return tuple(items), tuple(places)

    def _plain_edge(self, data: bytes) -> Any:
        """Read an edge with nothing but its two ends and its length, as nearly all are; None for any other.

        A build has more edges than components, and this costs a fifth of the general way.
        """
        try:
            edge = _decode_plain_edge(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        if not edge.source or not edge.destination or not -_SMALL < edge.length < _SMALL:
            return None
        words = self._words
        source = words.setdefault(edge.source, edge.source)
        return Edge(source, words.setdefault(edge.destination, edge.destination), edge.length)

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


class _PlainEdge(msgspec.Struct, forbid_unknown_fields=True):
    source: str
    destination: str
    length: int


_decode_plain_edge = msgspec.json.Decoder(_PlainEdge).decode
_SMALL = 2**53


def _digest_text(edge: Edge) -> bytes:
    """Return a plain edge's part of the digest; every edge is either always plain, or never."""
    return encode([edge.destination, edge.length, edge.source]) + b","


def _build_id(document: Document) -> str:
    value = document.get("id")
    if not isinstance(value, str) or not value:
        found = f"it is {kind(value)}" if value else "it is missing"
        raise _Malformed([Problem("", f"a build needs an id; {found}")])
    if not _BUILD_ID.fullmatch(value):
        shown = value if len(value) <= 128 else f"{value[:128]}... ({len(value)} characters)"
        raise _Malformed([Problem("", f"{shown!r} does not match [A-Za-z0-9._:@/-]{{1,128}}")])
    return value


def _object(value: Any) -> Document:
    if type(value) is not dict:
        raise _Malformed([Problem("", f"expected an object, got {kind(value)}")])
    return value


def _text(value: Document, key: str, problems: list[Problem]) -> str:
    text = value.get(key)
    if isinstance(text, str) and text:
        return text
    found = "missing" if key not in value else "empty" if text == "" else f"{kind(text)}, not a string"
    if key not in value and (meant := [name for name in value if _is_nearly(name, key)]):
        found += f"; there is {meant[0][:64]!r}"
    problems.append(Problem(key, f"required, and it is {found}"))
    return ""


def _is_nearly(name: str, key: str) -> bool:
    return name.startswith("_") and name not in _REQUIRED and nearly(name, (key,)) is not None


def _component_id(value: Document, problems: list[Problem]) -> str:
    text = _text(value, "_component_id", problems)
    if text in PSEUDO_IDS:
        problems.append(Problem("_component_id", f"{text!r} is reserved: edges use it for no component"))
    return text


def _structure_component(value: Any, _: type[Component]) -> Component:
    fields = _object(value)
    problems: list[Problem] = []
    component = Component(_component_id(fields, problems), fields)
    if problems:
        raise _Malformed(problems)
    return component


def _structure_change(value: Any, _: type[Change]) -> Change:
    fields = _object(value)
    problems: list[Problem] = []
    component_id = _component_id(fields, problems)
    kind_of = _text(fields, "_component", problems)
    provider = _text(fields, "_provider", problems)
    action_text = _text(fields, "_action", problems)
    action = _ACTIONS.get(action_text)
    if action is None and action_text:
        allowed = ", ".join(_ACTIONS)
        problems.append(Problem("_action", f"{action_text[:64]!r} is none of {allowed}"))
    state_text = fields.get("_state")
    state = _STATES.get(state_text) if isinstance(state_text, str | None) else None
    if state is None:
        shown = repr(state_text[:64]) if isinstance(state_text, str) else kind(state_text)
        allowed = ", ".join(_STATES[name].value for name in _STATES if name)
        problems.append(Problem("_state", f"{shown} is none of {allowed}"))
    timeout = _timeout(fields, problems)
    retry = _retry(fields, problems)
    if problems or action is None or state is None:
        raise _Malformed(problems)
    if state_text != state.value:
        fields = {**fields, "_state": state.value}
    attempts = _attempts(fields)
    if ATTEMPTS in fields:
        # Added by a store for itself: of no use to a connector, or in the report.
        fields = {name: value for name, value in fields.items() if name != ATTEMPTS}
    settings = {name: fields[name] for name in SETTINGS if name in fields}
    sensitive = has_secret_names(fields)
    return Change(
        component_id,
        kind_of,
        action,
        provider,
        state,
        encode(fields),
        timeout,
        retry,
        attempts,
        settings or _NONE,
        sensitive,
    )


def _timeout(fields: Document, problems: list[Problem]) -> float | None:
    value = fields.get("_timeout")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= _MAX_TIMEOUT:
        text = f"seconds, above 0 and at most {_MAX_TIMEOUT:.0f}; it is {found(value)}{in_seconds(value)}"
        problems.append(Problem("_timeout", text))
        return None
    return float(value)


def _retry(fields: Document, problems: list[Problem]) -> Retry | None:
    value = fields.get("_retry")
    if value is None:
        return None
    try:
        return read_retry(value)
    except InvalidRule as error:
        problems.append(Problem("_retry", str(error)))
        return None


def _attempts(fields: Document) -> int:
    value = fields.get(ATTEMPTS)
    return value if type(value) is int and 0 <= value < _MOST_ATTEMPTS else 0


def _structure_edge(value: Any, _: type[Edge]) -> Edge:
    fields = _object(value)
    problems: list[Problem] = []
    source = _text(fields, "source", problems)
    destination = _text(fields, "destination", problems)
    length = fields.get("length")
    if length is not None and type(length) is not int:
        problems.append(Problem("length", f"an integer; it is {kind(length)}"))
    if problems:
        raise _Malformed(problems)
    extra = {key: fields[key] for key in fields.keys() - _EDGE_KEYS}
    return Edge(source, destination, length, extra or None)


def _unstructure_edge(edge: Edge) -> Document:
    document: Document = {"source": edge.source, "destination": edge.destination}
    if edge.length is not None:
        document["length"] = edge.length
    return document if edge.extra is None else {**document, **edge.extra}


def _unstructure_build(build: Build) -> Document:
    lists = {name: _converter.unstructure(getattr(build, name)) for name in _LISTS}
    return {**build.fields, **written(lists, build.fields, build.absent)}


def _make_converter() -> Converter:
    converter = Converter()
    converter.register_structure_hook(Component, _structure_component)
    converter.register_structure_hook(Change, _structure_change)
    converter.register_structure_hook(Edge, _structure_edge)
    converter.register_unstructure_hook(Component, lambda component: component.fields)
    converter.register_unstructure_hook(Change, lambda change: change.fields)
    converter.register_unstructure_hook(Edge, _unstructure_edge)
    converter.register_unstructure_hook(Build, _unstructure_build)
    return converter


_converter = _make_converter()


def to_document(item: Build | Component | Change | Edge) -> Document:
    """Return ``item`` as a JSON object, which may share its parts with ``item``."""
    document: Document = _converter.unstructure(item)
    return document


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
    return value if isinstance(value, str) and _BUILD_ID.fullmatch(value) else None
