"""Builds that are over, for those who look at them: read from their logs, and kept for a while.

To read a log takes as long as to take the build up. So one is read at a time, last in turn behind the builds
that run, and what was read is kept for as long as its log stays as it is and somebody asks.
"""

from collections import OrderedDict
from typing import Final

import trio
from attrs import define

from scheduler.recovery.replaying import Replayer
from scheduler.runtime.courtesy import give_way
from scheduler.supervision.explainer import Seen
from scheduler.supervision.supervisor import Supervisor

_MOST_BYTES: Final = 16 * 1024 * 1024
"""Of the logs of all builds that are kept; in memory it is some times as much."""
_COMPONENT_BYTES: Final = 1_000
"""... of each component at least: what a log has elsewhere is not counted."""
_KEPT: Final = 60.0
"""Seconds since somebody last asked; the one that was read last is kept for a while, however large."""
_PERIOD: Final = 5.0
"""Seconds between two looks for those that are kept no longer."""


@define(eq=False)
class _Kept:
    seen: Seen
    sequence: int
    size: int
    asked: float
    """By Trio's clock."""


class FinishedBuilds:
    """Reads builds from their logs; `run` lets go of them.

    Args:
        replayer: makes plans of logs.
        supervisor: has what else is to be known of a build.
        most_bytes: of the logs whose builds are kept; one is kept even if it is larger.
    """

    def __init__(self, replayer: Replayer, supervisor: Supervisor, most_bytes: int = _MOST_BYTES) -> None:
        self._replayer = replayer
        self._supervisor = supervisor
        self._most_bytes = most_bytes
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        """By build, whoever was asked about last at the end."""
        self._reading = trio.Lock()
        self._stirred = trio.Event()

    def __len__(self) -> int:
        return len(self._kept)

    async def seen(self, build: str) -> Seen | None:
        """A build as its log says; None where there is none.

        Raises:
            UnreadableLog: this version cannot understand it.
            BusError: JetStream could not be asked.
        """
        sequence = await self._replayer.last_sequence(build)
        if sequence is None:
            return None
        if (seen := self._known(build, sequence)) is not None:
            return seen
        async with self._reading:
            # Somebody else may have read it meanwhile.
            if (seen := self._known(build, sequence)) is not None:
                return seen
            plan, history = await self._replayer.look(build, give_way)
            seen = await self._supervisor.recalled(plan, history)
            seen.identity = f"log {sequence}"
            size = max(history.bytes, _COMPONENT_BYTES * len(plan.phases))
            self._kept[build] = _Kept(seen, sequence, size, trio.current_time())
            self._kept.move_to_end(build)
            self._stirred.set()
            await self._trim()
            return seen

    def _known(self, build: str, sequence: int) -> Seen | None:
        known = self._kept.get(build)
        if known is None or known.sequence != sequence:
            return None
        known.asked = trio.current_time()
        self._kept.move_to_end(build)
        return known.seen

    async def run(self) -> None:
        """Let go of builds that nobody asks about, or that are too many; never returns."""
        while True:
            await self._stirred.wait()
            await trio.sleep(_PERIOD)
            await self._trim()
            if not self._kept:
                self._stirred = trio.Event()

    async def _trim(self) -> None:
        while self._kept:
            build, first = next(iter(self._kept.items()))
            fits = len(self._kept) == 1 or sum(one.size for one in self._kept.values()) <= self._most_bytes
            if fits and first.asked > trio.current_time() - _KEPT:
                return
            del self._kept[build], first
            await trio.lowlevel.checkpoint()
