"""How a build stands, and what each event of its log changes in that.

`PlanState.apply` is the only writer, for a build that runs as for one whose log is read again: the plan
decides on an event, has it applied, and returns it to be persisted. So a replay cannot differ from what was
lived through, and everything that changes how a build stands is in this file.

Four things are no events. What this process alone knows: that it is to stop, or cannot write the log
(`halt`). That a request has left (`depart`), which is told to the log later, if at all. What is taken back
before anything of it was persisted (`take_back`). And what a store without a log says of an earlier process
(`take_over`). `skips` and `unpersisted` are lists for whoever drives the plan, who takes them away.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar

from scheduler.definition.graph import Graph, Vertex
from scheduler.definition.limits import Limits
from scheduler.definition.model import Action, Build, State
from scheduler.definition.rules import LimitRule, Policy, read_limits
from scheduler.journal.events import (
    Cancelled,
    Document,
    Event,
    Finished,
    Limited,
    Paused,
    Retried,
    Retrying,
    Sent,
    Settled,
    Started,
    Supplied,
    Unpaused,
    Withdrawn,
)
from scheduler.plan.attempts import AttemptCounts
from scheduler.plan.ledger import Ledger
from scheduler.plan.outcome import error_text
from scheduler.plan.phases import IN_FLIGHT, Phase, Phases


class PlanState:
    """Where one build stands.

    Args:
        build: as it was accepted.
        graph: who depends on whom.
        policy: what the build says of failures and limits.
        limits: on texts that come in.
    """

    __slots__ = (
        "_build",
        "_graph",
        "_limits",
        "_policy",
        "adoptable",
        "attempts",
        "cancelled",
        "cause",
        "draining",
        "finished",
        "forgiven",
        "last_errors",
        "ledger",
        "outputs",
        "paused",
        "phases",
        "rules",
        "run",
        "skips",
        "stopped",
        "unpersisted",
    )

    def __init__(self, build: Build, graph: Graph, policy: Policy, limits: Limits) -> None:
        self._build = build
        self._graph = graph
        self._policy = policy
        self._limits = limits
        self.phases = Phases(graph.ids)
        """Where each change stands."""
        self.attempts = AttemptCounts()
        self.ledger = Ledger(build, graph, limits)
        """What exists, and the changes as they are kept."""
        self.cause: str | None = None
        """What is to be reported as the build's error; None while there is none."""
        self.draining = False
        """Whether nothing new is sent any more, for a failure or at an operator's word."""
        self.stopped = False
        """Whether this process is to end; that halts the build, and is no failure of it."""
        self.paused = False
        """Whether an operator wants nothing new to be sent, for now."""
        self.cancelled = False
        """Whether an operator has ended it."""
        self.finished = False
        """Whether the end of the run was persisted by an earlier process."""
        self.run = 1
        """Counts the runs of the build: one, and one more each time that it is resumed after its end."""
        self.rules: tuple[LimitRule, ...] = policy.limits
        """The build's own limits."""
        self.forgiven = 0
        """Failures that an operator knew of and went on with."""
        self.last_errors: dict[Vertex, str] = {}
        """Of those whose last attempt failed, and that are tried again."""
        self.outputs: dict[Vertex, Document] = {}
        """What an operator supplied for changes that are not due yet."""
        self.adoptable: dict[Vertex, Document] = {}
        """Late successes of changes that had failed."""
        self.unpersisted: list[Settled] = []
        """What is to be persisted beside the outcomes themselves."""
        self.skips: list[Vertex] = []
        """What will not be sent because something before it has failed, since this was last asked."""
        for vertex, change in enumerate(build.changes):
            if change.state is State.COMPLETED:
                self.phases.move(vertex, Phase.COMPLETED)

    @property
    def halted(self) -> bool:
        """Whether nothing new may be sent any more."""
        return self.stopped or self.draining

    @property
    def held(self) -> bool:
        """Whether nothing new may be sent now."""
        return self.stopped or self.draining or self.paused

    def apply(self, event: Event) -> None:
        """Change what the event says has happened.

        Args:
            event: an outcome with what it does to the components (`Ledger.completion`).

        Raises:
            IllegalTransition: it cannot have happened.
        """
        write = self._WRITERS.get(type(event))
        if write is not None:
            write(self, event)

    # What is no event.

    def halt(self, cause: str) -> None:
        """From now on nothing new is sent. The first cause is kept: it is the one reported."""
        self.draining = True
        if self.cause is None:
            self.cause = cause

    def stop(self) -> None:
        """From now on nothing new is sent: this process is to end."""
        self.stopped = True

    def take_back(self, vertex: Vertex) -> None:
        """It has not begun after all, and nothing was persisted: it waits as it did before.

        Raises:
            IllegalTransition: it is not about to be sent.
        """
        again = vertex in self.last_errors and self.attempts.is_between(vertex)
        self.phases.move(vertex, Phase.RETRYING if again else Phase.WAITING)

    def take_over(self) -> None:
        """Start where an earlier process stopped, as the build itself says that it stood."""
        changes = self._build.changes
        for vertex, change in enumerate(changes):
            if change.state is State.ERRORED:
                self.phases.move(vertex, Phase.ERRORED)
            elif change.state is State.RUNNING and change.action is not Action.NONE:
                self.phases.move(vertex, Phase.STARTING)
                self.phases.move(vertex, Phase.RUNNING)
        for vertex, change in enumerate(changes):
            self.attempts.start_at(vertex, change.attempts)
            if self.phases[vertex] is Phase.ERRORED:
                why = error_text(change.fields.get("error"), self._limits) or "failed before a restart"
                self._reckon(vertex, why)
        for layer in self._graph.layers():
            for vertex in layer:
                if self.phases[vertex] is Phase.COMPLETED and (missing := self.ledger.catch_up(vertex)):
                    self.unpersisted.append(missing)

    # What each event changes.

    def _start(self, event: Started) -> None:
        self.phases.move(self._graph.index[event.component], Phase.STARTING)

    def depart(self, vertex: Vertex) -> None:
        """As `Sent` says: its request has left, or may have. Of several copies the first one counts."""
        if self.phases[vertex] is not Phase.RUNNING:
            self.phases.move(vertex, Phase.RUNNING)

    def _send(self, event: Sent) -> None:
        self.depart(self._graph.index[event.component])

    def _withdraw(self, event: Withdrawn) -> None:
        self.phases.move(self._graph.index[event.component], Phase.WAITING)

    def _retry(self, event: Retrying) -> None:
        vertex = self._graph.index[event.component]
        self.phases.move(vertex, Phase.RETRYING)
        self.attempts.fail(vertex)
        self.last_errors[vertex] = event.error

    def _settle(self, event: Settled) -> None:
        vertex, body = self._graph.index[event.component], event.body
        phases = self.phases
        phase = phases[vertex]
        if phase is Phase.STARTING:
            phases.move(vertex, Phase.RUNNING)
        if body["_state"] == State.COMPLETED:
            phases.move(vertex, Phase.COMPLETED)
            if self.outputs and self.outputs.pop(vertex, None) is not None:
                self._skip_again()
            if self.adoptable:
                self.adoptable.pop(vertex, None)
            self.ledger.complete(vertex, event)
        elif phase is Phase.ERRORED and "adoptable" in body:
            self.adoptable[vertex] = body["adoptable"]
            self.ledger.keep(vertex, body)
        else:
            phases.move(vertex, Phase.ERRORED)
            if phase in IN_FLIGHT:
                # Its number is used up: where it is sent again in another run, that is another attempt.
                self.attempts.fail(vertex)
            self.outputs.pop(vertex, None)
            self.ledger.keep(vertex, body)
            self._reckon(vertex, str(body.get("error")))

    def _finish(self, event: Finished) -> None:
        # The first cause may be one that no event tells: the store failed, say.
        self.finished, self.cause = True, event.error
        counts = self.phases.counts
        left = self.phases.in_flight + counts[Phase.WAITING] + counts[Phase.RETRYING]
        self.draining = self.draining or bool(left)

    def _cancel(self, event: Cancelled) -> None:
        self.cancelled = True
        self.paused = False
        self.halt(event.cause)

    def _pause(self, event: Paused) -> None:  # noqa: ARG002 - as all of these
        self.paused = True

    def _unpause(self, event: Unpaused) -> None:  # noqa: ARG002 - as all of these
        self.paused = False

    def _limit(self, event: Limited) -> None:
        self.rules = read_limits(event.limits)

    def _supply(self, event: Supplied) -> None:
        vertex = self._graph.index[event.component]
        if self.phases[vertex] is Phase.ERRORED:
            self._reopen([vertex])
        if self.phases[vertex] is Phase.SKIPPED:
            # Before, or again: something else before it has failed as well.
            self.phases.reopen(vertex)
        self.outputs[vertex] = event.output

    def _resume(self, event: Retried) -> None:
        if self.finished:
            # A pause is for the run in which somebody asked for it; but for all of that.
            self.paused = False
        self._reopen([self._graph.index[component] for component in event.components])
        self.run = event.run

    def _reopen(self, chosen: Iterable[Vertex]) -> None:
        """Changes that failed wait again, and the build goes on with whatever else failed."""
        # What is not persisted yet of a late success must not come behind what becomes of it now.
        names = {self._graph.ids[vertex] for vertex in chosen}
        self.unpersisted = [event for event in self.unpersisted if event.component not in names]
        self.finished = self.cancelled = self.draining = False
        for vertex in chosen:
            self.phases.reopen(vertex)
            self.attempts.forgive(vertex)
            self.ledger.reopen(vertex)
        for vertex in self.phases.within(Phase.SKIPPED):
            self.phases.reopen(vertex)
        errored = self.phases.within(Phase.ERRORED)
        self.forgiven = len(errored)
        self.cause = None
        for vertex in errored:
            self._reckon(vertex, str(self.ledger.error(vertex)))

    def _reckon(self, vertex: Vertex, error: str) -> None:
        """A change has failed: the build is halted by that, or goes on without what depends on it."""
        if self.cause is None:
            self.cause = f"{self._graph.ids[vertex]}: {error}"
        if self.phases.counts[Phase.ERRORED] > self.forgiven + self._policy.most_failures:
            self.draining = True
        else:
            self._skip_behind(vertex)

    def _skip_again(self) -> None:
        """Something is completed after all: what was skipped behind it may be due."""
        for dependent in self.phases.within(Phase.SKIPPED):
            self.phases.reopen(dependent)
        for errored in self.phases.within(Phase.ERRORED):
            self._skip_behind(errored)

    def _skip_behind(self, vertex: Vertex) -> None:
        todo = [vertex]
        while todo:
            for dependent in self._graph.dependents[todo.pop()]:
                if self.phases[dependent] is Phase.WAITING:
                    self.phases.move(dependent, Phase.SKIPPED)
                    self.skips.append(dependent)
                    todo.append(dependent)

    _WRITERS: ClassVar[Mapping[type[Event], Callable[..., None]]] = {
        Started: _start,
        Sent: _send,
        Withdrawn: _withdraw,
        Retrying: _retry,
        Settled: _settle,
        Finished: _finish,
        Cancelled: _cancel,
        Paused: _pause,
        Unpaused: _unpause,
        Limited: _limit,
        Supplied: _supply,
        Retried: _resume,
    }
    """What writes each event; those that are missing change nothing of how a build stands."""
