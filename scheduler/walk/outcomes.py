"""Books the ends of attempts: in the order in which they became known, each once, late ones included."""

import random

import structlog
import trio

from scheduler.definition.graph import Vertex
from scheduler.dispatch.call import Call, Signal
from scheduler.journal.events import Retrying, Settled
from scheduler.plan import Phase, Request, late_replies
from scheduler.plan.outcome import Outcome
from scheduler.runtime.interruptible import interruptible
from scheduler.runtime.log_limits import RateLimitedLog
from scheduler.walk.context import Context
from scheduler.walk.hold import Hold
from scheduler.walk.lineup import Lineup
from scheduler.walk.recording import Recording

_log = structlog.get_logger()

_MOST_LINES = 50
"""Log lines of one kind, for one build, at a time: a build may have thousands of components that fail."""
_TRIED_AGAIN = "component is tried again"
_FAILED = "component failed"
_MOST_GIVEN_UP = 1_000
_GIVEN_UP_OF_EACH = 2
"""Timed-out attempts kept for a late success: `_MOST_GIVEN_UP`, and this many more for each component."""


class Outcomes:
    """Books the ends of one build's attempts.

    Args:
        context: context of the walk.
        recording: persists them.
        hold: halts the build after an error.
        lineup: enters the components that an outcome makes due.
    """

    __slots__ = (
        "_hold",
        "_lineup",
        "_log",
        "_most_given_up",
        "_observer",
        "_plan",
        "_recording",
        "_runs",
        "arrived",
        "given_up",
    )

    def __init__(self, context: Context, recording: Recording, hold: Hold, lineup: Lineup) -> None:
        self._plan = context.plan
        self._observer = context.observer
        self._recording = recording
        self._hold = hold
        self._lineup = lineup
        self._runs = context.runs
        self._log = RateLimitedLog(_log, burst=_MOST_LINES)
        # Lists, although items are taken from their front: they are no longer than the number in flight,
        # mostly one or none, and a deque takes ten times the memory for that.
        self.arrived: list[Call] = []
        """Attempts whose end is known and not booked yet, in the order in which it became known."""
        self.given_up: list[Call] = []
        """Attempts whose late success would count, the oldest first."""
        self._most_given_up = _MOST_GIVEN_UP + _GIVEN_UP_OF_EACH * len(context.plan.graph.ids)

    def expect(self, call: Call) -> None:
        """Put a call into `arrived` as soon as its end is known."""
        call.tell(self.arrived, self._plan.requests.look_through)

    async def of(self, call: Call) -> None:
        """Await the end of an attempt that is in flight, book it, and persist it where that is awaited."""
        try:
            if not call.closed:
                # Otherwise another task has booked and closed it already.
                await call.outcome()
                self.book()
            if self._recording.ends:
                await self._recording.written()
        finally:
            if not call.closed:
                self.put_away(call)

    def book(self) -> None:
        """Book all attempts that have ended, in the order in which that became known."""
        plan = self._plan
        self._lineup.entered = 0
        while self.arrived:
            call = self.arrived.pop(0)
            vertex, answer = call.request.vertex, call.answer
            run = self._runs.get(vertex)
            if run is not None and run.resumed is call:
                # The answer came before its task looked at the call.
                run.resumed = None
                if plan.phases.is_in_flight(vertex):
                    # Otherwise an operator has settled it meanwhile.
                    self._observer.resumed(vertex, plan.attempt(vertex))
                if isinstance(answer, Outcome) and plan.phases.is_starting(vertex):
                    plan.state.depart(vertex)
            # Where no reply came, one may still come: a late success is worth keeping.
            late = isinstance(answer, Outcome) and not answer.completed and answer.body is None
            self.put_away(call, late=late)
            if answer is Signal.LEFT or plan.phases[vertex] is not Phase.RUNNING:
                continue
            if isinstance(answer, Outcome):
                self.end_attempt(call.request, answer, call.request.started.failed + 1)
            else:
                self.take_back(vertex)

    def take_back(self, vertex: Vertex) -> None:
        """Book that a request which had begun did not leave: its component waits again."""
        plan, run = self._plan, self._runs[vertex]
        withdrawn = plan.withdraw(vertex)
        if not plan.state.attempts.is_between(vertex):
            # Nothing of it was ever sent, so the time of its attempts has not begun.
            run.first_sent = None
        elif plan.state.paused:
            self._hold.stop_time([run])
        self._observer.waits(vertex)
        self._recording.record(vertex, withdrawn)

    def put_away(self, call: Call, *, late: bool = False) -> None:
        """Stop awaiting an attempt; with ``late``, later replies are still taken. Idempotent."""
        if call.closed:
            return
        self._runs.calls.pop(call, None)
        run = self._runs.get(call.request.vertex)
        if run is not None and run.call is call:
            run.call = None
        call.close(self._adopt if late else None)
        if late:
            call.forget_the_request()
            self.given_up.append(call)
            if len(self.given_up) > self._most_given_up:
                self.given_up.pop(0).close()

    def end_attempt(self, request: Request, outcome: Outcome, number: int) -> None:
        """Book the end of an attempt; the plan decides whether there is another one.

        Args:
            request: request that was answered.
            outcome: the answer.
            number: number of the attempt that ends by that: it may be a later one.
        """
        vertex, plan = request.vertex, self._plan
        run = self._runs[vertex]
        elapsed = 0.0 if run.first_sent is None else trio.current_time() - run.first_sent
        luck = random.random()  # noqa: S311
        if outcome.body is not None:
            self._observer.answered(vertex)
        step = interruptible.call(plan.build.id, plan.settle, request, outcome, luck, elapsed)
        if isinstance(step, Settled):
            self.tell(vertex, step, number)
        else:
            run.retry_at = trio.current_time() + step.pause
            if plan.state.paused:
                self._hold.stop_time([run])
            self._tell_of_retry(vertex, step)
        self._recording.record(vertex, step)

    async def keep(self, settled: Settled) -> None:
        """Book and persist an outcome that comes from no attempt; an error halts the build first."""
        vertex = self._plan.graph.index[settled.component]
        self.tell(vertex, settled, self._plan.attempt(vertex))
        self._recording.record(vertex, settled)
        await self._recording.written()

    def tell(self, vertex: Vertex, settled: Settled, attempt: int) -> None:
        """Tell the observer of an outcome; after an error, log it and withdraw what has not left."""
        error = settled.body.get("error") if settled.body["_state"] == "errored" else None
        self._observer.settled(vertex, attempt, error)
        if error is not None:
            if not self._log.leaves_out(_FAILED):
                shown = self._plan.texts.masked(error, 1_000)
                self._log.warning(
                    _FAILED, build=self._plan.build.id, component=settled.component, error=shown
                )
            self._hold.withdraw_unsent()
            if skips := self._plan.state.take_skips():
                self._observer.skipped(skips)

    def _tell_of_retry(self, vertex: Vertex, step: Retrying) -> None:
        attempt = self._plan.attempt(vertex)
        self._observer.retries(vertex, attempt, step.error, step.pause)
        if not self._log.leaves_out(_TRIED_AGAIN):
            self._log.info(
                _TRIED_AGAIN,
                build=self._plan.build.id,
                component=step.component,
                attempt=attempt + 1,
                pause=round(step.pause, 3),
                error=self._plan.texts.masked(step.error, 1_000),
            )

    def _adopt(self, request: Request, outcome: Outcome) -> None:
        """Take a reply to an attempt that had been given up."""
        vertex, plan = request.vertex, self._plan
        call = self._runs.call_of(vertex)
        if not outcome.completed:
            # The attempt counts as failed already.
            return
        if call is not None:
            # Another attempt is in flight, but the first one has made the component, and that counts.
            call.deliver(outcome)
        elif plan.phases.is_starting(vertex):
            self._runs[vertex].early = request, outcome
        elif (settled := late_replies.rescue(plan, request, outcome)) is not None:
            self._log.info("late success taken", build=plan.build.id, component=request.component)
            self._runs[vertex].rescued = settled
            self._lineup.stir(vertex)
        elif late_replies.adopt(plan, request, outcome):
            self._log.info("late success kept", build=plan.build.id, component=request.component)
            if self._recording.in_order:
                self._recording.record_soon(*late_replies.take_adopted(plan))

    def close_given_up(self) -> None:
        """Stop taking late replies: it is too late for them now. Idempotent."""
        for call in self.given_up:
            call.close()
