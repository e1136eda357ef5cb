"""Resumes the attempts that an earlier process began, once its replies are known."""

import math
from collections.abc import Mapping, Sequence

import trio
from attrs import field, frozen

from scheduler.definition.graph import Vertex
from scheduler.definition.model import Resend
from scheduler.definition.reply_subjects import old_token
from scheduler.definition.template import Laborious
from scheduler.dispatch.call import Call
from scheduler.dispatch.inherited import Inherited
from scheduler.journal.events import Settled
from scheduler.journal.records import Position
from scheduler.plan import Request
from scheduler.plan.outcome import failure
from scheduler.runtime.interruptible import interruptible
from scheduler.runtime.pace import Pace, paced
from scheduler.walk.component import ComponentRun
from scheduler.walk.context import Context
from scheduler.walk.frontier import Frontier
from scheduler.walk.hold import UNKNOWN_AND_HALTED, Hold
from scheduler.walk.outcomes import Outcomes
from scheduler.walk.recording import Recording
from scheduler.walk.rendered_ahead import size_of
from scheduler.walk.slot_queue import SlotQueue
from scheduler.walk.starts import Starts

_RESUMING = 2_000
"""Units of work that registering the wait for one reply takes."""
_RECALLED_AT_ONCE = 100
"""Requests of earlier processes that are counted for rates in about a millisecond."""
_UNKNOWN = (
    "outcome unknown: the scheduler was stopped when its request may have left, and it is not to be sent "
    "again. Check whether it was created, then submit the remaining changes as a new build"
)


@frozen
class Resumption:
    """Times and replies that a build of an earlier process is resumed with, from its log."""

    caught_up: trio.Event
    """Event that is set when the replies that came in the meantime were read."""
    after: Position
    """Position up to which captured replies have been handled."""
    ages: Mapping[Vertex, float]
    """Time that has passed for each component in flight, in seconds."""
    pauses: Mapping[Vertex, float] = field(factory=dict)
    """Time until the next attempt of each component that waits for one, in seconds."""
    extended: Mapping[Vertex, float] = field(factory=dict)
    """Time by which operators extended components in flight, and gates, in seconds."""
    begun: Mapping[Vertex, float] = field(factory=dict)
    """Time since the first attempt of each component that was tried, in seconds; without what does not count
    for ``total_timeout``."""
    old: Mapping[Vertex, str] = field(factory=dict, repr=False)
    """Former key of the build, for components in flight from a version whose reply subjects had no owner."""
    waited: Mapping[Vertex, float] = field(factory=dict)
    """Time for which each gate has waited that was reached, in seconds."""
    starts: Sequence[tuple[str, float]] = ()
    """Requests that earlier processes sent and that may count for the build's own rates, the last one first:
    the subject, empty where it is not known any more, and the seconds that have passed since, at least."""
    heard: tuple[str, ...] = ()
    """Subjects on which replies to earlier processes are heard."""


class Resumer:
    """Resumes the attempts of one build.

    Args:
        context: context of the walk.
        resumption: times from its log; None for a new build, and where the store keeps no log.
        recording: persists outcomes.
        hold: holds requests back while the build is paused.
        slots: slots that requests in flight hold.
        frontier: frontier that learns which components have not settled.
        outcomes: books the ends of attempts.
        starts: knows the times and reply subjects of requests.
    """

    def __init__(
        self,
        context: Context,
        resumption: Resumption | None,
        *,
        frontier: Frontier,
        slots: SlotQueue,
        recording: Recording,
        hold: Hold,
        outcomes: Outcomes,
        starts: Starts,
    ) -> None:
        self._plan = context.plan
        self._resumption = resumption
        self._connectors = context.connectors
        self._observer = context.observer
        self._recording = recording
        self._hold = hold
        self._slots = slots
        self._frontier = frontier
        self._outcomes = outcomes
        self._starts = starts
        self._renderer = context.renderer
        self._runs = context.runs
        self._resending = context.resending
        self.listening = trio.Event()
        """Event that is set once the replies to an earlier process's requests are awaited."""

    @property
    def from_log(self) -> bool:
        """Whether the build is resumed from a log, which stays as it is if that fails."""
        return self._resumption is not None

    async def prepare(self) -> None:
        """Register the waits for replies to an earlier process's requests. Idempotent.

        Raises:
            PlanError: the plan cannot be resumed.
        """
        if self.listening.is_set():
            return
        plan, runs, resumption = self._plan, self._runs, self._resumption
        unsettled = plan.phases.unsettled()
        self._frontier.reopen(unsettled)
        now = trio.current_time()
        if resumption is not None:
            for vertex, seconds in resumption.begun.items():
                runs[vertex].first_sent = now - seconds
            for vertex, seconds in resumption.pauses.items():
                runs[vertex].retry_at = now + seconds
            if plan.state.paused:
                self._hold.pause()
        pace = Pace(_RESUMING)
        for vertex in unsettled if plan.phases.in_flight else ():
            if not plan.phases.is_in_flight(vertex):
                continue
            work = plan.requests.work_left
            try:
                with interruptible(plan.build.id):
                    step = plan.resume(vertex)
            except Laborious:
                await self._renderer.render_now(vertex)
                if not plan.phases.is_in_flight(vertex):
                    # An operator has settled it meanwhile.
                    plan.requests.let_go(vertex)
                    continue
                with interruptible(plan.build.id):
                    step = plan.resume(vertex)
            runs[vertex].resumed = step if isinstance(step, Settled) else self._expect(step)
            await pace.turn(work - plan.requests.work_left)
        self.listening.set()

    def close(self) -> None:
        """Await no replies to attempts that no task has looked at. Idempotent."""
        for run in self._runs.values():
            if isinstance(run.resumed, Call):
                run.resumed.close()
                run.resumed = None

    def _expect(self, request: Request) -> Call:
        vertex, resumption, starts = request.vertex, self._resumption, self._starts
        if resumption is None:
            call = self._connectors.expect(starts.in_time(request), starts.token(request))
        else:
            # A request not known to have left has all its time before it.
            passed = 0.0 if self._plan.phases.is_starting(vertex) else resumption.ages[vertex]
            request = starts.in_time(request, passed)
            key = resumption.old.get(vertex)
            old = old_token(key, vertex, request.started.failed) if key else ""
            inherited = Inherited(old, resumption.heard) if old or resumption.heard else None
            call = self._connectors.expect(request, starts.token(request), resumption.after, inherited)
        self._outcomes.expect(call)
        if resumption is not None:
            call.extended = resumption.extended.get(vertex, 0.0)
        return call

    async def take_up(self) -> None:
        """Count what is in flight, and book what was answered meanwhile, before anything new begins."""
        runs, resumption = self._runs, self._resumption
        for run in list(runs.values()):
            if isinstance(run.resumed, Call):
                # It is in flight, whether or not there is a slot for it now.
                request = run.resumed.request
                self._slots.occupy(run, request.subject, size_of(request))
                if resumption is None:
                    # When it left is not known.
                    self._slots.recall(request.subject, trio.current_time())
        if resumption is None:
            return
        now, latest = trio.current_time(), -math.inf
        async for subject, passed in paced(reversed(resumption.starts), every=_RECALLED_AT_ONCE):
            # They are to be counted in the order of their times, and stand nearly so.
            latest = max(latest, now - passed)
            self._slots.recall(subject, latest)
        # Answers that came while no process listened count before anything that this one does; after an error
        # among them nothing new starts.
        await resumption.caught_up.wait()
        for run in list(runs.values()):
            if isinstance(run.resumed, Call) and self._plan.phases.is_starting(run.vertex):
                # It leaves in a moment, if it has not: then it left a moment ago, for all that is known.
                self._slots.recall(run.resumed.request.subject, trio.current_time())
        self._outcomes.book()
        await self._recording.written()
        for run in list(runs.values()):
            if isinstance(run.resumed, Settled):
                settled, run.resumed = run.resumed, None
                await self._outcomes.keep(settled)

    async def resume(self, run: ComponentRun, resumed: Call | Settled) -> None:
        """See one attempt of an earlier process through to its end."""
        if isinstance(resumed, Settled):
            await self._outcomes.keep(resumed)
            return
        vertex = run.vertex
        if self._plan.phases.is_in_flight(vertex):
            # Otherwise an operator has settled it meanwhile.
            self._observer.resumed(vertex, self._plan.attempt(vertex))
        if self._resumption is None:
            self._connectors.arm(resumed)
        elif not self._proceed(vertex, resumed, self._resumption):
            resumed.close()
            return
        run.call = resumed
        self._runs.calls[resumed] = trio.current_time()
        await self._outcomes.of(resumed)

    def _proceed(self, vertex: Vertex, call: Call, resumption: Resumption) -> bool:
        """Decide about a request that an earlier process may have sent, now that its replies are known.

        Returns:
            Whether its end is to be awaited.
        """
        plan, request = self._plan, call.request
        unsent = plan.phases.is_starting(vertex)
        resend = self._resending(request.subject)
        if call.answered:
            if unsent:
                plan.state.depart(vertex)
            return True
        if unsent and plan.state.stopped:
            self._connectors.hand_over(plan.build.id)
            return False
        call.departing = self._starts.departing()
        if unsent and (plan.state.halted or resend is Resend.NEVER):
            plan.state.depart(vertex)
            unknown = _UNKNOWN if resend is Resend.NEVER else UNKNOWN_AND_HALTED
            call.deliver(failure(unknown, retryable=False))
        elif unsent and plan.state.paused:
            # It may have left: then there will be a reply. If not, it leaves when the pause ends.
            plan.state.depart(vertex)
            self._hold.hold_back(call)
        elif unsent:
            plan.sent(vertex)
            self._connectors.arm(call)
            call.publish()
            self._observer.departed(vertex)
        else:
            seconds = self._connectors.seconds(request) + call.extended
            self._connectors.arm(call, max(0.0, seconds - resumption.ages[vertex]))
            if resend is Resend.ALWAYS:
                call.publish()
        return True
