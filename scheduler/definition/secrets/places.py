"""Places of secrets in a component: under secret names, in credentials, and where it says so itself."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from scheduler.definition.model import Change
from scheduler.definition.places import Raw, named_fields
from scheduler.definition.secrets.names import (
    is_credentials,
    is_judged,
    is_secret_among_credentials,
    is_secret_name,
    like_a_secret,
    named_value,
)
from scheduler.definition.secrets.parts import url_secrets
from scheduler.errors import Problem, TemplateError

_PATH = re.compile(r"[.\[\]]")
NOT_SECRET, CREDENTIALS, HELD, SECRET = range(4)
"""Levels of secrecy: not secret; credentials, whose secrets are found by name; values of credentials: objects
are again credentials, and all else is secret; secret as a whole."""
_CONCEALED = (
    "'{{' or '$(' begins nothing that can be read here; what it is is not shown, since the field is "
    "secret: name it in _raw if it is meant literally"
)

_OF_A_MEMBER: Final = 2
_OF_A_NAME: Final = 12
_OF_A_PART: Final = 8
_A_CHUNK: Final = 20
"""Work in elements of a list: for a member of an object whose name is known, or is not; for a URL; and the
least that is reported at a time."""


def secret_values(document: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Yield the values of a component that are secret because of their place: texts, and numbers as texts.

    Args:
        document: its fields.

    Yields:
        A secret, or "", and the work since the last one, in elements of a list.
    """
    todo: list[tuple[Any, int, Raw | None]] = [(document, NOT_SECRET, None)]
    done = 0
    while todo:
        value, level, named = todo.pop()
        members: Iterable[tuple[Any, Any]]
        pair = None
        if isinstance(value, dict):
            members, pair = value.items(), named_value(value)
            level, named = entered(value, level, named)
        else:
            members = enumerate(value)
        for key, item in members:
            done += 1 if isinstance(key, int) else _OF_A_MEMBER if is_judged(key) else _OF_A_NAME
            if level == SECRET and isinstance(key, str) and like_a_secret(key):
                yield key, 0
            if done > _A_CHUNK:
                yield "", done
                done = 0
            kind = item.__class__
            if kind is not str and kind is not dict and kind is not list and kind is not int:
                continue
            at, below = level_of(key, level, named)
            if pair is not None and key == pair:
                at = SECRET
            if kind is dict or kind is list:
                todo.append((item, at, below))
            elif at >= HELD:
                yield item if kind is str else str(item), 0
            elif kind is str and "@" in item:
                yield "", 1 + (len(item) >> 6)
                for found in url_secrets(item):
                    yield found, _OF_A_PART


def entered(document: Mapping[str, Any], level: int, named: Raw | None) -> tuple[int, Raw | None]:
    """Return the level for the members of an object with this level, and the names of its secret fields."""
    if level != SECRET and "_component" in document:
        level = CREDENTIALS if is_credentials(document["_component"]) else NOT_SECRET
        if "_secret" in document:
            named = named_secrets(document)
    return level, named


def level_of(key: str | int, level: int, named: Raw | None) -> tuple[int, Raw | None]:
    """Return the level for the value under ``key``, and the names of its secret fields."""
    below = None if named is None else named.get(str(key))
    return (SECRET if below is not None and not below else _level(key, level)), below


def conceal(problem: Problem, change: Change) -> Problem:
    """Return a problem with a text of ``change``, read as a template, without its words if it is secret.

    Such a message quotes parts of the text, which could not be found as parts of a secret.
    """
    secret = is_secret_place(problem.place.removeprefix(f"{change.id}."), change)
    return Problem(problem.place, _CONCEALED) if secret else problem


def is_secret_place(place: str, change: Change) -> bool:
    """Whether the value at ``place`` in ``change`` (``tags.x``, ``rules[0].ip``) is secret."""
    keys = _PATH.split(place)
    if keys[0] in {"_raw", "_secret"}:
        return False
    level = CREDENTIALS if is_credentials(change.type) else NOT_SECRET
    for key in keys:
        if key and not key.isdecimal():
            level = _level(key, level)
    return level >= HELD or keys[0] in (named_secrets(change.settings) if change.settings else ())


def named_secrets(document: Mapping[str, Any]) -> Raw:
    """Return the fields that a component names in its ``_secret``."""
    try:
        return named_fields(document, "_secret")
    except TemplateError:
        # Intake refuses this; a connector may return anything.
        return {}


def _level(key: str | int, level: int) -> int:
    """Return the level for the value under ``key``, in something with this level."""
    if level == SECRET or isinstance(key, int):
        return level
    if is_credentials(key) and is_secret_name(key):
        # `credentials: {"region": ..., "key": ...}` is treated like a component of that type.
        return HELD
    if level == NOT_SECRET:
        return SECRET if is_secret_name(key) else level
    return SECRET if is_secret_among_credentials(key) else CREDENTIALS
