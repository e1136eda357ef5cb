"""Replies that come twice: directly, and from the stream that captures them. The second coming is an echo.

For most it does not matter which one is first. But a reply that ends an attempt which another one follows
must not end that one as well, and a reply on a shared subject does not say which attempt it is of.
"""

from collections import OrderedDict
from enum import Enum
from typing import Final, TypeAlias

_MOST: Final = 10_000
"""DuplicateFilter that are waited for; the oldest is forgotten."""

Key: TypeAlias = tuple[str, str, str, int]


class Way(Enum):
    """How a reply reaches us."""

    DIRECT = "direct"
    CAPTURED = "captured"


class DuplicateFilter:
    """Which replies are still to come a second time."""

    def __init__(self) -> None:
        self._expected: OrderedDict[tuple[Way, Key], int] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._expected)

    def expect(self, way: Way, build: str, component: str, subject: str, data: bytes) -> None:
        """A reply was dealt with, and comes again on this way, if it does."""
        key = way, (build, component, subject, hash(data))
        self._expected[key] = self._expected.get(key, 0) + 1
        if len(self._expected) > _MOST:
            self._expected.popitem(last=False)

    def take(self, way: Way, build: str, component: str, subject: str, data: bytes) -> bool:
        """Whether a reply that came on this way is an echo; it is expected no more then."""
        key = way, (build, component, subject, hash(data))
        number = self._expected.pop(key, 0)
        if number > 1:
            self._expected[key] = number - 1
        return number > 0
