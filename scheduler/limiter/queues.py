"""The requests that wait for slots, and the order in which they are to have them.

::

    FairQueue                requests that fall under the same limits of the instance
      SenderQueue            a sender of builds: senders take turns, the one served longest ago is next
        BuildQueue           a build of it: builds take turns in the same way
          PriorityQueue      requests under the same limits of the build: the most urgent first
"""

import heapq
from collections.abc import Callable
from enum import Enum
from typing import TypeAlias

from scheduler.limiter.alarms import Alarms
from scheduler.limiter.byte_budget import ByteAccount
from scheduler.limiter.gate import Gate
from scheduler.limiter.limits import FlightLimit, Limit, RateLimit
from scheduler.limiter.shares import Share
from scheduler.limiter.turns import Taker, Turns

Place: TypeAlias = tuple[float, int, "Waiter"]
"""A waiter behind its order: by urgency, then by when it asked. The smallest goes first in its queue."""


class WaiterState(Enum):
    """The state of a waiter."""

    WAITS = 0
    SERVED = 1
    DISMISSED = 2
    """Goes on without a slot."""
    LEFT = 3


class Waiter:
    """A request that waits for its slots.

    Args:
        priority_queue: the queue in which it waits.
        subject: of the request.
        ended: called at the end of the wait with whether it has its slots; it must not ask for slots itself.
        size: bytes of the request, for which it waits as well; 0 where that is not known yet.
    """

    __slots__ = ("ended", "priority_queue", "size", "state", "subject")

    def __init__(
        self,
        priority_queue: "PriorityQueue",
        subject: str,
        ended: Callable[[bool], None],
        size: int = 0,
    ) -> None:
        self.priority_queue = priority_queue
        self.subject = subject
        self.ended = ended
        self.size = size
        self.state = WaiterState.WAITS


class PriorityQueue:
    """The requests of one build that fall under the same limits."""

    __slots__ = (
        "_heap",
        "_order",
        "bounded",
        "build_queue",
        "counted",
        "gate",
        "length",
        "limits",
        "rates",
        "width",
    )

    def __init__(self, build_queue: "BuildQueue", gate: Gate) -> None:
        self.build_queue = build_queue
        self.gate = gate
        """The limits of the build that they fall under."""
        sender_queue = build_queue.sender_queue
        self.limits = (*gate.limits, sender_queue.share, *sender_queue.fair_queue.gate.limits)
        """All limits that they fall under."""
        self.counted = tuple(limit for limit in self.limits if isinstance(limit, FlightLimit))
        """Those on what is in flight ..."""
        every = sender_queue.share.every
        self.bounded = tuple(
            limit for limit in self.counted if limit is not every and limit is not sender_queue.share
        )
        """... without those on everything."""
        self.rates = tuple(limit for limit in self.limits if isinstance(limit, RateLimit))
        self.width = min(limit.whole for limit in self.counted)
        """Number of them that may be in flight at most."""
        self.length = 0
        """Number of them that wait."""
        self._heap: list[Place] = []
        self._order: tuple[float, int, int] | None = None

    def push(self, place: Place) -> None:
        """Queue a waiter at its place."""
        place[2].priority_queue = self
        heapq.heappush(self._heap, place)
        self._order = None
        self.length += 1
        build_queue = self.build_queue
        if not build_queue.priority_queues:
            build_queue.sender_queue.waiting += 1
        build_queue.priority_queues[self] = None

    @property
    def order(self) -> tuple[float, int, int]:
        """The order of the most urgent waiter, to be compared with other priority queues of its build.

        Of equally urgent ones those under the narrowest limit go first: it is to be full all the time.
        """
        order = self._order
        if order is None:
            heap = self._heap
            if heap[0][2].state is not WaiterState.WAITS:
                self._drop_left()
            urgency, number, _ = heap[0]
            order = self._order = urgency, self.width, number
        return order

    @property
    def first(self) -> Waiter:
        """The most urgent waiter."""
        heap = self._heap
        if heap[0][2].state is not WaiterState.WAITS:
            self._drop_left()
        return heap[0][2]

    def _drop_left(self) -> None:
        heap = self._heap
        while heap[0][2].state is not WaiterState.WAITS:
            heapq.heappop(heap)

    @property
    def kept_by(self) -> Limit | None:
        """The limit for which they waited last; None where they found none used up."""
        own, every = self.gate, self.build_queue.sender_queue.fair_queue.gate
        return (every if every.opened > own.opened else own).kept_by

    def drop_first(self) -> None:
        """Take out `first`, just after it was looked at."""
        heapq.heappop(self._heap)
        self.one_less()

    def one_less(self) -> None:
        """Count a waiter that left: its place in the heap is found empty later on."""
        self.length -= 1
        self._order = None
        if not self.length:
            self._heap.clear()
            self.build_queue.one_priority_queue_less(self)

    def take_out(self, most: int) -> list[Waiter]:
        """Take out some, the least urgent ones first, roughly."""
        heap = self._heap
        found: list[Waiter] = []
        while heap and len(found) < most:
            # The last one of a heap may go at any time.
            waiter = heap.pop()[2]
            if waiter.state is WaiterState.WAITS:
                found.append(waiter)
        self.length -= len(found)
        self._order = None
        if not self.length:
            heap.clear()
            self.build_queue.one_priority_queue_less(self)
        return found

    def clear(self) -> list[Place]:
        """Take out all."""
        places = [place for place in self._heap if place[2].state is WaiterState.WAITS]
        self._heap.clear()
        self._order = None
        self.length = 0
        self.build_queue.one_priority_queue_less(self)
        return places


class BuildQueue(Taker[PriorityQueue]):
    """A build in a fair queue."""

    __slots__ = ("_account", "priority_queues", "sender_queue")

    def __init__(self, account: ByteAccount, sender_queue: "SenderQueue") -> None:
        super().__init__()
        self._account: ByteAccount | None = account
        self.sender_queue = sender_queue
        self.priority_queues: dict[PriorityQueue, None] = {}
        """The queues with a waiter."""

    @property
    def account(self) -> ByteAccount:
        """The bytes that its build has in flight."""
        assert self._account is not None, "a build that is finished has nobody waiting"
        return self._account

    def leave(self) -> None:
        """Let go of a finished build: its place in the heap is found empty later on."""
        self._account = None
        self.sender_queue.turns.leave(self)

    def push(self) -> None:
        """Wait for its turn."""
        sender_queue = self.sender_queue
        if not self.queued:
            sender_queue.turns.add(self)
        if not sender_queue.queued and not sender_queue.share.waits:
            sender_queue.fair_queue.add(sender_queue)

    def one_priority_queue_less(self, priority_queue: PriorityQueue) -> None:
        """Drop a queue without a waiter. Idempotent."""
        if self.priority_queues.pop(priority_queue, self) is None and not self.priority_queues:
            self.sender_queue.waiting -= 1

    def ready(self, now: float, alarms: Alarms) -> PriorityQueue | None:
        """Return the priority queue with the most urgent waiter; None where limits of the build keep all."""
        return None if self.account.held_back else self.most_urgent(now, alarms)

    def most_urgent(self, now: float, alarms: Alarms) -> PriorityQueue | None:
        """Return the priority queue with the most urgent waiter that the limits of its build let through."""
        best: PriorityQueue | None = None
        for priority_queue in self.priority_queues:
            if priority_queue.gate.is_shut(now, alarms):
                continue
            if best is None or priority_queue.order < best.order:
                best = priority_queue
        return best


class SenderQueue(Taker[PriorityQueue]):
    """The builds of one sender in a fair queue."""

    __slots__ = ("fair_queue", "share", "turns", "waiting")

    def __init__(self, share: Share, fair_queue: "FairQueue") -> None:
        super().__init__()
        self.share = share
        self.fair_queue = fair_queue
        self.turns: Turns[PriorityQueue] = Turns()
        self.waiting = 0
        """Build queues with a waiter."""

    def leave(self) -> None:
        """Let go of a sender without builds, and of theirs that were in its turns until now."""
        self.turns.clear()
        self.fair_queue.leave(self)

    def ready(self, now: float, alarms: Alarms) -> PriorityQueue | None:
        """Return the priority queue of it whose turn it is, if its sender may have one more in flight."""
        if self.share.room():
            return self.turns.head(now, alarms)
        self.share.wait()
        return None


class FairQueue(Turns[PriorityQueue]):
    """Builds that wait with requests that fall under the same limits of the instance.

    Args:
        gate: those limits.
    """

    __slots__ = ("gate",)

    def __init__(self, gate: Gate) -> None:
        super().__init__()
        self.gate = gate
