"""Records of what was done: the port, and the one in memory.

A record answers the question whether a component was acted upon already. Only success is remembered: what
failed may be tried again. Between the cloud's answer and the record a crash may come, so a handler can still
act twice: `Context.repeated` says so, and the key is what a cloud takes as a client token.
"""

import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, Protocol, TypeAlias

import trio
from attrs import define, field, frozen

from scheduler.bus import Bus

LONGEST_KEPT: Final = 7 * 86_400.0
"""Seconds for which a success is remembered."""
MOST_KEPT: Final = 100_000
"""Number of successes that are remembered."""
MOST_BYTES_KEPT: Final = 64 * 1024 * 1024
"""Bytes of replies that are remembered in memory."""


@frozen
class Begun:
    """The caller is to act."""

    repeated: bool = False
    """Whether an earlier process began it, and left no answer."""


_BEGUN: Final = Begun()


@frozen
class Completed:
    """It was done before."""

    reply: bytes = field(repr=False)
    """Reply of that time."""


@frozen
class Busy:
    """Another process, which lives, is at it."""


Claim: TypeAlias = Begun | Completed | Busy


class Store(Protocol):
    """Record of what was done, by key.

    Each method may raise anything: a request is then refused for the moment, or its success is not recorded,
    which is logged. They are called within `open`, by one task at a time for a key.
    """

    @property
    def durable(self) -> bool:
        """Whether the record outlives the process."""

    def open(self, bus: Bus) -> AbstractAsyncContextManager[object]:
        """Return a context within which the record is used.

        Args:
            bus: the connector's bus, for a record that the broker keeps.
        """

    async def begin(self, key: str, attempt: str) -> Claim:
        """Note that an attempt is begun, or say why it need not be.

        What this process itself has begun before counts as `Begun` again: it asks only where nobody acts.
        """

    async def complete(self, key: str, reply: bytes) -> None:
        """Keep the reply of a success."""

    async def forget(self, key: str) -> None:
        """Forget what this process began, and what failed; a success stays. Idempotent."""

    async def unanswered(self) -> Sequence[str]:
        """Return the attempts that processes began which are gone, and which have no answer."""


@define
class MemoryStore:
    """A record in memory: lost with the process, and enough against requests that come twice.

    Args:
        longest_kept: seconds for which a success is remembered.
        most_kept: number of successes that are remembered; the oldest are forgotten first.
        most_bytes: bytes of their replies.
        clock: returns the time in seconds, of any origin.
    """

    longest_kept: float = LONGEST_KEPT
    most_kept: int = MOST_KEPT
    most_bytes: int = MOST_BYTES_KEPT
    clock: Callable[[], float] = time.monotonic
    _completed: OrderedDict[str, tuple[float, bytes]] = field(factory=OrderedDict, repr=False)
    _bytes: int = 0

    durable = False

    @asynccontextmanager
    async def open(self, bus: Bus) -> AsyncIterator[None]:  # noqa: ARG002 - the port's
        """Do nothing: it is there."""
        yield

    async def begin(self, key: str, attempt: str) -> Claim:  # noqa: ARG002 - the port's
        """See `Store.begin`."""
        await trio.lowlevel.checkpoint()
        return self.recall(key)

    def recall(self, key: str) -> Begun | Completed:
        """Return whether it was done before. Synchronous."""
        if key not in self._completed:
            return _BEGUN
        self._evict()
        found = self._completed.get(key)
        return _BEGUN if found is None else Completed(found[1])

    async def complete(self, key: str, reply: bytes) -> None:
        """See `Store.complete`."""
        await trio.lowlevel.checkpoint()
        self.remember(key, reply)

    def remember(self, key: str, reply: bytes) -> None:
        """Keep the reply of a success. Synchronous."""
        if (gone := self._completed.pop(key, None)) is not None:
            self._bytes -= len(gone[1])
        self._completed[key] = (self.clock(), reply)
        self._bytes += len(reply)
        self._evict()

    async def forget(self, key: str) -> None:  # noqa: ARG002 - the port's
        """Do nothing: only successes are kept."""
        await trio.lowlevel.checkpoint()

    async def unanswered(self) -> Sequence[str]:
        """Return nothing: what the process began is gone with it."""
        await trio.lowlevel.checkpoint()
        return ()

    def _evict(self) -> None:
        oldest = self.clock() - self.longest_kept
        while self._completed:
            at, reply = next(iter(self._completed.values()))
            if len(self._completed) <= self.most_kept and self._bytes <= self.most_bytes and at > oldest:
                return
            self._completed.popitem(last=False)
            self._bytes -= len(reply)
