"""The outbox: a bounded queue of messages and barriers that were not given to the connection yet.

Nothing here knows of a connection. While there is none, everything stays here, and can be withdrawn; an item
that was taken out has left, once, and never comes back.
"""

from collections import deque
from collections.abc import Callable, Iterable

import msgspec
import trio

from scheduler.bus.options import MAX_BYTES, MAX_MESSAGES
from scheduler.errors import BusFull, MessageTooLarge

# Withdrawn messages stay in the queue, emptied, until they are passed or there are too many of them.
_MAX_WITHDRAWN = 1024
# Messages that are withdrawn, or stay, are passed over in a batch: a millisecond or two.
_PASSED_AT_ONCE = 2_000
# Beyond the bounds, for what may leave while the rest is withheld: that waits for an answer to it.
_RESERVED_MESSAGES = 100
_RESERVED_BYTES = 1024 * 1024


class Queued(msgspec.Struct, eq=False):
    """A message on its way out, as returned by ``Bus.publish``."""

    _outbox: "Outbox | None"
    subject: str
    head: bytes
    """Control line and headers."""
    data: bytes
    size: int
    """Bytes that count towards ``max_payload``."""
    withdrawn: bool = False
    refused: MessageTooLarge | None = None
    """Reason why it was dropped when it was to be given to a connection."""
    generation: int = 0
    """Number of the connection that it was given to; 0 before that."""

    def withdraw(self) -> bool:
        """Take the message back: True if it has not left and never will. Idempotent."""
        if self._outbox is not None:
            self._outbox.forget(self)
            self._outbox = None
            self.withdrawn = True
            self.head = self.data = b""
        return self.withdrawn

    def refuse(self, limit: int) -> None:
        """Note that the message was dropped: it is over the limit of the current server, in bytes."""
        self.generation = 0
        self.refused = MessageTooLarge(f"a message on {self.subject!r}", self.size, limit)

    def left(self, generation: int) -> None:
        """Note that the message was given to the connection ``generation``: too late to withdraw it."""
        self._outbox = None
        self.generation = generation


class Barrier:
    """A place in the stream of sent data; ``event`` is set when the server has got there."""

    __slots__ = ("event",)

    def __init__(self) -> None:
        self.event = trio.Event()


class Outbox:
    """The bounded queue; ``on_work``, if set, is called when there is something to take."""

    def __init__(self, max_messages: int = MAX_MESSAGES, max_bytes: int = MAX_BYTES) -> None:
        self.on_work: Callable[[], None] | None = None
        self.guard: Callable[[], object] | None = None
        """Function to be called before messages are taken for a connection; see `Bus.before_sending`."""
        self.generation = 0
        """Number of connections that were established; messages leave on the last one."""
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._queue: deque[Queued | Barrier] = deque()
        self._stays: Callable[[str], bool] | None = None
        """Function that says of a subject whether its messages stay here; see `Bus.withhold`."""
        self._stayed: deque[Queued | Barrier] = deque()
        """Messages that were passed over, before all others, and the barriers behind them."""
        self._passed = 0
        """Messages that were passed over in the present batch."""
        self._urgent: deque[bytes | Barrier] = deque()
        self._messages = 0
        self._bytes = 0
        self._withdrawn = 0

    def __len__(self) -> int:
        """Return the number of waiting messages."""
        return self._messages

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to take; withdrawn messages may still be in it where this is false.

        What stays here is none of it.
        """
        return not (self._queue or self._urgent)

    def put(self, subject: str, head: bytes, data: bytes, size: int) -> Queued:
        """Queue a message.

        Raises:
            BusFull: there is no room, by number or by size.
        """
        total = self._bytes + size
        passes = self._stays is not None and not self._stays(subject)
        messages = self._max_messages + _RESERVED_MESSAGES * passes
        if self._messages >= messages or total > self._max_bytes + _RESERVED_BYTES * passes:
            raise BusFull(
                f"no room for a message on {subject!r}: {self._messages} messages of {self._bytes} bytes"
                f" wait, at most {self._max_messages} and {self._max_bytes}; is the broker reachable?"
            )
        queued = Queued(self, subject, head, data, size)
        self._messages += 1
        self._bytes = total
        self._queue.append(queued)
        if self.on_work is not None:
            self.on_work()
        return queued

    def put_barrier(self) -> Barrier:
        """Queue a barrier behind every waiting message."""
        barrier = Barrier()
        self._queue.append(barrier)
        self._work()
        return barrier

    def command(self, line: bytes) -> None:
        """Queue a command of this connection, before all messages. It is dropped with the connection."""
        self._urgent.append(line)
        self._work()

    def command_barrier(self) -> Barrier:
        """Queue a barrier behind the commands, before all messages."""
        barrier = Barrier()
        self._urgent.append(barrier)
        self._work()
        return barrier

    def _work(self) -> None:
        if self.on_work is not None:
            self.on_work()

    def checked(self) -> bool:
        """Call the guard, if there is one; always true. To be called before the first `take` of a batch."""
        self._passed = 0
        if self.guard is not None:
            self.guard()
        return True

    def withhold(self, stays: Callable[[str], bool] | None) -> None:
        """Keep messages on some subjects here, from now on; see `Bus.withhold`."""
        self._stays = stays
        self._queue.extendleft(reversed(self._stayed))
        self._stayed.clear()
        self._work()

    def restart(self, commands: Iterable[bytes], unanswered: Iterable[Barrier]) -> None:
        """Prepare for a new connection: its commands replace those of the old one.

        Barriers that the old one did not answer are asked again.
        """
        kept = [item for item in self._urgent if isinstance(item, Barrier)]
        self._urgent = deque([*commands, *unanswered, *kept])

    def take_command(self) -> bytes | Barrier | None:
        """Take the next command or its barrier; None if there is none."""
        return self._urgent.popleft() if self._urgent else None

    def take(self) -> Queued | Barrier | None:
        """Take the next message, which has left from now on, or barrier; None if there is neither.

        None as well where thousands of messages that do not leave were passed over in this batch: then
        `is_empty` is false, and the next batch goes on behind them.
        """
        queue = self._queue
        while queue and self._passed < _PASSED_AT_ONCE:
            item = queue.popleft()
            if isinstance(item, Barrier):
                if not self._stayed:
                    return item
                self._stayed.append(item)
                continue
            self._passed += 1
            if item.withdrawn:
                self._withdrawn -= 1
                continue
            if self._stays is not None and self._stays(item.subject):
                self._stayed.append(item)
                continue
            self._passed -= 1
            item.left(self.generation)
            self._messages -= 1
            self._bytes -= item.size
            return item
        return None

    def forget(self, item: Queued) -> None:
        """Give back the room of a message that is being withdrawn."""
        self._messages -= 1
        self._bytes -= item.size
        self._withdrawn += 1
        if self._withdrawn > _MAX_WITHDRAWN and self._withdrawn > self._messages:
            # During a long outage retries come and go; without this their shells would fill the memory.
            for queue in (self._queue, self._stayed):
                kept = [
                    one for one in queue if isinstance(one, Barrier) or not (one.withdrawn or one is item)
                ]
                queue.clear()
                queue.extend(kept)
            self._withdrawn = 0

    def drain_barriers(self) -> list[Barrier]:
        """Take every barrier out, for good: the bus closes."""
        waiting = *self._urgent, *self._stayed, *self._queue
        barriers = [item for item in waiting if isinstance(item, Barrier)]
        self._urgent.clear()
        for queue in (self._queue, self._stayed):
            messages = [item for item in queue if not isinstance(item, Barrier)]
            queue.clear()
            queue.extend(messages)
        return barriers
