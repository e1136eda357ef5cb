"""The Store port: a build's state is persisted through it, outside this process.

A store is given *events*, several at a time. It never decides anything. A walk needs a `Store`; a later
process gets builds back from a `DocumentStore`, or from the logs of `scheduler.stores.jetstream`.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Protocol, runtime_checkable

from scheduler.bus import Outgoing
from scheduler.errors import StoreError
from scheduler.journal.events import Event, Sent


class Departure(Protocol):
    """A request on its way out, such as `connector.Call`."""

    outgoing: Outgoing | None
    unheard: bool
    closed: bool
    reached: bool


class Store(Protocol):
    """Everything that a running build needs of a store; implementations stand beside this file."""

    name: str
    """Name of the store, as in ``--store``: ``memory``, ``ernest``."""

    resumable: bool
    """Whether a later process can resume what this one leaves unfinished."""

    in_order: bool
    """Whether events are persisted in the order in which they are given, and may be given at once.

    Then an outcome is *noted*, and the start of what depends on it can be persisted together with it.
    Otherwise each step is awaited before the next one.
    """

    @property
    def available(self) -> bool:
        """Whether the store works right now, as far as it knows; while it does not, deadlines stand still."""

    async def append(self, build: str, events: Sequence[Event]) -> None:
        """Persist ``events`` of the build with the id ``build``, in order.

        When this returns, all of them are persisted. When it raises, an unknown part of them is. Failures
        worth retrying are retried, within the store's own deadline (``store_timeout``).

        Raises:
            StoreUnavailable: there was no answer within the deadline.
            BuildLost: the store does not know the build.
            StoreError: the store answered with an error.
        """

    def note(self, build: str, *events: Event, lazily: bool = False) -> int:
        """Persist ``events`` soon, in order; if ``lazily``, together with others that come soon.

        A failure goes to the handler of `on_failure`, and is raised by the next `append`. Only where
        `in_order`.

        Returns:
            A number of these events for `persisted`; useless if they are noted lazily.
        """

    async def persisted(self, build: str, number: int) -> None:
        """Wait until noted events are persisted: all up to those with this number.

        Only where `in_order`.

        Raises:
            StoreError: as for `append`.
        """

    def on_failure(self, build: str, handler: Callable[[StoreError], None]) -> None:
        """Call ``handler`` once if noted events of ``build`` cannot be persisted. Only where `in_order`."""

    def note_sent(self, build: str, event: Sent, departure: Departure) -> None:
        """Persist ``event`` some time after the broker is known to have the request, if still useful.

        Only where `in_order`.
        """

    async def settle(self) -> None:
        """Persist everything that was noted; the caller owns the deadline. No effect unless `in_order`."""

    def close(self, build: str) -> None:
        """Take leave of a build: this process gives no more events of it. Idempotent."""


@runtime_checkable
class DocumentStore(Store, Protocol):
    """A store without a log: keeps each build as a document, and lists the unfinished ones."""

    async def load(self, build: str) -> dict[str, Any] | None:
        """Return the build with the id ``build`` as a JSON document; None where there is none.

        Raises:
            StoreError: as for ``append``.
        """

    def unfinished(self) -> AsyncIterator[str]:
        """Yield the ids of the builds that an earlier process left unfinished.

        Raises:
            StoreUnavailable: there was no answer; to be asked again later.
            StoreError: as for ``append``.
        """

    async def action_of(self, build: str) -> str | None:
        """Return the action of an unfinished build whose document does not name it; None if unknown.

        Raises:
            StoreError: as for ``append``.
        """
