"""The run of one component, from when it is due until it has settled: data, without decisions.

One object for each component that somebody has something to do with; those that still wait for their
dependencies have none. So a build of 10,000 components with ten in flight keeps little more than ten.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Final, TypeAlias

import trio

from scheduler.definition.graph import Vertex
from scheduler.dispatch.call import Call
from scheduler.dispatch.slots import Waiter
from scheduler.journal.events import Settled
from scheduler.plan import Phase, Request
from scheduler.plan.outcome import Outcome

OVER: Final = frozenset({Phase.COMPLETED, Phase.ERRORED, Phase.SKIPPED})
"""Phases that a component leaves only by an operator's command."""
Held: TypeAlias = tuple[str, int] | None
"""Slots that a component holds: the subject of its request, and its bytes in flight."""


class Stage(Enum):
    """Where a component stands in the line of those that are to begin."""

    NOWHERE = 0
    QUEUED = 1
    """In the queue for slots."""
    PARKED = 2
    """It could begin if the build were not paused."""
    GRANTED = 3
    """It has its slots, and begins as soon as everything before it in the line has."""
    LABORIOUS = 4
    """As granted, but it is to be rendered beside the loop first."""
    BEGUN = 5
    """It has begun, or turned out not to; its task has still to take notice."""


class Start:
    """A request between its start and its leaving."""

    __slots__ = ("call", "command", "left", "number", "request")

    def __init__(self, request: Request, number: int, command: trio.Event | None) -> None:
        self.request = request
        self.number = number
        """The number under which the recorder knows its start."""
        self.command = command
        """Set once the operator's command is persisted that may have made it begin; None: there was none."""
        self.left = False
        """Whether it was decided that it leaves, or that it never will."""
        self.call: Call | None = None
        """The attempt, where it has left."""


class ComponentRun:
    """What a walk knows of one component that is due, in flight, or waits for another attempt.

    Args:
        vertex: the component.
    """

    __slots__ = (
        "bytes",
        "call",
        "called",
        "due",
        "early",
        "first_sent",
        "held_since",
        "number",
        "rescued",
        "resumed",
        "retry_at",
        "stage",
        "start",
        "subject",
        "supplied_subject",
        "turn",
        "vertex",
        "wait",
        "waiter",
    )

    def __init__(self, vertex: Vertex) -> None:
        self.vertex = vertex
        self.due = False
        """Whether all its dependencies have settled, and it was entered into the line."""

        # In the line.
        self.stage = Stage.NOWHERE
        self.number = 0
        """The place in the line: the smallest begins first."""
        self.called = False
        """Whether its task was woken to begin it."""
        self.waiter: Waiter | None = None
        """The place in the queue for slots, while it is queued."""
        self.turn: trio.Event | None = None
        """Set to have its task look again; there while the task waits for its turn."""
        self.start: Start | None = None
        """The request that its task is to see through, where it has begun and is sent."""

        # Slots.
        self.subject = ""
        """The subject whose slots it holds; empty: none."""
        self.bytes = 0
        """The room in flight that it holds, in bytes."""
        self.supplied_subject = ""
        """The subject of its request where references supply it, and it was found out."""

        # Attempts.
        self.call: Call | None = None
        """The attempt in flight."""
        self.resumed: Call | Settled | None = None
        """What an earlier process sent, until its task looks at it."""
        self.retry_at: float | None = None
        """When the next attempt is due (Trio's clock, seconds)."""
        self.first_sent: float | None = None
        """When its first attempt was sent (Trio's clock, seconds), where there may be another; later by the
        pauses of the build in which it waited for another attempt: those count for no ``total_timeout``."""
        self.held_since: float | None = None
        """Since when time stands still for it, as the build is paused (Trio's clock, seconds)."""
        self.wait: trio.CancelScope | None = None
        """The wait before it begins: for another attempt, the end of a pause, a slot, or its rendering."""
        self.early: tuple[Request, Outcome] | None = None
        """A late success of one attempt that came while the next one was about to be sent."""
        self.rescued: Settled | None = None
        """The outcome by a late success that came while it waited for another attempt, to be persisted."""

    def call_up(self) -> None:
        """Have its task look again whether its turn has come, where it waits for that."""
        turn, self.turn = self.turn, None
        if turn is not None:
            turn.set()

    def take_slots(self) -> Held:
        """Return what it holds, to be given back; it holds nothing from now on."""
        subject, size = self.subject, self.bytes
        if not subject:
            return None
        self.subject, self.bytes = "", 0
        return subject, size

    def start_over(self) -> None:
        """Forget the attempts so far: an operator has the component done again."""
        self.retry_at = self.first_sent = None


class Runs(dict[Vertex, ComponentRun]):
    """The component runs of one build by component, in the order in which they were made; and its calls.

    Looking one up makes it (``runs[vertex]``); with `get` it is None where there is none.
    """

    __slots__ = ("calls", "waiting")

    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[Call, float] = {}
        """All attempts in flight, the oldest first, and since when (Trio's clock, seconds)."""
        self.waiting: dict[ComponentRun, None] = {}
        """Those with a wait that news of the build or the component ends."""

    def __missing__(self, vertex: Vertex) -> ComponentRun:
        run = self[vertex] = ComponentRun(vertex)
        return run

    def call_of(self, vertex: Vertex) -> Call | None:
        """Return the attempt of a component that is in flight, where one is."""
        run = self.get(vertex)
        if run is None:
            return None
        return run.resumed if isinstance(run.resumed, Call) else run.call

    @contextmanager
    def interruptible(self, run: ComponentRun) -> Iterator[None]:
        """End what is awaited in here when there is news of the component, or the build is halted."""
        run.wait = trio.CancelScope()
        self.waiting[run] = None
        try:
            with run.wait:
                yield
        finally:
            run.wait = None
            del self.waiting[run]
