"""The events of a build that wait to be committed, and their division into records."""

from collections import deque
from collections.abc import Awaitable, Callable, Iterable

from attrs import frozen

from scheduler.journal.records import Status


@frozen
class Draft:
    """The events of a record that is about to be stored."""

    lazy: list[bytes]
    """Events that did not ask for a record; they come first in it."""
    queued: list[bytes]
    """Events that did."""
    statuses: list[tuple[int, Status]]
    """Statuses of the log that come with them, each with the number of its event."""

    @property
    def events(self) -> list[bytes]:
        """All events, in their order in the record."""
        return [*self.lazy, *self.queued]


class EventQueue:
    """Encoded events in the order in which they are committed, those that can wait for others apart."""

    __slots__ = ("_lazy", "_queue", "_statuses", "committed", "put")

    def __init__(self) -> None:
        self.put = 0
        """Number of events that were ever queued, without those that can wait."""
        self.committed = 0
        """Number of those that are committed."""
        self._queue: deque[bytes] = deque()
        self._lazy: deque[bytes] = deque()
        self._statuses: deque[tuple[int, Status]] = deque()

    def __bool__(self) -> bool:
        return bool(self._queue)

    @property
    def has_lazy(self) -> bool:
        """Whether there are events that can wait for others."""
        return bool(self._lazy)

    def add(self, event: bytes, status: Status | None = None) -> None:
        """Queue an event, which has the number `put` then; ``status`` is that of the log with it."""
        self._queue.append(event)
        self.put += 1
        if status is not None:
            self._statuses.append((self.put, status))

    def add_lazily(self, events: Iterable[bytes]) -> None:
        """Queue events that go into the next record, but do not ask for one."""
        self._lazy.extend(events)

    async def take(self, most: int, elsewhere: Callable[[bytes], Awaitable[bytes]]) -> Draft:
        """Take as many events as fit into a record.

        Args:
            most: bytes of a record's events.
            elsewhere: function that stores a larger event elsewhere, and returns the one that refers to it.
        """
        lazy: list[bytes] = []
        queued: list[bytes] = []
        size = 0
        while self._lazy and size < most // 2:
            event = self._lazy.popleft()
            lazy.append(event)
            size += len(event) + 1
        # An outcome must not overtake the event that its request had left.
        while self._queue and not self._lazy:
            event = self._queue[0]
            if len(event) > most:
                if size:
                    break
                event = await elsewhere(event)
            elif size and size + len(event) > most:
                break
            self._queue.popleft()
            queued.append(event)
            size += len(event) + 1
        statuses: list[tuple[int, Status]] = []
        while self._statuses and self._statuses[0][0] <= self.committed + len(queued):
            statuses.append(self._statuses.popleft())
        return Draft(lazy, queued, statuses)

    def put_back(self, draft: Draft) -> None:
        """Restore the queue as it was before `take`."""
        self._lazy.extendleft(reversed(draft.lazy))
        self._queue.extendleft(reversed(draft.queued))
        self._statuses.extendleft(reversed(draft.statuses))

    def drop(self, draft: Draft) -> None:
        """Take the events of a draft again that was put back."""
        for waiting, taken in (
            (self._lazy, draft.lazy),
            (self._queue, draft.queued),
            (self._statuses, draft.statuses),
        ):
            for _ in taken:
                waiting.popleft()

    def clear(self) -> None:
        """Drop all events."""
        self._queue.clear()
        self._lazy.clear()
