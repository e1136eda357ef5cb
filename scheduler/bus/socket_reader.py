"""Reads a socket in a task of Trio's.

asyncio's loop over Trio takes five steps of tasks and three turns of Trio's loop for each look at a socket:
where few messages come at a time, that is as much as all else they cost. Here it is one step and one turn.
"""

import socket
from typing import Protocol

import trio


class Receiver(Protocol):
    """Receiver of the bytes; the methods are those of an ``asyncio.Protocol``."""

    @property
    def most(self) -> int:
        """Most bytes of the next look at the socket."""

    def data_received(self, data: bytes) -> None:
        """Take bytes."""

    def eof_received(self) -> None:
        """Note that no more come, as the other side wishes."""

    def end(self, error: Exception | None) -> None:
        """Note that no more come, with the reason."""


class SocketReader:
    """Reads a socket, until no more comes or `run` is cancelled.

    Args:
        own: the socket; it blocks nobody, and is closed in the end.
        receiver: receiver of the bytes.
    """

    def __init__(self, own: socket.socket, receiver: Receiver) -> None:
        self._socket = own
        self._receiver = receiver
        self._resumed: trio.Event | None = None
        """Set when reading may continue; None while it is not paused."""

    def pause_reading(self) -> None:
        """Read nothing more for now; to be called by the receiver."""
        self._resumed = self._resumed or trio.Event()

    def resume_reading(self) -> None:
        """Continue. Idempotent."""
        resumed, self._resumed = self._resumed, None
        if resumed is not None:
            resumed.set()

    async def run(self) -> None:
        """Read; other tasks have a turn between two looks."""
        receiver = self._receiver
        with self._socket as own:
            while True:
                if self._resumed is not None:
                    await self._resumed.wait()
                await trio.lowlevel.wait_readable(own)
                try:
                    data = own.recv(receiver.most)
                except (BlockingIOError, InterruptedError):
                    continue
                except OSError as error:
                    # Its traceback refers to the receiver, which keeps it.
                    receiver.end(error.with_traceback(None))
                    return
                if not data:
                    receiver.eof_received()
                    return
                receiver.data_received(data)
                # Otherwise up to a megabyte stays until something comes again.
                del data
