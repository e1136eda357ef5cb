"""Conversion of single documents to the model and back; every mistake is named with its place.

A document is decoded JSON. cattrs does the conversion, with one explicit pair of hooks for each class: the
fields that the scheduler looks at are checked and typed, and the whole object is passed on as ``fields``, so
that everything is kept that a user or a connector put into it.
"""

import re
from collections.abc import Iterable
from typing import Any, TypeAlias

from cattrs import Converter

from scheduler.definition.model import (
    ATTEMPTS,
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
from scheduler.definition.strictjson import encode, kind
from scheduler.errors import InvalidRule, Problem

Document: TypeAlias = dict[str, Any]

BUILD_ID = re.compile(r"[A-Za-z0-9._:@/-]{1,128}")

_ACTIONS = {action.value: action for action in Action}

_STATES = {state.value: state for state in State} | {"": State.WAITING, None: State.WAITING}

MAX_TIMEOUT = 366 * 86_400.0
MAX_HEARTBEAT = 86_400.0

_NONE: Document = {}

_UNUSUAL = frozenset({*SETTINGS, ATTEMPTS})

EDGE_KEYS = {"source", "destination", "length"}
LISTS = ("components", "changes", "edges")
_MOST_ATTEMPTS = 1_000_000


class Malformed(Exception):
    """All mistakes in one object, with places relative to it."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(problems)
        self.problems = problems


_REQUIRED = ("_component_id", "_component", "_provider", "_action")


def build_id_of(document: Document) -> str:
    """Return the id of a build.

    Raises:
        Malformed: it is missing, or not an id.
    """
    value = document.get("id")
    if not isinstance(value, str) or not value:
        found = f"it is {kind(value)}" if value else "it is missing"
        raise Malformed([Problem("", f"a build needs an id; {found}")])
    if not BUILD_ID.fullmatch(value):
        shown = value if len(value) <= 128 else f"{value[:128]}... ({len(value)} characters)"
        raise Malformed([Problem("", f"{shown!r} does not match [A-Za-z0-9._:@/-]{{1,128}}")])
    return value


def as_object(value: Any) -> Document:
    """Return ``value``, which must be an object.

    Raises:
        Malformed: it is something else.
    """
    if type(value) is not dict:
        raise Malformed([Problem("", f"expected an object, got {kind(value)}")])
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
    fields = as_object(value)
    problems: list[Problem] = []
    component = Component(_component_id(fields, problems), fields)
    if problems:
        raise Malformed(problems)
    return component


def _plain_change(fields: Document) -> Change | None:
    """Make a change that has no settings of its own, as nearly all have none; None for any other."""
    get = fields.get
    name, type_, provider = get("_component_id"), get("_component"), get("_provider")
    action, state = get("_action"), get("_state")
    if not (name.__class__ is type_.__class__ is provider.__class__ is action.__class__ is str):
        return None
    known = _ACTIONS.get(action)
    if known is None or state.__class__ is not str or not (name and type_ and provider and state):
        return None
    current = _STATES.get(state)
    if current is None or name in PSEUDO_IDS or not _UNUSUAL.isdisjoint(fields):
        return None
    raw = encode(fields)
    sensitive = has_secret_names(fields, texts=b"@" in raw)
    return Change(name, type_, known, provider, current, raw, None, None, 0, _NONE, sensitive)


def _structure_change(value: Any, _: type[Change]) -> Change:
    fields = as_object(value)
    plain = _plain_change(fields)
    if plain is not None:
        return plain
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
    timeout = _seconds(fields, "_timeout", MAX_TIMEOUT, problems)
    _seconds(fields, "_heartbeat", MAX_HEARTBEAT, problems)
    retry = _retry(fields, problems)
    if retry is not None and action is Action.APPROVE:
        text = "a gate is not tried again: leave it out; `scheduler retry` asks again after a rejection"
        problems.append(Problem("_retry", text))
    if problems or action is None or state is None:
        raise Malformed(problems)
    if state_text != state.value:
        fields = {**fields, "_state": state.value}
    attempts = _attempts(fields)
    if ATTEMPTS in fields:
        # Added by a store for itself: of no use to a connector, or in the report.
        fields = {name: value for name, value in fields.items() if name != ATTEMPTS}
    settings = {name: fields[name] for name in SETTINGS if name in fields}
    raw = encode(fields)
    sensitive = has_secret_names(fields, texts=b"@" in raw)
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


def _seconds(fields: Document, name: str, most: float, problems: list[Problem]) -> float | None:
    value = fields.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= most:
        text = f"seconds, above 0 and at most {most:.0f}; it is {found(value)}{in_seconds(value)}"
        problems.append(Problem(name, text))
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
    fields = as_object(value)
    problems: list[Problem] = []
    source = _text(fields, "source", problems)
    destination = _text(fields, "destination", problems)
    length = fields.get("length")
    if length is not None and type(length) is not int:
        problems.append(Problem("length", f"an integer; it is {kind(length)}"))
    if problems:
        raise Malformed(problems)
    extra = {key: fields[key] for key in fields.keys() - EDGE_KEYS}
    return Edge(source, destination, length, extra or None)


def written_edges(edges: Iterable[Edge]) -> list[Edge | Document]:
    """Return edges as they are encoded: most of them are their own JSON."""
    return [edge if edge.extra is None else edge_document(edge) for edge in edges]


def edge_document(edge: Edge) -> Document:
    """Return an edge as a JSON object."""
    document: Document = {"source": edge.source, "destination": edge.destination}
    if edge.length is not None:
        document["length"] = edge.length
    return document if edge.extra is None else {**document, **edge.extra}


def _unstructure_build(build: Build) -> Document:
    lists = {name: converter.unstructure(getattr(build, name)) for name in LISTS}
    return {**build.fields, **written(lists, build.fields, build.absent)}


def _make_converter() -> Converter:
    converter = Converter()
    converter.register_structure_hook(Component, _structure_component)
    converter.register_structure_hook(Change, _structure_change)
    converter.register_structure_hook(Edge, _structure_edge)
    converter.register_unstructure_hook(Component, lambda component: component.fields)
    converter.register_unstructure_hook(Change, lambda change: change.fields)
    converter.register_unstructure_hook(Edge, edge_document)
    converter.register_unstructure_hook(Build, _unstructure_build)
    return converter


converter = _make_converter()


def to_document(item: Build | Component | Change | Edge) -> Document:
    """Return ``item`` as a JSON object, which may share its parts with ``item``."""
    document: Document = converter.unstructure(item)
    return document
