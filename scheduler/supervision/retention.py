"""Removes the logs and reports of finished builds when they have been kept for long enough.

A removed log is replaced by a tombstone for a day, which shows that it was removed on purpose
(`scheduler.journal.records.tombstone`).
"""

import secrets
from contextlib import aclosing

import structlog
import trio

from scheduler.errors import BusError, StreamNotFound, UnreadableLog, WrongLastSequence
from scheduler.jetstream.reading import read
from scheduler.jetstream.streams import LOG, REPORTS, UPLOADS
from scheduler.journal.records import TOMBSTONE_KEPT, Status, tombstone
from scheduler.stores.jetstream import JetStreamStore
from scheduler.stores.log_reader import Entry

_log = structlog.get_logger()

_OUR_NAMES = (UPLOADS, "scheduler.log.", "scheduler.report.")
_LONGEST_PERIOD = 3_600.0
_SHORTEST_PERIOD = 10.0
_LOOSE_KEPT = 86_400.0
"""Seconds for which an object is kept that belongs to nothing, as the process that stored it died."""


class Retention:
    """Looks from time to time for builds that were reported ``keep`` seconds ago, and removes what they left.

    A build's log goes last: without it nothing would show that there is more to remove, and its id can be
    used again. It is replaced by a tombstone, which goes after a day.

    Args:
        store: store with the logs.
        keep: seconds for which a finished build is kept.
    """

    def __init__(self, store: JetStreamStore, keep: float) -> None:
        self._store = store
        self._keep = keep
        self._alone: set[int] = set()
        """Sequences of tombstones that are all that is left of their logs."""

    async def run(self) -> None:
        """Sweep from time to time; never returns."""
        period = max(_SHORTEST_PERIOD, min(_LONGEST_PERIOD, self._keep / 10))
        while True:
            await trio.sleep(period)
            try:
                await self.sweep()
            except BusError as error:
                _log.warning("finished builds could not be removed for now", error=str(error))

    async def sweep(self) -> int:
        """Remove builds that are due; returns their number.

        Raises:
            BusError: JetStream could not be asked.
        """
        now = self._store.wall_clock()
        due: list[Entry] = []
        tombstones: list[Entry] = []
        logs: set[str] = set()
        async with aclosing(self._store.logs.entries()) as batches:
            async for entries in batches:
                due += [entry for entry in entries if self._is_due(entry, now)]
                tombstones += [entry for entry in entries if _is_removed(entry)]
                logs.update(entry.subject for entry in entries if not _is_removed(entry))
        objects = [found async for found in self._store.objects.names()]
        gone = {entry.subject: entry.time for entry in due}
        for found in objects:
            log = _log_of(found.name)
            old = now - found.time / 1e9 > _LOOSE_KEPT and found.name.startswith(_OUR_NAMES)
            if found.time <= gone.get(log, -1) or (old and log not in logs):
                await self._store.objects.delete(found.name)
        for entry in due:
            await self._remove(entry, now)
        finished = await self._look_after(tombstones, now)
        await self._remove_reports(logs, now)
        await self._store.objects.sweep(int((now - _LOOSE_KEPT) * 1e9))
        removed = len(due) + finished
        if removed:
            _log.info("finished builds were removed", builds=removed)
        return removed

    def _is_due(self, entry: Entry, now: float) -> bool:
        headings = entry.headings
        if isinstance(headings, UnreadableLog) or headings.status is not Status.REPORTED:
            return False
        if headings.removed:
            return False
        return now - entry.time / 1e9 >= self._keep

    async def _remove(self, entry: Entry, now: float) -> None:
        js, subject = self._store.js, entry.subject
        await js.purge(REPORTS, f"scheduler.report.{subject.rpartition('.')[2]}.*")
        record_id = f"removed-{secrets.token_hex(8)}"
        data, headers = tombstone(
            record_id, instance=self._store.instance, at=int(now * 1_000), why="kept for long enough"
        )
        try:
            ack = await js.publish(subject, data, expected=entry.sequence, headers=headers)
        except WrongLastSequence:
            # Another process has removed it, or an operator has begun another run of it.
            return
        # A process that dies before this leaves a log that ends with its tombstone: it is removed as well.
        await js.purge(LOG, subject, before=ack.sequence)
        self._alone.add(ack.sequence)

    async def _look_after(self, tombstones: list[Entry], now: float) -> int:
        """Remove tombstones that have been kept for long enough, and the rest of their logs.

        Returns:
            The number of logs whose removal had been begun before.
        """
        finished = 0
        self._alone.intersection_update({entry.sequence for entry in tombstones})
        for entry in tombstones:
            if now - entry.time / 1e9 >= TOMBSTONE_KEPT:
                await self._store.js.purge(LOG, entry.subject, before=entry.sequence + 1)
            elif entry.sequence not in self._alone:
                finished += await self._store.js.purge(LOG, entry.subject, before=entry.sequence) > 0
                self._alone.add(entry.sequence)
        return finished

    async def _remove_reports(self, logs: set[str], now: float) -> None:
        """Remove the reports whose logs were removed by hand."""
        old = max(self._keep, TOMBSTONE_KEPT)
        orphans: set[str] = set()
        try:
            async with aclosing(
                read(self._store.js, REPORTS, last_per_subject=True, headers_only=True)
            ) as reports:
                async for batch in reports:
                    orphans.update(
                        report.subject
                        for report in batch
                        if now - report.time / 1e9 > old and _log_of(report.subject) not in logs
                    )
        except StreamNotFound:
            return
        for subject in orphans:
            await self._store.js.purge(REPORTS, subject)


def _is_removed(entry: Entry) -> bool:
    return not isinstance(entry.headings, UnreadableLog) and entry.headings.removed


def _log_of(name: str) -> str:
    """Return the subject of the log that an object belongs to; where it belongs to none, its own name."""
    if name.startswith("scheduler.report."):
        return f"scheduler.log.{name.split('.')[2]}"
    return name.partition("/")[0] if name.startswith("scheduler.log.") else name
