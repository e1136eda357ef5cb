"""A window of messages that are published one after another, and acknowledged a little later."""

from collections import deque
from contextlib import suppress

import trio

from scheduler.bus import Message, Outgoing
from scheduler.errors import (
    BusError,
    JetStreamUnavailable,
    StreamUnheard,
)
from scheduler.jetstream.answers import read_ack
from scheduler.jetstream.api import JetStream


class Window:
    """Messages that are published one after another, and acknowledged a little later."""

    def __init__(self, js: JetStream, subject: str) -> None:
        self._js = js
        self._subject = subject
        self._patience = js.timeout
        self._unacknowledged: deque[Outgoing] = deque()
        self._failure: BusError | None = None
        self._changed = trio.Event()

    def sent(self, outgoing: Outgoing) -> None:
        """Note a message that was published."""
        self._unacknowledged.append(outgoing)

    def receive(self, message: Message) -> None:
        """Take an acknowledgement; they come in the order of the messages."""
        try:
            if message.no_responders:
                raise StreamUnheard("no stream takes the object's chunks")
            ack = read_ack("an object's chunk", message.data)
            self._js.on_ack(self._subject, ack)
            self._unacknowledged.popleft()
        except BusError as error:
            self.fail(error)
        self._changed.set()

    def fail(self, error: BusError) -> None:
        """Note that a message was not taken; the first reason counts."""
        self._failure = self._failure or error
        self._changed.set()

    async def room(self, size: int) -> None:
        """Wait until fewer than ``size`` messages are unacknowledged.

        Raises:
            JetStreamUnavailable: no acknowledgement came for ``patience`` seconds.
            BusError: as for `JetStream`, for any of the messages.
        """
        while len(self._unacknowledged) >= size and self._failure is None:
            self._changed = trio.Event()
            with trio.move_on_after(self._patience) as scope:
                await self._changed.wait()
            if scope.cancelled_caught:
                raise JetStreamUnavailable(
                    f"an object's chunks were not acknowledged within {self._patience:g} s"
                )
        if self._failure is not None:
            raise self._failure

    async def end(self, generation: int) -> None:
        """Keep unsent messages from ever leaving, and wait for the rest: they may be stored behind a purge.

        Messages that left over another connection than this ``generation`` were stored long ago, or are lost.
        """
        self._unacknowledged = deque(
            one for one in self._unacknowledged if not one.withdraw() and one.generation == generation
        )
        with suppress(BusError):
            await self.room(1)
