"""Ids that are made up for a build: readable, and in the order of time where the beginning is the same."""

import re
from datetime import UTC, datetime
from typing import Any, Final

_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
"""Digits of base 32 as Crockford has them, without letters that look like a digit; in the order of ASCII."""
_LONGEST: Final = 128
_NO_PART: Final = re.compile(r"[^A-Za-z0-9._:@/-]+")
_MADE: Final = re.compile(r"(?<=.)-[0-9]{8}-[0-9]{6}-[0-9a-hj-km-np-tv-z]{5}\Z")
NOISE: Final = 32**3
"""Number of values of ``noise`` that make a difference."""


def new_id(base: str, when: datetime, noise: int) -> str:
    """Return an id such as ``prod-20261130-114233-x7k2q``: the time in UTC, and five characters.

    The first two of those are the millisecond, so that ids of one base sort by time. The others keep two
    builds of the same millisecond apart.

    Args:
        base: what it begins with; a suffix that was made here before is replaced.
        when: the time, with its zone.
        noise: a random number from 0 to `NOISE`.
    """
    utc = when.astimezone(UTC)
    mark = _digits(utc.microsecond // 1_000, 2) + _digits(noise % NOISE, 3)
    suffix = f"-{utc:%Y%m%d-%H%M%S}-{mark}"
    base = _MADE.sub("", base)[: _LONGEST - len(suffix)]
    return f"{base}{suffix}"


def base_of(id_: Any, name: Any) -> str:
    """Return what the id of a build is to begin with: its own id, else its name, else ``build``."""
    for text in (id_, name):
        if isinstance(text, str) and (part := _NO_PART.sub("-", text).strip("-")):
            return part
    return "build"


def _digits(number: int, places: int) -> str:
    written = ""
    for _ in range(places):
        number, digit = divmod(number, len(_ALPHABET))
        written = _ALPHABET[digit] + written
    return written
