"""The plan of one build: decides what may start, what a reply changes, and how the build ends.

Each decision is an event. It is applied to the state at once (`PlanState.apply`), and returned to be
persisted; `Plan.replay` applies the same events from the log of an earlier process.

One class on purpose: all decisions about a build that follow from its own course stand together, and are read
in the order in which they happen to a change. What they change is in `state`, commands of operators are in
`steering`.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from scheduler.definition.graph import Vertex
from scheduler.definition.limits import DEFAULT_LIMITS, Limits
from scheduler.definition.model import Action, State
from scheduler.definition.rules import Retries
from scheduler.definition.strictjson import Raw
from scheduler.definition.template import Laborious
from scheduler.definition.validation import Prepared
from scheduler.errors import IllegalTransition, Stuck, TemplateError
from scheduler.journal.events import (
    Accepted,
    Event,
    Finished,
    Retrying,
    Settled,
    Started,
    Supplied,
    Withdrawn,
)
from scheduler.plan.outcome import Outcome, cut
from scheduler.plan.phases import IN_FLIGHT, Phase
from scheduler.plan.report import Report
from scheduler.plan.request import Request
from scheduler.plan.requests import Requests
from scheduler.plan.state import PlanState
from scheduler.runtime.yielding import yield_now

_MOST_SHOWN = 4_000
"""Characters of a build's error that people see; the report has the whole error."""


class Plan:
    """Decides for one build, from its acceptance to its report.

    Args:
        prepared: the build.
        resumed: whether an earlier process began it. A change in state ``running`` is then in flight and
            awaited, and one in state ``errored`` has failed. Otherwise both are to be done.
        limits: bounds on texts that come in on the way.
        retries: the operator's rules, used where neither the component nor the build has one.
        mark: mark of the build's acceptance, drawn once; empty where the store keeps none.
    """

    __slots__ = (
        "__weakref__",
        "_ledger",
        "_limits",
        "_secrets",
        "_shown_cause",
        "build",
        "digest",
        "graph",
        "mark",
        "phases",
        "prepared",
        "priorities",
        "requests",
        "state",
    )

    def __init__(
        self,
        prepared: Prepared,
        *,
        resumed: bool = False,
        limits: Limits = DEFAULT_LIMITS,
        retries: Retries = (),
        mark: str = "",
    ) -> None:
        self.prepared = prepared
        """The validated build."""
        self.build = prepared.build
        self.graph = prepared.graph
        self.digest = prepared.digest.hex()
        """Digest of the build's content, in hexadecimal."""
        self.mark = mark
        """Mark of the build's acceptance; empty where there is none."""
        self.priorities: Sequence[float] = ()
        """Priority by vertex; the highest belongs to what the rest of the build waits for most."""
        self.state = PlanState(prepared.build, prepared.graph, prepared.policy, limits)
        """State of the build."""
        self.phases = self.state.phases
        """Phase of each change."""
        self.requests = Requests(prepared, self.state, retries, mark)
        self._ledger = self.state.ledger
        self._limits = limits
        self._secrets = prepared.secrets
        self._shown_cause: tuple[str, object, str] | None = None
        """The cause, the state of known secrets, and the cause with secrets masked."""
        if resumed:
            self.state.take_over()

    def replay(self, event: Event) -> None:
        """Apply an event from the log of an earlier process; to be done in order, before anything else.

        Raises:
            IllegalTransition: the event cannot have happened.
        """
        index = self.graph.index
        match event:
            case Settled(component=component, body=body):
                self._secrets.add(body)
                if body["_state"] == State.COMPLETED:
                    # The effect on the components follows from the body.
                    event = self._ledger.completion(index[component], body)
            case Supplied(component=component, output=output):
                self.requests.learn_output(index[component], output)
            case _:
                pass
        self.state.apply(event)
        self.state.skips.clear()
        if isinstance(event, Started):
            self.requests.learn_request(index[event.component])

    # State.

    @property
    def over(self) -> bool:
        """Whether the run has come to its end: nothing is in flight, and nothing is left to be done."""
        counts = self.phases.counts
        if self.phases.in_flight or counts[Phase.RETRYING]:
            return False
        return self.state.draining or not counts[Phase.WAITING]

    @property
    def accepted(self) -> Accepted:
        """First event of the build."""
        return Accepted({**self.build.fields, **self.report().lists()}, self.digest, mark=self.mark)

    def is_due(self, vertex: Vertex) -> bool:
        """Whether a change whose dependencies are settled is to be tried as soon as nothing prevents it."""
        return not self.state.halted and self.phases[vertex] in {Phase.WAITING, Phase.RETRYING}

    def is_to_be_given_up(self, vertex: Vertex) -> bool:
        """Whether a change waits for another attempt that will not come."""
        return self.state.draining and self.phases[vertex] is Phase.RETRYING

    def is_instant(self, vertex: Vertex) -> bool:
        """Whether a change completes without being sent."""
        return self.build.changes[vertex].action is Action.NONE or vertex in self.state.outputs

    def attempt(self, vertex: Vertex) -> int:
        """Return the number of the attempt that is in flight, or was the last one; 1 before the first."""
        failed = self.state.attempts.failed(vertex)
        return max(1, failed if self.phases[vertex] in {Phase.RETRYING, Phase.ERRORED} else failed + 1)

    def error(self, vertex: Vertex) -> str | None:
        """Return the error of a change or its last attempt; None without one. For people: `masked`."""
        if self.phases[vertex] is Phase.RETRYING:
            return self.state.last_errors[vertex]
        return self._ledger.error(vertex) if self.phases[vertex] is Phase.ERRORED else None

    def skips(self) -> list[Vertex]:
        """Take the changes that were skipped because of a failure before them, since the last call."""
        skips, self.state.skips = self.state.skips, []
        return skips

    def masked(self, text: str, most: int = 0) -> str:
        """Return a text with secrets masked, and cut to ``most`` characters if that is not 0.

        Masking a few thousand characters takes some milliseconds; a whole long text takes 25.
        """
        return self._secrets.mask(text, most)

    @property
    def secrets_known(self) -> Hashable:
        """State of what `masked` knows; once it has changed, a text may be masked differently."""
        return self._secrets.known

    @property
    def shown_cause(self) -> str | None:
        """The `cause` with secrets masked, for people; only the beginning of a long one."""
        cause = self.state.cause
        if cause is None:
            return None
        known = self.secrets_known
        if self._shown_cause is None or self._shown_cause[:2] != (cause, known):
            # It may be long, and every watcher asks for it every two seconds.
            self._shown_cause = cause, known, self.masked(cause, _MOST_SHOWN)
        return self._shown_cause[2]

    def report(self) -> Report:
        """Return the report as things stand; it is complete once `finish` has returned."""
        return Report(
            self.build.action,
            self.state.cause,
            self.build.fields,
            list(self._ledger.existing.values()),
            [self._shown(vertex) for vertex in range(len(self.phases))],
            self.build.edges,
            {state: count for state, count in self.phases.shown().items() if count},
            self.state.run,
            self.mark,
            self.build.absent,
            cancelled=self.state.cancelled,
        )

    def parts(self) -> list[object]:
        """Return large parts, for a caller that frees them piece by piece."""
        ledger, build = self._ledger, self.build
        parts: list[object] = [*build.components, *build.edges, *build.changes, *self.prepared.templates]
        return [*parts, *ledger.existing.values(), *ledger.final.values()]

    # Decisions for a change.

    def begin(self, vertex: Vertex, made: Request | None = None) -> Request | Settled | None:
        """Decide whether a change whose dependencies are settled may start, and with which request.

        Args:
            vertex: the change.
            made: the request of an earlier `begin` that was undone by `unbegin`.

        Returns:
            None while the plan is held. The outcome, where there is one without a request (action ``none``,
            an output supplied by an operator, or a reference that cannot be resolved). Otherwise the request:
            persist its ``started``, then call `sent` or `withdraw`.

        Raises:
            IllegalTransition: the change has begun already, or a dependency is not completed.
            Laborious: rendering it takes long (`Requests.rendering`); nothing was changed.
        """
        state = self.state
        if state.held:
            return None
        change = self.build.changes[vertex]
        phases = self.phases
        for dependency in self.graph.dependencies[vertex]:
            if phases[dependency] is not Phase.COMPLETED:
                msg = f"{change.id} cannot begin before {self.graph.ids[dependency]} is completed"
                raise IllegalTransition(msg)
        if vertex in state.outputs:
            return self.complete_with(vertex, state.outputs[vertex])
        if change.action is Action.NONE:
            return self._applied(self._ledger.completion(vertex, {**change.fields, "_state": "completed"}))
        # All that it is rendered from is completed, and does not change any more.
        request = made
        if request is None or request.started.failed != state.attempts.failed(vertex):
            try:
                request = self.requests.make(vertex)
            except Laborious:
                raise
            except TemplateError as error:
                self.requests.let_go(vertex)
                text = str(error).removeprefix(f"{change.id}.")
                return self._fail(vertex, text)
        self.requests.take(vertex)
        state.apply(request.started)
        return request

    def unbegin(self, vertex: Vertex) -> None:
        """Undo a start for which there is no room: the change waits as before.

        Nothing of the start may have been persisted. The work of its rendering is not charged again.

        Raises:
            IllegalTransition: the change is not about to be sent.
        """
        self.state.take_back(vertex)
        self.requests.put_back(vertex)

    def sent(self, vertex: Vertex) -> None:
        """Mark a request as sent. Nothing may happen between this call and handing it to the bus.

        Raises:
            IllegalTransition: the change did not begin, or the plan is held.
        """
        if self.state.held:
            why = self.shown_cause or ("the scheduler is to stop" if self.state.stopped else "it is paused")
            msg = f"{self.graph.ids[vertex]} must not be sent: the build is halted ({why})"
            raise IllegalTransition(msg)
        if self.phases[vertex] is Phase.RUNNING:
            raise IllegalTransition(f"{self.graph.ids[vertex]} was sent already")
        self.state.depart(vertex)

    def departed(self, vertex: Vertex) -> None:
        """Mark a change in flight, whose request has left or may have left.

        Raises:
            IllegalTransition: the change is neither about to be sent nor sent.
        """
        self.state.depart(vertex)

    def withdraw(self, vertex: Vertex) -> Withdrawn:
        """Set a change back to waiting, whose request has not left and never will.

        Raises:
            IllegalTransition: the change is not in flight.
        """
        change = self.build.changes[vertex]
        withdrawn = Withdrawn(change.id, change.raw, self.state.attempts.failed(vertex))
        self.state.apply(withdrawn)
        return withdrawn

    def resume(self, vertex: Vertex) -> Request | Settled:
        """Make the request of a change again that an earlier process began to send.

        Returns:
            The request as it must have been; or the outcome, where the request cannot be told any more.

        Raises:
            IllegalTransition: the change is not in flight.
            Laborious: rendering it takes long (`Requests.rendering`); nothing was changed.
        """
        if self.phases[vertex] not in IN_FLIGHT:
            msg = f"{self.graph.ids[vertex]} is {self.phases[vertex].name}, and was not sent"
            raise IllegalTransition(msg)
        try:
            request = self.requests.make(vertex)
        except Laborious:
            raise
        except TemplateError as error:
            self.requests.let_go(vertex)
            return self._fail(vertex, f"sent before a restart, and its request cannot be made again: {error}")
        self.requests.let_go(vertex)
        return request

    def settle(
        self, request: Request, outcome: Outcome, *, luck: float = 1.0, elapsed: float = 0.0
    ) -> Settled | Retrying:
        """Decide what follows the end of an attempt (WIRE: "What a completion changes").

        An error may halt the build.

        Args:
            request: request of the attempt.
            outcome: its end.
            luck: random number from 0 to 1: share of the longest pause that passes before another attempt.
            elapsed: seconds since the first attempt.

        Returns:
            The outcome of the change; or the event of another attempt.

        Raises:
            IllegalTransition: the change is not in flight.
        """
        vertex = request.vertex
        phase = self.phases[vertex]
        if phase is not Phase.RUNNING:
            raise IllegalTransition(f"{self.graph.ids[vertex]} is {phase.name}, and was not sent")
        change = self.build.changes[vertex]
        outcome, kept = self.requests.look_at(request, outcome)
        if outcome.completed:
            kept = kept or self.requests.identified(request, change.fields, State.COMPLETED)
            return self._applied(self._ledger.completion(vertex, kept))
        attempts = self.state.attempts
        again = attempts.again(vertex, request.retry, outcome, luck, elapsed)
        error = self.cut(outcome.error or "failed")
        if isinstance(again, str):
            return self._fail(vertex, error + again, request, outcome.body)
        if self.state.draining:
            error += " (not tried again: the build was halted)"
            return self._fail(vertex, error, request, outcome.body)
        failed = attempts.failed(vertex) + 1
        retrying = Retrying(change.id, request.attempt, error, again.pause, change.raw, failed)
        self.state.apply(retrying)
        return retrying

    def give_up_retrying(self, vertex: Vertex) -> Settled:
        """Fail a change that waits for another attempt: the build was halted, so there will be none.

        Raises:
            IllegalTransition: the change does not wait for another attempt.
        """
        if self.phases[vertex] is not Phase.RETRYING:
            msg = f"{self.graph.ids[vertex]} is {self.phases[vertex].name}, and not to be tried again"
            raise IllegalTransition(msg)
        error = self.state.last_errors[vertex]
        return self._fail(vertex, f"{error} (not tried again: the build was halted)")

    def rescue(self, request: Request, outcome: Outcome) -> Settled | None:
        """Use a reply to an earlier attempt for a change that waits for the next one.

        Returns:
            The outcome, where the reply is a success: no other attempt is needed. Otherwise None.
        """
        vertex = request.vertex
        waits = self.phases[vertex] in {Phase.RETRYING, Phase.WAITING}
        if not waits or not self.state.attempts.failed(vertex):
            return None
        outcome, kept = self.requests.look_at(request, outcome)
        if not outcome.completed or kept is None:
            return None
        return self._applied(self._ledger.completion(vertex, kept))

    def adopt(self, request: Request, outcome: Outcome) -> bool:
        """Keep a success that came after the change had failed, as ``adoptable`` beside the error.

        Returns:
            Whether it was kept: only a success is, and only the first.
        """
        vertex, state = request.vertex, self.state
        if self.phases[vertex] is not Phase.ERRORED or vertex not in self._ledger.final:
            return False
        outcome, kept = self.requests.look_at(request, outcome)
        if not outcome.completed or kept is None or vertex in state.adoptable:
            return False
        state.unpersisted.append(self._applied(self._ledger.late_success(vertex, kept)))
        return True

    def adopted(self) -> list[Settled]:
        """Take the outcomes to be persisted beside the returned ones, since the last call.

        They are those that `adopt` kept, and those that an earlier process had not persisted yet.
        """
        kept, self.state.unpersisted = self.state.unpersisted, []
        return kept

    def complete_with(self, vertex: Vertex, output: Mapping[str, Any]) -> Settled:
        """Complete a change with the output that an operator supplied, in whatever phase it is.

        Raises:
            IllegalTransition: the change has an outcome.
            Laborious: rendering it takes long (`Requests.rendering`); nothing was changed.
        """
        body, type_, provider = self.requests.content(vertex)
        self.requests.let_go(vertex)
        kept = self._ledger.identified(
            vertex, {**body, **output}, State.COMPLETED, type_=type_, provider=provider
        )
        return self._applied(self._ledger.completion(vertex, kept))

    # Decisions for the build.

    def halt(self, cause: str) -> None:
        """Send nothing new from now on. The first cause is kept: it is the one reported."""
        self.state.halt(cause)

    def stop(self) -> None:
        """Send nothing new from now on, because this process is to end."""
        self.state.stop()

    def abandon(self, why: str) -> list[Settled | Withdrawn]:
        """Fail everything in flight, with its outcome unknown, and halt the build."""
        ended: list[Settled | Withdrawn] = []
        for vertex in range(len(self.phases)):
            phase = self.phases[vertex]
            if phase is Phase.STARTING:
                ended.append(self.withdraw(vertex))
            elif phase is Phase.RUNNING:
                ended.append(self._fail(vertex, why))
            elif phase is Phase.RETRYING:
                error = self.state.last_errors[vertex]
                ended.append(self._fail(vertex, f"{error} (not tried again: {why})"))
        self.halt(why)
        return ended

    def finish(self) -> Finished:
        """Return the event that ends the run. It is not applied here: nothing follows it in this process.

        Raises:
            Stuck: something is in flight; or nothing is, and nothing explains why changes are not completed.
        """
        if self.phases.in_flight:
            msg = f"{self.phases.in_flight} changes are in flight at the end of build {self.build.id}"
            raise Stuck(msg)
        if not self.state.draining and (left := self.phases.within(Phase.WAITING, Phase.RETRYING)):
            waiting = [self.graph.ids[vertex] for vertex in left[:5]]
            msg = f"build {self.build.id} is not halted, has nothing in flight, and {waiting} never began"
            raise Stuck(msg)
        return Finished(self.state.cause)

    def cut(self, error: str) -> str:
        """Return an error as it is kept and reported: byte for byte, up to the limit."""
        return cut(error, self._limits.max_error_bytes)

    def _fail(
        self,
        vertex: Vertex,
        error: str,
        request: Request | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> Settled:
        if self.phases[vertex] is Phase.ERRORED:
            raise IllegalTransition(f"{self.graph.ids[vertex]} has failed already")
        kept = self.requests.identified(request, body, State.ERRORED) if request and body else None
        return self._applied(self._ledger.failure(vertex, self.cut(error), kept))

    def _applied(self, settled: Settled) -> Settled:
        self.state.apply(settled)
        return settled

    def _shown(self, vertex: Vertex) -> Mapping[str, Any] | Raw:
        yield_now()
        return self._ledger.shown(vertex, self.phases[vertex].state)
