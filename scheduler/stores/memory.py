"""The store that keeps nothing: for tests and runs that may be thrown away."""

from collections.abc import Callable, Sequence

from scheduler.errors import StoreError
from scheduler.journal.events import Event, Sent
from scheduler.stores import Departure


class MemoryStore:
    """Nothing outlives the process: what the plan holds is all there is.

    Appending does nothing at all, not even a checkpoint, so that it costs a bare call.
    """

    name = "memory"
    resumable = False
    in_order = False
    available = True

    async def append(self, build: str, events: Sequence[Event]) -> None:
        """Forget ``events``: the plan in memory has them already. Never raises."""

    def note(self, build: str, *events: Event, lazily: bool = False) -> int:  # noqa: ARG002 - as the port
        """Forget ``events``."""
        return 0

    async def persisted(self, build: str, number: int) -> None:
        """Nothing: nothing is noted."""

    def on_failure(self, build: str, handler: Callable[[StoreError], None]) -> None:
        """Nothing: nothing is noted."""

    def note_sent(self, build: str, event: Sent, departure: Departure) -> None:
        """Forget ``event``."""

    async def settle(self) -> None:
        """Nothing: nothing was only noted."""

    def close(self, build: str) -> None:
        """Nothing: there is nothing to let go of."""
