"""Sources of the reports of builds that have ended, by the kind of the store."""

from collections.abc import Iterable
from contextlib import aclosing
from hashlib import blake2b
from typing import Final, Protocol

import msgspec
from attrs import evolve, field, frozen

from scheduler.control.reports import Reports
from scheduler.definition.model import State
from scheduler.definition.secrets.masking import Secrets
from scheduler.errors import JetStreamError, Refused, StreamNotFound
from scheduler.jetstream.answers import Stored
from scheduler.jetstream.reading import read
from scheduler.jetstream.streams import (
    REPORT_HEADER,
    REPORTS,
    SUBJECT_HEADER,
    SUMMARY_HEADER,
    log_subject,
    report_subject,
)
from scheduler.journal.records import Status, read_headers
from scheduler.stores import DocumentStore, Store
from scheduler.stores.jetstream import JetStreamStore
from scheduler.stores.slices import encode as encode_in_slices
from scheduler.supervision.kept_reports import KeptReports

_LARGEST: Final = 256 * 1024 * 1024
"""Bytes of the largest report that is read from the object store."""
_POINTER: Final = 64 * 1024
"""Bytes up to which a stored report may be one that only names an object."""


@frozen
class StoredReport:
    """Report of a run, as a source has it."""

    build: str
    run: int
    status: str
    """``done``, ``errored`` or ``cancelled``."""
    identity: str
    """Text unlike that of any other report."""
    data: bytes = field(repr=False)
    secrets: Secrets | None = field(default=None, repr=False)
    """All secrets of the build, where the source knows them."""

    def without_data(self) -> "StoredReport":
        """Return it without its text, for one that was taken apart."""
        return evolve(self, data=b"")


class ReportSource(Protocol):
    """Source of reports."""

    async def revision(self, build: str) -> object:
        """Return a value that is unequal after the reports of a build may have changed.

        Raises:
            StoreError, BusError: it cannot be asked.
        """

    async def fetch(self, build: str, run: int | None) -> StoredReport | None:
        """Return the report of a run, or of the last one; None if there is none.

        Raises:
            Refused: there is none for a reason that is known.
            StoreError, BusError: it cannot be asked.
        """

    async def runs(self, build: str) -> list[int]:
        """Return the runs of a build that there are reports of, the first one first."""

    async def builds(self) -> Iterable[str]:
        """Return the builds that there are reports of, as far as they can be listed."""

    def limits(self, build: str) -> str:
        """Return why the report of a build that ended may be gone, for people; empty where it may not."""


def source_of(store: Store, reports: Reports, kept: KeptReports | None) -> ReportSource:
    """Return the source of reports for a store.

    Args:
        store: the store of the builds.
        reports: lists finished builds.
        kept: last reports, if no store has any.
    """
    if isinstance(store, JetStreamStore):
        return LoggedReports(store, reports)
    if kept is None and isinstance(store, DocumentStore):
        return DocumentReports(store)
    return RememberedReports(KeptReports() if kept is None else kept, store.name)


class _Pointer(msgspec.Struct):
    """Report that names the object with the whole report."""

    object: str
    omitted: list[str]


class _Summary(msgspec.Struct):
    status: str = ""


class LoggedReports:
    """Reports in the stream of reports, or in the objects that those name."""

    def __init__(self, store: JetStreamStore, reports: Reports) -> None:
        self._store = store
        self._reports = reports

    async def revision(self, build: str) -> object:
        """Implement `ReportSource.revision`: each report is followed by a record in the build's log."""
        last = await self._store.logs.last(log_subject(build))
        return None if last is None else last.sequence

    async def fetch(self, build: str, run: int | None) -> StoredReport | None:
        """Implement `ReportSource.fetch`."""
        last = await self._store.logs.last(log_subject(build)) if run is None else None
        if last is not None and (status := read_headers(last.headers).status) is not Status.REPORTED:
            # The last report is that of an earlier run, or there is none.
            what = "has not ended" if status is Status.OPEN else "has ended, and is not reported yet"
            raise Refused("conflict", f"{build} {what}; it is not held here, and may be taken up soon")
        try:
            stored = await self._store.js.last(REPORTS, report_subject(build, "*" if run is None else run))
        except StreamNotFound:
            return None
        if stored is None:
            return None
        number = int(stored.subject.rpartition(".")[2])
        identity = stored.headers.get(REPORT_HEADER, "") or f"{build}/{number}/{stored.sequence}"
        return StoredReport(
            build, number, _status(stored), identity, await self._whole(build, number, stored)
        )

    async def _whole(self, build: str, run: int, stored: Stored) -> bytes:
        if len(stored.data) > _POINTER:
            return stored.data
        try:
            name = msgspec.json.decode(stored.data, type=_Pointer).object
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return stored.data
        try:
            data = await self._store.objects.get(name, most=_LARGEST)
        except JetStreamError as error:
            raise Refused(
                "unavailable", f"the report of run {run} of {build} cannot be read: {error}"
            ) from None
        if data is None:
            raise Refused(
                "unknown", f"the report of run {run} of {build} was in the object {name}, which is gone"
            )
        return data

    async def runs(self, build: str) -> list[int]:
        """Implement `ReportSource.runs`."""
        found: set[int] = set()
        subjects = [report_subject(build, "*")]
        reports = read(self._store.js, REPORTS, subjects=subjects, last_per_subject=True, headers_only=True)
        try:
            async with aclosing(reports) as batches:
                async for batch in batches:
                    found.update(int(one.subject.rpartition(".")[2]) for one in batch)
        except StreamNotFound:
            return []
        return sorted(found)

    async def builds(self) -> Iterable[str]:
        """Implement `ReportSource.builds`."""
        return await self._reports.finished()

    def limits(self, build: str) -> str:  # noqa: ARG002 - as the port
        """Implement `ReportSource.limits`."""
        return ""


def _status(stored: Stored) -> str:
    """Return how the run of a stored report ended; earlier versions did not tell cancelled ones."""
    try:
        status = msgspec.json.decode(stored.headers.get(SUMMARY_HEADER, "{}"), type=_Summary).status
    except msgspec.DecodeError:
        status = ""
    return status or ("done" if stored.headers.get(SUBJECT_HEADER, "").endswith(".done") else "errored")


class DocumentReports:
    """Builds in a store that keeps each as a document: what it has after the end is the report."""

    def __init__(self, store: DocumentStore) -> None:
        self._store = store

    async def revision(self, build: str) -> object:  # noqa: ARG002 - as the port
        """Implement `ReportSource.revision`: it cannot be told, so nothing is kept but for further pages."""
        return object()

    async def fetch(self, build: str, run: int | None) -> StoredReport | None:
        """Implement `ReportSource.fetch`: there is one run only."""
        if run not in {None, 1}:
            return None
        document = await self._store.load(build)
        if document is None:
            return None
        changes = document.get("changes")
        states = {change.get("_state") for change in changes or () if isinstance(change, dict)}
        if State.RUNNING.value in states:
            text = "its store has changes that are running: wait for its end, with `scheduler wait`"
            raise Refused("conflict", f"{build} has not ended: {text}")
        if (done := states <= {State.COMPLETED.value}) is False and await self._is_unfinished(build):
            raise Refused("conflict", f"{build} has not ended: it may be taken up soon, or is about to end")
        data = await encode_in_slices(document)
        status = "done" if done else "errored"
        return StoredReport(build, 1, status, blake2b(data, digest_size=16).hexdigest(), data)

    async def _is_unfinished(self, build: str) -> bool:
        """Return whether the store says that a build has not ended: its changes alone do not always tell."""
        async with aclosing(self._store.unfinished()) as unfinished:
            async for one in unfinished:
                if one == build:
                    return True
        return False

    async def runs(self, build: str) -> list[int]:
        """Implement `ReportSource.runs`."""
        return [] if await self._store.load(build) is None else [1]

    async def builds(self) -> Iterable[str]:
        """Implement `ReportSource.builds`: the store lists no build that has ended."""
        return ()

    def limits(self, build: str) -> str:  # noqa: ARG002 - as the port
        """Implement `ReportSource.limits`."""
        return ""


class RememberedReports:
    """Last reports in memory.

    Args:
        kept: the reports.
        store: name of the store.
    """

    def __init__(self, kept: KeptReports, store: str) -> None:
        self._kept = kept
        self._store = store

    async def revision(self, build: str) -> object:
        """Implement `ReportSource.revision`."""
        kept = self._kept.get(build)
        return None if kept is None else kept.identity

    async def fetch(self, build: str, run: int | None) -> StoredReport | None:
        """Implement `ReportSource.fetch`: of each build only the last run is kept."""
        kept = self._kept.get(build)
        if kept is None or run not in {None, kept.run}:
            return None
        secrets = Secrets() if kept.secrets is None else kept.secrets
        return StoredReport(build, kept.run, kept.status, kept.identity, kept.data, secrets)

    async def runs(self, build: str) -> list[int]:
        """Implement `ReportSource.runs`."""
        kept = self._kept.get(build)
        return [] if kept is None else [kept.run]

    async def builds(self) -> Iterable[str]:
        """Implement `ReportSource.builds`."""
        return tuple(self._kept)

    def limits(self, build: str) -> str:  # noqa: ARG002 - as the port
        """Implement `ReportSource.limits`."""
        return f"the store {self._store} keeps {self._kept.limits}; one with JetStream keeps all (--keep)"
