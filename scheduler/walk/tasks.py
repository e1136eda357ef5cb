"""The tasks of one build's components: which there are, and how one wakes those that depend on it."""

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

import trio

from scheduler.definition.graph import Graph, Vertex

_WOKEN_AT_ONCE = 50
"""Dependents that are woken between two looks at everything else."""


class Tasks:
    """The tasks of one build's components, and the events by which one waits for another.

    Args:
        graph: of the build.
    """

    __slots__ = ("_awaited", "_entering", "_graph", "_main", "_nursery", "_on_idle", "_started")

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._started: set[Vertex] = set()
        self._entering = 0
        self._awaited: dict[Vertex, list[trio.Event]] = {}
        """By component, the events that the tasks of its dependents wait for."""
        # Only while the nursery is open: they refer to the walk, which refers to this.
        self._nursery: trio.Nursery | None = None
        self._main: Callable[[Vertex], Awaitable[None]] | None = None
        self._on_idle: Callable[[], None] | None = None

    def open(
        self, nursery: trio.Nursery, main: Callable[[Vertex], Awaitable[None]], on_idle: Callable[[], None]
    ) -> None:
        """Start tasks from now on.

        Args:
            nursery: of the build.
            main: what the task of a component does; it ends with `end`.
            on_idle: called when no task is left, and none is about to be started.
        """
        self._nursery, self._main, self._on_idle = nursery, main, on_idle

    def close(self) -> None:
        """Start no task any more."""
        self._nursery = self._main = self._on_idle = None

    @property
    def under_way(self) -> bool:
        """Whether there are tasks, or are about to be: otherwise nothing begins any more, or yet."""
        return self._nursery is not None and bool(self._started or self._entering)

    @property
    def entering(self) -> bool:
        """Whether components are about to be entered into the line."""
        return self._entering > 0

    def has(self, vertex: Vertex) -> bool:
        """Whether a component has a task."""
        return vertex in self._started

    def start(self, vertex: Vertex) -> None:
        """Start the task of a component, where it has none and the walk is under way."""
        if vertex not in self._started and self.under_way:
            assert self._nursery is not None, "as it is under way"
            assert self._main is not None, "as it is under way"
            self._started.add(vertex)
            self._nursery.start_soon(self._main, vertex, name=self._graph.ids[vertex])

    def end(self, vertex: Vertex) -> None:
        """The task of a component ends by this call, and with it perhaps the walk."""
        self._started.discard(vertex)
        self._look_for_the_end()

    def enter(self, entering: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run ``entering`` in a task of its own: it enters components into the line."""
        assert self._nursery is not None, "the walk has begun"
        self._entering += 1
        self._nursery.start_soon(self._enter, entering, name="enter")

    async def _enter(self, entering: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await entering()
        finally:
            self._entering -= 1
            self._look_for_the_end()

    def run_beside(self, job: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        """Run ``job`` in a task of its own, beside those of the components."""
        assert self._nursery is not None, "the walk has begun"
        self._nursery.start_soon(job, name=name)

    def _look_for_the_end(self) -> None:
        if not self._started and not self._entering and self._on_idle is not None:
            self._on_idle()

    async def dependencies(self, vertex: Vertex, settled: Sequence[int]) -> None:
        """Wait until all dependencies of a component have settled at once.

        Args:
            vertex: the component.
            settled: by vertex, whether it has; an operator may have one done again that had.
        """
        waited = True
        while waited:
            waited = False
            for dependency in self._graph.dependencies[vertex]:
                if not settled[dependency]:
                    waited = True
                    await self._event(dependency, vertex).wait()

    def _event(self, dependency: Vertex, dependent: Vertex) -> trio.Event:
        """Return what ``dependent`` waits for: one event for about `_WOKEN_AT_ONCE` dependents."""
        events = self._awaited.get(dependency)
        if events is None:
            turns = -(-len(self._graph.dependents[dependency]) // _WOKEN_AT_ONCE)
            events = self._awaited[dependency] = [trio.Event() for _ in range(turns)]
        if len(events) == 1:
            return events[0]
        # Those that begin one after another are to be awake at the same time: a fan is often in their order.
        return events[dependent * len(events) // len(self._graph.ids)]

    def wake_dependents(self, vertex: Vertex) -> None:
        """Wake the tasks that wait for a component: it has settled. Idempotent."""
        events = self._awaited.pop(vertex, None)
        if events:
            events[0].set()
            del events[0]
        if events:
            assert self._nursery is not None, "the tasks that wait are in it"
            self._nursery.start_soon(_set_all, events, name="wake")


async def _set_all(events: list[trio.Event]) -> None:
    """Wake thousands of dependents little by little: other builds have their turn between them."""
    try:
        for event in events:
            await trio.lowlevel.checkpoint()
            event.set()
    finally:
        for event in events:
            event.set()
