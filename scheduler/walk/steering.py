"""Carries out the commands of operators on a build that runs: its plan decides, the journal persists.

A command takes effect as soon as it is decided, without a checkpoint, so that nothing else happens in
between. It is acknowledged when it is persisted. Until then nothing leaves because of it.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import structlog
import trio

from scheduler.definition.graph import Vertex
from scheduler.definition.template import Laborious
from scheduler.dispatch.call import Call
from scheduler.errors import InvalidRule, Refused
from scheduler.journal.events import Event, Extended, Settled, Supplied
from scheduler.journal.orders import ORDER_CARRIED_OUT, Order
from scheduler.plan import Phase, gates, steering
from scheduler.plan.outcome import failure
from scheduler.text import count
from scheduler.walk.context import Context
from scheduler.walk.gates import Gates
from scheduler.walk.hold import Hold
from scheduler.walk.lineup import Lineup
from scheduler.walk.outcomes import Outcomes
from scheduler.walk.recording import Recording
from scheduler.walk.starts import Starts

_log = structlog.get_logger()

_T = TypeVar("_T")

_MOST_SECONDS = 30 * 86_400.0


class Steering:
    """Commands of operators for one build that runs.

    Each of them raises `Refused` where the build does not allow it, or where it could not be persisted; the
    latter halts the build. Each is given the operator's order, which is kept and logged once it is carried
    out; None where no operator gave one.

    Args:
        context: context of the walk.
        recording: persists the commands.
        hold: pauses and halts the build.
        lineup: line-up of the components that are to begin.
        starts: lets nothing leave because of a command until that is persisted.
        outcomes: books the decision about a gate.
        gates: waits for people.
    """

    def __init__(
        self,
        context: Context,
        recording: Recording,
        hold: Hold,
        lineup: Lineup,
        starts: Starts,
        *,
        outcomes: Outcomes,
        gates: Gates,
    ) -> None:
        self._plan = context.plan
        self._connectors = context.connectors
        self._slots = context.slots
        self._observer = context.observer
        self._recording = recording
        self._hold = hold
        self._lineup = lineup
        self._starts = starts
        self._outcomes = outcomes
        self._gates = gates
        self._renderer = context.renderer
        self._runs = context.runs
        self._tasks = context.tasks

    def check(self) -> None:
        """Check that the walk is under way.

        Raises:
            Refused: the walk has not begun yet, or has ended.
        """
        if not self._tasks.under_way or self._recording.fenced:
            raise Refused("unavailable", f"{self._plan.build.id} is starting or finishing; try again shortly")

    async def cancel(self, *, now: bool, reason: str, order: Order | None = None) -> str:
        """Send nothing more; with ``now``, await nothing either. Returns a sentence for a person."""
        plan = self._plan
        order = self._recorded(order)
        events: list[Event] = []
        if not (now and plan.state.cancelled):
            events = steering.cancel(plan, reason)
        if events or order is not None:
            self._observer.happened("cancelled", None, order)
        in_flight = plan.phases.in_flight
        self._hold.withdraw_unsent()
        if now:
            why = "given up by an operator, who cancelled the build"
            if reason and not events:
                # The cause of the build is the reason of its first cancel.
                why = f"{why}: {plan.texts.masked(reason)}"
            self._give_up_on_replies(why)
        await self._persist(*events, order=order)
        if not in_flight:
            return "cancelled: nothing was in flight"
        if now:
            return f"cancelled: gave up on {count(in_flight, 'component')} in flight, their outcome unknown"
        return f"cancelled: {count(in_flight, 'component')} in flight will be awaited"

    async def pause(self, order: Order | None = None) -> str:
        """Send nothing new for now. Returns a sentence for a person."""
        order = self._recorded(order)
        events = steering.pause(self._plan, on=True)
        # What has begun and is only about to leave will not.
        in_flight = self._plan.phases.counts[Phase.RUNNING] - self._hold.pause()
        self._observer.happened("paused", None, order)
        await self._persist(*events, order=order)
        return f"paused: nothing new is sent; {count(in_flight, 'component')} in flight"

    async def resume(self, order: Order | None = None) -> str:
        """Send what is due again, after a pause. Returns a sentence for a person."""
        order = self._recorded(order)
        events = steering.pause(self._plan, on=False)
        self._observer.happened("resumed", None, order)
        try:
            await self._persist(*events, order=order)
        finally:
            # Requests that may have left before a restart go out at once, so the log has to say so first.
            self._hold.unpause()
        return "resumed"

    async def retry(
        self, vertex: Vertex | None, *, behind: bool = False, order: Order | None = None
    ) -> tuple[str, int]:
        """Send failed components again; returns a sentence for a person, and their number."""
        order = self._recorded(order)
        before = self._settled()
        events, text, components = steering.retry_told(self._plan, vertex, behind=behind)
        self._observer.happened("retried", vertex, order)
        await self._carry_out(events, before, order)
        return text, components

    async def retry_now(self, vertex: Vertex, *, reason: str, order: Order | None = None) -> tuple[str, int]:
        """Give up on the attempt of a component, and send another one; returns a sentence, and 1.

        A late success of the attempt that was given up counts as ever. A component that waits for its next
        attempt is sent without waiting; of one that has failed this is a `retry`.
        """
        plan = self._plan
        # What has ended by now comes first, in the log as well.
        self._outcomes.book()
        if plan.phases[vertex] is Phase.ERRORED:
            return await self.retry(vertex, order=order)
        name, in_flight = plan.graph.ids[vertex], plan.phases[vertex] is Phase.RUNNING
        call = self._runs.call_of(vertex)
        if in_flight and (call is None or call.answered):
            raise Refused("conflict", f"{name} has just been answered: see what came of it")
        if call is not None and call.is_queued:
            raise Refused("conflict", f"{name} was not sent yet: it waits for the connection to the broker")
        order = self._recorded(order)
        attempt, before = plan.attempt(vertex), self._settled()
        why = "outcome unknown: given up by an operator, who had it sent again"
        if reason:
            why = f"{why}: {plan.texts.masked(reason)}"
        events = steering.retry_now(plan, vertex, why)
        self._observer.settled(vertex, attempt, why)
        self._observer.happened("retried", vertex, order)
        if call is not None:
            # In the place of a reply, so that a late success is still taken.
            resumed = self._runs[vertex].resumed is call
            call.deliver(failure(why, retryable=False))
            self._connectors.give_up(call, why)
            # At once: a reply that comes before its task runs would be taken for a second one.
            self._outcomes.book()
            if resumed:
                # Its task has not looked at it, and takes a slot for the next attempt.
                self._lineup.land(vertex)
        self._start_over(sorted(v for v in {*before, vertex} if plan.phases[v] is Phase.WAITING))
        self._observer.due(vertex)
        for wait in self._runs[vertex].waits:
            wait.cancel()
        self._lineup.respawn()
        await self._persist(*events, order=order)
        done = f"gave up on attempt {attempt} of {name}" if in_flight else f"{name} does not wait any longer"
        when = "when the build is resumed" if plan.state.paused else "now"
        return f"{done}; it is sent again {when}", 1

    async def supply(self, vertex: Vertex, output: Mapping[str, Any], order: Order | None = None) -> str:
        """Complete a component with this output, without sending it (again); returns a sentence."""
        order = self._recorded(order)

        def decide() -> tuple[set[Vertex], list[Event]]:
            return self._settled(), steering.supply(self._plan, vertex, output)

        before, events = await self._rendered(vertex, decide)
        self._observer.happened("skipped", vertex, order)
        await self._carry_out(events, before, order)
        return steering.supplied(self._plan, vertex)

    async def approve(self, vertex: Vertex, order: Order) -> str:
        """Complete a gate, so that what depends on it begins. Returns a sentence for a person."""
        order = steering.recorded(self._plan, order)

        def decide() -> Settled:
            self._gates.check(vertex)
            return gates.approve(self._plan, vertex, order)

        await self._decide(vertex, "approved", await self._rendered(vertex, decide), order)
        return f"{self._plan.graph.ids[vertex]} is approved"

    async def reject(self, vertex: Vertex, order: Order) -> str:
        """Fail a gate. Returns a sentence for a person."""
        order = steering.recorded(self._plan, order)
        self._gates.check(vertex)
        await self._decide(vertex, "rejected", gates.reject(self._plan, vertex, order), order)
        return f"{self._plan.graph.ids[vertex]} is rejected"

    async def _decide(self, vertex: Vertex, what: str, settled: Settled, order: Order) -> None:
        """Carry out the decision about a gate, which its plan has applied."""
        self._gates.decided(vertex)
        self._observer.happened(what, vertex, order)
        self._outcomes.tell(vertex, settled, self._plan.attempt(vertex))
        self._lineup.stir(vertex)
        await self._persist(settled, order=order)

    async def _rendered(self, vertex: Vertex, decide: Callable[[], _T]) -> _T:
        """Decide about a component; where it has to be rendered beside the loop for that, do so first."""
        try:
            return decide()
        except Laborious:
            await self._renderer.render_now(vertex)
        try:
            self.check()
            return decide()
        finally:
            self._plan.requests.let_go(vertex)

    async def extend(self, vertex: Vertex, seconds: float, order: Order | None = None) -> str:
        """Give an attempt in flight, or a gate, more time, in seconds. Returns a sentence for a person."""
        name = self._plan.graph.ids[vertex]
        if not 0 < seconds <= _MOST_SECONDS:
            raise Refused("invalid", f"seconds: above 0 and at most {_MOST_SECONDS:.0f}")
        if vertex in self._plan.gates:
            self._gates.extend(vertex, seconds)
        else:
            self._extend_attempt(vertex, seconds)
        order = self._recorded(order)
        self._observer.happened("extended", vertex, order)
        await self._persist(Extended(name, seconds), order=order)
        return f"{name} has {seconds:g} s more"

    def _extend_attempt(self, vertex: Vertex, seconds: float) -> None:
        name, call = self._plan.graph.ids[vertex], self._runs.call_of(vertex)
        if call is None:
            phase = self._plan.phases[vertex].value
            raise Refused("conflict", f"{name} is {phase}: only what is in flight can be given more time")
        if call.answered:
            # The log has no place for it behind the outcome.
            raise Refused("conflict", f"{name} has just been answered: it needs no more time")
        self._connectors.extend(call, seconds)

    async def limit(self, limits: Mapping[str, int | str], order: Order | None = None) -> str:
        """Give the build other limits of its own. Returns a sentence for a person."""
        try:
            events = steering.limit(self._plan, limits)
        except InvalidRule as error:
            raise Refused("invalid", f"limits: {error}") from None
        self._slots.change(self._plan, self._plan.state.rules)
        order = self._recorded(order)
        self._observer.happened("limited", None, order)
        await self._persist(*events, order=order)
        return f"limits: {', '.join(map(str, self._plan.state.rules)) or 'none'}"

    def _recorded(self, order: Order | None) -> Order | None:
        return None if order is None else steering.recorded(self._plan, order)

    async def _persist(self, *events: Event, order: Order | None) -> None:
        command = self._starts.command = trio.Event()
        try:
            kept = await self._recording.commit(*events, order=order)
        finally:
            command.set()
        if not kept:
            if order is not None:
                self._observer.unkept(order)
            raise Refused("unavailable", f"it could not be persisted: {self._plan.texts.cause}")
        if order is not None:
            _log.info(ORDER_CARRIED_OUT, build=self._plan.build.id, **order.document())

    def _settled(self) -> set[Vertex]:
        return set(self._plan.phases.within(Phase.ERRORED, Phase.SKIPPED))

    async def _carry_out(self, events: list[Event], before: set[Vertex], order: Order | None) -> None:
        """Carry out what was decided about components; those ``before`` had settled until now."""
        plan = self._plan
        self._start_over(sorted(v for v in before if plan.phases[v] is Phase.WAITING))
        for event in events:
            if isinstance(event, Settled):
                self._end(plan.graph.index[event.component])
            elif isinstance(event, Supplied):
                self._lineup.stir(plan.graph.index[event.component])
        self._lineup.respawn()
        await self._persist(*events, order=order)

    def _start_over(self, vertices: Iterable[Vertex]) -> None:
        """Let components that had failed or been skipped wait again."""
        for vertex in vertices:
            run = self._runs.get(vertex)
            if run is not None:
                # Neither a pause between attempts nor the time of the attempts so far counts now.
                run.start_over()
            self._observer.waits(vertex)

    def _end(self, vertex: Vertex) -> None:
        """End a component that an operator has settled."""
        self._observer.settled(vertex, self._plan.attempt(vertex), None)
        self._lineup.stir(vertex)
        run = self._runs.get(vertex)
        if run is None or not run.due:
            self._lineup.land(vertex)

    def _give_up_on_replies(self, why: str) -> None:
        """Stop waiting for replies: what is in flight fails, its outcome unknown."""
        resumed = [run.resumed for run in list(self._runs.values()) if isinstance(run.resumed, Call)]
        for call in [*self._runs.calls, *resumed]:
            if call.deliver(failure(f"outcome unknown: {why}", retryable=False)):
                self._connectors.give_up(call, why)
