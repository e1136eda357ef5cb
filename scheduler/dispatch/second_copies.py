"""Messages that come over two connections: the second copy is dropped, unread.

It does not matter which connection is the faster one, nor that one of them is away for a while: a message is
passed on unless it is the copy of one that came over the other connection.
"""

from collections.abc import Callable
from typing import Final

import trio

from scheduler.bus import Handler, Listener, Message
from scheduler.dispatch.duplicates import DuplicateFilter

_PATIENCE: Final = 30.0
"""Seconds for which a copy is expected: a connection that hangs is given up after half of that."""
_MOST: Final = 100_000
"""Number of copies that are expected of each connection; beyond that the oldest is forgotten."""


class SecondCopies:
    """Pairs what comes over a bus with what comes over the listener beside it.

    Args:
        hears: tells whether the bus brings what it is subscribed to just now.
        listener: second connection.
    """

    def __init__(self, hears: Callable[[], bool], listener: Listener) -> None:
        self._hears = hears
        self._listener = listener
        self._paired = listener.connected
        """Whether there ever was a second connection."""
        self._of_bus = DuplicateFilter[int](_MOST, patience=_PATIENCE, clock=trio.current_time)
        """Copies, by hash, that are still to come over the bus."""
        self._of_listener = DuplicateFilter[int](_MOST, patience=_PATIENCE, clock=trio.current_time)
        """Copies, by hash, that are still to come over the listener."""
        self._ends: dict[str, Callable[[], None]] = {}
        listener.on_connected(self._on_connected)

    def listen(self, subject: str, handler: Handler) -> Handler:
        """Subscribe the listener to ``subject``: it calls ``handler`` with messages not seen on the bus yet.

        Returns:
            The handler for what the bus brings on ``subject``.
        """
        self._ends[subject] = self._listener.listen(subject, self._handler(handler, self._take_second))
        return self._handler(handler, self._take_first)

    def forget(self, subject: str) -> None:
        """Stop the listener from passing on messages of ``subject``. Idempotent."""
        end = self._ends.pop(subject, None)
        if end is not None:
            end()

    def _handler(self, handler: Handler, is_new: Callable[[Message], bool]) -> Handler:
        def handle(message: Message) -> None:
            if not self._paired or is_new(message):
                handler(message)

        return handle

    def _take_first(self, message: Message) -> bool:
        """Return whether a message of the bus is the first copy."""
        # The server says that there is no responder on the connection of the question, and only there.
        if message.no_responders:
            return True
        key = hash((message.subject, message.data))
        if self._of_bus.take(key):
            return False
        if self._listener.connected:
            self._of_listener.expect(key)
        return True

    def _take_second(self, message: Message) -> bool:
        """Return whether a message of the listener is the first copy."""
        key = hash((message.subject, message.data))
        if self._of_listener.take(key):
            return False
        if self._hears():
            self._of_bus.expect(key)
        return True

    def _on_connected(self) -> None:
        self._paired = True
