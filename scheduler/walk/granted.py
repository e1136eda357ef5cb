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

    One of their tasks is called, and begins as many of them as may begin in a row. It, or a task that has let
    others have a turn meanwhile, then calls the next one, as long as there are any.

    Args:
        tasks: tasks of the build.
    """

    __slots__ = ("_called", "_in_a_row", "_tasks", "beginning", "looking", "waiting")

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks
        self.waiting: list[tuple[int, ComponentRun]] = []
        """A heap of those that have not begun, by their places in the line-up."""
        self._called = False
        """Whether a task was called, and none has begun any since."""
        self._in_a_row = 0
        """Number of components that have begun since other builds had a turn."""
        self.beginning = False
        """Whether a task is beginning them just now."""
        self.looking = False
        """Whether a task waits until other builds had a turn, for all of them."""

    def grant(self, run: ComponentRun, number: int) -> None:
        """Let a component begin, once everything before it in the line-up has begun."""
        run.stage, run.number = Stage.GRANTED, number
        heapq.heappush(self.waiting, (number, run))
        if not self._called and self.may_begin:
            # Otherwise the first of them is called anyway.
            self._call(run)

    def _call(self, run: ComponentRun) -> None:
        self._called = True
        self._tasks.wake(run.vertex)

    def call_first(self) -> None:
        """Wake the task of the component that is to begin next, where there is one."""
        if self.waiting:
            self._call(self.waiting[0][1])

    def pop(self) -> ComponentRun:
        """Take the component that is to begin next."""
        self._called = False
        return heapq.heappop(self.waiting)[1]

    @property
    def may_begin(self) -> bool:
        """Whether a task may begin them, called or not; otherwise one is called as soon as one may."""
        return not self.beginning and self._in_a_row < _IN_A_ROW

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
        self.waiting.clear()
