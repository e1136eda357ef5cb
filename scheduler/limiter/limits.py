"""Limits as counters: of requests in flight, and of requests begun lately.

A limit over all instances has a *part* for this one, which changes while requests are in flight (`count`
against `whole`). A part below what is in use lets nothing begin until that fits.
"""

import math
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

    __slots__ = ("count", "note", "origin", "taken", "text", "whole")

    def __init__(self, text: str, count: int, origin: str = "") -> None:
        self.text = text
        self.origin = origin
        self.count = count
        """Requests that may be in flight here: all, or the part for this instance."""
        self.whole = count
        """Requests that may be in flight, over all instances."""
        self.note = ""
        """What is to be said of that part; empty where this instance has all."""
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

    def used(self, now: float) -> int:  # noqa: ARG002 - as that of a rate
        """Return how many units of it are in use."""
        return self.taken


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

    __slots__ = ("alarmed", "count", "gap", "note", "origin", "starts", "text", "whole")

    def __init__(self, text: str, count: int, period: float, origin: str = "") -> None:
        self.text = text
        self.origin = origin
        self.count = count
        """Requests that may begin here: all, or the part for this instance."""
        self.whole = count
        """Requests that may begin, over all instances."""
        self.note = ""
        """As in `FlightLimit`."""
        self.gap = stretched(period)
        """Seconds between a start and the one that is ``count`` before it."""
        self.starts: deque[float] = deque()
        """Times of the latest starts, the oldest first, in seconds: as many as may matter again."""
        self.alarmed = False
        """Whether an alarm is set for the time at which there is room."""

    @property
    def label(self) -> str:
        """The limit as people know it."""
        return self.origin + self.text

    def room(self, now: float) -> bool:
        """Return whether one more may begin at ``now``, in seconds."""
        return self.due <= now

    def take(self, now: float) -> None:
        """Count one more that begins at ``now``; not before those that were counted already."""
        starts = self.starts
        starts.append(now)
        # Where the part became smaller than what began lately, more than ``count`` are kept for a period.
        while len(starts) > self.count and (len(starts) > self.whole or starts[0] + self.gap <= now):
            starts.popleft()

    @property
    def due(self) -> float:
        """The time in seconds from which on one more may begin; infinite where none may."""
        count, starts = self.count, self.starts
        if len(starts) < count:
            return -math.inf
        return starts[-count] + self.gap if count else math.inf

    def used(self, now: float) -> int:
        """Return how many began within the last period: units that are not free for others."""
        starts = self.starts
        while starts and starts[0] + self.gap <= now:
            starts.popleft()
        return len(starts)

    def follow(self, earlier: "RateLimit") -> None:
        """Count the starts under a limit that this one replaces."""
        self.starts.extend(earlier.starts)
        while len(self.starts) > self.whole:
            self.starts.popleft()


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
