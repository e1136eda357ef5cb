"""Tasks that wait until the events of a build up to a number are committed."""

import heapq
from collections.abc import Iterator
from itertools import count, islice

import trio

_WOKEN_AT_ONCE = 25
"""Tasks woken after a commit between two looks at everything else: they cause work of a few milliseconds."""


class CommitWaiters:
    """The waiting tasks of one log."""

    __slots__ = ("_heap", "_numbers")

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, trio.Event]] = []
        """Heap of: number of events to be committed, order of arrival, event to be set."""
        self._numbers = count()

    async def wait(self, number: int) -> None:
        """Wait until so many events are committed, or nothing more can be."""
        done = trio.Event()
        heapq.heappush(self._heap, (number, next(self._numbers), done))
        await done.wait()

    def wake_first(self, committed: int) -> None:
        """Wake the first tasks that wait for at most so many events, in their order; `wake` does the rest."""
        for waiter in islice(self._up_to(committed), _WOKEN_AT_ONCE):
            waiter.set()

    async def wake(self, committed: int) -> None:
        """Wake all tasks that wait for at most so many events, in their order, some at a time."""
        while self._heap and self._heap[0][0] <= committed:
            await trio.lowlevel.checkpoint()
            self.wake_first(committed)

    def _up_to(self, committed: int) -> Iterator[trio.Event]:
        while self._heap and self._heap[0][0] <= committed:
            yield heapq.heappop(self._heap)[2]

    def wake_all(self) -> None:
        """Wake all tasks: nothing more can be committed."""
        heap, self._heap = self._heap, []
        for _, _, done in heap:
            done.set()
