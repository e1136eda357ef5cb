"""The durable store: each build's log in a JetStream stream is the truth about it.

`scheduler.stores.log` writes one build's log, `scheduler.journal.records` is the format of its records, and
`scheduler.journal.history` folds them. This module holds what all logs of a process
share; `scheduler.stores.log_reader` finds and reads them again.

While the broker, its quorum or its disk is away, nothing fails: appends wait, and with them everything that
would follow. The process ends if a stream is gone that was there before.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

import trio

from scheduler.bus import Bus
from scheduler.errors import (
    AlreadyLogged,
    BusError,
    StoreError,
    UnreadableLog,
)
from scheduler.jetstream.api import JetStream
from scheduler.jetstream.objects import Objects
from scheduler.jetstream.streams import LOG, REPLIES, StreamLayout, log_subject
from scheduler.journal.events import Accepted, Event
from scheduler.journal.records import (
    DIGEST_HEADER,
    LEFT,
    RECORD_HEADER,
    accepted_chunks,
    first_headers,
    instance_of,
    read_headers,
)
from scheduler.metrics.commits import CommitTally
from scheduler.runtime.clock import BuildClock
from scheduler.runtime.pace import paced
from scheduler.stores import Journal
from scheduler.stores.account_streams import AccountStreams
from scheduler.stores.commit_health import CommitHealth, ask_the_log
from scheduler.stores.keeper import Keeper
from scheduler.stores.log import BuildLog, LogContext
from scheduler.stores.log_journal import LogJournal
from scheduler.stores.log_reader import LogReader
from scheduler.stores.positions import ReplyPositions
from scheduler.stores.sentinel import Sentinel
from scheduler.stores.slices import gathered

_LULL = 0.25
"""Seconds for which an event waits for others to be committed with."""
_KEEP_UP_PERIOD = 10.0
_MOST_BEHIND = 20_000
"""Most replies that a restart has to read for a build: half a second's worth."""
_LOOKED_AT_AT_ONCE = 500
_FLUSHED_AT_ONCE = 50


class JetStreamStore:
    """Keeps builds as logs in JetStream; `run` has to be running.

    Args:
        bus: the connection to the broker; it remains the caller's to close.
        instance: name of this process in the records that it writes; unlike any other's.
        grace: seconds without a commit after which that is logged loudly.
        wall_clock: function that returns seconds since 1970.
        layout: desired state of streams that have to be made again.
        lays: whether this process makes and watches the streams.
    """

    name = "jetstream"
    resumable = True
    in_order = True

    def __init__(
        self,
        bus: Bus,
        *,
        instance: str,
        grace: float = 600.0,
        wall_clock: Callable[[], float] = time.time,
        layout: StreamLayout | None = None,
        lays: bool = False,
    ) -> None:
        self.js = JetStream(bus)
        self.objects = Objects(self.js)
        self.logs = LogReader(self.js, self.objects)
        """Reader of all logs, of this process and of earlier ones."""
        self.health = CommitHealth(grace, lambda: bus.connected)
        self.layout = layout or StreamLayout()
        self.streams = Keeper(self.js, self.health, self.layout)
        self.replies: dict[str, str] = {"": REPLIES}
        """Streams of captured replies by provider; the common one under an empty name."""
        self.wall_clock = wall_clock
        self.instance = instance
        self.account_streams = AccountStreams(self.js, self.layout) if lays else None
        """Maker and watcher of the streams, where that is this process's task."""
        self.positions = ReplyPositions()
        """Positions up to where the captured replies were handled; each record has that of its build."""
        self._bus = bus
        self.sentinel = Sentinel(self.js, self.health, instance, wall_clock, self._written)
        self._context = LogContext(
            bus=bus,
            js=self.js,
            objects=self.objects,
            streams=self.streams,
            health=self.health,
            instance=instance,
            position=self.positions.position,
            wall_clock=wall_clock,
            start=self._start,
            all_gone=self.sentinel.all_gone,
        )
        self._logs: dict[str, BuildLog] = {}
        self._nursery: trio.Nursery | None = None

    @property
    def commits(self) -> CommitTally:
        """Tally of the records that this process commits."""
        return self.health.tally

    @property
    def available(self) -> bool:
        """Whether commits go through, as far as is known."""
        return self.health.good

    @property
    def trouble(self) -> str:
        """Reason why commits do not go through; empty where they do, as far as is known."""
        return self.health.reason

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write the logs; never returns.

        Raises:
            LogMissing: the stream of all logs is gone, or was purged.
        """
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self.health.watch)
            task_status.started()
            nursery.start_soon(self._keep_up)
            nursery.start_soon(self.sentinel.watch)
            while True:
                await trio.sleep(_LULL)
                if self._context.waiting:
                    await self.note_arrivals()

    async def _keep_up(self) -> None:
        while True:
            await trio.sleep(_KEEP_UP_PERIOD)
            async for log in paced(list(self._logs.values()), every=_LOOKED_AT_AT_ONCE):
                log.keep_up(_MOST_BEHIND)

    async def append(self, build: str, events: Sequence[Event]) -> None:
        """Commit ``events``; see `Store.append`. This waits for as long as the broker needs.

        Raises:
            AlreadyLogged: the events begin a build whose id has a log; the error tells what that log says.
            Fenced: another process has the build now.
            StoreError: the build has no log here; or an internal error.
        """
        if events and isinstance(events[0], Accepted):
            await self._begin(build, events[0])
            events = events[1:]
        log = self._log(build)
        log.note(*events)
        await log.commit()

    def journal(self, build: str, on_failure: Callable[[StoreError], None]) -> Journal:
        """Return the journal of a build whose log is written here; see `Store.journal`.

        Raises:
            StoreError: the build has no log here.
        """
        return LogJournal(self._log(build), on_failure)

    def note_lazily(self, build: str, *events: Event) -> None:
        """Commit ``events`` with others that come soon, where the log of the build is written here."""
        log = self._logs.get(build)
        if log is not None:
            log.note_lazily(*events)

    async def settle(self) -> None:
        """Commit all events, also those that wait for others; the caller owns the deadline."""
        await self.note_arrivals()
        for log in list(self._logs.values()):
            with suppress(StoreError):
                await log.commit_all()

    async def note_arrivals(self) -> None:
        """Find out which requests have arrived, and queue that; waits for one answer at most.

        Events that wait for others are committed soon.
        """
        bus = self._bus
        logs, generation = list(self._context.waiting), bus.generation
        counts = [log.departures.count for log in logs]
        with trio.move_on_after(self.js.timeout):
            try:
                await bus.flush()
            except BusError:
                return
            if bus.generation == generation:
                for log, count in zip(logs, counts, strict=True):
                    log.arrived(generation, count)
        async for log in paced(logs, every=_FLUSHED_AT_ONCE):
            if not log.flush():
                self._context.waiting.pop(log, None)

    def open(self, build: str, *, sequence: int, n: int, epoch: int, at: float = 0.0) -> BuildLog:
        """Continue the log of a build that an earlier process began, whose last record is of ``at``."""
        log = self._logs[build] = BuildLog(build, self._context, sequence=sequence, n=n, epoch=epoch, at=at)
        return log

    def clock(self, build: str) -> BuildClock:
        """Return the clock of a build: that of its log, where it is written here."""
        log = self._logs.get(build)
        return BuildClock(self.wall_clock) if log is None else log.clock

    def on_fenced(self, handler: Callable[[], None]) -> None:
        """Call ``handler()`` when another process has taken over a build that was written here."""
        self._context.on_fenced = handler

    def epoch(self, build: str) -> int:
        """Return the epoch in which the log of a build is written here; 0 where it is not."""
        log = self._logs.get(build)
        return 0 if log is None else log.epoch

    async def confirm(self, build: str) -> None:
        """Commit a record of a build, which shows that no other process has it.

        Raises:
            Fenced: another one has it.
            StoreError: the build is not written here; or as for `append`.
        """
        await self._log(build).confirm()

    async def leave(self, build: str, *events: Event, counted_by: str = "") -> None:
        """Commit ``events`` as the last ones of this process: from then on no process has the build.

        Args:
            build: its id.
            events: the events.
            counted_by: process that counts the requests in flight for limits over the fleet, as this one
                does not.

        Raises:
            Fenced, StoreError: as for `append`.
        """
        log = self._log(build)
        log.word, log.counted_by = LEFT, counted_by
        await log.append(*events)

    async def give(self, build: str, to: str) -> None:
        """Commit, as the last record of a build by this process, that process ``to`` is to take it over.

        Raises:
            Fenced: another one has it.
            StoreError: the build is not written here; or as for `append`.
        """
        log = self._log(build)
        await log.commit_all()
        log.word, log.heir = LEFT, to
        await log.confirm()

    def close(self, build: str) -> None:
        """Take leave of a build: nothing more is written for it. Idempotent."""
        log = self._logs.pop(build, None)
        if log is not None:
            self._context.waiting.pop(log, None)
            log.close()

    async def log_is_there(self) -> None:
        """Return once the stream of all logs is there; if it is gone, the process ends by that."""
        await ask_the_log(self.health, self._bus, lambda: self.js.info(LOG))

    async def _begin(self, build: str, event: Accepted) -> None:
        if build in self._logs:
            raise await self._explained(build, f"build {build} has begun already")
        data = await gathered(accepted_chunks(event))
        if len(data) > self._context.record_bytes:
            subject = log_subject(build)
            if await ask_the_log(self.health, self._bus, lambda: self.logs.last(subject)) is not None:
                # Found out now, before all of it is put into the object store.
                raise await self._explained(build, f"there is a log of {build} already")
        log = BuildLog(build, self._context)
        if self._logs.setdefault(build, log) is not log:
            raise await self._explained(build, f"build {build} has begun already")
        log.beside = first_headers(event)
        try:
            log.put([data])
            await log.commit()
        except AlreadyLogged as error:
            self.close(build)
            for name in log.loose:
                with suppress(BusError):  # retention will find it
                    await self.objects.delete(name)  # noqa: ASYNC120 - cancelled, nothing is lost: retention will find it
            raise await self._explained(build, str(error)) from None
        except BaseException:
            self.close(build)
            raise

    async def _explained(self, build: str, text: str) -> AlreadyLogged:
        """Return the error for a build that was to begin, with what its id stands for already."""
        subject = log_subject(build)
        first = await ask_the_log(self.health, self._bus, lambda: self.logs.first(subject))
        last = await ask_the_log(self.health, self._bus, lambda: self.logs.last(subject))
        if first is None or last is None:
            return AlreadyLogged(text)
        try:
            status = read_headers(last.headers).status.value
        except UnreadableLog:
            status = "unreadable"
        owner = instance_of(last.headers.get(RECORD_HEADER, ""))
        return AlreadyLogged(text, digest=first.headers.get(DIGEST_HEADER, ""), status=status, owner=owner)

    def _log(self, build: str) -> BuildLog:
        log = self._logs.get(build)
        if log is None:
            raise StoreError(f"build {build} is not written here")
        return log

    def _written(self) -> Iterator[str]:
        """Yield the builds that have a record in the stream, written or read by this process."""
        return (build for build, log in self._logs.items() if log.n)

    def _start(self, log: BuildLog) -> None:
        assert self._nursery is not None, "the store does not run"
        if not self._nursery.cancel_scope.cancel_called:
            self._nursery.start_soon(log.write, name=f"log of {log.build}")
