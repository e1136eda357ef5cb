"""Reads reports for the list of finished builds: only reports tell how builds ended."""

from collections.abc import Mapping
from contextlib import aclosing
from typing import Final, TypeAlias

from scheduler.control.remembered import Remembered
from scheduler.control.verbs import Document
from scheduler.definition.strictjson import decode
from scheduler.definition.tokens import decode_token
from scheduler.errors import InvalidJSON, StreamNotFound
from scheduler.jetstream.api import JetStream
from scheduler.jetstream.reading import read
from scheduler.jetstream.streams import REPORTS, SUBJECT_HEADER, SUMMARY_HEADER
from scheduler.runtime.courtesy import give_way
from scheduler.runtime.pace import paced
from scheduler.stores import Store
from scheduler.stores.jetstream import JetStreamStore

_SLICE: Final = 100
"""Reports between two turns of other work: a millisecond."""

_Reach: TypeAlias = tuple[int, ...]
"""Extent of the stream of reports: first and last sequence, messages."""


class Reports:
    """Reads reports, and keeps the summaries for a while, since a list comes in pages.

    Args:
        store: the store that has them, if it is in JetStream.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: Remembered[_Reach, dict[str, Document]] = Remembered()

    async def run(self) -> None:
        """Drop what was read, after a while; never returns."""
        await self._known.run()

    async def finished(self) -> Mapping[str, Document]:
        """Return summaries of the finished builds that are still kept, by id.

        Raises:
            BusError: JetStream could not be asked.
        """
        if not isinstance(self._store, JetStreamStore):
            return {}
        try:
            info = await self._store.js.info(REPORTS)
        except StreamNotFound:
            # An operator removed the stream. Running builds can be listed all the same.
            return {}
        reach = info.first_sequence, info.last_sequence, info.messages
        known = self._known.get(reach)
        if known is None:
            known = await _read_reports(self._store.js)
            self._known.keep(reach, known)
        return known


async def _read_reports(js: JetStream) -> dict[str, Document]:
    """Return the summaries in the stored reports, by build."""
    found: dict[str, Document] = {}
    reports = read(js, REPORTS, last_per_subject=True, headers_only=True)
    async with aclosing(reports) as batches:
        async for batch in batches:
            async for report in paced(batch, every=_SLICE, pause=give_way):
                _, _, token, run = report.subject.split(".")
                action, _, how = report.headers.get(SUBJECT_HEADER, "").rpartition(".")
                build = decode_token(token)
                document = {
                    "id": build,
                    "action": action,
                    "status": "done" if how == "done" else "errored",
                    "run": int(run),
                    "ended": report.time / 1e9,
                } | _read_summary(report.headers)
                if int(run) >= found.get(build, document)["run"]:
                    found[build] = document
    return found


def _read_summary(headers: Mapping[str, str]) -> Document:
    """Return the summary in the headers of a report; empty if an older version stored it."""
    try:
        document = decode(headers.get(SUMMARY_HEADER, "{}").encode())
    except InvalidJSON:
        return {}
    return document if isinstance(document, dict) else {}
