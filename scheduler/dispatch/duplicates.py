"""Remembers what is still to come a second time, so that the copy is known when it comes."""

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

_K = TypeVar("_K")


def _timeless() -> float:
    """Stand in for a clock where copies are expected for ever."""
    return 0.0


class DuplicateFilter(Generic[_K]):
    """Copies that are expected, by key, oldest first. Pure bookkeeping.

    Args:
        most: number of keys that are remembered; beyond that the oldest is forgotten.
        patience: seconds for which a copy is expected.
        clock: seconds, of any origin; needed where there is a ``patience``.
    """

    __slots__ = ("_clock", "_most", "_patience", "expected")

    def __init__(
        self, most: int, *, patience: float = math.inf, clock: Callable[[], float] = _timeless
    ) -> None:
        self._most = most
        self._patience = patience
        self._clock = clock
        self.expected: OrderedDict[_K, tuple[int, float]] = OrderedDict()
        """Number of copies by key, and since when the last of them is expected."""

    def expect(self, key: _K) -> None:
        """Expect one more copy."""
        now = self._clock()
        copies, _ = self.expected.pop(key, (0, 0.0))
        self.expected[key] = copies + 1, now
        _, since = next(iter(self.expected.values()))
        if now - since > self._patience or len(self.expected) > self._most:
            self.expected.popitem(last=False)

    def take(self, key: _K) -> bool:
        """Return whether a copy was expected; that one is expected no more."""
        copies, since = self.expected.pop(key, (0, 0.0))
        if copies > 1:
            self.expected[key] = copies - 1, since
        return copies > 0 and self._clock() - since < self._patience
