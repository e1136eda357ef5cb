"""The scheduler's half of the bus: publishing, awaiting and subscribing, over any carrier.

`scheduler.bus.nats.NatsBus` adds a connection to a broker, the tests' ``FakeBus`` a broker in memory. Each of
them empties the outbox while it is up, calls the handlers, and reports refusals.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial

import trio

from scheduler.bus import Handler, HeaderBlock, Headers, Message, Outgoing, Subscription
from scheduler.bus.inbox import Inbox
from scheduler.bus.options import MAX_BYTES, MAX_MESSAGES
from scheduler.bus.outbox import Barrier, Outbox
from scheduler.bus.subjects import compose, encode_pattern, encode_queue
from scheduler.errors import BusClosed, NotPermitted
from scheduler.runtime.log_limits import RateLimitedLog
from scheduler.runtime.logger import Logger

_CURE = "where permissions are the reason, `scheduler permissions` prints what each user needs"

log = Logger()


class Interest:
    """A subscription; it outlives connections."""

    def __init__(
        self, endpoint: "Endpoint", *, sid: int, subject: str, queue: str, line: bytes, handler: Handler
    ) -> None:
        self.sid = sid
        self.subject = subject
        self.queue = queue
        self.line = line
        """Command that tells the server."""
        self.handler = handler
        self.refused = ""
        """Reason why the server does not allow it; empty while it does."""
        self.awaited = True
        """Whether a task waits for the server to know of it."""
        self._endpoint = endpoint

    async def unsubscribe(self) -> None:
        """End the subscription, as in the port."""
        await self._endpoint.unsubscribe(self)


class Endpoint(ABC):
    """Everything of a Bus that needs no connection."""

    def __init__(
        self,
        inbox_prefix: str,
        max_payload: int = 0,
        max_queued_messages: int = MAX_MESSAGES,
        max_queued_bytes: int = MAX_BYTES,
    ) -> None:
        self.max_payload = max_payload
        """Limit of the server that is, or was last, connected, in bytes."""
        self.outbox = Outbox(max_queued_messages, max_queued_bytes)
        self.interests: dict[int, Interest] = {}
        """Subscriptions, by subscription id."""
        self.handlers: dict[int, Handler] = {}
        """Handlers of the subscriptions, in the form that a connection needs."""
        self.inbox = Inbox(inbox_prefix)
        self._sids = 0
        self._on_refused: list[Callable[[str], bool | None]] = []
        self._on_connected: list[Callable[[], None]] = []
        self._closed = False
        self._log = RateLimitedLog(log)
        self._answers = self._begin(self.inbox.subject, "", self.inbox.handle)

    @property
    @abstractmethod
    def connected(self) -> bool:
        """Whether the connection is up, and every subscription is made."""

    @property
    @abstractmethod
    def behind(self) -> bool:
        """Whether more has come in than was read so far."""

    @property
    def generation(self) -> int:
        """Number of connections that were established so far."""
        return self.outbox.generation

    @generation.setter
    def generation(self, generation: int) -> None:
        self.outbox.generation = generation

    @property
    def queued(self) -> int:
        """Number of messages that wait to be sent."""
        return len(self.outbox)

    def publish(
        self, subject: str, data: bytes, *, reply: str = "", headers: Headers | HeaderBlock = None
    ) -> Outgoing:
        """Publish as in the port."""
        if self._closed:
            raise BusClosed(f"cannot publish on {subject!r}: the bus is closed")
        head, size = compose(subject, data, reply, headers, self.max_payload)
        return self.outbox.put(subject, head, data, size)

    async def request(
        self,
        subject: str,
        data: bytes,
        *,
        headers: Mapping[str, str] | None = None,
        then: Handler | None = None,
    ) -> Message:
        """Request as in the port; a cancelled request is withdrawn if it has not left."""
        with self.inbox.open(then) as ticket:
            outgoing = self.publish(subject, data, reply=ticket.reply, headers=headers)
            try:
                return await ticket.answer(subject)
            except trio.Cancelled:
                outgoing.withdraw()
                raise

    def before_sending(self, guard: Callable[[], object]) -> None:
        """Call ``guard`` before messages leave, as in the port."""
        self.outbox.guard = guard

    def withhold(self, stays: Callable[[str], bool] | None) -> None:
        """Keep messages on some subjects in the queue, as in the port."""
        self.outbox.withhold(stays)

    def new_inbox(self) -> str:
        """Return a new inbox, as in the port."""
        return self.inbox.new()

    async def subscribe(self, subject: str, handler: Handler, *, queue: str = "") -> Subscription:
        """Subscribe as in the port."""
        self._check_open()
        interest = self._begin(subject, queue, handler)
        try:
            if self.connected:
                self.outbox.command(interest.line)
            await self._reach(self.outbox.command_barrier())
        except BaseException:
            self.end(interest)
            raise
        interest.awaited = False
        if interest.refused:
            self.end(interest)
            raise NotPermitted("subscribe to", subject)
        return interest

    async def flush(self) -> None:
        """Flush as in the port."""
        self._check_open()
        await self._reach(self.outbox.put_barrier())

    def on_refused(self, handler: Callable[[str], bool | None]) -> Callable[[], None]:
        """Add a handler, as in the port."""
        self._on_refused.append(handler)
        return partial(self._on_refused.remove, handler)

    def on_connected(self, handler: Callable[[], None]) -> None:
        """Add a handler, as in the port."""
        self._on_connected.append(handler)

    def tell_connected(self) -> None:
        """Tell the handlers that there is a connection again."""
        for handler in self._on_connected:
            try:
                handler()
            except Exception:
                log.exception("a handler of new connections failed")

    async def unsubscribe(self, interest: Interest) -> None:
        """End a subscription once the server knows: until then messages come, and are handled.

        If this is cancelled, it has ended at once.
        """
        known = self.interests.pop(interest.sid, None) is not None
        try:
            if known and self.connected and not self._closed:
                self.outbox.command(b"UNSUB %d\r\n" % interest.sid)
                await self.outbox.command_barrier().event.wait()
            else:
                await trio.lowlevel.checkpoint()
        finally:
            self.handlers.pop(interest.sid, None)

    def end(self, interest: Interest) -> None:
        """End a subscription at once. Idempotent."""
        if self.interests.pop(interest.sid, None) is not None:
            del self.handlers[interest.sid]
            if self.connected:
                self.outbox.command(b"UNSUB %d\r\n" % interest.sid)

    def refuse(self, what: str, subject: str, words: str) -> None:
        """Note that the server refuses a ``publish`` or ``subscription``."""
        if what == "publish":
            told = "max_payload" not in words and self.inbox.refuse(subject)
            for handler in tuple(self._on_refused):
                try:
                    told = handler(subject) is True or told
                except Exception:  # noqa: BLE001 - logged
                    self._log.exception("a handler of refused messages failed", subject=subject)
            # Quiet in this case: a remote choice of the subject could otherwise cause a line for each
            # message.
            tell = self._log.warning if told else self._log.error
            tell("the broker refuses a message", subject=subject, reason=words, cure=_CURE)
            return
        refused = [interest for interest in self.interests.values() if interest.subject == subject]
        tell = log.warning if refused and all(interest.awaited for interest in refused) else log.error
        tell(
            "the broker refuses a subscription: nothing comes in on it",
            subject=subject, reason=words, cure=_CURE,
        )  # fmt: skip
        for interest in refused:
            interest.refused = words

    def close(self) -> None:
        """Refuse everything from now on; waiting tasks get BusClosed. Idempotent."""
        self._closed = True
        self.inbox.close()
        for barrier in self.outbox.drain_barriers():
            barrier.event.set()

    def _check_open(self) -> None:
        if self._closed:
            raise BusClosed("the bus is closed")

    async def _reach(self, barrier: Barrier) -> None:
        await barrier.event.wait()
        self._check_open()

    def _begin(self, subject: str, queue: str, handler: Handler) -> Interest:
        to = encode_pattern(subject)
        if queue:
            to = b"%b %b" % (to, encode_queue(queue))
        self._sids += 1
        sid = self._sids
        line = b"SUB %b %d\r\n" % (to, sid)
        interest = Interest(self, sid=sid, subject=subject, queue=queue, line=line, handler=handler)
        self.interests[sid] = interest
        self.handlers[sid] = handler
        return interest
