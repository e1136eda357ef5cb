"""What a walk is given, and what it tells: see `scheduler.walk.walk`."""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from scheduler.definition.graph import Vertex
from scheduler.definition.model import Resend
from scheduler.dispatch.call import Call, Inherited
from scheduler.journal.records import Position
from scheduler.plan import Request


class Observer:
    """Receives build events as they happen; this base class ignores them.

    Errors come as they are kept, with secrets in them (`Texts.masked`). Nothing here may block or raise.
    """

    __slots__ = ()

    def due(self, vertex: Vertex) -> None:
        """All that a component depends on is completed."""

    def sent(self, vertex: Vertex, attempt: int) -> None:
        """Its request was handed to the bus."""

    def resumed(self, vertex: Vertex, attempt: int) -> None:
        """An earlier process began its attempt, and may have sent it: from now on it is awaited here."""

    def departed(self, vertex: Vertex) -> None:
        """A request that an earlier process may have sent was handed to the bus."""

    def waits(self, vertex: Vertex) -> None:
        """It was to be sent, or was skipped, and waits again."""

    def retries(self, vertex: Vertex, attempt: int, error: str, pause: float) -> None:
        """An attempt has failed; another one follows after so many seconds."""

    def settled(self, vertex: Vertex, attempt: int, error: str | None) -> None:
        """It has its outcome: completed where there is no error."""

    def skipped(self, vertices: Sequence[Vertex]) -> None:
        """These will not be sent, because of something that failed."""

    def happened(self, what: str, vertex: Vertex | None = None) -> None:
        """Something happened to the whole build, or an operator did something."""


class Sender(Protocol):
    """What a walk needs of `dispatch.connectors.Connectors`."""

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
        """Register the wait for the reply to a request that was sent before."""

    def hand_over(self, build: str) -> None:
        """Replies that come from now on are left to the next process."""

    def arm(self, call: Call, seconds: float | None = None) -> None:
        """Start the clock of an attempt that is expected."""

    def extend(self, call: Call, seconds: float) -> None:
        """Give an attempt more time, whether or not its clock runs yet."""

    def seconds(self, request: Request) -> float:
        """How long an attempt may take."""


Resending: TypeAlias = Callable[[str], Resend]
"""What becomes of a request without a reply when it may have been lost, by its subject."""
