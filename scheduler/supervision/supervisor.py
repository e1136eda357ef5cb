"""Holds the builds of this process: begins each, runs it beside the others, reports it once.

One build's trouble never reaches another: whatever a build raises ends here.
"""

import secrets
from collections import Counter, OrderedDict
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import structlog
import trio
from attrs import define, evolve, field

from scheduler.definition.graph import Vertex
from scheduler.definition.limits import Limits
from scheduler.definition.model import Resend
from scheduler.definition.reply_subjects import draw_key
from scheduler.definition.rules import Retries
from scheduler.definition.validation import Prepared
from scheduler.dispatch.connectors import Connectors
from scheduler.dispatch.senders import UNKNOWN
from scheduler.dispatch.slots import Slots
from scheduler.errors import AlreadyLogged, Fenced, InvalidBuild, Problem, StoreError
from scheduler.forecast.durations import Durations, expectation
from scheduler.journal.events import Accepted
from scheduler.journal.history import History
from scheduler.journal.records import Status
from scheduler.journal.timings import Timings
from scheduler.limiter import may_have_one_more
from scheduler.plan import Phase, Plan
from scheduler.runtime.clock import BuildClock
from scheduler.runtime.executor import Executor, ThreadExecutor
from scheduler.runtime.interruptible import interruptible
from scheduler.runtime.ratelimit import RateLimitedLog
from scheduler.stores import Store
from scheduler.supervision.explainer import Seen
from scheduler.supervision.feed import Feed, Track
from scheduler.supervision.reporting import Reporter
from scheduler.text import doing
from scheduler.walk import Resending, Resumption, Walk, render, store_failure

_log = structlog.get_logger()

_T = TypeVar("_T")

_MOST_REPORTED = 10_000
"""Builds whose end is remembered."""
_FREED_AT_ONCE = 500
"""Parts of a build that is over, freed between two looks at everything else: a millisecond or two."""
_LARGE = 3_000
"""Changes, edges and components of a build about which all at once takes longer than a few milliseconds."""
_WORTH_NOTING = 1.0
"""Seconds of an outage that move deadlines also for the next process."""
_MOST_LINES = 20
"""About builds that may hold mistakes, in the log, at once."""
_MOST_HINTS = 5
"""Of a build, in the log."""
_CLOSING = 0.5
"""Seconds for what is being persisted when the grace is over."""


@define(eq=False)
class Held:
    """A build that this process holds, or is about to, or has kept the id of."""

    build: str
    digest: bytes = b""
    sender: str = UNKNOWN
    """Who sent it; of what an earlier process left nobody knows."""
    reserved: bool = False
    """Whether it is only being found out what stands in its log."""
    decided: trio.Event = field(factory=trio.Event)
    """Set once it is known whether the build is taken."""
    refusal: tuple[str, str] | None = None
    """The code and the text: an exception, with its traceback, would keep all this alive."""
    walk: Walk | None = None
    track: Track | None = None
    """Its times; there where ``walk`` is."""
    gone: trio.Event = field(factory=trio.Event)
    """Set once it is not held any more."""


class Supervisor:
    """All builds of this process.

    Args:
        store: where builds are persisted.
        connectors, slots, feed: shared by all builds.
        reporter: where reports go.
        limits: on texts that come in on the way.
        max_builds: more at a time are refused as ``busy``; one sender alone may have seven eighths of it.
        templates, unresolved: what builds are read with, to be kept with them.
        resending: when a request without a reply is sent again.
        retries: the operator's rules for what fails.
        durations: how long requests take, as far as is known: said for each that was completed, and asked
            for when a build begins.
        clock: the clock of a build that is about to begin here, or to be looked at.
        executor: does what takes long beside the loop.
    """

    def __init__(
        self,
        store: Store,
        connectors: Connectors,
        slots: Slots,
        feed: Feed,
        reporter: Reporter,
        *,
        limits: Limits,
        max_builds: int,
        templates: str = "all",
        unresolved: str = "error",
        resending: Resending = lambda _: Resend.UNSENT,
        retries: Retries = (),
        durations: Durations | None = None,
        clock: Callable[[str], BuildClock] = lambda _: BuildClock(),
        executor: Executor | None = None,
    ) -> None:
        self.on_orphan: Callable[[], None] = lambda: None
        """Is told when somebody submits a build that has a log and is held by nobody here."""
        self.quarantined: dict[str, str] = {}
        """Quarantined builds, and why they are."""
        self._store = store
        self._reporter = reporter
        self._templates = templates
        self._unresolved = unresolved
        self._resending = resending
        self._retries = retries
        self._clock = clock
        self.executor = executor or ThreadExecutor()
        """Does what takes long beside the loop."""
        self.durations = durations or Durations()
        self._connectors = connectors
        self._slots = slots
        self._feed = feed
        self.limits = limits
        self._max_builds = max_builds
        self._held: dict[str, Held] = {}
        self._senders: Counter[str] = Counter()
        """By sender, how many builds are held."""
        self._components = 0
        self._bytes = 0
        """Of the builds that run."""
        self._reported: OrderedDict[str, None] = OrderedDict()
        self._nursery: trio.Nursery | None = None
        self._stopping = False
        self._log = RateLimitedLog(_log, burst=_MOST_LINES)
        self._idle = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the nursery that builds run in open; never returns."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            await trio.sleep_forever()

    @property
    def store(self) -> Store:
        """Where builds are persisted."""
        return self._store

    @property
    def slots(self) -> Slots:
        """How many requests may be in flight."""
        return self._slots

    @property
    def connectors(self) -> Connectors:
        """What requests go out by."""
        return self._connectors

    def see(self, build: str) -> Seen | None:
        """A build that runs here, to be looked at; None where none of this id does."""
        held = self._held.get(build)
        if held is None or held.walk is None or held.track is None:
            return None
        track, waits = held.track, self._reporter.waits(build)
        return Seen(
            held.walk.plan,
            track.timings,
            held.walk,
            track.sequence,
            track.source,
            waits,
            identity=track.source,
            revision=track.revision,
        )

    def ids(self) -> list[str]:
        """The ids of the builds that run here."""
        return [held.build for held in self._held.values() if held.walk is not None]

    def seen(self) -> list[Seen]:
        """Every build that runs here."""
        return [seen for build in list(self._held) if (seen := self.see(build)) is not None]

    def size(self) -> tuple[int, int]:
        """How many builds are held, or about to be, and how many components those have that run."""
        return len(self._held), self._components

    @property
    def bytes(self) -> int:
        """Bytes of the builds that run, as they were submitted, and of the replies to them."""
        return self._bytes + self._connectors.reader.bytes_of.total()

    def sender_of(self, build: str) -> str:
        """Who has sent a build that is held here; `UNKNOWN` where nobody knows."""
        held = self._held.get(build)
        return UNKNOWN if held is None else held.sender

    async def until_gone(self, build: str) -> None:
        """Wait until a build that has come to its end is not held any more; the caller owns the deadline."""
        held = self._held.get(build)
        if held is not None:
            await held.gone.wait()

    async def recalled(self, plan: Plan, history: History) -> Seen:
        """A build as its log says that it stood; the times of a large one are read beside the loop."""
        fold = partial(Timings.of_history, plan.build, plan.graph, history, self._clock_after(plan, history))
        return Seen(plan, await self._beside(plan.prepared, fold), None, 2 * len(history.steps))

    def _clock_after(self, plan: Plan, history: History) -> BuildClock:
        clock = self._clock(plan.build.id)
        clock.go_on_after((history.latest + 1) / 1_000)
        return clock

    def holds(self, build: str) -> bool:
        """Whether the build is ours, or about to be."""
        return build in self._held

    def has_reported(self, build: str) -> bool:
        """Whether the last run of this build ended here: a reply that comes now must not revive it."""
        return build in self._reported

    async def submit(self, prepared: Prepared, sender: str = UNKNOWN) -> bool:
        """Take a build: persist it, and begin it.

        The same content again is taken already, and changes nothing.

        Args:
            prepared: the build.
            sender: who sent it (`senders.sender_of`).

        Returns:
            Whether it is over already: it was taken before, and has been reported.

        Raises:
            InvalidBuild: ``running``, ``finished``, ``quarantined``, ``busy``, ``shutting_down`` or
                ``store``.
        """
        build = prepared.build.id
        while (holder := self._held.get(build)) is not None:
            await holder.decided.wait()
            if holder.refusal is not None and holder.digest == prepared.digest:
                raise _refused(*holder.refusal)
            if holder.walk is not None:
                if holder.digest != prepared.digest:
                    raise _refused("running", f"build {build} is running, with other content")
                return False
        self._check_room()
        self._check_share(sender)
        held = self._hold(Held(build, prepared.digest, sender))
        self._reported.pop(build, None)
        key = draw_key() if self._store.in_order else ""
        # A store that gives a build back to the next process, and keeps nothing of ours with it, has no mark.
        mark = secrets.token_hex(8) if self._store.in_order or not self._store.resumable else ""
        anew, over = True, False
        try:
            plan, accepted = await self._beside(prepared, partial(self._planned, prepared, key, mark))
            await self._store.append(build, [accepted])
        except AlreadyLogged as known:
            anew, over = False, known.status == Status.REPORTED
            if known.digest != prepared.digest.hex() or build in self.quarantined:
                held.refusal = self._known(build, known)
                raise _refused(*held.refusal) from None
            if not over:
                self.on_orphan()
        except StoreError as error:
            held.refusal = "store", prepared.secrets.mask(store_failure(error), 2_000)
            raise _refused(*held.refusal) from None
        except BaseException:
            held.refusal = "internal", "it could not be taken; see the scheduler's log"
            raise
        finally:
            if held.refusal is not None or not anew:
                self.let_go(held)
        if anew:
            if prepared.hints:
                shown = [str(hint) for hint in prepared.hints[:_MOST_HINTS]]
                self._log.warning(
                    "build may hold mistakes", build=build, found=len(prepared.hints), hints=shown
                )
            self._begin(held, *self._new_walk(plan, key=key, resumption=None))
        return over

    async def _beside(self, prepared: Prepared, job: Callable[[], _T]) -> _T:
        """Do something with a whole build: a large one beside the loop, where it keeps nobody waiting."""
        build = prepared.build
        if len(build.changes) + len(build.edges) + len(build.components) < _LARGE:
            with interruptible(build.id):
                return job()
        return await self.executor.run(build.id, job, long=True)

    def _planned(self, prepared: Prepared, key: str, mark: str) -> tuple[Plan, Accepted]:
        plan = self._new_plan(prepared, mark=mark)
        accepted = plan.accepted
        return plan, evolve(accepted, key=key, templates=self._templates, unresolved=self._unresolved)

    async def plan_of(self, prepared: Prepared, mark: str = "") -> Plan:
        """The plan of a build as this process would run it; a large one is made beside the loop.

        Args:
            prepared: the build.
            mark: of its acceptance, as it is kept with it.
        """
        return await self._beside(prepared, partial(self._new_plan, prepared, mark=mark))

    async def render(self, plan: Plan, vertex: Vertex) -> None:
        """Have a component rendered that takes long (`build.render`)."""
        await render(plan, vertex, self.executor)

    def _new_plan(self, prepared: Prepared, *, resumed: bool = False, mark: str = "") -> Plan:
        plan = Plan(prepared, resumed=resumed, limits=self.limits, retries=self._retries, mark=mark)
        expected = expectation(self.durations)
        seconds = [expected(plan.requests.subject(vertex)) for vertex in range(len(plan.phases))]
        plan.priorities = plan.graph.remaining(seconds)
        return plan

    def _known(self, build: str, known: AlreadyLogged) -> tuple[str, str]:
        """The code and the text that a build is refused with whose id has a log."""
        if build in self.quarantined:
            return "quarantined", f"build {build} is quarantined: {self.quarantined[build]}"
        if known.status == Status.REPORTED:
            text = f"a build {build} with other content has finished; give this one an id of its own"
            return "finished", text
        return "running", f"build {build} is running, with other content"

    async def reserve(self, build: str) -> Held | None:
        """Keep the id of a build for whoever finds out what stands in its log; see `go_on` and `let_go`.

        Returns:
            None where the build runs here.
        """
        while (known := self._held.get(build)) is not None:
            await known.decided.wait()
            if known.walk is not None:
                return None
        return self._hold(Held(build, reserved=True))

    async def go_on(
        self, held: Held, plan: Plan, accepted: Accepted, resumption: Resumption, history: History
    ) -> Walk:
        """Go on with a build that an earlier process left, whose plan was replayed from its log.

        Args:
            held: from `reserve`.
            plan: as the log says.
            accepted: the first word of the log.
            resumption: what else the log says.
            history: all that it says.

        Raises:
            PlanError: the plan does not know how to go on.
        """
        timings = Timings.of_history(plan.build, plan.graph, history, self._clock_after(plan, history))
        if plan.state.run != history.run:
            timings.begin_run(plan.phases.unsettled(), timings.clock())
        walk, track = self._new_walk(plan, key=history.key, resumption=resumption, timings=timings)
        # Whoever has followed it so far has seen less than this.
        track.sequence = 2 * len(history.steps)
        await walk.prepare()
        # Of what was submitted: what was kept of it differs, if only in its states.
        held.digest = bytes.fromhex(accepted.digest)
        held.reserved = False
        _log.info(
            "build taken up", build=held.build, in_flight=plan.phases.in_flight, settled=plan.phases.settled
        )
        self._begin(held, walk, track)
        return walk

    def let_go(self, held: Held) -> None:
        """The build does not run here (any more). Idempotent."""
        held.decided.set()
        held.gone.set()
        if held.walk is not None:
            self._components -= len(held.walk.plan.phases)
            self._bytes -= held.walk.plan.prepared.size
        held.walk = held.track = None
        if self._held.get(held.build) is held:
            del self._held[held.build]
            self._senders[held.sender] -= 1
            if not self._senders[held.sender]:
                del self._senders[held.sender]
            self._connectors.positions.forget(held.build)
            del self._connectors.reader.bytes_of[held.build]
            if not self._busy:
                self._idle.set()

    def take_up(self, prepared: Prepared) -> Walk | None:
        """Go on with a build that an earlier process left unfinished.

        Returns:
            Its walk; or None where it is held already: then nothing is changed.

        Raises:
            InvalidBuild: ``busy`` or ``shutting_down``.
        """
        build = prepared.build.id
        if build in self._held:
            return None
        self._check_room()
        plan = self._new_plan(prepared, resumed=True)
        held = self._hold(Held(build, prepared.digest))
        _log.info("build taken up", build=build, in_flight=plan.phases.in_flight, settled=plan.phases.settled)
        walk, track = self._new_walk(plan, key="", resumption=None)
        self._begin(held, walk, track)
        return walk

    def refuse_new(self) -> None:
        """Take no more builds; send nothing more for those that run."""
        self._stopping = True
        for walk in self._walks():
            walk.stop()

    async def drain(self, grace: float) -> None:
        """After `refuse_new`: await what is in flight for ``grace`` seconds, then stop waiting for it."""
        with trio.move_on_after(grace):
            await self._until_idle()
            return
        _log.warning("grace is over", builds=len(self._held), seconds=grace)
        # What is known to have left must not be sent again by the next process.
        with trio.move_on_after(_CLOSING):
            await self._store.settle()
        for walk in self._walks():
            walk.abandon(_CLOSING)
        with trio.move_on_after(_CLOSING + 0.2):
            await self._until_idle()

    def send_again(self) -> None:
        """Requests that were lost with a connection go out again, where they are to."""
        for walk in self._walks():
            walk.send_again()

    def note_outage(self, seconds: float) -> None:
        """Nothing could be done for so long, and now it can: deadlines have moved by that."""
        if seconds < _WORTH_NOTING:
            return
        for held in self._held.values():
            if held.walk is not None and held.track is not None and held.walk.plan.phases.in_flight:
                held.track.timings.note_outage(seconds)
                held.walk.note_outage(seconds)

    def long_waits(self, seconds: float) -> list[tuple[str, str, float]]:
        """Builds whose oldest request is unanswered for longer: build, component, seconds."""
        now = trio.current_time()
        waits = ((walk.id, walk.longest_wait()) for walk in self._walks())
        return [(build, wait[0], now - wait[1]) for build, wait in waits if wait and now - wait[1] > seconds]

    @property
    def stopping(self) -> bool:
        """Whether no more builds are taken, or taken up."""
        return self._stopping

    def _walks(self) -> list[Walk]:
        return [held.walk for held in self._held.values() if held.walk is not None]

    @property
    def _busy(self) -> bool:
        return any(not held.reserved for held in self._held.values())

    async def _until_idle(self) -> None:
        while self._busy:
            self._idle = trio.Event()
            await self._idle.wait()

    def _check_room(self) -> None:
        if self._stopping:
            raise _refused("shutting_down", "the scheduler is shutting down")
        if len(self._held) >= self._max_builds:
            raise _refused(
                "busy", f"{doing(len(self._held), 'build', 'be')} running; max_builds is {self._max_builds}"
            )

    def _check_share(self, sender: str) -> None:
        """Some room is kept for builds of those who have few."""
        most, free, theirs = self._max_builds, self._max_builds - len(self._held), self._senders[sender]
        if not may_have_one_more(theirs, free, most):
            text = f"{doing(theirs, 'build', 'be')} running that you have sent"
            raise _refused("busy", f"{text}; of max_builds={most} the last {free} are kept for other senders")

    def _hold(self, held: Held) -> Held:
        self._held[held.build] = held
        self._senders[held.sender] += 1
        return held

    def _new_walk(
        self, plan: Plan, *, key: str, resumption: Resumption | None, timings: Timings | None = None
    ) -> tuple[Walk, Track]:
        if timings is None:
            clock = self._clock(plan.build.id)
            timings = Timings(len(plan.build.changes), clock.began, clock)
            for vertex, dependencies in enumerate(plan.graph.dependencies):
                if not dependencies and plan.phases[vertex] is Phase.WAITING:
                    timings.note_due(vertex, clock.began)
        track = Track(self._feed, plan, timings, self.durations.record)
        walk = Walk(
            plan,
            self._connectors,
            self._store,
            self._slots,
            track,
            key=key,
            priorities=plan.priorities,
            resumption=resumption,
            resending=self._resending,
            executor=self.executor,
        )
        return walk, track

    def _begin(self, held: Held, walk: Walk, track: Track) -> None:
        held.walk, held.track = walk, track
        self._components += len(walk.plan.phases)
        self._bytes += walk.plan.prepared.size
        held.decided.set()
        self._slots.open(walk.plan, walk.plan.state.rules, held.sender)
        if self._stopping:
            walk.stop()
        assert self._nursery is not None, "the supervisor does not run"
        self._nursery.start_soon(self._run, held, walk, track, name=f"build {walk.id}")

    async def _run(self, held: Held, walk: Walk, track: Track) -> None:
        try:
            await self._run_to_report(walk, track)
        finally:
            self._store.close(walk.id)
            self._slots.close(walk.plan)
            self.let_go(held)
        # Freed at once, hundreds of thousands of objects would keep the other builds waiting.
        parts = walk.plan.parts()
        del walk, track
        while parts:
            del parts[-_FREED_AT_ONCE:]
            await trio.lowlevel.checkpoint()

    async def _run_to_report(self, walk: Walk, track: Track) -> None:
        total = len(walk.plan.build.changes)
        _log.info("build started", build=walk.id, action=walk.plan.build.action, changes=total)
        try:
            report = await walk.run()
            self._feed.close(track)
            if report is None:
                _log.info(
                    "build left for the next process",
                    build=walk.id,
                    settled=walk.plan.phases.settled,
                    changes=total,
                )
                if walk.fenced:
                    # Whoever took it may be gone again by now.
                    self.on_orphan()
                elif walk.stuck:
                    self.quarantined[walk.id] = "internal error in the scheduler; see its log"
                elif not self._stopping:
                    self.quarantined[walk.id] = (
                        "its log could not be written; the next process goes on with it"
                    )
                return
            await self._reporter.report(walk.id, evolve(report, accepted=track.timings.accepted))
            self._reported[walk.id] = None
            if len(self._reported) > _MOST_REPORTED:
                self._reported.popitem(last=False)
            # Of the whole build, whichever processes had it.
            seconds = round(track.timings.clock() - track.timings.accepted, 3)
            if report.error is None:
                _log.info("build done", build=walk.id, changes=total, seconds=seconds)
            else:
                _log.warning(
                    "build failed",
                    build=walk.id,
                    error=walk.plan.masked(report.error, 1_000),
                    seconds=seconds,
                )
        except Fenced as error:
            _log.warning(
                "another process has taken the build over: it reports", build=walk.id, error=str(error)
            )
        except StoreError as error:
            # What is stored of it by now is published by the next process; otherwise that makes it.
            _log.error("the report is not out, and left to the next process", build=walk.id, error=str(error))
        except Exception:  # noqa: BLE001 - it is logged
            # A bug of ours, outside what the walk itself survives: all that can be done is to say so, once.
            _log.exception("internal error: the build ends without a report", build=walk.id)


def _refused(code: str, text: str) -> InvalidBuild:
    return InvalidBuild(code, [Problem("", text)])
