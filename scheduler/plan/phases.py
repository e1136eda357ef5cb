"""Where each change of a build stands, and the table of where it may go from there."""

from collections.abc import Sequence
from enum import Enum

from scheduler.definition.graph import Vertex
from scheduler.definition.model import State
from scheduler.errors import IllegalTransition


class Phase(Enum):
    """Where a change stands inside; on the wire some of these look the same."""

    WAITING = "waiting"
    STARTING = "starting"
    """Its request is ready, and is being persisted."""
    RUNNING = "running"
    """Its request was handed to the bus."""
    RETRYING = "retrying"
    """An attempt has failed, and another one will follow after a pause."""
    COMPLETED = "completed"
    ERRORED = "errored"
    SKIPPED = "skipped"
    """Something that it depends on has failed: it will not be sent, although the build goes on."""

    # Used as keys thousands of times a second; what Enum has instead is written in Python.
    __hash__ = object.__hash__

    @property
    def state(self) -> State:
        """What it is called on the wire: a build that is over knows neither pauses nor what was skipped."""
        return _STATES[self]


_STATES = {
    Phase.WAITING: State.WAITING,
    Phase.STARTING: State.RUNNING,
    Phase.RUNNING: State.RUNNING,
    Phase.RETRYING: State.WAITING,
    Phase.COMPLETED: State.COMPLETED,
    Phase.ERRORED: State.ERRORED,
    Phase.SKIPPED: State.WAITING,
}
_LEGAL = {
    Phase.WAITING: {Phase.STARTING, Phase.COMPLETED, Phase.ERRORED, Phase.SKIPPED},
    Phase.STARTING: {Phase.RUNNING, Phase.WAITING, Phase.RETRYING, Phase.COMPLETED},
    Phase.RUNNING: {Phase.COMPLETED, Phase.ERRORED, Phase.WAITING, Phase.RETRYING},
    Phase.RETRYING: {Phase.STARTING, Phase.COMPLETED, Phase.ERRORED},
    # From these an operator alone leads away: see `Phases.reopen`.
    Phase.ERRORED: set[Phase](),
    Phase.SKIPPED: set[Phase](),
    Phase.COMPLETED: set[Phase](),
}
IN_FLIGHT = frozenset({Phase.STARTING, Phase.RUNNING})
_ENDED = {Phase.ERRORED, Phase.SKIPPED}
SETTLED = frozenset({Phase.COMPLETED, Phase.ERRORED})


class Phases:
    """The phase of every change of one build, and how many there are of each."""

    def __init__(self, ids: Sequence[str]) -> None:
        self._ids = ids
        self._phases = [Phase.WAITING] * len(ids)
        self.counts = dict.fromkeys(Phase, 0) | {Phase.WAITING: len(ids)}
        """How many changes are in each phase."""

    def __getitem__(self, vertex: Vertex) -> Phase:
        return self._phases[vertex]

    def __len__(self) -> int:
        return len(self._phases)

    @property
    def in_flight(self) -> int:
        """How many changes are in flight."""
        return self.counts[Phase.STARTING] + self.counts[Phase.RUNNING]

    @property
    def settled(self) -> int:
        """How many changes have an outcome."""
        return self.counts[Phase.COMPLETED] + self.counts[Phase.ERRORED]

    def within(self, *phases: Phase) -> list[Vertex]:
        """The changes that are in one of these."""
        return [vertex for vertex, phase in enumerate(self._phases) if phase in phases]

    def move(self, vertex: Vertex, phase: Phase) -> None:
        """A change goes on.

        Raises:
            IllegalTransition: not from where it stands; nothing was changed.
        """
        before = self._phases[vertex]
        if phase not in _LEGAL[before]:
            msg = f"{self._ids[vertex]} cannot go from {before.name} to {phase.name}"
            raise IllegalTransition(msg)
        self._set(vertex, before, phase)

    def reopen(self, vertex: Vertex) -> None:
        """A change that failed, or was skipped, waits again.

        Raises:
            IllegalTransition: it did neither; nothing was changed.
        """
        before = self._phases[vertex]
        if before not in _ENDED:
            msg = f"{self._ids[vertex]} is {before.name}, and needs not be done again"
            raise IllegalTransition(msg)
        self._set(vertex, before, Phase.WAITING)

    def _set(self, vertex: Vertex, before: Phase, phase: Phase) -> None:
        self._phases[vertex] = phase
        self.counts[before] -= 1
        self.counts[phase] += 1
