"""The tasks of one build's components, and what they wait for: events of dependencies, then their own turn.

A component has an event that is set when it has settled; it is made when a task waits for it first. Whose
dependencies have settled waits for its turn. For that there is a table of the tasks that sleep, as each is
woken alone, by its vertex.
"""

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final

import trio

from scheduler.definition.graph import Graph, Vertex

_WOKEN_AT_ONCE: Final = 50
"""Dependents that are woken before other builds have a turn."""


class _Cancellation:
    """Cancellation of the tasks of one build. It does not know them: nothing may refer to itself."""

    __slots__ = ("came",)

    def __init__(self) -> None:
        self.came = False
        """Whether they were cancelled."""

    def abort(self, _: object) -> trio.lowlevel.Abort:
        """Let a task be woken by its cancellation."""
        # The tasks are in one nursery: a cancellation wakes all of them in one go.
        self.came = True
        return trio.lowlevel.Abort.SUCCEEDED


class Tasks:
    """Tasks of one build's components.

    Args:
        graph: graph of the build.
    """

    __slots__ = (
        "_abort",
        "_awaited",
        "_cancellation",
        "_count",
        "_entering",
        "_graph",
        "_main",
        "_nursery",
        "_on_idle",
        "_sleeping",
        "_started",
    )

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._started = bytearray(len(graph.ids))
        """Whether a component has a task, by vertex."""
        self._count = 0
        """Number of these tasks."""
        self._entering = 0
        self._awaited: dict[Vertex, list[trio.Event]] = {}
        """Events that the tasks of a component's dependents wait for, by component."""
        self._sleeping: list[trio.lowlevel.Task | None] = [None] * len(graph.ids)
        """Tasks that wait for news, by vertex."""
        self._cancellation = _Cancellation()
        # Made once: ten thousand tasks that wait would have one each.
        self._abort = self._cancellation.abort
        # Kept only while the nursery is open: they refer to the walk, which refers to this.
        self._nursery: trio.Nursery | None = None
        self._main: Callable[[Vertex], Awaitable[None]] | None = None
        self._on_idle: Callable[[], None] | None = None

    def open(
        self, nursery: trio.Nursery, main: Callable[[Vertex], Awaitable[None]], on_idle: Callable[[], None]
    ) -> None:
        """Allow tasks to be started from now on.

        Args:
            nursery: nursery of the build.
            main: main function of a component's task; it ends with `end`.
            on_idle: callback for when no task is left, and none is about to be started.
        """
        self._nursery, self._main, self._on_idle = nursery, main, on_idle

    def close(self) -> None:
        """Start no task any more; all have ended."""
        self._nursery = self._main = self._on_idle = None
        self._sleeping = [None] * len(self._sleeping)

    @property
    def under_way(self) -> bool:
        """Whether there are tasks, or are about to be; otherwise the walk has not begun, or has ended."""
        return self._nursery is not None and (self._count > 0 or self._entering > 0)

    @property
    def entering(self) -> bool:
        """Whether components are about to be entered into the line-up."""
        return self._entering > 0

    def has(self, vertex: Vertex) -> bool:
        """Return whether a component has a task."""
        return self._started[vertex] > 0

    def start(self, vertex: Vertex) -> bool:
        """Start the task of a component where it has none, and the walk is under way; return whether so."""
        if self._started[vertex] or self._nursery is None or not (self._count or self._entering):
            return False
        assert self._main is not None, "as it is under way"
        self._started[vertex] = True
        self._count += 1
        self._nursery.start_soon(self._main, vertex, name=self._graph.ids[vertex])
        return True

    def end(self, vertex: Vertex) -> None:
        """Note that the task of a component ends by this call; with the last one the walk ends."""
        self._started[vertex] = False
        self._count -= 1
        if not self._count:
            self._look_for_the_end()

    def enter(self, entering: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run ``entering``, which enters components into the line-up, in a task of its own."""
        assert self._nursery is not None, "the walk has begun"
        self._entering += 1
        self._nursery.start_soon(self._enter, entering, name="enter")

    async def _enter(self, entering: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await entering()
        finally:
            self._entering -= 1
            self._look_for_the_end()

    def run_beside(self, job: Callable[..., Coroutine[Any, Any, None]], *args: object, name: str) -> None:
        """Run ``job`` in a task of its own, beside those of the components."""
        assert self._nursery is not None, "the walk has begun"
        self._nursery.start_soon(job, *args, name=name)

    def _look_for_the_end(self) -> None:
        if not self._count and not self._entering and self._on_idle is not None:
            self._on_idle()

    # ---- events of dependencies

    def event(self, dependency: Vertex, dependent: Vertex) -> trio.Event:
        """Return the event of a component that has not settled, for the task of one of its dependents.

        About `_WOKEN_AT_ONCE` dependents share one.
        """
        events = self._awaited.get(dependency)
        if events is None:
            turns = -(-len(self._graph.dependents[dependency]) // _WOKEN_AT_ONCE)
            events = [trio.Event()] if turns == 1 else [trio.Event() for _ in range(turns)]
            self._awaited[dependency] = events
        if len(events) == 1:
            return events[0]
        # Dependents that begin one after another are woken together: a fan is often in their order.
        return events[dependent * len(events) // len(self._graph.ids)]

    def wake_dependents(self, vertex: Vertex) -> None:
        """Set the event of a component that has settled. Idempotent."""
        events = self._awaited.pop(vertex, None)
        if events is not None:
            events[0].set()
            if len(events) > 1:
                self.run_beside(_set_all, events[1:], name="wake")

    # ---- news

    def news(self, vertex: Vertex) -> Awaitable[None]:
        """Return the wait for news of a component; its task, and only that, awaits it at once.

        Only directly in the nursery of the build: a cancel scope around it would wake it alone.
        """
        # No coroutine of its own: each of ten thousand tasks that wait would keep its frame.
        self._sleeping[vertex] = trio.lowlevel.current_task()
        return trio.lowlevel.wait_task_rescheduled(self._abort)  # noqa: ASYNC105 - by the caller

    def wake(self, vertex: Vertex) -> None:
        """Wake the task of a component, where it waits for news."""
        task = self._sleeping[vertex]
        if task is not None and not self._cancellation.came:
            self._sleeping[vertex] = None
            trio.lowlevel.reschedule(task)


async def _set_all(events: Sequence[trio.Event]) -> None:
    """Wake thousands of dependents in slices: other builds have a turn in between."""
    try:
        for event in events:
            await trio.lowlevel.checkpoint()
            event.set()
    finally:
        for event in events:
            event.set()
