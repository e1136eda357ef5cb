"""Removes what finished builds leave behind, when they have been kept for long enough."""

from contextlib import aclosing

import structlog
import trio

from scheduler.errors import BusError, UnreadableLog
from scheduler.jetstream.streams import LOG, REPORTS, UPLOADS
from scheduler.records import Status
from scheduler.stores.jetstream import Entry, JetStreamStore

_log = structlog.get_logger()

_OUR_NAMES = (UPLOADS, "scheduler.log.", "scheduler.report.")
_LONGEST_PERIOD = 3_600.0
_SHORTEST_PERIOD = 10.0
_LOOSE_KEPT = 86_400.0
"""Seconds for which an object is kept that belongs to nothing: whoever put it there has died."""


class Retention:
    """Looks from time to time for builds that were reported ``keep`` seconds ago, and removes what is there.

    A build's log goes last: with it goes the knowledge that there is something to be removed, and from then
    on its id can be used again.

    Args:
        store: has the logs.
        keep: seconds for which a finished build is kept.
    """

    def __init__(self, store: JetStreamStore, keep: float) -> None:
        self._store = store
        self._keep = keep

    async def run(self) -> None:
        """Look, and look again; never returns."""
        period = max(_SHORTEST_PERIOD, min(_LONGEST_PERIOD, self._keep / 10))
        while True:
            await trio.sleep(period)
            try:
                await self.sweep()
            except BusError as error:
                _log.warning("finished builds could not be removed for now", error=str(error))

    async def sweep(self) -> int:
        """Remove what is due; returns how many builds that were.

        Raises:
            BusError: JetStream could not be asked.
        """
        now = self._store.wall_clock()
        due: list[Entry] = []
        logs: set[str] = set()
        async with aclosing(self._store.entries()) as batches:
            async for entries in batches:
                due += [entry for entry in entries if self._is_due(entry, now)]
                logs.update(entry.subject for entry in entries)
        objects = [found async for found in self._store.objects.names()]
        gone = {entry.subject: entry.time for entry in due}
        for found in objects:
            log = _log_of(found.name)
            old = now - found.time / 1e9 > _LOOSE_KEPT and found.name.startswith(_OUR_NAMES)
            if found.time <= gone.get(log, -1) or (old and log not in logs):
                await self._store.objects.delete(found.name)
        for entry in due:
            await self._remove(entry)
        await self._store.objects.sweep(int((now - _LOOSE_KEPT) * 1e9))
        if due:
            _log.info("finished builds were removed", builds=len(due))
        return len(due)

    def _is_due(self, entry: Entry, now: float) -> bool:
        headings = entry.headings
        if isinstance(headings, UnreadableLog) or headings.status is not Status.REPORTED:
            return False
        return now - entry.time / 1e9 >= self._keep

    async def _remove(self, entry: Entry) -> None:
        token = entry.subject.rpartition(".")[2]
        await self._store.js.purge(REPORTS, f"scheduler.report.{token}.*")
        # Not what stands there by now: another process may have removed it, and the id be in use again.
        await self._store.js.purge(LOG, entry.subject, before=entry.sequence + 1)


def _log_of(name: str) -> str:
    """The subject of the log that an object belongs to; where it is none of a log, its own name."""
    if name.startswith("scheduler.report."):
        return f"scheduler.log.{name.split('.')[2]}"
    return name.partition("/")[0] if name.startswith("scheduler.log.") else name
