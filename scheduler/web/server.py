"""Serves HTTP on one port, within bounds, in a nursery of ours.

Hypercorn reads and writes one connection; connections are accepted and ended here, for two reasons. It writes
under a shield, so that a stop would wait for a client that does not read: here each write has a deadline, and
a stop closes the sockets. And it accepts any number of connections.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import structlog
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from starlette.types import ASGIApp

from scheduler.config.addresses import Address
from scheduler.errors import PortUnusable
from scheduler.runtime.background import open_background
from scheduler.runtime.log_limits import RateLimitedLog
from scheduler.setting import flag_of

_log = structlog.get_logger()

MOST_CONNECTIONS: Final = 64
"""Connections at a time; a further one is closed at once."""
WRITING: Final = 10.0
"""Seconds for a write, before the connection is given up."""
_IDLE: Final = 15.0
"""Seconds without a complete request, at the beginning and between two, before a connection is closed."""
_AFTER_END: Final = 1.0
"""Seconds for the last answer, after a client has said that nothing more comes from it."""
_REQUESTS: Final = 1_000
"""Requests on one connection."""
_MOST_HEAD: Final = 16 * 1024
"""Bytes of an incomplete first line and headers; of what is complete, a read has 64 KiB."""
_STREAMS: Final = 8
"""Requests at a time on one connection that speaks HTTP/2: each of them is refused."""


class _Stream:
    """Stream of one connection, whose writes end.

    Args:
        stream: the stream itself.
    """

    def __init__(self, stream: trio.SocketStream) -> None:
        self.socket = stream.socket
        self.scope = trio.CancelScope()
        """Scope of all work for this connection."""
        self._stream = stream

    async def send_all(self, data: bytes) -> None:
        """Send data.

        Raises:
            trio.BrokenResourceError: the other end does not read, or is gone; the stream is closed then.
            trio.ClosedResourceError: it was closed.
        """
        try:
            with trio.fail_after(WRITING):
                await self._stream.send_all(data)
        except trio.TooSlowError:
            self.close()
            raise trio.BrokenResourceError from None

    async def receive_some(self, most: int) -> bytes:
        """Receive what there is, up to so many bytes; empty at the end."""
        data = await self._stream.receive_some(most)
        if not data:
            # Otherwise it would count until it has been idle for long; an answer may be on its way yet.
            self.scope.deadline = trio.current_time() + _AFTER_END
        return bytes(data)

    async def send_eof(self) -> None:
        """Say that nothing more is sent."""
        await self._stream.send_eof()

    async def aclose(self) -> None:
        """Close it."""
        await self._stream.aclose()

    def close(self) -> None:
        """Close it at once; whoever waits for it is told. Idempotent."""
        self.socket.close()


class Server:
    """Server of an application.

    Args:
        app: application to serve.
        setting: name of the setting that has the address, for messages.
        most: connections at a time.
    """

    def __init__(self, app: ASGIApp, setting: str = "metrics", most: int | None = None) -> None:
        self._setting = setting
        self._most = most
        self._app = ASGIWrapper(app)  # type: ignore[arg-type]
        self._config = Config()
        # What it would log are mistakes of clients.
        self._config.errorlog = self._config.accesslog = None
        self._config.include_server_header = False
        self._config.keep_alive_timeout = _IDLE
        self._config.keep_alive_max_requests = _REQUESTS
        self._config.h11_max_incomplete_size = _MOST_HEAD
        self._config.h2_max_concurrent_streams = _STREAMS
        self._context = WorkerContext(None)
        self._open: set[_Stream] = set()
        self._limited_log = RateLimitedLog(_log)

    @property
    def connections(self) -> int:
        """Number of connections that are open."""
        return len(self._open)

    @asynccontextmanager
    async def open(self, address: Address) -> AsyncIterator[Address]:
        """Serve until the context is left, which no client delays; yields the address with its port.

        Raises:
            PortUnusable: the address cannot be used.
        """
        try:
            listeners = await trio.open_tcp_listeners(address.port, host=address.host)
        except OSError as error:
            msg = f"{flag_of(self._setting)}: {address} cannot be used: {error.strerror or error}"
            raise PortUnusable(msg) from None
        port: int = listeners[0].socket.getsockname()[1]
        async with open_background() as background:
            serve = partial(trio.serve_listeners, self._serve, listeners, handler_nursery=background)
            background.start_soon(serve)
            try:
                yield Address(address.host, port)
            finally:
                for stream in self._open:
                    stream.close()

    async def _serve(self, stream: trio.SocketStream) -> None:
        if len(self._open) >= (self._most or MOST_CONNECTIONS):
            await trio.aclose_forcefully(stream)
            return
        guarded = _Stream(stream)
        self._open.add(guarded)
        try:
            state = ConnectionState({})
            with guarded.scope:
                await TCPServer(self._app, self._config, self._context, state, guarded)  # type: ignore[arg-type]
        except* Exception:  # noqa: BLE001 - a fault that one connection triggers must cost nothing else
            self._limited_log.exception("internal error: a connection was ended")
        finally:
            self._open.discard(guarded)
            guarded.close()
