"""Persists the events of one build, and halts or stops it when that fails."""

from collections.abc import Awaitable, Callable
from functools import partial

import structlog
import trio

from scheduler.definition.graph import Vertex
from scheduler.dispatch.call import Call
from scheduler.errors import Fenced, LogRemoved, StoreError
from scheduler.journal.events import Event, Resumed, Retrying, Sent, Settled, Started, Suspended, Withdrawn
from scheduler.journal.orders import Order
from scheduler.plan import Plan
from scheduler.stores import Store
from scheduler.walk.hold import Hold

_log = structlog.get_logger()


class Recording:
    """Persists what happens to one build, by its journal.

    Args:
        plan: plan of the build.
        store: store with the journal.
        hold: halts the build when nothing more can be persisted.
        land: callback with a component for when what follows from the end of its attempt may be persisted.
    """

    __slots__ = (
        "_hold",
        "_journal",
        "_land",
        "_plan",
        "acted",
        "fenced",
        "in_order",
        "log_removed",
        "resumable",
        "scope",
    )

    def __init__(self, plan: Plan, store: Store, hold: Hold, land: Callable[[Vertex], None]) -> None:
        self._plan = plan
        self._hold = hold
        self._land = land
        self.in_order = store.in_order
        """Whether events are persisted in the order in which they are recorded (`Journal.in_order`)."""
        self.resumable = store.resumable
        """Whether a later process can resume the build."""
        self.acted = False
        """Whether any event was given to the journal that changes the build."""
        self.fenced = False
        """Whether another process owns the build now."""
        self.log_removed = False
        """Whether its log is gone, so that no other process can report it: this one reports what it has."""
        self.scope = trio.CancelScope()
        """Scope that is cancelled when another process owns the build."""
        self._journal = store.journal(plan.build.id, self.fence)

    @property
    def begin_waits(self) -> bool:
        """Whether `begin` may wait for the store."""
        return self._journal.begin_waits

    @property
    def ends(self) -> int:
        """Number of outcomes so far that `written` may have to wait for (`Journal.ends`)."""
        return self._journal.ends

    def record(self, vertex: Vertex, event: Settled | Retrying | Withdrawn) -> None:
        """Persist the end of an attempt before what follows from it, or together with that.

        The component lands when what follows may be persisted: at once, or in `written`; also where the event
        could not be persisted.
        """
        self.acted = True
        self._journal.end(event, partial(self._land, vertex))

    def written(self) -> Awaitable[None]:
        """Return the wait until what follows from all ends so far may be persisted; to be awaited at once."""
        return self._journal.ended()

    async def begin(self, event: Started) -> tuple[int, bool | None]:
        """Persist the start of a component, before the next one may begin.

        Returns:
            A number for `persisted`; and whether the start was persisted: None where that is to be awaited.
        """
        self.acted = True
        try:
            number, kept = await self._journal.begin(event)
        except StoreError as error:
            self.fence(error)
            return 0, False
        return number, kept or None

    async def persisted(self, number: int) -> bool:
        """Wait until the start with this number is persisted; returns whether it is."""
        try:
            await self._journal.persisted(number)
        except StoreError as error:
            self.fence(error)
            return False
        return True

    def record_soon(self, *events: Event) -> None:
        """Persist events soon that nothing follows from; only where `in_order`."""
        self._journal.record(*events)

    def record_outage(self, seconds: float) -> None:
        """Persist that nothing could be done for so many seconds: that moves deadlines."""
        if self.in_order:
            self._journal.record(Suspended(), Resumed(seconds), lazily=True)

    def record_sent(self, call: Call) -> None:
        """Persist that a request has left, once the broker is known to have it; only where `in_order`."""
        request = call.request
        self._journal.record_sent(Sent(request.component, request.attempt), call)

    async def commit(self, *events: Event, order: Order | None = None) -> bool:
        """Persist events, with the order that they follow from, behind all that was recorded.

        Returns:
            Whether they are persisted.
        """
        self.acted = True
        try:
            await self._journal.commit(*events, order=order)
        except StoreError as error:
            self.fence(error)
            return False
        return True

    async def commit_at_the_end(self, *events: Event) -> bool:
        """Persist events as `commit` does; not even a bug in the store may cost the report now."""
        try:
            return await self.commit(*events)
        except Exception:  # noqa: BLE001 - a bug, as above
            _log.exception("internal error: the store failed", build=self._plan.build.id)
            self._hold.halt("internal error in the scheduler's store; see its log")
            return False

    async def give(self, give: Callable[[], Awaitable[None]]) -> bool:
        """Write, as the last of this process, that another one is to have the build; returns whether so."""
        try:
            await give()
        except StoreError as error:
            self.fence(error)
            return False
        return True

    def fence(self, error: StoreError) -> None:
        """Send nothing more, as nothing more can be persisted; stop where another process owns the build."""
        build = self._plan.build.id
        if not isinstance(error, Fenced):
            cause = store_failure(error)
            if not self.log_removed:
                _log.error("the store failed", build=build, error=self._plan.texts.masked(cause, 1_000))
            # No other process can know of the build any more, so this one reports it.
            self.log_removed = isinstance(error, LogRemoved)
            self._hold.halt(cause)
        elif not self.fenced:
            _log.error(
                "another process has the build: nothing more is done here", build=build, why=str(error)
            )
            self.fenced = True
            self._plan.state.stop()
            self.scope.cancel()

    def close(self) -> None:
        """Stop waiting for the store: a commit still to come logs its own failure."""
        self._journal.close()


def store_failure(error: StoreError) -> str:
    """Return the cause to report where the store failed; some of its errors begin with ``store:`` already."""
    return f"store: {str(error).removeprefix('store: ')}"
