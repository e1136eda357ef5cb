"""The time of a build: seconds since 1970 that pass evenly, whatever becomes of the machine's clock.

People read these times, and durations are differences of them. So a build's clock looks at the wall clock
once, when the process accepts the build or takes it up, and from then on goes by Trio's, which nobody sets.
A wall clock that is set meanwhile counts for the builds that come later.

Over a restart a build's time never goes back: the next process goes on from the last time in the log where
its wall clock is behind that. Where it is ahead, nobody can tell, and as much time counts as passed.
"""

import time
from collections.abc import Callable

import trio


class BuildClock:
    """Call it for the seconds since 1970.

    Args:
        wall_clock: seconds since 1970; asked now, and then no more.
        after: a time that has been; this clock is never behind it.
        monotonic: seconds since some moment; Trio's clock, unless it is given.
    """

    __slots__ = ("_monotonic", "_offset", "began")

    def __init__(
        self,
        wall_clock: Callable[[], float] = time.time,
        after: float = 0.0,
        monotonic: Callable[[], float] | None = None,
    ) -> None:
        # `trio.current_time` looks the clock up each time, and this is called several times a component.
        self._monotonic = monotonic or trio.lowlevel.current_clock().current_time
        self._offset = max(wall_clock(), after) - self._monotonic()
        self.began = self()
        """When the build was accepted, where that was here."""

    def __call__(self) -> float:
        """Seconds since 1970."""
        return self._offset + self._monotonic()

    def go_on_after(self, moment: float) -> None:
        """Have it not be behind ``moment``: a process before us has seen that time already."""
        self._offset = max(self._offset, moment - self._monotonic())
