"""Who waits for a slot, and in which order they are to have one.

::

    FairQueue                requests that fall under the same limits of the instance
      SenderQueue            a sender of builds: senders take turns, who was served longest ago is next
        BuildQueue           a build of it: builds take turns in the same way
          PriorityQueue      components under the same limits of the build: the most urgent first
"""

import heapq
from collections.abc import Callable
from enum import Enum
from itertools import count
from typing import TYPE_CHECKING, Final, Generic, TypeAlias, TypeVar

from scheduler.dispatch.slots.alarms import Alarms
from scheduler.dispatch.slots.pools import AnyPool, Pool, Rate
from scheduler.dispatch.slots.shares import Share

if TYPE_CHECKING:
    from scheduler.dispatch.slots.usage import Usage

_MOST_LEFT: Final = 100
"""Places of builds, or senders, that are over in a heap, that are not worth clearing it up."""

Order: TypeAlias = tuple[float, int]
"""By urgency, then by when it was asked: the smallest goes first in its priority queue."""


class WaiterState(Enum):
    """What became of somebody who waits."""

    WAITS = 0
    SERVED = 1
    DISMISSED = 2
    """Goes on without a slot."""
    LEFT = 3


class Waiter:
    """A component that waits for its slots.

    Args:
        priority queue: where it waits.
        subject: of its request.
        order: its place there.
        ended: is told that the wait is over, and whether it has its slots; it must not ask for slots itself.
        size: of its request, in bytes, for which it waits as well; 0 where that is not known yet.
    """

    __slots__ = ("ended", "fate", "order", "priority_queue", "size", "subject")

    def __init__(
        self,
        priority_queue: "PriorityQueue",
        subject: str,
        order: Order,
        ended: Callable[[bool], None],
        size: int = 0,
    ) -> None:
        self.priority_queue = priority_queue
        self.subject = subject
        self.order = order
        self.ended = ended
        self.size = size
        self.fate = WaiterState.WAITS

    def end(self, fate: WaiterState) -> None:
        """Let it go on."""
        self.fate = fate
        self.ended(fate is WaiterState.SERVED)


class PriorityQueue:
    """The components of one build that fall under the same limits."""

    __slots__ = ("_heap", "build_queue", "counted", "length", "own", "pools", "rates", "width")

    def __init__(self, build_queue: "BuildQueue", own: tuple[AnyPool, ...]) -> None:
        self.build_queue = build_queue
        self.own = own
        """The limits of the build that they fall under."""
        self.pools = (*own, build_queue.sender_queue.share, *build_queue.sender_queue.fair_queue.pools)
        """All limits that they fall under."""
        self.counted = tuple(pool for pool in self.pools if isinstance(pool, Pool))
        self.rates = tuple(pool for pool in self.pools if isinstance(pool, Rate))
        self.width = min(pool.count for pool in self.counted)
        """How many of them may be in flight at most."""
        self.length = 0
        """How many wait."""
        self._heap: list[tuple[float, int, Waiter]] = []

    def push(self, waiter: Waiter) -> None:
        """One more waits."""
        waiter.priority_queue = self
        heapq.heappush(self._heap, (*waiter.order, waiter))
        self.length += 1
        build_queue = self.build_queue
        if not build_queue.priority_queues:
            build_queue.sender_queue.waiting += 1
        build_queue.priority_queues[self] = None

    @property
    def order(self) -> tuple[float, int, int]:
        """That of the most urgent one who waits, to be compared with other priority queues of its build.

        Of equally urgent ones those under the narrowest limit go first: it is to be full all the time.
        """
        urgency, number = self.first.order
        return urgency, self.width, number

    @property
    def first(self) -> Waiter:
        """The most urgent one who waits."""
        while self._heap[0][2].fate is not WaiterState.WAITS:
            heapq.heappop(self._heap)
        return self._heap[0][2]

    def pop(self) -> Waiter:
        """Take out the most urgent one."""
        while True:
            waiter = heapq.heappop(self._heap)[2]
            if waiter.fate is WaiterState.WAITS:
                self.one_less()
                return waiter

    def one_less(self) -> None:
        """Somebody left: its place in the heap is found empty later on."""
        self.length -= 1
        if not self.length:
            self._heap.clear()
            self.build_queue.one_priority_queue_less(self)

    def clear(self) -> list[Waiter]:
        """Take out all."""
        waiters = [waiter for _, _, waiter in self._heap if waiter.fate is WaiterState.WAITS]
        self._heap.clear()
        self.length = 0
        self.build_queue.one_priority_queue_less(self)
        return waiters


class _Taker:
    """Who takes turns."""

    __slots__ = ("left", "queued", "served")

    def __init__(self) -> None:
        self.served = 0.0
        """The number of the turn in which it was served last."""
        self.queued = False
        """Whether it waits for its turn: not while limits of its own keep it."""
        self.left = False
        """Whether it is over."""

    def ready(self, now: float, alarms: Alarms) -> "BuildQueue | None":
        """The build that goes on, if it is the turn of this one now."""
        raise NotImplementedError


_TakerT = TypeVar("_TakerT", bound=_Taker)


class _Turns(Generic[_TakerT]):
    """Those who wait for their turn, who was served longest ago first."""

    __slots__ = ("_heap", "_left", "_numbers")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, _TakerT]] = []
        self._left = 0
        """Places of those that are over."""
        self._numbers = count()

    def __bool__(self) -> bool:
        """Whether somebody may be waiting here."""
        return bool(self._heap)

    def add(self, taker: _TakerT) -> None:
        """One more waits for its turn."""
        taker.queued = True
        heapq.heappush(self._heap, (taker.served, next(self._numbers), taker))

    def head(self, now: float, alarms: Alarms) -> "BuildQueue | None":
        """The build whose turn it is; those that limits of their own keep are taken out."""
        heap = self._heap
        while heap:
            served, number, taker = heap[0]
            if taker.left:
                heapq.heappop(heap)
                self._left -= 1
            elif served != taker.served:
                # Served in another fair queue meanwhile: it moves back.
                heapq.heapreplace(heap, (taker.served, number, taker))
            else:
                build_queue = taker.ready(now, alarms)
                if build_queue is not None:
                    return build_queue
                heapq.heappop(heap)
                taker.queued = False
        return None

    def leave(self, taker: _TakerT) -> None:
        """One is over: its place goes when its turn comes, or when half of them are such."""
        taker.left = True
        if not taker.queued:
            return
        self._left += 1
        if self._left > _MOST_LEFT and self._left * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if not entry[2].left]
            heapq.heapify(self._heap)
            self._left = 0


class BuildQueue(_Taker):
    """A build in a fair queue."""

    __slots__ = ("_usage", "priority_queues", "sender_queue")

    def __init__(self, usage: "Usage", sender_queue: "SenderQueue") -> None:
        super().__init__()
        self._usage: Usage | None = usage
        self.sender_queue = sender_queue
        self.priority_queues: dict[PriorityQueue, None] = {}
        """Where somebody waits."""

    @property
    def usage(self) -> "Usage":
        """Whose build queue it is."""
        assert self._usage is not None, "nobody waits in a seat that was left"
        return self._usage

    def leave(self) -> None:
        """Its build is over: its place in the heap is found empty later on."""
        self._usage = None
        self.sender_queue.turns.leave(self)

    def push(self) -> None:
        """Wait for its turn."""
        sender_queue = self.sender_queue
        if not self.queued:
            sender_queue.turns.add(self)
        if not sender_queue.queued and not sender_queue.share.waits:
            sender_queue.fair_queue.push(sender_queue)

    def one_priority_queue_less(self, priority_queue: PriorityQueue) -> None:
        """Nobody waits there any more. Idempotent."""
        if self.priority_queues.pop(priority_queue, self) is None and not self.priority_queues:
            self.sender_queue.waiting -= 1

    def ready(self, now: float, alarms: Alarms) -> "BuildQueue | None":
        """Itself, if it has a component that the limits of its build let through."""
        return None if self.best(now, alarms) is None else self

    def best(self, now: float, alarms: Alarms) -> PriorityQueue | None:
        """The priority queue with the most urgent component that the limits of its build let through."""
        best: PriorityQueue | None = None
        if self.usage.held_back:
            return None
        for priority_queue in self.priority_queues:
            if alarms.block(priority_queue.own, now):
                continue
            if best is None or priority_queue.order < best.order:
                best = priority_queue
        return best


class SenderQueue(_Taker):
    """The builds of one sender in a fair queue."""

    __slots__ = ("fair_queue", "share", "turns", "waiting")

    def __init__(self, share: Share, fair_queue: "FairQueue") -> None:
        super().__init__()
        self.share = share
        self.fair_queue = fair_queue
        self.turns: _Turns[BuildQueue] = _Turns()
        self.waiting = 0
        """In how many of its build queues somebody waits."""

    def leave(self) -> None:
        """Its sender has no build any more."""
        self.fair_queue.leave(self)

    def ready(self, now: float, alarms: Alarms) -> BuildQueue | None:
        """The build of it whose turn it is, if its sender may have one more in flight."""
        if self.share.room():
            return self.turns.head(now, alarms)
        self.share.wait()
        return None


class FairQueue(_Turns[SenderQueue]):
    """Builds that wait with requests that fall under the same limits of the instance."""

    __slots__ = ("pools",)

    def __init__(self, pools: tuple[AnyPool, ...]) -> None:
        super().__init__()
        self.pools = pools

    def sender_queue(self, share: Share) -> SenderQueue:
        """Where the builds of a sender wait for their turn."""
        sender_queue = share.sender_queues.get(self)
        if sender_queue is None:
            sender_queue = share.sender_queues[self] = SenderQueue(share, self)
        return sender_queue

    def push(self, sender_queue: SenderQueue) -> None:
        """A sender waits for its turn."""
        self.add(sender_queue)
        for pool in self.pools:
            pool.fair_queues[self] = None

    def head(self, now: float, alarms: Alarms) -> BuildQueue | None:
        """The build whose turn it is; those whom limits of their own keep are taken out."""
        build_queue = super().head(now, alarms)
        if build_queue is None:
            for pool in self.pools:
                pool.fair_queues.pop(self, None)
        return build_queue

    def blocked(self, now: float, alarms: Alarms) -> bool:
        """Whether a limit of the instance keeps all of them."""
        return alarms.block(self.pools, now)
