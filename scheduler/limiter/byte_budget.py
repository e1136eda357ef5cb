"""Bounds the bytes of requests in flight, of all builds and of one of them.

What a connection of a connector has not read waits in the server, which cuts the connection off when that is
too much. So requests in flight are bounded in bytes as well as in number. A request may go if its build then
has no more in flight than is left for all others. So one build has half of the budget at most, two have a
third each; and however many builds there are, with requests of a certain size they leave room for a smaller
one: no silent connector of one build keeps small requests of others from being sent.

A request that is larger than a quarter of the budget would wait for a quiet moment that may never come. It
counts beside the others, and one such is in flight at a time.
"""

import heapq
from collections import deque
from collections.abc import Hashable, Iterator
from itertools import count
from typing import Final

_MOST_STALE: Final = 100
"""Stale entries in the heap that are not worth clearing it up."""


class ByteAccount:
    """The bytes that one build has in flight.

    Args:
        build: its build.
    """

    __slots__ = ("build", "bytes", "short", "single", "singly", "unweighed")

    def __init__(self, build: Hashable) -> None:
        self.build = build
        self.bytes = 0
        """Bytes in flight, without ``single``."""
        self.single = 0
        """Bytes in flight of a request that counts beside the others."""
        self.short: Shortage | None = None
        """The lack of room for its next request: no request of the build has a turn then."""
        self.singly = False
        """Whether it was short lately: then it has its slots one after another, each when the size of the
        request before is known. Otherwise hundreds would have slots, and give them back again and again."""
        self.unweighed = False
        """Whether there is such a request whose size is not known yet."""

    @property
    def held_back(self) -> bool:
        """Whether no request of the build may have slots, for what is known of sizes."""
        return self.singly and (self.unweighed or self.short is not None)


class Shortage:
    """A build whose next request finds no room.

    Args:
        account: of the build.
        size: of the request, in bytes.
    """

    __slots__ = ("account", "size")

    def __init__(self, account: ByteAccount, size: int) -> None:
        self.account: ByteAccount | None = account
        """None once it waits no more: this may stay in a queue until its turn comes, and keeps no build."""
        self.size = size


class ByteBudget:
    """Counts the bytes in flight, and keeps the builds that wait for some: the one that needs least is first.

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
        """Bytes above which a request counts beside the others, one at a time."""
        self.taken = 0
        """Bytes in flight, without such a request."""
        self._single = 0
        """Bytes of such a request that is in flight."""
        self._kept = 0
        self._heap: list[tuple[int, int, Shortage]] = []
        self._alone: deque[Shortage] = deque()
        """Builds that wait with such a request."""
        self._numbers = count()
        self._stale = 0

    @property
    def in_flight(self) -> int:
        """All bytes in flight."""
        return self.taken + self._single

    @property
    def waits(self) -> bool:
        """Whether a build may be waiting for bytes."""
        return bool(self._heap or self._alone)

    def is_ample(self, account: ByteAccount) -> bool:
        """Return whether a build is so far from its share that it need not be looked at closely."""
        return 2 * (account.bytes + self.taken) <= self.most

    def fits(self, account: ByteAccount, size: int) -> bool:
        """Return whether a request of so many bytes may go."""
        if size > self.large:
            return not self._single
        return account.bytes + self.taken + 2 * size <= self.most

    def take(self, account: ByteAccount, size: int) -> None:
        """Count a request in flight, even where there is no room for it."""
        if size > self.large:
            account.single += size
            self._single += size
        else:
            account.bytes += size
            self.taken += size

    def give_back(self, account: ByteAccount, size: int) -> None:
        """Stop counting a request; `freed` says which builds can go on by that."""
        if size > self.large:
            account.single -= size
            self._single -= size
            return
        account.bytes -= size
        self.taken -= size
        if account.short is not None and account.short.size <= self.large:
            # It needs less now.
            self.wait(account, account.short.size)

    def close(self, account: ByteAccount) -> None:
        """Forget a finished build: it has nothing in flight, and waits for nothing."""
        self.end_wait(account)
        self.taken -= account.bytes
        self._single -= account.single
        account.bytes = account.single = 0

    def wait(self, account: ByteAccount, size: int) -> None:
        """Hold back a build whose next request finds no room, until there is some."""
        self.end_wait(account)
        shortage = account.short = Shortage(account, size)
        if size > self.large:
            self._alone.append(shortage)
        else:
            heapq.heappush(self._heap, (account.bytes + 2 * size, next(self._numbers), shortage))

    def end_wait(self, account: ByteAccount) -> None:
        """Hold a build back no longer. Idempotent."""
        shortage, account.short = account.short, None
        if shortage is None:
            return
        shortage.account = None
        self._stale += 1
        if self._stale > _MOST_STALE and self._stale * 2 > len(self._heap) + len(self._alone):
            self._heap = [entry for entry in self._heap if entry[2].account is not None]
            heapq.heapify(self._heap)
            self._alone = deque(one for one in self._alone if one.account is not None)
            self._stale = 0

    def freed(self) -> Iterator[ByteAccount]:
        """Yield builds that wait no more, as there is room; each may take some before the next one."""
        while self._heap and (self._heap[0][2].account is None or self._heap[0][0] + self.taken <= self.most):
            account = self._end(heapq.heappop(self._heap)[2])
            if account is not None:
                yield account
        while self._alone and not self._single:
            account = self._end(self._alone.popleft())
            if account is not None:
                yield account

    def _end(self, shortage: Shortage) -> ByteAccount | None:
        account = shortage.account
        if account is None:
            self._stale -= 1
        else:
            account.short = shortage.account = None
        return account

    def keep(self, size: int) -> bool:
        """Return whether a body of so many bytes may be kept while it waits; where it may, it counts."""
        if self._kept + size > self.large:
            return False
        self._kept += size
        return True

    def drop(self, size: int) -> None:
        """Stop counting a body that is no longer kept."""
        self._kept -= size
