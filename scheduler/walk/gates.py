"""Waits for people: the gates of one build, from when they are reached until they are decided."""

from collections.abc import Collection

import trio

from scheduler.definition.graph import Vertex
from scheduler.definition.template import Laborious
from scheduler.dispatch.timers import Timer
from scheduler.errors import Refused
from scheduler.journal.events import Settled
from scheduler.plan import gates
from scheduler.runtime.interruptible import interruptible
from scheduler.walk.component import OVER, ComponentRun
from scheduler.walk.context import Context
from scheduler.walk.lineup import Lineup
from scheduler.walk.outcomes import Outcomes
from scheduler.walk.resumption import Resumption
from scheduler.walk.starts import Starts


class Gates:
    """Waits of one build for people.

    The time of a gate counts from when it is reached, also while the build is paused, or halted before a
    retry; not while the broker is away.

    Args:
        context: context of the walk.
        resumption: times from its log; None for a new build, and where the store keeps no log.
        lineup: wakes the task of a gate.
        outcomes: books the failure of a gate.
        starts: knows whether the last command of an operator is persisted.
    """

    __slots__ = (
        "_asking",
        "_clocks",
        "_extended",
        "_lineup",
        "_observer",
        "_outcomes",
        "_plan",
        "_renderer",
        "_runs",
        "_starts",
        "_timers",
        "_waited",
    )

    def __init__(
        self,
        context: Context,
        resumption: Resumption | None,
        *,
        lineup: Lineup,
        outcomes: Outcomes,
        starts: Starts,
    ) -> None:
        self._plan = context.plan
        self._observer = context.observer
        self._runs = context.runs
        self._renderer = context.renderer
        self._timers = context.connectors.timers
        self._lineup = lineup
        self._outcomes = outcomes
        self._starts = starts
        # Dicts, as nearly all builds have no gate, and an empty set takes three times as much.
        self._waited: dict[Vertex, float] = {} if resumption is None else dict(resumption.waited)
        """Time for which gates waited in earlier processes, in seconds."""
        self._extended: dict[Vertex, float] = {}
        """Time that operators added to the wait of gates, in seconds."""
        if resumption is not None and self._plan.gates:
            self._extended = {v: more for v, more in resumption.extended.items() if v in self._plan.gates}
        self._clocks: dict[Vertex, Timer] = {}
        """Deadlines of the gates that were reached and have one. One that is cancelled has expired."""
        self._asking: dict[Vertex, None] = {}
        """Gates that wait for a person now."""

    @property
    def asking(self) -> Collection[Vertex]:
        """Gates that wait for a person now, in the order in which they were reached."""
        return self._asking.keys()

    def left(self, vertex: Vertex) -> float | None:
        """Return the seconds until a gate fails; None where it has no deadline, or was not reached here."""
        clock = self._clocks.get(vertex)
        return None if clock is None else max(0.0, clock.due - self._timers.now())

    async def wait(self, run: ComponentRun) -> None:
        """Wait until a gate that is reached is decided, its time is over, or the build is halted."""
        plan, vertex = self._plan, run.vertex
        try:
            failed = await self._examine(run)
            if failed is not None:
                await self._outcomes.keep(failed)
            elif plan.is_due(vertex):
                await self._until_decided(run)
        finally:
            if plan.phases[vertex] in OVER:
                self._forget(vertex)

    async def _examine(self, run: ComponentRun) -> Settled | None:
        """Return the failure of a gate whose references cannot be resolved."""
        plan, vertex = self._plan, run.vertex
        while plan.is_due(vertex):
            try:
                return interruptible.call(plan.build.id, gates.examine, plan, vertex)
            except Laborious:
                with self._runs.interruptible(run):
                    await self._renderer.render_now(vertex)
        return None

    async def _until_decided(self, run: ComponentRun) -> None:
        plan, vertex = self._plan, run.vertex
        timeout = plan.build.changes[vertex].timeout
        if timeout is not None and vertex not in self._clocks:
            self._start(vertex, timeout + self._extended.get(vertex, 0.0) - self._waited.pop(vertex, 0.0))
        self._observer.happened("gated", vertex)
        self._asking[vertex] = None
        try:
            # One that was decided, and is to be retried before this task runs, asks afresh.
            while plan.is_due(vertex) and vertex in self._asking and not self._has_expired(vertex):
                with self._runs.interruptible(run):
                    await trio.sleep_forever()
        finally:
            self._asking.pop(vertex, None)
        if plan.is_due(vertex) and timeout is not None and self._has_expired(vertex):
            expired = gates.expire(plan, vertex, timeout + self._extended.get(vertex, 0.0))
            # Before it is persisted: an operator may retry it meanwhile.
            self._forget(vertex)
            await self._outcomes.keep(expired)
        elif self._starts.command is not None:
            # Nothing follows from an approval before that is persisted, whatever the store.
            await self._starts.command.wait()

    def check(self, vertex: Vertex) -> None:
        """Check that a component is a gate that waits for a person now.

        Raises:
            Refused: it does not; the text says what it is instead.
        """
        gates.check_reached(self._plan, vertex)
        if vertex not in self._asking:
            name = self._plan.graph.ids[vertex]
            raise Refused("unavailable", f"{name} is just being reached; try again shortly")

    def decided(self, vertex: Vertex) -> None:
        """Ask nobody about a gate any more, as a person has just decided about it."""
        self._asking.pop(vertex, None)
        self._forget(vertex)

    def extend(self, vertex: Vertex, seconds: float) -> None:
        """Give a gate more time.

        Raises:
            Refused: it does not wait for a person now, or waits without a deadline.
        """
        self.check(vertex)
        clock = self._clocks.get(vertex)
        if clock is None:
            name = self._plan.graph.ids[vertex]
            raise Refused("conflict", f"{name} has no _timeout: it waits for as long as it takes")
        left = max(0.0, clock.due - self._timers.now())
        self._timers.cancel(clock)
        self._extended[vertex] = self._extended.get(vertex, 0.0) + seconds
        self._start(vertex, left + seconds)

    def _start(self, vertex: Vertex, seconds: float) -> None:
        self._clocks[vertex] = self._timers.start(max(0.0, seconds), self._lineup.stir, vertex)

    def _has_expired(self, vertex: Vertex) -> bool:
        clock = self._clocks.get(vertex)
        return clock is not None and clock.cancelled

    def _forget(self, vertex: Vertex) -> None:
        """Forget the times of a gate that is decided: after a retry it asks afresh."""
        self._waited.pop(vertex, None)
        self._extended.pop(vertex, None)
        clock = self._clocks.pop(vertex, None)
        if clock is not None:
            self._timers.cancel(clock)

    def clear(self) -> None:
        """Stop all clocks, as the walk has ended."""
        for vertex in list(self._clocks):
            self._forget(vertex)
