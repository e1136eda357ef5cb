"""Reads finished builds from their logs for operators, and keeps them for a while.

Reading a log takes as long as taking the build up. So logs are read one at a time, after the work of running
builds, and a build is kept while its log does not change and operators ask for it.
"""

from collections import OrderedDict
from typing import Final

import trio
from attrs import define

from scheduler.recovery.replaying import Replayer
from scheduler.runtime.courtesy import give_way
from scheduler.supervision.explainer import Seen

_MOST_BYTES: Final = 16 * 1024 * 1024
"""Bytes of the logs of all builds that are kept; in memory they take some times as much."""
_COMPONENT_BYTES: Final = 1_000
"""Bytes counted for each component at least: parts of a log may be in the object store."""
_KEPT: Final = 60.0
"""Seconds that a build is kept after the last question; the last one read is kept however large it is."""
_PERIOD: Final = 5.0
"""Seconds between two searches for builds to be dropped."""


@define(eq=False)
class _Kept:
    seen: Seen
    sequence: int
    size: int
    asked: float
    """Time of the last question, Trio clock."""


class FinishedBuilds:
    """Reads builds from their logs; `run` drops them.

    Args:
        replayer: reads logs.
        most_bytes: bytes of the logs whose builds are kept; one is kept even if it is larger.
    """

    def __init__(self, replayer: Replayer, most_bytes: int = _MOST_BYTES) -> None:
        self._replayer = replayer
        self._most_bytes = most_bytes
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        """Builds by id, the one asked for last at the end."""
        self._reading = trio.Lock()
        self._stirred = trio.Event()

    def __len__(self) -> int:
        return len(self._kept)

    async def seen(self, build: str) -> Seen | None:
        """Return a build as its log says; None if it has no log.

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
            # Another question may have read it meanwhile.
            if (seen := self._known(build, sequence)) is not None:
                return seen
            seen, history = await self._replayer.look(build, give_way)
            seen.identity = f"log {sequence}"
            size = max(history.bytes, _COMPONENT_BYTES * len(seen.plan.phases))
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
        """Drop builds that are not asked for any more, or are too many; never returns."""
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
