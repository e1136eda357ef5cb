"""The Bus port: everything that the package needs of a message broker.

The one implementation for a real broker is `scheduler.bus.nats.open_bus`; tests use an in-memory twin.
Handlers run inside the broker client's own callback, so they are synchronous and must not raise: they put a
message into a memory channel (``send_nowait``), or set an event.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NewType, Protocol, TypeAlias

from scheduler.errors import MessageTooLarge


class Message:
    """A message as it came in; not to be changed.

    Args:
        subject: subject that it came in on.
        data: its payload.
        reply: subject to answer on; empty if there is none.
        headers: its headers, or a function that makes them: most are never looked at.
    """

    __slots__ = ("_headers", "data", "reply", "subject")

    def __init__(
        self, subject: str, data: bytes, reply: str = "", headers: "Headers | Callable[[], Headers]" = None
    ) -> None:
        self.subject = subject
        self.data = data
        self.reply = reply
        self._headers = headers

    @property
    def headers(self) -> "Headers":
        """Headers of the message; None where it has none."""
        headers = self._headers
        if callable(headers):
            headers = self._headers = headers()
        return headers

    @property
    def no_responders(self) -> bool:
        """Whether this is the server's notice that nobody subscribes to the subject of a request (503)."""
        return not self.data and self.headers is not None and self.headers.get("Status") == "503"

    def __eq__(self, other: object) -> bool:
        """Whether two messages have the same content."""
        if not isinstance(other, Message):
            return NotImplemented
        theirs = (other.subject, other.data, other.reply, other.headers)
        return (self.subject, self.data, self.reply, self.headers) == theirs

    def __hash__(self) -> int:
        """Return a hash; equal for equal messages."""
        return hash((self.subject, self.data, self.reply))

    def __repr__(self) -> str:
        """Return the parts of the message that may be shown; its payload is not."""
        return f"Message(subject={self.subject!r}, reply={self.reply!r}, headers={self.headers!r})"


Headers: TypeAlias = Mapping[str, str] | None
"""Headers of a message."""
HeaderBlock = NewType("HeaderBlock", bytes)
"""Headers as they are sent, made by `scheduler.bus.subjects.HeaderForm`."""
Handler: TypeAlias = Callable[[Message], None]


class Outgoing(Protocol):
    """A message that was handed to the bus to be published."""

    @property
    def generation(self) -> int:
        """Number of the connection that it was given to (`Bus.generation` at that time); 0 while it waits."""

    @property
    def refused(self) -> MessageTooLarge | None:
        """Reason why it never leaves: the current server takes less than the one before; else None."""

    @property
    def withdrawn(self) -> bool:
        """Whether it was taken back, so that it never leaves."""

    def withdraw(self) -> bool:
        """Take the message back: True if it has not left and never will, False if it is too late."""


class Subscription(Protocol):
    """A subscription to a subject."""

    async def unsubscribe(self) -> None:
        """End the subscription; on return the server knows, and everything sent before was handled.

        While the broker is away it ends at once. Idempotent, and silent on a closed bus.
        """


class Bus(Protocol):
    """A connection to a broker that maintains itself: it reconnects, and subscribes again."""

    @property
    def max_payload(self) -> int:
        """The server's limit for a message, headers included, in bytes."""

    @property
    def connected(self) -> bool:
        """Whether the connection is up right now."""

    @property
    def behind(self) -> bool:
        """Whether more has come in than was read: a server disconnects a reader that falls behind."""

    @property
    def generation(self) -> int:
        """Number of connections that were established so far: it grows with every reconnect."""

    @property
    def clustered(self) -> bool:
        """Whether the server that is, or was last, connected belongs to a cluster."""

    def publish(
        self, subject: str, data: bytes, *, reply: str = "", headers: Headers | HeaderBlock = None
    ) -> Outgoing:
        """Queue a message to be published; synchronous, never blocks.

        While the broker is away the message stays queued, and leaves once, when the broker is back.

        Raises:
            InvalidSubject: the subject, the reply subject or a header is not allowed.
            MessageTooLarge: payload and headers are over ``max_payload``.
            BusFull: the queue has no room.
            BusClosed: the bus is closed.
        """

    async def request(
        self,
        subject: str,
        data: bytes,
        *,
        headers: Mapping[str, str] | None = None,
        then: "Handler | None" = None,
    ) -> Message:
        """Publish and await one answer; the caller owns the deadline (``trio.fail_after``).

        Args:
            subject: subject of the request.
            data: its payload.
            headers: its headers.
            then: called with the answer as soon as it is read, a turn of the loop before this returns; must
                not block or raise. The server's word that nobody subscribes is an answer, too.

        Raises:
            NoResponders: nobody subscribes to the subject.
            NotPermitted: the broker forbids publishing there; raised as soon as it says so.
            BusError: as for ``publish``.
        """

    async def subscribe(self, subject: str, handler: Handler, *, queue: str = "") -> Subscription:
        """Call ``handler`` with every message on ``subject``; effective at the server on return.

        Raises:
            NotPermitted: the broker forbids the subscription.
            BusError: the bus cannot be used.
        """

    def new_inbox(self) -> str:
        """Return a subject that nobody else uses, for requests with several answers."""

    async def flush(self) -> None:
        """Wait until the server has processed everything published before; the caller owns the deadline."""

    def on_connected(self, handler: Callable[[], None]) -> None:
        """Call ``handler()`` whenever a connection was established; it must not block or raise."""

    def drop_buffered(self, reason: str) -> None:
        """Give the connection up at once, if anything is buffered in it; a new one is made. Synchronous.

        What waits in the queue stays there.
        """

    def before_sending(self, guard: Callable[[], object]) -> None:
        """Call ``guard()`` whenever messages are about to be given to the connection; it may drop that.

        It must not block or raise. It can then still withdraw what waits. There is one guard.
        """

    def withhold(self, stays: Callable[[str], bool] | None) -> None:
        """Keep messages in the queue, from now on, on subjects of which ``stays`` says so; None: none.

        They can be withdrawn, and leave in their order once they may; others overtake them. Synchronous.
        """

    def on_refused(self, handler: Callable[[str], bool | None]) -> Callable[[], None]:
        """Call ``handler(subject)`` when the server refuses a publish for lack of permission.

        It returns true where that reaches the publisher.

        Returns:
            Function that removes the handler; to be called once.
        """


class Listener(Protocol):
    """A second connection, to another server of the cluster: hears messages that the first one may miss.

    It only listens. If the broker is a single server, it is never connected.
    """

    @property
    def connected(self) -> bool:
        """Whether the connection is up right now."""

    def listen(self, subject: str, handler: Handler) -> Callable[[], None]:
        """Call ``handler`` with every message on ``subject`` while the connection is up; synchronous.

        Returns:
            A function that ends this at once; synchronous and idempotent.
        """

    def on_connected(self, handler: Callable[[], None]) -> None:
        """Call ``handler()`` whenever the connection was established; it must not block or raise."""

    def missed(self, *, captured: bool) -> bool:
        """Whether messages may be lost that came while the first connection was last away.

        Args:
            captured: whether a stream keeps them, for as long as its server lives.
        """


class Presence(Protocol):
    """A voice that answers whether this process is there, however busy the loop is."""

    @property
    def answering(self) -> bool:
        """Whether it answers; while it does not, the loop has to."""

    async def announce(self, subjects: Sequence[str], answer: bytes) -> None:
        """Begin, once, to answer messages on ``subjects``.

        This returns when it does; or within a second when it does not yet: it keeps trying in the background.
        """
