"""Histogram: how many values lie between which bounds."""

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple


class Counted(NamedTuple):
    """Content of a histogram at one moment."""

    bounds: Sequence[float]
    """Upper bounds, ascending; behind the last one there is no bound."""
    counts: Sequence[int]
    """Number of values up to each bound and above the one before; one more for those above the last."""
    sum: float
    """Sum of all values."""

    @property
    def total(self) -> int:
        """Number of values."""
        return sum(self.counts)

    def quantile(self, share: float) -> float | None:
        """Return a bound that this share of the values does not exceed; None without values.

        Of values above the last bound nothing is known: then that bound is returned.
        """
        left = share * self.total
        if not self.total:
            return None
        for bound, count in zip(self.bounds, self.counts, strict=False):
            left -= count
            if left <= 0:
                return bound
        return self.bounds[-1]


class Histogram:
    """Counts values by bounds.

    Args:
        bounds: upper bounds, ascending.
    """

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def note(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def copy(self) -> Counted:
        """Return what was counted so far."""
        return Counted(self.bounds, tuple(self.counts), self.sum)
