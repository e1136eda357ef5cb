"""Turns of other tasks during long loops on the event loop, paced by the work done."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Final, Generic, TypeVar

from trio.lowlevel import checkpoint

T = TypeVar("T")

TURN: Final = 50_000
"""Units of work (`scheduler.definition.template.work`) between two turns of others: about a millisecond."""


class Pace:
    """Counter of a loop's work, which lets other tasks run after about every millisecond.

    Args:
        step: the units of a round by itself; 500 are about ten microseconds.
        pause: awaited to let other tasks run.
    """

    __slots__ = ("_done", "_pause", "_step")

    def __init__(self, step: int = 500, pause: Callable[[], Awaitable[None]] = checkpoint) -> None:
        self._step = step
        self._pause = pause
        self._done = 0

    async def turn(self, units: int = 0) -> None:
        """Count a round that cost so many ``units`` more; let other tasks run if that is due."""
        self._done += self._step + units
        if self._done >= TURN:
            self._done = 0
            await self._pause()


class paced(AsyncIterator[T], Generic[T]):  # noqa: N801 - reads as a function
    """Iterator over items that lets other tasks run after every so many of them.

    For loops whose rounds all cost about the same: ``async for item in paced(items, every=100)``.

    Args:
        items: the items; they must not change meanwhile.
        every: the number of rounds that take a millisecond or two.
        pause: awaited to let other tasks run.
    """

    __slots__ = ("_every", "_items", "_left", "_pause")

    def __init__(
        self, items: Iterable[T], *, every: int, pause: Callable[[], Awaitable[None]] = checkpoint
    ) -> None:
        self._items = iter(items)
        self._every = self._left = every
        self._pause = pause

    async def __anext__(self) -> T:
        if not self._left:
            self._left = self._every
            await self._pause()
        self._left -= 1
        for item in self._items:
            return item
        raise StopAsyncIteration


class slices(AsyncIterator[Sequence[T]], Generic[T]):  # noqa: N801 - reads as a function
    """Iterator over slices of a sequence that lets other tasks run between them.

    As `paced`, for rounds so small that a wait for each would be most of the work.

    Args:
        items: the items; they must not change meanwhile.
        of: number of items in a slice: they take a millisecond or two.
        pause: awaited to let other tasks run.
    """

    __slots__ = ("_begin", "_items", "_of", "_pause")

    def __init__(
        self, items: Sequence[T], *, of: int, pause: Callable[[], Awaitable[None]] = checkpoint
    ) -> None:
        self._items = items
        self._of = of
        self._begin = 0
        self._pause = pause

    async def __anext__(self) -> Sequence[T]:
        begin = self._begin
        if begin >= len(self._items):
            raise StopAsyncIteration
        if begin:
            await self._pause()
        self._begin = begin + self._of
        return self._items[begin : self._begin]


def drained(items: list[T]) -> Iterator[T]:
    """Remove and yield the last item until none is left, including items added meanwhile."""
    while items:
        yield items.pop()
