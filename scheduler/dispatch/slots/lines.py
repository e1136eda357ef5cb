"""Who waits for a slot, and in which order they are to have one.

::

    Ring        requests that fall under the same limits of the instance
      Bench     a sender of builds in it: senders take turns, and who was served longest ago is next
        Seat    a build of it: builds take turns in the same way
          Line  those of its components that fall under the same limits of the build: the most urgent first
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
    from scheduler.dispatch.slots.accounts import Account

_MOST_LEFT: Final = 100
"""Places of builds, or senders, that are over in a heap, that are not worth clearing it up."""

Order: TypeAlias = tuple[float, int]
"""By urgency, then by when it was asked: the smallest goes first in its line."""


class Fate(Enum):
    """What became of somebody who waits."""

    WAITS = 0
    SERVED = 1
    DISMISSED = 2
    """Goes on without a slot."""
    LEFT = 3


class Waiter:
    """A component that waits for its slots.

    Args:
        line: where it waits.
        subject: of its request.
        order: its place there.
        ended: is told that the wait is over, and whether it has its slots; it must not ask for slots itself.
        size: of its request, in bytes, for which it waits as well; 0 where that is not known yet.
    """

    __slots__ = ("ended", "fate", "line", "order", "size", "subject")

    def __init__(
        self, line: "Line", subject: str, order: Order, ended: Callable[[bool], None], size: int = 0
    ) -> None:
        self.line = line
        self.subject = subject
        self.order = order
        self.ended = ended
        self.size = size
        self.fate = Fate.WAITS

    def end(self, fate: Fate) -> None:
        """Let it go on."""
        self.fate = fate
        self.ended(fate is Fate.SERVED)


class Line:
    """The components of one build that fall under the same limits."""

    __slots__ = ("_heap", "counted", "length", "own", "pools", "rates", "seat", "width")

    def __init__(self, seat: "Seat", own: tuple[AnyPool, ...]) -> None:
        self.seat = seat
        self.own = own
        """The limits of the build that they fall under."""
        self.pools = (*own, seat.bench.share, *seat.bench.ring.pools)
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
        waiter.line = self
        heapq.heappush(self._heap, (*waiter.order, waiter))
        self.length += 1
        seat = self.seat
        if not seat.lines:
            seat.bench.waiting += 1
        seat.lines[self] = None

    @property
    def order(self) -> tuple[float, int, int]:
        """That of the most urgent one who waits, to be compared with other lines of its build.

        Of equally urgent ones those under the narrowest limit go first: it is to be full all the time.
        """
        urgency, number = self.first.order
        return urgency, self.width, number

    @property
    def first(self) -> Waiter:
        """The most urgent one who waits."""
        while self._heap[0][2].fate is not Fate.WAITS:
            heapq.heappop(self._heap)
        return self._heap[0][2]

    def pop(self) -> Waiter:
        """Take out the most urgent one."""
        while True:
            waiter = heapq.heappop(self._heap)[2]
            if waiter.fate is Fate.WAITS:
                self.one_less()
                return waiter

    def one_less(self) -> None:
        """Somebody left: its place in the heap is found empty later on."""
        self.length -= 1
        if not self.length:
            self._heap.clear()
            self.seat.one_line_less(self)

    def clear(self) -> list[Waiter]:
        """Take out all."""
        waiters = [waiter for _, _, waiter in self._heap if waiter.fate is Fate.WAITS]
        self._heap.clear()
        self.length = 0
        self.seat.one_line_less(self)
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

    def ready(self, now: float, alarms: Alarms) -> "Seat | None":
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

    def head(self, now: float, alarms: Alarms) -> "Seat | None":
        """The build whose turn it is; those that limits of their own keep are taken out."""
        heap = self._heap
        while heap:
            served, number, taker = heap[0]
            if taker.left:
                heapq.heappop(heap)
                self._left -= 1
            elif served != taker.served:
                # Served in another ring meanwhile: it moves back.
                heapq.heapreplace(heap, (taker.served, number, taker))
            else:
                seat = taker.ready(now, alarms)
                if seat is not None:
                    return seat
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


class Seat(_Taker):
    """A build in a ring."""

    __slots__ = ("_account", "bench", "lines")

    def __init__(self, account: "Account", bench: "Bench") -> None:
        super().__init__()
        self._account: Account | None = account
        self.bench = bench
        self.lines: dict[Line, None] = {}
        """Where somebody waits."""

    @property
    def account(self) -> "Account":
        """Whose seat it is."""
        assert self._account is not None, "nobody waits in a seat that was left"
        return self._account

    def leave(self) -> None:
        """Its build is over: its place in the heap is found empty later on."""
        self._account = None
        self.bench.turns.leave(self)

    def push(self) -> None:
        """Wait for its turn."""
        bench = self.bench
        if not self.queued:
            bench.turns.add(self)
        if not bench.queued and not bench.share.waits:
            bench.ring.push(bench)

    def one_line_less(self, line: Line) -> None:
        """Nobody waits there any more. Idempotent."""
        if self.lines.pop(line, self) is None and not self.lines:
            self.bench.waiting -= 1

    def ready(self, now: float, alarms: Alarms) -> "Seat | None":
        """Itself, if it has a component that the limits of its build let through."""
        return None if self.best(now, alarms) is None else self

    def best(self, now: float, alarms: Alarms) -> Line | None:
        """The line with the most urgent component that the limits of its build let through."""
        best: Line | None = None
        if self.account.held_back:
            return None
        for line in self.lines:
            if alarms.block(line.own, now):
                continue
            if best is None or line.order < best.order:
                best = line
        return best


class Bench(_Taker):
    """The builds of one sender in a ring."""

    __slots__ = ("ring", "share", "turns", "waiting")

    def __init__(self, share: Share, ring: "Ring") -> None:
        super().__init__()
        self.share = share
        self.ring = ring
        self.turns: _Turns[Seat] = _Turns()
        self.waiting = 0
        """In how many of its seats somebody waits."""

    def leave(self) -> None:
        """Its sender has no build any more."""
        self.ring.leave(self)

    def ready(self, now: float, alarms: Alarms) -> Seat | None:
        """The build of it whose turn it is, if its sender may have one more in flight."""
        if self.share.room():
            return self.turns.head(now, alarms)
        self.share.wait()
        return None


class Ring(_Turns[Bench]):
    """Builds that wait with requests that fall under the same limits of the instance."""

    __slots__ = ("pools",)

    def __init__(self, pools: tuple[AnyPool, ...]) -> None:
        super().__init__()
        self.pools = pools

    def bench(self, share: Share) -> Bench:
        """Where the builds of a sender wait for their turn."""
        bench = share.benches.get(self)
        if bench is None:
            bench = share.benches[self] = Bench(share, self)
        return bench

    def push(self, bench: Bench) -> None:
        """A sender waits for its turn."""
        self.add(bench)
        for pool in self.pools:
            pool.rings[self] = None

    def head(self, now: float, alarms: Alarms) -> Seat | None:
        """The build whose turn it is; those whom limits of their own keep are taken out."""
        seat = super().head(now, alarms)
        if seat is None:
            for pool in self.pools:
                pool.rings.pop(self, None)
        return seat

    def blocked(self, now: float, alarms: Alarms) -> bool:
        """Whether a limit of the instance keeps all of them."""
        return alarms.block(self.pools, now)
