"""Messages that come twice, over two connections: the second copy is dropped, unread.

Which connection is the faster one does not matter, nor that one of them is away for a while: a message is
passed on if it is not the copy of one that came over the other connection.
"""

from collections import OrderedDict
from collections.abc import Callable

import trio

from scheduler.bus import Handler, Listener, Message

_PATIENCE = 30.0
"""Seconds for which a copy is awaited: a connection that hangs is given up after half of that."""
_MOST = 100_000
"""Copies that are awaited; the oldest is forgotten."""


class Doubles:
    """Pairs what comes over a bus with what comes over the listener beside it.

    Args:
        hears: whether the bus brings what it is subscribed to just now.
        listener: the second connection.
    """

    def __init__(self, hears: Callable[[], bool], listener: Listener) -> None:
        self._hears = hears
        self._listener = listener
        self._paired = listener.connected
        """Whether there ever was a second connection."""
        self._first = _Awaited()
        """What is still to come over the bus."""
        self._second = _Awaited()
        self._ends: dict[str, Callable[[], None]] = {}
        listener.on_connected(self._on_connected)

    def listen(self, subject: str, handler: Handler) -> Handler:
        """Have the listener call ``handler`` with what the bus has not brought yet.

        Returns:
            What is to be called with what the bus brings on ``subject``.
        """
        self._ends[subject] = self._listener.listen(subject, self._handler(handler, self._take_second))
        return self._handler(handler, self._take_first)

    def forget(self, subject: str) -> None:
        """Have the listener pass on nothing more of ``subject``. Idempotent."""
        end = self._ends.pop(subject, None)
        if end is not None:
            end()

    def _handler(self, handler: Handler, take: Callable[[Message], bool]) -> Handler:
        def handle(message: Message) -> None:
            if not self._paired or take(message):
                handler(message)

        return handle

    def _take_first(self, message: Message) -> bool:
        """Whether it is the first copy."""
        # The server's word that nobody is there goes to whoever asked, on the connection it was asked on.
        if message.no_responders:
            return True
        key = hash((message.subject, message.data))
        if self._first.take(key):
            return False
        if self._listener.connected:
            self._second.expect(key)
        return True

    def _take_second(self, message: Message) -> bool:
        key = hash((message.subject, message.data))
        if self._second.take(key):
            return False
        if self._hears():
            self._first.expect(key)
        return True

    def _on_connected(self) -> None:
        self._paired = True


class _Awaited:
    """Copies that are still to come over one connection, by hash, oldest first."""

    def __init__(self) -> None:
        self._keys: OrderedDict[int, tuple[int, float]] = OrderedDict()

    def expect(self, key: int) -> None:
        """One more copy is to come."""
        now = trio.current_time()
        copies, _ = self._keys.pop(key, (0, 0.0))
        self._keys[key] = copies + 1, now
        _, since = next(iter(self._keys.values()))
        if now - since > _PATIENCE or len(self._keys) > _MOST:
            self._keys.popitem(last=False)

    def take(self, key: int) -> bool:
        """Whether a copy was to come; it is not awaited any more then."""
        copies, since = self._keys.pop(key, (0, 0.0))
        if copies > 1:
            self._keys[key] = copies - 1, since
        return copies > 0 and trio.current_time() - since < _PATIENCE
