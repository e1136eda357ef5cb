"""The in-memory twin of the bus: same checks, same queue, same answers, no broker.

What is published is delivered a little later (`TrioToken.run_sync_soon`), in order, never inside the call to
``publish``: as with a real broker, and deterministic under an autojump clock.
"""

import json
from collections import deque
from collections.abc import Callable, Mapping

import structlog
import trio
from attrs import field, frozen

from scheduler.bus import Handler, Message
from scheduler.bus.endpoint import Endpoint, Interest
from scheduler.bus.interest import SUBJECT as CONNECTIONS
from scheduler.bus.options import MAX_BYTES, MAX_MESSAGES
from scheduler.bus.outbox import Barrier, Queued
from scheduler.bus.subjects import matches

log = structlog.get_logger(__name__)


@frozen
class Published:
    """A message that reached the broker."""

    subject: str
    data: bytes = field(repr=False)
    reply: str
    headers: Mapping[str, str] | None


class FakeBus(Endpoint):
    """A Bus and its broker in one."""

    def __init__(
        self,
        *,
        max_payload: int = 1024 * 1024,
        max_queued_messages: int = MAX_MESSAGES,
        max_queued_bytes: int = MAX_BYTES,
    ) -> None:
        super().__init__("_INBOX.fake", max_payload, max_queued_messages, max_queued_bytes)
        self.generation = 1
        self.published: list[Published] = []
        """Everything that reached the broker, in order."""
        self.forbidden: set[str] = set()
        """Patterns of subjects one may neither publish nor subscribe on."""
        self.lowered: int | None = None
        """Limit of the server since its last change, which the bus does not know yet."""
        self.lose: Callable[[Published], bool] = lambda _: False
        """Says of each message whether the broker loses it; it is in ``published`` all the same."""
        self.taps: list[Callable[[Published], bool]] = []
        """Are shown every message that the broker has, ours and others', and say whether it is for them."""
        self._up = True
        self._turns: dict[str, int] = {}
        self._others: deque[Published] = deque()
        self.outbox.on_work = self._work

    @property
    def connected(self) -> bool:
        return self._up

    @property
    def clustered(self) -> bool:
        """As in the port."""
        return False

    @property
    def behind(self) -> bool:
        """As in the port."""
        return False

    def drop_buffered(self, reason: str) -> None:
        """As in the port; nothing is ever buffered."""

    def disconnect(self) -> None:
        """Take the broker away: published messages stay queued."""
        self._up = False

    def reconnect(self) -> None:
        """Bring the broker back, with all subscriptions; it takes the queued messages."""
        self._up = True
        self.generation += 1
        self.outbox.restart((), ())
        self.tell_connected()
        self._work()

    def deliver(
        self, subject: str, data: bytes, *, reply: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        """Publish as another client: it arrives unless disconnected, and is not in ``published``."""
        if self._up:
            self._others.append(Published(subject, data, reply, headers))
            self._work()

    @property
    def subjects(self) -> list[str]:
        """Return the subscriptions, in order, without the bus's inbox."""
        return [one.subject for one in self.interests.values() if one.subject != self.inbox.subject]

    def _work(self) -> None:
        trio.lowlevel.current_trio_token().run_sync_soon(self._pump, idempotent=True)

    def _pump(self) -> None:
        while self._up and (command := self.outbox.take_command()) is not None:
            if isinstance(command, Barrier):
                command.event.set()
            elif command.startswith(b"SUB "):
                self._judge(command.split()[1].decode())
        while self._others:
            self._hand_out(self._others.popleft())
        if self._up:
            self.outbox.checked()
        while self._up and (item := self.outbox.take()) is not None:
            if isinstance(item, Barrier):
                item.event.set()
            else:
                self._accept(item)
        if self._up and not self.outbox.is_empty:
            # Thousands were passed over.
            self._work()

    def _judge(self, subject: str) -> None:
        if any(matches(pattern, subject) for pattern in self.forbidden):
            self.refuse("subscription", subject, "forbidden")

    def _accept(self, item: Queued) -> None:
        message = _parse(item)
        if self.lowered is not None and item.size > self.lowered:
            # The server hangs up on us, and says when we come again what it takes now.
            self.disconnect()
            self.max_payload, self.lowered = self.lowered, None
            trio.lowlevel.current_trio_token().run_sync_soon(self.reconnect)
            return
        if item.size > self.max_payload:
            item.refuse(self.max_payload)
            self.refuse("publish", item.subject, f"{item.size} bytes are over max_payload")
            return
        if any(matches(pattern, item.subject) for pattern in self.forbidden):
            self.refuse("publish", item.subject, "forbidden")
            return
        self.published.append(message)
        if not self.lose(message) and not self._hand_out(message) and message.reply:
            self.dispatch(Published(message.reply, b"", "", {"Status": "503"}))

    def _hand_out(self, message: Published) -> bool:
        # All of them, and nobody is left out where an earlier one takes it.
        return any([*[tap(message) for tap in self.taps], self.dispatch(message)])

    def dispatch(self, message: Published, to: str = "") -> bool:
        """Hand a message to whom it concerns, one of each queue group; say whether there was anybody.

        With ``to``, it concerns those who subscribe to that, whatever its own subject is.
        """
        to = to or message.subject
        groups: dict[str, list[Interest]] = {}
        chosen: list[Interest] = []
        for interest in self.interests.values():
            if matches(interest.subject, to):
                if interest.queue:
                    groups.setdefault(interest.queue, []).append(interest)
                else:
                    chosen.append(interest)
        for queue, members in groups.items():
            turn = self._turns.get(queue, 0)
            self._turns[queue] = turn + 1
            chosen.append(members[turn % len(members)])
        for interest in chosen:
            try:
                interest.handler(Message(message.subject, message.data, message.reply, message.headers))
            except Exception:
                log.exception("a message could not be handled", subject=message.subject)
        return bool(chosen)


class FakeListener:
    """The twin of a second connection: a test says when it is up, and what it hears."""

    def __init__(self) -> None:
        self.connected = False
        self.deaf = False
        """Number that `missed` returns."""
        self._handlers: list[tuple[str, Handler]] = []
        self._on_connected: list[Callable[[], None]] = []

    def connect(self) -> None:
        """Bring it up."""
        self.connected = True
        for handler in self._on_connected:
            handler()

    def listen(self, subject: str, handler: Handler) -> Callable[[], None]:
        """As in the port."""
        interest = (subject, handler)
        self._handlers.append(interest)

        def end() -> None:
            if interest in self._handlers:
                self._handlers.remove(interest)

        return end

    @property
    def subjects(self) -> list[str]:
        """Return the subjects of the subscriptions."""
        return [subject for subject, _ in self._handlers]

    def on_connected(self, handler: Callable[[], None]) -> None:
        """As in the port."""
        self._on_connected.append(handler)

    def missed(self, *, captured: bool) -> bool:
        """As in the port."""
        return self.deaf

    def hear(self, subject: str, data: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Deliver a message, unless it is away."""
        for pattern, handler in self._handlers if self.connected else ():
            if matches(pattern, subject):
                handler(Message(subject, data, "", headers))


def _parse(item: Queued) -> Published:
    """Read a message back from its wire form, so that the form is tested as well."""
    line, _, block = item.head.partition(b"\r\n")
    operation, subject, *rest = line.decode().split(" ")
    sizes = 2 if operation == "HPUB" else 1
    headers = None
    if operation == "HPUB":
        fields = [field.decode().partition(": ") for field in block.split(b"\r\n")[1:] if field]
        headers = {key: value.strip() for key, _, value in fields}
        assert int(rest[-2]) == len(block)
    assert int(rest[-1]) == len(block) + len(item.data) == item.size
    assert subject == item.subject
    return Published(subject, item.data, " ".join(rest[:-sizes]), headers)


async def tell_subscribers(bus: FakeBus, *subjects: str) -> None:
    """Publish the subscriptions of another connection, as a real broker does."""

    def answer(message: Message) -> None:
        document = {"data": {"total": 1, "connections": [{"subscriptions_list": subjects}]}}
        bus.deliver(message.reply, json.dumps(document).encode())

    await bus.subscribe(CONNECTIONS, answer)
