"""Mailbox of one viewer: events that it has not read yet, within bounds."""

from collections import deque
from collections.abc import Callable
from typing import Final

import trio

_MOST: Final = 8
"""Events that are kept for a viewer ..."""
_MOST_BYTES: Final = 256 * 1024
"""... and bytes of them; whoever is further behind gets a snapshot in their place."""
_QUIET: Final = 15.0
"""Seconds after which a viewer is told that nothing is new, so that a dead connection is noticed."""
STILL_HERE: Final = b"event: ping\ndata: {}\n\n"
"""Event that tells nothing; of a comment a browser would not tell its script."""


class Mailbox:
    """Mailbox of one viewer.

    Args:
        snapshot: returns the event that tells all; called when it is to be sent.
    """

    def __init__(self, snapshot: Callable[[], bytes]) -> None:
        self._snapshot: Callable[[], bytes] | None = snapshot
        self._events: deque[bytes] = deque()
        self._bytes = 0
        self._behind = True
        self._ended = False
        self._wake = trio.Event()

    @property
    def size(self) -> int:
        """Bytes that wait."""
        return self._bytes

    def put(self, event: bytes) -> None:
        """Let the viewer have an event; synchronous. Beyond the bounds it gets a snapshot instead."""
        if not self._behind and not self._ended:
            self._events.append(event)
            self._bytes += len(event)
            if len(self._events) > _MOST or self._bytes > _MOST_BYTES:
                self.restart()
        self._wake.set()

    def restart(self) -> None:
        """Let the viewer have a snapshot in place of what waits."""
        self._events.clear()
        self._bytes = 0
        self._behind = True
        self._wake.set()

    def end(self, event: bytes) -> None:
        """Let the viewer have a last event, and nothing after it. Idempotent."""
        if self._ended:
            return
        self._ended = True
        self._events.append(event)
        self._wake.set()

    async def next(self) -> bytes | None:
        """Return what there is to be sent, as soon as there is something; None after the end."""
        while True:
            if found := self._take():
                return found
            if self._ended:
                # The hub must not live as long as a connection that reads nothing.
                self._snapshot = None
                return None
            self._wake = trio.Event()
            with trio.move_on_after(_QUIET) as quiet:
                await self._wake.wait()
            if quiet.cancelled_caught:
                return STILL_HERE

    def _take(self) -> bytes:
        parts = [*self._events]
        if self._behind and self._snapshot is not None:
            self._behind = False
            parts.insert(0, self._snapshot())
        self._events.clear()
        self._bytes = 0
        return b"".join(parts)


def event_of(name: str, revision: int, data: bytes) -> bytes:
    """Return a server-sent event.

    Args:
        name: its name.
        revision: its id.
        data: JSON, which has no line breaks.
    """
    return b"id: %d\nevent: %b\ndata: %b\n\n" % (revision, name.encode(), data)
