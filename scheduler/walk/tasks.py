"""The tasks of one build's components, and the events by which they wait for each other."""

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

import trio

from scheduler.definition.graph import Graph, Vertex

_WOKEN_AT_ONCE = 50
"""Dependents that are woken before other builds have a turn."""


class Tasks:
    """Tasks of one build's components.

    Args:
        graph: graph of the build.
    """

    __slots__ = ("_awaited", "_entering", "_graph", "_main", "_nursery", "_on_idle", "_started")

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._started: set[Vertex] = set()
        self._entering = 0
        self._awaited: dict[Vertex, list[trio.Event]] = {}
        """Events that the tasks of a component's dependents wait for, by component."""
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
        """Start no task any more."""
        self._nursery = self._main = self._on_idle = None

    @property
    def under_way(self) -> bool:
        """Whether there are tasks, or are about to be; otherwise the walk has not begun, or has ended."""
        return self._nursery is not None and bool(self._started or self._entering)

    @property
    def entering(self) -> bool:
        """Whether components are about to be entered into the line-up."""
        return self._entering > 0

    def has(self, vertex: Vertex) -> bool:
        """Return whether a component has a task."""
        return vertex in self._started

    def start(self, vertex: Vertex) -> None:
        """Start the task of a component, where it has none and the walk is under way."""
        if vertex not in self._started and self.under_way:
            assert self._nursery is not None, "as it is under way"
            assert self._main is not None, "as it is under way"
            self._started.add(vertex)
            self._nursery.start_soon(self._main, vertex, name=self._graph.ids[vertex])

    def end(self, vertex: Vertex) -> None:
        """Note that the task of a component ends by this call; with the last one the walk ends."""
        self._started.discard(vertex)
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

    def run_beside(self, job: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        """Run ``job`` in a task of its own, beside those of the components."""
        assert self._nursery is not None, "the walk has begun"
        self._nursery.start_soon(job, name=name)

    def _look_for_the_end(self) -> None:
        if not self._started and not self._entering and self._on_idle is not None:
            self._on_idle()

    async def dependencies(self, vertex: Vertex, settled: Sequence[int]) -> None:
        """Wait until all dependencies of a component have settled at the same time.

        Args:
            vertex: the component.
            settled: whether a vertex has settled, by vertex; an operator may retry one that had.
        """
        waited = True
        while waited:
            waited = False
            for dependency in self._graph.dependencies[vertex]:
                if not settled[dependency]:
                    waited = True
                    await self._event(dependency, vertex).wait()

    def _event(self, dependency: Vertex, dependent: Vertex) -> trio.Event:
        """Return the event that ``dependent`` waits for; about `_WOKEN_AT_ONCE` dependents share one."""
        events = self._awaited.get(dependency)
        if events is None:
            turns = -(-len(self._graph.dependents[dependency]) // _WOKEN_AT_ONCE)
            events = self._awaited[dependency] = [trio.Event() for _ in range(turns)]
        if len(events) == 1:
            return events[0]
        # Dependents that begin one after another are woken together: a fan is often in their order.
        return events[dependent * len(events) // len(self._graph.ids)]

    def wake_dependents(self, vertex: Vertex) -> None:
        """Wake the tasks that wait for a component that has settled. Idempotent."""
        events = self._awaited.pop(vertex, None)
        if events:
            events[0].set()
            del events[0]
        if events:
            assert self._nursery is not None, "the tasks that wait are in it"
            self._nursery.start_soon(_set_all, events, name="wake")


async def _set_all(events: list[trio.Event]) -> None:
    """Wake thousands of dependents in slices: other builds have a turn in between."""
    try:
        for event in events:
            await trio.lowlevel.checkpoint()
            event.set()
    finally:
        for event in events:
            event.set()
