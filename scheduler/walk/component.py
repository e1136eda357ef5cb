"""The run of one component, from when it is due until it has settled: data, without decisions.

There is one object for each component that is being worked on; components that still wait for their
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
    """Stage of a component in the line-up."""

    NOWHERE = 0
    QUEUED = 1
    """In the queue for slots."""
    PARKED = 2
    """Ready to begin, but for a pause of the build."""
    GRANTED = 3
    """Has its slots, and begins as soon as everything before it in the line-up has."""
    LABORIOUS = 4
    """As granted, but has to be rendered beside the loop first."""
    BEGUN = 5
    """Has begun, or ended without being sent; its task has still to take notice."""


class Start:
    """A request between its start and its departure."""

    __slots__ = ("call", "command", "left", "number", "request")

    def __init__(self, request: Request, number: int, command: trio.Event | None) -> None:
        self.request = request
        self.number = number
        """Number of its start in the journal, for `Recording.persisted`."""
        self.command = command
        """Event that is set once the operator's command that may have made it begin is persisted; None where
        there was none."""
        self.left = False
        """Whether its departure was decided: it has left, or never will."""
        self.call: Call | None = None
        """Attempt, where the request has left."""


class ComponentRun:
    """State of one component that is due, in flight, or waits for another attempt.

    Args:
        vertex: the component.
    """

    __slots__ = (
        "bytes",
        "call",
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
        "vertex",
        "waiter",
        "waits",
    )

    def __init__(self, vertex: Vertex) -> None:
        self.vertex = vertex
        self.due = False
        """Whether all its dependencies have settled, and it was entered into the line-up."""

        # In the line-up.
        self.stage = Stage.NOWHERE
        self.number = 0
        """Place in the line-up: the smallest begins first."""
        self.waiter: Waiter | None = None
        """Place in the queue for slots, while it is queued."""
        self.start: Start | None = None
        """Request that its task is to see through, where it has begun and is to be sent."""

        # Slots.
        self.subject = ""
        """Subject whose slots it holds; empty where it holds none."""
        self.bytes = 0
        """Room in flight that it holds, in bytes."""
        self.supplied_subject = ""
        """Subject of its request, where references supply it and have been resolved."""

        # Attempts.
        self.call: Call | None = None
        """Attempt in flight."""
        self.resumed: Call | Settled | None = None
        """Attempt of an earlier process, or its outcome, until its task looks at it."""
        self.retry_at: float | None = None
        """Time at which the next attempt is due (Trio's clock, seconds)."""
        self.first_sent: float | None = None
        """Time at which its first attempt was sent (Trio's clock, seconds), where there may be another. Moved
        by pauses of the build during which it was not in flight: they do not count for ``total_timeout``."""
        self.held_since: float | None = None
        """Time since which its time stands still, as the build is paused (Trio's clock, seconds)."""
        self.waits: tuple[trio.CancelScope, ...] = ()
        """Scopes of waits before it begins: for another attempt, the end of a pause, a slot, its rendering.
        Of several where two tasks find out its subject: one enters it into the line, and another as well."""
        self.early: tuple[Request, Outcome] | None = None
        """Late success of one attempt that came while the next one was about to be sent."""
        self.rescued: Settled | None = None
        """Outcome of a late success that came while it waited for another attempt; still to be persisted."""

    def take_slots(self) -> Held:
        """Return the slots that it holds, to be given back; it holds none from now on."""
        subject, size = self.subject, self.bytes
        if not subject:
            return None
        self.subject, self.bytes = "", 0
        return subject, size

    def start_over(self) -> None:
        """Forget the attempts so far, as an operator retries the component."""
        self.retry_at = self.first_sent = None


class Runs(dict[Vertex, ComponentRun]):
    """Component runs of one build by vertex, in the order in which they were made; and its calls.

    A look-up by ``runs[vertex]`` makes a run where there is none; `get` returns None then.
    """

    __slots__ = ("calls", "waiting")

    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[Call, float] = {}
        """Attempts in flight, the oldest first, and since when (Trio's clock, seconds)."""
        self.waiting: dict[trio.CancelScope, None] = {}
        """Scopes of the waits that end when there is news of the build or the component."""

    def __missing__(self, vertex: Vertex) -> ComponentRun:
        run = self[vertex] = ComponentRun(vertex)
        return run

    def call_of(self, vertex: Vertex) -> Call | None:
        """Return the attempt of a component that is in flight; None where there is none."""
        run = self.get(vertex)
        if run is None:
            return None
        return run.resumed if isinstance(run.resumed, Call) else run.call

    @contextmanager
    def interruptible(self, run: ComponentRun) -> Iterator[None]:
        """Cancel the wait in this block when there is news of the component, or the build is halted."""
        scope = trio.CancelScope()
        run.waits = (*run.waits, scope)
        self.waiting[scope] = None
        try:
            with scope:
                yield
        finally:
            run.waits = tuple(one for one in run.waits if one is not scope)
            del self.waiting[scope]
