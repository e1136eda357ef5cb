"""The state of a build, and how each event of its log changes it.

`PlanState.apply` is the only writer, live and on replay: the plan decides on an event, applies it, and
returns it to be persisted. So a replay cannot differ from the live run, and everything that changes the state
of a build is in this file.

Some changes are not events:

- `halt`: only this process knows that its log cannot be written.
- `stop`: only this process knows that it is to end.
- `depart`: a request has left. The log is told later, if at all.
- `take_back`: a start is undone before any of it was persisted.
- `take_over`: a store without a log describes an earlier process by the build's own states.

`skips` and `unpersisted` are lists that the driver of the plan empties.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar

from scheduler.definition.graph import Graph, Vertex
from scheduler.definition.limits import Limits
from scheduler.definition.model import UNSENT, Action, Build, State
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
    """The state of one build.

    Args:
        build: the build as it was accepted.
        graph: its dependencies.
        policy: its rules for failures and limits.
        limits: bounds on incoming texts.
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
        "halted",
        "held",
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
        """Phase of each change."""
        self.attempts = AttemptCounts()
        self.ledger = Ledger(build, graph, limits)
        """Components that exist, and changes as they are kept."""
        self.cause: str | None = None
        """Error of the build as it is to be reported; None while there is none."""
        self.draining = False
        """Whether nothing new is sent any more, because of a failure or a command."""
        self.stopped = False
        """Whether this process is to end. That halts the build, but is no failure of it."""
        self.paused = False
        """Whether an operator has paused the build."""
        # Asked for each change; changed a few times in a build (`_note_hold`).
        self.halted = False
        """Whether nothing new may be sent any more."""
        self.held = False
        """Whether nothing new may be sent now."""
        self.cancelled = False
        """Whether an operator has cancelled the build."""
        self.finished = False
        """Whether an earlier process persisted the end of the run."""
        self.run = 1
        """Number of the run: 1, and one more each time that a finished build is retried."""
        self.rules: tuple[LimitRule, ...] = policy.limits
        """Limits of the build itself."""
        self.forgiven = 0
        """Number of failures that an operator has accepted."""
        self.last_errors: dict[Vertex, str] = {}
        """Error of the last attempt, for changes that are tried again."""
        self.outputs: dict[Vertex, Document] = {}
        """Output that an operator supplied, for changes that are not due yet."""
        self.adoptable: dict[Vertex, Document] = {}
        """Body of the late success, for changes that had failed."""
        self.unpersisted: list[Settled] = []
        """Outcomes still to be persisted, beside those that the plan returns."""
        self.skips: list[Vertex] = []
        """Changes skipped because of a failure before them, since the driver last took the list."""
        for vertex, change in enumerate(build.changes):
            if change.state is State.COMPLETED:
                self.phases.move(vertex, Phase.COMPLETED)

    @property
    def over(self) -> bool:
        """Whether the run has come to its end: nothing is in flight, and nothing is left to be done."""
        counts = self.phases.counts
        if self.phases.in_flight or counts[Phase.RETRYING]:
            return False
        return self.draining or not counts[Phase.WAITING]

    def take_skips(self) -> list[Vertex]:
        """Take the changes that were skipped because of a failure before them, since the last call."""
        skips, self.skips = self.skips, []
        return skips

    def apply(self, event: Event) -> None:
        """Apply an event to the state.

        Args:
            event: the event; a completion comes with its effect on the components (`Ledger.completion`).

        Raises:
            IllegalTransition: the event cannot have happened.
        """
        write = self._WRITERS.get(type(event))
        if write is not None:
            write(self, event)

    # Changes that are not events.

    def halt(self, cause: str) -> None:
        """Send nothing new from now on. The first cause is kept: it is the one reported."""
        self.draining = True
        self._note_hold()
        if self.cause is None:
            self.cause = cause

    def stop(self) -> None:
        """Send nothing new from now on: this process is to end."""
        self.stopped = True
        self._note_hold()

    def _note_hold(self) -> None:
        """Note what follows from `stopped`, `draining` and `paused`, after each change of them."""
        self.halted = self.stopped or self.draining
        self.held = self.halted or self.paused

    def take_back(self, vertex: Vertex) -> None:
        """Undo a start of which nothing was persisted: the change waits as before.

        Raises:
            IllegalTransition: the change is not about to be sent.
        """
        again = vertex in self.last_errors and self.attempts.is_between(vertex)
        self.phases.move(vertex, Phase.RETRYING if again else Phase.WAITING)

    def take_over(self) -> None:
        """Start where an earlier process stopped, by the states in the build itself."""
        changes = self._build.changes
        for vertex, change in enumerate(changes):
            if change.state is State.ERRORED:
                self.phases.move(vertex, Phase.ERRORED)
            elif change.state is State.RUNNING and change.action not in UNSENT:
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

    # Changes by event.

    def _start(self, event: Started) -> None:
        self.phases.move(self._graph.index[event.component], Phase.STARTING)

    def depart(self, vertex: Vertex) -> None:
        """Note that a request has left, or may have, as `Sent` says. Repeating it changes nothing."""
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
            if phase in IN_FLIGHT or self._build.changes[vertex].action is Action.APPROVE:
                # The number is used up: sending the change again in another run is another attempt, and so
                # is asking a person again.
                self.attempts.fail(vertex)
            self.outputs.pop(vertex, None)
            self.ledger.keep(vertex, body)
            self._reckon(vertex, str(body.get("error")))

    def _finish(self, event: Finished) -> None:
        # The first cause may be one without an event, such as a failing store.
        self.finished, self.cause = True, event.error
        counts = self.phases.counts
        left = self.phases.in_flight + counts[Phase.WAITING] + counts[Phase.RETRYING]
        self.draining = self.draining or bool(left)
        self._note_hold()

    def _cancel(self, event: Cancelled) -> None:
        self.cancelled = True
        self.paused = False
        self.halt(event.cause)

    def _pause(self, event: Paused | Unpaused) -> None:
        self.paused = isinstance(event, Paused)
        self._note_hold()

    def _limit(self, event: Limited) -> None:
        self.rules = read_limits(event.limits)

    def _supply(self, event: Supplied) -> None:
        vertex = self._graph.index[event.component]
        if self.phases[vertex] is Phase.ERRORED:
            self._reopen([vertex])
        if self.phases[vertex] is Phase.SKIPPED:
            # Skipped before, or skipped again: another dependency has failed as well.
            self.phases.reopen(vertex)
        self.outputs[vertex] = event.output

    def _resume(self, event: Retried) -> None:
        if self.finished:
            # A pause belongs to the run in which it was asked for, and to all of it.
            self.paused = False
        self._reopen([self._graph.index[component] for component in event.components])
        self.run = event.run

    def _reopen(self, chosen: Iterable[Vertex]) -> None:
        """Set failed changes back to waiting, and continue despite all other failures."""
        # A late success that is not persisted yet must not come after what the change becomes now.
        names = {self._graph.ids[vertex] for vertex in chosen}
        self.unpersisted = [event for event in self.unpersisted if event.component not in names]
        self.finished = self.cancelled = self.draining = False
        self._note_hold()
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
        """Account for a failure: it halts the build, or skips everything that depends on the change."""
        if self.cause is None:
            self.cause = f"{self._graph.ids[vertex]}: {error}"
        if self.phases.counts[Phase.ERRORED] > self.forgiven + self._policy.most_failures:
            self.draining = True
            self._note_hold()
        else:
            self._skip_behind(vertex)

    def _skip_again(self) -> None:
        """Find the skipped changes again after a completion: some of them may be due now."""
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
        Unpaused: _pause,
        Limited: _limit,
        Supplied: _supply,
        Retried: _resume,
    }
    """Method for each type of event; an event without one does not change the state."""
