"""References and expressions in a component's fields (WIRE: "References").

A change is compiled once, when its build is accepted: its JSON becomes constant runs of bytes with slots
between them. When it is due the slots are filled, from what its dependencies returned, and all is joined::

    compile_change()  ->  Template  ->  check(), needs()     at intake, against what was submitted
                                    ->  render()             when due
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from enum import StrEnum
from itertools import islice
from typing import Any

import msgspec
from attrs import frozen

from scheduler import references
from scheduler.errors import InvalidTemplate, Problem, SchedulerError, TemplateError, Unresolved
from scheduler.jsonparts import MAX_RENDERED, encode, unwritable
from scheduler.limits import Limits
from scheduler.model import Change
from scheduler.references import PathText, Syntax, Target, Text
from scheduler.resolve import Found, Owner, Place, Raw, Resolver, Scope, join_place, raw_fields

__all__ = [
    "Found",
    "InvalidTemplate",
    "OnUnresolved",
    "Reference",
    "Rendered",
    "Scope",
    "Template",
    "Templates",
    "compile_change",
]


class Templates(StrEnum):
    """Which forms of references there are."""

    ALL = "all"
    ERNEST = "ernest"
    """``$(path)`` only: ``{{ }}`` is plain text."""


class OnUnresolved(StrEnum):
    """What becomes of a ``$(path)`` that leads to nothing."""

    ERROR = "error"
    KEEP = "keep"
    """It goes out as it stands, as Ernest's scheduler did."""


@frozen
class Reference:
    """One reference of a component."""

    place: str
    """Where in the component it stands: ``tags.x``, ``rules[0].ip``."""
    text: str
    """As it is written, cut at 200 characters."""
    id: str | None
    """The component that it names by a constant."""
    guarded: bool
    """Whether the component can do without: it stands under ``default`` or ``is defined``, or in a branch."""


@frozen
class Rendered:
    """A component that is ready to be sent."""

    body: bytes
    """Its JSON, with ``_state`` running and ``service`` the build's id."""
    type: str
    provider: str


class _UnknownError(SchedulerError):
    """Something that cannot be known before the build runs."""


class _Known:
    """The part of a scope that will still be the same when the component is due."""

    __slots__ = ("_open_ended", "_scope", "_supplied", "build")

    def __init__(self, scope: Scope, supplied: Callable[[str], bool], *, open_ended: bool) -> None:
        self._scope = scope
        self._supplied = supplied
        self._open_ended = open_ended
        self.build = scope.build

    def find(self, id: str) -> Found | None:  # noqa: A002 - the word of the model
        if self._supplied(id):
            raise _UnknownError
        found = self._scope.find(id)
        if found is None and self._open_ended:
            raise _UnknownError
        return found

    def all(self) -> Sequence[Found]:
        raise _UnknownError

    def ids(self) -> Iterable[str]:
        return self._scope.ids()


class Template:
    """A change with its references found. Made by `compile_change`."""

    __slots__ = ("_change", "_limits", "_raw", "_runs", "_slots", "_syntax", "nodes")

    def __init__(
        self,
        change: Change,
        runs: tuple[bytes, ...],
        slots: "tuple[tuple[str, Text], ...]",
        syntax: Syntax,
        raw: Raw,
        limits: Limits,
    ) -> None:
        self._change = change
        self._runs = runs
        self._slots = slots
        self._syntax = syntax
        self._raw = raw
        self._limits = limits
        self.nodes = sum(text.nodes for _, text in slots)
        """Its part in ``max_template_nodes`` of the build."""

    @property
    def constant(self) -> bool:
        """Whether there is nothing to render."""
        return not self._slots

    @property
    def references(self) -> tuple[Reference, ...]:
        """Every reference in it."""
        return tuple(
            Reference(place, target.text, target.id, target.guarded)
            for place, text in self._slots
            for target in text.targets()
        )

    def render(self, scope: Scope) -> Rendered:
        """The component as it is to be sent.

        Raises:
            Unresolved: It needs something that is absent or null.
            TemplateError: A reference cannot be resolved, or what it leads to is too large. Both messages
                begin with the place: ``instance::web-1.tags.x: ...``.
        """
        change = self._change
        type_, provider = change.type, change.provider
        parts = [self._runs[0]]
        size = len(parts[0])
        resolver: Resolver | None = None
        for (place, text), run in zip(self._slots, self._runs[1:], strict=True):
            try:
                chunk = _quick(text, scope)
                if chunk is None:
                    if resolver is None:
                        resolver = self._resolver(scope)
                    chunk = encode(resolver.evaluate(text, resolver.owner, place))
                size += len(chunk) + len(run)
                if size > MAX_RENDERED:
                    raise TemplateError(f"the component would be over {MAX_RENDERED} bytes, the limit")  # noqa: TRY301
                if place == "_component":
                    type_ = _token(chunk)
                elif place == "_provider":
                    provider = _token(chunk)
            except TemplateError as error:
                kind = Unresolved if isinstance(error, Unresolved) else TemplateError
                raise kind(f"{change.id}.{place}: {error}") from error
            parts.append(chunk)
            parts.append(run)
        return Rendered(b"".join(parts), type_, provider)

    def check(
        self,
        scope: Scope,
        supplied: Callable[[str], bool],
        *,
        open_ended: bool = False,
        suggest: bool = True,
    ) -> list[Problem]:
        """What is known at intake to resolve to nothing, or not at all.

        Args:
            scope: What was submitted.
            supplied: Whether a change of this build returns the component with an id, so that nothing can
                be said about its fields.
            open_ended: Whether a ``find`` among the dependencies may return components of any id.
            suggest: Whether to look for the id that was meant, which takes a moment with many ids.
        """
        problems: list[Problem] = []
        known = _Known(scope, supplied, open_ended=open_ended)
        resolver: Resolver | None = None
        for place, text in self._slots:
            if self._syntax.keep and isinstance(text, PathText):
                continue
            judged = True
            for target in text.targets():
                if target.guarded or target.id is None:
                    continue
                if supplied(target.id):
                    judged = False
                elif scope.find(target.id) is None:
                    judged = False
                    if not open_ended:
                        cure = _suggestion(target.id, scope.ids()) if suggest else ""
                        problem = Problem(f"{self._change.id}.{place}", f"there is no '{target.id}'{cure}")
                        if problem not in problems:
                            problems.append(problem)
            if not judged:
                continue
            if resolver is None:
                resolver = self._resolver(known)
            try:
                encode(resolver.evaluate(text, resolver.owner, place))
            except _UnknownError:
                continue
            except TemplateError as error:
                problems.append(Problem(f"{self._change.id}.{place}", str(error)))
        return problems

    def needs(self, scope: Scope) -> frozenset[str]:
        """Every id that rendering can touch by a constant, through definitions in turn.

        Args:
            scope: What was submitted.
        """
        ids: set[str] = set()
        # Of the component itself all strings are slots already: nothing need be followed to find them.
        todo = [target for _, text in self._slots for target in text.targets() if target.root != "component"]
        seen: set[tuple[int, str]] = set()
        while todo:
            target = todo.pop()
            if target.id is None:
                continue
            ids.add(target.id)
            found = scope.find(target.id)
            if found is not None and found.definition:
                todo.extend(self._behind(Owner(found.document), target.keys, seen))
        return frozenset(ids)

    def _behind(
        self, owner: Owner, keys: tuple[str | int, ...], seen: set[tuple[int, str]]
    ) -> "Iterable[Target]":
        """The references in what ``keys`` lead to within a definition, its own fields followed."""
        todo = [keys]
        while todo:
            for text in _texts_below(owner, todo.pop(), self._syntax, seen):
                for target in text.targets():
                    if target.root == "component":
                        todo.append(target.keys)
                    else:
                        yield target

    def _resolver(self, scope: Scope) -> Resolver:
        owner = Owner(self._change.fields, self._raw)
        return Resolver(scope, owner, self._syntax, self._limits.max_digits)


def compile_change(
    component: Change, build: str, *, templates: Templates, unresolved: OnUnresolved, limits: Limits
) -> Template:
    """Find the references of a change, and make the rest of it bytes.

    Args:
        component: The change as submitted; it is kept, and must not be changed.
        build: The id of its build, which becomes ``service``.
        templates: Which forms of references there are.
        unresolved: What becomes of a ``$(path)`` that leads to nothing.
        limits: The bounds.

    Raises:
        InvalidTemplate: With every problem: syntax that cannot be read or is not allowed, what is over a
            limit, text that cannot be written. Each names its place.
    """
    syntax = Syntax(templates is Templates.ALL, unresolved is OnUnresolved.KEEP)
    cutter = _Cutter(component.id, syntax)
    fields: Mapping[str, Any] = {**component.fields, "_state": "running", "service": build}
    try:
        body = encode(fields)
    except TemplateError:
        # Where the surrogate is: slow, and only ever done once for a build that is refused.
        cutter.find_unwritable(fields, "")
        raise InvalidTemplate(cutter.problems) from None
    raw = cutter.raw(component.fields)
    if b"{{" in body or b'"$(' in body:
        fields = cutter.cut(fields, "", raw)
    if cutter.problems:
        raise InvalidTemplate(cutter.problems)
    runs = tuple(encode(fields).split(_HOLE)) if cutter.slots else (body,)
    template = Template(component, runs, tuple(cutter.slots), syntax, raw, limits)
    if template.nodes > limits.max_template_nodes:
        message = f"{template.nodes} template nodes; max_template_nodes is {limits.max_template_nodes}"
        raise InvalidTemplate([Problem(component.id, message)])
    return template


# A slot is encoded as one zero byte, which JSON cannot hold: that is where the constant runs are cut apart.
_HOLE = b"\0"
_SLOT = msgspec.Raw(_HOLE)


class _Cutter:
    """Takes the references out of a component's fields."""

    def __init__(self, id: str, syntax: Syntax) -> None:  # noqa: A002 - the word of the model
        self.id = id
        self.syntax = syntax
        self.slots: list[tuple[str, Text]] = []
        self.problems: list[Problem] = []

    def refuse(self, place: str, message: str) -> None:
        self.problems.append(Problem(f"{self.id}.{place}" if place else self.id, message))

    def raw(self, fields: Mapping[str, Any]) -> Raw:
        try:
            return raw_fields(fields)
        except TemplateError as error:
            self.refuse("_raw", str(error))
            return {}

    def cut(self, value: Any, place: str, raw: Raw | None) -> Any:
        """``value`` with a hole where a reference stands; ``value`` itself if there is none."""
        if isinstance(value, str):
            return self.cut_text(value, place) if references.may_refer(value) else value
        items: Iterable[tuple[Any, Any]]
        if isinstance(value, dict):
            items = value.items()
        elif isinstance(value, list):
            items = enumerate(value)
        else:
            return value
        copy: Any = None
        for key, item in items:
            if not isinstance(item, str | dict | list):
                continue
            below = None if raw is None else raw.get(str(key))
            if below is not None and not below:
                continue
            if isinstance(item, str) and not references.may_refer(item):
                continue
            changed = self.cut(item, join_place(place, key), below)
            if changed is not item:
                if copy is None:
                    copy = value.copy()
                copy[key] = changed
        return value if copy is None else copy

    def cut_text(self, value: str, place: str) -> Any:
        try:
            text = references.read(value, self.syntax)
        except TemplateError as error:
            self.refuse(place, str(error))
            return value
        if text is None:
            return value
        self.slots.append((place, text))
        return _SLOT

    def find_unwritable(self, value: Any, place: str) -> None:
        """Report every string in ``value`` that has no UTF-8."""
        match value:
            case str():
                try:
                    value.encode()
                except UnicodeEncodeError as error:
                    self.refuse(place, unwritable(error))
            case dict():
                for key, item in value.items():
                    name = key.encode("utf-8", "backslashreplace").decode()
                    if name != key:
                        self.refuse(join_place(place, name), "the name holds a lone surrogate")
                    self.find_unwritable(item, join_place(place, name))
            case list():
                for index, item in enumerate(value):
                    self.find_unwritable(item, join_place(place, index))


def _quick(text: Text, scope: Scope) -> bytes | None:
    """The JSON for the reference that is by far the most common: one field of one component, plain text.

    None if it is anything else, or if anything at all about it needs a closer look.
    """
    keys: Sequence[object]
    if isinstance(text, PathText):
        if text.id is None:
            return None
        name: object = text.id
        keys = text.path
    else:
        only = text.parts[0]
        if len(text.parts) > 1 or isinstance(only, str) or only.program is not None:
            return None
        lookup = only.lookups[0]
        if lookup.root != "components":
            return None
        name, keys = lookup.keys[0], lookup.keys[1:]
    found = scope.find(name) if isinstance(name, str) else None
    if found is None:
        return None
    value: Any = found.document
    for key in keys:
        if not isinstance(value, dict) or not isinstance(key, str):
            return None
        value = value.get(key)
    if (
        not isinstance(value, str)
        or len(value) > _SHORT
        or (found.definition and references.may_refer(value))
    ):
        return None
    return encode(value)


_SHORT = 4096


def _token(chunk: bytes) -> str:
    value = msgspec.json.decode(chunk)
    if not isinstance(value, str):
        raise TemplateError("is a part of the subject, and must be text")
    return value


def _texts_below(
    owner: Owner, keys: tuple[str | int, ...], syntax: Syntax, seen: set[tuple[int, str]]
) -> Iterable[Text]:
    """The templates that are met on the way along ``keys``, or within what they lead to."""
    value: Any = owner.document
    where: Place | None = Place(owner, "", owner.raw)
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
                continue  # `check` says so, if it matters
            if text is not None:
                yield text


def _is_plain(value: object) -> bool:
    return not isinstance(value, dict | list) and not (isinstance(value, str) and references.may_refer(value))


_CANDIDATES = 500
"""Ids that a mistyped one is compared with: some milliseconds."""


def _suggestion(id: str, ids: Iterable[str]) -> str:  # noqa: A002 - the word of the model
    """``; did you mean 'x'?``, if there is something like it."""
    kind = id[:3]
    like = (one for one in ids if abs(len(one) - len(id)) <= 4 and one[:3] == kind)
    found = get_close_matches(id, islice(like, _CANDIDATES), n=1, cutoff=0.75)
    return f"; did you mean '{found[0]}'?" if found else ""
