"""Clocks by which leases are judged: each process has its own, which goes a little too fast or too slow.

Trio's clock is the same for all tasks of a run. So the fleet is given a `trio` whose functions of time go by
the clock of the process that calls them. Everything else of a process goes by Trio's clock.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import trio

import scheduler.fleet.absences
import scheduler.fleet.fleet
import scheduler.fleet.keeper
from simulation.who import WHO

_ROUNDING = 1e-6
"""Seconds."""
_MODULES = (scheduler.fleet.absences, scheduler.fleet.fleet, scheduler.fleet.keeper)


def _rate() -> float:
    process = WHO.get()
    return 1.0 if process is None else process.rate


class _Drifting:
    """Trio, by the clock of the process that asks."""

    def __getattr__(self, name: str) -> Any:
        return getattr(trio, name)

    def current_time(self) -> float:
        """As in Trio."""
        return trio.current_time() * _rate()

    async def sleep(self, seconds: float) -> None:
        """As in Trio."""
        await trio.sleep(seconds / _rate())

    async def sleep_until(self, deadline: float) -> None:
        """As in Trio; never too early by a rounding error."""
        await trio.sleep_until(deadline / _rate() + _ROUNDING)

    def move_on_after(self, seconds: float) -> trio.CancelScope:
        """As in Trio."""
        return trio.move_on_after(seconds / _rate())

    def move_on_at(self, deadline: float) -> trio.CancelScope:
        """As in Trio."""
        return trio.move_on_at(deadline / _rate())


@contextmanager
def drifting() -> Iterator[None]:
    """Make the fleet use these clocks."""
    with ExitStack() as stack:
        for module in _MODULES:
            stack.enter_context(mock.patch.object(module, "trio", _Drifting()))
        yield
