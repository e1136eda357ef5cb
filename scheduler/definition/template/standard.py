"""Standard references: those of nearly all components, found in a component's JSON as it stands.

A standard component has no other references than ``$(components.#[_component_id="x"].key)`` as a whole
string, and ``{{ components["x"].key }}`` in a string. To find and to fill them takes no decoding: their
places in the bytes are enough, and components of one kind share all but those places and the ids. So a
template needs no copy of its component.

Whatever else there is in a component that may be special, all of it is left to `cutting`: it finds the same
where both can (and takes ten times as long), and is the only place that writes messages.
"""

import re
import struct
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Final, NamedTuple

from msgspec import Struct

from scheduler.definition.choices import OnUnresolved, Templates
from scheduler.definition.limits import Limits
from scheduler.definition.model import Change, State
from scheduler.definition.places import MAX_PLACE
from scheduler.definition.strictjson import encode
from scheduler.definition.template.paths import MAX_SEGMENTS
from scheduler.definition.template.references import READING, Syntax
from scheduler.definition.template.scopes import Scope, plain_text
from scheduler.definition.template.work import free

_LONGEST: Final = 8 * 1024
"""Bytes of a component that may be standard: to read one again in the general way takes little."""
_SHORT: Final = 256
"""Bytes of a string with standard references."""
MOST_NODES: Final = 32
"""Keys and references of a component, together, from which on it is not standard."""
_FILLED: Final = 4_096
"""Characters of all values together: with them no string comes near to a limit."""
INDEX: Final = 9
"""Characters of a place for a list, at most, beyond the bytes that it takes in JSON."""
_NAME: Final = rb"[A-Za-z_][A-Za-z0-9_]*+"
PATH: Final = re.compile(
    rb'"\$\(components\.\#\[_component_id=\\"([^"\\$]++)\\"\]\.(%b(?:\.%b)*+)\)"(?!:)' % (_NAME, _NAME)
)
EXPRESSION: Final = re.compile(
    rb'\{\{ *+components\[\\"([^"\\{}]++)\\"\]((?:\.[A-Za-z][A-Za-z0-9_]*+)*+) *+\}\}'
)
_PLAIN: Final = re.compile(rb'(?:[^"\\{]++|\\.|\{(?!\{))*+')
_OPENING: Final = b":,["
"""Bytes before a string that is a value. A quote within a string stands behind a backslash."""
_QUOTE, _BACKSLASH, _COLON = b'"\\:'
_STATE: Final = b'"_state":'
_WAITING: Final = b'"_state":"waiting"'
_RUNNING: Final = b'"_state":"running"'
"""Of the same length: the places of the references are the same in both."""
_UNDONE: Final = frozenset({State.WAITING, State.RUNNING})
_SERVICE: Final = b'"service":'
_RAW: Final = b'"_raw":'
_SECRET: Final = b'"_secret":'
_ADOPTABLE: Final = b'"adoptable":'


class Terms(NamedTuple):
    """Terms of one build, which all its templates have in common."""

    build: str
    """Id of the build, which becomes ``service``."""
    syntax: Syntax
    limits: Limits
    service: bytes
    """The member ``service`` in JSON."""

    @classmethod
    def of(cls, build: str, templates: Templates, unresolved: OnUnresolved, limits: Limits) -> "Terms":
        """Return the terms of a build by its settings."""
        syntax = Syntax(templates is Templates.ALL, unresolved is OnUnresolved.KEEP)
        return cls(build, syntax, limits, _SERVICE + encode(build))


class Form(NamedTuple):
    """Form of standard components of one kind: all but the ids, and the places in their JSON."""

    keys: tuple[tuple[str, ...], ...]
    """Keys of each reference, behind the id."""
    wholes: tuple[bool, ...]
    """Whether each reference is a whole string, with its quotes."""
    serviced: bool
    """Whether the component has the right ``service`` already."""
    nodes: int
    """Its share of the build's ``max_template_nodes``."""
    places: struct.Struct
    """Layout of `Standard.places`."""


@lru_cache(maxsize=512)
def form_of(paths: tuple[bytes, ...], serviced: bool) -> Form:
    """Return the form of a component.

    Args:
        paths: keys of each reference: ``.a.b`` in an expression, or nothing; otherwise ``a.b``.
        serviced: as there.
    """
    keys = tuple(tuple(path.decode().removeprefix(".").split(".")) if path else () for path in paths)
    wholes = tuple(path[:1] not in {b".", b""} for path in paths)
    # The id is a key of an expression.
    nodes = sum(1 + len(own) + (not whole) for own, whole in zip(keys, wholes, strict=True))
    return Form(keys, wholes, serviced, nodes, struct.Struct(f"{2 * len(paths)}H"))


class Standard(Struct, gc=False):
    """The references of a standard component. Made by `find`, or of a known shape (`shapes`)."""

    form: Form
    names: tuple[str, ...]
    """Id of the component that each reference names."""
    places: bytes
    """Begin and end of each reference in the JSON of the change."""

    def fill(self, raw: bytes, scope: Scope, terms: Terms) -> bytes | None:
        """Return the component as it is sent; None where a value is not short, plain text.

        Args:
            raw: the change as submitted, as it was searched.
            scope: source of the values.
            terms: terms of the build.

        Raises:
            TemplateError: a value needs a closer look.
        """
        form = self.form
        raw = raw.replace(_WAITING, _RUNNING, 1)
        if not form.serviced:
            raw = b"%b,%b}" % (raw[:-1], terms.service)
        if not self.names:
            return raw
        places = form.places.unpack(self.places)
        parts: list[bytes] = []
        at = size = place = 0
        for name, keys, whole in zip(self.names, form.keys, form.wholes, strict=True):
            value = plain_text(name, keys, scope)
            if value is None or (whole and not value and terms.syntax.keep):
                return None
            size += len(value)
            try:
                text = encode(value)
            except UnicodeEncodeError:
                return None
            parts += raw[at : places[place]], text if whole else text[1:-1]
            at = places[place + 1]
            place += 2
        if size > _FILLED:
            return None
        parts.append(raw[at:])
        return b"".join(parts)


def find(
    change: Change, terms: Terms, words: Mapping[str, str], spend: Callable[[int], None] = free
) -> Standard | None:
    """Return the references of a standard component; None where it is not one.

    Args:
        change: the change as submitted.
        terms: terms of its build.
        words: ids that are kept anyway, by themselves.
        spend: function that is called with the units of work for a text with references, as in the general
            way. There are none for looking into lists and objects: nobody does.
    """
    raw = change.raw
    if len(raw) > _LONGEST or change.state not in _UNDONE or raw.count(_STATE) != 1 or _RAW in raw:
        return None
    if not terms.syntax.expressions and b"{{" in raw and len(raw) + INDEX * raw.count(b"[") > MAX_PLACE:
        # It is no reference, but where a place is too long the general way refuses what looks like one.
        return None
    at = raw.find(_SERVICE)
    if at >= 0 and not _is_right(raw, at, terms.service):
        return None
    path = raw.find(b'"$(')
    brace = raw.find(b"{{") if terms.syntax.expressions else -1
    if path < 0 and brace < 0:
        return Standard(form_of((), at >= 0), (), b"")
    hits = None if _is_special(change) else _search(raw, path, brace, words)
    if hits is None:
        return None
    form = form_of(tuple(hits.paths), at >= 0)
    if form.nodes > MOST_NODES or hits.end + INDEX * raw.count(b"[") > MAX_PLACE:
        return None
    spend(hits.work)
    return Standard(form, tuple(hits.names), form.places.pack(*hits.places))


def _is_right(raw: bytes, at: int, service: bytes) -> bool:
    """Whether the only ``service`` is that of the component itself, and needs not be changed."""
    if not raw.startswith(service, at) or raw.find(_SERVICE, at + 1) >= 0:
        return False
    # It stands in no inner object if none began before it, or none ends behind it.
    return raw.find(b"{", 1, at) < 0 or raw.find(b"}", at, -1) < 0


def _is_special(change: Change) -> bool:
    """Whether a reference may stand where it is none, or is part of the subject."""
    words, raw = f"{change.id} {change.type} {change.provider}", change.raw
    return "$(" in words or "{{" in words or _SECRET in raw or _ADOPTABLE in raw


class _Hits:
    """References that were found."""

    __slots__ = ("end", "names", "paths", "places", "work")

    def __init__(self) -> None:
        self.names: list[str] = []
        self.paths: list[bytes] = []
        self.places: list[int] = []
        self.end = 0
        """Place behind the last string with references."""
        self.work = 0

    def add(self, found: re.Match[bytes], words: Mapping[str, str]) -> int:
        """Add one; return its end."""
        name, path = found.groups()
        text = name.decode()
        self.names.append(words.get(text, text))
        self.paths.append(path)
        begin, end = found.span()
        self.places += begin, end
        return end


def _search(raw: bytes, path: int, brace: int, words: Mapping[str, str]) -> _Hits | None:
    """Find the references from the first places on where one may be; None where one is not standard."""
    hits = _Hits()
    while path >= 0 or brace >= 0:
        if brace < 0 or 0 <= path < brace:
            begin = path
            if raw[begin - 1] == _BACKSLASH:
                path = raw.find(b'"$(', begin + 1)
                continue
            found = PATH.match(raw, begin)
            if found is None or found[0].count(b".") >= MAX_SEGMENTS:
                return None
            end = hits.add(found, words)
        else:
            begin = _beginning(raw, hits.end, brace)
            if raw[begin - 1] not in _OPENING:
                return None
            end = brace
            while raw[end] != _QUOTE:
                found = EXPRESSION.match(raw, end)
                if found is None:
                    return None
                end = _end_of_plain(raw, hits.add(found, words))
            end += 1
            if raw[end] == _COLON:
                return None
        if end - begin > _SHORT:
            return None
        hits.work += READING + (end - begin >> 2)
        hits.end = end
        if 0 <= path < end:
            path = raw.find(b'"$(', end)
        if 0 <= brace < end:
            brace = raw.find(b"{{", end)
    return hits


def _beginning(raw: bytes, start: int, at: int) -> int:
    """Return the place of the quote that begins the string at a place; it stands behind ``start``."""
    begin = raw.rfind(b'"', start, at)
    while raw[begin - 1] == _BACKSLASH:
        begin = raw.rfind(b'"', start, begin)
    return begin


def _end_of_plain(raw: bytes, start: int) -> int:
    """Return the place behind plain text: of the quote that ends the string, or of an expression."""
    found = _PLAIN.match(raw, start)
    assert found is not None
    return found.end()
