"""The store that keeps nothing: for tests, and for runs that may be thrown away."""

from collections.abc import Callable, Sequence

from scheduler.errors import StoreError
from scheduler.journal.events import Event
from scheduler.stores import Journal
from scheduler.stores.step_journal import StepJournal


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

    def journal(self, build: str, on_failure: Callable[[StoreError], None]) -> Journal:
        """Return a journal that keeps nothing."""
        return StepJournal(build, self.append, on_failure)

    async def settle(self) -> None:
        """Do nothing: no event is only noted."""

    def close(self, build: str) -> None:
        """Do nothing: there is nothing to free."""
