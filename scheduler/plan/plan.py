"""The plan of one build: it decides what may start, what a reply changes, and how the build ends.

What it decides on are events. Each is applied to the state at once (`PlanState.apply`), and returned to be
persisted; `Plan.replay` applies the same events as they stand in the log of an earlier process.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

from scheduler.definition.graph import Vertex
from scheduler.definition.limits import DEFAULT_LIMITS, Limits
from scheduler.definition.model import Action, State
from scheduler.definition.rules import LimitRule, Retries
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
from scheduler.plan.requests import Request, Requests
from scheduler.plan.state import PlanState
from scheduler.runtime.breath import breathe

_MOST_SHOWN = 4_000
"""Characters of a build's error that people see; the report has all of it."""


class Plan:
    """Drives one build from its acceptance to its report.

    Args:
        prepared: the build.
        resumed: it was begun by an earlier process: what it says is `running` is in flight and is
            awaited, and what it says is `errored` has failed. Otherwise both are to be done.
        limits: for texts that come in on the way.
        retries: the operator's rules, for what neither the component nor the build has a rule.
        mark: of the build's acceptance, drawn once; empty where the store keeps none.
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
        """The build as it was found valid."""
        self.build = prepared.build
        self.graph = prepared.graph
        self.digest = prepared.digest.hex()
        """Equal for equal content."""
        self.mark = mark
        """Of the build's acceptance; empty where there is none."""
        self.priorities: Sequence[float] = ()
        """By vertex: what the rest of the build waits for most is the highest."""
        self.state = PlanState(prepared.build, prepared.graph, prepared.policy, limits)
        """How the build stands."""
        self.phases = self.state.phases
        """Where each change stands."""
        self.requests = Requests(prepared, self.state, retries, mark)
        self._ledger = self.state.ledger
        self._limits = limits
        self._secrets = prepared.secrets
        self._shown_cause: tuple[str, object, str] | None = None
        """The cause, the secrets that were known, and the cause without them."""
        if resumed:
            self.state.take_over()

    def replay(self, event: Event) -> None:
        """Take in what the log of an earlier process says; to be done in order, before anything else.

        Raises:
            IllegalTransition: it cannot have happened.
        """
        index = self.graph.index
        match event:
            case Settled(component=component, body=body):
                self._secrets.add(body)
                if body["_state"] == State.COMPLETED:
                    # What it did to the components follows from its body.
                    event = self._ledger.completion(index[component], body)
            case Supplied(component=component, output=output):
                self.requests.learn_output(index[component], output)
            case _:
                pass
        self.state.apply(event)
        self.state.skips.clear()
        if isinstance(event, Started):
            self.requests.learn_request(index[event.component])

    # How it stands.

    @property
    def held(self) -> bool:
        """Whether nothing new may be sent now."""
        return self.state.held

    @property
    def halted(self) -> bool:
        """Whether nothing new may be sent any more."""
        return self.state.halted

    @property
    def stopped(self) -> bool:
        """Whether this process is to end; that halts the build, and is no failure of it."""
        return self.state.stopped

    @property
    def paused(self) -> bool:
        """Whether an operator wants nothing new to be sent, for now."""
        return self.state.paused

    @property
    def cancelled(self) -> bool:
        """Whether an operator has ended it."""
        return self.state.cancelled

    @property
    def finished(self) -> bool:
        """Whether the end of the run was persisted by an earlier process."""
        return self.state.finished

    @property
    def run(self) -> int:
        """Which run of the build it is: one, and one more each time that it is resumed after its end."""
        return self.state.run

    @property
    def rules(self) -> tuple[LimitRule, ...]:
        """The build's own limits."""
        return self.state.rules

    @property
    def cause(self) -> str | None:
        """What is to be reported as the build's error; None while there is none. See `shown_cause`."""
        return self.state.cause

    @property
    def in_flight(self) -> int:
        """How many changes are in flight."""
        return self.phases.in_flight

    @property
    def settled(self) -> int:
        """How many changes are settled."""
        return self.phases.settled

    @property
    def completed(self) -> int:
        """How many changes are completed."""
        return self.phases.counts[Phase.COMPLETED]

    @property
    def over(self) -> bool:
        """Whether the build has come to its end: nothing is in flight, and nothing is left to be done."""
        counts = self.phases.counts
        if self.phases.in_flight or counts[Phase.RETRYING]:
            return False
        return self.state.draining or not counts[Phase.WAITING]

    @property
    def accepted(self) -> Accepted:
        """The first event of the build."""
        return Accepted({**self.build.fields, **self.report().lists()}, self.digest, mark=self.mark)

    def counts(self) -> dict[str, int]:
        """How many changes are in each state, as people are told: what is about to be sent is running."""
        counts = self.phases.counts
        return {
            "waiting": counts[Phase.WAITING],
            "running": self.phases.in_flight,
            "retrying": counts[Phase.RETRYING],
            "completed": counts[Phase.COMPLETED],
            "errored": counts[Phase.ERRORED],
            "skipped": counts[Phase.SKIPPED],
        }

    def phase(self, vertex: Vertex) -> Phase:
        """Where a change stands."""
        return self.phases[vertex]

    def unsettled(self) -> list[Vertex]:
        """The changes that have no outcome yet, and may get one."""
        return self.phases.within(Phase.WAITING, Phase.STARTING, Phase.RUNNING, Phase.RETRYING)

    def is_in_flight(self, vertex: Vertex) -> bool:
        """Whether a change is in flight; at the beginning only what an earlier process sent is."""
        return self.phases[vertex] in IN_FLIGHT

    def is_starting(self, vertex: Vertex) -> bool:
        """Whether a change is about to be sent, as far as is known."""
        return self.phases[vertex] is Phase.STARTING

    def is_due(self, vertex: Vertex) -> bool:
        """Whether a change whose dependencies are settled is to be tried, as soon as nothing holds it up."""
        return not self.state.halted and self.phases[vertex] in {Phase.WAITING, Phase.RETRYING}

    def is_to_be_given_up(self, vertex: Vertex) -> bool:
        """Whether a change waits for another attempt that there will not be."""
        return self.state.draining and self.phases[vertex] is Phase.RETRYING

    def is_instant(self, vertex: Vertex) -> bool:
        """Whether a change completes without being sent."""
        return self.build.changes[vertex].action is Action.NONE or vertex in self.state.outputs

    def attempt(self, vertex: Vertex) -> int:
        """The number of the attempt that is in flight, or was the last one; 1 before the first."""
        failed = self.state.attempts.failed(vertex)
        return max(1, failed if self.phases[vertex] in {Phase.RETRYING, Phase.ERRORED} else failed + 1)

    def error(self, vertex: Vertex) -> str | None:
        """Why a change has failed, or its last attempt has; None where nothing did. For people: `masked`."""
        if self.phases[vertex] is Phase.RETRYING:
            return self.state.last_errors[vertex]
        return self._ledger.error(vertex) if self.phases[vertex] is Phase.ERRORED else None

    def in_flight_ids(self) -> Iterator[str]:
        """The ids of the changes that are in flight."""
        return (self.graph.ids[vertex] for vertex in self.phases.within(*IN_FLIGHT))

    def skips(self) -> list[Vertex]:
        """What will not be sent because something before it has failed, since this was last asked."""
        skips, self.state.skips = self.state.skips, []
        return skips

    def masked(self, text: str, most: int = 0) -> str:
        """A text without the secrets of the build, for people to see; cut to ``most`` characters, if any.

        Of a long text a few thousand characters take some milliseconds; all of it takes 25.
        """
        return self._secrets.mask(text, most)

    @property
    def secrets_known(self) -> Hashable:
        """What `masked` knows: where that has changed, what it has masked before may look otherwise."""
        return self._secrets.known

    @property
    def shown_cause(self) -> str | None:
        """The `cause` without the secrets of the build, for people to see; the beginning of a long one."""
        cause = self.state.cause
        if cause is None:
            return None
        known = self.secrets_known
        if self._shown_cause is None or self._shown_cause[:2] != (cause, known):
            # It may be long, and is asked for every two seconds by everybody who watches.
            self._shown_cause = cause, known, self.masked(cause, _MOST_SHOWN)
        return self._shown_cause[2]

    def report(self) -> Report:
        """The report as things stand: complete once `finish` has returned."""
        return Report(
            self.build.action,
            self.state.cause,
            self.build.fields,
            list(self._ledger.existing.values()),
            [self._shown(vertex) for vertex in range(len(self.phases))],
            self.build.edges,
            {state: count for state, count in self.counts().items() if count},
            self.state.run,
            self.mark,
            self.build.absent,
            cancelled=self.state.cancelled,
        )

    def parts(self) -> list[object]:
        """Everything large in it, for whoever lets go of it piece by piece."""
        ledger, build = self._ledger, self.build
        parts: list[object] = [*build.components, *build.edges, *build.changes, *self.requests.large]
        return [*parts, *ledger.existing.values(), *ledger.final.values()]

    # What becomes of a change.

    def begin(self, vertex: Vertex, made: Request | None = None) -> Request | Settled | None:
        """Whether a change whose dependencies are settled may start, and with what.

        Args:
            vertex: the change.
            made: its request as `begin` returned it before, where that was taken back by `unbegin`.

        Returns:
            None where the plan is held; the outcome where it has one without being sent (action
            ``none``, an operator's word, or a reference that cannot be resolved); otherwise the request:
            persist its ``started``, then call `sent` or `withdraw`.

        Raises:
            IllegalTransition: the change began before, or a dependency is not completed.
            Laborious: it takes long to render it (`Requests.rendering`), and nothing was changed.
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
        # What it is rendered from is all completed, and stays as it is.
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
        """There is no room for the request of a change that has just begun: it waits as it did before.

        Nothing of its beginning may have been persisted. What its rendering has cost is not charged again.

        Raises:
            IllegalTransition: it is not about to be sent.
        """
        self.state.take_back(vertex)
        self.requests.put_back(vertex)

    def sent(self, vertex: Vertex) -> None:
        """The request goes out now; to be called in the same breath as handing it to the bus.

        Raises:
            IllegalTransition: it did not begin, or the plan is held.
        """
        if self.state.held:
            why = self.shown_cause or ("the scheduler is to stop" if self.state.stopped else "it is paused")
            msg = f"{self.graph.ids[vertex]} must not be sent: the build is halted ({why})"
            raise IllegalTransition(msg)
        if self.phases[vertex] is Phase.RUNNING:
            raise IllegalTransition(f"{self.graph.ids[vertex]} was sent already")
        self.state.depart(vertex)

    def departed(self, vertex: Vertex) -> None:
        """The request of a change that began to be sent has left, or may have: it is in flight.

        Raises:
            IllegalTransition: it is neither about to be sent nor sent.
        """
        self.state.depart(vertex)

    def withdraw(self, vertex: Vertex) -> Withdrawn:
        """The request did not leave, and never will: the change is waiting again.

        Raises:
            IllegalTransition: it is not in flight.
        """
        change = self.build.changes[vertex]
        withdrawn = Withdrawn(change.id, change.raw, self.state.attempts.failed(vertex))
        self.state.apply(withdrawn)
        return withdrawn

    def resume(self, vertex: Vertex) -> Request | Settled:
        """A change that an earlier process began to send.

        Returns:
            The request that it must have been; or the outcome, where that can no longer be told.

        Raises:
            IllegalTransition: it is not in flight.
            Laborious: it takes long to render it (`Requests.rendering`), and nothing was changed.
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
            return self._fail(vertex, f"sent before a restart, and its request cannot be told again: {error}")
        self.requests.let_go(vertex)
        return request

    def settle(
        self, request: Request, outcome: Outcome, *, luck: float = 1.0, elapsed: float = 0.0
    ) -> Settled | Retrying:
        """The attempt ended (WIRE: "What a completion changes"). An error may halt the build.

        Args:
            request: of the attempt.
            outcome: how it ended.
            luck: from 0 to 1, random: how much of the longest pause passes before another attempt.
            elapsed: seconds since the first attempt.

        Returns:
            What became of the change; or that there will be another attempt.

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
        """There will be no other attempt of a change whose last one has failed: the build was halted.

        Raises:
            IllegalTransition: it does not wait for another attempt.
        """
        if self.phases[vertex] is not Phase.RETRYING:
            msg = f"{self.graph.ids[vertex]} is {self.phases[vertex].name}, and not to be tried again"
            raise IllegalTransition(msg)
        error = self.state.last_errors[vertex]
        return self._fail(vertex, f"{error} (not tried again: the build was halted)")

    def rescue(self, request: Request, outcome: Outcome) -> Settled | None:
        """A reply came to an attempt that had been given up, and the change waits for another one.

        Returns:
            The outcome, where it is a success: no other attempt is needed. Otherwise None.
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
        """A success that came after the change had failed: kept beside the error as ``adoptable``.

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
        """What is to be persisted beside the outcomes themselves, since the last time this was asked.

        That is what `adopt` kept, and what an earlier process did not get round to.
        """
        kept, self.state.unpersisted = self.state.unpersisted, []
        return kept

    def complete_with(self, vertex: Vertex, output: Mapping[str, Any]) -> Settled:
        """A change completes with what an operator supplied, whatever else is true of it.

        Raises:
            IllegalTransition: it has an outcome.
            Laborious: it takes long to render it (`Requests.rendering`), and nothing was changed.
        """
        body, type_, provider = self.requests.content(vertex)
        self.requests.let_go(vertex)
        kept = self._ledger.identified(
            vertex, {**body, **output}, State.COMPLETED, type_=type_, provider=provider
        )
        return self._applied(self._ledger.completion(vertex, kept))

    # What becomes of the build.

    def halt(self, cause: str) -> None:
        """From now on nothing new is sent. The first cause is kept: it is the one reported."""
        self.state.halt(cause)

    def stop(self) -> None:
        """From now on nothing new is sent, because this process is to end."""
        self.state.stop()

    def abandon(self, why: str) -> list[Settled | Withdrawn]:
        """Give up on whatever is in flight: it fails, its outcome unknown. The build is halted."""
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
        """The end of the build. It is applied by who reads it in the log: nothing follows it here.

        Raises:
            Stuck: something is in flight, or nothing is, and nothing explains why not all is completed.
        """
        if self.in_flight:
            msg = f"{self.in_flight} changes are in flight at the end of build {self.build.id}"
            raise Stuck(msg)
        if not self.state.draining and (left := self.phases.within(Phase.WAITING, Phase.RETRYING)):
            waiting = [self.graph.ids[vertex] for vertex in left[:5]]
            msg = f"build {self.build.id} is not halted, has nothing in flight, and {waiting} never began"
            raise Stuck(msg)
        return Finished(self.state.cause)

    def cut(self, error: str) -> str:
        """An error as it is kept and reported: what was said, byte for byte, up to the bound."""
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
        breathe()
        return self._ledger.shown(vertex, self.phases[vertex].state)
