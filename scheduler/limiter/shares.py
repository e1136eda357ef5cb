"""Bounds the part of all requests that one sender may have in flight, however many builds it sends.

The last eighth of a limit is kept for those that have little: of it a sender may have one more only while it
has less than is left. So a sender alone has seven eighths, and no silent connector of one sender keeps the
requests of others from being sent. Of the eighth a second sender that gives nothing back has half, a third
one half of the rest, and so on.
"""

import heapq
from itertools import count
from typing import Final

from scheduler.limiter.limits import FlightLimit

PARTS: Final = 8
"""One of so many parts of a limit is kept; of a limit below that, nothing."""
_MOST_STALE: Final = 100
"""Stale entries in the heap that are not worth clearing it up."""


def may_have_one_more(held: int, free: int, most: int) -> bool:
    """Return whether a holder of so many of ``most`` may have one more, where so many are free."""
    return free > most // PARTS or held < free


class Share(FlightLimit):
    """The requests in flight of one sender.

    Args:
        sender: as `senders.sender_of` names it.
        every: all requests in flight.
        shares: the registry of the shares that keep somebody waiting.
    """

    __slots__ = ("__weakref__", "_shares", "every", "sender", "usages")

    def __init__(self, sender: str, every: FlightLimit, shares: "Shares") -> None:
        super().__init__(f"{every.label} (its sender's share)", every.count)
        self.sender = sender
        self.every = every
        self.usages = 0
        """Builds of this sender."""
        self._shares = shares

    def room(self, now: float = 0.0) -> bool:  # noqa: ARG002 - as that of a rate
        """Return whether one more may be in flight; true where all slots are taken: the share is not why."""
        every = self.every
        free = every.count - every.taken
        return free <= 0 or may_have_one_more(self.taken, free, every.count)

    @property
    def waits(self) -> bool:
        """Whether it keeps somebody waiting."""
        return self in self._shares.full

    def wait(self) -> None:
        """Note that it keeps somebody waiting: `Shares.next` says when it no longer does. Idempotent."""
        self._shares.enter(self)


class Shares:
    """The shares that keep somebody waiting: the one with the least in flight goes first.

    Args:
        every: all requests in flight.
    """

    __slots__ = ("_every", "_heap", "_numbers", "full", "kept")

    def __init__(self, every: FlightLimit) -> None:
        self._every = every
        self.kept = every.count // PARTS
        """Requests that are kept for senders with little in flight."""
        self.full: dict[Share, int] = {}
        """Requests that each had in flight when it was entered; an entry with another number is stale."""
        self._heap: list[tuple[int, int, Share]] = []
        self._numbers = count()

    def enter(self, share: Share) -> None:
        """Watch a share that keeps somebody waiting, or has less in flight now. Idempotent."""
        if self.full.get(share) == share.taken:
            return
        self.full[share] = share.taken
        heapq.heappush(self._heap, (share.taken, next(self._numbers), share))
        if len(self._heap) > 2 * len(self.full) + _MOST_STALE:
            self._heap = [(taken, next(self._numbers), one) for one, taken in self.full.items()]
            heapq.heapify(self._heap)

    def strike(self, share: Share) -> None:
        """Watch a share no longer. Idempotent."""
        self.full.pop(share, None)
        if not self.full:
            self._heap.clear()

    def next(self) -> Share | None:
        """Return a share that has room again; it may take some before the next one is asked for."""
        while self._heap:
            taken, _, share = self._heap[0]
            if self.full.get(share) == taken:
                free = self._every.count - self._every.taken
                if free <= 0 or not may_have_one_more(taken, free, self._every.count):
                    return None
                del self.full[share]
                heapq.heappop(self._heap)
                return share
            heapq.heappop(self._heap)
        return None
