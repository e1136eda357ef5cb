"""Limits as counters: of requests in flight, and of requests begun lately."""

from collections import deque
from collections.abc import Sequence
from typing import Final, TypeAlias

from scheduler.definition.rules import LimitRule

_MARGIN: Final = 0.01
"""The part of a period by which it is stretched: on the way to a connector requests move together."""
_MOST_MARGIN: Final = 0.010
"""Seconds by which a period is stretched at most."""


def stretched(period: float) -> float:
    """Return the seconds from a start to the one a rate's ``count`` after it: its period and a little."""
    return period + min(_MARGIN * period, _MOST_MARGIN)


class FlightLimit:
    """At most ``count`` requests in flight.

    Args:
        text: the limit as its setting writes it.
        count: how many.
        origin: the words before ``text`` that say whose limit it is.
    """

    __slots__ = ("count", "origin", "taken", "text")

    def __init__(self, text: str, count: int, origin: str = "") -> None:
        self.text = text
        self.origin = origin
        self.count = count
        self.taken = 0
        """Requests in flight."""

    @property
    def label(self) -> str:
        """The limit as people know it."""
        return self.origin + self.text

    def room(self, now: float) -> bool:  # noqa: ARG002 - as that of a rate
        """Return whether one more may be in flight."""
        return self.taken < self.count

    def take(self, now: float) -> None:  # noqa: ARG002 - as that of a rate
        """Count one more in flight."""
        self.taken += 1


class RateLimit:
    """At most ``count`` requests begun within any ``period`` seconds.

    It keeps the times of the last ``count``: the oldest of them must be a period ago. A bucket of tokens
    would be smaller, and let through twice as many around the end of a pause.

    Args:
        text: the limit as its setting writes it.
        count: how many.
        period: seconds.
        origin: as in `FlightLimit`.
    """

    __slots__ = ("alarmed", "count", "gap", "origin", "starts", "text")

    def __init__(self, text: str, count: int, period: float, origin: str = "") -> None:
        self.text = text
        self.origin = origin
        self.count = count
        self.gap = stretched(period)
        """Seconds between a start and the one that is ``count`` before it."""
        self.starts: deque[float] = deque(maxlen=count)
        """Times of the latest starts, the oldest first, in seconds."""
        self.alarmed = False
        """Whether an alarm is set for the time at which there is room."""

    @property
    def label(self) -> str:
        """The limit as people know it."""
        return self.origin + self.text

    def room(self, now: float) -> bool:
        """Return whether one more may begin at ``now``, in seconds."""
        return len(self.starts) < self.count or self.starts[0] + self.gap <= now

    def take(self, now: float) -> None:
        """Count one more that begins at ``now``; not before those that were counted already."""
        self.starts.append(now)

    @property
    def due(self) -> float:
        """The time in seconds from which on one more may begin."""
        return self.starts[0] + self.gap if len(self.starts) == self.count else 0.0

    def follow(self, earlier: "RateLimit") -> None:
        """Count the starts under a limit that this one replaces."""
        self.starts.extend(earlier.starts)


Limit: TypeAlias = FlightLimit | RateLimit


def cap_text(per_build: int) -> str:
    """Return the limit on all requests of one build, as its setting writes it."""
    return f"max_in_flight_per_build={per_build}"


def make_limits(rules: Sequence[LimitRule], origin: str = "") -> list[Limit]:
    """Return a counter for each rule, in their order; ``origin`` as in `FlightLimit`."""
    return [
        FlightLimit(str(rule), rule.count, origin)
        if rule.period is None
        else RateLimit(str(rule), rule.count, rule.period, origin)
        for rule in rules
    ]
