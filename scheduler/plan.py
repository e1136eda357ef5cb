"""The state machine of one build: what may start, what a reply changes, how it ends.

The plan is the only place that decides. It is synchronous: between reading and changing it nothing else
runs, so it needs no lock. It knows neither time nor network; whoever drives it (`scheduler.build`) asks,
acts, and says what happened.

A component that fails is data. What raises here is a bug of the driver (`errors.PlanError`).
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any

from attrs import field, frozen

from scheduler.errors import IllegalTransition, Stuck, TemplateError
from scheduler.events import Accepted, Event, Finished, Sent, Settled, Started, Withdrawn
from scheduler.graph import Vertex
from scheduler.ledger import Ledger
from scheduler.limits import DEFAULT_LIMITS, Limits
from scheduler.model import Action, Change, State
from scheduler.outcome import Outcome, cut, error_text
from scheduler.report import Report
from scheduler.strictjson import Raw
from scheduler.subjects import request_subject
from scheduler.validation import Prepared


class Phase(Enum):
    """Where a change stands inside: `STARTING` is waiting and running at once, for others to see neither."""

    WAITING = State.WAITING
    STARTING = "starting"
    """Its request is ready, and is being persisted."""
    RUNNING = State.RUNNING
    """Its request was handed to the bus."""
    COMPLETED = State.COMPLETED
    ERRORED = State.ERRORED


_LEGAL = {
    Phase.WAITING: {Phase.STARTING, Phase.COMPLETED, Phase.ERRORED},
    Phase.STARTING: {Phase.RUNNING, Phase.WAITING},
    Phase.RUNNING: {Phase.COMPLETED, Phase.ERRORED, Phase.WAITING},
    Phase.COMPLETED: set[Phase](),
    Phase.ERRORED: set[Phase](),
}
_IN_FLIGHT = {Phase.STARTING, Phase.RUNNING}
_SETTLED = {Phase.COMPLETED, Phase.ERRORED}


@frozen
class Request:
    """What is to be sent for one component."""

    vertex: Vertex
    build: str
    component: str
    attempt: str
    """``<build>/<component>/<n>``: a key by which a connector can know a request it had before."""
    subject: str
    type: str
    provider: str
    timeout: float | None
    """Seconds, where the component names them."""
    body: bytes = field(repr=False)
    started: Started = field(repr=False)
    """To be persisted before the request leaves."""


class Plan:
    """Drives one build from its acceptance to its report.

    Args:
        prepared: the build.
        resumed: it was begun by an earlier process: what it says is `running` is in flight and is
            awaited, and what it says is `errored` halts it. Otherwise both are to be done.
        limits: for texts that come in on the way.
    """

    def __init__(self, prepared: Prepared, *, resumed: bool = False, limits: Limits = DEFAULT_LIMITS) -> None:
        self.build = prepared.build
        self.digest = prepared.digest.hex()
        """Equal for equal content."""
        self.graph = prepared.graph
        self.cause: str | None = None
        """Why the build is halted; None while it is not."""
        self.stopped = False
        """Whether this process is to end; that halts the build, and is no failure of it."""
        self.finished = False
        """Whether an earlier process persisted the end of the build."""
        self.in_flight = 0
        self.done = 0
        """How many changes are settled."""
        self._templates = prepared.templates
        self._limits = limits
        self._ledger = Ledger(prepared.build, prepared.graph, limits)
        self._adoptable: set[Vertex] = set()
        self._unpersisted: list[Settled] = []
        self._phases = [Phase.WAITING] * len(self.build.changes)
        for vertex, change in enumerate(self.build.changes):
            if change.state is State.COMPLETED:
                self._move(vertex, Phase.COMPLETED)
            elif resumed and change.state is State.ERRORED:
                self._move(vertex, Phase.ERRORED)
                why = error_text(change.fields.get("error"), limits) or "failed before a restart"
                self.halt(f"{change.id}: {why}")
            elif resumed and change.state is State.RUNNING and change.action is not Action.NONE:
                self._move(vertex, Phase.STARTING)
                self._move(vertex, Phase.RUNNING)
        if resumed:
            for layer in self.graph.layers():
                for vertex in layer:
                    if self._phases[vertex] is Phase.COMPLETED and (missing := self._ledger.catch_up(vertex)):
                        self._unpersisted.append(missing)

    @property
    def halted(self) -> bool:
        """Whether nothing new may be sent any more."""
        return self.stopped or self.cause is not None

    @property
    def over(self) -> bool:
        """Whether the build has come to its end: nothing is in flight, and nothing is left to be done."""
        return not self.in_flight and (self.cause is not None or self.done == len(self._phases))

    @property
    def accepted(self) -> Accepted:
        """The first event of the build."""
        return Accepted({**self.build.fields, **self.report().lists()}, self.digest)

    @property
    def completed(self) -> int:
        """How many changes are completed."""
        return self._phases.count(Phase.COMPLETED)

    def phase(self, vertex: Vertex) -> Phase:
        """Where a change stands."""
        return self._phases[vertex]

    def unsettled(self) -> list[Vertex]:
        """The changes that have no outcome yet."""
        return [vertex for vertex, phase in enumerate(self._phases) if phase not in _SETTLED]

    def halt(self, cause: str) -> None:
        """From now on nothing new is sent. The first cause is kept: it is the one reported."""
        if self.cause is None:
            self.cause = cause

    def stop(self) -> None:
        """From now on nothing new is sent, because this process is to end."""
        self.stopped = True

    def is_in_flight(self, vertex: Vertex) -> bool:
        """Whether a change is in flight; at the beginning only what an earlier process sent is."""
        return self._phases[vertex] in _IN_FLIGHT

    def is_starting(self, vertex: Vertex) -> bool:
        """Whether a change is about to be sent, as far as is known."""
        return self._phases[vertex] is Phase.STARTING

    def is_instant(self, vertex: Vertex) -> bool:
        """Whether a change completes without being sent."""
        return self.build.changes[vertex].action is Action.NONE

    def begin(self, vertex: Vertex) -> Request | Settled | None:
        """Whether a change whose dependencies are settled may start, and with what.

        Returns:
            None where the plan is halted; the outcome where it has one without being sent (action
            ``none``, or a reference that cannot be resolved); otherwise the request: persist its
            ``started``, then call `sent` or `withdraw`.

        Raises:
            IllegalTransition: the change began before, or a dependency is not completed.
        """
        if self.halted:
            return None
        change = self.build.changes[vertex]
        phases = self._phases
        for dependency in self.graph.dependencies[vertex]:
            if phases[dependency] is not Phase.COMPLETED:
                msg = f"{change.id} cannot begin before {self.graph.ids[dependency]} is completed"
                raise IllegalTransition(msg)
        if change.action is Action.NONE:
            self._move(vertex, Phase.COMPLETED)
            return self._ledger.complete(vertex, {**change.fields, "_state": "completed"})
        try:
            request = self._request(vertex, change)
        except TemplateError as error:
            text = str(error).removeprefix(f"{change.id}.")
            return self._fail(vertex, text)
        self._move(vertex, Phase.STARTING)
        return request

    def _request(self, vertex: Vertex, change: Change) -> Request:
        rendered = self._templates[vertex].render(self._ledger.scope(vertex))
        subject = request_subject(rendered.type, change.action.value, rendered.provider)
        attempt = f"{self.build.id}/{change.id}/1"
        return Request(
            vertex,
            self.build.id,
            change.id,
            attempt,
            subject,
            rendered.type,
            rendered.provider,
            change.timeout,
            rendered.body,
            Started(change.id, attempt, change.raw),
        )

    def sent(self, vertex: Vertex) -> None:
        """The request goes out now; to be called in the same breath as handing it to the bus.

        Raises:
            IllegalTransition: it did not begin, or the plan is halted.
        """
        if self.halted:
            why = self.cause or "the scheduler is to stop"
            msg = f"{self.graph.ids[vertex]} must not be sent: the build is halted ({why})"
            raise IllegalTransition(msg)
        self._move(vertex, Phase.RUNNING)

    def replay(self, event: Event) -> None:
        """Take in what the log of an earlier process says; to be done in order, before anything else.

        Raises:
            IllegalTransition: it cannot have happened.
        """
        match event:
            case Started(component=component):
                self._move(self.graph.index[component], Phase.STARTING)
            case Sent(component=component):
                self.departed(self.graph.index[component])
            case Withdrawn(component=component):
                self._move(self.graph.index[component], Phase.WAITING)
            case Settled(component=component, body=body):
                self._replay_outcome(self.graph.index[component], body)
            case Finished(error=error):
                # The first cause may be one that no event tells: somebody stopped it, the store failed.
                self.finished, self.cause = True, error
            case _:
                pass

    def _replay_outcome(self, vertex: Vertex, body: Mapping[str, Any]) -> None:
        phase = self._phases[vertex]
        completed = body["_state"] == State.COMPLETED
        if phase is Phase.ERRORED and not completed and "adoptable" in body:
            self._adoptable.add(vertex)
            self._ledger.keep(vertex, body)
            return
        if phase is Phase.STARTING:
            self._move(vertex, Phase.RUNNING)
        if completed:
            self._move(vertex, Phase.COMPLETED)
            self._ledger.complete(vertex, body)
        else:
            self._move(vertex, Phase.ERRORED)
            self.halt(f"{self.graph.ids[vertex]}: {body.get('error')}")
            self._ledger.keep(vertex, body)

    def resume(self, vertex: Vertex) -> Request | Settled:
        """A change that an earlier process began to send.

        Returns:
            The request that it must have been; or the outcome, where that can no longer be told.

        Raises:
            IllegalTransition: it is not in flight.
        """
        change = self.build.changes[vertex]
        if self._phases[vertex] not in _IN_FLIGHT:
            msg = f"{change.id} is {self._phases[vertex].name}, and was not sent"
            raise IllegalTransition(msg)
        try:
            return self._request(vertex, change)
        except TemplateError as error:
            self.departed(vertex)
            return self._fail(vertex, f"sent before a restart, and its request cannot be told again: {error}")

    def departed(self, vertex: Vertex) -> None:
        """The request of a change that began to be sent has left, or may have: it is in flight.

        Raises:
            IllegalTransition: it is neither about to be sent nor sent.
        """
        if self._phases[vertex] is not Phase.RUNNING:
            self._move(vertex, Phase.RUNNING)

    def withdraw(self, vertex: Vertex) -> Withdrawn:
        """The request did not leave, and never will: the change is waiting again.

        Raises:
            IllegalTransition: it is not in flight.
        """
        self._move(vertex, Phase.WAITING)
        change = self.build.changes[vertex]
        return Withdrawn(change.id, change.raw)

    def settle(self, request: Request, outcome: Outcome) -> Settled:
        """The attempt ended (WIRE: "What a completion changes"). An error halts the build.

        Raises:
            IllegalTransition: the change is not in flight.
        """
        vertex = request.vertex
        self._must_be_running(vertex)
        change = self.build.changes[vertex]
        if outcome.completed and change.action is Action.FIND and outcome.body is not None:
            outcome = self._ledger.checked_find(outcome.body)
        if not outcome.completed:
            return self._fail(vertex, outcome.error or "failed", request, outcome.body)
        self._move(vertex, Phase.COMPLETED)
        body = self._identified(request, outcome.body or change.fields, State.COMPLETED)
        return self._ledger.complete(vertex, body)

    def adopt(self, request: Request, outcome: Outcome) -> bool:
        """A success that came after the attempt was given up: kept beside the error as ``adoptable``.

        Returns:
            Whether it was kept: only a success is, and only the first.
        """
        vertex = request.vertex
        if self._phases[vertex] is not Phase.ERRORED or vertex not in self._ledger.final:
            return False
        if not outcome.completed or outcome.body is None or vertex in self._adoptable:
            return False
        self._adoptable.add(vertex)
        adoptable = self._identified(request, outcome.body, State.COMPLETED)
        self._unpersisted.append(self._ledger.adopt(vertex, adoptable))
        return True

    def adopted(self) -> list[Settled]:
        """What is to be persisted beside the outcomes themselves, since the last time this was asked.

        That is what `adopt` kept, and what an earlier process did not get round to.
        """
        kept, self._unpersisted = self._unpersisted, []
        return kept

    def abandon(self, why: str) -> list[Settled | Withdrawn]:
        """Give up on whatever is in flight: it fails, its outcome unknown. The build is halted."""
        ended: list[Settled | Withdrawn] = []
        for vertex, phase in enumerate(self._phases):
            if phase is Phase.STARTING:
                ended.append(self.withdraw(vertex))
            elif phase is Phase.RUNNING:
                ended.append(self._fail(vertex, why))
        self.halt(why)
        return ended

    def finish(self) -> Finished:
        """The end of the build.

        Raises:
            Stuck: something is in flight, or nothing is, and nothing explains why not all is completed.
        """
        if self.in_flight:
            msg = f"{self.in_flight} changes are in flight at the end of build {self.build.id}"
            raise Stuck(msg)
        if self.cause is None and self.done < len(self._phases):
            waiting = [self.graph.ids[vertex] for vertex in self.unsettled()[:5]]
            msg = f"build {self.build.id} is not halted, has nothing in flight, and {waiting} never began"
            raise Stuck(msg)
        return Finished(self.cause)

    def report(self) -> Report:
        """The report as things stand: complete once `finish` has returned."""
        return Report(
            self.build.action,
            self.cause,
            self.build.fields,
            list(self._ledger.existing.values()),
            [self._shown(vertex) for vertex in range(len(self._phases))],
            self.build.edges,
            Counter(phase.value for phase in self._phases),
        )

    def parts(self) -> list[object]:
        """Everything large in it, for whoever lets go of it piece by piece."""
        return [*self.build.changes, *self._templates, *self._ledger.final.values()]

    def in_flight_ids(self) -> Iterator[str]:
        """The ids of the changes that are in flight."""
        return (self.graph.ids[vertex] for vertex, phase in enumerate(self._phases) if phase in _IN_FLIGHT)

    def _shown(self, vertex: Vertex) -> Mapping[str, Any] | Raw:
        phase = self._phases[vertex]
        return self._ledger.shown(vertex, State.RUNNING if phase is Phase.STARTING else State(phase.value))

    def _fail(
        self,
        vertex: Vertex,
        error: str,
        request: Request | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> Settled:
        self._move(vertex, Phase.ERRORED)
        error = cut(error, self._limits.max_error_bytes)
        self.halt(f"{self.graph.ids[vertex]}: {error}")
        kept = self._identified(request, body, State.ERRORED) if request and body else None
        return self._ledger.fail(vertex, error, kept)

    def _identified(self, request: Request, body: Mapping[str, Any], state: State) -> dict[str, Any]:
        return self._ledger.identified(
            request.vertex, body, state, type_=request.type, provider=request.provider
        )

    def _must_be_running(self, vertex: Vertex) -> None:
        phase = self._phases[vertex]
        if phase is not Phase.RUNNING:
            msg = f"{self.graph.ids[vertex]} is {phase.name}, and was not sent"
            raise IllegalTransition(msg)

    def _move(self, vertex: Vertex, phase: Phase) -> None:
        before = self._phases[vertex]
        if phase not in _LEGAL[before]:
            msg = f"{self.graph.ids[vertex]} cannot go from {before.name} to {phase.name}"
            raise IllegalTransition(msg)
        self._phases[vertex] = phase
        self.in_flight += (phase in _IN_FLIGHT) - (before in _IN_FLIGHT)
        self.done += phase in _SETTLED
