"""Takes up builds that an earlier process left: replays their logs, and hands them to the supervisor.

A build whose log cannot be replayed, or that processes die of again and again, is *quarantined*: an error is
logged, its log stays untouched, and other builds are unaffected.
"""

from collections.abc import Callable, Collection, Iterable

import structlog
import trio
from attrs import define, evolve, field

from scheduler.definition.reply_subjects import draw_key, is_secret
from scheduler.definition.tokens import decode_token
from scheduler.dispatch.client import ConnectorClient
from scheduler.errors import (
    BeyondThisVersion,
    BusError,
    Fenced,
    JetStreamUnavailable,
    LogRemoved,
    StoreError,
    StreamNotFound,
    UnreadableLog,
)
from scheduler.journal.events import Loading, Rekeyed, Released
from scheduler.journal.history import History
from scheduler.journal.orders import ORDER_CARRIED_OUT
from scheduler.journal.records import Headings, Position, Status, decode_record, read_headers
from scheduler.recovery import crash_loops
from scheduler.recovery.replaying import Replayer
from scheduler.runtime.pace import paced
from scheduler.stores.jetstream import JetStreamStore
from scheduler.stores.log import BuildLog
from scheduler.stores.log_reader import Entry
from scheduler.supervision.reporting import Recorder
from scheduler.supervision.roster import Held, Roster
from scheduler.supervision.runner import Runner
from scheduler.supervision.supervisor import Supervisor

_log = structlog.get_logger()

QUARANTINED = "build quarantined: its log is left untouched, and it is not resumed"
LEFT = "build quarantined: this version cannot read its log, so it is left to other instances"
MORE = "more builds are quarantined than are named here"
CURE = "upgrade this instance; one of a version that knows it takes the build over at once"
_MOST_NAMED = 20
"""Quarantined builds with lines of their own in the log, of those that are taken up together."""
_LOADED_AT_ONCE = 4
_MARKED_AT_ONCE = 100
_PAUSE = 1.0
_MOST_REFUSALS = 5
"""Errors of the server, except unavailability, after which they count as the fault of the build's log."""


@define(eq=False)
class Loaded:
    """Builds that were taken up together, and wait for the replies captured meanwhile."""

    caught_up: trio.Event = field(factory=trio.Event)
    """Event to be set when those replies were read."""
    builds: list[str] = field(factory=list)
    positions: list[Position] = field(factory=list)
    senders: dict[str, tuple[str, ...]] = field(factory=dict)
    """Processes that may have sent what is in flight, by build."""
    unproven: list[tuple[Held, Entry]] = field(factory=list)
    """Unproven builds, with their logs: to be taken up last, and one by one."""
    contested: bool = False
    """Whether another process wrote to one of the logs meanwhile: perhaps its last record."""


class Loader:
    """Takes builds up.

    Args:
        store: store with the logs.
        roster: roster that holds the ids of builds.
        supervisor: resumes the builds that are loaded.
        runner: lets go of those that are not.
        connectors: hear the replies to earlier processes.
        recorder: publishes reports that were stored and perhaps not published.
        replayer: makes plans of logs.
        other_owners: returns the names of the other processes that own builds now.
        on_left: callback for when a build was left to other instances.
    """

    def __init__(
        self,
        store: JetStreamStore,
        *,
        roster: Roster,
        supervisor: Supervisor,
        runner: Runner,
        connectors: ConnectorClient,
        recorder: Recorder,
        replayer: Replayer,
        other_owners: Callable[[], Collection[str]],
        on_left: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._roster = roster
        self._supervisor = supervisor
        self._runner = runner
        self._connectors = connectors
        self._recorder = recorder
        self._replayer = replayer
        self._other_owners = other_owners
        self._on_left = on_left
        self._released: set[str] = set()
        """Builds that were released, past every service, since a process last had them."""
        self._quarantined = 0
        """Builds that were quarantined since the last `sum_up`."""

    async def load(self, entries: Iterable[Entry], nursery: trio.Nursery) -> Loaded:
        """Take up all of these builds that can be.

        Args:
            entries: the logs.
            nursery: nursery for publishing stored reports, which continues afterwards.
        """
        loaded = Loaded()
        held = []
        # A log that was written to while it was listed may be listed twice: the last entry counts.
        latest = {entry.subject: entry for entry in entries}
        async for entry in paced(latest.values(), every=_MARKED_AT_ONCE):
            build = decode_token(entry.subject.rpartition(".")[2])
            # From now on a build that is submitted again waits until this one is decided.
            if not self._roster.set_aside(build) and (one := await self._roster.reserve(build)):
                held.append((one, entry))
        limiter = trio.CapacityLimiter(_LOADED_AT_ONCE)
        async with trio.open_nursery() as loads:
            async for one, entry in paced(held, every=_MARKED_AT_ONCE):
                if crash_loops.is_unproven(entry.headings):
                    loaded.unproven.append((one, entry))
                else:
                    loads.start_soon(self._load, one, entry, loaded, nursery, limiter)
        # The builds most likely to crash the process come last.
        loaded.unproven.sort(key=lambda one: crash_loops.counts(one[1].headings))
        return loaded

    async def load_unproven(self, one: tuple[Held, Entry], nursery: trio.Nursery) -> Loaded:
        """Take up one of `Loaded.unproven`: if the process dies now, it dies of that one."""
        loaded = Loaded()
        held, entry = one
        await self._load(held, entry, loaded, nursery, trio.CapacityLimiter(1))
        return loaded

    def sum_up(self) -> None:
        """Say how many quarantined builds the log does not name, after builds were taken up together."""
        unnamed, self._quarantined = self._quarantined - _MOST_NAMED, 0
        if unnamed > 0:
            _log.error(MORE, builds=unnamed, cure="`scheduler list` has all of them, `scheduler status` why")

    async def mark_stable(self, builds: Iterable[str]) -> None:
        """Mark builds as stable, as this process did not die of them: their loads count no more."""
        async for build in paced(builds, every=_MARKED_AT_ONCE):
            if self._roster.holds(build):
                self._store.note_lazily(build, Released())

    async def _load(
        self,
        held: Held,
        entry: Entry,
        loaded: Loaded,
        nursery: trio.Nursery,
        limiter: trio.CapacityLimiter,
    ) -> None:
        build = held.build
        publishing: History | None = None
        refusals = 0
        async with limiter:
            while not self._roster.stopping:
                try:
                    publishing = await self._take_up(held, entry, loaded)
                except (BusError, trio.TooSlowError) as error:
                    if isinstance(error, StreamNotFound):
                        # Where the stream of all logs is missing, that is no fault of this build.
                        await self._store.log_is_there()
                    refusals += not isinstance(error, JetStreamUnavailable)
                    if refusals < _MOST_REFUSALS:
                        _log.warning("the log of a build cannot be read yet", build=build, error=str(error))
                        self._store.close(build)
                        await trio.sleep(_PAUSE)
                        continue
                    await self._quarantine(build, entry, error)
                except LogRemoved as error:
                    # No process has it, and nothing is left to report it from.
                    _log.error("build not taken up: its log was removed by hand", build=build, why=str(error))
                except Fenced as error:
                    # Of two processes that find it unfinished one is faster.
                    _log.warning("build not taken up: another process has it", build=build, why=str(error))
                    loaded.contested = True
                except Exception as error:  # noqa: BLE001 - no log may cost another build
                    await self._quarantine(build, entry, error)
                break
        if publishing is not None:
            nursery.start_soon(self._publish_stored, held, publishing)
        elif held.walk is None:
            self._store.close(build)
            self._runner.let_go(held)

    async def _quarantine(self, build: str, entry: Entry, error: Exception) -> None:
        self._quarantined += 1
        named = self._quarantined <= _MOST_NAMED
        if isinstance(error, BeyondThisVersion):
            reason = str(error)
            if named:
                _log.error(LEFT, build=build, reason=reason[:2_000], cure=CURE)
            reason = f"{reason[:800]}; {CURE}"
        else:
            reason = f"{type(error).__name__}: {error}" if not isinstance(error, StoreError) else str(error)
            if named:
                _log.error(
                    QUARANTINED,
                    build=build,
                    reason=reason[:2_000],
                    exc_info=None if isinstance(error, StoreError) else error,
                )
        self._roster.quarantined[build] = self._roster.left[build] = reason[:1_000]
        if not isinstance(error, BeyondThisVersion):
            self._roster.passing.add(build)
        try:
            # It was no crash: any other process, perhaps of another version, may try again. What is in flight
            # is not counted here, and must not be free before that one counts it.
            await self._store.leave(build, Released(), counted_by=entry.counted_by)
        except StoreError:
            if named:
                _log.info("nothing was written to its log", build=build)
        else:
            self._on_left()

    async def _take_up(self, held: Held, entry: Entry, loaded: Loaded) -> History | None:
        """Take up one build.

        Returns:
            Its history, where the report of its run is stored and has only to be published.

        Raises:
            Fenced: another process owns it.
            StoreError: the build is to be quarantined.
            BusError: JetStream could not be asked.
        """
        build, headings = held.build, entry.headings
        if isinstance(headings, UnreadableLog):
            # A new error: the old one, with its traceback, would refer to this frame, which refers to it.
            raise type(headings)(str(headings))
        if why := crash_loops.why_left_alone(headings):
            raise UnreadableLog(f"{why}; `scheduler release {build}` has the next one try again")
        log = await self._mark(build, entry, headings)
        if log is None:
            return None
        history = await self._store.logs.history(entry.subject)
        if history.accepted is None:
            raise LogRemoved("there was a log a moment ago")
        mark = history.accepted.mark
        if history.status is Status.FINISHED and await self._recorder.is_stored(build, history.run, mark):
            return history
        if not is_secret(history.key) and history.status is Status.OPEN:
            await self._rekey(log, history)
        # First of all, so that we hear the replies to the processes that sent the requests in flight.
        old = any(not is_secret(flight.key) for flight in history.in_flight.values())
        heard = await self._connectors.hear(history.senders, old=old)
        try:
            await self._begin(held, history, loaded, heard, owner=entry.owner)
        finally:
            self._connectors.hearing.release(heard)
        return None

    async def _rekey(self, log: BuildLog, history: History) -> None:
        """Give a build a new key before it sends anything more, where the old one stood in reply subjects."""
        event = Rekeyed(draw_key())
        # The process may die of the build yet.
        log.loads = history.loads
        await log.append(event)
        log.loads = 0
        history.rekey(event.key)

    async def _mark(self, build: str, entry: Entry, headings: Headings) -> BuildLog | None:
        """Own the log: from now on no other process can write to it unnoticed.

        Returns:
            The log; None where it needs nothing more.
        """
        last = await self._store.logs.last(entry.subject)
        if last is None:
            raise Fenced("its log was removed meanwhile")
        record = decode_record(last.data)
        if record.instance == crash_loops.RELEASE:
            self._released.add(build)
        # The record is our own mark, written before reading met an obstacle: no process died in between.
        anew = record.instance != self._store.instance
        if anew and last.sequence != entry.sequence:
            raise Fenced(f"{record.instance} has written to its log meanwhile")
        if anew and entry.owner in self._other_owners():
            # Thousands may have been found together with this one, and it takes long until its turn.
            raise Fenced(f"{entry.owner} is back, and goes on with it")
        # Read again, as we may have finished the build since the logs were listed.
        headings = read_headers(last.headers)
        if headings.status is Status.REPORTED:
            return None
        # Replies captured since are still to be read, whatever this process has read for other builds.
        self._store.positions.keep_behind(build, record.position)
        log = self._store.open(
            build, sequence=last.sequence, n=record.n, epoch=record.epoch + 1, at=(record.at + 1) / 1_000
        )
        log.status, log.loads, log.hangs = headings.status, headings.loads + anew, headings.hangs
        await log.append(Loading())
        log.loads = 0
        return log

    async def _publish_stored(self, held: Held, history: History) -> None:
        build = held.build
        try:
            await self._recorder.publish_stored(build, history.run)
            _log.info("the report of an earlier process was published", build=build)
            await self._notify_of_end(history)
        except StoreError as error:
            _log.warning("the report of an earlier process was not published", build=build, error=str(error))
        except Exception:  # noqa: BLE001 - a bug costs this build, and no other
            _log.exception("the report of an earlier process was not published", build=build)
        finally:
            self._store.close(build)
            self._runner.let_go(held)

    async def _notify_of_end(self, history: History) -> None:
        """Notify of the end of a build whose report is out; the process that finished it could not."""
        if (notices := self._runner.notices) is None:
            return
        try:
            plan, _ = await self._replayer.replay(history)
        except StoreError as error:
            accepted = history.accepted
            build = "" if accepted is None else accepted.document.get("id")
            _log.warning("nobody is notified of the end of a build", build=build, error=str(error))
        else:
            notices.finished(plan, history.latest / 1_000)

    async def _begin(
        self, held: Held, history: History, loaded: Loaded, heard: tuple[str, ...], *, owner: str
    ) -> None:
        plan, accepted = await self._replayer.replay(history)
        if held.build in self._released and (order := history.orders.last("release")) is not None:
            self._released.remove(held.build)
            _log.info(ORDER_CARRIED_OUT, build=held.build, **order.document())
        resumption = self._replayer.resumption(plan, history, loaded.caught_up, history.position)
        resumption = evolve(resumption, heard=heard, starts=await self._replayer.starts(plan, history))
        await self._supervisor.resume(held, plan, accepted, resumption, history, owner=owner)
        loaded.positions.append(history.position)
        loaded.senders[held.build] = history.senders
        loaded.builds.append(held.build)
