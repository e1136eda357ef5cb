"""Permissions of a broker's users, as they are shipped in ``nats-server.conf`` beside this module.

The file is the one place that says who may use which subject: it is printed as it is, and read here for
whatever else has to know it.
"""

import re
from collections.abc import Iterator
from enum import Enum
from importlib import resources
from typing import Final

from attrs import frozen

FILE: Final = "nats-server.conf"

_TOKEN: Final = re.compile(r'"([^"\n]*)"|#([^\n]*)|([{}\[\]])|([^\s"#{}\[\],:]+)')
"""Token of the file: a text, a comment, a bracket, or a bare word."""
_QUOTED: Final = re.compile(r'"([^"\s]+)"')
_ONLY_QUOTED: Final = re.compile(r'\s*"[^"\s]+"(?:\s*,\s*"[^"\s]+")*\s*')
"""A comment that is nothing but subjects: a line that somebody may want to add."""


class _Kind(Enum):
    """Group of `_TOKEN`."""

    TEXT = 1
    COMMENT = 2
    BRACKET = 3
    WORD = 4


_SIDES: Final = ("publish", "subscribe", "optional")


@frozen
class User:
    """User of the broker, and the subjects that the file lists for it; patterns of NATS."""

    name: str
    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    optional: tuple[str, ...] = ()
    """Subjects to publish on that stand in comments: for another store, or a connector's own record."""

    @property
    def subjects(self) -> tuple[str, ...]:
        """All subjects, each once, in the order of the file."""
        return tuple(dict.fromkeys((*self.publish, *self.subscribe, *self.optional)))


def shipped() -> str:
    """Return the text of the file."""
    return resources.files(__name__).joinpath(FILE).read_text(encoding="utf-8")


def users(text: str = "") -> tuple[User, ...]:
    """Read the users of such a file, in its order.

    Args:
        text: the file; by default the shipped one.
    """
    found: list[User] = []
    lists: dict[str, list[str]]
    name, lists = "", {side: [] for side in _SIDES}
    side, before, inside = "", "", False
    for kind, value in _tokens(text or shipped()):
        if kind is _Kind.WORD:
            if before == "user":
                found += _user(name, lists)
                name, lists = value, {side: [] for side in _SIDES}
            side = value if value in _SIDES else side
            before = value
        elif kind is _Kind.BRACKET:
            inside = value == "[" and before == "allow"
            before = ""
        elif inside and kind is _Kind.TEXT:
            lists[side].append(value)
        elif inside and side == "publish" and _ONLY_QUOTED.fullmatch(value):
            lists["optional"] += _QUOTED.findall(value)
    return (*found, *_user(name, lists))


def _tokens(text: str) -> Iterator[tuple[_Kind, str]]:
    for match in _TOKEN.finditer(text):
        yield _Kind(match.lastindex), match[match.lastindex or 0]


def _user(name: str, lists: dict[str, list[str]]) -> list[User]:
    """Return the user; none where the first one has not come yet."""
    return [User(name, *(tuple(lists[side]) for side in _SIDES))] if name else []
