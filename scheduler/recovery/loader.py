"""Takes up builds that an earlier process left: folds their logs, and hands them to the supervisor.

A build that cannot be folded, or that processes die of again and again, is *quarantined*: that is said, the
log is left as it is, and no other build notices.
"""

import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence

import structlog
import trio
from attrs import define, evolve, field

from scheduler.definition.codec import decode_token, encode_token
from scheduler.definition.reply_subjects import draw_key, is_secret
from scheduler.definition.template import INLINE_WORK, Laborious
from scheduler.definition.validation import Prepared
from scheduler.dispatch.router import Connectors
from scheduler.errors import (
    BusError,
    Fenced,
    JetStreamUnavailable,
    LogRemoved,
    Refused,
    StoreError,
    StreamNotFound,
    UnreadableLog,
)
from scheduler.jetstream.api import JetStream
from scheduler.jetstream.streams import LOG, log_subject
from scheduler.journal.events import Accepted, Event, Loading, Rekeyed, Released
from scheduler.journal.history import History
from scheduler.journal.records import (
    Headings,
    Position,
    Status,
    compose,
    decode_record,
    encode_event,
    headers_of,
    is_tombstone,
    read_headers,
)
from scheduler.plan import Phase, Plan
from scheduler.recovery.adoption import adopt_what_came_late
from scheduler.recovery.crash_loops import MOST_HANGS
from scheduler.runtime.interruptible import interruptible
from scheduler.runtime.pace import TURN, Pace, paced
from scheduler.stores.jetstream import Entry, JetStreamStore
from scheduler.stores.log import BuildLog
from scheduler.stores.slices import encode as encode_in_slices
from scheduler.supervision.reporting import Recorder
from scheduler.supervision.supervisor import Held, Supervisor
from scheduler.walk import Resumption, Walk

_log = structlog.get_logger()

SUSPECT_LOADS = 2
"""Processes in a row that may die while they take up several builds; then each of those is taken up alone."""
MOST_LOADS = SUSPECT_LOADS + 3
"""... and then three that may die of that build alone, before it is left as it is. Whoever kills processes at
random will hardly hit the same build three times; what it cannot survive, it does."""
_LOADED_AT_ONCE = 4
_REPLAYED_AT_ONCE = 100
"""Events replayed between two looks at everything else: about a millisecond."""
_MARKED_AT_ONCE = 100
_PAUSE = 1.0
_MOST_REFUSALS = 5
"""Errors of the server, other than that it cannot answer now, after which they are taken for the build's."""

Pause = Callable[[], Awaitable[None]]
Reader = Callable[[bytes, Accepted], Awaitable[Prepared]]
"""Reads and checks a build as it was accepted."""


@define(eq=False)
class Loaded:
    """Builds that were taken up together, and wait for what was captured meanwhile."""

    live: frozenset[str]
    """Instances whose builds are left to them."""
    caught_up: trio.Event = field(factory=trio.Event)
    """To be set when that was read."""
    builds: list[str] = field(factory=list)
    positions: list[Position] = field(factory=list)
    unproven: list[tuple[Held, Entry]] = field(factory=list)
    """Those that processes have died of, as far as can be told: to be taken up last, and one by one."""
    contested: bool = False
    """Whether somebody else wrote to one of the logs meanwhile: perhaps its last word."""


class Loader:
    """Takes builds up.

    Args:
        store: has the logs.
        supervisor: runs what is gone on with.
        connectors: keeps the positions in the captured replies.
        recorder: publishes reports that were stored and perhaps not published.
        read: reads a build as it was accepted.
    """

    def __init__(
        self,
        store: JetStreamStore,
        *,
        supervisor: Supervisor,
        connectors: Connectors,
        recorder: Recorder,
        read: Reader,
    ) -> None:
        self._store = store
        self._supervisor = supervisor
        self._connectors = connectors
        self._captured = connectors.positions
        self._recorder = recorder
        self._read = read

    async def load(
        self, entries: Iterable[Entry], nursery: trio.Nursery, live: frozenset[str] = frozenset()
    ) -> Loaded:
        """Take up all of these that can be.

        Args:
            entries: the logs.
            nursery: for what goes on afterwards: the publishing of stored reports.
            live: instances whose builds are left to them.
        """
        loaded = Loaded(live)
        held = []
        # A log that was written to while it was listed may stand there twice: the last one counts.
        for entry in {entry.subject: entry for entry in entries}.values():
            build = decode_token(entry.subject.rpartition(".")[2])
            # From now on whoever submits it again waits until it is known what becomes of it.
            if build not in self._supervisor.quarantined and (one := await self._supervisor.reserve(build)):
                held.append((one, entry))
        limiter = trio.CapacityLimiter(_LOADED_AT_ONCE)
        async with trio.open_nursery() as loads:
            for one, entry in held:
                if _is_suspect(entry):
                    loaded.unproven.append((one, entry))
                else:
                    loads.start_soon(self._load, one, entry, loaded, nursery, limiter)
        # Who is the most likely to kill comes last.
        loaded.unproven.sort(key=lambda one: _counts(one[1]))
        return loaded

    async def load_unproven(
        self, one: tuple[Held, Entry], nursery: trio.Nursery, live: frozenset[str]
    ) -> Loaded:
        """Take up one of `Loaded.unproven`: if we die now, it is of that one."""
        loaded = Loaded(live)
        held, entry = one
        await self._load(held, entry, loaded, nursery, trio.CapacityLimiter(1))
        return loaded

    async def mark_stable(self, builds: Iterable[str]) -> None:
        """Nobody has died of these: their loadings are not counted any more."""
        async for build in paced(builds, every=_MARKED_AT_ONCE):
            if self._supervisor.holds(build):
                self._store.note(build, Released(), lazily=True)

    async def _load(
        self,
        held: Held,
        entry: Entry,
        loaded: Loaded,
        nursery: trio.Nursery,
        limiter: trio.CapacityLimiter,
    ) -> None:
        build = held.build
        publishing = 0
        refusals = 0
        async with limiter:
            while not self._supervisor.stopping:
                try:
                    publishing = await self._take_up(held, entry, loaded)
                except (BusError, trio.TooSlowError) as error:
                    if isinstance(error, StreamNotFound):
                        # Where it is the one of all logs, that is no fault of this build.
                        await self._store.log_is_there()
                    refusals += not isinstance(error, JetStreamUnavailable)
                    if refusals < _MOST_REFUSALS:
                        _log.warning("the log of a build cannot be read yet", build=build, error=str(error))
                        self._store.close(build)
                        await trio.sleep(_PAUSE)
                        continue
                    await self._quarantine(build, error)
                except LogRemoved as error:
                    # Nobody has it, and nothing is left to be reported from.
                    _log.error("build not taken up: its log was removed by hand", build=build, why=str(error))
                except Fenced as error:
                    # Of two processes that both find it unfinished one is faster.
                    _log.warning("build not taken up: another process has it", build=build, why=str(error))
                    loaded.contested = True
                except Exception as error:  # noqa: BLE001 - whatever a log sets off must cost no other build
                    await self._quarantine(build, error)
                break
        if publishing:
            nursery.start_soon(self._publish_stored, held, publishing)
        elif held.walk is None:
            self._store.close(build)
            self._supervisor.let_go(held)

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

    async def _take_up(self, held: Held, entry: Entry, loaded: Loaded) -> int:
        """Go on with one build.

        Returns:
            The run whose report is stored, and has only to be published; 0 where there is more to be done.

        Raises:
            Fenced: another process has it.
            StoreError: it is to be quarantined.
            BusError: something could not be asked.
        """
        build, headings = held.build, entry.headings
        if isinstance(headings, UnreadableLog):
            # Not that one itself: with its traceback it would refer to this frame, which refers to it.
            raise UnreadableLog(str(headings))
        if headings.loads >= MOST_LOADS or headings.hangs >= MOST_HANGS:
            what = (
                f"{headings.hangs} processes hung over it"
                if headings.hangs >= MOST_HANGS
                else f"{headings.loads} processes in a row ended while they took it up"
            )
            msg = f"{what}; `scheduler release {build}` has the next one try again"
            raise UnreadableLog(msg)
        log = await self._mark(build, entry, headings, loaded.live)
        if log is None:
            return 0
        history = await self._store.history(entry.subject)
        if history.accepted is None:
            raise LogRemoved("there was a log a moment ago")
        mark = history.accepted.mark
        if history.status is Status.FINISHED and await self._recorder.is_stored(build, history.run, mark):
            return history.run
        if not is_secret(history.key) and history.status is Status.OPEN:
            await self._rekey(log, history)
        # First of all: what is answered from now on to those who sent what is in flight comes to us as well.
        old = any(not is_secret(flight.key) for flight in history.in_flight.values())
        heard = await self._connectors.hear(history.senders, old=old)
        try:
            await self._begin(held, history, loaded, heard)
        finally:
            self._connectors.hearing.release(heard)
        return 0

    async def _rekey(self, log: BuildLog, history: History) -> None:
        """Give a build a new key whose old one stood in reply subjects, before anything is sent with it."""
        event = Rekeyed(draw_key())
        # We may die of the build yet.
        log.loads = history.loads
        await log.append(event)
        log.loads = 0
        history.rekey(event.key)

    async def _mark(
        self, build: str, entry: Entry, headings: Headings, live: frozenset[str]
    ) -> BuildLog | None:
        """Make the log ours: from now on nobody else can write to it without our knowing.

        Returns:
            The log; None where it is that of somebody who is still there, or needs nothing more.
        """
        last = await self._store.last(entry.subject)
        if last is None:
            raise Fenced("its log was removed meanwhile")
        record = decode_record(last.data)
        # What we wrote ourselves is our own mark, whose reading met an obstacle: no death lies between.
        anew = record.instance != self._store.instance
        if anew:
            if encode_token(record.instance) in live:
                return None
            if last.sequence != entry.sequence:
                raise Fenced(f"{record.instance} has written to its log meanwhile")
        # As it is by now: we may have finished it ourselves since the logs were listed.
        headings = read_headers(last.headers)
        if headings.status is Status.REPORTED:
            return None
        # What was captured since is still to be read, whatever this process has seen for other builds.
        self._captured.keep_behind(build, record.position)
        log = self._store.open(
            build, sequence=last.sequence, n=record.n, epoch=record.epoch + 1, at=(record.at + 1) / 1_000
        )
        log.status, log.loads, log.hangs = headings.status, headings.loads + anew, headings.hangs
        await log.append(Loading())
        log.loads = 0
        return log

    async def _publish_stored(self, held: Held, run: int) -> None:
        build = held.build
        try:
            await self._recorder.publish_stored(build, run)
            _log.info("the report of an earlier process was published", build=build)
        except StoreError as error:
            _log.warning("the report of an earlier process was not published", build=build, error=str(error))
        except Exception:  # noqa: BLE001 - a bug of ours costs this build, and no other
            _log.exception("the report of an earlier process was not published", build=build)
        finally:
            self._store.close(build)
            self._supervisor.let_go(held)

    async def _begin(self, held: Held, history: History, loaded: Loaded, heard: tuple[str, ...]) -> None:
        plan, accepted = await self._replayed(history)
        resumption = evolve(self._resumption(plan, history, loaded.caught_up, history.position), heard=heard)
        await self._supervisor.go_on(held, plan, accepted, resumption, history)
        loaded.positions.append(history.position)
        loaded.builds.append(held.build)

    async def _replayed(
        self, history: History, pause: Pause = trio.lowlevel.checkpoint
    ) -> tuple[Plan, Accepted]:
        """The plan as a log says that it stood, and the first word of the log."""
        accepted = history.accepted
        if accepted is None:
            msg = "its log is empty"
            raise UnreadableLog(msg)
        prepared = await self._read(await encode_in_slices(accepted.document), accepted)
        plan = await self._supervisor.plan_of(prepared, accepted.mark)
        pace = Pace(TURN // _REPLAYED_AT_ONCE, pause)
        for step in history.steps:
            work, unlearned = plan.requests.work_left, len(plan.requests.unlearned)
            with interruptible(plan.build.id):
                plan.replay(step)
            await pace.turn(
                work - plan.requests.work_left + (len(plan.requests.unlearned) - unlearned) * INLINE_WORK
            )
        for vertex in plan.requests.unlearned:
            await self._supervisor.render(plan, vertex)
            plan.requests.learn_request(vertex)
        return plan, accepted

    def _resumption(self, plan: Plan, history: History, caught_up: trio.Event, after: Position) -> Resumption:
        # Where our clock is behind the one of the process before us, or a clock was set, as much is left of
        # a pause or a deadline as there was.
        now = max(self._store.wall_clock() * 1_000, history.latest)
        index = plan.graph.index

        def ago(at: float) -> float:
            return max(0.0, (now - at) / 1_000)

        flights = {index[component]: flight for component, flight in history.in_flight.items()}
        return Resumption(
            caught_up,
            after,
            {vertex: ago(flight.since) for vertex, flight in flights.items()},
            pauses={
                index[component]: max(0.0, (until - now) / 1_000)
                for component, until in history.pauses.items()
            },
            extended={v: flight.extended / 1_000 for v, flight in flights.items() if flight.extended},
            # While the build is paused, up to when that began to count for the component.
            begun={
                index[component]: max(0.0, (history.held.get(component, now) - began) / 1_000)
                for component, began in history.began.items()
            },
            old={v: flight.key for v, flight in flights.items() if flight.key and not is_secret(flight.key)},
        )

    async def look(self, build: str, pause: Pause) -> tuple[Plan, History]:
        """What the log of a build says, without taking it up.

        Args:
            build: its id.
            pause: awaited after each slice of the work.

        Raises:
            UnreadableLog: this version cannot understand it.
            BusError: JetStream could not be asked.
        """
        history = await self._store.history(log_subject(build))
        plan, _ = await self._replayed(history, pause)
        return plan, history

    async def last_sequence(self, build: str) -> int | None:
        """Where the log of a build ends by now; None where there is none.

        Raises:
            BusError: JetStream could not be asked.
        """
        last = await self._store.last(log_subject(build))
        return None if last is None else last.sequence

    async def reopen(self, build: str, decide: Callable[[Plan], Sequence[Event]]) -> Walk | None:
        """Begin a new run of a build that is over.

        Args:
            build: its id.
            decide: changes the plan, and says what is to be persisted of that.

        Returns:
            The walk; None where the build runs here already.

        Raises:
            Refused: there is no such build, it is not over, or ``decide`` says so.
            UnreadableLog, Fenced, BusError, StoreError: its log cannot be read, or not be written.
        """
        held = await self._supervisor.reserve(build)
        if held is None:
            return None
        try:
            last = await self._store.last(log_subject(build))
            if last is None:
                raise Refused("unknown", f"there is no build {build}")
            if read_headers(last.headers).status is not Status.REPORTED:
                raise Refused("unavailable", f"{build} is not over, and not held here: ask again soon")
            history = await self._store.history(log_subject(build))
            plan, accepted = await self._replayed(history)
            store, supervisor = self._store, self._supervisor
            await adopt_what_came_late(
                store.js,
                store.replies,
                plan,
                history,
                limits=supervisor.limits,
                render=supervisor.render,
            )
            adopted = plan.adopted()
            try:
                decided = decide(plan)
            except Laborious:
                vertex = plan.requests.laborious
                assert vertex is not None, "it is one of the build"
                await self._supervisor.render(plan, vertex)
                decided = decide(plan)
            events: list[Event] = []
            if not is_secret(history.key):
                events = [Rekeyed(draw_key())]
            events += [
                *decided,
                *(one for one in adopted if plan.phase(plan.graph.index[one.component]) is Phase.ERRORED),
            ]
            log = self._store.open(
                build,
                sequence=last.sequence,
                n=history.n,
                epoch=history.epoch + 1,
                at=(history.latest + 1) / 1_000,
            )
            await log.append(*events)
            if isinstance(events[0], Rekeyed):
                history.rekey(events[0].key)
            caught_up = trio.Event()
            caught_up.set()
            resumption = self._resumption(plan, history, caught_up, self._captured.seen)
            return await self._supervisor.go_on(held, plan, accepted, resumption, history)
        finally:
            if held.walk is None:
                self._store.close(build)
                self._supervisor.let_go(held)
                # What was to be written may be under way, and then nobody works on the build.
                self._supervisor.on_orphan()


def _counts(entry: Entry) -> tuple[int, int]:
    """How many processes hung over a build, and how many died while they took it up."""
    headings = entry.headings
    return (0, 0) if isinstance(headings, UnreadableLog) else (headings.hangs, headings.loads)


def _is_suspect(entry: Entry) -> bool:
    """Whether processes died of a build, as far as can be told, and it is to be tried again all the same."""
    hangs, loads = _counts(entry)
    return hangs < MOST_HANGS and loads < MOST_LOADS and (hangs > 0 or loads >= SUSPECT_LOADS)


async def forget_loads(js: JetStream, build: str) -> None:
    """Write into the log of a build that processes died of, or hung over, that the next one may try again.

    Raises:
        StoreError: there is no such build, or it is none of those: somebody may be writing to its log.
        UnreadableLog: its last record cannot be read.
        BusError: JetStream could not be asked.
    """
    subject = log_subject(build)
    last = await js.last(LOG, subject)
    if last is None or is_tombstone(last.headers):
        raise StoreError(f"there is no build {build!r} in the log")
    headings, record = read_headers(last.headers), decode_record(last.data)
    if headings.loads < MOST_LOADS and headings.hangs < MOST_HANGS:
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
