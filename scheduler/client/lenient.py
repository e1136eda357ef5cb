"""Reads JSON of other programs for display: a value of the wrong type is ignored."""

from collections.abc import Mapping
from typing import Any


def number(value: Any) -> float | None:
    """Return a number, or None."""
    if type(value) is float:
        # The most frequent case by far: a board reads thousands of them a second.
        return value
    return value if type(value) is int else None


def whole(value: Any, otherwise: int = 0) -> int:
    """Return a whole number, or ``otherwise``."""
    return value if type(value) is int else otherwise


def text(value: Any) -> str:
    """Return a text, or an empty one."""
    return value if isinstance(value, str) else ""


def objects(value: Any) -> list[Mapping[str, Any]]:
    """Return the objects in a list; none if it is no list."""
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


def texts(value: Any) -> list[str]:
    """Return the texts in a list; none if it is no list."""
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []
