"""Reading JSON that others wrote, for showing it: what is of another type is passed over."""

from collections.abc import Mapping
from typing import Any


def number(value: Any) -> float | None:
    """A number, or None."""
    if type(value) is float:
        # By far the most frequent: a board takes in thousands of them a second.
        return value
    return value if type(value) is int else None


def whole(value: Any, otherwise: int = 0) -> int:
    """A whole number, or ``otherwise``."""
    return value if type(value) is int else otherwise


def text(value: Any) -> str:
    """A text, or an empty one."""
    return value if isinstance(value, str) else ""


def objects(value: Any) -> list[Mapping[str, Any]]:
    """The objects in a list; none where it is no list."""
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


def texts(value: Any) -> list[str]:
    """The texts in a list; none where it is no list."""
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []
