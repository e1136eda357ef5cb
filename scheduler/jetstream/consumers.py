"""Pull consumers: the server's side of reading a stream.

The scheduler's are ephemeral: in memory, without acknowledgements, gone with their server, or soon after
their last use. Their deliveries are numbered, so that a gap is noticed. Once anything is wrong with a
consumer it is *lost*, for good and with a reason; another one takes its place, behind the last message of the
old one.
"""

import secrets
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
import trio

from scheduler.bus import Message, Subscription
from scheduler.errors import BusError
from scheduler.jetstream.answers import NO_HEADERS
from scheduler.jetstream.api import JetStream
from scheduler.runtime.logger import Logger
from scheduler.runtime.values import Value

BATCH: Final = 1000
"""Messages to ask for at a time."""
BATCH_BYTES: Final = 8_388_593
"""Bytes to ask for at a time: far below the 64 MiB at which a server disconnects a slow reader.

A prime: if messages of one size fill it to the byte, the server stops without a word.
"""

_SECOND = 1_000_000_000

# Seconds for which a consumer outlives the last request to it.
_INACTIVE = 120
# Seconds between two signs of life of the server while a request stands.
_HEARTBEAT = 2
# Seconds between two checks that the connection is still the same.
_LOOK = 0.5
_GOODBYE = 1.0

# Descriptions with which a request with ``max_bytes`` may end without harm.
_OVER = ("Batch Completed", "Message Size Exceeds MaxBytes")

log = Logger()


class Delivered(Value, frozen=True):
    """A message of a stream, as a consumer delivers it."""

    UNSHOWN = frozenset({"data"})

    subject: str
    data: bytes
    headers: Mapping[str, str]
    sequence: int
    time: int
    """Time of storage by the server's clock, in nanoseconds since 1970."""


class Consumer:
    """One consumer: opened, used until it is lost, and closed."""

    def __init__(
        self, js: JetStream, stream: str, handler: Callable[[Delivered], None], *, low: int = 0
    ) -> None:
        """Prepare a consumer.

        Args:
            js: JetStream with the stream.
            stream: the name of the stream.
            handler: function that is called with each message, in order, in the bus's callback; must not
                raise.
            low: number of outstanding messages below which the next ones are asked for.
        """
        self.lost = ""
        """Reason why nothing more is to be expected of it; empty while it works."""
        self._js = js
        self._bus = js.bus
        self._generation = 0
        self._stream = stream
        self._name = secrets.token_hex(8)
        self._inbox = js.bus.new_inbox()
        self._subscription: Subscription | None = None
        self._handler = handler
        self._low = low
        self._expires = 0
        self._outstanding = 0
        self._delivered = 0
        self._heard = False
        self._unknown = False
        self._pauses = [0.5, 0.2, 0.1, 0.05, 0.02]
        self._changed = trio.Event()

    @property
    def alive(self) -> bool:
        """Whether nothing is known to be wrong with it."""
        return not self.lost and self._bus.connected and self._bus.generation == self._generation

    def is_over(self, js: JetStream) -> bool:
        """Whether it was prepared for this server, over this connection."""
        return self._js is js

    async def open(self, config: Mapping[str, Any]) -> None:
        """Create the consumer on the server. It is to be closed in any case.

        Args:
            config: messages to be delivered, in the server's words.

        Raises:
            BusError: as for `JetStream`.
        """
        self._subscription = await self._js.subscribe(self._inbox, self._receive)
        self._generation = self._bus.generation
        request = {
            "stream_name": self._stream,
            "action": "create",
            "config": {
                "name": self._name,
                "ack_policy": "none",
                "mem_storage": True,
                "num_replicas": 1,
                "inactive_threshold": _INACTIVE * _SECOND,
                **config,
            },
        }
        await self._js.call(f"CONSUMER.CREATE.{self._stream}.{self._name}", request)

    async def close(self) -> None:
        """Hand over nothing more, and have the server remove it. Idempotent; shielded from cancellation."""
        subscription, self._subscription = self._subscription, None
        if subscription is None:
            return
        if self._bus.connected:
            try:
                # Not awaited: it ends by itself as well.
                self._bus.publish(f"$JS.API.CONSUMER.DELETE.{self._stream}.{self._name}", b"")
            except BusError as error:
                log.debug("a consumer is left to itself", stream=self._stream, reason=str(error))
        self.lose("it was closed")
        with trio.move_on_after(_GOODBYE, shield=True):
            await subscription.unsubscribe()

    def pull(self, *, expires: int = 0) -> None:
        """Ask for up to ``BATCH`` messages.

        Args:
            expires: seconds to wait for them; with 0, only messages that are there already are delivered.
        """
        self._expires = expires
        self._outstanding += BATCH
        self._ask()

    def _ask(self) -> None:
        question: dict[str, Any] = {
            "batch": BATCH,
            "max_bytes": max(BATCH_BYTES, 2 * self._bus.max_payload + 1),
        }
        if self._expires:
            question |= {"expires": self._expires * _SECOND, "idle_heartbeat": _HEARTBEAT * _SECOND}
        else:
            question["no_wait"] = True
        try:
            self._bus.publish(
                f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._name}",
                msgspec.json.encode(question),
                reply=self._inbox,
            )
        except BusError as error:
            self.lose(str(error))

    async def settle(self, silence: float) -> str:
        """Wait until everything that was asked for has come, or will not come.

        Args:
            silence: seconds without a sign of life after which the consumer counts as dead.

        Returns:
            The reason why it is lost; empty where it is not.
        """
        deadline = trio.current_time() + silence
        while self._outstanding and not self.lost:
            self._changed = trio.Event()
            with trio.move_on_after(_LOOK):
                await self._changed.wait()
            if not self.alive:
                self.lose("the connection was lost")
            elif self._unknown:
                self._unknown = False
                await self._ask_again()
            if self._heard:
                self._heard = False
                deadline = trio.current_time() + silence
            elif trio.current_time() >= deadline:
                self.lose(f"nothing was heard of it for {silence:g} s")
        return self.lost

    async def _ask_again(self) -> None:
        """Ask again: in a cluster, our server may not know yet of a consumer that another has just made."""
        if self._delivered or not self._pauses:
            self.lose("it does not exist any more")
        else:
            await trio.sleep(self._pauses.pop())
            self._ask()

    def lose(self, reason: str) -> None:
        """Give the consumer up; the first reason counts."""
        self.lost = self.lost or reason
        self._changed.set()

    def _receive(self, message: Message) -> None:
        if self.lost:
            return
        self._heard = True
        if not message.reply:
            self._take_status(message.headers or NO_HEADERS)
            return
        # $JS.ACK.<stream>.<consumer>.<deliveries>.<sequence>.<consumer's sequence>.<time>.<pending>, or with
        # the domain and a hash of the account before the stream, and maybe a token more at the end.
        tokens = message.reply.split(".")
        at = 5 if len(tokens) == 9 else 7
        delivered = int(tokens[at + 1])
        if delivered != self._delivered + 1:
            self.lose(f"its message {self._delivered + 1} did not come")
            return
        self._delivered = delivered
        self._use_up(1)
        headers = message.headers or NO_HEADERS
        self._handler(Delivered(message.subject, message.data, headers, int(tokens[at]), int(tokens[at + 2])))

    def _take_status(self, headers: Mapping[str, str]) -> None:
        status, reason = headers.get("Status", ""), headers.get("Description", "")
        if status == "100":
            if headers.get("Nats-Last-Consumer", "0") != str(self._delivered):
                self.lose(f"messages after its message {self._delivered} did not come")
        elif status == "404":
            self._use_up(self._outstanding)
        elif status == "408" or reason in _OVER:
            unused = int(headers.get("Nats-Pending-Messages", "0"))
            if status == "409" and unused == BATCH:
                self.lose("the next message is larger than what may be in flight")
            self._use_up(unused)
        elif status == "503":
            self._unknown = True
            self._changed.set()
        else:
            self.lose(f"{status} {reason}")

    def _use_up(self, count: int) -> None:
        self._outstanding -= count
        if self._outstanding <= 0:
            self._outstanding = 0
            self._changed.set()
        elif self._outstanding < self._low:
            self.pull(expires=self._expires)
