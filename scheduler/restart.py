"""Goes on with the builds whose logs say that they are not over, and follows the captured replies.

In order: what is unfinished is found and folded; the replies that came while nobody listened are read; only
then is anything sent, awaited against its deadline, or given up.

A build that cannot be folded, or that three processes in a row died of, is *quarantined*: that is said, the
log is left as it is, and no other build notices.
"""

import secrets
import time
from collections.abc import Awaitable, Callable

import structlog
import trio

from scheduler.build import Journey, Walk
from scheduler.bus import Bus, Message
from scheduler.codec import decode_token
from scheduler.connector import Connectors
from scheduler.errors import BusError, Fenced, JetStreamUnavailable, StoreError, UnreadableLog
from scheduler.events import Accepted, Loading, Released
from scheduler.history import History
from scheduler.jetstream.api import JetStream, Stored
from scheduler.jetstream.reading import Delivered, Follower
from scheduler.jetstream.streams import LOG, REPLIES, log_subject
from scheduler.plan import Plan
from scheduler.records import (
    Headings,
    Position,
    Status,
    compose,
    decode_record,
    encode_event,
    headers_of,
    read_headers,
)
from scheduler.reporting import Recorder
from scheduler.stores.jetstream import Entry, JetStreamStore
from scheduler.stores.slices import encode as encode_in_slices
from scheduler.supervisor import Supervisor
from scheduler.validation import Prepared

_log = structlog.get_logger()

MOST_LOADS = 3
"""Processes in a row that may die of a build before it is left alone."""
_LOADED_AT_ONCE = 4
_REPLAYED_AT_ONCE = 100
"""Events replayed between two looks at everything else: about a millisecond."""
_PAUSE = 1.0
_PROBATION = 1.0
"""Seconds after which a build that was taken up no longer counts as one that a process may die of."""

Reader = Callable[[bytes, Accepted], Awaitable[Prepared]]
"""Reads and checks a build as it was accepted."""


class Restart:
    """Everything that one process does about the work of those before it.

    Args:
        bus: tells of new connections.
        store: has the logs.
        supervisor: runs what is gone on with.
        connectors: is told of captured replies.
        recorder: publishes reports that were stored and perhaps not published.
        read: reads a build as it was accepted.
    """

    def __init__(
        self,
        bus: Bus,
        store: JetStreamStore,
        *,
        supervisor: Supervisor,
        connectors: Connectors,
        recorder: Recorder,
        read: Reader,
    ) -> None:
        self._bus = bus
        self._store = store
        self._supervisor = supervisor
        self._connectors = connectors
        self._recorder = recorder
        self._read = read
        self._follower = Follower(store.js, REPLIES, self._on_captured)
        self._caught_up = trio.Event()
        self._positions: list[Position] = []
        self._taken_up: list[str] = []
        self._reconnected = trio.Event()
        store.follow_positions(connectors.captured.position)
        bus.on_connected(self._on_connected)

    async def prepare(self) -> None:
        """Note where the stream of replies ends: builds that are accepted later have none before that."""
        while True:
            try:
                info = await self._store.js.info(REPLIES)
                last = await self._store.js.get(REPLIES, info.last_sequence) if info.last_sequence else None
            except JetStreamUnavailable as error:
                _log.warning("cannot look at the captured replies", error=str(error))
                await trio.sleep(_PAUSE)
            else:
                self._connectors.captured.seen = Position(info.last_sequence, last.time if last else 0)
                return

    async def run(self) -> None:
        """Go on with what is unfinished, then follow the replies; never returns."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._resend_what_was_lost)
            unfinished = await self._unfinished()
            loading = trio.CapacityLimiter(_LOADED_AT_ONCE)
            async with trio.open_nursery() as loads:
                for entry in unfinished:
                    loads.start_soon(self._load, entry, nursery, loading)
            captured = self._connectors.captured
            # By time: a stream that lost its end gives the same numbers out again.
            start = min([captured.seen, *self._positions], key=lambda place: (place.time, place.sequence))
            captured.seen = start
            await nursery.start(self._follower.run, start)
            await self._follower.caught_up()
            captured.catch_up()
            if unfinished:
                _log.info("unfinished builds go on", builds=len(self._positions))
            self._caught_up.set()
            # Whoever dies of a build does so at once: what is still held has come through.
            await trio.sleep(_PROBATION)
            for build in self._taken_up:
                if self._supervisor.holds(build):
                    self._store.note(build, Released())

    def _on_captured(self, delivered: Delivered) -> None:
        message = Message(delivered.subject, delivered.data, "", delivered.headers)
        self._connectors.on_captured(message, Position(delivered.sequence, delivered.time))

    def _on_connected(self) -> None:
        self._reconnected.set()

    async def _resend_what_was_lost(self) -> None:
        """After each new connection, once the replies are read that came meanwhile."""
        while True:
            await self._reconnected.wait()
            self._reconnected = trio.Event()
            await self._caught_up.wait()
            try:
                await self._follower.caught_up()
            except BusError as error:
                _log.error("cannot look at the captured replies", error=str(error))
            if not self._reconnected.is_set():
                self._supervisor.send_again()

    async def _unfinished(self) -> list[Entry]:
        """The logs that are not over; those whose last word cannot be read are said and left out."""
        while True:
            found: list[Entry] = []
            try:
                async for entries in self._store.entries():
                    found += [entry for entry in entries if not _is_over(entry)]
            except JetStreamUnavailable as error:
                _log.warning("the logs of unfinished builds cannot be read yet", error=str(error))
                await trio.sleep(_PAUSE)
            else:
                return found

    async def _load(self, entry: Entry, nursery: trio.Nursery, loading: trio.CapacityLimiter) -> None:
        build = decode_token(entry.subject.rpartition(".")[2])
        async with loading:
            if self._supervisor.holds(build):
                return  # accepted by this process, since it began to look
            while True:
                try:
                    if await self._take_up(build, entry):
                        nursery.start_soon(self._publish_stored, build)
                except JetStreamUnavailable as error:
                    _log.warning("the log of a build cannot be read yet", build=build, error=str(error))
                    await trio.sleep(_PAUSE)
                    continue
                except Fenced as error:
                    _log.error("build not taken up: another process has it", build=build, error=str(error))
                    self._store.close(build)
                except Exception as error:  # noqa: BLE001 - whatever a log sets off must cost no other build
                    await self._quarantine(build, error)
                return

    async def _quarantine(self, build: str, error: Exception) -> None:
        reason = f"{type(error).__name__}: {error}" if not isinstance(error, StoreError) else str(error)
        _log.error(
            "build quarantined: it is left in the log as it is, and not gone on with",
            build=build,
            reason=reason[:2_000],
            exc_info=None if isinstance(error, StoreError) else error,
        )
        self._supervisor.quarantined[build] = reason[:1_000]
        try:
            # It was no crash: the next process, perhaps of another version, may try again.
            await self._store.append(build, [Released()])
        except StoreError:
            _log.info("nothing was written to its log", build=build)
        self._store.close(build)

    async def _take_up(self, build: str, entry: Entry) -> bool:
        """Go on with one build.

        Returns:
            Whether all that is left to be done is to publish its report.

        Raises:
            Fenced: another process has it.
            StoreError: it is to be quarantined.
            BusError: something could not be asked.
        """
        headings = entry.headings
        if isinstance(headings, UnreadableLog):
            raise headings
        if headings.loads >= MOST_LOADS:
            msg = (
                f"{headings.loads} processes in a row ended while they took it up; "
                f"`scheduler release {build}` has the next one try again"
            )
            raise UnreadableLog(msg)
        await self._mark(build, entry, headings)
        history = await self._store.history(entry.subject)
        if history.status is Status.FINISHED and await self._is_stored(build):
            return True
        await self._begin(build, history)
        return False

    async def _mark(self, build: str, entry: Entry, headings: Headings) -> None:
        """Make the log ours: from now on nobody else can write to it without our knowing."""
        last: Stored | None = await self._store.js.get(LOG, entry.sequence)
        if last is None:
            raise Fenced("its log was removed meanwhile")
        record = decode_record(last.data)
        # What was captured since is still to be read, whatever this process has seen for other builds.
        self._connectors.captured.keep_behind(build, record.position)
        log = self._store.open(build, sequence=entry.sequence, n=record.n, epoch=record.epoch + 1)
        log.status, log.loads = headings.status, headings.loads + 1
        await log.append(Loading())
        log.loads = 0

    async def _is_stored(self, build: str) -> bool:
        return await self._recorder.is_stored(build)

    async def _publish_stored(self, build: str) -> None:
        try:
            await self._recorder.publish_stored(build)
            _log.info("the report of an earlier process was published", build=build)
        except StoreError as error:
            _log.error("the report of an earlier process was not published", build=build, error=str(error))
        finally:
            self._store.close(build)

    async def _begin(self, build: str, history: History) -> Walk:
        accepted = history.accepted
        if accepted is None:
            msg = "its log is empty"
            raise UnreadableLog(msg)
        prepared = await self._read(await encode_in_slices(accepted.document), accepted)
        plan = Plan(prepared, limits=self._supervisor.limits)
        for count, step in enumerate(history.steps, 1):
            plan.replay(step)
            if not count % _REPLAYED_AT_ONCE:
                await trio.lowlevel.checkpoint()
        now = self._store.wall_clock() * 1_000
        ages = {
            prepared.graph.index[component]: max(0.0, (now - flight.since) / 1_000)
            for component, flight in history.in_flight.items()
        }
        journey = Journey(self._caught_up, history.position.time, ages)
        self._positions.append(history.position)
        self._taken_up.append(build)
        return self._supervisor.go_on(plan, accepted.key, journey)


def _is_over(entry: Entry) -> bool:
    return not isinstance(entry.headings, UnreadableLog) and entry.headings.status is Status.REPORTED


async def forget_loads(js: JetStream, build: str) -> None:
    """Write into the log of a build that processes died of that the next one may try again.

    Raises:
        StoreError: there is no such build, or it is none of those: somebody may be writing to its log.
        UnreadableLog: its last record cannot be read.
        BusError: JetStream could not be asked.
    """
    subject = log_subject(build)
    last = await js.last(LOG, subject)
    if last is None:
        raise StoreError(f"there is no build {build!r} in the log")
    headings, record = read_headers(last.headers), decode_record(last.data)
    if headings.loads < MOST_LOADS:
        raise StoreError(f"{build} is not one that schedulers died of: it needs no release")
    record_id = f"release-{secrets.token_hex(8)}"
    data = compose(
        n=record.n + 1,
        epoch=record.epoch,
        instance="release",
        record_id=record_id,
        at=int(time.time() * 1_000),
        position=record.position,
        events=[encode_event(Released())],
    )
    await js.publish(subject, data, expected=last.sequence, headers=headers_of(record_id, headings.status, 0))
