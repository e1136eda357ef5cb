"""Measures the turns of the loop, and by how much it is late."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import trio
from attrs import define, field

from scheduler.metrics.turns import Turns
from scheduler.runtime.background import open_background

_PERIOD: Final = 0.5
"""Seconds between two looks at the lag."""


@define(eq=False)
class _Instrument(trio.abc.Instrument):
    """Measures turns: from when the loop has looked at input and output until it does so again."""

    turns: Turns
    _began: float = field(default=0.0)

    def after_io_wait(self, timeout: float) -> None:  # noqa: ARG002 - as the port
        """Begin a turn."""
        self._began = time.perf_counter()

    def before_io_wait(self, timeout: float) -> None:  # noqa: ARG002 - as the port
        """End it."""
        if self._began:
            now = time.perf_counter()
            self.turns.note(now, now - self._began)


async def _look_at_lag(turns: Turns) -> None:
    """Note by how much this task is woken too late; never returns."""
    while True:
        due = trio.current_time() + _PERIOD
        await trio.sleep_until(due)
        turns.lag = max(0.0, trio.current_time() - due)


@asynccontextmanager
async def measured_loop() -> AsyncIterator[Turns]:
    """Measure the loop that runs this, until the context is left."""
    turns = Turns()
    instrument = _Instrument(turns)
    trio.lowlevel.add_instrument(instrument)
    try:
        async with open_background() as background:
            background.start_soon(_look_at_lag, turns)
            yield turns
    finally:
        trio.lowlevel.remove_instrument(instrument)
