"""Limits as counters: what is in flight, and what was begun lately."""

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Optional, TypeAlias

from scheduler.definition.rules import LimitRule

if TYPE_CHECKING:
    from scheduler.dispatch.slots.queues import FairQueue
    from scheduler.dispatch.slots.usage import Usage

_MARGIN: Final = 0.01
"""The part of a period by which it is stretched: on the way to a connector requests move together."""
_MOST_MARGIN: Final = 0.010
"""Seconds."""


class Pool:
    """At most ``count`` in flight.

    Args:
        label: how people know the limit.
        count: how many.
    """

    __slots__ = ("count", "fair_queues", "label", "taken")

    def __init__(self, label: str, count: int) -> None:
        self.label = label
        self.count = count
        self.taken = 0
        self.fair_queues: dict[FairQueue, None] = {}
        """Where somebody may be waiting, if it is a limit of the instance."""

    def room(self, now: float) -> bool:  # noqa: ARG002 - as that of a rate
        """Whether one more may be in flight."""
        return self.taken < self.count

    def take(self, now: float) -> None:  # noqa: ARG002 - as that of a rate
        """One more is in flight."""
        self.taken += 1


class Rate:
    """At most ``count`` begun within any ``period`` seconds.

    It keeps the times of the last ``count``: the oldest of them must be a period ago. A bucket of tokens
    would be smaller, and let through twice as many around the end of a pause.

    Args:
        label: how people know the limit.
        count: how many.
        period: seconds.
        owner: the build whose limit it is; None for one of the instance.
    """

    __slots__ = ("_gap", "alarmed", "count", "fair_queues", "label", "owner", "starts")

    def __init__(self, label: str, count: int, period: float, owner: Optional["Usage"] = None) -> None:
        self.label = label
        self.count = count
        self.owner = owner
        self.alarmed = False
        """Whether somebody will be woken when there is room."""
        self.fair_queues: dict[FairQueue, None] = {}
        """As in `Pool`."""
        self._gap = period + min(_MARGIN * period, _MOST_MARGIN)
        self.starts: deque[float] = deque(maxlen=count)
        """Seconds of Trio's clock, the oldest first."""

    def room(self, now: float) -> bool:
        """Whether one more may begin at ``now``, in seconds of Trio's clock."""
        return len(self.starts) < self.count or self.starts[0] + self._gap <= now

    def take(self, now: float) -> None:
        """One more begins."""
        self.starts.append(now)

    @property
    def due(self) -> float:
        """When one more may begin, in seconds of Trio's clock."""
        return self.starts[0] + self._gap if len(self.starts) == self.count else 0.0

    def retire(self) -> None:
        """Nobody falls under it any more, although an alarm of it may be set: it keeps no build alive."""
        self.owner = None
        self.starts.clear()

    def follow(self, earlier: "Rate") -> None:
        """Count what was begun under a limit that this one takes the place of."""
        self.starts.extend(earlier.starts)


AnyPool: TypeAlias = Pool | Rate


def make_pools(
    rules: Sequence[LimitRule], prefix: str = "", owner: Optional["Usage"] = None
) -> list[AnyPool]:
    """A counter for each rule, in their order.

    Args:
        rules: the limits.
        prefix: what stands before each in its label.
        owner: the build whose limits they are.
    """
    return [
        Pool(f"{prefix}{rule}", rule.count)
        if rule.period is None
        else Rate(f"{prefix}{rule}", rule.count, rule.period, owner)
        for rule in rules
    ]
