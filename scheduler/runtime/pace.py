"""Long loops on the event loop give everybody else a turn, by what was done since the last one."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Final, Generic, TypeVar

from trio.lowlevel import checkpoint

T = TypeVar("T")

TURN: Final = 50_000
"""Units of work (`scheduler.definition.template.work`) between two turns of others: a millisecond or so."""


class Pace:
    """Counts what a loop does, and lets others have a turn whenever that amounts to about a millisecond.

    Args:
        step: units that a round costs by itself; 500 are about ten microseconds.
        pause: awaited to let others have their turn.
    """

    __slots__ = ("_done", "_pause", "_step")

    def __init__(self, step: int = 500, pause: Callable[[], Awaitable[None]] = checkpoint) -> None:
        self._step = step
        self._pause = pause
        self._done = 0

    async def turn(self, units: int = 0) -> None:
        """A round is done, and cost so many ``units`` more; others may have their turn now."""
        self._done += self._step + units
        if self._done >= TURN:
            self._done = 0
            await self._pause()


class paced(AsyncIterator[T], Generic[T]):  # noqa: N801 - reads as a function
    """The same items; others have their turn after each so many of them.

    For loops whose rounds all cost about the same: ``async for item in paced(items, every=100)``.

    Args:
        items: what is to be gone through; not to be changed meanwhile.
        every: how many rounds are about a millisecond or two.
        pause: awaited to let others have their turn.
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


def drained(items: list[T]) -> Iterator[T]:
    """Take the last item each time, until there is none: also those that are added meanwhile."""
    while items:
        yield items.pop()
