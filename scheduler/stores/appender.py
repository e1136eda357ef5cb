"""Appending a record to a log, and the fate of an append without an answer.

Compare-and-set. Every append names the sequence of the last known record. A writer that has lost the build to
another one is refused, and stops: it is *fenced*.

Ambiguity. An append without an answer may have been stored or not, or may yet be: its first copy can still be
under way. So the log is read back, and its last record compared by id. This writer's: it is stored.
Unchanged: the identical bytes are sent again, with the same expected sequence, so that at most one of all
copies is ever stored. Another one's: fenced. De-duplication by message id would not do: a copy that comes
after its window is stored again.
"""

from collections.abc import Awaitable, Callable, Mapping

import trio
from attrs import field, frozen

from scheduler.errors import (
    AlreadyLogged,
    BusClosed,
    BusError,
    Fenced,
    JetStreamUnavailable,
    LogRemoved,
    MessageTooLarge,
    StoreError,
    Unanswered,
)
from scheduler.jetstream.answers import Stored
from scheduler.jetstream.api import JetStream
from scheduler.jetstream.codes import STORAGE_FAILED
from scheduler.jetstream.streams import LOG
from scheduler.journal.records import RECORD_HEADER, is_tombstone
from scheduler.stores.commit_health import CommitHealth, ask_the_log, patiently

_SURELY_FAILED = 3
"""Unanswered appends in a row, while the stream can be read, after which its storage has failed."""


class StoredBefore(Exception):
    """A record is stored that was given up as too large."""


@frozen
class Appending:
    """A record to be appended."""

    record_id: str
    data: bytes = field(repr=False)
    headers: Mapping[str, str]
    first: bool
    """Whether it is the first one of the log."""
    outgrown: str = ""
    """Id of the record before it that was given up as too large; empty where there is none."""


class Appender:
    """Appends records to the log of one build, one at a time.

    Args:
        build: the id of the build.
        subject: subject of its log.
        js: JetStream with the stream of all logs.
        health: takes note of trouble while there is no answer.
        lane: slots for the requests of all logs; a request's timeout begins after it.
        all_gone: function that says whether the stream was purged: then this process is about to end.
        sequence: sequence of the last record in the stream; 0 where there is none yet.
    """

    __slots__ = (
        "_all_gone",
        "_build",
        "_commits",
        "_health",
        "_js",
        "_lane",
        "_subject",
        "_unanswered",
        "sequence",
    )

    def __init__(
        self,
        build: str,
        subject: str,
        *,
        js: JetStream,
        health: CommitHealth,
        lane: trio.CapacityLimiter,
        all_gone: Callable[[], Awaitable[bool]],
        sequence: int,
    ) -> None:
        self.sequence = sequence
        """Sequence of the last known record in the stream."""
        self._build = build
        self._subject = subject
        self._js = js
        self._health = health
        self._lane = lane
        self._commits = health.tally
        self._all_gone = all_gone
        self._unanswered = 0
        """Number of appends in a row without an answer, although the stream can be read."""

    async def append(self, record: Appending, stored: Callable[[bool], None]) -> None:
        """Append a record, however long that takes.

        Args:
            record: the record.
            stored: called once as soon as the record is known to be stored, with whether the answer to the
                first attempt says so. That is a turn of the loop before this returns: in the bus's callback.
                It must not block or raise.

        Raises:
            MessageTooLarge: the record is over the broker's limit.
            StoredBefore: the record that was given up as too large is stored instead. Fenced, AlreadyLogged:
            another writer's record stands there.
            LogRemoved: nothing stands there any more.
            StoreError: the bus is closed.
        """
        at_once, told, began = True, False, trio.current_time()

        def note(sequence: int) -> None:
            nonlocal told
            self.sequence = sequence
            self._unanswered = 0
            if not told:
                told = True
                self._commits.note(trio.current_time() - began, len(record.data))
                stored(at_once)

        async def attempt() -> None:
            nonlocal at_once
            expected = -1
            while expected != self.sequence:
                # Repeated at once if the first record turns out to follow another one than was thought.
                expected = self.sequence
                try:
                    await self._publish(record, note)
                except (BusClosed, MessageTooLarge):
                    raise
                except BusError as error:
                    at_once = False
                    if await self.is_stored(record, str(error)):  # noqa: ASYNC120 - cancelled, it is all the same
                        note(self.sequence)
                        return
                    if expected == self.sequence:
                        self._check_storage(error)
                        self._commits.retries += 1
                        raise
                else:
                    return

        try:
            await patiently(self._health, attempt)
        except Fenced:
            self._commits.conflicts += 1
            raise
        except BusClosed as error:
            raise StoreError(f"the log of {self._build} cannot be written: {error}") from error

    async def _publish(self, record: Appending, stored: Callable[[int], None]) -> None:
        lane = self._lane
        try:
            # Where there is room, without a turn of the loop.
            lane.acquire_nowait()
        except trio.WouldBlock:
            await lane.acquire()
        try:
            await self._js.publish(
                self._subject, record.data, expected=self.sequence, headers=record.headers, stored=stored
            )
        finally:
            lane.release()

    async def is_stored(self, record: Appending, reason: str) -> bool:
        """Read back whether an append was stored; raises as `append`.

        Args:
            record: the appended record.
            reason: why there was no answer, for an error.
        """
        last = await self.last()
        if last is not None and last.headers.get(RECORD_HEADER) == record.record_id:
            self.sequence = last.sequence
            return True
        if last is not None and record.outgrown and last.headers.get(RECORD_HEADER) == record.outgrown:
            self.sequence = last.sequence
            raise StoredBefore
        found = 0 if last is None else last.sequence
        if found == self.sequence:
            return False
        if record.first:
            await self._follow(last)
            return False
        if last is None:
            if await self._all_gone():
                await trio.sleep_forever()
            raise LogRemoved(f"the log of {self._build} was removed from {LOG}, and by no scheduler")
        if is_tombstone(last.headers):
            raise Fenced(f"another scheduler has ended {self._build}, and its log was removed since")
        other = last.headers.get(RECORD_HEADER, "nobody we know")
        raise Fenced(f"the last record of {self._build} was written by {other}, after ours ({reason})")

    async def last(self) -> Stored | None:
        """Return the last record in the stream; asks until there is an answer."""
        return await ask_the_log(self._health, self._js.bus, self._ask_for_the_last)

    async def _ask_for_the_last(self) -> Stored | None:
        async with self._lane:
            return await self._js.last(LOG, self._subject)

    async def _follow(self, last: Stored | None) -> None:
        """Let the first record follow the remains of an earlier build with this id.

        Raises:
            AlreadyLogged: that build's log is there.
        """
        if last is not None and not is_tombstone(last.headers):
            raise AlreadyLogged(f"there is a log of {self._build} already")
        if last is not None:
            # The process that removed it may have died before all of it was gone.
            sequence = last.sequence
            await patiently(self._health, lambda: self._js.purge(LOG, self._subject, before=sequence))
        self.sequence = 0 if last is None else last.sequence

    def _check_storage(self, error: BusError) -> None:
        """Raise if appends are not answered although the stream can be read.

        Raises:
            JetStreamUnavailable: the storage has failed; the message has the cure.
        """
        self._unanswered = self._unanswered + 1 if isinstance(error, Unanswered) else 0
        if self._unanswered >= _SURELY_FAILED:
            raise JetStreamUnavailable(f"{LOG}: {STORAGE_FAILED}") from error
