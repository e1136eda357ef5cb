"""The secrets of one build, and texts and documents without them.

What counts as secret: every value under a secret name (`secretnames`), at any depth; in a component of a
type that says ``credential`` also what stands under a name such as ``key``; and what a component names in its
``_secret``. A build learns them when it is read, and from what its connectors return.

Masking is for logs, events and screens. What is stored and reported is what was said.

A text is searched for all of them at once, in time that its length bounds, whatever the secrets are.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import quote

import msgspec

from scheduler.errors import Problem, TemplateError
from scheduler.model import Build, Change, State
from scheduler.secretnames import (
    MASK,
    has_secret_names,
    is_credentials,
    is_secret_among_credentials,
    is_secret_name,
    mask_named,
)
from scheduler.template.places import Raw, named_fields
from scheduler.text import CUT, mask_url

SHORTEST: Final = 4
"""Characters; a shorter value is not looked for in texts: it would be found everywhere."""
_SHORTEST_NUMBER = 6
"""Digits; shorter ones are sizes and ports."""
_SHORTEST_PIECE = 8
"""Characters of what stands between the references in a secret field."""
_PUNCTUATION = " \t\r\n.,:;/|@=&?\"'"
_TRIVIAL = frozenset({"true", "false", "null", "none", "undefined", "unknown", "default"})
_PLAIN = re.compile(r"[A-Za-z0-9_.~-]*")
"""Text that every way of escaping leaves as it is."""
_LONGEST_START = 64
_LONGEST_HALF = 16_384
"""Characters before a cut that may be the beginning of a secret."""
_MOST_TRIES = 20_000
"""Comparisons that one text may take, beside one for each of its characters."""
_DEEPEST = 256
_PATH = re.compile(r"[.\[\]]")
_NOT_SECRET, _CREDENTIALS, _HELD, _SECRET = range(4)
"""How secret something is: not at all; as what stands in credentials, by its name; an object in it is as
credentials, and all else is secret; it is secret, all of it."""
_CONCEALED = (
    "'{{' or '$(' begins nothing that can be read here; what it is is not shown, since the field is "
    "secret: name it in _raw if it is meant literally"
)


class Secrets:
    """The values known to be secret in one build.

    They are found by their first characters: 4 to 64, as many as a power of two not above their length.
    That leaves very few to compare with at any place of a text; where somebody has made it many, a text is
    masked from there to its end rather than searched for long.
    """

    __slots__ = ("_by_start", "_starts", "_values")

    def __init__(self) -> None:
        self._values: set[str] = set()
        self._starts: set[str] = set()
        """The first 4 characters of each form of each value."""
        self._by_start: dict[int, dict[str, list[str]]] = {}
        """By the number of characters, and by those characters: the forms that begin with them."""

    @classmethod
    def of(cls, build: Build) -> "Secrets":
        """Those of a build as it was read.

        For a thread where the build is large, as the rest of reading is.
        """
        secrets = cls()
        secrets.add(build.fields, literal=False)
        for component in build.components:
            secrets.add(component.fields, literal=False)
        for change in build.changes:
            if change.sensitive:
                secrets.add(change.fields, literal=change.state is State.COMPLETED)
        return secrets

    @classmethod
    def of_document(cls, document: Mapping[str, Any]) -> "Secrets":
        """Those of a build, or of its report, as JSON: as far as it tells by itself what is secret."""
        secrets = cls()
        secrets.add(document, literal=False)
        return secrets

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"<Secrets: {len(self)}>"

    def add_json(self, data: bytes) -> None:
        """`add` for a component's JSON, such as it was sent: its references have become what they lead to."""
        self.add(msgspec.json.decode(data))

    def add(self, document: Mapping[str, Any], *, literal: bool = True) -> None:
        """Learn the secrets of a component. If it has none this takes 2 us.

        Args:
            document: Its fields, such as a connector returned them.
            literal: Whether braces in it are text. Otherwise they are references, which are no secrets.
        """
        if not has_secret_names(document):
            return
        todo: list[tuple[Any, int, Raw | None]] = [(document, _NOT_SECRET, None)]
        while todo:
            value, level, named = todo.pop()
            items: Iterable[tuple[Any, Any]]
            if isinstance(value, dict):
                items = value.items()
                if level != _SECRET and "_component" in value:
                    level = _CREDENTIALS if is_credentials(value["_component"]) else _NOT_SECRET
                    if "_secret" in value:
                        named = _named(value)
            else:
                items = enumerate(value)
            for key, item in items:
                kind = item.__class__
                if kind is not str and kind is not dict and kind is not list and kind is not int:
                    continue
                scalar = kind is str or kind is int
                below = None if named is None else named.get(str(key))
                at = _SECRET if below is not None and not below else _level(key, level)
                if not scalar:
                    todo.append((item, at, below))
                elif at >= _HELD:
                    self._learn(item if kind is str else str(item), literal=literal)

    def _learn(self, value: str, *, literal: bool) -> None:
        if not literal and (value.startswith("$(") or "{{" in value):
            pieces = _pieces(value)
            if not any(piece.strip() for piece in pieces):
                return
            for piece in pieces:
                if len(bare := piece.strip(_PUNCTUATION)) >= _SHORTEST_PIECE:
                    self._keep(bare)
        self._keep(value.strip())

    def _keep(self, value: str) -> None:
        if len(value) < SHORTEST or value in self._values or _is_trivial(value):
            return
        self._values.add(value)
        for form in _forms(value):
            self._starts.add(form[:SHORTEST])
            length = min(1 << len(form).bit_length() - 1, _LONGEST_START)
            self._by_start.setdefault(length, {}).setdefault(form[:length], []).append(form)

    def mask(self, text: str) -> str:
        """``text`` for people: no known secret in it, nor what stands behind a secret name.

        A secret is also found as JSON, Python, Go or a URL would write it. To be called before a text is
        cut or made printable: half a secret is found only before the mark of a cut text (`outcome.cut`).
        """
        if CUT in text and self._values:
            *parts, rest = text.split(CUT)
            text = CUT.join([*map(self._without_half, parts), rest])
        return mask_url(mask_named(self._without_values(text)))

    def _without_half(self, text: str) -> str:
        """``text`` without the beginning of a secret at its end, where one was cut off."""
        tries = _MOST_TRIES
        forms = [
            form for by_start in self._by_start.values() for found in by_start.values() for form in found
        ]
        for at in range(max(0, len(text) - _LONGEST_HALF), len(text) - SHORTEST + 1):
            if text[at : at + SHORTEST] in self._starts:
                tries -= len(forms)
                if tries < 0 or any(form.startswith(text[at:]) for form in forms):
                    return text[:at] + MASK
        return text

    def mask_document(self, value: Any) -> Any:
        """A JSON value for people: ``***`` under secret names, and every text in it masked."""
        return self._shown(value, _NOT_SECRET, None, 0)

    def _shown(self, value: Any, level: int, named: Raw | None, depth: int) -> Any:
        if value is None or isinstance(value, bool):
            return value
        if depth > _DEEPEST:
            return MASK
        if isinstance(value, Mapping):
            if level != _SECRET and "_component" in value:
                level = _CREDENTIALS if is_credentials(value["_component"]) else _NOT_SECRET
                named = _named(value) if "_secret" in value else None
            return {
                self._without_values(str(key)): self._shown_under(key, item, level, named, depth)
                for key, item in value.items()
            }
        if isinstance(value, list | tuple):
            return [self._shown_under(at, item, level, named, depth) for at, item in enumerate(value)]
        return self.mask(value) if isinstance(value, str) else value

    def _shown_under(self, key: str | int, item: Any, level: int, named: Raw | None, depth: int) -> Any:
        below = None if named is None else named.get(str(key))
        at = _SECRET if below is not None and not below else _level(key, level)
        if item is None or isinstance(item, bool):
            return item
        if at == _SECRET or (at == _HELD and not isinstance(item, Mapping | list | tuple)):
            return MASK
        return self._shown(item, at, below, depth + 1)

    def mask_problem(self, problem: Problem) -> Problem:
        """A problem of a build, for people and for the answer to whoever sent it."""
        return Problem(self._without_values(problem.place), self.mask(problem.message))

    def _without_values(self, text: str) -> str:
        if not self._values or len(text) < SHORTEST:
            return text
        starts = self._starts
        places = [at for at in range(len(text) - SHORTEST + 1) if text[at : at + SHORTEST] in starts]
        if not places:
            return text
        tries = _MOST_TRIES + len(text)
        parts: list[str] = []
        done = begin = end = 0
        for place in places:
            if end == len(text):
                break
            length, tries = self._longest(text, place, tries)
            if not length:
                continue
            if place > end or not end:
                if end:
                    parts += (text[done:begin], MASK)
                    done = end
                begin = place
            end = max(end, place + length)
        return "".join((*parts, text[done:begin], MASK, text[end:])) if end else text

    def _longest(self, text: str, place: int, tries: int) -> tuple[int, int]:
        """How long the longest secret is that stands there, and how many tries are left after that.

        Without any left, all the rest counts as one.
        """
        found = 0
        for length, by_start in self._by_start.items():
            for form in by_start.get(text[place : place + length], ()):
                if tries < 0:
                    return len(text) - place, tries
                tries -= 1 + (len(form) >> 8)
                if len(form) > found and text.startswith(form, place):
                    found = len(form)
        return found, tries


def conceal(problem: Problem, change: Change) -> Problem:
    """What is wrong with a text of ``change``, as template, without a word of it where it is secret.

    Such a message quotes parts of the text, which nobody could find as the secret that they come from.
    """
    secret = is_secret_place(problem.place.removeprefix(f"{change.id}."), change)
    return Problem(problem.place, _CONCEALED) if secret else problem


def is_secret_place(place: str, change: Change) -> bool:
    """Whether what stands at ``place`` in ``change`` (``tags.x``, ``rules[0].ip``) is secret."""
    keys = _PATH.split(place)
    if keys[0] in {"_raw", "_secret"}:
        return False
    level = _CREDENTIALS if is_credentials(change.type) else _NOT_SECRET
    for key in keys:
        if key and not key.isdecimal():
            level = _level(key, level)
    return level >= _HELD or keys[0] in (_named(change.settings) if change.settings else ())


def _named(document: Mapping[str, Any]) -> Raw:
    try:
        return named_fields(document, "_secret")
    except TemplateError:
        # At intake that is refused; a connector may return anything.
        return {}


def _level(key: str | int, level: int) -> int:
    """How secret what stands under ``key`` is, in something that is ``level``."""
    if level == _SECRET or isinstance(key, int):
        return level
    if is_credentials(key) and is_secret_name(key):
        # `credentials: {"region": ..., "key": ...}` is as a component of that type.
        return _HELD
    if level == _NOT_SECRET:
        return _SECRET if is_secret_name(key) else level
    return _SECRET if is_secret_among_credentials(key) else _CREDENTIALS


def _is_trivial(value: str) -> bool:
    if value.isdecimal():
        return len(value) < _SHORTEST_NUMBER
    return value.lower() in _TRIVIAL or not value.strip("*")


def _pieces(value: str) -> list[str]:
    """The text that stands between the references in ``value``."""
    if value.startswith("$(") and value.endswith(")"):
        return []
    pieces: list[str] = []
    done = 0
    while (start := value.find("{{", done)) >= 0 and (end := value.find("}}", start)) >= 0:
        pieces.append(value[done:start])
        done = end + 2
    pieces.append(value[done:])
    return pieces


_OF_GO = str.maketrans(
    {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
)


def _forms(value: str) -> Iterable[str]:
    """``value`` as it may be written in a text: as it is, and escaped once or twice."""
    if _PLAIN.fullmatch(value):
        return (value,)
    wide, narrow = _json(value, ascii_only=False), _json(value, ascii_only=True)
    once = {value, wide, narrow, wide.translate(_OF_GO), narrow.translate(_OF_GO)}
    once |= {form.replace("/", "\\/") for form in (wide, narrow)}
    for write in (repr, ascii):
        # In single quotes, and in double ones.
        once |= {write(value + "'\"")[1:-4], write(value + "'")[1:-2]}
    twice = {_json(form, ascii_only=each) for form in once if not form.isalnum() for each in (False, True)}
    upper = quote(value, safe="", errors="surrogatepass")
    lower = _CODE.sub(lambda code: code[0].lower(), upper)
    percent = {upper, lower, upper.replace("%20", "+"), lower.replace("%20", "+")}
    for kept in _KEPT_IN_URLS:
        high, low = upper, lower
        for code, character in kept:
            high, low = high.replace(code, character), low.replace(code.lower(), character)
        percent |= {high, low}
    return once | twice | percent | {" ".join(value.split())}


_CODE = re.compile("%[0-9A-F]{2}")
_KEPT_IN_URLS = [
    [(quote(character, safe=""), character) for character in kept]
    for kept in ("/", "!*'()", "$&+=:@", "/!*'()", "/!*'()$&+=:@", "/!*'()$&+=:@,;?")
]
"""What is not escaped in some part of a URL, or by some library."""


def _json(value: str, *, ascii_only: bool) -> str:
    return json.dumps(value, ensure_ascii=ascii_only)[1:-1]
