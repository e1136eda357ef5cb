"""The journal of a build whose log is written here: all is queued in order, and committed in groups."""

from collections.abc import Callable

from scheduler.errors import StoreError
from scheduler.journal.events import Event, Sent, Started
from scheduler.journal.orders import Order
from scheduler.stores import Departure
from scheduler.stores.log import BuildLog, ignore


class LogJournal:
    """Writes what a running build persists into its log.

    Args:
        log: of the build.
        on_failure: function that is called once if nothing more can be written.
    """

    in_order = True
    begin_waits = False
    ends = 0

    __slots__ = ("_log",)

    def __init__(self, log: BuildLog, on_failure: Callable[[StoreError], None]) -> None:
        self._log = log
        log.on_failure = on_failure

    def end(self, event: Event, then: Callable[[], None]) -> None:
        """Queue an outcome; see `Journal.end`."""
        self._log.note(event)
        then()

    async def ended(self) -> None:
        """Return at once: what follows from an outcome is queued behind it."""

    async def begin(self, event: Started) -> tuple[int, bool]:
        """Queue a start; see `Journal.begin`."""
        return self._log.note(event), False

    async def persisted(self, number: int) -> None:
        """Wait until the queue is committed up to this number; see `Journal.persisted`."""
        await self._log.commit(number)

    def record(self, *events: Event, lazily: bool = False) -> None:
        """Queue events; see `Journal.record`."""
        if lazily:
            self._log.note_lazily(*events)
        else:
            self._log.note(*events)

    def record_sent(self, event: Sent, departure: Departure) -> None:
        """Queue ``event`` once the broker is known to have the request; see `Journal.record_sent`."""
        self._log.note_sent(event, departure)

    async def commit(self, *events: Event, order: Order | None = None) -> None:
        """Queue events, and wait until everything is committed; see `Journal.commit`."""
        self._log.note(*events, order=order)
        await self._log.commit()
        if order is not None and not events:
            await self._log.commit_all()

    def close(self) -> None:
        """Call the handler no more. Idempotent."""
        self._log.on_failure = ignore
