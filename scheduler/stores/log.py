"""The log of one build: an append-only list of records on one subject of a stream.

Group commit. One append is in flight at a time; what is put meanwhile rides in the next record, so a busy
build has large records and an idle one is told at once.

Compare-and-set. Every append names the sequence of the last record that we know of. A writer that has lost
the build to another one is refused, and stops: it is *fenced*.

Ambiguity. An append whose answer is lost may have been stored or not, or may yet be: its first copy can still
be under way. So it is read back and compared by record id. Mine: it is stored. Unchanged: the identical bytes
are sent again, with the same expected sequence, so that of all copies one at most is ever stored. Anybody
else's: fenced. De-duplication by message id would not do: a copy that comes after its window is stored again.
"""

import heapq
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from itertools import count

import structlog
import trio
from attrs import Factory, define, field, frozen

from scheduler.bus import Bus, Outgoing
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
from scheduler.jetstream.api import JetStream, Stored
from scheduler.jetstream.codes import STORAGE_FAILED
from scheduler.jetstream.objects import Objects
from scheduler.jetstream.streams import LOG, OBJECTS, Layout, log_subject
from scheduler.journal.events import Event, Retrying, Sent, Settled, Withdrawn
from scheduler.journal.records import (
    DIGEST_HEADER,
    RECORD_HEADER,
    TIMED,
    Elsewhere,
    Position,
    Status,
    compose,
    encode_event,
    headers_of,
    is_tombstone,
)
from scheduler.runtime.clock import BuildClock
from scheduler.runtime.pace import paced
from scheduler.stores import Departure
from scheduler.stores.commit_health import CommitHealth, ask_the_log, patiently
from scheduler.stores.keeper import Keeper

_log = structlog.get_logger(__name__)

_LEAST_RECORD_BYTES = 1024
_MOST_RECORD_BYTES = 1024 * 1024
_ROOM = 8 * 1024
"""Bytes of a message beside the events of its record."""
_APPENDS_AT_ONCE = 128
_WOKEN_AT_ONCE = 25
"""Of those that wait for a commit, between two looks at everything else: a few milliseconds follow."""
_ENDS = (Settled, Retrying, Withdrawn)
"""The events that end an attempt."""
_SURELY_FAILED = 3
"""Unanswered appends in a row, the stream being read meanwhile, after which its storage has failed."""


async def _not_gone() -> bool:
    return False


@define(eq=False)
class LogContext:
    """What the logs of a process share."""

    bus: Bus
    js: JetStream
    objects: Objects
    health: CommitHealth
    instance: str
    position: Callable[[str], Position]
    """Up to where the captured replies of a build were dealt with."""
    wall_clock: Callable[[], float]
    """Seconds since 1970."""
    start: Callable[["BuildLog"], None]
    """Runs the log's `BuildLog.write` beside everything else."""
    streams: Keeper = field(
        default=Factory(lambda context: Keeper(context.js, context.health, Layout()), takes_self=True)
    )
    """Looks after the object store."""
    all_gone: Callable[[], Awaitable[bool]] = field(factory=lambda: _not_gone)
    """Whether the stream of all logs was purged: then this process is about to end."""
    lane: trio.CapacityLimiter = field(factory=lambda: trio.CapacityLimiter(_APPENDS_AT_ONCE))
    """Of thousands of builds only so many append at a time: the others' deadlines have not begun."""
    waiting: dict["BuildLog", None] = field(factory=dict)
    """Logs with something to say that can wait for company."""

    @property
    def record_bytes(self) -> int:
        """The most that the events of a record take together; an event beyond it is put elsewhere."""
        return max(_LEAST_RECORD_BYTES, min(_MOST_RECORD_BYTES, self.bus.max_payload - _ROOM))


@define(eq=False)
class _Leaving:
    """A request that was handed to the bus, and is not known to have arrived."""

    number: int
    event: Sent
    departure: Departure
    outgoing: Outgoing


@frozen
class _Draft:
    """A record that is about to be stored: what it has of each queue, and the log's status before it."""

    record_id: str
    lazy: list[bytes]
    queued: list[bytes]
    status: Status
    statuses: list[tuple[int, Status]]


class _StoredBefore(Exception):
    """A record is stored that was given up as too large."""


def _nobody(_: StoreError) -> None:
    """Told of failures that are of no interest to anybody."""


class BuildLog:
    """Writes the log of one build.

    Args:
        build: its id.
        context: what all logs share.
        sequence: of the last record in the stream; 0 where there is none yet.
        n: the number of the last record.
        epoch: how often the build was taken up, by this process as well.
        at: when the last record was written, in seconds since 1970.
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
        """The build's time, in the log and wherever else this process tells of it."""
        self.n = n
        self.epoch = epoch
        self.loads = 0
        """How many `Loading` stand at the end."""
        self.hangs = 0
        """How many processes hung over the build."""
        self.status = Status.OPEN
        self.digest = ""
        """Of the content; written beside the first record."""
        self.failure: StoreError | None = None
        """Why nothing more can be written."""
        self.on_failure: Callable[[StoreError], None] = _nobody
        """Is told of it."""
        self._context = context
        self._subject = log_subject(build)
        self._sequence = sequence
        self._position = Position()
        self._queue: deque[bytes] = deque()
        self._lazy: deque[bytes] = deque()
        """What rides with the next record, and does not ask for one."""
        self._put = 0
        """How many events were ever queued."""
        self._committed = 0
        self._statuses: deque[tuple[int, Status]] = deque()
        self._waiters: list[tuple[int, int, trio.Event]] = []
        """A heap: up to where each waits for commits, who came when, and how it is told."""
        self._numbers = count()
        self._writing = False
        self._unanswered = 0
        """How many appends in a row were not answered, although what stands there can be read."""
        self._forced = False
        """Whether a record is to be written although there is nothing to say in it but the position."""
        self._round = trio.Event()
        """Set when a record was written, or will not be."""
        self._left: dict[str, float] = {}
        """When each attempt left whose departure is not in the log, by component."""
        self._leaving: list[_Leaving] = []
        self.loose: list[str] = []
        """Objects with events whose record is not committed."""
        self._outgrown: _Draft | None = None
        """The last record, where it was over a limit that the broker has lowered. What it says goes into
        smaller ones; a copy of it from before may be under way all the same."""
        self.departures = 0
        """How many requests were noted as handed to the bus."""

    def close(self) -> None:
        """Tell nobody anything more; what was put is still written.

        What the log refers to is alive for as long as an append of it is under way.
        """
        self.on_failure = _nobody
        self._leaving.clear()
        if self.failure is not None:
            # Its tracebacks refer to frames that refer to this log, and to whoever waited for a commit.
            self.failure = StoreError(f"the log of {self.build} is closed")

    async def append(self, *events: Event) -> None:
        """Put events and wait until they are committed.

        Raises:
            AlreadyLogged: it is the first record, and somebody else's stands there.
            Fenced: another process writes this log now.
            StoreError: what was wrong the first time that something was.
        """
        self.put(map(self.encoded, events))
        await self.commit()

    def encoded(self, event: Event) -> bytes:
        """An event that happens now, as it is to be written."""
        left: float | None = None
        if isinstance(event, _ENDS):
            left = self._left.pop(event.component, None)
        if type(event) not in TIMED:
            return encode_event(event)
        return encode_event(event, self.clock(), left)

    def put(self, events: Iterable[bytes], status: Status | None = None) -> int:
        """Queue encoded events, and have them committed soon; ``status`` is that of the log with them.

        Returns:
            How many were put so far, for `commit`.
        """
        for event in events:
            self._queue.append(event)
            self._put += 1
        if status is not None:
            self._statuses.append((self._put, status))
        self._begin_to_write()
        return self._put

    def put_lazily(self, events: Iterable[bytes]) -> None:
        """Queue events that can wait for company."""
        self._lazy.extend(events)
        self._context.waiting[self] = None

    async def commit(self, number: int | None = None) -> None:
        """Wait until everything that was put so far is committed, or its first ``number`` events.

        Raises:
            StoreError: as `append`.
        """
        if self.failure is not None:
            raise self.failure
        number = self._put if number is None else number
        if self._committed < number:
            done = trio.Event()
            heapq.heappush(self._waiters, (number, next(self._numbers), done))
            await done.wait()
            if self.failure is not None:
                raise self.failure

    async def commit_all(self) -> None:
        """As `commit`, with what waits for company."""
        while self._lazy or self._queue or self._writing:
            if self.failure is not None:
                raise self.failure
            self._begin_to_write()
            await self._round.wait()

    def note_sent(self, event: Sent, departure: Departure) -> None:
        """Put ``event`` once the broker is known to have got the request; nobody waits for that."""
        outgoing = departure.outgoing
        if self.failure is None and outgoing is not None:
            # Of several copies the first one counts: the time of the attempt began with it.
            self._left.setdefault(event.component, self.clock())
            self._leaving.append(_Leaving(self.departures, event, departure, outgoing))
            self.departures += 1
            self._context.waiting[self] = None

    def arrived(self, generation: int, departures: int) -> None:
        """The broker has got everything that went out over the connection ``generation`` up to a moment.

        Args:
            generation: the connection that is known to be sound.
            departures: what `departures` was at that moment.
        """
        kept = []
        for leaving in self._leaving:
            departure, outgoing = leaving.departure, leaving.outgoing
            if (
                departure.closed
                or departure.unheard
                or departure.reached
                or departure.outgoing is not outgoing
            ):
                continue
            if leaving.number >= departures or not 0 < outgoing.generation <= generation:
                kept.append(leaving)
            elif outgoing.generation == generation:
                departure.reached = True
                left = self._left.pop(leaving.event.component, None)
                self._lazy.append(encode_event(leaving.event, left))
            # Else its connection was lost before anybody knew: nobody can tell any more.
        self._leaving = kept

    def flush(self) -> bool:
        """Have what could wait for company committed without it.

        Returns:
            Whether there is, or may soon be, something of the kind.
        """
        if self._lazy:
            self._begin_to_write()
        return bool(self._lazy or self._leaving)

    def keep_up(self, behind: int) -> None:
        """Write a record if the position has moved by more than ``behind`` replies since the last one.

        Otherwise a build that waits long would have the next process read everything again since then.
        """
        if self._context.position(self.build).ahead_of(self._position) > behind:
            self._forced = True
            self._begin_to_write()

    def _begin_to_write(self) -> None:
        if not self._writing and self.failure is None:
            self._writing = True
            self._round = trio.Event()
            self._context.start(self)

    async def write(self) -> None:
        """Commit until there is nothing left; there is one of these at a time."""
        try:
            while self._queue or self._lazy or self._forced:
                # Whoever was woken in this moment may have something to put as well.
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
        self._round.set()
        self._queue.clear()
        self._lazy.clear()
        self._leaving.clear()
        self._left.clear()
        self._context.waiting.pop(self, None)
        waiters, self._waiters = self._waiters, []
        for _, _, done in waiters:
            done.set()
        self.on_failure(error)

    async def _write_record(self) -> None:
        context = self._context
        self._forced = False
        # Every reply up to here was dealt with, and what came of it is queued by now, or committed.
        position, target = context.position(self.build), self._put
        events, taken = await self._take()
        if self._committed + taken >= target:
            self._position = position
        # Unlike any other's, of this process as well: one that was given up may be under way.
        record_id = f"{context.instance}-{self.epoch}-{self.n + 1}-{secrets.token_hex(4)}"
        at = int(self.clock() * 1_000)
        if not self.n:
            self.clock.began = at / 1_000
        lazy = len(events) - taken
        draft = _Draft(record_id, events[:lazy], events[lazy:], self.status, [])
        self._pass_statuses(taken, draft.statuses)
        departures, generation = self.departures, context.bus.generation
        data = compose(
            n=self.n + 1,
            epoch=self.epoch,
            instance=context.instance,
            record_id=record_id,
            at=at,
            position=self._position,
            events=events,
        )
        headers = headers_of(record_id, self.status, self.loads, self.hangs)
        if not self.n and self.digest:
            headers[DIGEST_HEADER] = self.digest
        try:
            at_once = await self._store(data, headers, record_id)
        except MessageTooLarge as error:
            if sum(len(event) + 1 for event in events) <= context.record_bytes:
                raise StoreError(f"the log of {self.build} cannot be written: {error}") from error
            _log.warning("the broker takes less than before: smaller records follow", build=self.build)
            self._put_back(draft)
            self._outgrown = draft
            return
        except _StoredBefore:
            self._put_back(draft)
            taken, at_once = self._drop_outgrown(), False
        self._outgrown = None
        self.n += 1
        self._committed += taken
        self.loose.clear()
        if at_once and context.bus.generation == generation:
            # It went out behind the requests before it, over the same connection, and has arrived.
            self.arrived(generation, departures)
        await self._wake_up_to_here()
        done, self._round = self._round, trio.Event()
        done.set()

    async def _wake_up_to_here(self) -> None:
        """Let those go on that wait for what is committed: many requests may be about to leave."""
        async for waiter in paced(self._waiters_up_to_here(), every=_WOKEN_AT_ONCE):
            waiter.set()

    def _waiters_up_to_here(self) -> Iterator[trio.Event]:
        while self._waiters and self._waiters[0][0] <= self._committed:
            yield heapq.heappop(self._waiters)[2]

    def _pass_statuses(self, taken: int, passed: list[tuple[int, Status]]) -> None:
        """The log's status is that with the next ``taken`` events; ``passed`` gets those up to there."""
        while self._statuses and self._statuses[0][0] <= self._committed + taken:
            passed.append(self._statuses.popleft())
            self.status = passed[-1][1]

    def _put_back(self, draft: _Draft) -> None:
        """As if the record had never been begun."""
        self._lazy.extendleft(reversed(draft.lazy))
        self._queue.extendleft(reversed(draft.queued))
        self._statuses.extendleft(reversed(draft.statuses))
        self.status = draft.status

    def _drop_outgrown(self) -> int:
        """What the outgrown record says is committed; returns how many of the events that waited it has."""
        draft = self._outgrown
        assert draft is not None, "there is one"
        for _ in draft.lazy:
            self._lazy.popleft()
        for _ in draft.queued:
            self._queue.popleft()
        self._pass_statuses(len(draft.queued), [])
        return len(draft.queued)

    async def _take(self) -> tuple[list[bytes], int]:
        """As many of the events as fit into a record, and how many those are without the lazy ones."""
        most = self._context.record_bytes
        events: list[bytes] = []
        size = taken = 0
        while self._lazy and size < most // 2:
            event = self._lazy.popleft()
            events.append(event)
            size += len(event) + 1
        if self._lazy:
            # An outcome must not overtake the word that its request had left.
            return events, 0
        while self._queue:
            event = self._queue[0]
            if len(event) > most:
                if events:
                    break
                event = await self._put_elsewhere(event)
            elif events and size + len(event) > most:
                break
            self._queue.popleft()
            events.append(event)
            taken += 1
            size += len(event) + 1
        return events, taken

    async def _put_elsewhere(self, event: bytes) -> bytes:
        # Unlike any other's: whoever loses the race for this record must not have replaced the winner's.
        name = f"{self._subject}/{self._context.instance}-{self.epoch}-{self._put}-{secrets.token_hex(4)}"
        self.loose.append(name)
        await self._context.streams.ask(OBJECTS, lambda: self._context.objects.put(name, event))
        return encode_event(Elsewhere(name))

    async def _store(self, data: bytes, headers: Mapping[str, str], record_id: str) -> bool:
        """Have a record stored, however long that takes.

        Returns:
            Whether the first attempt's answer said so.

        Raises:
            MessageTooLarge: it is over the broker's limit.
            _StoredBefore: the one that was given up as that is stored instead.
        """
        context = self._context
        at_once = True

        async def attempt() -> None:
            nonlocal at_once
            expected = -1
            while expected != self._sequence:
                # Once more at once where the first record is to follow something else than was thought.
                expected = self._sequence
                try:
                    async with context.lane:
                        ack = await context.js.publish(
                            self._subject, data, expected=expected, headers=headers
                        )
                except (BusClosed, MessageTooLarge):
                    raise
                except BusError as error:
                    at_once = False
                    if await self._is_stored(record_id, str(error)):  # noqa: ASYNC120 - cancelled, it is all the same
                        return
                    if expected == self._sequence:
                        self._tell_a_failed_storage(error)
                        raise
                else:
                    self._sequence = ack.sequence
                    self._unanswered = 0
                    return

        try:
            await patiently(context.health, attempt)
        except BusClosed as error:
            raise StoreError(f"the log of {self.build} cannot be written: {error}") from error
        return at_once

    def _tell_a_failed_storage(self, error: BusError) -> None:
        """Say so where appends are not answered, and the stream can be read nevertheless.

        Raises:
            JetStreamUnavailable: with what is to be done.
        """
        self._unanswered = self._unanswered + 1 if isinstance(error, Unanswered) else 0
        if self._unanswered >= _SURELY_FAILED:
            raise JetStreamUnavailable(f"{LOG}: {STORAGE_FAILED}") from error

    async def _is_stored(self, record_id: str, reason: str) -> bool:
        """Read back what became of an append.

        Raises:
            Fenced, AlreadyLogged: somebody else's record stands there.
            LogRemoved: nothing stands there any more.
            _StoredBefore: as `_store`.
        """
        last = await self._last()
        if last is not None and last.headers.get(RECORD_HEADER) == record_id:
            self._sequence = last.sequence
            return True
        outgrown = None if self._outgrown is None else self._outgrown.record_id
        if last is not None and outgrown and last.headers.get(RECORD_HEADER) == outgrown:
            self._sequence = last.sequence
            raise _StoredBefore
        found = 0 if last is None else last.sequence
        if found == self._sequence:
            return False
        if not self.n:
            await self._follow(last)
            return False
        if last is None:
            if await self._context.all_gone():
                await trio.sleep_forever()
            raise LogRemoved(f"the log of {self.build} was removed from {LOG}, and by no scheduler")
        if is_tombstone(last.headers):
            raise Fenced(f"another scheduler has ended {self.build}, and its log was removed since")
        other = last.headers.get(RECORD_HEADER, "nobody we know")
        raise Fenced(f"the last record of {self.build} was written by {other}, after ours ({reason})")

    async def _follow(self, last: Stored | None) -> None:
        """Have the first record follow what is left of an earlier build of this id.

        Raises:
            AlreadyLogged: that one's log is there.
        """
        if last is not None and not is_tombstone(last.headers):
            raise AlreadyLogged(f"there is a log of {self.build} already")
        if last is not None:
            # Whoever removed it may have died before all of it was gone.
            context, sequence = self._context, last.sequence
            await patiently(context.health, lambda: context.js.purge(LOG, self._subject, before=sequence))
        self._sequence = 0 if last is None else last.sequence

    async def _last(self) -> Stored | None:
        """The last record in the stream, asked for until there is an answer."""
        return await ask_the_log(self._context.health, self._context.bus, self._ask_for_the_last)

    async def _ask_for_the_last(self) -> Stored | None:
        async with self._context.lane:
            return await self._context.js.last(LOG, self._subject)
