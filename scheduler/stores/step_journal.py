"""A journal for stores that are told step by step: nothing follows from an outcome before it is persisted."""

from collections.abc import Awaitable, Callable, Sequence

import trio

from scheduler.errors import StoreError, StoreUnavailable
from scheduler.journal.events import Event, Sent, Started
from scheduler.journal.orders import Order
from scheduler.stores import Departure


class StepJournal:
    """The journal of one build; outcomes are persisted one at a time, beside starts and commands.

    Args:
        build: its id.
        append: the store's `append`.
        on_failure: function that is called each time that an outcome cannot be persisted.
    """

    in_order = False
    begin_waits = True

    __slots__ = ("_append", "_build", "_done", "_on_failure", "_waiting", "_writing", "ends")

    def __init__(
        self,
        build: str,
        append: Callable[[str, Sequence[Event]], Awaitable[None]],
        on_failure: Callable[[StoreError], None],
    ) -> None:
        self._build = build
        self._append = append
        self._on_failure: Callable[[StoreError], None] | None = on_failure
        # A list, although it is taken from at the front: it is no longer than there is in flight, and in most
        # builds that is one or none, of which a deque takes ten times as much.
        self._waiting: list[tuple[Event, Callable[[], None]]] = []
        """Outcomes that are not persisted, and functions to be called when they are."""
        self.ends = 0
        self._done = 0
        """Number of outcomes that were persisted, or could not be."""
        self._writing: trio.Lock | None = None
        """Lock of the task that writes. Made for the first one."""

    def end(self, event: Event, then: Callable[[], None]) -> None:
        """Queue an outcome; see `Journal.end`."""
        self.ends += 1
        self._waiting.append((event, then))

    async def ended(self) -> None:
        """Persist the outcomes so far. The task that comes first writes for those behind it, which wait."""
        if self._done == self.ends:
            return
        mine = self.ends
        writing = self._writing = self._writing or trio.Lock()
        try:
            writing.acquire_nowait()
        except trio.WouldBlock:
            await writing.acquire()
        try:
            while self._done < mine:
                event, then = self._waiting.pop(0)
                await self._persist(event, then)
                self._done += 1
        finally:
            writing.release()

    async def _persist(self, event: Event, then: Callable[[], None]) -> None:
        try:
            await self._append(self._build, (event,))
        except StoreUnavailable as error:
            self._fail(error)
            # Nor would the store answer for those that have waited meanwhile: each would take its time again.
            waiting, self._waiting = self._waiting, []
            self._done += len(waiting)
            then()
            for _, one in waiting:
                one()
            return
        except StoreError as error:
            self._fail(error)
        then()

    def _fail(self, error: StoreError) -> None:
        if self._on_failure is not None:
            self._on_failure(error)

    async def begin(self, event: Started) -> tuple[int, bool]:
        """Persist a start; see `Journal.begin`."""
        await self._append(self._build, (event,))
        return 0, True

    async def persisted(self, number: int) -> None:
        """Return at once: a start is persisted when `begin` returns."""

    def record(self, *events: Event, lazily: bool = False) -> None:  # noqa: ARG002 - as the port
        """Raise: events are persisted step by step."""
        raise AssertionError("this store is told step by step")

    def record_sent(self, event: Sent, departure: Departure) -> None:  # noqa: ARG002 - as the port
        """Raise: this store knows no departures."""
        raise AssertionError("this store is told step by step")

    async def commit(self, *events: Event, order: Order | None = None) -> None:  # noqa: ARG002 - as the port
        """Persist events; see `Journal.commit`. This store has no place for orders."""
        await self._append(self._build, events)

    def close(self) -> None:
        """Call the handler no more, and forget what waits. Idempotent."""
        self._on_failure = None
        self._done += len(self._waiting)
        self._waiting.clear()
