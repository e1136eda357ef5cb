"""One connection of nats-py: used for what it does well, and guarded from what it does not.

nats-py does the handshake, authentication, TLS, keep-alive and parsing. It is kept from

- buffering messages to be published: its ``flush`` overtakes its own buffer, and a close writes that buffer
  to a dead socket. Lines go straight to the transport, so that "given to nats-py" means "written".
- reconnecting and closing: an unexpected ``-ERR`` closes it for good, a close waits for a stalled peer
  without limit, and a reconnect that fails in an unforeseen way leaves it reconnecting for ever. Whatever
  happens, the connection is *lost*, once, with a reason; it is then aborted, and the bus opens another.
- queueing incoming messages: its subscription queues drop messages when they are full, and cancelling a
  receive loses some. A handler is called as soon as a message is parsed, so a slow one slows the reading, and
  nothing else.

Only this package knows asyncio and nats, and in it only this module, `stream`, `parsing` and `nats`. The
methods overridden here are private to nats-py 2.16; ``tests/bus/test_nats_canaries.py`` tells when that
changes. One file on purpose: the overridden methods of one class have to be read together.
"""

import asyncio
import re
from collections.abc import Callable, Coroutine, Iterable, Mapping
from functools import partial
from typing import Any

import trio
import trio_asyncio  # type: ignore[import-untyped]
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.protocol.parser import ERR_RE

from scheduler.bus import Handler, Message
from scheduler.bus.options import BusOptions
from scheduler.bus.outbox import Barrier, Outbox
from scheduler.bus.parsing import FastParser, parse_headers
from scheduler.bus.stream import ByteStream
from scheduler.errors import BusError, UnsupportedServer
from scheduler.runtime.log_limits import RateLimitedLog
from scheduler.runtime.logger import Logger

CONNECT_TIMEOUT = 2
PING_INTERVAL = 5
MAX_OUTSTANDING_PINGS = 2
_OPEN_TIMEOUT = 10.0
_ABORT_TIMEOUT = 0.25
_OLDEST = (2, 2)
_PING = b"PING\r\n"
_PONG = b"PONG\r\n"
# A batch of lines for one write: large enough to be cheap, small enough to keep messages withdrawable.
_BATCH_BYTES = 64 * 1024
TURN = 512
"""Handlers called in a row before other tasks get a turn; fewer if the messages are large."""
_SHIFT = 12
"""Power of two of the bytes for which a message counts once more: every 4 KiB. So 2 MiB are read in a
turn."""

_REFUSED = re.compile(r'permissions violation for (\w+)[^"]*"([^"]*)"', re.IGNORECASE)

log = Logger()


class Connection(Client):
    """One connection from CONNECT to its loss. To be used once; once it is open, from Trio."""

    def __init__(
        self,
        handlers: Mapping[int, Handler],
        on_lost: Callable[[], None],
        on_refused: Callable[[str, str, str], None],
        turn: int = TURN,
    ) -> None:
        """Prepare a connection.

        Args:
            handlers: handlers of incoming messages by subscription id; looked up at every message.
            on_lost: function that is called once when the connection cannot be used any more; ``loss`` says
                why.
            on_refused: function that is called with ``publish`` or ``subscription``, the subject, and the
                server's words.
            turn: number of handlers that are called in a row before other tasks get a turn.
        """
        super().__init__()
        self.loss: str | None = None
        self.barriers: dict[asyncio.Future[Any], Barrier] = {}
        """Questions to the server that are not answered yet, oldest first."""
        self._handlers = handlers
        self._on_lost = on_lost
        self._on_refused = on_refused
        self._limited_log = RateLimitedLog(log)
        self._turn = 0
        self._longest_turn = turn
        self._tls_wanted = False
        self._ps = self._parser = FastParser(self)
        self._transport = self._stream = ByteStream()

    @property
    def version(self) -> str:
        """Version of the server."""
        return str(self._server_info.get("version", ""))

    @property
    def server_id(self) -> str:
        """The server's own id: new at each of its starts, and the same at all its addresses."""
        return str(self._server_info.get("server_id", ""))

    @property
    def cluster(self) -> str:
        """Name of the server's cluster; empty where it has none."""
        return str(self._server_info.get("cluster", ""))

    @property
    def behind(self) -> bool:
        """Whether more has come in than was read so far."""
        return self._stream.behind

    @property
    def received(self) -> int:
        """Bytes that have come in so far."""
        return self._stream.received

    @property
    def discovered(self) -> list[str]:
        """``host:port`` of each server of the cluster that this one told of."""
        return [uri.netloc for uri in self.discovered_servers]

    async def open(self, options: BusOptions, server: str, tls_hostname: str | None) -> None:
        """Connect to one server, once.

        Raises:
            UnsupportedServer: the server is too old, or offers no TLS although that is required.
            OSError, nats.errors.Error, Exception: any other failure; nothing is left behind.
        """
        self._tls_wanted = options.tls
        self._loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_OPEN_TIMEOUT):
                await self.connect(
                    servers=[server],
                    name=options.name,
                    user=options.user,
                    password=options.password,
                    token=options.token,
                    user_credentials=options.credentials,
                    nkeys_seed=None if options.nkey is None else str(options.nkey),
                    # Without settings for TLS nats-py makes a context itself if the server asks for it.
                    tls=options.ssl_context if options.tls else None,
                    tls_hostname=tls_hostname,
                    tls_handshake_first=options.tls_first,
                    inbox_prefix=options.inbox_prefix,
                    allow_reconnect=False,
                    connect_timeout=CONNECT_TIMEOUT,
                    ping_interval=PING_INTERVAL,
                    max_outstanding_pings=MAX_OUTSTANDING_PINGS,
                    flush_timeout=2,
                    error_cb=self._note,
                    disconnected_cb=self._ignore,
                    closed_cb=self._ignore,
                    reconnected_cb=self._ignore,
                    discovered_server_cb=self._ignore,
                    lame_duck_mode_cb=self._lame_duck,
                )
        except BaseException:
            await self.abort()  # noqa: ASYNC102 - asyncio runs here; it waits 0.25 s at most
            raise
        if not self.is_connected:
            await self.abort()
            raise NatsError(self.loss or "the server did not finish the handshake")
        self._stream.pass_on(self._parser)

    async def start(self, commands: Iterable[bytes]) -> None:
        """Write the first commands and wait until the server has processed them.

        Raises:
            ConnectionError, TimeoutError: the connection was lost, or stalls.
        """
        done = asyncio.get_running_loop().create_future()
        self._pongs.append(done)
        self._stream.writelines([*commands, _PING])
        async with asyncio.timeout(_OPEN_TIMEOUT):
            await self._stream.drain()
            await done

    async def receive(self) -> None:
        """Read what comes in until there is no more, or asyncio does it; a task of Trio's."""
        await self._stream.receive()

    async def pump(self, outbox: Outbox) -> None:
        """Write messages from the outbox as they come, until cancelled or the connection is lost.

        A task of Trio's: what all tasks publish in one turn of the loop leaves in the next one, at once.
        """
        try:
            while outbox.checked() and self.is_connected:
                work = trio.Event()
                outbox.on_work = work.set
                lines = self._batch(outbox)
                if lines:
                    self._stream.writelines(lines)
                    if not self._stream.has_room:
                        # While the socket's buffer is full, the rest stays withdrawable.
                        await trio_asyncio.aio_as_trio(self._stream.drain)()
                if outbox.is_empty:
                    await work.wait()
                else:
                    await trio.lowlevel.checkpoint()
        finally:
            outbox.on_work = None

    def _batch(self, outbox: Outbox) -> list[bytes]:
        lines: list[bytes] = []
        while (command := outbox.take_command()) is not None:
            lines.append(self._ask(command) if isinstance(command, Barrier) else command)
        size = 0
        while size < _BATCH_BYTES and (item := outbox.take()) is not None:
            if isinstance(item, Barrier):
                lines.append(self._ask(item))
            elif item.size > self._max_payload:
                # Queued for a server with a larger limit; sent to this one it would cost the connection.
                item.refuse(self._max_payload)
                self._on_refused("publish", item.subject, str(item.refused))
            else:
                lines += (item.head, item.data, b"\r\n")
                size += item.size + 64
        return lines

    def _ask(self, barrier: Barrier) -> bytes:
        done: asyncio.Future[Any] = self._loop.create_future()
        self.barriers[done] = barrier
        self._pongs.append(done)
        done.add_done_callback(self._answered)
        return _PING

    def _answered(self, done: asyncio.Future[Any]) -> None:
        barrier = self.barriers.pop(done, None)
        if barrier is not None and not done.cancelled():
            barrier.event.set()

    def lose(self, reason: str) -> None:
        """Give the connection up; the first reason counts."""
        if self.loss is None and self._status != Client.CLOSED:
            self.loss = reason
            self._status = Client.DISCONNECTED
            self._on_lost()

    def drop_buffered(self, reason: str) -> None:
        """Give the connection up if it holds anything that the socket has not taken."""
        if self._stream.buffered:
            self.lose(reason)

    async def abort(self) -> None:
        """End the connection at once, whatever the peer does. Idempotent.

        On return all tasks of nats-py have ended. This is not its ``close()``, which waits for a stalled peer
        to read the buffer.
        """
        self._status = Client.CLOSED
        tasks = [self._reading_task, self._ping_interval_task, self._flusher_task]
        running = [task for task in tasks if task is not None and not task.done()]
        for task in running:
            task.cancel()
        self._stream.abort()
        # Sockets are closed in the loop's next turn; TLS takes one more. This is not ``wait_closed()``: after
        # a failed TLS handshake nothing ever ends that wait.
        for _ in range(3):
            await asyncio.sleep(0)
        if running:
            await asyncio.wait(running, timeout=_ABORT_TIMEOUT)

    # Methods that nats-py calls.

    async def _select_next_server(self) -> None:
        # The original tries for ever, within one call; the bus has its own backoff and log.
        server = self._server_pool[0]
        await self._connect_to_server(server)
        self._current_server = server

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        if initial_connection:
            # Before anything secret is sent.
            check_server(info)
            if self._tls_wanted and not self.options["tls_handshake_first"]:
                if not (info.get("tls_required") or info.get("tls_available")):
                    raise UnsupportedServer(
                        "the server offers no TLS, which is asked for; nothing was sent to it"
                    )
                info["tls_required"] = True
        await super()._process_info(info, initial_connection)

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None
    ) -> None:
        if self.take(sid, subject, reply, data, headers):
            await asyncio.sleep(0)

    def take(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None = None) -> bool:
        """Let a message be handled; return whether other tasks are to get a turn then."""
        handler = self._handlers.get(sid)
        if handler is not None:
            try:
                fields = (
                    partial(_read_headers, self._process_headers, self._limited_log, headers)
                    if headers
                    else None
                )
                handler(Message(subject.decode(), data, reply.decode() if reply else "", fields))
            except Exception:  # noqa: BLE001 - logged
                # An exception would end the reading while the connection seems to be up.
                shown = subject.decode(errors="replace")
                self._limited_log.exception("a message could not be handled", subject=shown)
        self._turn += 1 + (len(data) >> _SHIFT)
        if self._turn < self._longest_turn:
            return False
        self._turn = 0
        return True

    async def _process_pong(self) -> None:
        self.note_pong()

    def answer_ping(self) -> None:
        """Answer a PING of the server."""
        self._stream.writelines([_PONG])

    def note_pong(self) -> None:
        """Note that the server has got everything up to a PING."""
        self._pongs_received += 1
        self._pings_outstanding = 0
        if self._pongs:
            done = self._pongs.pop(0)
            # A cancelled future, or one that timed out, would raise and end the reading.
            if not done.done():
                done.set_result(True)

    async def _process_err(self, err_msg: str) -> None:
        # The argument is in lower case; the parser still has the line as it came.
        line = ERR_RE.match(self._ps.buf)
        words = line.group(1).decode(errors="replace") if line is not None else err_msg
        words = words.strip("' ")
        refused = _REFUSED.search(words)
        if refused is not None:
            self._on_refused(refused.group(1).lower(), refused.group(2), words)
        else:
            self.lose(f"the server said: {words}")

    async def _process_op_err(self, e: Exception) -> None:
        self.lose(describe(e))

    async def _read_loop(self) -> None:
        # The original ends on any unforeseen exception, and leaves the client "connected" and deaf.
        try:
            await super()._read_loop()
        finally:
            self.lose("nothing reads from the connection any more")

    async def _note(self, error: Exception) -> None:
        log.debug("nats-py reports", error=describe(error))

    async def _ignore(self) -> None:
        """Do nothing. Every callback is set, because the defaults log on their own."""

    async def _lame_duck(self) -> None:
        log.warning("the broker is about to shut down")


def _read_headers(
    process: Callable[[bytes], Coroutine[Any, Any, dict[str, str] | None]],
    logger: RateLimitedLog,
    headers: bytes,
) -> dict[str, str] | None:
    """Return a message's headers; None if they are malformed. ``process`` is nats-py's own way."""
    if fields := parse_headers(headers):
        return fields
    # It is a coroutine only for the sake of a callback, which is ours, and waits for nothing.
    asking = process(headers)
    try:
        asking.send(None)
    except StopIteration as found:
        unusual: dict[str, str] | None = found.value
        return unusual
    except Exception as error:  # noqa: BLE001 - logged
        # Readers of headers are spared those that are malformed.
        logger.warning("headers that cannot be read count as none", reason=describe(error))
        return None
    finally:
        asking.close()
    raise RuntimeError("nats-py waits for something while it reads headers")


def check_server(info: Mapping[str, Any]) -> None:
    """Check that a server can be used, by the INFO of its greeting.

    Raises:
        UnsupportedServer: it is too old, or headers are switched off.
    """
    version = str(info.get("version", "unknown"))
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers is None or (int(numbers[1]), int(numbers[2])) < _OLDEST:
        raise UnsupportedServer(f"nats-server {version} is too old: 2.2 or newer is needed, for headers")
    if not info.get("headers"):
        raise UnsupportedServer(f"nats-server {version} has headers switched off (no_header_support)")


def is_expected(error: Exception) -> bool:
    """Return whether an error is an ordinary failure of a connection, and not a bug."""
    return isinstance(error, (OSError, NatsError, BusError))


def describe(error: BaseException) -> str:
    """Return an exception in words; many of asyncio's and nats-py's have none of their own."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
