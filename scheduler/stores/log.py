"""The log of one build: an append-only list of records on one subject of a stream.

Group commit. One append is in flight at a time; events that come meanwhile go into the next record, so a busy
build has large records, and an idle one commits at once.

`appender` has the single append, `event_queue` the division into records, and `departures` the requests on
their way. One file on purpose: `LogContext`, which all logs share, and the logs refer to each other.
"""

import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final

import structlog
import trio
from attrs import Factory, define, field

from scheduler.bus import Bus
from scheduler.errors import Fenced, MessageTooLarge, StoreError
from scheduler.jetstream.api import JetStream
from scheduler.jetstream.objects import Objects
from scheduler.jetstream.streams import OBJECTS, StreamLayout, log_subject
from scheduler.journal.events import Event, Finished, Reported, Retrying, Sent, Settled, Withdrawn
from scheduler.journal.orders import Order
from scheduler.journal.records import (
    COUNTED_HEADER,
    GIVEN_HEADER,
    TIMED,
    Elsewhere,
    Position,
    Status,
    compose,
    encode_event,
    encode_order,
    headers_of,
    record_id_of,
)
from scheduler.runtime.clock import BuildClock
from scheduler.stores import Departure
from scheduler.stores.appender import Appender, Appending, StoredBefore
from scheduler.stores.commit_health import CommitHealth
from scheduler.stores.commit_waiters import CommitWaiters
from scheduler.stores.departures import Departures
from scheduler.stores.event_queue import Draft, EventQueue
from scheduler.stores.keeper import Keeper

_log = structlog.get_logger(__name__)

_LEAST_RECORD_BYTES = 1024
_MOST_RECORD_BYTES = 1024 * 1024
_ROOM = 8 * 1024
"""Bytes of a message beside the events of its record."""
_APPENDS_AT_ONCE = 128
_ENDS = (Settled, Retrying, Withdrawn)
"""Events that end an attempt."""


async def _not_gone() -> bool:
    return False


@define(eq=False)
class LogContext:
    """Everything that the logs of a process share."""

    bus: Bus
    js: JetStream
    objects: Objects
    health: CommitHealth
    instance: str
    position: Callable[[str], Position]
    """Function that returns up to where the captured replies of a build were handled."""
    wall_clock: Callable[[], float]
    """Function that returns seconds since 1970."""
    start: Callable[["BuildLog"], None]
    """Function that runs a log's `BuildLog.write` as a task of its own."""
    streams: Keeper = field(
        default=Factory(lambda context: Keeper(context.js, context.health, StreamLayout()), takes_self=True)
    )
    """Keeper of the object store."""
    all_gone: Callable[[], Awaitable[bool]] = field(factory=lambda: _not_gone)
    """Function that says whether the stream of all logs was purged: then this process is about to end."""
    on_fenced: Callable[[], None] = lambda: None
    """Callback for when another process has taken a build over that was written here."""
    lane: trio.CapacityLimiter = field(factory=lambda: trio.CapacityLimiter(_APPENDS_AT_ONCE))
    """Slots for appends: of thousands of builds only so many append at a time. Timeouts begin after it."""
    waiting: dict["BuildLog", None] = field(factory=dict)
    """Logs with events that can wait for others."""

    def note(self, log: "BuildLog", error: StoreError, *, written: bool) -> None:
        """Take note that a log failed, before its build is let go; ``written``: by this process."""
        self.waiting.pop(log, None)
        if written and isinstance(error, Fenced):
            self.on_fenced()

    @property
    def record_bytes(self) -> int:
        """Most bytes that the events of a record take together; a larger event is put elsewhere."""
        return max(_LEAST_RECORD_BYTES, min(_MOST_RECORD_BYTES, self.bus.max_payload - _ROOM))


def ignore(_: StoreError) -> None:
    """Ignore a failure that nothing waits for."""


_STATUS: Final[Mapping[type[Event], Status]] = {Finished: Status.FINISHED, Reported: Status.REPORTED}
"""Status of a log after an event of this type."""


class BuildLog:
    """Writes the log of one build.

    Args:
        build: the id of the build.
        context: what all logs share.
        sequence: sequence of the last record in the stream; 0 where there is none yet.
        n: number of the last record.
        epoch: number of times that the build was taken up, including by this process.
        at: time of the last record, in seconds since 1970.
    """

    def __init__(
        self,
        build: str,
        context: LogContext,
        *,
        sequence: int = 0,
        n: int = 0,
        epoch: int = 1,
        at: float = 0.0,
    ) -> None:
        self.build = build
        self.clock = BuildClock(context.wall_clock, at)
        """Clock of the build, for its log and for everything else in this process."""
        self.n = n
        self.epoch = epoch
        self.loads = 0
        """Number of `Loading` events at the end of the log."""
        self.hangs = 0
        """Number of processes that hung over the build."""
        self.status = Status.OPEN
        self.word = ""
        """End of the ids of records: `LEFT` where the next one is to leave the build to any process."""
        self.beside: Mapping[str, str] = {}
        """Headers that the first record has beside those of each."""
        self.failure: StoreError | None = None
        """Reason why nothing more can be written."""
        self.on_failure: Callable[[StoreError], None] = ignore
        """Function that is called with it."""
        self.departures = Departures()
        """Requests that are not known to have arrived."""
        self.heir = self.counted_by = ""
        """Processes that the next record leaves the build to (then no event is taken), or uncounted with."""
        self.loose: list[str] = []
        """Names of objects with events whose record is not committed."""
        self._context = context
        self._subject = log_subject(build)
        self._appender = Appender(
            build,
            self._subject,
            js=context.js,
            health=context.health,
            lane=context.lane,
            all_gone=context.all_gone,
            sequence=sequence,
        )
        self._position = Position()
        self._queue = EventQueue()
        self._waiters = CommitWaiters()
        self._writing = False
        self._closed = False
        self._forced = False
        """Whether a record is to be written with nothing new but the position."""
        self._round = trio.Event()
        """Set when a record was written, or will not be."""
        self._outgrown: Draft | None = None
        """Last record, if it was over a lowered limit: smaller ones follow; a copy may still be under way."""
        self._outgrown_id = ""

    def close(self) -> None:
        """Call no handler any more; queued events are still written.

        Everything that the log refers to stays alive for as long as an append of it is under way.
        """
        self._closed = True
        self.on_failure = ignore
        self.departures.forget_leaving()
        if self.failure is not None:
            # Its tracebacks refer to frames that refer to this log, and to tasks that waited for a commit.
            self.failure = StoreError(f"the log of {self.build} is closed")

    async def append(self, *events: Event, order: Order | None = None) -> None:
        """Queue events, with the order that they follow from, and wait until they are committed.

        Raises:
            AlreadyLogged: this is the first record, and another build's record stands there.
            Fenced: another process writes this log now.
            StoreError: the log has failed; the first error is raised.
        """
        self.note(*events, order=order)
        await self.commit()

    def encoded(self, event: Event) -> bytes:
        """Return an event that happens now, as it is to be written."""
        left = self.departures.end(event.component) if isinstance(event, _ENDS) else None
        return encode_event(event, self.clock(), left) if type(event) in TIMED else encode_event(event)

    def note(self, *events: Event, order: Order | None = None) -> int:
        """Queue events that happen now, and the order that they follow from, to be committed soon.

        Returns:
            The number of events queued so far, for `commit`; 0 once the log has failed or is closed.
        """
        if self.failure is not None or self._closed or self.heir or not (events or order):
            return 0
        queue = self._queue
        if order is not None:
            queue.add_order(encode_order(order), follows=bool(events))
        for event in events:
            queue.add(self.encoded(event), _STATUS.get(type(event)))
        self._begin_to_write()
        return queue.put

    def note_lazily(self, *events: Event) -> None:
        """Queue events that happen now and can wait for others; ignored as in `note`."""
        if self.failure is None and not self._closed and not self.heir:
            self.put_lazily(map(self.encoded, events))

    def put(self, events: Iterable[bytes]) -> None:
        """Queue encoded events to be committed soon."""
        for event in events:
            self._queue.add(event)
        self._begin_to_write()

    def put_lazily(self, events: Iterable[bytes]) -> None:
        """Queue events that can wait for others."""
        self._queue.add_lazily(events)
        self._context.waiting[self] = None

    async def commit(self, number: int | None = None) -> None:
        """Wait until all events queued so far are committed, or the first ``number``.

        Raises:
            StoreError: as `append`.
        """
        if self.failure is not None:
            raise self.failure
        if self._closed or self.heir:
            raise StoreError(f"build {self.build} is not written here")
        number = self._queue.put if number is None else number
        if self._queue.committed < number:
            await self._waiters.wait(number)
            if self.failure is not None:
                raise self.failure

    async def confirm(self) -> None:
        """Commit a record, which shows that no other process has the build; raises as `append`."""
        self._forced = True
        while (forced := self._forced) or self._writing:
            self._begin_to_write()
            await self._round.wait()
            if self.failure is not None:
                raise self.failure
            if not forced:
                return

    async def commit_all(self) -> None:
        """Wait until everything is committed, including events that wait for others."""
        while self._queue.has_lazy or self._queue or self._writing:
            if self.failure is not None:
                raise self.failure
            self._begin_to_write()
            await self._round.wait()

    def note_sent(self, event: Sent, departure: Departure) -> None:
        """Queue ``event`` once the broker is known to have the request; nothing waits for that."""
        outgoing = departure.outgoing
        if self.failure is None and outgoing is not None and not self._closed:
            self.departures.note(event, departure, outgoing, self.clock())
            self._context.waiting[self] = None

    def arrived(self, generation: int, departures: int) -> None:
        """Queue the departures of all requests that went out over a connection up to a moment.

        Args:
            generation: number of the connection, known to be sound.
            departures: value of ``departures.count`` at that moment.
        """
        arrived = self.departures.arrived(generation, departures)
        if arrived:
            self._queue.add_lazily(encode_event(event, left) for event, left in arrived)

    def flush(self) -> bool:
        """Commit the events that could wait for others.

        Returns:
            Whether there are such events, or soon may be.
        """
        if self._queue.has_lazy:
            self._begin_to_write()
        return self._queue.has_lazy or bool(self.departures)

    def keep_up(self, behind: int) -> None:
        """Write a record if the position has moved by more than ``behind`` replies since the last one."""
        # For a build that waits long, the next process would read all replies since then again.
        if self._context.position(self.build).ahead_of(self._position) > behind:
            self._forced = True
            self._begin_to_write()

    def _begin_to_write(self) -> None:
        if not self._writing and self.failure is None:
            self._writing, self._round = True, trio.Event()
            self._context.start(self)

    async def write(self) -> None:
        """Commit until nothing is left; one such task runs at a time."""
        try:
            while self._queue or self._queue.has_lazy or self._forced:
                # Tasks woken in this moment may have events to queue as well.
                await trio.lowlevel.checkpoint()
                await self._write_record()
                if not self._queue:
                    return
        except StoreError as error:
            self._fail(error)
        except Exception:  # noqa: BLE001 - a bug of ours: it costs this build, and no other
            _log.exception("internal error: the log of a build cannot be written", build=self.build)
            self._fail(StoreError("internal error in the scheduler; see its log"))
        finally:
            self._writing = False
            self._round.set()

    def _fail(self, error: StoreError) -> None:
        self.failure = error
        self._context.note(self, error, written=bool(self._queue.committed))
        self._round.set()
        self._queue.clear()
        self.departures.clear()
        self._waiters.wake_all()
        self.on_failure(error)

    async def _write_record(self) -> None:
        context, queue = self._context, self._queue
        self._forced = False
        # All replies up to here were handled, and their events are queued by now, or committed.
        position, target = context.position(self.build), queue.put
        draft = await queue.take(context.record_bytes, self._put_elsewhere)
        events, taken = draft.events, draft
        if queue.committed + len(taken.queued) >= target:
            self._position = position
        # Unlike any other, of this process as well: a record that was given up may be under way.
        record_id = record_id_of(context.instance, self.epoch, self.n + 1, secrets.token_hex(4) + self.word)
        at = int(self.clock() * 1_000)
        if not self.n:
            self.clock.began = at / 1_000
        status, self.status = self.status, _status_after(draft, self.status)
        departures, generation = self.departures.count, context.bus.generation
        data = compose(
            n=self.n + 1,
            epoch=self.epoch,
            instance=context.instance,
            record_id=record_id,
            at=at,
            position=self._position,
            events=events,
        )
        headers = _headers(self, record_id) | draft.headers

        def commit(at_once: bool) -> None:
            self._outgrown, self._outgrown_id = None, ""
            self.n += 1
            queue.committed += len(taken.queued)
            self.loose.clear()
            if at_once and context.bus.generation == generation:
                # It left behind the earlier requests, over the same connection, and has arrived.
                self.arrived(generation, departures)
            self._waiters.wake_first(queue.committed)

        try:
            await self._appender.append(
                Appending(record_id, data, headers, first=not self.n, outgrown=self._outgrown_id), commit
            )
        except MessageTooLarge as error:
            if sum(len(event) + 1 for event in events) <= context.record_bytes:
                raise StoreError(f"the log of {self.build} cannot be written: {error}") from error
            _log.warning("the broker takes less than before: smaller records follow", build=self.build)
            queue.put_back(draft)
            self.status = status
            self._outgrown, self._outgrown_id = draft, record_id
            return
        except StoredBefore:
            assert self._outgrown is not None, "it was given up"
            queue.put_back(draft)
            self.status = status
            queue.drop(taken := self._outgrown)
            self.status = _status_after(taken, status)
            commit(at_once=False)
        await self._waiters.wake(queue.committed)
        done, self._round = self._round, trio.Event()
        done.set()

    async def _put_elsewhere(self, event: bytes) -> bytes:
        # Unlike any other: the loser of the race for this record must not have replaced the winner's object.
        name = (
            f"{self._subject}/{self._context.instance}-{self.epoch}-{self._queue.put}-{secrets.token_hex(4)}"
        )
        self.loose.append(name)
        await self._context.streams.ask(OBJECTS, lambda: self._context.objects.put(name, event))
        return encode_event(Elsewhere(name))


def _headers(log: BuildLog, record_id: str) -> dict[str, str]:
    """Return the headers of the next record of a log."""
    headers = headers_of(record_id, log.status, log.loads, log.hangs)
    if log.heir:
        headers[GIVEN_HEADER] = log.heir
    if log.counted_by:
        headers[COUNTED_HEADER] = log.counted_by
    return headers if log.n else {**headers, **log.beside}


def _status_after(draft: Draft, status: Status) -> Status:
    """Return the status of a log whose status was ``status``, with the events of ``draft``."""
    return draft.statuses[-1][1] if draft.statuses else status
