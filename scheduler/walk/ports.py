"""Ports of a walk: the observer that it tells, and the sender that it needs. See `scheduler.walk.walk`."""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from scheduler.definition.graph import Vertex
from scheduler.definition.model import Resend
from scheduler.dispatch.call import Call
from scheduler.dispatch.inherited import Inherited
from scheduler.dispatch.timers import Timers
from scheduler.journal.orders import Order
from scheduler.journal.records import Position
from scheduler.plan import Request


class Observer:
    """Receives build events as they happen; this base class ignores them.

    Errors come as they are kept, with secrets in them (`Texts.masked`). Nothing here may block or raise.
    """

    __slots__ = ()

    def due(self, vertex: Vertex) -> None:
        """Note that all dependencies of a component are completed."""

    def begins(self, vertex: Vertex) -> None:
        """Note that a component has its slots, and that its start is about to be persisted."""

    def sent(self, vertex: Vertex, attempt: int) -> None:
        """Note that the request of a component was handed to the bus."""

    def resumed(self, vertex: Vertex, attempt: int) -> None:
        """Note that an attempt which an earlier process began, and may have sent, is awaited here now."""

    def departed(self, vertex: Vertex) -> None:
        """Note that a request which an earlier process may have sent was handed to the bus."""

    def waits(self, vertex: Vertex) -> None:
        """Note that a component which was to be sent, or was skipped, waits again."""

    def answered(self, vertex: Vertex) -> None:
        """Note that an attempt ends by a reply; what follows from that is noted next."""

    def retries(self, vertex: Vertex, attempt: int, error: str, pause: float) -> None:
        """Note that an attempt has failed; another one follows after ``pause`` seconds."""

    def settled(self, vertex: Vertex, attempt: int, error: str | None) -> None:
        """Note the outcome of a component: completed where there is no error."""

    def skipped(self, vertices: Sequence[Vertex]) -> None:
        """Note that these will not be sent, because a component before them failed."""

    def happened(self, what: str, vertex: Vertex | None = None, order: Order | None = None) -> None:
        """Note what happened to the whole build, or what an operator did, by which order."""

    def unkept(self, order: Order) -> None:
        """Note that an order which it was told of could not be persisted, so that it does not count."""


class Sender(Protocol):
    """Port for requests and their replies; implemented by `dispatch.client.ConnectorClient`."""

    @property
    def timers(self) -> Timers:
        """Deadlines, on a clock that stands still while the broker is away."""

    def send(
        self, request: Request, token: str = "", departing: Callable[[Call], None] | None = None
    ) -> Call:
        """Publish a request and register the wait for its reply; synchronous."""

    def expect(
        self,
        request: Request,
        token: str = "",
        after: Position | None = None,
        inherited: Inherited | None = None,
    ) -> Call:
        """Register the wait for the reply to a request that an earlier process may have sent."""

    def hand_over(self, build: str) -> None:
        """Leave replies that come from now on to the next process."""

    def arm(self, call: Call, seconds: float | None = None) -> None:
        """Start the clock of an attempt that is expected."""

    def extend(self, call: Call, seconds: float) -> None:
        """Give an attempt more time, whether or not its clock runs yet."""

    def give_up(self, call: Call, reason: str) -> None:
        """Tell connectors that an attempt is given up, if they may have its request. Synchronous.

        Args:
            call: attempt; its reply still counts where it would have counted.
            reason: reason, without secrets.
        """

    def seconds(self, request: Request) -> float:
        """Return the seconds that an attempt may take."""


Resending: TypeAlias = Callable[[str], Resend]
"""Rule, by subject, for a request without a reply that may have been lost."""
