"""Memory channels over which tasks await the answers to their requests, used again and again.

Making a channel costs more than anything else about a call: of the CPU of a component about 3 %. A channel
may be used again only where nothing is in it, and no task is at it: otherwise one component would get the
answer of another. So each keeps account of that, and one that is in doubt is never used again.
"""

from typing import Final, Generic, TypeVar

import trio

T = TypeVar("T")

_MOST: Final = 500
"""Channels kept for later: about a megabyte."""


class OnePlace(Generic[T]):
    """A memory channel with one place, for one task that receives."""

    __slots__ = ("_receive", "_send", "_spoiled", "_waits", "holds", "receiving")

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[T](1)
        self.receiving = False
        """Whether the task is in `receive`, also where its item was handed to it and it did not run since."""
        self._waits = False
        """Whether the task waits, and nothing was handed to it."""
        self.holds = False
        """Whether something lies in it; wrong only where a wait was cut off in the same moment."""
        self._spoiled = False
        """Whether a wait was cut off."""

    def put(self, item: T) -> None:
        """Hand ``item`` to the task that waits, or leave it in the place.

        Raises:
            trio.WouldBlock: something lies there.
        """
        self._send.send_nowait(item)
        self.holds = not self._waits
        self._waits = False

    def replace(self, item: T) -> None:
        """Leave ``item`` in the place of what lies there."""
        self._receive.receive_nowait()
        self._send.send_nowait(item)

    async def receive(self) -> T:
        """Await the next item."""
        self.receiving = True
        try:
            if self.holds:
                await trio.lowlevel.checkpoint_if_cancelled()
                item = self._receive.receive_nowait()
                self.holds = False
                await trio.lowlevel.cancel_shielded_checkpoint()
                return item
            self._waits = True
            return await self._receive.receive()
        except BaseException:
            self._spoiled = True
            raise
        finally:
            self._waits = self.receiving = False

    @property
    def reusable(self) -> bool:
        """Whether no task is at it, and none was cut off."""
        return not (self.receiving or self._spoiled)

    def empty(self) -> None:
        """Drop what lies in it."""
        self._receive.receive_nowait()
        self.holds = False

    def close(self) -> None:
        """Use it no more: a task that waits gets an error."""
        self._receive.close()


class Channels(Generic[T]):
    """Channels that may be used again."""

    def __init__(self) -> None:
        self._kept: list[OnePlace[T]] = []

    def take(self) -> OnePlace[T]:
        """Return an empty channel."""
        return self._kept.pop() if self._kept else OnePlace()

    def give_back(self, channel: OnePlace[T]) -> None:
        """Keep a channel for later, or close it; nothing refers to it any more."""
        if channel.reusable and len(self._kept) < _MOST:
            if channel.holds:
                channel.empty()
            self._kept.append(channel)
        else:
            channel.close()
