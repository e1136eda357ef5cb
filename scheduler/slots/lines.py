"""Who waits for a slot, and in which order they are to have one.

::

    Ring      requests that fall under the same limits of the instance
      Seat    a build in it: builds take turns, and who was served longest ago is next
        Line  those of its components that fall under the same limits of the build: the most urgent first
"""

import heapq
from collections.abc import Callable
from enum import Enum
from itertools import count
from typing import TYPE_CHECKING, Final, TypeAlias

from scheduler.slots.alarms import Alarms
from scheduler.slots.pools import AnyPool, Pool, Rate

if TYPE_CHECKING:
    from scheduler.slots.accounts import Account

_MOST_LEFT: Final = 100
"""Places of builds that are over in a ring's heap, that are not worth clearing it up."""

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
        self.pools = (*own, *seat.ring.pools)
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
        self.seat.lines[self] = None

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
            self.seat.lines.pop(self, None)

    def clear(self) -> list[Waiter]:
        """Take out all."""
        waiters = [waiter for _, _, waiter in self._heap if waiter.fate is Fate.WAITS]
        self._heap.clear()
        self.length = 0
        self.seat.lines.pop(self, None)
        return waiters


class Seat:
    """A build in a ring."""

    __slots__ = ("_account", "lines", "queued", "ring", "served")

    def __init__(self, account: "Account", ring: "Ring") -> None:
        self._account: Account | None = account
        self.ring = ring
        self.lines: dict[Line, None] = {}
        """Where somebody waits."""
        self.served = 0.0
        """The number of the turn in which it was served last."""
        self.queued = False
        """Whether it waits for its turn: not while limits of its own keep it."""

    @property
    def account(self) -> "Account":
        """Whose seat it is."""
        assert self._account is not None, "nobody waits in a seat that was left"
        return self._account

    @property
    def left(self) -> bool:
        """Whether its build is over."""
        return self._account is None

    def leave(self) -> None:
        """Its build is over: its place in the ring's heap is found empty later on."""
        self._account = None
        if self.queued:
            self.ring.one_left()

    def best(self, now: float, alarms: Alarms) -> Line | None:
        """The line with the most urgent component that the limits of its build let through."""
        best: Line | None = None
        if self.account.held_back:
            return None
        for line in self.lines:
            if any(alarms.blocked(pool, now) for pool in line.own):
                continue
            if best is None or line.order < best.order:
                best = line
        return best


class Ring:
    """Builds that wait with requests that fall under the same limits of the instance."""

    __slots__ = ("_heap", "_left", "_numbers", "pools")

    def __init__(self, pools: tuple[AnyPool, ...]) -> None:
        self.pools = pools
        self._left = 0
        """Places of builds that are over."""
        self._heap: list[tuple[float, int, Seat]] = []
        self._numbers = count()

    def __bool__(self) -> bool:
        """Whether somebody may be waiting here."""
        return bool(self._heap)

    def push(self, seat: Seat) -> None:
        """A build waits for its turn."""
        if not seat.queued:
            seat.queued = True
            heapq.heappush(self._heap, (seat.served, next(self._numbers), seat))
            for pool in self.pools:
                pool.rings[self] = None

    def head(self, now: float, alarms: Alarms) -> Seat | None:
        """The build whose turn it is; those that limits of their own keep are taken out."""
        while self._heap:
            served, number, seat = self._heap[0]
            if seat.lines and served != seat.served:
                # Served in another ring meanwhile: it moves back.
                heapq.heapreplace(self._heap, (seat.served, number, seat))
            elif seat.lines and seat.best(now, alarms) is not None:
                return seat
            else:
                heapq.heappop(self._heap)
                seat.queued = False
                self._left -= seat.left
        for pool in self.pools:
            pool.rings.pop(self, None)
        return None

    def one_left(self) -> None:
        """One of the builds is over: its place goes when its turn comes, or when half of them are such."""
        self._left += 1
        if self._left > _MOST_LEFT and self._left * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if not entry[2].left]
            heapq.heapify(self._heap)
            self._left = 0

    def blocked(self, now: float, alarms: Alarms) -> bool:
        """Whether a limit of the instance keeps all of them."""
        return any(alarms.blocked(pool, now) for pool in self.pools)
