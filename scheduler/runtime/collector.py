"""Runs full garbage collections: while the service is idle, or when they are unavoidable.

Finished builds are freed without the collector, so `tuning` makes it look at young objects only. This module
is the safety net. A collection is a pause, which grows with the objects that are alive and that are found:

- while the service is idle, objects made since the last collection are collected;
- while builds run, everything is collected once the interpreter holds many more blocks of memory than the
  builds explain, at most once in ten minutes. No other stretch of the loop is longer than 10 ms. This one
  takes half a second beside 10,000 small builds, so the more blocks builds explain, the more may be
  unexplained before the pause is made.

While builds run, the young objects are walked once a second, unless the interpreter has already done that.

Objects that are alive after a collection are *frozen*, so that the next one ignores them: after the start
these are the modules, tens of thousands of objects.

Blocks are counted, not bytes, since only blocks distinguish kept objects from freed ones: memory full of
holes does not shrink, and no collector can change that.
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
"""Seconds without work after which the service counts as idle."""
BETWEEN_RESTS: Final = 60.0
"""Shortest time from a collection to one that is made because the service is idle, in seconds."""
BETWEEN_FORCED: Final = 600.0
"""Shortest time between two collections while builds run, in seconds."""
MOST_UNEXPLAINED: Final = 1_000_000
"""Largest number of blocks that no build explains: about 100 MB, which take 0.3 s to collect."""
MOST_OF_EXPLAINED: Final = 0.5
"""Bound as a share of the explained blocks, if that is larger; those are an estimate."""
BLOCKS_A_BUILD: Final = 350
"""Blocks that a held build explains, however small it is: two tasks, its plan, its log."""
BLOCKS_A_COMPONENT: Final = 60
"""Blocks that a component of a held build explains; really it is less, and half of that while it waits."""
BYTES_A_BLOCK: Final = 8
"""Bytes of builds and replies that explain a block; mostly it takes more, but three if all is lists."""
_PERIOD: Final = 1.0
_LONG: Final = 0.010
"""Shortest idle collection that is logged, in seconds."""


@frozen
class Load:
    """Load of a service."""

    builds: int = 0
    """Number of builds that it holds or is about to hold."""
    components: int = 0
    """Number of their components."""
    bytes: int = 0
    """Bytes of builds that arrived, and of replies to running ones."""

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self.builds and not self.bytes

    @property
    def blocks(self) -> int:
        """Number of blocks of memory that the load explains."""
        held = self.builds * BLOCKS_A_BUILD + self.components * BLOCKS_A_COMPONENT
        return held + self.bytes // BYTES_A_BLOCK


class CollectionReason(Enum):
    """Reason for a collection."""

    IDLE = "idle"
    MEMORY = "memory that no build explains"


class Schedule:
    """Schedule of collections; it knows neither clock nor collector.

    Args:
        now: time of a monotonic clock, in seconds.
        blocks: the number of blocks allocated now, without builds.
    """

    def __init__(self, now: float, blocks: int) -> None:
        self._base = blocks
        """Number of blocks that the last collection did not free, and no build explained."""
        self._busy_at = now
        self._collected_at = -BETWEEN_RESTS
        self._forced_at = -BETWEEN_FORCED
        self._worked = False
        """Whether there was work since the last collection."""

    def decide(self, now: float, load: Load, blocks: int) -> CollectionReason | None:
        """Decide whether to collect now; after the collection `collected` must be called.

        Args:
            now: the time, in seconds.
            load: the load of the service.
            blocks: the number of allocated blocks.
        """
        if not load.idle:
            self._busy_at, self._worked = now, True
            excess = blocks - self._base - load.blocks
            due = now - self._forced_at >= BETWEEN_FORCED
            most = max(MOST_UNEXPLAINED, load.blocks * MOST_OF_EXPLAINED)
            return CollectionReason.MEMORY if due and excess > most else None
        rested = now - self._busy_at >= REST and now - self._collected_at >= BETWEEN_RESTS
        return CollectionReason.IDLE if self._worked and rested else None

    def collected(self, now: float, reason: CollectionReason, load: Load, blocks: int) -> None:
        """Note that a collection was made for ``reason``, and left so many blocks."""
        self._collected_at = now
        self._worked = not load.idle
        if reason is CollectionReason.MEMORY:
            self._forced_at = now
        self._base = max(0, blocks - load.blocks)


def collect(*, everything: bool) -> tuple[int, float]:
    """Collect objects made since the last time, or ``everything``; freeze the rest.

    Returns:
        The number of unreachable objects found, and the duration in seconds.
    """
    began = time.perf_counter()
    if everything:
        gc.unfreeze()
    found = gc.collect()
    gc.freeze()
    return found, time.perf_counter() - began


class Collector:
    """Task that collects when it is time.

    Args:
        load: returns the load of the service.
    """

    def __init__(self, load: Callable[[], Load]) -> None:
        self._load = load

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Check from time to time; never returns."""
        collect(everything=True)
        schedule = Schedule(trio.current_time(), sys.getallocatedblocks())
        task_status.started()
        while True:
            await trio.sleep(_PERIOD)
            load, before = self._load(), sys.getallocatedblocks()
            reason = schedule.decide(trio.current_time(), load, before)
            if reason is not None:
                found, seconds = collect(everything=reason is CollectionReason.MEMORY)
                left = sys.getallocatedblocks()
                schedule.collected(trio.current_time(), reason, load, left)
                quiet = _log.info if seconds > _LONG else _log.debug
                log = _log.warning if reason is CollectionReason.MEMORY else quiet
                log(
                    "garbage collected",
                    reason=reason.value,
                    seconds=round(seconds, 6),
                    objects=found,
                    blocks_before=before,
                    blocks=left,
                )
            elif not load.idle:
                # While as many objects are freed as are made, the interpreter puts this off for long, and
                # then walks all of them at once. Objects that died young are not walked at all.
                gc.collect(1)
