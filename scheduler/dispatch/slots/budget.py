"""How many bytes of requests may be in flight, of all builds and of one of them.

What a connection of a connector has not read waits in the server, which cuts the connection off when that is
too much. So requests in flight are bounded in bytes as well as in number. A request may go if its build then
has no more in flight than is left for all others. So one build has half of the budget at most, two have a
third each; and however many builds there are, with requests of a certain size they leave room for a smaller
one: nobody's silent connector keeps small requests of others from being sent.

A request that is larger than a quarter of the budget would wait for a quiet moment that may never come. It
counts beside the others, and one such is in flight at a time.
"""

import heapq
from collections import deque
from collections.abc import Iterator
from itertools import count
from typing import TYPE_CHECKING, Final, Optional

if TYPE_CHECKING:
    from scheduler.dispatch.slots.usage import Usage

_MOST_STALE: Final = 100
"""Entries of those who wait no more that are not worth clearing up."""


class Shortage:
    """A build whose next request finds no room.

    Args:
        usage: of the build.
        size: of the request, in bytes.
    """

    __slots__ = ("size", "usage")

    def __init__(self, usage: "Usage", size: int) -> None:
        self.usage: Usage | None = usage
        """None once it waits no more: this may stay in a queue until its turn comes, and keeps no build."""
        self.size = size


class ByteBudget:
    """Counts the bytes in flight, and keeps the builds that wait for some: those that need least go first.

    Args:
        most: bytes.
    """

    __slots__ = (
        "_alone",
        "_heap",
        "_kept",
        "_numbers",
        "_single",
        "_stale",
        "label",
        "large",
        "most",
        "taken",
    )

    def __init__(self, most: int) -> None:
        self.label = f"max_bytes_in_flight={most}"
        self.most = most
        self.large = most // 4
        """A request above this counts beside the others, one at a time."""
        self.taken = 0
        """Bytes in flight, without such a request."""
        self._single = 0
        """Bytes of such a request that is in flight."""
        self._kept = 0
        self._heap: list[tuple[int, int, Shortage]] = []
        self._alone: deque[Shortage] = deque()
        """Who waits with such a request."""
        self._numbers = count()
        self._stale = 0

    @property
    def in_flight(self) -> int:
        """All bytes in flight."""
        return self.taken + self._single

    def is_ample(self, usage: "Usage") -> bool:
        """Whether a build is so far from its share that it need not be looked at closely."""
        return 2 * (usage.bytes + self.taken) <= self.most

    def fits(self, usage: "Usage", size: int) -> bool:
        """Whether a request of so many bytes may go."""
        if size > self.large:
            return not self._single
        return usage.bytes + self.taken + 2 * size <= self.most

    def take(self, usage: "Usage", size: int) -> None:
        """A request is in flight, be there room for it or not."""
        if size > self.large:
            usage.single += size
            self._single += size
        else:
            usage.bytes += size
            self.taken += size

    def give_back(self, usage: "Usage", size: int) -> None:
        """A request is in flight no more; who can go on by that, `freed` says."""
        if size > self.large:
            usage.single -= size
            self._single -= size
            return
        usage.bytes -= size
        self.taken -= size
        if usage.short is not None and usage.short.size <= self.large:
            # It needs less now.
            self.wait(usage, usage.short.size)

    def close(self, usage: "Usage") -> None:
        """A build is over: nothing of it is in flight, and it waits for nothing."""
        self.end_wait(usage)
        self.taken -= usage.bytes
        self._single -= usage.single
        usage.bytes = usage.single = 0

    def wait(self, usage: "Usage", size: int) -> None:
        """The next request of a build finds no room: nothing of it goes until there is some."""
        self.end_wait(usage)
        shortage = usage.short = Shortage(usage, size)
        if size > self.large:
            self._alone.append(shortage)
        else:
            heapq.heappush(self._heap, (usage.bytes + 2 * size, next(self._numbers), shortage))

    def end_wait(self, usage: "Usage") -> None:
        """A build waits no more. Idempotent."""
        shortage, usage.short = usage.short, None
        if shortage is None:
            return
        shortage.usage = None
        self._stale += 1
        if self._stale > _MOST_STALE and self._stale * 2 > len(self._heap) + len(self._alone):
            self._heap = [entry for entry in self._heap if entry[2].usage is not None]
            heapq.heapify(self._heap)
            self._alone = deque(one for one in self._alone if one.usage is not None)
            self._stale = 0

    def freed(self) -> Iterator["Usage"]:
        """The builds that wait no more, as there is room; each may take some before the next is looked at."""
        while self._heap and (self._heap[0][2].usage is None or self._heap[0][0] + self.taken <= self.most):
            usage = self._end(heapq.heappop(self._heap)[2])
            if usage is not None:
                yield usage
        while self._alone and not self._single:
            usage = self._end(self._alone.popleft())
            if usage is not None:
                yield usage

    def _end(self, shortage: Shortage) -> Optional["Usage"]:
        usage = shortage.usage
        if usage is None:
            self._stale -= 1
        else:
            usage.short = shortage.usage = None
        return usage

    def keep(self, size: int) -> bool:
        """Whether a body of so many bytes may be kept while it waits; where it may, it counts."""
        if self._kept + size > self.large:
            return False
        self._kept += size
        return True

    def drop(self, size: int) -> None:
        """A body is kept no more."""
        self._kept -= size
