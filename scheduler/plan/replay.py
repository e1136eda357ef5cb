"""Going on where an earlier process stopped: the plan as the log of a build says that it stood."""

from collections.abc import Mapping
from typing import Any

from scheduler.definition.graph import Vertex
from scheduler.definition.limits import DEFAULT_LIMITS, Limits
from scheduler.definition.model import State
from scheduler.definition.rules import Retries, read_limits
from scheduler.definition.template import Laborious
from scheduler.definition.validation import Prepared
from scheduler.errors import TemplateError
from scheduler.journal.events import (
    Cancelled,
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
from scheduler.plan.phases import IN_FLIGHT, Phase
from scheduler.plan.steering import Steered


class Plan(Steered):
    """Drives one build from its acceptance to its report; see `Course` for what it is made of."""

    __slots__ = ("unlearned",)

    def __init__(
        self,
        prepared: Prepared,
        *,
        resumed: bool = False,
        limits: Limits = DEFAULT_LIMITS,
        retries: Retries = (),
        mark: str = "",
    ) -> None:
        super().__init__(prepared, resumed=resumed, limits=limits, retries=retries, mark=mark)
        self.unlearned: list[Vertex] = []
        """Changes whose requests may hold secrets, and take long to be rendered: to be rendered elsewhere
        (`rendering`), and told to `learn_request`."""

    def replay(self, event: Event) -> None:
        """Take in what the log of an earlier process says; to be done in order, before anything else.

        Raises:
            IllegalTransition: it cannot have happened.
        """
        index = self.graph.index
        match event:
            case Started(component=component):
                self._move(index[component], Phase.STARTING)
                self._learn_request(index[component])
            case Sent(component=component):
                self.departed(index[component])
            case Withdrawn(component=component):
                self._move(index[component], Phase.WAITING)
            case Settled(component=component, body=body):
                self._replay_outcome(index[component], body)
            case Retrying(component=component, error=error):
                self._attempts.fail(index[component])
                self._last_errors[index[component]] = error
                self._move(index[component], Phase.RETRYING)
            case Finished(error=error):
                # The first cause may be one that no event tells: the store failed, say.
                self.finished, self.cause = True, error
                self._halted = self._halted or bool(self.unsettled())
            case Cancelled(cause=cause):
                self._cancel(cause)
            case Paused():
                self.paused = True
            case Unpaused():
                self.paused = False
            case Retried(components=components, run=run):
                self._reopen(index[component] for component in components)
                self.run = run
            case Supplied(component=component, output=output):
                self._replay_supply(index[component], output)
            case Limited(limits=limits):
                self.rules = read_limits(limits)
            case _:
                pass
        self._skips.clear()

    def _learn_request(self, vertex: Vertex) -> None:
        """What was sent may hold secrets that an error quotes, and that stand in no reply."""
        if self.build.changes[vertex].sensitive:
            # The request itself is of no use here.
            try:
                self.request(vertex)
            except Laborious:
                self.unlearned.append(vertex)
            except TemplateError:
                # It cannot be told what was sent: no more is known of it than was submitted.
                pass

    def learn_request(self, vertex: Vertex) -> None:
        """Of one of the `unlearned`, which was rendered elsewhere (`take_in`)."""
        try:
            self.request(vertex)
        except TemplateError:
            # As above.
            pass
        finally:
            self.let_go(vertex)

    def _replay_outcome(self, vertex: Vertex, body: Mapping[str, Any]) -> None:
        phase = self.phases[vertex]
        completed = body["_state"] == State.COMPLETED
        supplied = self._outputs.pop(vertex, None) is not None
        self._secrets.add(body)
        if phase is Phase.ERRORED and not completed and "adoptable" in body:
            self._adoptable[vertex] = body["adoptable"]
            self._ledger.keep(vertex, body)
            return
        if phase is Phase.STARTING:
            self._move(vertex, Phase.RUNNING)
        if phase in IN_FLIGHT and not completed:
            # Its number is used up: where it is sent again in another run, that is another attempt.
            self._attempts.fail(vertex)
        if completed:
            self._move(vertex, Phase.COMPLETED)
            if supplied:
                self._skip_anew()
            self._ledger.complete(vertex, body)
        else:
            self._move(vertex, Phase.ERRORED)
            self._ledger.keep(vertex, body)
            self._reckon(vertex, str(body.get("error")))

    def _replay_supply(self, vertex: Vertex, output: Mapping[str, Any]) -> None:
        if self.phases[vertex] is Phase.ERRORED:
            self._reopen([vertex])
        elif self.phases[vertex] is Phase.SKIPPED:
            self.phases.reopen(vertex)
        self._learn_secrets(vertex, output)
        self._outputs[vertex] = output
