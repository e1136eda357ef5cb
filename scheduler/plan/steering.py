"""What an operator does with a build while it runs, or after it has failed."""

from collections.abc import Iterable, Mapping
from typing import Any

from scheduler.definition.graph import Vertex
from scheduler.definition.model import Action, State
from scheduler.definition.rules import read_limits
from scheduler.definition.template import Laborious
from scheduler.errors import Refused, TemplateError
from scheduler.journal.events import Cancelled, Event, Limited, Paused, Retried, Supplied, Unpaused
from scheduler.plan.course import Course
from scheduler.plan.phases import Phase

_LONGEST_REASON = 4_000
"""Characters that an operator may say."""
_OF_A_REPLY = "the reply's "


class Steered(Course):
    """A course that can be steered.

    Whatever is asked for takes effect at once; what is to be persisted of it is returned.
    """

    __slots__ = ()

    def cancel(self, reason: str = "") -> list[Event]:
        """Send nothing new; what is in flight is awaited. Returns what is to be persisted.

        Raises:
            Refused: it was cancelled before.
        """
        if self.cancelled:
            raise Refused("conflict", "it was cancelled before, and what is in flight is awaited")
        # No connector's words: what an operator says is kept without secrets.
        cause = f"cancelled: {self._text(self.masked(reason, _LONGEST_REASON))}" if reason else "cancelled"
        self._cancel(cause)
        return [Cancelled(cause)]

    def _cancel(self, cause: str) -> None:
        self.cancelled = True
        self.paused = False
        self.halt(cause)

    def pause(self, *, on: bool) -> list[Event]:
        """Send nothing new for now, or go on; returns what is to be persisted.

        Raises:
            Refused: so it is already, or nothing is sent any more anyhow.
        """
        if on and self._halted:
            raise Refused("conflict", f"nothing new is sent any more: {self.shown_cause}")
        if on is self.paused:
            raise Refused("conflict", "it is paused already" if on else "it is not paused")
        self.paused = on
        return [Paused() if on else Unpaused()]

    def retry(self, vertex: Vertex | None = None) -> list[Event]:
        """Have a change sent again that has failed, or all of them; after the end of the build in a new run.

        A late success that was kept beside an error is adopted instead. What has failed and is not sent again
        was seen by whoever asks for this: the build goes on without it, and without what depends on it.

        Returns:
            What is to be persisted, in this order.

        Raises:
            Refused: it makes no sense.
        """
        failed = self.phases.within(Phase.ERRORED)
        if vertex is not None and vertex not in failed:
            name, phase = self.graph.ids[vertex], self.phases[vertex].value
            raise Refused("conflict", f"{name} is {phase}: only what has failed can be tried again")
        if self.finished and self.settled - len(failed) == len(self.phases):
            raise Refused("conflict", "every component is completed: there is nothing to be tried again")
        if not self.finished and self.cancelled:
            raise Refused("conflict", "it was cancelled; try again when what is in flight has ended")
        if not self.finished and not failed:
            raise Refused("conflict", "no component has failed")
        chosen = failed if vertex is None else [vertex]
        events: list[Event] = [self._reopen(chosen)]
        for one in chosen:
            if one in self._adoptable:
                self._move(one, Phase.COMPLETED)
                events.append(self._ledger.complete(one, self._adoptable.pop(one)))
        return events

    def supply(self, vertex: Vertex, output: Mapping[str, Any]) -> list[Event]:
        """Have a change complete with an output that an operator supplies, without being sent (again).

        What waits for its dependencies completes when it is due; everything else at once. Where the build was
        over, a new run begins.

        Returns:
            What is to be persisted, in this order.

        Raises:
            Refused: it is completed; it has failed in a build that is cancelled, and not over yet; or it is a
                ``find``, and the output is none that its connector could return.
            Laborious: it takes long to render it (`Course.rendering`), and nothing was changed.
        """
        phase = self.phases[vertex]
        name = self.graph.ids[vertex]
        if phase is Phase.COMPLETED:
            raise Refused("conflict", f"{name} is completed already")
        change = self.build.changes[vertex]
        if change.action is Action.FIND:
            # As it will be merged: what a connector would be refused for, an operator is, too.
            refusal = self._ledger.checked_find({**change.fields, **output}).error
            if refusal is not None:
                raise Refused("invalid", f"output: {refusal.removeprefix(_OF_A_REPLY)}")
        if phase is Phase.ERRORED and self.cancelled and not self.finished:
            raise Refused("conflict", "it was cancelled; try again when what is in flight has ended")
        if phase is not Phase.WAITING or self.finished:
            self._render_first(vertex)
        self._learn_secrets(vertex, output)
        events: list[Event] = []
        if self.finished:
            events.append(self._reopen([vertex] if phase is Phase.ERRORED else []))
            if phase is Phase.WAITING:
                # In this run the build goes on without what is behind a failure.
                phase = self.phases[vertex]
        elif phase is Phase.ERRORED:
            self._reopen([vertex])
        events.append(Supplied(name, output))
        if phase is Phase.WAITING:
            self._outputs[vertex] = output
        else:
            events.append(self._complete_with(vertex, output))
        self.let_go(vertex)
        return events

    def limit(self, limits: Mapping[str, int | str]) -> list[Event]:
        """Give the build other limits of its own; returns what is to be persisted.

        Raises:
            InvalidRule: they cannot be read.
        """
        self.rules = read_limits(limits)
        return [Limited(limits)]

    def _render_first(self, vertex: Vertex) -> None:
        """See to it that a change is rendered, as well as it can be, before anything is changed."""
        try:
            self.take_in(vertex, self._rendered(vertex))
        except Laborious:
            raise
        except TemplateError as error:
            self.take_in(vertex, str(error))

    def _learn_secrets(self, vertex: Vertex, output: Mapping[str, Any]) -> None:
        change = self.build.changes[vertex]
        # As it is kept: the type and `_secret` say what is secret, too.
        self._secrets.add(
            self._ledger.identified(
                vertex, output, State.COMPLETED, type_=change.type, provider=change.provider
            )
        )

    def _reopen(self, chosen: Iterable[Vertex]) -> Retried:
        """Have changes that failed wait again, and let the build go on with whatever else failed."""
        chosen = list(chosen)
        # What is not persisted yet of a late success must not come behind what becomes of it now.
        names = {self.graph.ids[vertex] for vertex in chosen}
        self._unpersisted = [event for event in self._unpersisted if event.component not in names]
        if self.finished:
            self.run += 1
            # A pause is for the run in which somebody asked for it; but for all of that.
            self.paused = False
        self.finished = self.cancelled = self._halted = False
        for vertex in chosen:
            self.phases.reopen(vertex)
            self._attempts.forgive(vertex)
            self._ledger.reopen(vertex)
        for vertex in self.phases.within(Phase.SKIPPED):
            self.phases.reopen(vertex)
        errored = self.phases.within(Phase.ERRORED)
        self._forgiven = len(errored)
        self.cause = None
        for vertex in errored:
            self._reckon(vertex, str(self._ledger.error(vertex)))
        return Retried(tuple(self.graph.ids[vertex] for vertex in chosen), self.run)
