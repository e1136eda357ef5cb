"""Log that input cannot flood: of each kind of line a few at once, then one a second, with a count."""

import sys
from collections.abc import Callable
from typing import Any, Final

import trio

from scheduler.runtime.logger import Logger

_PERIOD: Final = 1.0
"""Seconds after which another line of each kind is logged."""


class RateLimitedLog:
    """Logger like structlog's, with a limited rate for each event.

    The first lines of an event are logged at once and in full. If more than one a second follow, some are
    left out; the next line then has their number, as ``left_out``.

    Args:
        log: the logger for the lines.
        burst: the number of lines of one event that may be logged at once.
        clock: returns the time in seconds, of any origin.
    """

    __slots__ = ("_burst", "_clock", "_kinds", "_log")

    def __init__(
        self, log: Any = None, *, burst: int = 1, clock: Callable[[], float] = trio.current_time
    ) -> None:
        self._log = Logger() if log is None else log
        self._burst = burst
        self._clock = clock
        self._kinds: dict[str, list[float]] = {}
        """Time up to which an event's lines are used up, and the number left out since the last, by event."""

    def info(self, event: str, **context: Any) -> None:
        """Log at level info; ``event`` is a constant, never made of input."""
        self._say("info", event, context)

    def warning(self, event: str, **context: Any) -> None:
        """Log at level warning."""
        self._say("warning", event, context)

    def error(self, event: str, **context: Any) -> None:
        """Log at level error."""
        self._say("error", event, context)

    def exception(self, event: str, **context: Any) -> None:
        """Log at level error, with the exception that is being handled."""
        self._say("error", event, {**context, "exc_info": sys.exc_info()[1]})

    def leaves_out(self, event: str) -> bool:
        """Tell whether a line of ``event`` would be left out now; if so, count it as left out.

        With this a caller can save the work of making the line.
        """
        kind = self._kinds.get(event)
        if kind is None or kind[0] + _PERIOD <= self._clock():
            return False
        kind[1] += 1
        return True

    def _say(self, level: str, event: str, context: dict[str, Any]) -> None:
        now = self._clock()
        kind = self._kinds.get(event)
        if kind is None:
            kind = self._kinds[event] = [now - self._burst * _PERIOD, 0]
        # A line uses up a second; unused seconds are kept, but not more than a burst of them.
        used = max(kind[0], now - self._burst * _PERIOD) + _PERIOD
        if used > now:
            kind[1] += 1
            return
        left_out = int(kind[1])
        kind[0], kind[1] = used, 0
        getattr(self._log, level)(event, **context, **({"left_out": left_out} if left_out else {}))
