"""Long loops on the event loop give everybody else a turn, by what was done since the last one."""

from collections.abc import Awaitable, Callable
from typing import Final

from trio.lowlevel import checkpoint

TURN: Final = 50_000
"""Units of work (`scheduler.definition.template.work`) between two turns of others: a millisecond or so."""


class Pace:
    """Counts what a loop does, and lets others have a turn whenever that amounts to about a millisecond.

    Args:
        step: units that a round costs by itself; 500 are about ten microseconds.
        pause: awaited to let others have their turn.
    """

    __slots__ = ("_done", "_pause", "_step")

    def __init__(self, step: int = 500, pause: Callable[[], Awaitable[None]] = checkpoint) -> None:
        self._step = step
        self._pause = pause
        self._done = 0

    async def turn(self, units: int = 0) -> None:
        """A round is done, and cost so many ``units`` more; others may have their turn now."""
        self._done += self._step + units
        if self._done >= TURN:
            self._done = 0
            await self._pause()
