"""The Store port: where a build's state is persisted, outside this process.

A store is told of *events*, several at a time. It never decides anything. What a walk needs is a `Store`; a
later process gets builds back from a `DocumentStore`, or from the logs of `scheduler.stores.jetstream`.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Protocol, runtime_checkable

from scheduler.bus import Outgoing
from scheduler.errors import StoreError
from scheduler.journal.events import Event, Sent


class Departure(Protocol):
    """A request on its way out, as `connector.Call` is one."""

    outgoing: Outgoing | None
    unheard: bool
    closed: bool
    reached: bool


class Store(Protocol):
    """What a build that runs needs of a store; implementations stand beside this file."""

    name: str
    """As in ``--store``: ``memory``, ``ernest``."""

    resumable: bool
    """Whether a later process can go on with what this one left unfinished."""

    in_order: bool
    """Whether what is told later is never persisted before what is told earlier, and may be told at once.

    Then an outcome is *noted*, and the start of what depends on it can be persisted together with it.
    Otherwise each step is awaited before the next one.
    """

    @property
    def available(self) -> bool:
        """Whether it works right now, as far as it knows; deadlines stand still while it does not."""

    async def append(self, build: str, events: Sequence[Event]) -> None:
        """Persist ``events`` of the build with the id ``build``, in order.

        When this returns, all of them are persisted. Where it raises, an unknown part of them is.
        It retries what is worth retrying, within the store's own deadline (``store_timeout``).

        Raises:
            StoreUnavailable: nobody answered within the deadline.
            BuildLost: the store does not know the build.
            StoreError: the store answered with an error.
        """

    def note(self, build: str, *events: Event, lazily: bool = False) -> int:
        """Have ``events`` persisted soon, in order; ``lazily``: together with others, if any come soon.

        A failure is told to whom `on_failure` names, and shows at the next `append`.

        Only where `in_order`.

        Returns:
            A number by which `persisted` knows them, where it is not done lazily.
        """

    async def persisted(self, build: str, number: int) -> None:
        """Wait until what was noted is persisted: all up to the events that have this number.

        Only where `in_order`.

        Raises:
            StoreError: as for `append`.
        """

    def on_failure(self, build: str, handler: Callable[[StoreError], None]) -> None:
        """Have ``handler`` called once if what was noted for ``build`` cannot be persisted.

        Only where `in_order`.
        """

    def note_sent(self, build: str, event: Sent, departure: Departure) -> None:
        """Have ``event`` persisted some time after the broker is known to have the request, if still of use.

        Only where `in_order`.
        """

    async def settle(self) -> None:
        """Persist everything that was noted; the caller owns the deadline. Where not `in_order`: nothing."""

    def close(self, build: str) -> None:
        """Nothing more will be told of this build by this process. Idempotent."""


@runtime_checkable
class DocumentStore(Store, Protocol):
    """A store without a log: it keeps each build as a document, and is asked for what is unfinished."""

    async def load(self, build: str) -> dict[str, Any] | None:
        """The build with the id ``build`` as a JSON document, or None where there is no such build.

        Raises:
            StoreError: as for ``append``.
        """

    def unfinished(self) -> AsyncIterator[str]:
        """The ids of the builds that an earlier process left unfinished.

        Raises:
            StoreUnavailable: nobody answered; to be asked again later.
            StoreError: as for ``append``.
        """

    async def action_of(self, build: str) -> str | None:
        """What an unfinished build is, of which `load` does not say it; None where the store doesn't either.

        Raises:
            StoreError: as for ``append``.
        """
