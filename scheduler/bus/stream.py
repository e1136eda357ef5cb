"""The bytes of one connection, in the form that nats-py wants: TCP, or TLS on top of it.

asyncio's own streams keep incoming data in one buffer, and cut pieces out of it: with nats-py's parser behind
them each byte of a large message is copied six times, mostly into memory that comes from the system. At 200
MB/s that takes a whole processor, and a server disconnects a slow reader. Here the data of one look at the
socket is passed on as it is.

One file on purpose: the protocol that asyncio calls and the transport that nats-py calls are two sides of the
same bytes.
"""

import asyncio
import math
import ssl
import time
from collections import deque
from typing import Any, Final, Protocol, cast
from urllib.parse import ParseResult

from nats.aio.transport import Transport

from scheduler.bus.socket_reader import SocketReader

_SIZES: Final = (64 * 1024, 240 * 1024, 1024 * 1024)
"""Most bytes of one look at the socket, by how much there is to be read.

Between two looks all other tasks have a turn: with no more than 256 KiB, as in asyncio, the server would find
this reader slow while the process is busy. But memory for so much comes from the system each time
(`scheduler.runtime.tuning`), which costs 35 us; passing 4 MiB on at a time took 23 ms.
"""
_CALM: Final = 8
"""Looks in a row that would have brought as much with the next smaller size, after which that is used."""
_LATELY: Final = 0.02
"""Seconds after a full look in which more data is to be expected."""
_READ_AHEAD: Final = 2 * 1024 * 1024
"""Bytes waiting here above which nothing is read. A pause costs a task."""
_LONGEST_LINE: Final = 1024 * 1024
"""Most bytes of a line; a server's greeting is a kilobyte, and more in a large cluster."""


class Parser(Protocol):
    """A parser of the messages in the bytes."""

    @property
    def clean(self) -> bool:
        """Whether nothing is left to be parsed of the bytes that were taken by `ByteStream.read`."""

    def feed(self, data: bytes, at: int) -> tuple[bytes, int, bool]:
        """Handle the messages in ``data`` from ``at`` on.

        Returns:
            The bytes, with those that were kept before them; the place up to which they were handled; and
            whether the rest is to be taken by `ByteStream.read`.
        """


class _Protocol(asyncio.Protocol):
    """The side that asyncio calls."""

    def __init__(self) -> None:
        self.chunks: deque[bytes] = deque()
        self.size = 0
        """Bytes in the chunks."""
        self.received = 0
        """Bytes that came in so far."""
        self.at_end = False
        """Whether no more data comes."""
        self.error: Exception | None = None
        """Reason for that, unless the server wished it."""
        self._loop = asyncio.get_running_loop()
        self.closed: asyncio.Future[None] = self._loop.create_future()
        self.transport: asyncio.Transport | None = None
        """Transport that is written to, and read from at first."""
        self.reader: SocketReader | None = None
        """Reader of the socket in place of the transport."""
        self.socket: Any = None
        """Socket, beneath TLS if there is any."""
        self._level = 0
        self._calm = 0
        self._filled_at = -math.inf
        """Time of the last look that brought as much as the largest may, by the machine's monotonic clock."""
        self._paused = False
        self._reader: asyncio.Future[None] | None = None
        """Done when there are bytes to take; exists while a task waits for that."""
        self._at = 0
        """Place in the first chunk up to which it was passed on."""
        self._later = False
        """Whether other tasks have their turn first, and waiting bytes are passed on after that."""
        self.parser: Parser | None = None
        """Parser of all incoming bytes, unless they are left to `take`."""
        self._full: asyncio.Future[None] | None = None
        """Done when there is room again for bytes to be written; None while there is some."""

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
            self._source.pause_reading()

    @property
    def _source(self) -> asyncio.Transport | SocketReader:
        """Source of the bytes."""
        assert self.transport is not None
        return self.reader or self.transport

    @property
    def most(self) -> int:
        """Most bytes of the next look at the socket."""
        return _SIZES[self._level]

    def read_by(self, reader: SocketReader) -> None:
        """Let a reader read the socket from now on, and not the transport."""
        assert self.transport is not None
        self.transport.pause_reading()
        if self._paused:
            reader.pause_reading()
        self.reader = reader

    def _pass_on(self, parser: Parser, data: bytes, at: int) -> None:
        try:
            data, at, unusual = parser.feed(data, at)
        except Exception as error:  # noqa: BLE001 - raised in the reading task
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
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._later = False
        while self.chunks and not self._later and self.parser is not None:
            if self._reader is None:
                return
            at, self._at = self._at, 0
            self._pass_on(self.parser, self._taken(), at)

    def _adapt(self, size: int) -> None:
        """Adapt the size of the next look to one that brought ``size`` bytes."""
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
        """Whether more has come in than was read so far (see `ByteStream`)."""
        return time.monotonic() - self._filled_at < _LATELY

    def eof_received(self) -> None:
        self.at_end = True
        self._wake()

    def end(self, error: Exception | None) -> None:
        """Note that no more data comes, with the reason for the reading task."""
        self.error = error
        self.at_end = True
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self.end(exc)
        if not self.closed.done():
            self.closed.set_result(None)
        self.resume_writing()

    def pause_writing(self) -> None:
        self._full = self._full or self._loop.create_future()

    def resume_writing(self) -> None:
        full, self._full = self._full, None
        if full is not None and not full.done():
            full.set_result(None)

    async def take(self) -> bytes:
        """Take the bytes that came first; empty at the end."""
        while not self.chunks and not self.at_end:
            self._reader = self._loop.create_future()
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
                self._source.resume_reading()
        return data

    def put_back(self, data: bytes) -> None:
        """Put bytes back before all others."""
        if data:
            self.chunks.appendleft(data)
            self.size += len(data)

    @property
    def has_room(self) -> bool:
        """Whether bytes may be written at once."""
        return self._full is None and not self.closed.done()

    async def room(self) -> None:
        """Wait until there is room for bytes to be written."""
        while self._full is not None:
            await asyncio.shield(self._full)
        if self.closed.done():
            raise ConnectionResetError("the connection is closed") from self.error

    def _wake(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None and not reader.done():
            reader.set_result(None)


class ByteStream(Transport):
    """One connection, from `connect` to `abort`; the methods are nats-py's, which calls them."""

    def __init__(self) -> None:
        self._protocol: _Protocol | None = None

    def __bool__(self) -> bool:
        # Otherwise the client replaces a transport that is not connected yet by its own.
        return True

    async def connect(self, uri: ParseResult, buffer_size: int, connect_timeout: int) -> None:  # noqa: ARG002 - theirs
        """Connect to a server, within ``connect_timeout`` seconds.

        Raises:
            OSError, TimeoutError: the server cannot be reached.
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
        """Continue in TLS.

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
        """Let a parser handle all bytes from now on; those that it leaves are read as before."""
        self._connected().parser = parser

    async def receive(self) -> None:
        """Read the socket in this task, of Trio's, until no more comes; asyncio has read it so far.

        Returns at once where asyncio continues to read it, as TLS is asyncio's.
        """
        protocol = self._connected()
        transport = protocol.transport
        if transport is None or transport is not protocol.socket or transport.is_closing():
            return
        # A socket object of its own: the transport may close its one at any time.
        reader = SocketReader(transport.get_extra_info("socket").dup(), protocol)
        protocol.read_by(reader)
        await reader.run()

    def write(self, payload: bytes) -> None:
        """Write bytes as soon as the socket takes them."""
        transport = self._connected().transport
        assert transport is not None
        transport.write(payload)

    def writelines(self, payload: list[bytes]) -> None:
        """Write several pieces as soon as the socket takes them."""
        self.write(b"".join(payload))

    async def read(self, buffer_size: int) -> bytes:  # noqa: ARG002 - theirs
        """Return incoming bytes, as many as one look at the socket brought; empty at the end.

        Raises:
            OSError: the connection was lost.
        """
        return await self._connected().take()

    async def readline(self) -> bytes:
        """Return a line of the handshake with its end; or the rest, at the end of the data.

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

    @property
    def has_room(self) -> bool:
        """Whether `drain` has nothing to wait for, nor to say."""
        return self._connected().has_room

    async def drain(self) -> None:
        """Wait until there is room for more.

        Raises:
            ConnectionResetError: the connection was closed.
        """
        await self._connected().room()

    async def wait_closed(self) -> None:
        """Wait until the connection is closed."""
        if self._protocol is not None:
            await asyncio.shield(self._protocol.closed)

    def close(self) -> None:
        """Close the connection once everything is written."""
        if self._protocol is not None and self._protocol.transport is not None:
            self._protocol.transport.close()

    def abort(self) -> None:
        """Close the connection at once, TLS included, and drop unwritten bytes. Idempotent."""
        if self._protocol is not None:
            self._protocol.parser = None
            for transport in {self._protocol.transport, self._protocol.socket} - {None}:
                transport.abort()

    def at_eof(self) -> bool:
        """Whether the server has closed it, and everything was read."""
        protocol = self._protocol
        return protocol is None or (protocol.at_end and not protocol.chunks and protocol.error is None)

    @property
    def behind(self) -> bool:
        """Whether look after look at the socket brings as much as it can, or has done so lately."""
        return self._protocol is not None and self._protocol.behind

    @property
    def buffered(self) -> bool:
        """Whether bytes that were written were not taken by the socket yet."""
        transport = None if self._protocol is None else self._protocol.transport
        return transport is not None and transport.get_write_buffer_size() > 0

    @property
    def received(self) -> int:
        """Bytes that have come in so far."""
        return 0 if self._protocol is None else self._protocol.received

    def _connected(self) -> _Protocol:
        if self._protocol is None:
            raise ConnectionError("not connected yet")
        return self._protocol
