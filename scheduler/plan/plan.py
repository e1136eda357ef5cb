"""The plan of one build: decides what may start, what a reply changes, and how the build ends.

Each decision is an event. It is applied to the state at once (`PlanState.apply`), and returned to be
persisted; `Plan.replay` applies the same events from the log of an earlier process.

Here stand the decisions about a change, in the order in which they happen to it. What they change is in
`state`. Beside it: commands of operators in `steering`, components that wait for a person in `gates`, replies
that come late in `late_replies`, how a run ends in `ending`, the report in `summary`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from scheduler.definition.graph import Vertex
from scheduler.definition.limits import DEFAULT_LIMITS, Limits
from scheduler.definition.model import Action, State, gates_of
from scheduler.definition.rules import Retries
from scheduler.definition.template import Laborious
from scheduler.definition.validation import Prepared
from scheduler.errors import IllegalTransition, TemplateError
from scheduler.journal.events import (
    Event,
    Retrying,
    Settled,
    Started,
    Supplied,
    Withdrawn,
)
from scheduler.plan.outcome import Outcome, cut
from scheduler.plan.phases import IN_FLIGHT, TO_BE_TRIED, Phase
from scheduler.plan.request import Request
from scheduler.plan.requests import Requests
from scheduler.plan.state import PlanState
from scheduler.plan.texts import Texts

_AFTER_A_FAILURE = frozenset({Phase.RETRYING, Phase.ERRORED})


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
        "build",
        "digest",
        "gates",
        "graph",
        "mark",
        "phases",
        "prepared",
        "priorities",
        "requests",
        "state",
        "texts",
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
        self.gates = frozenset(gates_of(prepared.build))
        """Changes that wait for a person, and are never sent (`plan.gates`)."""
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
        self.texts = Texts(prepared.secrets, self.state)
        """Texts about the build for people."""
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
        self.state.apply(event)
        self.state.skips.clear()
        if isinstance(event, Started):
            self.requests.learn_request(index[event.component])

    # State.

    def is_due(self, vertex: Vertex) -> bool:
        """Whether a change whose dependencies are settled is to be tried as soon as nothing prevents it."""
        return self.phases[vertex] in TO_BE_TRIED and not self.state.halted

    def is_to_be_given_up(self, vertex: Vertex) -> bool:
        """Whether a change waits for another attempt that will not come."""
        return self.state.draining and self.phases[vertex] is Phase.RETRYING

    def is_instant(self, vertex: Vertex) -> bool:
        """Whether a change completes without being sent."""
        return self.build.changes[vertex].action is Action.NONE or vertex in self.state.outputs

    def attempt(self, vertex: Vertex) -> int:
        """Return the number of the attempt that is in flight, or was the last one; 1 before the first."""
        failed = self.state.attempts.failed(vertex)
        return failed if failed and self.phases[vertex] in _AFTER_A_FAILURE else failed + 1

    def error(self, vertex: Vertex) -> str | None:
        """Return the error of a change or its last attempt; None without one. For people: `Texts.masked`."""
        if self.phases[vertex] is Phase.RETRYING:
            return self.state.last_errors[vertex]
        return self._ledger.error(vertex) if self.phases[vertex] is Phase.ERRORED else None

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
            IllegalTransition: the change has begun already, a dependency is not completed, or it is a gate.
            Laborious: rendering it takes long (`Requests.rendering`); nothing was changed.
        """
        state = self.state
        if state.held:
            return None
        change = self.build.changes[vertex]
        phases, completed = self.phases, Phase.COMPLETED
        for dependency in self.graph.dependencies[vertex]:
            if phases[dependency] is not completed:
                needed = self.graph.ids[dependency]
                raise IllegalTransition(f"{change.id} cannot begin before {needed} is completed")
        if vertex in state.outputs:
            return self.complete_with(vertex, state.outputs[vertex])
        if change.action is Action.NONE:
            return self.applied(self._ledger.completion(vertex, {**change.fields, "_state": "completed"}))
        # All that it is rendered from is completed, and does not change any more.
        request = made
        if request is None or request.started.failed != state.attempts.failed(vertex):
            try:
                request = self.requests.make(vertex)
            except Laborious:
                raise
            except TemplateError as error:
                self.requests.let_go(vertex)
                return self.fail(vertex, str(error).removeprefix(f"{change.id}."))
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
            why = self.texts.cause or ("the scheduler is to stop" if self.state.stopped else "it is paused")
            msg = f"{self.graph.ids[vertex]} must not be sent: the build is halted ({why})"
            raise IllegalTransition(msg)
        if self.phases[vertex] is Phase.RUNNING:
            raise IllegalTransition(f"{self.graph.ids[vertex]} was sent already")
        self.phases.move(vertex, Phase.RUNNING)

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
            raise IllegalTransition(
                f"{self.graph.ids[vertex]} is {self.phases[vertex].name}, and was not sent"
            )
        try:
            request = self.requests.make(vertex)
        except Laborious:
            raise
        except TemplateError as error:
            self.requests.let_go(vertex)
            return self.fail(vertex, f"sent before a restart, and its request cannot be made again: {error}")
        self.requests.let_go(vertex)
        return request

    def settle(
        self, request: Request, outcome: Outcome, luck: float = 1.0, elapsed: float = 0.0
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
        if self.phases[vertex] is not Phase.RUNNING:
            raise IllegalTransition(
                f"{self.graph.ids[vertex]} is {self.phases[vertex].name}, and was not sent"
            )
        change = self.build.changes[vertex]
        outcome, kept = self.requests.look_at(request, outcome)
        if outcome.completed:
            kept = kept or self.requests.identified(request, change.fields, State.COMPLETED)
            return self.applied(self._ledger.completion(vertex, kept))
        again = self.state.attempts.again(vertex, request.retry, outcome, luck, elapsed)
        error = self.cut(outcome.error or "failed")
        if isinstance(again, str):
            return self.fail(vertex, error + again, request, outcome.body)
        if self.state.draining:
            error += " (not tried again: the build was halted)"
            return self.fail(vertex, error, request, outcome.body)
        failed = self.state.attempts.failed(vertex) + 1
        retrying = Retrying(change.id, request.attempt, error, again.pause, change.raw, failed)
        self.state.apply(retrying)
        return retrying

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
        return self.applied(self._ledger.completion(vertex, kept))

    def cut(self, error: str) -> str:
        """Return an error as it is kept and reported: byte for byte, up to the limit."""
        return cut(error, self._limits.max_error_bytes)

    def fail(
        self,
        vertex: Vertex,
        error: str,
        request: Request | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> Settled:
        """Fail a change.

        Args:
            vertex: the change.
            error: the error; of a long one, the beginning is kept.
            request: the request of the attempt that failed, where there was one.
            body: what the connector returned beside the error.

        Raises:
            IllegalTransition: the change has failed already.
        """
        if self.phases[vertex] is Phase.ERRORED:
            raise IllegalTransition(f"{self.graph.ids[vertex]} has failed already")
        kept = self.requests.identified(request, body, State.ERRORED) if request and body else None
        return self.applied(self._ledger.failure(vertex, self.cut(error), kept))

    def applied(self, settled: Settled) -> Settled:
        """Apply an outcome, and return it."""
        self.state.apply(settled)
        return settled
