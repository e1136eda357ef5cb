"""Streams that are read to their end, or followed for as long as the process lives."""

import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any, Final, NoReturn

import trio

from scheduler.bus.subjects import matches
from scheduler.errors import JetStreamError, JetStreamUnavailable, StreamNotFound
from scheduler.jetstream.answers import Stored, format_time
from scheduler.jetstream.api import JetStream
from scheduler.jetstream.consumers import BATCH, Consumer, Delivered
from scheduler.journal.records import Position
from scheduler.runtime.log_limits import RateLimitedLog
from scheduler.runtime.logger import Logger

__all__ = ["Delivered", "StreamFollower", "read"]

_EVERYTHING: Final = ">"
_PAUSE = 0.25
# Attempts in a row without any result after which reading fails.
_ATTEMPTS = 3
# Seconds for which a follower's request stands, and without a sign of life after which its consumer is dead.
_EXPIRES = 30
_SILENCE = 5.0
# Nanoseconds by which two servers' clocks, or one that was set, may differ where a stream lost its end.
_MARGIN = 1_000_000_000
# Seconds for which a connection is avoided over which a stream could not be followed.
_AVOIDED = 600.0
_SELECTS = "it follows other subjects"
_MOVES = "it continues over a connection of its own"
# Lines of a kind in a row: a connection may be cut off several times a second.
_LINES = 10
# Seconds after which `StreamFollower.caught_up` asks again which message is the last.
_ASK_AGAIN = 1.0

log = Logger()


async def read(
    js: JetStream,
    stream: str,
    *,
    subjects: Sequence[str] = (),
    start: int = 1,
    last_per_subject: bool = False,
    headers_only: bool = False,
) -> AsyncGenerator[list[Delivered], None]:
    """Yield the matching messages of a stream as of the call, and maybe later ones, in order, in batches.

    The result is complete, or this raises: after a lost message or connection it continues behind the last
    message delivered. At most `scheduler.jetstream.consumers.BATCH_BYTES` are in flight, or twice the payload
    limit where that is more. A caller that does not read to the end has to close it (``aclosing``).

    Args:
        js: JetStream with the stream.
        stream: the name of the stream.
        subjects: subjects of interest, which may have wildcards but must not overlap; all if empty.
        start: the first sequence of interest.
        last_per_subject: whether only the last message of each subject is of interest; one that is followed
            by another meanwhile may come as well, before it.
        headers_only: whether payloads are left out; their size is in the header ``Nats-Msg-Size``.

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
        consumer = Consumer(js, stream, taken.append)
        try:
            # Asked of the leader: the consumer may be held by a replica that is behind.
            stored = await _last(js, stream, wanted)
            now = 0 if stored is None else stored.sequence
            last = now if last is None else min(last, now)
            if position >= last:
                return
            config: dict[str, Any] = {"filter_subjects": wanted, "headers_only": headers_only}
            if last_per_subject:
                config["deliver_policy"] = "last_per_subject"
            else:
                config |= _after(Position(position))
            await consumer.open(config)
            while position < last and not consumer.lost:
                consumer.pull()
                await consumer.settle(js.timeout)
                if not taken:
                    consumer.lose(f"it ends before message {last}")
                # After a new start, the last messages of all subjects come again.
                batch = [one for one in taken if one.sequence > position]
                taken.clear()
                if batch:
                    position = batch[-1].sequence
                    failures = 0
                    yield batch
            if position >= last:
                return
            reason = consumer.lost
        except JetStreamUnavailable as error:
            reason = str(error)
        finally:
            await consumer.close()  # noqa: ASYNC102 - it shields itself, with a deadline
        failures += 1
        if failures >= _ATTEMPTS:
            raise JetStreamUnavailable(f"stream {stream} cannot be read after {position}: {reason}")
        log.info("a stream is read on by a new consumer", stream=stream, after=position, reason=reason)
        await trio.sleep(_PAUSE)


async def _last(js: JetStream, stream: str, subjects: Sequence[str]) -> Stored | None:
    found = [await js.last(stream, subject) for subject in subjects]
    return max((one for one in found if one is not None), key=lambda one: one.sequence, default=None)


class StreamFollower:
    """Follows a stream, or some of its subjects, from a known position, for as long as it runs."""

    def __init__(
        self,
        js: JetStream,
        stream: str,
        handler: Callable[[Delivered], None],
        restore: Callable[[], Awaitable[None]] | None = None,
        *,
        beside: JetStream | None = None,
        subjects: Sequence[str] = (),
    ) -> None:
        """Prepare to follow a stream.

        Args:
            js: JetStream with the stream.
            stream: the name of the stream.
            handler: function that is called with every message in the stream's order, in the bus's callback:
                synchronous, must not raise.
            restore: function that is awaited if the stream is gone, and returns once it is there again.
            beside: the same over a connection of its own, if there is one: its messages do not go ahead of
                the first one's.
            subjects: subjects of interest, which may have wildcards but must not overlap; all if empty.
        """
        self._js = js
        self._beside = beside
        self._avoided_until = -math.inf
        """Time until which it is avoided (Trio's clock): it was there, but no stream could be followed over
        it."""
        self._stream = stream
        self._handler = handler
        self._restore = restore
        self._sequence = 0
        self._time = 0
        self.subjects = subjects
        """Subjects of interest; while it runs, `select` changes them."""
        self._opened: Sequence[str] | None = None
        """Subjects of the last consumer that the server has made."""
        self._consumer: Consumer | None = None
        self._moved = trio.lowlevel.ParkingLot()
        self._connected = trio.Event()
        self._log = RateLimitedLog(log, burst=_LINES)
        js.bus.on_connected(lambda: self._on_connected(first=True))
        if beside is not None:
            beside.bus.on_connected(lambda: self._on_connected(first=False))

    @property
    def seen(self) -> Position:
        """Position of the last message handed over; before the first, the start.

        A start with sequence 0 means whatever was stored at that time or later.
        """
        return Position(self._sequence, self._time)

    async def run(
        self, start: Position, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> NoReturn:
        """Hand over every message after ``start``, once, without end; started once the server has a consumer.

        While the connection or the stream is away, this waits. A stream that was not replicated may lose its
        end with its server, and give the same numbers out again. So each time that it begins, this checks
        that the message at its position still has the position's time, or that all messages up to there have
        been removed by age; otherwise it continues by time, from a second earlier. Only then may messages
        come that were handed over before.

        Raises:
            BusError: the bus was closed, or refuses an inbox.
        """
        self._sequence, self._time = start.sequence, start.time
        failures = short = 0
        while True:
            gone = False
            over, subjects = self._over(), self.subjects
            generation = over.bus.generation
            began = trio.current_time()
            consumer = Consumer(over, self._stream, self._take, low=BATCH // 2)
            try:
                await consumer.open(_after(self.seen) | ({"filter_subjects": subjects} if subjects else {}))
                # The server of the consumer has held the stream all the while: had it been killed since, the
                # consumer would be gone. So what is found now was true from the consumer's beginning.
                if self._sequence and not await self._is_there(self.seen):
                    self._go_by_time()
                    continue
                if failures:
                    self._log.info("a stream is followed again", stream=self._stream, after=self._sequence)
                failures = 0
                self._consumer, self._opened = consumer, subjects
                self._moved.unpark_all()
                task_status.started()
                task_status = trio.TASK_STATUS_IGNORED
                while not consumer.lost and subjects == self.subjects:
                    if over is not self._over():
                        # The other connection has come up meanwhile, or is worth another try.
                        consumer.lose(_MOVES)
                        break
                    consumer.pull(expires=_EXPIRES)
                    await consumer.settle(_SILENCE)
                problem, tell = consumer.lost or _SELECTS, self._log.warning
            except JetStreamUnavailable as error:
                problem, tell = str(error), self._log.warning
            except JetStreamError as error:
                problem, tell = str(error), self._log.error
                gone = isinstance(error, StreamNotFound)
            finally:
                self._consumer = None
                await consumer.close()  # noqa: ASYNC102 - it shields itself, with a deadline
            if problem == _SELECTS:
                continue
            there = over.bus.connected and over.bus.generation == generation
            if over is self._beside and there and not gone:
                # It may lead to a server without JetStream, or without a leader to ask.
                self._avoided_until = trio.current_time() + _AVOIDED
            # A broker may take the consumer, and refuse each request to it.
            short = short + 1 if trio.current_time() - began < _PAUSE else 0
            if not failures:
                tell("a stream is not followed for the moment", stream=self._stream, reason=problem)
            if failures or short > 1:
                await trio.sleep(_PAUSE)
            failures += 1
            await self._connection()
            if gone and self._restore is not None:
                await self._restore()

    async def select(self, subjects: Sequence[str]) -> None:
        """Follow these subjects instead, from `seen` on; returns once the server has a consumer for them.

        What was stored before under a new subject is not handed over. The caller owns the deadline.
        """
        self.subjects = subjects
        while self._opened != subjects:
            if self._consumer is not None:
                self._consumer.lose(_SELECTS)
            await self._moved.park()

    async def caught_up(self) -> None:
        """Wait until everything of interest that was in the stream at the call has been handed over.

        The caller owns the deadline.
        """
        while True:
            try:
                last = await self._last()
            except (JetStreamUnavailable, JetStreamError):
                await trio.sleep(_PAUSE)
                await self._connection()
                continue
            with trio.move_on_after(_ASK_AGAIN):
                while not self._has(Position() if last is None else Position(last.sequence, last.time)):
                    await self._moved.park()
                return

    async def _last(self) -> Stored | None:
        """Return the last message of interest."""
        last = await self._js.last(self._stream, _EVERYTHING)
        if last is None or not self.subjects or any(matches(one, last.subject) for one in self.subjects):
            return last
        return await _last(self._js, self._stream, self.subjects)

    def _has(self, goal: Position) -> bool:
        if not self._sequence:
            return not goal.sequence or goal.time < self._time
        # The time as well: if a stream has just lost its end, the number says nothing.
        return self._sequence >= goal.sequence and self._time >= goal.time

    async def _connection(self) -> None:
        """Wait until there is a connection."""
        while not self._over().bus.connected:
            await self._connected.wait()

    def _over(self) -> JetStream:
        """Connection to read over: the first one if there is no other."""
        beside = self._beside
        if beside is None or not beside.bus.connected or trio.current_time() < self._avoided_until:
            return self._js
        return beside

    def _on_connected(self, *, first: bool) -> None:
        self._connected.set()
        self._connected = trio.Event()
        if not first:
            self._avoided_until = -math.inf
        if self._consumer is None:
            return
        if not self._consumer.is_over(self._js):
            if not first:
                self._consumer.lose("the connection was lost")
        elif first:
            self._consumer.lose("the connection was lost")
        else:
            self._consumer.lose(_MOVES)

    async def _is_there(self, position: Position) -> bool:
        """Whether the stream still has this message, or had it and removed it by age."""
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
        # Between the subjects of interest there are others.
        if message.sequence != expected > 1 and not self.subjects:
            log.warning(
                "messages had left the stream before they were read",
                stream=self._stream,
                messages=message.sequence - expected,
            )
        self._sequence, self._time = message.sequence, message.time
        self._handler(message)
        if self._moved:
            self._moved.unpark_all()


def _after(position: Position) -> dict[str, Any]:
    """Return a consumer's configuration that delivers everything after a position."""
    if position.sequence:
        return {"deliver_policy": "by_start_sequence", "opt_start_seq": position.sequence + 1}
    if position.time:
        return {"deliver_policy": "by_start_time", "opt_start_time": format_time(position.time)}
    return {"deliver_policy": "all"}
