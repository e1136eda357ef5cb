"""Reading of logs: finds the logs in the stream, and folds the records of one into its history."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial

import trio
from attrs import evolve, frozen

from scheduler.errors import (
    StreamNotFound,
    UnreadableLog,
)
from scheduler.jetstream.answers import Stored
from scheduler.jetstream.api import JetStream
from scheduler.jetstream.objects import Objects
from scheduler.jetstream.reading import Delivered, read
from scheduler.jetstream.streams import LOG, PROBE, SENTINEL
from scheduler.journal.events import Event
from scheduler.journal.history import History
from scheduler.journal.records import (
    COUNTED_HEADER,
    GIVEN_HEADER,
    RECORD_HEADER,
    Elsewhere,
    Headings,
    Record,
    decode_event,
    decode_record,
    instance_of,
    is_tombstone,
    read_headers,
    read_orders,
    read_trace,
)
from scheduler.runtime.executor import ThreadExecutor

_MOST_EVENT_BYTES = 512 * 1024 * 1024
_SMALL = 32 * 1024
_NO_LOGS = frozenset({SENTINEL, PROBE})


@frozen
class Entry:
    """A log in the stream, without its content."""

    subject: str
    sequence: int
    """Sequence of the last record."""
    time: int
    """Time of the last record, in nanoseconds since 1970."""
    headings: Headings | UnreadableLog
    owner: str = ""
    """Name of the process that wrote it; empty where it does not say."""
    given_to: str = ""
    """Name of the process that is to take the build over, where the last owner has left it to that one."""
    left_with: str = ""
    """Name of the process that still counts the requests in flight, where the last owner has left the build,
    and never counted them."""

    @property
    def counted_by(self) -> str:
        """Name of the process that counts the requests in flight; empty where it cannot be told."""
        return self.owner or self.left_with


class LogReader:
    """Reads the logs of all builds, whichever process has written them.

    Args:
        js: JetStream with the stream of all logs.
        objects: object store with events that were too large for a record.
    """

    def __init__(self, js: JetStream, objects: Objects) -> None:
        self._js = js
        self._objects = objects

    async def entries(self) -> AsyncGenerator[list[Entry], None]:
        """Yield every log, in batches, each by its last record.

        Raises:
            JetStreamUnavailable: to be asked again.
            JetStreamError: the server answered with an error.
        """
        batches = read(self._js, LOG, last_per_subject=True, headers_only=True)
        async with aclosing(batches):
            async for batch in batches:
                yield [_entry(delivered) for delivered in batch if delivered.subject not in _NO_LOGS]  # noqa: ASYNC119 - who leaves early closes this one, too

    async def written(self) -> int:
        """Return the number of the last record in all logs: how much was ever written, by any process.

        Raises:
            BusError: JetStream could not be asked.
        """
        try:
            return (await self._js.info(LOG)).last_sequence
        except StreamNotFound:
            return 0

    async def history(self, subject: str) -> History:
        """Return the history in the log on ``subject``.

        Raises:
            UnreadableLog: this version cannot read the log, or a part of it is gone.
            JetStreamUnavailable, JetStreamError: as `entries`.
        """
        history = History()
        async with aclosing(read(self._js, LOG, subjects=[subject])) as batches:
            async for batch in batches:
                for delivered in batch:
                    if is_tombstone(delivered.headers):
                        # What comes before it belongs to an earlier build with the same id.
                        history = History()
                    else:
                        history.add(await self._record(delivered.data))
                        if history.n == 1:
                            history.trace = read_trace(delivered.headers)
                        history.bytes += len(delivered.data)
                        for order in read_orders(delivered.headers):
                            history.orders.add(order)
        return history

    async def last(self, subject: str) -> Stored | None:
        """Return the last record of the log on ``subject``; None where there is none, or it was removed.

        Raises:
            BusError: as for `JetStream`.
        """
        last = await self._js.last(LOG, subject)
        return None if last is None or is_tombstone(last.headers) else last

    async def first(self, subject: str) -> Stored | None:
        """Return the first record of the log on ``subject``; None where there is none, or it was removed.

        Raises:
            BusError: as for `JetStream`.
        """
        first = await self._js.first(LOG, subject)
        while first is not None and is_tombstone(first.headers):
            first = await self._js.first(LOG, subject, from_sequence=first.sequence + 1)
        return first

    async def _record(self, data: bytes) -> Record:
        if len(data) <= _SMALL:
            await trio.lowlevel.checkpoint()
            record = decode_record(data)
        else:
            record = await ThreadExecutor().run("logs", partial(decode_record, data))
        if not record.objects:
            return record
        return evolve(record, events=tuple([await self._event(event) for event in record.events]))

    async def _event(self, event: Event | Elsewhere) -> Event:
        if not isinstance(event, Elsewhere):
            return event
        data = await self._objects.get(event.object, most=_MOST_EVENT_BYTES)
        if data is None:
            raise UnreadableLog(f"the object {event.object!r}, which holds an event, is gone")
        return await ThreadExecutor().run("logs", partial(decode_event, data))


def _entry(delivered: Delivered) -> Entry:
    headings: Headings | UnreadableLog
    try:
        headings = read_headers(delivered.headers)
    except UnreadableLog as error:
        headings = error
    owner = instance_of(delivered.headers.get(RECORD_HEADER, ""))
    given_to = delivered.headers.get(GIVEN_HEADER, "")
    left_with = delivered.headers.get(COUNTED_HEADER, "")
    return Entry(
        delivered.subject,
        delivered.sequence,
        delivered.time,
        headings,
        owner,
        given_to=given_to,
        left_with=left_with,
    )
