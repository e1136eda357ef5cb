"""Forms of a secret value that are looked for, and values that are none."""

from collections.abc import Iterator
from typing import Final

from scheduler.definition.secrets.index import SHORTEST, folded

_SHORTEST_NUMBER: Final = 6
"""Fewest digits of a secret number; shorter ones are sizes and ports."""
_TRIVIAL: Final = frozenset({"true", "false", "null", "none", "undefined", "unknown", "default"})
_LONGEST_TRIVIAL: Final = 9


def is_trivial(value: str) -> bool:
    """Return whether a value is too common to be a secret: a word, a short number, a mask."""
    if len(value) > _LONGEST_TRIVIAL and not value.startswith("*"):
        return False
    if value.isdecimal():
        return len(value) < _SHORTEST_NUMBER
    return value.lower() in _TRIVIAL or not value.strip("*")


def pieces_of(value: str) -> list[str]:
    """Return the text between the references in ``value``."""
    if value.startswith("$(") and value.endswith(")"):
        return []
    pieces: list[str] = []
    done = 0
    while (start := value.find("{{", done)) >= 0 and (end := value.find("}}", start)) >= 0:
        pieces.append(value[done:start])
        done = end + 2
    pieces.append(value[done:])
    return pieces


def forms_of(value: str) -> Iterator[str]:
    """Yield ``value`` in the forms that are looked for; `encodings` and `index` know the others."""
    yield folded(value)
    if not value.isascii():
        # Its bytes, as they come out of base64 and hex.
        yield folded(value.encode("utf-8", "surrogatepass").decode("latin-1"))
    elif not value.isprintable() and (line := " ".join(value.split())) != value and len(line) >= SHORTEST:
        # As terminals show it.
        yield folded(line)
