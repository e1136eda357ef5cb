"""Turns of the loop: how long each kept it from looking at input and output."""

from typing import Final

from scheduler.metrics.histogram import Histogram

SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
"""Bounds of turns, in seconds."""
LATELY: Final = 60.0
"""Seconds for which the longest turn is remembered, at least; at most twice as long."""


class Turns:
    """Durations of the turns of the loop; the clock is an argument."""

    __slots__ = ("_began", "_longest", "_longest_before", "lag", "seconds")

    def __init__(self) -> None:
        self.seconds = Histogram(SECONDS)
        self.lag = 0.0
        """Seconds by which a task that slept was woken too late, the last time."""
        self._began = 0.0
        self._longest = 0.0
        self._longest_before = 0.0

    def note(self, now: float, seconds: float) -> None:
        """Count a turn that ends now and took so long."""
        self.seconds.note(seconds)
        if now - self._began > LATELY:
            self._longest_before = self._longest if now - self._began <= 2 * LATELY else 0.0
            self._began, self._longest = now, 0.0
        self._longest = max(self._longest, seconds)

    @property
    def longest(self) -> float:
        """Seconds of the longest turn of the last minute or two."""
        return max(self._longest, self._longest_before)
