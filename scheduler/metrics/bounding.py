"""Bounds on what a metric may have: its number of series, and the length of its labels."""

from collections.abc import Iterable
from typing import Final, TypeAlias

from scheduler.metrics.tally import OTHER, SERIES

LONGEST: Final = 100
"""Characters of a label."""
Labels: TypeAlias = tuple[str, ...]


def bounded(samples: Iterable[tuple[Labels, float]], most: int = SERIES) -> dict[Labels, float]:
    """Return samples by labels, the first ones; what is beyond is added up under `OTHER`.

    Of long labels the beginning is kept; those that are the same by that are added up, too.
    """
    found: dict[Labels, float] = {}
    for labels, value in samples:
        short = tuple(label[:LONGEST] for label in labels)
        if short not in found and len(found) >= most - 1:
            short = (OTHER,) * len(labels)
        found[short] = found.get(short, 0.0) + value
    return found
