"""The phase of each change of a build, and the table of legal transitions."""

from collections.abc import Iterator, Sequence
from enum import Enum

from scheduler.definition.graph import Vertex
from scheduler.definition.model import State
from scheduler.errors import IllegalTransition


class Phase(Enum):
    """Phase of a change inside the plan. On the wire some of these look the same."""

    WAITING = "waiting"
    STARTING = "starting"
    """The request is ready, and is being persisted."""
    RUNNING = "running"
    """The request was handed to the bus."""
    RETRYING = "retrying"
    """An attempt has failed; another one follows after a pause."""
    COMPLETED = "completed"
    ERRORED = "errored"
    SKIPPED = "skipped"
    """A dependency has failed: the change will not be sent, although the build continues."""

    # Used as a dictionary key thousands of times a second; Enum's own is written in Python.
    __hash__ = object.__hash__

    @property
    def state(self) -> State:
        """State on the wire. There is no pause between attempts in it, and nothing is skipped."""
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
    # Only an operator leads away from these: see `Phases.reopen`.
    Phase.ERRORED: set[Phase](),
    Phase.SKIPPED: set[Phase](),
    Phase.COMPLETED: set[Phase](),
}
IN_FLIGHT = frozenset({Phase.STARTING, Phase.RUNNING})
TO_BE_TRIED = frozenset({Phase.WAITING, Phase.RETRYING})
_ENDED = {Phase.ERRORED, Phase.SKIPPED}
SETTLED = frozenset({Phase.COMPLETED, Phase.ERRORED})


class Phases(list[Phase]):
    """Phases of all changes of one build by vertex, and the number of changes in each.

    A list, as they are looked up dozens of times for each change; only `move` and `reopen` write into it.
    """

    __slots__ = ("_ids", "counts")

    def __init__(self, ids: Sequence[str]) -> None:
        super().__init__([Phase.WAITING] * len(ids))
        self._ids = ids
        self.counts = dict.fromkeys(Phase, 0) | {Phase.WAITING: len(ids)}
        """Number of changes in each phase."""

    @property
    def in_flight(self) -> int:
        """Number of changes in flight."""
        return self.counts[Phase.STARTING] + self.counts[Phase.RUNNING]

    @property
    def settled(self) -> int:
        """Number of settled changes."""
        return self.counts[Phase.COMPLETED] + self.counts[Phase.ERRORED]

    def shown(self) -> dict[str, int]:
        """Return the number of changes in each state, for people: a change about to be sent is running."""
        counts = self.counts
        return {
            "waiting": counts[Phase.WAITING],
            "running": self.in_flight,
            "retrying": counts[Phase.RETRYING],
            "completed": counts[Phase.COMPLETED],
            "errored": counts[Phase.ERRORED],
            "skipped": counts[Phase.SKIPPED],
        }

    def unsettled(self) -> list[Vertex]:
        """Return the changes that have no outcome yet, and may get one."""
        return self.within(Phase.WAITING, Phase.STARTING, Phase.RUNNING, Phase.RETRYING)

    def is_in_flight(self, vertex: Vertex) -> bool:
        """Whether a change is in flight; before the walk begins: by an earlier process."""
        return self[vertex] in IN_FLIGHT

    def is_starting(self, vertex: Vertex) -> bool:
        """Whether a change is about to be sent."""
        return self[vertex] is Phase.STARTING

    def in_flight_ids(self) -> Iterator[str]:
        """Yield the ids of the changes in flight."""
        return (self._ids[vertex] for vertex in self.within(*IN_FLIGHT))

    def within(self, *phases: Phase) -> list[Vertex]:
        """Return the changes in one of these phases, in order."""
        return [vertex for vertex, phase in enumerate(self) if phase in phases]

    def move(self, vertex: Vertex, phase: Phase) -> None:
        """Move a change to another phase.

        Raises:
            IllegalTransition: the table does not allow it; nothing was changed.
        """
        before = self[vertex]
        if phase not in _LEGAL[before]:
            msg = f"{self._ids[vertex]} cannot go from {before.name} to {phase.name}"
            raise IllegalTransition(msg)
        self[vertex] = phase
        self.counts[before] -= 1
        self.counts[phase] += 1

    def reopen(self, vertex: Vertex) -> None:
        """Set a failed or skipped change back to waiting.

        Raises:
            IllegalTransition: the change is neither; nothing was changed.
        """
        before = self[vertex]
        if before not in _ENDED:
            msg = f"{self._ids[vertex]} is {before.name}, and needs not be done again"
            raise IllegalTransition(msg)
        self[vertex] = Phase.WAITING
        self.counts[before] -= 1
        self.counts[Phase.WAITING] += 1
