"""How a report leaves: published once, or stored first and then published until it is known to have left."""

from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog
import trio

from scheduler.bus import Bus
from scheduler.errors import BusClosed, BusError, BusFull, MessageTooLarge, WrongLastSequence
from scheduler.events import Reported
from scheduler.jetstream.api import Stored
from scheduler.jetstream.streams import REPORTS, SUBJECT_HEADER, report_subject
from scheduler.report import Report
from scheduler.stores.jetstream import JetStreamStore

_log = structlog.get_logger()

_FIRST_PAUSE = 0.1
_LAST_PAUSE = 1.0
_FULL_PAUSE = 1.0
_FLUSH_DEADLINE = 5.0
_ROOM = 1024
"""Bytes of a message beside its body: its headers, and those that the store adds."""


class Reporter(Protocol):
    """Where a finished build's report goes."""

    async def report(self, build: str, report: Report) -> None:
        """Have it published; returns when that is done, as far as can be known."""


class Publisher:
    """Publishes reports: enough where nothing outlives the process, or somebody else keeps them."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def report(self, build: str, report: Report) -> None:
        """Publish it, without its lists where it is too large."""
        body = await whole(report)
        reduced = False
        while True:
            try:
                self._bus.publish(report.subject, body)
            except MessageTooLarge as error:
                if reduced:
                    raise
                reduced = True
                _log.error("the report is too large", build=build, error=str(error))
                body = report.reduced(error.size, error.limit)
            except BusFull:
                # The broker is away, and much waits for it. A report is not to be lost over that.
                await trio.sleep(_FULL_PAUSE)
            else:
                return


class Recorder:
    """Stores each report once, publishes it until the broker has it, and notes that in the build's log.

    The report of a run is what was stored first, whatever happens afterwards: a process that dies between
    storing and noting has the next one publish the same bytes again, under the same message id.
    """

    def __init__(self, bus: Bus, store: JetStreamStore) -> None:
        self._bus = bus
        self._store = store

    async def report(self, build: str, report: Report) -> None:
        """Store it, publish it, note that it was published.

        Raises:
            Fenced: another process has the build now; it reports.
            StoreError: the build's log cannot be written.
        """
        run = 1
        body = await whole(report)
        size, limit = len(body) + _ROOM, self._bus.max_payload
        if size > limit:
            name = f"{report_subject(build, run)}.json"
            await self._patiently(lambda: self._store.objects.put(name, body))
            body = report.reduced(size, limit, name)
        headers = {"Nats-Msg-Id": report_subject(build, run), SUBJECT_HEADER: report.subject}
        subject = report_subject(build, run)

        async def keep() -> None:
            try:
                await self._store.js.publish(subject, body, expected=0, headers=headers)
            except WrongLastSequence:
                _log.info("the report was stored before", build=build)

        await self._patiently(keep)
        if not await self.publish_stored(build):
            _log.error("the report was stored and is gone", build=build)

    async def is_stored(self, build: str) -> bool:
        """Whether an earlier process stored the report."""
        return await self._stored(build, 1) is not None

    async def _stored(self, build: str, run: int) -> Stored | None:
        found: list[Stored | None] = []

        async def look() -> None:
            found.append(await self._store.js.last(REPORTS, report_subject(build, run)))

        await self._patiently(look)
        return found[0]

    async def publish_stored(self, build: str) -> bool:
        """Publish the report that was stored, and note that.

        Returns:
            Whether there is one.

        Raises:
            Fenced, StoreError: as `report`.
        """
        run = 1
        stored = await self._stored(build, run)
        if stored is None:
            return False
        subject = stored.headers[SUBJECT_HEADER]
        while True:
            generation = self._bus.generation
            try:
                self._bus.publish(
                    subject, stored.data, headers={"Nats-Msg-Id": stored.headers["Nats-Msg-Id"]}
                )
                with trio.fail_after(_FLUSH_DEADLINE):
                    await self._bus.flush()
            except BusClosed:
                raise
            except (BusFull, trio.TooSlowError):
                await trio.sleep(_FULL_PAUSE)
            else:
                # What was written to a connection that was then lost may not have arrived.
                if generation == self._bus.generation:
                    break
        await self._store.append(build, [Reported(run)])
        return True

    async def _patiently(self, job: Callable[[], Awaitable[None]]) -> None:
        """Do something with JetStream until it works."""
        pause = _FIRST_PAUSE
        while True:
            try:
                await job()
            except BusClosed:
                raise
            except BusError as error:
                self._store.weather.bad(str(error))
                await trio.sleep(pause)
                pause = min(2 * pause, _LAST_PAUSE)
            else:
                self._store.weather.good()
                return


async def whole(report: Report) -> bytes:
    """The report as JSON; other builds have their turn while it is made."""
    parts: list[bytes] = []
    for part in report.chunks():
        parts.append(part)
        if not len(parts) % 4:
            await trio.lowlevel.checkpoint()
    return b"".join(parts)
