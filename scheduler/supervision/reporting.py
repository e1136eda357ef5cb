"""Sends reports: publishes each once, or stores it first and publishes it until the broker has it."""

import secrets
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Protocol, TypeVar

import structlog
import trio

from scheduler.bus import Bus
from scheduler.definition.strictjson import encode, split_object
from scheduler.definition.subjects import attempt_header
from scheduler.errors import (
    BusClosed,
    BusFull,
    LogRemoved,
    MessageTooLarge,
    StoreError,
    WrongLastSequence,
)
from scheduler.jetstream.answers import Stored
from scheduler.jetstream.streams import (
    MARK_HEADER,
    OBJECTS,
    REPORT_HEADER,
    REPORTS,
    SUBJECT_HEADER,
    SUMMARY_HEADER,
    report_subject,
)
from scheduler.journal.events import Reported
from scheduler.plan.report import Report
from scheduler.stores.jetstream import JetStreamStore
from scheduler.stores.slices import gathered_up_to
from scheduler.supervision.kept_reports import KeptReports

_log = structlog.get_logger()

_T = TypeVar("_T")
_FULL_PAUSE = 1.0
_FLUSH_DEADLINE = 5.0
_ROOM = 1024
"""Size of a message's headers, and of those that the store adds, in bytes."""


class Reporter(Protocol):
    """Port for the reports of finished builds."""

    async def report(self, build: str, report: Report) -> None:
        """Publish a report; return when that is done, as far as can be known."""

    def waits(self, build: str) -> str:
        """Return why the report of a build is not out yet; empty where none is under way."""


class Publisher:
    """Publishes reports once: enough where builds end with the process, or another service keeps reports.

    Args:
        bus: the connection.
        kept: keeps the last reports; None where a store does.
    """

    def __init__(self, bus: Bus, kept: KeptReports | None = None) -> None:
        self._bus = bus
        self._kept = kept

    def waits(self, build: str) -> str:  # noqa: ARG002 - as in the protocol
        """Implement `Reporter.waits`: a report waits for no store here."""
        return ""

    async def report(self, build: str, report: Report) -> None:
        """Publish a report, without its lists where it is too large."""
        limit = self._bus.max_payload
        most = limit if self._kept is None else max(limit, self._kept.most_bytes)
        body, size = await gathered_up_to(report.chunks(), most)
        if body is not None and self._kept is not None:
            self._kept.keep(build, report, body)
        if size > limit:
            body = None
        too_large = None if body is not None else MessageTooLarge("the report", size, limit)
        while True:
            if body is None:
                assert too_large is not None
                _log.error("the report is too large", build=build, error=str(too_large))
                body = report.reduced(too_large.size, too_large.limit)
            try:
                self._bus.publish(report.subject, body)
            except MessageTooLarge as error:
                # We came to another server meanwhile.
                if too_large is not None:
                    raise
                body, too_large = None, error
            except BusFull:
                # The broker is away, and much waits for it; the report must not be lost for that.
                await trio.sleep(_FULL_PAUSE)
            else:
                return


class Recorder:
    """Stores each report once, publishes it until the broker has it, and notes that in the build's log.

    The report of a run is the one stored first, whatever happens afterwards: after a process that dies
    between storing and noting, the next one publishes the same bytes again, under the same message id.
    """

    def __init__(self, bus: Bus, store: JetStreamStore) -> None:
        self._bus = bus
        self._store = store
        self._under_way: set[str] = set()

    def waits(self, build: str) -> str:
        """Return why the report of a build is not out yet; empty where none is under way."""
        if build not in self._under_way:
            return ""
        problems = (self._store.streams.problem(stream) for stream in (REPORTS, OBJECTS))
        return next(filter(None, problems), self._store.trouble or "it is being stored and published")

    async def report(self, build: str, report: Report) -> None:
        """Store a report, publish it, and note that it was published.

        Raises:
            Fenced: another process owns the build now, and reports it.
            StoreError: the build's log cannot be written.
        """
        self._under_way.add(build)
        try:
            await self._store_report(build, report)
            while not await self.publish_stored(build, report.run):
                # It was removed at this moment, with its whole stream.
                await self._store_report(build, report)
        finally:
            self._under_way.discard(build)

    async def _store_report(self, build: str, report: Report) -> None:
        js, subject = self._store.js, report_subject(build, report.run)
        # By this people's own streams may tell a second copy; not so ours, which would take the report of a
        # later build of the same id for one.
        headers = {
            REPORT_HEADER: f"{build}/{report.run}/{secrets.token_hex(8)}",
            SUBJECT_HEADER: report.subject,
            SUMMARY_HEADER: report.summary(),
        }
        if report.mark:
            headers[MARK_HEADER] = report.mark
        expected = 0
        while True:
            data = await self._fitting(build, report)
            try:
                store = partial(js.publish, subject, data, expected=expected, headers=headers)
                await self._ask(REPORTS, store)
            except WrongLastSequence:
                stored = await self._stored(build, report.run)
                if stored is not None and _mark_of(stored) == report.mark:
                    _log.info("the report was stored before", build=build)
                    return
                # It belongs to another build, which had the id before, and whose log was removed by hand.
                expected = 0 if stored is None else stored.sequence
            except MessageTooLarge as error:
                if len(data) <= js.most_bytes(_ROOM):
                    raise StoreError(str(error)) from error
                # The limit was lowered meanwhile: it is decided again.
            else:
                return

    async def _fitting(self, build: str, report: Report) -> bytes:
        """Return the bytes to store of a report: all of it, or what names the object with the rest."""
        limit = self._store.js.most_bytes(_ROOM)
        body, size = await gathered_up_to(report.chunks(), limit)
        if body is not None:
            return body
        name = object_of(build, report.run)
        # Made once more as it is sent: it may be many times the payload, and is nowhere as a whole.
        await self._ask(OBJECTS, lambda: self._store.objects.put_pieces(name, report.chunks()))
        return report.reduced(size, limit, name)

    async def is_stored(self, build: str, run: int, mark: str = "") -> bool:
        """Return whether an earlier process stored the report of a run.

        Args:
            build: its id.
            run: number of the run.
            mark: mark of the build's acceptance.
        """
        stored = await self._stored(build, run)
        return stored is not None and _mark_of(stored) == mark

    async def publish_stored(self, build: str, run: int) -> bool:
        """Publish the report of a run that was stored, and note that.

        Returns:
            Whether there is a stored report.

        Raises:
            Fenced, StoreError: as `report`.
        """
        stored = await self._stored(build, run)
        if stored is None:
            return False
        subject, id_ = stored.headers.get(SUBJECT_HEADER), stored.headers.get(REPORT_HEADER)
        if not subject or not id_:
            raise StoreError(f"what is stored as the report of {build} is none of ours")
        headers = {"Nats-Msg-Id": attempt_header(id_)}
        try:
            await self._publish(subject, stored.data, headers)
        except MessageTooLarge as error:
            # It was stored when the broker took larger messages.
            name = object_of(build, run)
            await self._ask(OBJECTS, lambda: self._store.objects.put(name, stored.data))
            await self._publish(subject, reduced(stored.data, name), headers)
            _log.warning(
                "the report is too large now, and was published by name", build=build, error=str(error)
            )
        try:
            await self._store.append(build, [Reported(run)])
        except LogRemoved as error:
            # There is nothing left in which it would have to be noted.
            _log.warning("the report is out, and its build's log is gone", build=build, error=str(error))
        return True

    async def _stored(self, build: str, run: int) -> Stored | None:
        return await self._ask(REPORTS, lambda: self._store.js.last(REPORTS, report_subject(build, run)))

    async def _publish(self, subject: str, body: bytes, headers: Mapping[str, str]) -> None:
        """Publish a report until the broker is known to have received it.

        Raises:
            MessageTooLarge: it is over the server's limit.
        """
        while True:
            try:
                outgoing = self._bus.publish(subject, body, headers=headers)
            except BusFull:
                await trio.sleep(_FULL_PAUSE)
                continue
            while True:
                with trio.move_on_after(_FLUSH_DEADLINE) as slow:
                    await self._bus.flush()
                if not slow.cancelled_caught:
                    break
                # It waits in our queue, or is under way: in both cases a second copy would be a duplicate.
            if outgoing.refused is not None:
                raise outgoing.refused
            if outgoing.generation == self._bus.generation:
                return

    async def _ask(self, stream: str, ask: Callable[[], Awaitable[_T]]) -> _T:
        try:
            return await self._store.streams.ask(stream, ask, WrongLastSequence)
        except BusClosed as error:
            raise StoreError(str(error)) from error


def _mark_of(stored: Stored) -> str:
    """Return the mark of the acceptance that a stored report belongs to."""
    return stored.headers.get(MARK_HEADER, "")


def object_of(build: str, run: int) -> str:
    """Return the name of the object for a report that is too large for a message."""
    return f"{report_subject(build, run)}.json"


def reduced(data: bytes, name: str) -> bytes:
    """Return a report as JSON without its lists, but with the name of the object that has them."""
    members = split_object(data)
    head = {key: value for key, value in members.items() if key in {"id", "name", "action", "error"}}
    return encode({**head, "object": name, "omitted": ["components", "changes", "edges"]})
