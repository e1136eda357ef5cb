"""The Store port: a build's state is persisted through it, outside this process.

A store is given *events*, several at a time. It never decides anything. A walk needs a `Store`; a later
process gets builds back from a `DocumentStore`, or from the logs of `scheduler.stores.jetstream`.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, Protocol, runtime_checkable

from scheduler.bus import Outgoing
from scheduler.errors import StoreError
from scheduler.journal.events import Event, Sent, Started
from scheduler.journal.orders import Order
from scheduler.metrics.commits import CommitTally


class Departure(Protocol):
    """A request on its way out, such as `dispatch.call.Call`."""

    outgoing: Outgoing | None
    unheard: bool
    closed: bool
    reached: bool


class Journal(Protocol):
    """Everything that one running build persists, in the order in which it is given.

    Outcomes are given to `end`, starts to `begin`; the rest either to `record`, where nothing follows from
    it, or to `commit`, where somebody waits for it.
    """

    in_order: bool
    """Whether events may be given at once, as those given later are never persisted earlier.

    Then an outcome and the start of what depends on it can be persisted together. Otherwise each outcome is
    persisted before anything that follows from it, and each start before the next one.
    """

    begin_waits: bool
    """Whether `begin` may wait for the store."""

    ends: int
    """Number of outcomes given so far, where `ended` may have to wait for them."""

    def end(self, event: Event, then: Callable[[], None]) -> None:
        """Persist the end of an attempt: before what follows from it, or together with that.

        Args:
            event: the end.
            then: function that is called when what follows from it may be given: at once, or by `ended`;
                also if the event could not be persisted.
        """

    async def ended(self) -> None:
        """Wait until what follows from all ends so far may be given.

        A failure goes to the handler of the journal.
        """

    async def begin(self, event: Started) -> tuple[int, bool]:
        """Persist a start before the next one may be given; does not wait where `in_order`.

        Returns:
            A number for `persisted`, and whether the start is persisted already.

        Raises:
            StoreError: as for `commit`.
        """

    async def persisted(self, number: int) -> None:
        """Wait until a start is persisted, and everything given before it.

        Raises:
            StoreError: as for `commit`.
        """

    def record(self, *events: Event, lazily: bool = False) -> None:
        """Persist events soon; if ``lazily``, together with others that come soon. Only where `in_order`.

        A failure goes to the handler of the journal, and is raised by the next `commit`.
        """

    def record_sent(self, event: Sent, departure: Departure) -> None:
        """Persist ``event`` some time after the broker is known to have the request, if still useful.

        Only where `in_order`.
        """

    async def commit(self, *events: Event, order: Order | None = None) -> None:
        """Persist events, behind everything given before, and wait for that.

        Args:
            events: the events.
            order: order of an operator that they follow from; persisted with them where the store has a log.

        Raises:
            StoreUnavailable: there was no answer within the deadline.
            BuildLost: the store does not know the build.
            Fenced: another process has the build.
            StoreError: the store answered with an error.
        """

    def close(self) -> None:
        """Call the handler no more. Idempotent."""


class Store(Protocol):
    """A place where builds are persisted; implementations stand beside this file."""

    name: str
    """Name of the store, as in ``--store``: ``memory``, ``ernest``."""

    resumable: bool
    """Whether a later process can resume what this one leaves unfinished."""

    in_order: bool
    """Whether its journals are `Journal.in_order`: it keeps a log of each build."""

    @property
    def commits(self) -> CommitTally | None:
        """Tally of what was committed by this process; None where nothing leaves it."""

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

    def journal(self, build: str, on_failure: Callable[[StoreError], None]) -> Journal:
        """Return the journal of a build that runs here.

        Args:
            build: its id; its acceptance was appended, or its log is open.
            on_failure: function that is called once if given events cannot be persisted.
        """

    async def settle(self) -> None:
        """Persist everything that was recorded; the caller owns the deadline."""

    def close(self, build: str) -> None:
        """Take leave of a build: this process gives no more events of it. Idempotent."""


@runtime_checkable
class DocumentStore(Store, Protocol):
    """A store without a log: keeps each build as a document, and lists the unfinished ones."""

    may_ask: Callable[[], bool]
    """Function that says whether this process may ask it for anything now; to be set, by default it may."""

    async def load(self, build: str) -> dict[str, Any] | None:
        """Return the build with the id ``build`` as a JSON document; None where there is none.

        Raises:
            StoreError: as for ``append``.
        """

    def unfinished(self) -> AsyncGenerator[str, None]:
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
