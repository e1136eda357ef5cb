"""The claim of one work in the record: made before the handler is called, and settled after it."""

from typing import Final, Protocol

import trio

from scheduler.connectors.outcomes import Outcome, busy
from scheduler.connectors.stores import Begun, Busy, Completed, MemoryStore, Store
from scheduler.connectors.workload import Work
from scheduler.runtime.logger import Logger

RECORDING: Final = 10.0
"""Seconds for one question to the record."""
_ELSEWHERE: Final = 1.0
"""Seconds between two looks whether another process has ended its work on a component."""
_UNRECORDED: Final = 5.0
"""Seconds after which a request may come again that the record was not there for."""

log = Logger()


class WorkClaim(Protocol):
    """The claim of a work; of one without a key there is none, and nothing is recorded."""

    @property
    def is_immediate(self) -> bool:
        """Whether the record answers at once: the one in memory."""

    @property
    def outlives(self) -> bool:
        """Whether the record still has the work as begun when this process is gone."""

    async def make(self) -> Begun | Completed | Outcome:
        """Claim the work, or wait until no other process acts on its component; an outcome says why not."""

    async def note(self, attempt: str) -> None:
        """Record a further attempt: after a crash it is the one that the scheduler has in flight."""

    async def complete(self, reply: bytes) -> None:
        """Record the reply of a success."""

    async def forget(self) -> None:
        """Let another attempt begin, after a failure."""


def claim_of(store: Store, work: Work) -> WorkClaim:
    """Return the claim of a work, which is to be made."""
    # A class that builds on the one in memory may wait.
    return _InMemory(store, work) if type(store) is MemoryStore else _Claim(store, work)


class _InMemory:
    """A claim in memory: nothing waits, nothing fails, and a failure leaves nothing to forget."""

    __slots__ = ("_held", "_key", "_store", "_work")

    is_immediate = True
    outlives = False

    def __init__(self, store: MemoryStore, work: Work) -> None:
        self._store = store
        self._work = work
        self._key = work.key
        self._held = False

    async def make(self) -> Begun | Completed | Outcome:
        if not self._key or self._work.given_up:
            return _UNCLAIMED
        found = self._store.recall(self._key)
        self._held = type(found) is Begun
        return found

    async def note(self, attempt: str) -> None:
        """Do nothing: it is lost with the process."""

    async def complete(self, reply: bytes) -> None:
        if self._held:
            self._held = False
            self._store.remember(self._key, reply)

    async def forget(self) -> None:
        self._held = False


_UNCLAIMED: Final = Begun()


class _Claim:
    """A claim in a record that may take its time, and fail."""

    is_immediate = False

    def __init__(self, store: Store, work: Work) -> None:
        self._store = store
        self._work = work
        self._lock = trio.Lock()
        """Held during a question, so that they are answered in order."""
        self._held = False
        """Whether the record has the work as begun, and not as ended."""

    @property
    def outlives(self) -> bool:
        return self._held and self._store.durable and bool(self._work.attempts[-1].id)

    async def make(self) -> Begun | Completed | Outcome:
        while self._work.key and not self._work.given_up:
            try:
                async with self._lock:
                    with trio.fail_after(RECORDING):
                        claim = await self._store.begin(self._work.key, self._work.attempts[-1].id)
                    self._held = isinstance(claim, Begun)
            except Exception as error:  # noqa: BLE001 - answered, and logged by the caller
                return busy(f"the connector's record cannot be used: {_brief(error)}", _UNRECORDED)
            if not isinstance(claim, Busy):
                return claim
            await trio.sleep(_ELSEWHERE)
        return Begun()

    async def note(self, attempt: str) -> None:
        async with self._lock:
            if not self._held or not attempt:
                return
            try:
                with trio.fail_after(RECORDING):
                    await self._store.begin(self._work.key, attempt)
            except Exception as error:  # noqa: BLE001 - it works without
                log.warning("a further attempt is not recorded", reason=_brief(error))

    async def complete(self, reply: bytes) -> None:
        async with self._lock:
            if not self._held:
                return
            self._held = False
            try:
                with trio.fail_after(RECORDING):
                    await self._store.complete(self._work.key, reply)
            except Exception as error:  # noqa: BLE001 - the answer is worth more than its record
                why = _brief(error)
                log.error("a success is not recorded: it may be done twice", reason=why)  # noqa: TRY400

    async def forget(self) -> None:
        async with self._lock:
            if not self._held:
                return
            self._held = False
            try:
                with trio.fail_after(RECORDING):
                    await self._store.forget(self._work.key)
            except Exception as error:  # noqa: BLE001 - the next attempt is told that it repeats one
                log.error("a failure is still on record as begun", reason=_brief(error))  # noqa: TRY400


def _brief(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
