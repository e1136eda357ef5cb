"""Runs the garbage collector over everything: when nobody waits for it, or when it has to be.

What builds leave behind is freed without the collector, so that `tuning` lets it look at young objects alone.
This is the net below that. It costs a pause, which grows with what is alive, and with what is found:

- while the service is idle, over what was made since the last time;
- while builds run, once the interpreter holds many more blocks of memory than they explain: over everything,
  and once in ten minutes at most. No other stretch of the loop is longer than 10 ms. It takes the longer the
  more is alive, half a second beside 10,000 small builds: so the more builds explain, the more may be
  unexplained before that pause is made.

While builds run the young ones are walked once a second, if the interpreter has not done that already.

Whatever is alive after a collection is *frozen*, so that the next one passes it over: after the start these
are the modules, tens of thousands of objects.

Blocks, not bytes, since only they tell what is kept from what was freed: memory full of holes does not
shrink, and no collector can help that.
"""

import gc
import sys
import time
from collections.abc import Callable
from enum import Enum
from typing import Final

import structlog
import trio
from attrs import frozen

_log = structlog.get_logger()

REST: Final = 2.0
"""Seconds for which nothing happened before the service counts as idle."""
BETWEEN_RESTS: Final = 60.0
"""Seconds from one collection to the next one that is made because the service is idle."""
BETWEEN_FORCED: Final = 600.0
"""Seconds between two collections while builds run, at least."""
MOST_UNEXPLAINED: Final = 1_000_000
"""Blocks that no build explains: about 100 MB, a third of a second to be collected."""
MOST_OF_EXPLAINED: Final = 0.5
"""As a part of what builds explain, where that is more: what they explain is only about right."""
BLOCKS_A_BUILD: Final = 350
"""What a build that is held explains, however small it is: two tasks, its plan, its log."""
BLOCKS_A_COMPONENT: Final = 60
"""What a component of a build that is held explains; it is less, half of that while it waits."""
BYTES_A_BLOCK: Final = 8
"""Of builds and replies: so many explain a block; mostly it is more, but three where all is lists."""
_PERIOD: Final = 1.0
_LONG: Final = 0.010
"""Seconds from which on an idle collection is worth a line in the log."""


@frozen
class Load:
    """What a service has to do with."""

    builds: int = 0
    """Builds that it holds, or is about to."""
    components: int = 0
    """All of them together."""
    bytes: int = 0
    """Bytes of builds that have come in, and of replies to those that run."""

    @property
    def idle(self) -> bool:
        """Whether there is nothing to be done."""
        return not self.builds and not self.bytes

    @property
    def blocks(self) -> int:
        """How many blocks of memory that explains."""
        held = self.builds * BLOCKS_A_BUILD + self.components * BLOCKS_A_COMPONENT
        return held + self.bytes // BYTES_A_BLOCK


class Reason(Enum):
    """Why a collection is made."""

    IDLE = "idle"
    MEMORY = "memory that no build explains"


class Schedule:
    """Decides when to collect; it knows neither clock nor collector.

    Args:
        now: seconds, of a clock that only goes forward.
        blocks: how many are allocated now, with no build there.
    """

    def __init__(self, now: float, blocks: int) -> None:
        self._base = blocks
        """Blocks that the last collection could not free, and no build explained."""
        self._busy_at = now
        self._collected_at = -BETWEEN_RESTS
        self._forced_at = -BETWEEN_FORCED
        self._worked = False
        """Whether anything was done since the last collection."""

    def decide(self, now: float, load: Load, blocks: int) -> Reason | None:
        """Whether to collect now; then `collected` is to be called.

        Args:
            now: as before.
            load: what there is to be done.
            blocks: how many are allocated.
        """
        if not load.idle:
            self._busy_at, self._worked = now, True
            excess = blocks - self._base - load.blocks
            due = now - self._forced_at >= BETWEEN_FORCED
            most = max(MOST_UNEXPLAINED, load.blocks * MOST_OF_EXPLAINED)
            return Reason.MEMORY if due and excess > most else None
        rested = now - self._busy_at >= REST and now - self._collected_at >= BETWEEN_RESTS
        return Reason.IDLE if self._worked and rested else None

    def collected(self, now: float, reason: Reason, load: Load, blocks: int) -> None:
        """A collection was made for ``reason``, and so many blocks are left."""
        self._collected_at = now
        self._worked = not load.idle
        if reason is Reason.MEMORY:
            self._forced_at = now
        self._base = max(0, blocks - load.blocks)


def collect(*, everything: bool) -> tuple[int, float]:
    """Collect what was made since the last time, or ``everything``; what is left is frozen.

    Returns:
        How many objects were found that nobody refers to, and the seconds that it took.
    """
    began = time.perf_counter()
    if everything:
        gc.unfreeze()
    found = gc.collect()
    gc.freeze()
    return found, time.perf_counter() - began


class Collector:
    """Collects when it is time.

    Args:
        load: what the service has to do with.
    """

    def __init__(self, load: Callable[[], Load]) -> None:
        self._load = load

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look from time to time; never returns."""
        collect(everything=True)
        schedule = Schedule(trio.current_time(), sys.getallocatedblocks())
        task_status.started()
        while True:
            await trio.sleep(_PERIOD)
            load, before = self._load(), sys.getallocatedblocks()
            reason = schedule.decide(trio.current_time(), load, before)
            if reason is not None:
                found, seconds = collect(everything=reason is Reason.MEMORY)
                left = sys.getallocatedblocks()
                schedule.collected(trio.current_time(), reason, load, left)
                log = (
                    _log.warning if reason is Reason.MEMORY else _log.info if seconds > _LONG else _log.debug
                )
                log(
                    "garbage collected",
                    reason=reason.value,
                    seconds=round(seconds, 6),
                    objects=found,
                    blocks_before=before,
                    blocks=left,
                )
            elif not load.idle:
                # Where as many objects are freed as are made, the interpreter does not come to this for long,
                # and then walks all of them at once. What has died young it does not see at all.
                gc.collect(1)
