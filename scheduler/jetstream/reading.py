"""Streams that are read to their end, or followed for ever, through pull consumers of our own.

A consumer is the server's notion of a reader. Ours are ephemeral: in memory, without acknowledgements, gone
with the server that holds them, or soon after they are used no more. What they deliver is numbered, so a gap
is seen; whatever goes wrong, a new one begins after the last message of the old one.
"""

import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, NoReturn

import msgspec
import structlog
import trio
from attrs import field, frozen

from scheduler.bus import Message
from scheduler.errors import BusError, JetStreamError, JetStreamUnavailable
from scheduler.jetstream.api import NO_HEADERS, JetStream, format_time, open_inbox
from scheduler.records import Position

BATCH: Final = 1000
"""Messages to ask for at a time."""
BATCH_BYTES: Final = 8_388_593
"""... and bytes: far from the 64 MiB at which a server hangs up on who reads too slowly.

A prime: where messages fill it to the byte, the server stops without a word.
"""

_SECOND = 1_000_000_000
_EVERYTHING = ">"

# How long a consumer that nobody asks outlives its reader.
_INACTIVE = 120.0
# A follower's question stands for so long; meanwhile the server gives a sign of life every _HEARTBEAT seconds,
# and after _SILENCE without one the consumer is taken for dead.
_EXPIRES = 30.0
_HEARTBEAT = 2.0
_SILENCE = 5.0
# Ways in which a question with ``max_bytes`` ends and its consumer lives on.
_OVER = ("Batch Completed", "Message Size Exceeds MaxBytes")
# How often to look whether the connection is still the same.
_LOOK = 0.25
_PAUSE = 0.25
# How often in a row reading may come to nothing.
_ATTEMPTS = 3
# Two servers' clocks, or one that was set, may differ by so much where a stream lost its end.
_MARGIN = 1 * _SECOND
# After so long `caught_up` asks anew what is the last message.
_ASK_AGAIN = 1.0

log = structlog.get_logger(__name__)


@frozen
class Delivered:
    """A message of a stream, as a consumer delivers it."""

    subject: str
    data: bytes = field(repr=False)
    headers: Mapping[str, str]
    sequence: int
    time: int
    """When it was stored, in nanoseconds since 1970, by the server's clock."""


class Consumer:
    """An ephemeral pull consumer; made by ``open_consumer``, and used until anything goes wrong with it."""

    def __init__(self, js: JetStream, stream: str, handler: Callable[[Delivered], None], low: int) -> None:
        self.stream = stream
        self.name = secrets.token_hex(8)
        self.inbox = ""
        self.lost = ""
        """Why nothing more is to be expected of it, if so."""
        self._bus = js.bus
        self._generation = js.bus.generation
        self._handler = handler
        self._low = low
        self._expires = 0.0
        self._outstanding = 0
        self._delivered = 0
        self._heard = False
        self._changed = trio.Event()

    @property
    def alive(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.lost and self._bus.connected and self._bus.generation == self._generation

    def pull(self, *, expires: float = 0.0) -> None:
        """Ask for up to ``BATCH`` messages.

        Args:
            expires: seconds to wait for them; with 0, only what is there.
        """
        body: dict[str, Any] = {"batch": BATCH, "max_bytes": max(BATCH_BYTES, 2 * self._bus.max_payload + 1)}
        if expires:
            body |= {"expires": int(expires * _SECOND), "idle_heartbeat": int(_HEARTBEAT * _SECOND)}
        else:
            body["no_wait"] = True
        self._expires = expires
        try:
            subject = f"$JS.API.CONSUMER.MSG.NEXT.{self.stream}.{self.name}"
            self._bus.publish(subject, msgspec.json.encode(body), reply=self.inbox)
        except BusError as error:
            self._lose(str(error))
        else:
            self._outstanding += BATCH

    async def settle(self, silence: float) -> str:
        """Wait until all that was asked for has come, or will not come; says why nothing more will, if so.

        Args:
            silence: after so many seconds without a sign of life it is taken for dead.
        """
        deadline = trio.current_time() + silence
        while self._outstanding and not self.lost:
            self._changed = trio.Event()
            with trio.move_on_after(_LOOK):
                await self._changed.wait()
            if not self.lost and not self.alive:
                self._lose("the connection was lost")
            if self._heard:
                self._heard = False
                deadline = trio.current_time() + silence
            elif trio.current_time() >= deadline:
                self._lose(f"nothing was heard of it for {silence:g} s")
        return self.lost

    def forget(self) -> None:
        """Have the server remove it; not awaited, since it ends by itself as well."""
        if self.alive:
            try:
                self._bus.publish(f"$JS.API.CONSUMER.DELETE.{self.stream}.{self.name}", b"")
            except BusError:
                log.debug("a consumer is left to its end", stream=self.stream, consumer=self.name)

    def receive(self, message: Message) -> None:
        """Take in what comes on the inbox."""
        if self.lost:
            return
        self._heard = True
        if not message.reply:
            self._take_status(message.headers or NO_HEADERS)
            return
        # $JS.ACK.<stream>.<consumer>.<deliveries>.<sequence>.<consumer sequence>.<time>.<pending>, or with
        # the domain and a hash of the account before the stream, and a token more at the end.
        tokens = message.reply.split(".")
        at = 5 if len(tokens) == 9 else 7
        delivered = int(tokens[at + 1])
        if delivered != self._delivered + 1:
            self._lose(f"message {self._delivered + 1} of the consumer is missing")
            return
        self._delivered = delivered
        self._outstanding -= 1
        if self._outstanding < self._low:
            self.pull(expires=self._expires)
        elif not self._outstanding:
            self._changed.set()
        self._handler(
            Delivered(
                message.subject,
                message.data,
                message.headers or NO_HEADERS,
                int(tokens[at]),
                int(tokens[at + 2]),
            )
        )

    def _take_status(self, headers: Mapping[str, str]) -> None:
        status, reason = headers.get("Status", ""), headers.get("Description", "")
        if status == "100":
            if headers.get("Nats-Last-Consumer", "0") != str(self._delivered):
                self._lose(f"messages after {self._delivered} of the consumer are missing")
        elif status == "404":
            self._give_up(self._outstanding)
        elif status == "408" or reason in _OVER:
            unused = int(headers.get("Nats-Pending-Messages", "0"))
            if status == "409" and unused == BATCH:
                self._lose("the next message is larger than what may be in flight")
            self._give_up(unused)
        else:
            self._lose("it does not exist any more" if status == "503" else f"{status} {reason}")

    def _give_up(self, count: int) -> None:
        self._outstanding = max(self._outstanding - count, 0)
        if not self._outstanding:
            self._changed.set()
        elif self._outstanding < self._low:
            self.pull(expires=self._expires)

    def _lose(self, reason: str) -> None:
        self.lost = self.lost or reason
        self._changed.set()


@asynccontextmanager
async def open_consumer(
    js: JetStream,
    stream: str,
    handler: Callable[[Delivered], None],
    config: Mapping[str, Any],
    *,
    low: int = 0,
) -> AsyncIterator[Consumer]:
    """Make a consumer, and remove it in the end.

    Args:
        js: the server.
        stream: its stream.
        handler: called with each message, in order, in the bus's callback; must not raise.
        config: what is to be delivered, in the server's words.
        low: where fewer messages than this are outstanding, the next ones are asked for.

    Raises:
        BusError: as for `JetStream`.
    """
    consumer = Consumer(js, stream, handler, low)
    async with open_inbox(js, consumer.receive) as consumer.inbox:
        try:
            await js.call(
                f"CONSUMER.CREATE.{stream}.{consumer.name}",
                {
                    "stream_name": stream,
                    "action": "create",
                    "config": {
                        "name": consumer.name,
                        "ack_policy": "none",
                        "mem_storage": True,
                        "num_replicas": 1,
                        "inactive_threshold": int(_INACTIVE * _SECOND),
                        **config,
                    },
                },
            )
            yield consumer
        finally:
            consumer.forget()


async def read(
    js: JetStream,
    stream: str,
    *,
    subjects: Sequence[str] = (),
    start: int = 1,
    last_per_subject: bool = False,
    headers_only: bool = False,
) -> AsyncIterator[list[Delivered]]:
    """What matches in a stream as of the call (and maybe some that came since), in order, in batches.

    It is complete, or raises: after a lost message or connection it goes on after the last one delivered. At
    most ``BATCH_BYTES`` are in flight. Who does not read it to its end closes it (``aclosing``).

    Args:
        js: the server.
        stream: which stream.
        subjects: only messages on these, which may have wildcards but must not overlap.
        start: the first sequence of interest.
        last_per_subject: of each subject only the last message; one that is followed by another meanwhile may
            come as well, before it.
        headers_only: without payload; its size is in the header ``Nats-Msg-Size``.

    Raises:
        JetStreamUnavailable: several times in a row nothing came within ``js.timeout`` seconds.
        StreamNotFound: there is no such stream.
        BusError: as for `JetStream`.
    """
    wanted = list(subjects) or [_EVERYTHING]
    position = start - 1
    last: int | None = None
    failures = 0
    while True:
        taken: list[Delivered] = []
        try:
            # The leader's word: a consumer may be held by a replica that is behind.
            now = await _last_sequence(js, stream, wanted)
            last = now if last is None else min(last, now)
            if position >= last:
                return
            config: dict[str, Any] = {"filter_subjects": wanted, "headers_only": headers_only}
            if last_per_subject:
                config["deliver_policy"] = "last_per_subject"
            else:
                config |= {"deliver_policy": "by_start_sequence", "opt_start_seq": position + 1}
            async with open_consumer(js, stream, taken.append, config) as consumer:
                while position < last:
                    consumer.pull()
                    lost = await consumer.settle(js.timeout)
                    if not taken and not lost:
                        lost = f"it ends before message {last}"
                    # Begun anew, the last message of each subject comes again.
                    batch = [one for one in taken if one.sequence > position]
                    taken.clear()
                    if batch:
                        position = batch[-1].sequence
                        failures = 0
                        yield batch
                    if lost:
                        raise JetStreamUnavailable(f"a consumer of {stream} was lost: {lost}")
                return
        except JetStreamUnavailable as error:
            failures += 1
            if failures >= _ATTEMPTS:
                raise
            log.info("reading a stream begins anew", stream=stream, after=position, reason=str(error))
        await trio.sleep(_PAUSE)


async def _last_sequence(js: JetStream, stream: str, subjects: Sequence[str]) -> int:
    if _EVERYTHING in subjects:
        # The server finds no last one on `>` itself where the very last one was removed.
        subjects = (await js.info(stream)).config["subjects"]
    found = [await js.last(stream, subject) for subject in subjects]
    return max((one.sequence for one in found if one is not None), default=0)


class Follower:
    """Follows a whole stream, from a known position, for as long as it runs."""

    def __init__(self, js: JetStream, stream: str, handler: Callable[[Delivered], None]) -> None:
        """Prepare it.

        Args:
            js: the server.
            stream: which stream.
            handler: called with every message in the stream's order, in the bus's callback: synchronous, must
                not raise.
        """
        self._js = js
        self._stream = stream
        self._handler = handler
        self._sequence = 0
        self._time = 0
        self._consumer: Consumer | None = None
        self._moved: trio.Event | None = None

    @property
    def seen(self) -> Position:
        """The last message handed over; before the first, where it starts.

        With sequence 0 it starts with whatever was stored at that time or later.
        """
        return Position(self._sequence, self._time)

    async def run(
        self, start: Position, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> NoReturn:
        """Hand over every message after ``start``, once, for ever; started once the server knows what we want.

        While the connection or the stream is away, it waits. A stream that was not replicated may lose its end
        with its server, and give the same numbers out again: where the message at the position has not the
        position's time, or is gone from the middle, it goes on by time, from a second earlier. Only then may
        messages come that were handed over before.

        Raises:
            JetStreamError: before it has started: what waiting does not cure, such as StreamNotFound.
            BusClosed: the bus was closed.
        """
        self._sequence, self._time = start.sequence, start.time
        started = failing = False
        while True:
            reason = ""
            try:
                config = _after(self.seen)
                async with open_consumer(
                    self._js, self._stream, self._take, config, low=BATCH // 2
                ) as consumer:
                    # Whoever holds the consumer held the stream all the while: had it been killed since, the
                    # consumer would be gone. So what is found now has been so from the consumer's beginning.
                    if self._sequence and not await self._is_there(self.seen):
                        self._go_by_time()
                        continue
                    self._consumer = consumer
                    self._signal()
                    if failing:
                        log.info("a stream is followed again", stream=self._stream, after=self._sequence)
                    failing = False
                    if not started:
                        started = True
                        task_status.started()
                    while not reason:
                        consumer.pull(expires=_EXPIRES)
                        reason = await consumer.settle(_SILENCE)
            except JetStreamUnavailable as error:
                reason = str(error)
            except JetStreamError as error:
                if not started:
                    raise
                reason = str(error)
                log.error("a stream cannot be followed", stream=self._stream, reason=reason)
            finally:
                self._consumer = None
            if not failing:
                log.warning("a stream is not followed for the moment", stream=self._stream, reason=reason)
                failing = True
            await self._away()

    async def caught_up(self) -> None:
        """Wait until everything that was in the stream at the call has been handed over.

        Raises:
            JetStreamError: the stream cannot be asked, such as StreamNotFound.
        """
        while True:
            try:
                goal = await self._end()
            except JetStreamUnavailable:
                await self._away()
                continue
            with trio.move_on_after(_ASK_AGAIN):
                while not self._has(goal):
                    self._moved = self._moved or trio.Event()
                    await self._moved.wait()
                return

    async def _end(self) -> Position:
        """The last message of the stream, or where it was."""
        # Not the last one on `>`: the server finds none where the very last one was removed.
        last = (await self._js.info(self._stream)).last_sequence
        stored = await self._js.get(self._stream, last) if last else None
        return Position(last, 0 if stored is None else stored.time)

    def _has(self, goal: Position) -> bool:
        if self._consumer is None or not self._consumer.alive:
            return False
        if not self._sequence:
            return goal.time < self._time or not goal.sequence
        return self._sequence >= goal.sequence and self._time >= goal.time

    async def _away(self) -> None:
        await trio.sleep(_PAUSE)
        while not self._js.bus.connected:
            await trio.sleep(_LOOK)

    async def _is_there(self, position: Position) -> bool:
        """Whether the stream is still the one that had this message, or had it and has removed it by age."""
        stored = await self._js.get(self._stream, position.sequence)
        if stored is not None:
            return stored.time == position.time
        info = await self._js.info(self._stream)
        return info.first_sequence > position.sequence

    def _go_by_time(self) -> None:
        log.warning(
            "a stream has lost its end: messages may be lost, and some come again",
            stream=self._stream,
            known_until=self._sequence,
        )
        self._sequence, self._time = 0, max(self._time - _MARGIN, 0)

    def _take(self, message: Delivered) -> None:
        expected = self._sequence + 1
        if message.sequence != expected > 1:
            log.warning(
                "messages had left the stream before they were read",
                stream=self._stream,
                messages=message.sequence - expected,
            )
        self._sequence, self._time = message.sequence, message.time
        self._handler(message)
        if self._moved is not None:
            self._signal()

    def _signal(self) -> None:
        if self._moved is not None:
            self._moved.set()
            self._moved = None


def _after(position: Position) -> dict[str, Any]:
    """Have a consumer deliver what comes after a position."""
    if position.sequence:
        return {"deliver_policy": "by_start_sequence", "opt_start_seq": position.sequence + 1}
    if position.time:
        return {"deliver_policy": "by_start_time", "opt_start_time": format_time(position.time)}
    return {"deliver_policy": "all"}
