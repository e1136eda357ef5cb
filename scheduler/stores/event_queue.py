"""The events of a build that wait to be committed, with orders, and their division into records."""

from collections import deque
from collections.abc import Awaitable, Callable, Iterable

from attrs import frozen

from scheduler.journal.records import ORDERS_HEADER, ORDERS_IN_A_RECORD, Status, orders_header


@frozen
class Draft:
    """The events of a record that is about to be stored."""

    lazy: list[bytes]
    """Events that did not ask for a record; they come first in it."""
    queued: list[bytes]
    """Events that did."""
    statuses: list[tuple[int, Status]]
    """Statuses of the log that come with them, each with the number of its event."""
    orders: list[tuple[int, str]]
    """Orders of operators that come with them, encoded, each with the number of its event."""

    @property
    def events(self) -> list[bytes]:
        """All events, in their order in the record."""
        return [*self.lazy, *self.queued]

    @property
    def headers(self) -> dict[str, str]:
        """Headers of the record that follow from what is in it."""
        return {ORDERS_HEADER: orders_header(order for _, order in self.orders)} if self.orders else {}


class EventQueue:
    """Encoded events in the order in which they are committed, those that can wait for others apart."""

    __slots__ = ("_lazy", "_orders", "_queue", "_statuses", "committed", "put")

    def __init__(self) -> None:
        self.put = 0
        """Number of events that were ever queued, without those that can wait."""
        self.committed = 0
        """Number of those that are committed."""
        self._queue: deque[bytes] = deque()
        self._lazy: deque[bytes] = deque()
        self._statuses: deque[tuple[int, Status]] = deque()
        # A list, as it is nearly always empty.
        self._orders: list[tuple[int, str]] = []

    def __bool__(self) -> bool:
        return bool(self._queue or self._orders)

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

    def add_order(self, order: str, *, follows: bool) -> None:
        """Queue an order of an operator; it goes into the same record as the next event, if one follows."""
        self._orders.append((self.put + follows, order))

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
        orders = self._take_orders(self.committed, ORDERS_IN_A_RECORD)
        while self._lazy and size < most // 2:
            event = self._lazy.popleft()
            lazy.append(event)
            size += len(event) + 1
        # An outcome must not overtake the event that its request had left.
        while self._queue and not self._lazy:
            room = ORDERS_IN_A_RECORD - len(orders)
            if not room and self._orders and self._orders[0][0] <= self.committed + len(queued) + 1:
                # It must not be committed without its order.
                break
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
            if self._orders:
                orders += self._take_orders(self.committed + len(queued), room)
        statuses: list[tuple[int, Status]] = []
        while self._statuses and self._statuses[0][0] <= self.committed + len(queued):
            statuses.append(self._statuses.popleft())
        return Draft(lazy, queued, statuses, orders)

    def _take_orders(self, number: int, most: int) -> list[tuple[int, str]]:
        """Take the first orders that are due with the event of this number, or earlier."""
        due = [one for one in self._orders[:most] if one[0] <= number]
        del self._orders[: len(due)]
        return due

    def put_back(self, draft: Draft) -> None:
        """Restore the queue as it was before `take`."""
        self._lazy.extendleft(reversed(draft.lazy))
        self._queue.extendleft(reversed(draft.queued))
        self._statuses.extendleft(reversed(draft.statuses))
        self._orders[:0] = draft.orders

    def drop(self, draft: Draft) -> None:
        """Take the events of a draft again that was put back."""
        for waiting, taken in (
            (self._lazy, draft.lazy),
            (self._queue, draft.queued),
            (self._statuses, draft.statuses),
        ):
            for _ in taken:
                waiting.popleft()
        del self._orders[: len(draft.orders)]

    def clear(self) -> None:
        """Drop all events."""
        self._queue.clear()
        self._lazy.clear()
        self._orders.clear()
