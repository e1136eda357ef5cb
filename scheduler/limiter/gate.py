"""A set of limits that lets through, or keeps, all requests that fall under them."""

from collections.abc import Sequence

from scheduler.limiter.alarms import Alarms
from scheduler.limiter.limits import FlightLimit, Limit, RateLimit


class Gate:
    """Limits of which each must have room.

    Once one is found used up it is shut by that one, and the others are not looked at until that has room.

    Args:
        limits: of the instance, or of one build.
    """

    __slots__ = ("_rates", "flights", "kept_by", "limits", "opened", "shut_by")

    def __init__(self, limits: Sequence[Limit]) -> None:
        self.limits = tuple(limits)
        self.flights = tuple(limit for limit in limits if isinstance(limit, FlightLimit))
        """Those of them on what is in flight."""
        self._rates = tuple(limit for limit in limits if isinstance(limit, RateLimit))
        self.shut_by: Limit | None = None
        """The limit that is used up; None where each may have room."""
        self.kept_by: Limit | None = None
        """The limit that shut it last."""
        self.opened = 0
        """The number of the opening after that."""

    def is_shut(self, now: float, alarms: Alarms) -> bool:
        """Return whether one of the limits has no room; if that is a rate, an alarm is set."""
        shut_by = self.shut_by
        if shut_by is not None:
            if not shut_by.room(now):
                return True
            # It had room again while nobody waited.
            self.shut_by = None
        for limit in self.flights:
            if limit.taken >= limit.count:
                self.shut_by = self.kept_by = limit
                return True
        for rate in self._rates:
            if not rate.room(now):
                alarms.set(rate)
                self.shut_by = self.kept_by = rate
                return True
        return False
