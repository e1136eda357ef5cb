"""The store that keeps nothing: for tests, and for runs that may be thrown away."""

from collections.abc import Callable, Sequence

from scheduler.errors import StoreError
from scheduler.journal.events import Event, Sent, Started
from scheduler.journal.orders import Order
from scheduler.stores import Departure, Journal


class MemoryStore:
    """Keeps nothing beyond the process: the plan has all there is.

    Appending does nothing at all, not even a checkpoint, so that it costs a bare call.
    """

    name = "memory"
    resumable = False
    in_order = False
    available = True
    commits = None

    async def append(self, build: str, events: Sequence[Event]) -> None:
        """Ignore ``events``: the plan in memory has them already. Never raises."""

    def journal(self, build: str, on_failure: Callable[[StoreError], None]) -> Journal:  # noqa: ARG002 - as the port
        """Return a journal that keeps nothing, and never fails."""
        return _NOTHING_KEPT

    async def settle(self) -> None:
        """Do nothing: no event is only noted."""

    def close(self, build: str) -> None:
        """Do nothing: there is nothing to free."""


class _Forgetful:
    """A journal that keeps nothing, of any build: all that it is given counts as persisted at once."""

    in_order = False
    begin_waits = False
    ends = 0

    __slots__ = ()

    def end(self, event: Event, then: Callable[[], None]) -> None:  # noqa: ARG002 - as the port
        """Let at once happen what follows from an outcome."""
        then()

    async def ended(self) -> None:
        """Return at once: no outcome waits."""

    async def begin(self, event: Started) -> tuple[int, bool]:  # noqa: ARG002 - as the port
        """Ignore a start, which counts as persisted."""
        return 0, True

    async def persisted(self, number: int) -> None:
        """Return at once."""

    def record(self, *events: Event, lazily: bool = False) -> None:
        """Ignore events."""

    def record_sent(self, event: Sent, departure: Departure) -> None:
        """Ignore a departure."""

    async def commit(self, *events: Event, order: Order | None = None) -> None:
        """Ignore events."""

    def close(self) -> None:
        """Do nothing."""


_NOTHING_KEPT = _Forgetful()
