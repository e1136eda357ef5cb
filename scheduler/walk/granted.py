"""The components that may begin, in the order in which they entered the line. Synchronous."""

import heapq
from typing import Final

from scheduler.walk.component import ComponentRun, Stage

_IN_A_ROW: Final = 25
"""Components begun between two looks at everything else: a millisecond or two."""
_WORK_OF_ONE: Final = 2_500
"""Units of work in rendering that count as beginning one component more."""


class Granted:
    """The granted components of one build: they have their slots, where they need any.

    Their tasks are woken a few at a time, and whichever of them comes first begins what is before it as well.
    """

    __slots__ = ("_called", "_heap", "_in_a_row", "beginning", "looks")

    def __init__(self) -> None:
        self._heap: list[tuple[int, ComponentRun]] = []
        self._called = 0
        """How many of them were called up: no more than begin in a row."""
        self._in_a_row = 0
        """How many have begun since the last look at everything else."""
        self.beginning = False
        """Whether a task is beginning them."""
        self.looks = 0
        """How many looks at everything else there were."""

    def __bool__(self) -> bool:
        return bool(self._heap)

    def grant(self, run: ComponentRun, number: int) -> None:
        """A component may begin, once everything before it in the line has begun."""
        run.stage, run.number = Stage.GRANTED, number
        heapq.heappush(self._heap, (number, run))
        if self._called < _IN_A_ROW:
            # The others are called by those, one after another.
            self._call(run)

    def _call(self, run: ComponentRun) -> None:
        if not run.called:
            run.called = True
            self._called += 1
        run.call_up()

    def call_first(self) -> None:
        """Wake the task of the one that is to begin next, where there is one."""
        if self._heap:
            self._call(self._heap[0][1])

    def pop(self) -> ComponentRun:
        """Take the one that is to begin next."""
        run = heapq.heappop(self._heap)[1]
        if run.called:
            run.called = False
            self._called -= 1
        return run

    def count(self, components: int, work: int) -> bool:
        """Count what has begun, and the units of work that it took.

        Returns:
            Whether so much has begun that other builds are to have their turn.
        """
        self._in_a_row += components + work // _WORK_OF_ONE
        return self._in_a_row >= _IN_A_ROW

    def look(self) -> None:
        """Count a look at everything else."""
        self.looks += 1
        self._in_a_row = 0

    def clear(self) -> None:
        """Forget them all: the walk has ended."""
        self._heap.clear()
