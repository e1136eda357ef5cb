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

import math
import secrets
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import structlog
import trio
from attrs import define, field

from scheduler.bus import Bus, Outgoing
from scheduler.errors import (
    AlreadyLogged,
    BusClosed,
    BusError,
    Fenced,
    LogMissing,
    StoreError,
    StreamNotFound,
    WrongLastSequence,
)
from scheduler.events import Event, Sent
from scheduler.jetstream.api import JetStream, Stored
from scheduler.jetstream.objects import Objects
from scheduler.jetstream.streams import LOG, log_subject
from scheduler.records import (
    DIGEST_HEADER,
    RECORD_HEADER,
    Elsewhere,
    Position,
    Status,
    compose,
    encode_event,
    headers_of,
)
from scheduler.stores import Departure

_log = structlog.get_logger(__name__)

_FIRST_PAUSE = 0.05
_LAST_PAUSE = 1.0
_SURELY_GONE = 5
"""Looks for a stream, a second apart, after which it is missing and not just late in coming back."""


class Weather(Protocol):
    """Whether commits go through, for all builds together."""

    def good(self) -> None:
        """A commit went through."""

    def bad(self, reason: str) -> None:
        """A commit did not go through, and is tried again."""

    def missing(self, error: LogMissing) -> None:
        """The stream is gone: the process has to end."""


@define(eq=False)
class Desk:
    """What the logs of a process share."""

    bus: Bus
    js: JetStream
    objects: Objects
    weather: Weather
    instance: str
    position: Callable[[str], Position]
    """Up to where the captured replies of a build were dealt with."""
    wall_clock: Callable[[], float]
    """Seconds since 1970."""
    record_bytes: int
    """The most that the events of a record take together; an event beyond it is put elsewhere."""
    start: Callable[["BuildLog"], None]
    """Runs the log's `BuildLog.write` beside everything else."""
    waiting: set["BuildLog"] = field(factory=set)
    """Logs with something to say that can wait for company."""
    attempts: set[trio.CancelScope] = field(factory=set)
    """Appends that are being waited for."""

    def reconnected(self) -> None:
        """What was asked over the connection that was lost will have no answer."""
        for scope in self.attempts:
            scope.cancel()


@define(eq=False)
class _Leaving:
    """A request that was handed to the bus, and is not known to have arrived."""

    number: int
    event: Sent
    departure: Departure
    outgoing: Outgoing


class BuildLog:
    """Writes the log of one build.

    Args:
        build: its id.
        desk: what all logs share.
        sequence: of the last record in the stream; 0 where there is none yet.
        n: the number of the last record.
        epoch: how often the build was taken up, by this process as well.
    """

    def __init__(self, build: str, desk: Desk, *, sequence: int = 0, n: int = 0, epoch: int = 1) -> None:
        self.build = build
        self.n = n
        self.epoch = epoch
        self.loads = 0
        """How many `Loading` stand at the end."""
        self.status = Status.OPEN
        self.digest = ""
        """Of the content; written beside the first record."""
        self.failure: StoreError | None = None
        """Why nothing more can be written."""
        self._desk = desk
        self._subject = log_subject(build)
        self._sequence = sequence
        self._position = Position()
        self._queue: deque[bytes] = deque()
        self._lazy: list[bytes] = []
        """What rides with the next record, and does not ask for one."""
        self._put = 0
        """How many events were ever queued."""
        self._committed = 0
        self._waiters: deque[tuple[int, trio.Event]] = deque()
        self._writing = False
        self._leaving: list[_Leaving] = []
        self.loose: list[str] = []
        """Objects with events whose record is not committed."""
        self.departures = 0
        """How many requests were noted as handed to the bus."""

    async def append(self, *events: Event) -> None:
        """Put events and wait until they are committed.

        Raises:
            AlreadyLogged: it is the first record, and somebody else's stands there.
            Fenced: another process writes this log now.
            StoreError: what was wrong the first time that something was.
        """
        self.put(map(encode_event, events))
        await self.commit()

    def put(self, events: Iterable[bytes]) -> None:
        """Queue encoded events, and have them committed soon."""
        for event in events:
            self._queue.append(event)
            self._put += 1
        self._begin_to_write()

    async def commit(self) -> None:
        """Wait until everything that was put so far is committed; raises as `append`."""
        if self.failure is not None:
            raise self.failure
        if self._committed < self._put:
            done = trio.Event()
            self._waiters.append((self._put, done))
            await done.wait()
            if self.failure is not None:
                raise self.failure

    async def commit_all(self) -> None:
        """As `commit`, with what waits for company."""
        if self._lazy:
            self.put(self._lazy)
            self._lazy = []
        await self.commit()

    def note_sent(self, event: Sent, departure: Departure) -> None:
        """Put ``event`` once the broker is known to have got the request; nobody waits for that."""
        outgoing = departure.outgoing
        if self.failure is None and outgoing is not None:
            self._leaving.append(_Leaving(self.departures, event, departure, outgoing))
            self.departures += 1
            self._desk.waiting.add(self)

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
                self._lazy.append(encode_event(leaving.event))
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

    def _begin_to_write(self) -> None:
        if not self._writing and self.failure is None:
            self._writing = True
            self._desk.start(self)

    async def write(self) -> None:
        """Commit until there is nothing left; there is one of these at a time."""
        try:
            while self._queue or self._lazy:
                # Whoever was woken in this moment may have something to put as well.
                await trio.lowlevel.checkpoint()
                await self._write_record()
                if not self._queue:
                    return
        except StoreError as error:
            self._fail(error)
        except Exception:  # noqa: BLE001 - a bug of ours: it costs this build, and no other
            _log.exception("a log cannot be written by a fault of the scheduler", build=self.build)
            self._fail(StoreError("a fault in the scheduler; see its log"))
        finally:
            self._writing = False

    def _fail(self, error: StoreError) -> None:
        self.failure = error
        self._queue.clear()
        self._lazy.clear()
        self._leaving.clear()
        self._desk.waiting.discard(self)
        while self._waiters:
            self._waiters.popleft()[1].set()

    async def _write_record(self) -> None:
        desk = self._desk
        # Every reply up to here was dealt with, and what came of it is queued by now, or committed.
        position, target = desk.position(self.build), self._put
        events, taken = await self._take()
        if self._committed + taken >= target:
            self._position = position
        departures, generation = self.departures, desk.bus.generation
        record_id = f"{desk.instance}-{self.epoch}-{self.n + 1}"
        data = compose(
            n=self.n + 1,
            epoch=self.epoch,
            instance=desk.instance,
            record_id=record_id,
            at=int(desk.wall_clock() * 1_000),
            position=self._position,
            events=events,
        )
        headers = headers_of(record_id, self.status, self.loads)
        if not self.n and self.digest:
            headers[DIGEST_HEADER] = self.digest
        at_once = await self._store(data, headers, record_id)
        self.n += 1
        self._committed += taken
        self.loose.clear()
        if at_once and desk.bus.generation == generation:
            # It went out behind the requests before it, over the same connection, and has arrived.
            self.arrived(generation, departures)
        while self._waiters and self._waiters[0][0] <= self._committed:
            self._waiters.popleft()[1].set()

    async def _take(self) -> tuple[list[bytes], int]:
        """As many of the queued events as fit into a record, and how many those are without the lazy ones."""
        most = self._desk.record_bytes
        events, self._lazy = self._lazy, []
        size = sum(map(len, events))
        taken = 0
        while self._queue:
            event = self._queue[0]
            if len(event) > most:
                if taken:
                    break
                event = await self._put_elsewhere(event)
            elif taken and size + len(event) > most:
                break
            self._queue.popleft()
            events.append(event)
            taken += 1
            size += len(event) + 1
        return events, taken

    async def _put_elsewhere(self, event: bytes) -> bytes:
        # Unlike any other's: whoever loses the race for this record must not have replaced the winner's.
        name = f"{self._subject}/{self._desk.instance}-{self.epoch}-{self._put}-{secrets.token_hex(4)}"
        pause = _FIRST_PAUSE
        while True:
            try:
                await self._desk.objects.put(name, event)
            except BusError as error:
                self._desk.weather.bad(str(error))
                await trio.sleep(pause)
                pause = min(2 * pause, _LAST_PAUSE)
            else:
                self.loose.append(name)
                return encode_event(Elsewhere(name))

    async def _store(self, data: bytes, headers: Mapping[str, str], record_id: str) -> bool:
        """Have a record stored, however long that takes.

        Returns:
            Whether the first attempt's answer said so.
        """
        desk = self._desk
        pause = _FIRST_PAUSE
        at_once = True
        while True:
            reason = "the connection was lost"
            with trio.CancelScope() as scope:
                desk.attempts.add(scope)
                try:
                    ack = await desk.js.publish(self._subject, data, expected=self._sequence, headers=headers)
                except WrongLastSequence as error:
                    reason = str(error)
                except BusClosed as error:
                    raise StoreError(str(error)) from error
                except BusError as error:
                    reason = str(error)
                    desk.weather.bad(reason)
                else:
                    self._sequence = ack.sequence
                    desk.weather.good()
                    return at_once
                finally:
                    desk.attempts.discard(scope)
            at_once = False
            if await self._is_stored(record_id, reason):
                desk.weather.good()
                return False
            await trio.sleep(pause)
            pause = min(2 * pause, _LAST_PAUSE)

    async def _is_stored(self, record_id: str, reason: str) -> bool:
        """Read back what became of an append.

        Raises:
            Fenced, AlreadyLogged: somebody else's record stands there.
        """
        last = await self._last()
        if last is not None and last.headers.get(RECORD_HEADER) == record_id:
            self._sequence = last.sequence
            return True
        found = 0 if last is None else last.sequence
        if found == self._sequence:
            return False
        if not self.n:
            raise AlreadyLogged(f"there is a log of {self.build} already")
        if last is None:
            raise Fenced(f"the log of {self.build} was removed")
        other = last.headers.get(RECORD_HEADER, "nobody we know")
        raise Fenced(f"the last record of {self.build} was written by {other}, after ours ({reason})")

    async def _last(self) -> Stored | None:
        """The last record in the stream, asked for until there is an answer."""
        desk = self._desk
        pause, gone = _FIRST_PAUSE, 0
        while True:
            generation = desk.bus.generation
            try:
                return await desk.js.last(LOG, self._subject)
            except StreamNotFound:
                # A server that has just started may not know its streams yet.
                gone = gone + 1 if generation == desk.bus.generation else 0
                if gone >= _SURELY_GONE:
                    error = LogMissing(f"the stream {LOG} is gone: no build can be accepted or gone on with")
                    desk.weather.missing(error)
                    await trio.sleep(math.inf)
                await trio.sleep(1.0)
            except BusError as error:
                desk.weather.bad(str(error))
                await trio.sleep(pause)
                pause = min(2 * pause, _LAST_PAUSE)
