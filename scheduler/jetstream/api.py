"""JetStream's request/reply API and publishing with an acknowledgement, over the Bus.

State is read from a stream's leader (``STREAM.MSG.GET``), never by direct get, which a replica may answer
with old state. The server's errors are translated in one place: `answers`.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import msgspec
import trio

from scheduler.bus import Bus, Handler, Message, Subscription
from scheduler.errors import (
    BusError,
    BusFull,
    JetStreamError,
    JetStreamUnavailable,
    MessageTooLarge,
    NoResponders,
    NotPermitted,
    StreamUnheard,
    TooLargeForStream,
    Unanswered,
)
from scheduler.jetstream.answers import (
    Ack,
    Stored,
    StreamInfo,
    read_ack,
    read_answer,
    read_info,
    read_message,
)
from scheduler.jetstream.codes import MOST_STORED
from scheduler.runtime.executor import ThreadExecutor

_NO_MESSAGE = 10037


_SURELY_STORED = 16 * 1024 * 1024
"""Bytes of a payload that surely fits into a stream."""
_READ_HERE = 512 * 1024
"""Bytes of an answer that is read on the spot: a millisecond or two."""
_BESIDE = 1024
"""Bytes that the server stores beside a message's subject, headers and payload; a little more."""


class JetStream:
    """The JetStream API of the server that a bus is connected to.

    Each method has a deadline of its own, ``timeout``, and raises nothing but BusError:

    - JetStreamUnavailable: there was no answer in time, or the request cannot be served now; worth asking
      again. It is then unknown whether the request was carried out.
    - JetStreamError: the server answered with another error; StreamNotFound is one.
    - BusError: the message cannot be sent at all: too large, an invalid subject, a closed bus.
    """

    def __init__(self, bus: Bus, *, timeout: float = 5.0) -> None:
        self.bus = bus
        self.timeout = timeout
        """Seconds for one request and its answer."""
        self.suspended = ""
        """Reason why nothing may be published for the moment. Its setter has to reset it."""
        self.on_ack: Callable[[str, Ack], None] = lambda _, __: None
        """Function that is called with every subject and its acknowledgement; may raise BusError."""
        self._in_flight: set[trio.CancelScope] = set()
        bus.on_connected(self._on_connected)

    def _on_connected(self) -> None:
        for scope in self._in_flight:
            scope.cancel()

    @contextmanager
    def in_flight(self) -> Iterator[trio.CancelScope]:
        """Cancel the body when a new connection is established: the old one brings no answer any more."""
        with trio.CancelScope() as scope:
            self._in_flight.add(scope)
            try:
                yield scope
            finally:
                self._in_flight.discard(scope)

    def most_bytes(self, beside: int) -> int:
        """Return the largest payload that a stream takes beside ``beside`` bytes of subject and headers."""
        return max(0, min(self.bus.max_payload, MOST_STORED - _BESIDE) - beside)

    async def call(self, endpoint: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Ask ``$JS.API.<endpoint>``, and return the answer; errors are raised.

        If the connection is lost meanwhile, the request is sent again: a repeated request is carried out
        once.
        """
        data = b"" if body is None else msgspec.json.encode(body)
        subject = f"$JS.API.{endpoint}"
        answer = await self._ask(subject, data, None, self.timeout, again=True)
        if len(answer.data) <= _READ_HERE:
            return read_answer(subject, answer.data)
        return await ThreadExecutor().run("answers", partial(read_answer, subject, answer.data))

    async def publish(
        self,
        subject: str,
        data: bytes,
        *,
        expected: int | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - in place of the class's own
        stored: Callable[[int], None] | None = None,
    ) -> Ack:
        """Publish a message and wait until the stream has stored it.

        Args:
            subject: subject of the message; a stream must take it, and must not be ``no_ack``.
            data: the payload.
            expected: sequence that the last message on ``subject`` must have for it to be stored; 0 for none.
            headers: headers to add.
            timeout: seconds, instead of ``self.timeout``. A message that has not left by then is never sent.
            stored: called with the sequence of the message as soon as its acknowledgement is read, a turn of
                the loop before this returns; must not block or raise.

        Raises:
            WrongLastSequence: ``expected`` does not hold; nothing was stored.
            MessageTooLarge: the message is over the server's limit, or over what its streams take.
            BusError: as for the class.
        """
        if expected is not None:
            headers = {**(headers or {}), "Nats-Expected-Last-Subject-Sequence": str(expected)}
        self.check_suspended(subject)
        if len(data) > _SURELY_STORED:
            beside = len(subject) + sum(len(name) + len(value) + 4 for name, value in (headers or {}).items())
            if len(data) > self.most_bytes(beside):
                raise self._too_large(subject, len(data) + beside)
        seconds = self.timeout if timeout is None else timeout
        ack: Ack | None = None

        def take(message: Message) -> None:
            nonlocal ack
            answer = read_ack(subject, message.data)
            self.on_ack(subject, answer)
            ack = answer
            if stored is not None:
                stored(ack.sequence)

        def take_early(message: Message) -> None:
            # What is wrong with it is found again, and raised, below.
            with suppress(BusError):
                take(message)

        try:
            message = await self._ask(
                subject, data, headers, seconds, then=None if stored is None else take_early
            )
            if ack is None:
                take(message)
        except TooLargeForStream as error:
            raise self._too_large(subject, len(data)) from error
        assert ack is not None, "it was read"
        return ack

    def check_suspended(self, subject: str) -> None:
        """Raise JetStreamUnavailable if nothing may be published, on ``subject`` or any other."""
        if self.suspended:
            raise JetStreamUnavailable(f"{subject} was not sent: {self.suspended}")

    def _too_large(self, subject: str, size: int) -> MessageTooLarge:
        most = self.most_bytes(0)
        whose = "the server's max_payload" if most == self.bus.max_payload else "what a stream takes,"
        return MessageTooLarge(f"a message on {subject!r}", size, most, whose)

    async def last(self, stream: str, subject: str) -> Stored | None:
        """Return a stream's last message on ``subject``, which may have wildcards; None without one."""
        found = await self._message(stream, {"last_by_subj": subject})
        if found is None and subject == ">":
            # The server has only looked for its last number here, whose message may have been removed.
            others = [await self._message(stream, {"last_by_subj": all_}) for all_ in ("*", "*.>")]
            found = max((one for one in others if one), key=lambda one: one.sequence, default=None)
        return found

    async def get(self, stream: str, sequence: int) -> Stored | None:
        """Return the message with this number, from 1; None where there is none, or none any more."""
        return await self._message(stream, {"seq": sequence})

    async def first(self, stream: str, subject: str, *, from_sequence: int = 1) -> Stored | None:
        """Return the first message on ``subject`` from ``from_sequence`` on; None where there is none."""
        return await self._message(stream, {"seq": from_sequence, "next_by_subj": subject})

    async def info(self, stream: str) -> StreamInfo:
        """Return configuration and state of a stream.

        Raises:
            StreamNotFound: there is no such stream.
            BusError: as for the class.
        """
        endpoint = f"STREAM.INFO.{stream}"
        return read_info(endpoint, await self.call(endpoint))

    async def account(self) -> dict[str, Any]:
        """Return what the server says of this account: ``limits``, use, ``domain``.

        Raises:
            JetStreamUnavailable: the account has no JetStream, or not yet: the server has just started.
            BusError: as for the class.
        """
        return await self.call("INFO")

    async def purge(self, stream: str, subject: str, *, before: int | None = None) -> int:
        """Remove the messages on ``subject``, which may have wildcards; return their number.

        Args:
            stream: the name of the stream.
            subject: subject of the messages.
            before: sequence before which messages are removed; all if None.
        """
        body: dict[str, Any] = {"filter": subject}
        if before is not None:
            body["seq"] = before
        answer = await self.call(f"STREAM.PURGE.{stream}", body)
        return int(answer.get("purged", 0))

    async def subscribe(self, subject: str, handler: Handler) -> Subscription:
        """Subscribe as `Bus.subscribe` does, with the deadline and the errors of this class."""
        with _within(self.timeout, f"cannot subscribe to {subject}"):
            return await self.bus.subscribe(subject, handler)

    async def _message(self, stream: str, body: Mapping[str, Any]) -> Stored | None:
        endpoint = f"STREAM.MSG.GET.{stream}"
        try:
            answer = await self.call(endpoint, body)
            if _size_of_message(answer) <= _READ_HERE:
                return read_message(endpoint, answer)
            return await ThreadExecutor().run("answers", partial(read_message, endpoint, answer))
        except JetStreamError as error:
            if error.err_code == _NO_MESSAGE:
                return None
            raise

    async def _ask(
        self,
        subject: str,
        data: bytes,
        headers: Mapping[str, str] | None,
        seconds: float,
        *,
        again: bool = False,
        then: Handler | None = None,
    ) -> Message:
        """Ask, and return the answer, whatever it says; sent ``again`` where the connection was lost."""
        deadline = trio.current_time() + seconds
        try:
            while True:
                generation = self.bus.generation
                # One scope for both reasons to wait no longer: the time, and a new connection.
                with trio.CancelScope(deadline=deadline) as scope:
                    self._in_flight.add(scope)
                    try:
                        return await self.bus.request(subject, data, headers=headers, then=then)
                    finally:
                        self._in_flight.discard(scope)
                if self.bus.generation == generation or trio.current_time() >= deadline:
                    raise Unanswered(f"{subject} was not answered within {seconds:g} s")
                if not again:
                    raise JetStreamUnavailable(f"{subject} was not answered: the connection was lost")
        except NoResponders:
            raise StreamUnheard(
                f"nobody answers {subject}: no stream has it, or JetStream is off or not ready yet"
            ) from None
        except BusFull as error:
            raise JetStreamUnavailable(f"{subject} was not sent: {error}") from error
        except NotPermitted as error:
            # Permissions may be granted while the process runs.
            raise JetStreamUnavailable(str(error)) from error


@contextmanager
def _within(seconds: float, problem: str) -> Iterator[None]:
    try:
        with trio.fail_after(seconds):
            yield
    except trio.TooSlowError:
        raise Unanswered(f"{problem} within {seconds:g} s") from None


def _size_of_message(answer: Mapping[str, Any]) -> int:
    message = answer.get("message")
    data = message.get("data") if isinstance(message, dict) else None
    return len(data) if isinstance(data, str) else 0
