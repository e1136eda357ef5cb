"""Clock of a build: seconds since 1970 that pass evenly, whatever happens to the machine's clock.

People read these times, and durations are differences of them. So a build's clock reads the wall clock once,
when the process accepts the build or takes it up, and then follows Trio's clock, which is never set. A change
of the wall clock only counts for later builds.

Over a restart a build's time never goes back. If the wall clock of the next process is behind the last time
in the log, it continues from that time. If it is ahead, this cannot be noticed, and the time counts as
passed.
"""

import time
from collections.abc import Callable

import trio


class BuildClock:
    """Clock of a build: calling it returns the seconds since 1970.

    Args:
        wall_clock: returns the seconds since 1970; called only once, now.
        after: a time in the past, seconds since 1970; this clock is never behind it.
        monotonic: returns the seconds since any moment; by default Trio's clock.
    """

    __slots__ = ("_monotonic", "_offset", "began")

    def __init__(
        self,
        wall_clock: Callable[[], float] = time.time,
        after: float = 0.0,
        monotonic: Callable[[], float] | None = None,
    ) -> None:
        # `trio.current_time` looks up the clock each time, and this is called several times a component.
        self._monotonic = monotonic or trio.lowlevel.current_clock().current_time
        self._offset = max(wall_clock(), after) - self._monotonic()
        self.began = self()
        """Time at which this process accepted the build, seconds since 1970."""

    def __call__(self) -> float:
        """Return the seconds since 1970."""
        return self._offset + self._monotonic()

    def go_on_after(self, moment: float) -> None:
        """Set the clock to at least ``moment``, which an earlier process has already seen."""
        self._offset = max(self._offset, moment - self._monotonic())
