"""The Store port: where a build's state is persisted, outside this process.

A store is told of *events*, several at a time, and gives builds back. It never decides anything.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

from scheduler.events import Event


class Store(Protocol):
    """What the rest of the package needs of a store; implementations stand beside this file."""

    name: str
    """As in ``--store``: ``memory``, ``ernest``."""

    resumable: bool
    """Whether a later process can go on with what this one left unfinished."""

    async def append(self, build: str, events: Sequence[Event]) -> None:
        """Persist ``events`` of the build with the id ``build``, in order.

        When this returns, all of them are persisted. Where it raises, an unknown part of them is.
        It retries what is worth retrying, within the store's own deadline (``store_timeout``).

        Raises:
            StoreUnavailable: nobody answered within the deadline.
            BuildLost: the store does not know the build.
            StoreError: the store answered with an error.
        """

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
