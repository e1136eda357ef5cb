"""The Bus port: what the rest of the package needs of a message broker.

The one implementation for a real broker is `scheduler.bus.nats.open_bus`; tests use an in-memory twin.
Handlers run inside the broker client's own callback, so they are synchronous and must not raise:
they put what they got into a memory channel (``send_nowait``) or set an event.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeAlias

from scheduler.errors import MessageTooLarge


class Message:
    """A message as it came in; not to be changed.

    Args:
        subject: what it came in on.
        data: what it says.
        reply: the subject to answer on, or empty.
        headers: or what makes them: most are never looked at.
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
        """None where it has none."""
        headers = self._headers
        if callable(headers):
            headers = self._headers = headers()
        return headers

    @property
    def no_responders(self) -> bool:
        """Whether this is the server's word that nobody subscribes to what was requested (503)."""
        return not self.data and self.headers is not None and self.headers.get("Status") == "503"

    def __eq__(self, other: object) -> bool:
        """Whether the two say the same."""
        if not isinstance(other, Message):
            return NotImplemented
        theirs = (other.subject, other.data, other.reply, other.headers)
        return (self.subject, self.data, self.reply, self.headers) == theirs

    def __hash__(self) -> int:
        """Equal for what is equal."""
        return hash((self.subject, self.data, self.reply))

    def __repr__(self) -> str:
        """What may be shown of it: not what it says."""
        return f"Message(subject={self.subject!r}, reply={self.reply!r}, headers={self.headers!r})"


Headers: TypeAlias = Mapping[str, str] | None
"""Of a message."""
Handler: TypeAlias = Callable[[Message], None]


class Outgoing(Protocol):
    """A message that was handed to the bus to be published."""

    @property
    def generation(self) -> int:
        """The connection that it was given to (`Bus.generation` at that time); 0 while it waits."""

    @property
    def refused(self) -> MessageTooLarge | None:
        """Why it did not leave, and never will: the server that we came to takes less than the one before."""

    def withdraw(self) -> bool:
        """Take it back: True when it had not left and now never will, False when it is too late."""


class Subscription(Protocol):
    """An interest in a subject."""

    async def unsubscribe(self) -> None:
        """End it; on return the server knows, and everything that it had sent before was handled.

        While the broker is away it ends at once. Idempotent, and silent on a closed bus.
        """


class Bus(Protocol):
    """A connection to a broker that looks after itself: it reconnects and subscribes again."""

    @property
    def max_payload(self) -> int:
        """The server's limit on a message, headers included, in bytes."""

    @property
    def connected(self) -> bool:
        """Whether the connection is up right now."""

    @property
    def behind(self) -> bool:
        """Whether more has come in than was read so far: a server hangs up on who does not catch up."""

    @property
    def generation(self) -> int:
        """How often a connection was established: it grows with every reconnect."""

    def publish(
        self, subject: str, data: bytes, *, reply: str = "", headers: Mapping[str, str] | None = None
    ) -> Outgoing:
        """Queue a message to be published; synchronous, never blocks.

        While the broker is away it stays queued, and leaves once, when the broker is back.

        Raises:
            InvalidSubject: the subject, reply subject or a header is not allowed.
            MessageTooLarge: payload and headers are over ``max_payload``.
            BusFull: the queue has no room.
            BusClosed: the bus is closed.
        """

    async def request(
        self, subject: str, data: bytes, *, headers: Mapping[str, str] | None = None
    ) -> Message:
        """Publish and await one answer; the caller owns the deadline (``trio.fail_after``).

        Raises:
            NoResponders: nobody subscribes to the subject.
            NotPermitted: the broker does not let us publish there; known as soon as it says so.
            BusError: as for ``publish``.
        """

    async def subscribe(self, subject: str, handler: Handler, *, queue: str = "") -> Subscription:
        """Call ``handler`` with every message on ``subject``; effective at the server on return.

        Raises:
            NotPermitted: the broker does not let us.
            BusError: the bus cannot be used.
        """

    def new_inbox(self) -> str:
        """Return a subject nobody else uses, to be answered on where several answers are expected."""

    async def flush(self) -> None:
        """Wait until the server has processed everything published before; the caller owns the deadline."""

    def on_connected(self, handler: Callable[[], None]) -> None:
        """Have ``handler()`` called whenever a connection was established; it must not block or raise."""

    def on_refused(self, handler: Callable[[str], bool | None]) -> None:
        """Have ``handler(subject)`` called when the server refuses a publish for lack of permission.

        It returns true where whoever published is told by it.
        """


class Listener(Protocol):
    """A second connection, to another server of the cluster: it hears what the first one may miss.

    It only listens. Where the broker is one server alone it is never connected.
    """

    @property
    def connected(self) -> bool:
        """Whether it is up right now."""

    def listen(self, subject: str, handler: Handler) -> Callable[[], None]:
        """Call ``handler`` with every message on ``subject``, while it is up; synchronous.

        Returns:
            What ends that, at once; synchronous and idempotent.
        """

    def on_connected(self, handler: Callable[[], None]) -> None:
        """Have ``handler()`` called whenever it was established; it must not block or raise."""

    def missed(self, *, captured: bool) -> bool:
        """Whether messages may be lost that came while the first connection was last away.

        Args:
            captured: a stream keeps them, for as long as the server lives that has it.
        """


class Presence(Protocol):
    """Says that we are there, to whoever asks, from where no work on the loop can starve it."""

    @property
    def answering(self) -> bool:
        """Whether it does; while it does not, the loop is to answer."""

    async def announce(self, subjects: Sequence[str], answer: bytes) -> None:
        """Begin to answer what comes in on ``subjects``, once.

        Returns when it does; or, within a second, when it does not yet: it goes on trying in the background.
        """
