"""Removes what finished builds leave behind, when they have been kept for long enough."""

import structlog
import trio

from scheduler.errors import BusError, UnreadableLog
from scheduler.jetstream.streams import LOG, REPORTS, UPLOADS
from scheduler.records import Status
from scheduler.stores.jetstream import Entry, JetStreamStore

_log = structlog.get_logger()

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
        async for entries in self._store.entries():
            due += [entry for entry in entries if self._is_due(entry, now)]
            logs.update(entry.subject for entry in entries)
        for entry in due:
            await self._remove(entry)
        loose = [
            found.name
            async for found in self._store.objects.names()
            if now - found.time / 1e9 > _LOOSE_KEPT
            and (found.name.startswith(UPLOADS) or _log_of(found.name, logs) is None)
        ]
        for name in loose:
            await self._store.objects.delete(name)
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
        reports = f"scheduler.report.{token}"
        for prefix in (f"{entry.subject}/", f"{reports}."):
            async for found in self._store.objects.names(prefix):
                await self._store.objects.delete(found.name)
        await self._store.js.purge(REPORTS, f"{reports}.*")
        await self._store.js.purge(LOG, entry.subject)


def _log_of(name: str, logs: set[str]) -> str | None:
    """The log that an object belongs to; None where it belongs to one that is gone, or never was.

    What has a name that we do not give is somebody else's, and its own log.
    """
    if name.startswith("scheduler.report."):
        subject = f"scheduler.log.{name.split('.')[2]}"
    elif name.startswith("scheduler.log."):
        subject = name.partition("/")[0]
    else:
        return name
    return subject if subject in logs else None
