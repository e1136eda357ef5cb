"""The granted components, in the order in which they entered the line-up. Synchronous."""

import heapq
from typing import Final

from scheduler.walk.component import ComponentRun, Stage
from scheduler.walk.tasks import Tasks

_IN_A_ROW: Final = 25
"""Components begun before other builds have a turn: a millisecond or two."""
_WORK_OF_ONE: Final = 2_500
"""Units of work in rendering that count as one more component begun."""


class Granted:
    """Granted components of one build: they have their slots, where they need any.

    Their tasks are called a few at a time. The first of them to run also begins what is before its own.

    Args:
        tasks: tasks of the build.
    """

    __slots__ = ("_called", "_heap", "_in_a_row", "_tasks", "beginning", "looking")

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks
        self._heap: list[tuple[int, ComponentRun]] = []
        self._called = 0
        """Number of them that were called up: at most `_IN_A_ROW`."""
        self._in_a_row = 0
        """Number of components that have begun since other builds had a turn."""
        self.beginning = False
        """Whether a task is beginning them just now."""
        self.looking = False
        """Whether a task waits until other builds had a turn, for all of them."""

    def grant(self, run: ComponentRun, number: int) -> None:
        """Let a component begin, once everything before it in the line-up has begun."""
        run.stage, run.number = Stage.GRANTED, number
        heapq.heappush(self._heap, (number, run))
        if self._called < _IN_A_ROW:
            # These call up the others, one after another.
            self._call(run)

    def _call(self, run: ComponentRun) -> None:
        if not run.called:
            run.called = True
            self._called += 1
        self._tasks.wake(run.vertex)

    def call_first(self) -> None:
        """Wake the task of the component that is to begin next, where there is one."""
        if self._heap:
            self._call(self._heap[0][1])

    def pop(self) -> ComponentRun:
        """Take the component that is to begin next."""
        run = heapq.heappop(self._heap)[1]
        if run.called:
            run.called = False
            self._called -= 1
        return run

    def lets_begin(self, run: ComponentRun) -> bool:
        """Return whether the task of a granted component is to begin it, and those before it.

        Otherwise it waits for news: it has not been called, another task is beginning them, or so many have
        begun that others have a turn. What ends that calls the first.
        """
        return run.called and not self.beginning and self._in_a_row < _IN_A_ROW

    def count(self, components: int, work: int) -> bool:
        """Count components that have begun, and the units of work that they took.

        Returns:
            Whether so many have begun that other builds are to have a turn.
        """
        self._in_a_row += components + work // _WORK_OF_ONE
        return self._in_a_row >= _IN_A_ROW

    def look(self) -> None:
        """Note that other builds had a turn, and call the component that is to begin next."""
        self.looking = False
        self._in_a_row = 0
        self.call_first()

    def clear(self) -> None:
        """Forget all of them, as the walk has ended."""
        self._heap.clear()
