"""Persists what happens to one build in the order that the promises need, and sees to it where that fails.

Two kinds of store are told in two ways, and this is the only place of a walk that knows it:

- One that *keeps order* is told at once. What is told later is never persisted earlier, so that an outcome
  and the start of what depends on it may go in one record; a request leaves when its start is known to be
  there.
- The other one is told *step by step*: each outcome is persisted before anything that follows from it, one
  outcome at a time, and each start before the next component begins.
"""

from collections.abc import Callable

import structlog
import trio

from scheduler.dispatch.call import Call
from scheduler.errors import Fenced, LogRemoved, StoreError, StoreUnavailable
from scheduler.journal.events import Event, Retrying, Sent, Settled, Started, Withdrawn
from scheduler.plan import Plan
from scheduler.stores import Store
from scheduler.walk.hold import Hold

_log = structlog.get_logger()


class Recording:
    """What one build has its store told.

    Args:
        plan: of the build.
        store: is told.
        hold: keeps the build from sending anything more when nothing more can be persisted.
    """

    __slots__ = (
        "_hold",
        "_plan",
        "_store",
        "_unwritten",
        "_writing",
        "_written",
        "acted",
        "booked",
        "fenced",
        "in_order",
        "log_removed",
        "resumable",
        "scope",
    )

    def __init__(self, plan: Plan, store: Store, hold: Hold) -> None:
        self._plan = plan
        self._store = store
        self._hold = hold
        self.in_order = store.in_order
        self.resumable = store.resumable
        """Whether a later process can resume the build."""
        self.acted = False
        """Whether anything was done that is worth persisting."""
        self.fenced = False
        """Whether another process has the build now."""
        self.log_removed = False
        """Whether its log is gone, and no other process has ended it: this one reports what it holds."""
        self.scope = trio.CancelScope()
        """Cancelled when another process has the build."""
        # Told step by step. A list, although it is taken from at the front: it is no longer than there is in
        # flight, and in most builds that is one or none, of which a deque takes ten times as much.
        self._unwritten: list[tuple[Event, Callable[[], None]]] = []
        """Outcomes that are not persisted, and what is to be called when they are."""
        self.booked = 0
        """How many outcomes there have been so far."""
        self._written = 0
        """How many of those have been persisted, or have failed to be."""
        self._writing: trio.Lock | None = None
        """Held by the task that writes. Made for the first one."""

    def record(self, event: Settled | Retrying | Withdrawn, then: Callable[[], None]) -> None:
        """Have the end of an attempt persisted: before what follows from it, or together with that.

        Args:
            event: the end.
            then: called when what follows from it may be told the store: at once where that keeps order,
                otherwise in `written`. Also where it could not be persisted.
        """
        self.acted = True
        if self.in_order:
            self._store.note(self._plan.build.id, event)
            then()
        else:
            self.booked += 1
            self._unwritten.append((event, then))

    async def written(self) -> None:
        """Wait until what follows from all that was recorded so far may be told the store.

        The task that comes first writes for those behind it; they wait for that.
        """
        if self._written == self.booked:
            return
        mine = self.booked
        writing = self._writing = self._writing or trio.Lock()
        try:
            writing.acquire_nowait()
        except trio.WouldBlock:
            await writing.acquire()
        try:
            while self._written < mine:
                event, then = self._unwritten.pop(0)
                await self._write(event, then)
                self._written += 1
        finally:
            writing.release()

    async def _write(self, event: Event, then: Callable[[], None]) -> None:
        landing = [then]
        try:
            await self._store.append(self._plan.build.id, [event])
        except StoreUnavailable as error:
            self.fence(error)
            # Nor will it answer for those that have waited meanwhile: each would take its time again.
            landing += [then for _, then in self._unwritten]
            self._written += len(self._unwritten)
            self._unwritten.clear()
        except StoreError as error:
            self.fence(error)
        for one in landing:
            one()

    async def begin(self, event: Started) -> tuple[int, bool | None]:
        """Have the start of a component persisted, before the next one may begin.

        Returns:
            A number, and None: the store keeps order, and this did not wait; see `persisted`. Or 0, and
            whether it was persisted.
        """
        self.acted = True
        if self.in_order:
            return self._store.note(self._plan.build.id, event), None
        try:
            await self._store.append(self._plan.build.id, (event,))
        except StoreError as error:
            self.fence(error)
            return 0, False
        return 0, True

    async def persisted(self, number: int) -> bool:
        """Wait until the start with this number is persisted; returns whether it is."""
        try:
            await self._store.persisted(self._plan.build.id, number)
        except StoreError as error:
            self.fence(error)
            return False
        return True

    def record_soon(self, *events: Event) -> None:
        """Have events persisted that nothing follows from; not where the store is told step by step."""
        if self.in_order and events:
            self._store.note(self._plan.build.id, *events)

    def record_sent(self, call: Call) -> None:
        """Have it persisted that a request has left, once the broker is known to have it."""
        request = call.request
        self._store.note_sent(self._plan.build.id, Sent(request.component, request.attempt), call)

    async def commit(self, *events: Event) -> bool:
        """Persist events, behind all that was recorded; returns whether they are."""
        self.acted = True
        try:
            await self._store.append(self._plan.build.id, events)
        except StoreError as error:
            self.fence(error)
            return False
        return True

    async def commit_at_the_end(self, *events: Event) -> bool:
        """As `commit`; not even a bug of the store may cost the report now."""
        try:
            return await self.commit(*events)
        except Exception:  # noqa: BLE001 - a bug, as above
            _log.exception("internal error: the store failed", build=self._plan.build.id)
            self._hold.halt("internal error in the scheduler's store; see its log")
            return False

    def fence(self, error: StoreError) -> None:
        """Nothing more can be persisted: send nothing more, and where another process has the build, stop."""
        build = self._plan.build.id
        if not isinstance(error, Fenced):
            cause = store_failure(error)
            if not self.log_removed:
                _log.error("the store failed", build=build, error=self._plan.masked(cause, 1_000))
            # No other process can know of the build any more: it is to be reported by this one.
            self.log_removed = isinstance(error, LogRemoved)
            self._hold.halt(cause)
        elif not self.fenced:
            _log.error(
                "another process has the build: nothing more is done here", build=build, why=str(error)
            )
            self.fenced = True
            self._plan.stop()
            self.scope.cancel()

    def clear(self) -> None:
        """Forget what was not written: the walk has ended."""
        self._unwritten.clear()


def store_failure(error: StoreError) -> str:
    """Return what is reported where the store failed; some of its errors begin like this by themselves."""
    return f"store: {str(error).removeprefix('store: ')}"
