"""The bytes of one connection, as nats-py wants to have them: TCP, or TLS on top of it.

asyncio's own streams keep what comes in in one buffer, which what is read is cut out of: with nats-py's
parser behind them each byte of a large message is copied six times, and memory comes from the system for most
of that. At 200 MB/s that takes a whole processor, and a server hangs up on who reads slowly. Here what one
look at the socket brings is passed on as it is.
"""

import asyncio
import math
import ssl
import time
from collections import deque
from typing import Any, Final, Protocol, cast
from urllib.parse import ParseResult

from nats.aio.transport import Transport

_SIZES: Final = (64 * 1024, 240 * 1024, 1024 * 1024)
"""Bytes that one look at the socket brings at most, by how much there is to be read.

Between two looks everybody else has a turn: with no more than 256 KiB, as asyncio has it, the server would
find us slow while we are busy. But memory for so much comes from the system each time
(`scheduler.runtime.tuning`), which costs 35 us; to pass 4 MiB on at a time took 23 ms.
"""
_CALM: Final = 8
"""Looks in a row that would have brought as much with the next smaller size, after which that is taken."""
_LATELY: Final = 0.02
"""Seconds after a look that brought as much as it could in which more is to be expected."""
_READ_AHEAD: Final = 2 * 1024 * 1024
"""Bytes that wait to be taken from here; with more of them nothing is read. A pause costs a task."""
_LONGEST_LINE: Final = 1024 * 1024
"""Bytes; a server's greeting is a kilobyte, and more in a large cluster."""


class Parser(Protocol):
    """What knows the messages in the bytes."""

    @property
    def clean(self) -> bool:
        """Whether nothing of what somebody has taken here is left to be parsed."""

    def feed(self, data: bytes, at: int) -> tuple[bytes, int, bool]:
        """Have messages handled, from there on.

        Returns:
            The bytes, with those that were kept before them; up to where they were handled; and whether
            somebody is to take the rest.
        """


class _Protocol(asyncio.Protocol):
    """What asyncio calls."""

    def __init__(self) -> None:
        self.chunks: deque[bytes] = deque()
        self.size = 0
        """Bytes in these."""
        self.received = 0
        """Bytes that came in, all in all."""
        self.at_end = False
        """Whether nothing comes any more."""
        self.error: Exception | None = None
        """Why, where it was not the server's wish."""
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport | None = None
        """The one that is read from and written to."""
        self.socket: Any = None
        """The one beneath TLS."""
        self._level = 0
        self._calm = 0
        self._filled_at = -math.inf
        """When a look last brought as much as the largest may, by the machine's monotonic clock."""
        self._paused = False
        self._reader: asyncio.Future[None] | None = None
        """Done when there is something to be taken; there while somebody waits for that."""
        self._at = 0
        """Up to where the first of the chunks was passed on."""
        self._later = False
        """Whether others have their turn, and what is here is passed on after that."""
        self.parser: Parser | None = None
        """What comes is passed on to, where it is not left to who takes it."""
        self._full: asyncio.Future[None] | None = None
        """Done when there is room again for what is to be written; None while there is some."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = self.socket = cast("asyncio.Transport", transport)
        self.socket.max_size = _SIZES[0]

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        self._adapt(len(data))
        if self._later:
            self._keep(data)
        elif self.parser is not None and self._reader is not None and not self.chunks and self.parser.clean:
            self._pass_on(self.parser, data, 0)
        else:
            self._keep(data)
            self._wake()

    def _keep(self, data: bytes) -> None:
        self.chunks.append(data)
        self.size += len(data)
        if self.size > _READ_AHEAD and not self._paused:
            self._paused = True
            assert self.transport is not None
            self.transport.pause_reading()

    def _pass_on(self, parser: Parser, data: bytes, at: int) -> None:
        try:
            data, at, unusual = parser.feed(data, at)
        except Exception as error:  # noqa: BLE001 - whoever reads raises it
            self.chunks.clear()
            self.size = 0
            self.end(error)
            return
        if unusual:
            self.put_back(data[at:])
            self._wake()
        elif at < len(data):
            self.put_back(data)
            self._at = at
            self._later = True
            asyncio.get_running_loop().call_soon(self._go_on)

    def _go_on(self) -> None:
        self._later = False
        while self.chunks and not self._later and self.parser is not None:
            if self._reader is None:
                return
            at, self._at = self._at, 0
            self._pass_on(self.parser, self._taken(), at)

    def _adapt(self, size: int) -> None:
        """Have the next look bring as much as seems to be there, after one that brought ``size`` bytes."""
        level = self._level
        if size >= _SIZES[level]:
            self._calm = 0
            if level + 1 < len(_SIZES):
                self._level += 1
            else:
                self._filled_at = time.monotonic()
        elif level and size < _SIZES[level - 1]:
            self._calm += 1
            if self._calm == _CALM:
                self._calm = 0
                self._level -= 1
        else:
            self._calm = 0
        if self._level != level:
            self.socket.max_size = _SIZES[self._level]

    @property
    def behind(self) -> bool:
        """As of `ByteStream`."""
        return time.monotonic() - self._filled_at < _LATELY

    def eof_received(self) -> None:
        self.at_end = True
        self._wake()

    def end(self, error: Exception | None) -> None:
        """Nothing comes any more, and whoever reads is to know why."""
        self.error = error
        self.at_end = True
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self.end(exc)
        if not self.closed.done():
            self.closed.set_result(None)
        self.resume_writing()

    def pause_writing(self) -> None:
        self._full = self._full or asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        full, self._full = self._full, None
        if full is not None and not full.done():
            full.set_result(None)

    async def take(self) -> bytes:
        """What came in first; empty at the end."""
        while not self.chunks and not self.at_end:
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        if not self.chunks:
            if self.error is None:
                return b""
            error, self.error = self.error, None
            try:
                raise error
            finally:
                # It refers to this frame.
                del error
        return self._taken()

    def _taken(self) -> bytes:
        data = self.chunks.popleft()
        self.size -= len(data)
        if self._at:
            data, self._at = data[self._at :], 0
        if self._paused and self.size <= _READ_AHEAD // 2:
            self._paused = False
            if not self.at_end:
                assert self.transport is not None
                self.transport.resume_reading()
        return data

    def put_back(self, data: bytes) -> None:
        """Have this come in first."""
        if data:
            self.chunks.appendleft(data)
            self.size += len(data)

    async def room(self) -> None:
        """Wait until there is room for what is to be written."""
        while self._full is not None:
            await asyncio.shield(self._full)
        if self.closed.done():
            raise ConnectionResetError("the connection is closed") from self.error

    def _wake(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None and not reader.done():
            reader.set_result(None)


class ByteStream(Transport):
    """One connection, from `connect` to `abort`; the methods are nats-py's, and it calls them."""

    def __init__(self) -> None:
        self._protocol: _Protocol | None = None

    def __bool__(self) -> bool:
        # Otherwise the client replaces one that is not connected yet by its own.
        return True

    async def connect(self, uri: ParseResult, buffer_size: int, connect_timeout: int) -> None:  # noqa: ARG002 - theirs
        """Connect to a server, within ``connect_timeout`` seconds.

        Raises:
            OSError, TimeoutError: it cannot be reached.
        """
        assert uri.hostname is not None
        assert uri.port is not None
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(connect_timeout):
            _, self._protocol = await loop.create_connection(_Protocol, uri.hostname, uri.port)

    async def connect_tls(
        self,
        uri: ParseResult | str,
        ssl_context: ssl.SSLContext,
        buffer_size: int,  # noqa: ARG002 - theirs
        connect_timeout: int,
    ) -> None:
        """Go on in TLS.

        Raises:
            OSError, TimeoutError: the handshake failed; an ``ssl.SSLError`` is an OSError.
        """
        protocol = self._connected()
        hostname = uri if isinstance(uri, str) else uri.hostname
        assert protocol.transport is not None
        async with asyncio.timeout(connect_timeout):
            secure = await asyncio.get_running_loop().start_tls(
                protocol.transport, protocol, ssl_context, server_hostname=hostname
            )
        if secure is None:
            raise ConnectionResetError("the connection was closed in the handshake")
        protocol.transport = secure

    def pass_on(self, parser: Parser) -> None:
        """Have a parser handle what comes from now on; what it makes nothing of is read as before."""
        self._connected().parser = parser

    def write(self, payload: bytes) -> None:
        """Have bytes written, as soon as the socket takes them."""
        transport = self._connected().transport
        assert transport is not None
        transport.write(payload)

    def writelines(self, payload: list[bytes]) -> None:
        """The same of several."""
        self.write(b"".join(payload))

    async def read(self, buffer_size: int) -> bytes:  # noqa: ARG002 - theirs
        """What came in, as much as one look at the socket brought; empty at the end.

        Raises:
            OSError: the connection was lost.
        """
        return await self._connected().take()

    async def readline(self) -> bytes:
        """A line of the handshake, with its end; or what there is of it at the end of all.

        Raises:
            OSError: the connection was lost, or the line is too long.
        """
        protocol, line = self._connected(), b""
        while True:
            data = await protocol.take()
            end = data.find(b"\n") + 1
            line += data[:end] if end else data
            if end or not data:
                protocol.put_back(data[end:] if end else b"")
                return line
            if len(line) > _LONGEST_LINE:
                raise OSError(f"a line of more than {_LONGEST_LINE} bytes came from the server")

    async def drain(self) -> None:
        """Wait until there is room for more.

        Raises:
            ConnectionResetError: the connection was closed.
        """
        await self._connected().room()

    async def wait_closed(self) -> None:
        """Wait until it is closed."""
        if self._protocol is not None:
            await asyncio.shield(self._protocol.closed)

    def close(self) -> None:
        """Close it once all is written."""
        if self._protocol is not None and self._protocol.transport is not None:
            self._protocol.transport.close()

    def abort(self) -> None:
        """Close it at once, whatever is still to be written; TLS and what is beneath it. Idempotent."""
        if self._protocol is not None:
            self._protocol.parser = None
            for transport in {self._protocol.transport, self._protocol.socket} - {None}:
                transport.abort()

    def at_eof(self) -> bool:
        """Whether the server has closed it, and all that came was read."""
        protocol = self._protocol
        return protocol is None or (protocol.at_end and not protocol.chunks and protocol.error is None)

    @property
    def behind(self) -> bool:
        """Whether one look at the socket after the other brings as much as it can, or has lately."""
        return self._protocol is not None and self._protocol.behind

    @property
    def received(self) -> int:
        """Bytes that have come in so far."""
        return 0 if self._protocol is None else self._protocol.received

    def _connected(self) -> _Protocol:
        if self._protocol is None:
            raise ConnectionError("not connected yet")
        return self._protocol
