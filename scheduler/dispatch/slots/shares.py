"""How much of what all may have at a time one sender may have, however many builds it sends.

The last eighth of a limit is kept for those who have little: of it a sender may have one more only while it
has less than is left. So a sender alone has seven eighths, and nobody's silent connector keeps the requests
of others from being sent. Of the eighth a second sender that gives nothing back has half, a third one half of
the rest, and so on.
"""

import heapq
from itertools import count
from typing import TYPE_CHECKING, Final

from scheduler.dispatch.slots.pools import Pool

if TYPE_CHECKING:
    from scheduler.dispatch.slots.queues import FairQueue, SenderQueue

PARTS: Final = 8
"""One of so many parts of a limit is kept; of a limit below that, nothing."""
_MOST_STALE: Final = 100
"""Entries of those who wait no more that are not worth clearing up."""


def may_have_one_more(held: int, free: int, most: int) -> bool:
    """Whether who holds so many of ``most`` may have one more, where so many are free."""
    return free > most // PARTS or held < free


class Share(Pool):
    """What one sender has in flight.

    Args:
        sender: as `senders.sender_of` names it.
        every: what all have in flight.
        shares: where it is entered while it keeps somebody waiting.
    """

    __slots__ = ("__weakref__", "_shares", "every", "sender", "sender_queues", "usages")

    def __init__(self, sender: str, every: Pool, shares: "Shares") -> None:
        super().__init__(f"{every.label} (its sender's share)", every.count)
        self.sender = sender
        self.every = every
        self.usages = 0
        """How many builds it has."""
        self.sender_queues: dict[FairQueue, SenderQueue] = {}
        """Where its builds wait for their turn."""
        self._shares = shares

    def room(self, now: float = 0.0) -> bool:  # noqa: ARG002 - as that of a rate
        """Whether one more may be in flight; where nobody may have one, it is not this that keeps it."""
        every = self.every
        free = every.count - every.taken
        return free <= 0 or may_have_one_more(self.taken, free, every.count)

    @property
    def waits(self) -> bool:
        """Whether it keeps somebody waiting."""
        return self in self._shares.full

    def wait(self) -> None:
        """It keeps somebody waiting: `Shares.next` says when it does no more. Idempotent."""
        self._shares.enter(self)

    def dissolve(self) -> None:
        """Let go of all that refers to it; its queues may stay in the heaps of others for a while."""
        for sender_queue in self.sender_queues.values():
            sender_queue.leave()
        self.sender_queues.clear()
        self._shares.strike(self)


class Shares:
    """The shares that keep somebody waiting: who has least in flight goes on first.

    Args:
        every: what all have in flight.
    """

    __slots__ = ("_every", "_heap", "_numbers", "full", "kept")

    def __init__(self, every: Pool) -> None:
        self._every = every
        self.kept = every.count // PARTS
        """So many are for those who have little."""
        self.full: dict[Share, int] = {}
        """With what each had in flight when it was entered; an entry with another number is stale."""
        self._heap: list[tuple[int, int, Share]] = []
        self._numbers = count()

    def enter(self, share: Share) -> None:
        """Look after one that keeps somebody waiting, or has less in flight now. Idempotent."""
        if self.full.get(share) == share.taken:
            return
        self.full[share] = share.taken
        heapq.heappush(self._heap, (share.taken, next(self._numbers), share))
        if len(self._heap) > 2 * len(self.full) + _MOST_STALE:
            self._heap = [(taken, next(self._numbers), one) for one, taken in self.full.items()]
            heapq.heapify(self._heap)

    def strike(self, share: Share) -> None:
        """Look after it no more."""
        self.full.pop(share, None)
        if not self.full:
            self._heap.clear()

    def next(self) -> Share | None:
        """One that need keep nobody waiting any more; it may take some before the next one is asked for."""
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
