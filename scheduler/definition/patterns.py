"""Patterns of request subjects, as in settings and builds: ``vpc.create.*``, ``*.*.aws``, ``*``.

A pattern has three words, like a subject: the component's type, the action, the provider. ``*`` stands for
any word; alone it stands for every subject.
"""

import re
from collections.abc import Iterable
from typing import Final, TypeVar

_T = TypeVar("_T")

EVERY: Final = "*.*.*"
"""Pattern that matches every subject."""
FORM: Final = "is not a pattern of three words or *, as vpc.create.*"
"""Description of a text that is not a pattern."""

WORD: Final = re.compile(r"\*|[A-Za-z0-9_-]{1,64}")
"""One of its three words."""


def read_pattern(text: str) -> str | None:
    """Return the pattern in ``text``, in its full form; None where it is none."""
    if text == "*":
        return EVERY
    words = text.split(".")
    return text if len(words) == 3 and all(map(WORD.fullmatch, words)) else None


def matches(pattern: str, subject: str) -> bool:
    """Whether a pattern matches the subject of a request; both have three words."""
    return pattern == EVERY or all(
        wanted in {"*", word} for wanted, word in zip(pattern.split("."), subject.split("."), strict=False)
    )


def first_match(pairs: Iterable[tuple[str, _T]], subject: str, otherwise: _T) -> _T:
    """Return the value beside the first pattern that matches."""
    return next((value for pattern, value in pairs if matches(pattern, subject)), otherwise)
