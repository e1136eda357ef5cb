"""Lets requests leave: each after its start was persisted, in the order in which the components began."""

from collections.abc import Callable
from typing import Final

import structlog
import trio
from msgspec.structs import replace

from scheduler.definition.model import Resend
from scheduler.dispatch.call import Call
from scheduler.errors import Hung, Stuck
from scheduler.journal.events import Settled
from scheduler.plan import Phase, Request
from scheduler.runtime.interruptible import interruptible
from scheduler.walk.component import ComponentRun, Start
from scheduler.walk.context import Context
from scheduler.walk.hold import Hold
from scheduler.walk.outcomes import Outcomes
from scheduler.walk.recording import Recording
from scheduler.walk.rendered_ahead import size_of

_log = structlog.get_logger()

_LEAST_TIME: Final = 0.001
"""Shortest time for an attempt, in seconds."""
_LEFT_AT_ONCE: Final = 50
"""Requests that leave before other builds have a turn: a millisecond or two."""


class Starts:
    """Requests of one build on their way out.

    Args:
        context: context of the walk.
        recording: persists the starts.
        hold: halts a build that holds the scheduler up.
        outcomes: books the ends of attempts.
    """

    __slots__ = (
        "_connectors",
        "_hold",
        "_now",
        "_observer",
        "_outcomes",
        "_plan",
        "_recording",
        "_resending",
        "_runs",
        "_slots",
        "_tokens",
        "_unsent",
        "_waiting",
        "command",
    )

    def __init__(self, context: Context, recording: Recording, hold: Hold, outcomes: Outcomes) -> None:
        self._plan = context.plan
        self._connectors = context.connectors
        self._slots = context.slots
        self._observer = context.observer
        self._recording = recording
        self._hold = hold
        self._outcomes = outcomes
        self._unsent = context.unsent
        self._runs = context.runs
        self._tokens = context.tokens
        self._resending = context.resending
        # `trio.current_time` looks up the clock each time.
        self._now = trio.lowlevel.current_clock().current_time
        # A list, although items are taken from its front: mostly it has one or none.
        self._waiting: list[Start] = []
        """Requests whose start is being persisted, in the order in which they began and are to leave."""
        self.command: trio.Event | None = None
        """Event that is set once the last command of an operator is persisted: nothing leaves because of that
        command before."""

    async def begin(self, run: ComponentRun) -> Start | None:
        """Begin a component that has its slots.

        Where the store keeps order, this does not wait: the request leaves in `let_leave`. Otherwise the
        start is persisted here, and the request leaves. In both cases the request begun first leaves first.

        Returns:
            The request, whose attempt is to be seen through; None where the component ended without being
            sent, or may not begin, or there is no room for its request (it is unsent then).

        Raises:
            Laborious: the component has to be rendered beside the loop first.
            Stuck: the plan contradicts itself, which is a bug.
        """
        plan, vertex = self._plan, run.vertex
        rendered = self._unsent.pop(vertex) if self._unsent.sizes else None
        try:
            step = interruptible.call(plan.build.id, plan.begin, vertex, rendered)
        except Hung as hung:
            _log.error("the build failed: it held the scheduler up", build=plan.build.id, why=str(hung))
            self._hold.halt(f"{plan.graph.ids[vertex]}: {hung}")
            return None
        if step is None and not plan.state.held:
            msg = f"{plan.graph.ids[vertex]} is due, nothing holds it up, and it does not begin"
            raise Stuck(msg)
        if step is None:
            return None
        if isinstance(step, Settled):
            await self._outcomes.keep(step)
            return None
        if not run.bytes:
            size = size_of(step)
            if not self._slots.weigh(plan, size):
                plan.unbegin(vertex)
                self._unsent.put(vertex, step)
                return None
            run.bytes = size
        self._observer.begins(vertex)
        number, kept = await self._recording.begin(step.started)
        # The command that made it begin was given to the store before; it may not be persisted yet.
        start = Start(step, number, self.command)
        if kept is None:
            self._waiting.append(start)
        else:
            if self.command is not None:
                await self.command.wait()
            if self._leave(start, kept):
                await self._recording.written()
        return start

    async def let_leave(self, start: Start) -> None:
        """Let a request leave as soon as it may, where that was not decided in `begin`."""
        try:
            if not start.left:
                kept = await self._recording.persisted(start.number)
                if start.command is not None and not start.command.is_set():
                    await start.command.wait()
                await self._let_others_leave(start, kept)
        except BaseException:
            if start.call is not None:
                self._outcomes.put_away(start.call)
            raise

    async def _let_others_leave(self, start: Start, kept: bool) -> None:
        """Let this request leave, and before it those that began earlier: their starts are persisted too.

        Other builds have a turn in between, as one record may let hundreds leave.
        """
        left = 0
        while not start.left:
            if left == _LEFT_AT_ONCE:
                left = 0
                await trio.lowlevel.checkpoint()
                continue
            self._leave(self._waiting.pop(0), kept)
            left += 1

    def _leave(self, start: Start, kept: bool) -> bool:
        """Hand a request to the bus if its start was persisted (``kept``) and the plan still allows it.

        There is no checkpoint between asking the plan and handing the request to the bus.

        Returns:
            Whether ends of attempts were recorded on the way.
        """
        plan, outcomes, request = self._plan, self._outcomes, start.request
        vertex = request.vertex
        start.left = True
        recorded = False
        if outcomes.arrived:
            # An error counts, although no task has looked at that answer yet.
            outcomes.book()
            recorded = True
        if plan.phases[vertex] is not Phase.STARTING:
            # An operator has settled it meanwhile.
            return recorded
        run = self._runs[vertex]
        if run.early is not None:
            plan.state.depart(vertex)
            (earlier, outcome), run.early = run.early, None
            outcomes.end_attempt(earlier, outcome, plan.attempt(vertex))
            return True
        if not kept:
            plan.withdraw(vertex)
            return recorded
        if plan.state.held:
            outcomes.take_back(vertex)
            return True
        plan.sent(vertex)
        if request.retry.attempts > 1:
            request = self.in_time(request)
        call = self._connectors.send(request, self.token(request), self.departing())
        outcomes.expect(call)
        start.call = run.call = call
        self._runs.calls[call] = self._now()
        self._observer.sent(vertex, request.started.failed + 1)
        return recorded

    def in_time(self, request: Request, passed: float = 0.0) -> Request:
        """Return a request whose time is bounded by what is left for all attempts of its component.

        Args:
            request: request of the next attempt, or of one that an earlier process began.
            passed: seconds of its own time that have passed.
        """
        if request.retry.attempts == 1:
            return request
        run, now = self._runs[request.vertex], trio.current_time()
        if run.first_sent is None:
            run.first_sent = now
        if request.retry.total is None:
            return request
        left = passed + max(_LEAST_TIME, run.first_sent + request.retry.total - now)
        return replace(request, timeout=min(left, self._connectors.seconds(request)))

    @property
    def wait_for_the_store(self) -> bool:
        """Whether `begin` may wait for the store, start by start."""
        return self._recording.begin_waits

    def token(self, request: Request) -> str:
        """Return the last part of its reply subject; empty where only this process is to know it."""
        # One for each attempt, as a late reply to one must not be taken for a reply to the next.
        return "" if self._tokens is None else self._tokens.of(request.attempt)

    def departing(self) -> Callable[[Call], None] | None:
        """Return the callback for when a request is handed to the bus; None where there is none."""
        # Made for each request: a walk that refers to itself would outlive its build until a full collection.
        return self._recording.record_sent if self._recording.in_order else None

    def leave_overdue(self) -> None:
        """Leave to the next process, as this one stops, what was about to be sent again and is overdue.

        Nobody may ever have had it: it is not to fail for that, and could not leave any more.
        """
        if self._recording.resumable:
            again = [call for call in self._runs.calls if call.is_queued and call.maybe_out]
            for call in [call for call in again if call.expired]:
                self._connectors.hand_over(self._plan.build.id)
                call.abandon()

    def send_again(self) -> None:
        """Send requests again that may have been lost with a connection, where the settings say so.

        A request known to have reached the broker is sent again only where they say ``always``. A process
        that stops, or gives the build away, sends nothing: it leaves them to the next one, rather than wait
        in vain.
        """
        again = []
        state = self._plan.state
        for call in [call for call in self._runs.calls if call.lost]:
            resend = self._resending(call.request.subject)
            unsure = resend is Resend.UNSENT and not call.reached
            if state.stopped:
                if self._recording.resumable and (unsure or resend is Resend.ALWAYS):
                    self._connectors.hand_over(self._plan.build.id)
                    call.abandon()
            elif resend is Resend.ALWAYS or (unsure and not state.halted):
                again.append(call.request.component)
                if call.expired:
                    self._connectors.arm(call)
                # Also in a pause: a connector may have had it, so it is in flight. Where nobody is there yet,
                # it is repeated.
                call.wanted = call.wanted or not state.halted
                call.publish()
        if again:
            _log.info("requests sent again", build=self._plan.build.id, requests=len(again), first=again[0])
