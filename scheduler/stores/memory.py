"""The store that keeps nothing: for tests, and for runs that may be thrown away."""

from collections.abc import Callable, Sequence

from scheduler.errors import StoreError
from scheduler.journal.events import Event, Sent
from scheduler.stores import Departure


class MemoryStore:
    """Keeps nothing beyond the process: the plan has all there is.

    Appending does nothing at all, not even a checkpoint, so that it costs a bare call.
    """

    name = "memory"
    resumable = False
    in_order = False
    available = True

    async def append(self, build: str, events: Sequence[Event]) -> None:
        """Ignore ``events``: the plan in memory has them already. Never raises."""

    def note(self, build: str, *events: Event, lazily: bool = False) -> int:  # noqa: ARG002 - as the port
        """Ignore ``events``."""
        return 0

    async def persisted(self, build: str, number: int) -> None:
        """Do nothing: no event is noted."""

    def on_failure(self, build: str, handler: Callable[[StoreError], None]) -> None:
        """Do nothing: no event is noted."""

    def note_sent(self, build: str, event: Sent, departure: Departure) -> None:
        """Ignore ``event``."""

    async def settle(self) -> None:
        """Do nothing: no event is only noted."""

    def close(self, build: str) -> None:
        """Do nothing: there is nothing to free."""
