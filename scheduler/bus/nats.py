"""The Bus over a real NATS server; `open_bus` is its entry.

A connection is used once, from its handshake to its loss (`scheduler.bus.guards`); this module opens the next
one, subscribes again, and releases the queued messages. So every way to lose a connection is one and the same
path: a restart of the broker, an error that makes it disconnect, a stalled peer.

Delivery is at most once, and nothing is published twice. While no connection is up, messages stay in the
outbox, and leave once, when the next is up. A message that was written to a connection that is then lost may
or may not have been processed, and is never written again. ``generation`` grows with every connection, and so
tells users to look again.

One file on purpose: the life of a connection, from the first attempt to the goodbye, is read from top to
bottom.
"""

import math
import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import trio
import trio_asyncio  # type: ignore[import-untyped]

from scheduler.bus.endpoint import Endpoint, Interest
from scheduler.bus.guards import TURN, Connection, describe, is_expected
from scheduler.bus.options import BusOptions, safe_url
from scheduler.bus.outbox import Barrier
from scheduler.errors import BusError, UnsupportedServer
from scheduler.runtime.logger import Logger

FIRST_DELAY = 0.25
LAST_DELAY = 5.0
_GROWTH = 1.6
# Seconds after a loss for which the first delay is kept. Connectors wait two seconds by default before they
# try again: one that comes back before us may answer before we listen, and core NATS keeps nothing.
_EAGER = 10.0
# Seconds below which a connection counts as a failed attempt, so that a server that disconnects at once is
# not called again and again without a pause.
_STABLE_AFTER = 1.0
_GOODBYE = 0.5
_ABORT = 0.4

log = Logger()


class NatsBus(Endpoint):
    """The Bus over one connection at a time; made by `open_bus`."""

    turn = TURN
    """Handlers that are called in a row before other tasks get a turn."""

    def __init__(self, options: BusOptions, on_status: Callable[[str], None] | None = None) -> None:
        super().__init__(
            options.inbox_prefix,
            max_queued_messages=options.max_queued_messages,
            max_queued_bytes=options.max_queued_bytes,
        )
        self.dropped = 0
        """Number of times that the server disconnected this slow reader: messages were lost."""
        self.received = 0
        """Bytes that had come in over the last connection that was lost."""
        self.server_version = ""
        """Version of the server that is, or was last, connected."""
        self.url = ""
        """Server that is, or was last, connected, as shown in logs."""
        self.server_id = ""
        """The server's own id."""
        self.cluster = ""
        """Name of the server's cluster; empty where it has none."""
        self.server = ""
        """URL of the server as it was used."""
        self.lost_at = -math.inf
        """Time at which a connection was last lost, by Trio's clock."""
        self.avoided: Callable[[], str] = lambda: ""
        """Function that returns the URL of a server to be tried last."""
        self.last_failure = ""
        """Reason why the last attempt to connect failed."""
        self._options = options
        self._on_status = on_status
        self._connection: Connection | None = None
        self._lost = trio.Event()
        self._running = trio.CancelScope(shield=True)
        self._unanswered: list[Barrier] = []
        self._servers: dict[str, str | None] = dict.fromkeys(options.servers, options.tls_hostname)

    @property
    def connected(self) -> bool:
        """Whether the connection is up, and every subscription is made."""
        return self._connection is not None and self._connection.loss is None

    @property
    def clustered(self) -> bool:
        """Whether the server belongs to a cluster."""
        return bool(self.cluster)

    @property
    def behind(self) -> bool:
        """Whether more has come in than was read so far."""
        return self._connection is not None and self._connection.behind

    def _say(self, status: str) -> None:
        if self._on_status is not None:
            self._on_status(status)

    async def connect(self, *, first: bool = False, delay: float = FIRST_DELAY) -> None:
        """Connect to the first server that answers, however long it takes.

        Raises:
            UnsupportedServer: only if ``first``, and where trying again cannot help.
        """
        eager_until = -math.inf if first else trio.current_time() + _EAGER
        while True:
            for server, hostname in self._candidates():
                if await self._try(server, hostname, first=first, delay=delay):
                    return
            # Jitter: after an outage the clients must not come back all at the same moment.
            await trio.sleep(delay * random.uniform(0.8, 1.0))  # noqa: S311
            if trio.current_time() > eager_until:
                delay = min(delay * _GROWTH, LAST_DELAY)

    def known(self) -> dict[str, str | None]:
        """Known servers, each with the name to expect in its certificate, or None."""
        if self._connection is None:
            return self._servers
        hostname = self._servers.get(self.server)
        return _pool(self._options, self.server, hostname, self._connection.discovered)

    def _candidates(self) -> list[tuple[str, str | None]]:
        """Return the servers to try, in order: the last is one that has just hung, which may take seconds."""
        avoided = self.avoided()
        return sorted(
            self._servers.items(), key=lambda one: (one[0] == avoided) + 2 * (one[0] == self.server)
        )

    def _check_server(self, connection: Connection) -> None:
        """Raise BusError if this server is not to be used."""

    def _note_failure(self, shown: str, reason: str, delay: float) -> None:
        """Log that a server could not be connected to."""
        failure = f"{shown}: {reason}"
        if failure != self.last_failure or delay > FIRST_DELAY:
            log.warning("cannot connect to the broker", url=shown, reason=reason, retry_in=round(delay, 2))
            self._say(f"cannot connect to {shown}: {reason}")
        self.last_failure = failure

    def _note_connection(self) -> None:
        """Log that there is a connection."""
        log.info(
            "connected to the broker",
            url=self.url,
            server_version=self.server_version,
            queued=len(self.outbox),
        )
        self._say(f"connected to {self.url}")

    def _note_loss(self, reason: str) -> None:
        """Log that the connection was lost."""
        log.warning("lost the connection to the broker", url=self.url, reason=reason, queued=len(self.outbox))
        self._say(f"lost the connection to {self.url}: {reason}")

    async def _try(self, server: str, hostname: str | None, *, first: bool, delay: float) -> bool:
        lost = trio.Event()
        connection = Connection(self.handlers, lost.set, self.refuse, self.turn)
        shown, options = safe_url(server), self._options
        sent = dict(self.interests)
        try:
            await trio_asyncio.aio_as_trio(connection.open)(options, server, hostname)
            self._check_server(connection)
            for interest in sent.values():
                interest.refused = ""
            await trio_asyncio.aio_as_trio(connection.start)([one.line for one in sent.values()])
            self._check_answers()
        except Exception as error:
            await self._abort(connection)  # noqa: ASYNC120 - it shields itself, with a deadline
            reason = connection.loss or describe(error)
            if isinstance(error, ConnectionError) and options.tls and options.tls_certificate is None:
                # The server's alert that says so may be lost with what we wrote meanwhile.
                reason = f"{reason}; it may ask for a certificate: tls_certificate"
            if first:
                _raise_if_hopeless(error, reason, shown)
            if not is_expected(error):
                log.exception("connecting failed in an unforeseen way", url=shown)
                if first:
                    raise
            self._note_failure(shown, reason, delay)
            return False
        except BaseException:
            await self._abort(connection)  # noqa: ASYNC102 - as above
            raise
        self._established(connection, lost, server, sent)
        return True

    def _check_answers(self) -> None:
        refused = self._answers.refused
        if refused:
            raise UnsupportedServer(
                f"the server does not let us receive answers: {refused}; allow it in its permissions"
            )

    def _established(
        self, connection: Connection, lost: trio.Event, server: str, sent: dict[int, Interest]
    ) -> None:
        # Subscriptions that were made or ended while the first commands were on their way.
        now = self.interests
        commands = [one.line for sid, one in now.items() if sid not in sent]
        commands += [b"UNSUB %d\r\n" % sid for sid in sent if sid not in now]
        self.outbox.restart(commands, self._unanswered)
        self._unanswered = []
        self._connection, self._lost = connection, lost
        self.generation += 1
        self.max_payload = connection.max_payload
        self.server_version = connection.version
        self.url = safe_url(server)
        self.server, self.server_id, self.cluster = server, connection.server_id, connection.cluster
        self.last_failure = ""
        self._servers = _pool(self._options, server, self._servers[server], connection.discovered)
        self._note_connection()
        self.tell_connected()

    def check_connected(self, deadline: float | None) -> None:
        """Raise BusError if there has been no connection yet."""
        if not self.generation:
            origin = f" ({self._options.origin})" if self._options.origin else ""
            raise BusError(
                f"no connection to a broker within {deadline} s: {self.last_failure or 'no answer'}{origin}"
            )

    async def run(self) -> None:
        """Keep the connection up until ``stop``; to be called once ``connect`` has returned.

        It is shielded: when everything around is cancelled, last messages must still get out.
        """
        delay = 0.0
        with self._running:
            while True:
                since = trio.current_time()
                await self._serve()
                lived = trio.current_time() - since
                delay = 0.0 if lived > _STABLE_AFTER else self._longer(delay)
                await trio.sleep(delay)
                await self.connect(delay=max(delay, FIRST_DELAY))

    def _longer(self, delay: float) -> float:
        return min(max(FIRST_DELAY, delay * _GROWTH), self.longest_pause)

    @property
    def longest_pause(self) -> float:
        """Longest pause, in seconds, before connecting again to a server that disconnects soon each time."""
        return LAST_DELAY

    def drop_buffered(self, reason: str) -> None:
        """Give up a connection with something in its buffer, as in the port."""
        if self._connection is not None:
            self._connection.drop_buffered(reason)

    def stop(self) -> None:
        """Let ``run`` return, with the connection cleared away. Idempotent."""
        self._running.cancel()

    async def _serve(self) -> None:
        """Use the connection until it is lost, and clear it away."""
        connection = self._connection
        assert connection is not None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._drive, connection, "the reader", connection.receive)
                pump = partial(connection.pump, self.outbox)
                nursery.start_soon(self._drive, connection, "the pump of outgoing messages", pump)
                await self._lost.wait()
                nursery.cancel_scope.cancel()
        finally:
            self._connection = None
            self.lost_at = trio.current_time()
            self.received = connection.received
            self._unanswered = list(connection.barriers.values())
            await self._abort(connection)  # noqa: ASYNC102 - as above
        reason = connection.loss or "unknown"
        if "slow consumer" in reason.lower():
            self.dropped += 1
            log.error("messages were lost: we read more slowly than the broker sends", times=self.dropped)
        self._note_loss(reason)

    async def _drive(self, connection: Connection, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Read or write; the connection is lost if that fails."""
        try:
            await work()
        except Exception as error:
            if not isinstance(error, OSError):
                log.exception(f"{name} failed; connecting again")  # noqa: G004 - of the code
            connection.lose(describe(error))

    async def _abort(self, connection: Connection) -> None:
        with trio.move_on_after(_ABORT, shield=True):
            await trio_asyncio.aio_as_trio(connection.abort)()

    async def goodbye(self) -> None:
        """Refuse new messages, give the queued ones half a second to leave, and close."""
        if self.connected:
            barrier = self.outbox.put_barrier()
            self._closed = True
            with trio.move_on_after(_GOODBYE, shield=True):
                await barrier.event.wait()
        if self.queued:
            log.warning("closed with messages that never left", messages=self.queued, url=self.url)
        self.close()

    def close(self) -> None:
        """Close as any endpoint; tasks that wait for the connection's answer get BusClosed, too."""
        super().close()
        asked = [] if self._connection is None else list(self._connection.barriers.values())
        for barrier in (*asked, *self._unanswered):
            barrier.event.set()


def _raise_if_hopeless(error: Exception, reason: str, shown: str) -> None:
    """Raise, at the start, for errors that no waiting cures; later a broker may be in reconfiguration."""
    lowered = reason.lower()
    if isinstance(error, UnsupportedServer):
        raise UnsupportedServer(f"{shown}: {error}") from error
    if "authorization" in lowered or "authentication" in lowered:
        raise UnsupportedServer(
            f"{shown} refuses our credentials ({reason}); check user and password, token, credentials or nkey"
        ) from error
    if isinstance(error, ssl.SSLError):
        raise UnsupportedServer(
            f"{shown}: TLS failed ({reason}); check the scheme, tls_ca, tls_hostname and tls_certificate"
        ) from error


def _pool(
    options: BusOptions, server: str, hostname: str | None, discovered: Iterable[str]
) -> dict[str, str | None]:
    """Return the servers to try, each with the name to expect in its certificate if the URL's is not it.

    Servers that the cluster told of come after those of the settings, with the login of the one that told.
    """
    pool: dict[str, str | None] = dict.fromkeys(options.servers, options.tls_hostname)
    parts = urlsplit(server if "://" in server else f"nats://{server}")
    user, at, _ = parts.netloc.rpartition("@")
    known = {urlsplit(url if "://" in url else f"nats://{url}").netloc.rpartition("@")[2] for url in pool}
    for address in discovered:
        if address not in known:
            pool[f"{parts.scheme}://{user}{at}{address}"] = options.tls_hostname or hostname or parts.hostname
    return pool


@asynccontextmanager
async def open_bus(
    options: BusOptions | None = None,
    *,
    connect_deadline: float | None = None,
    on_status: Callable[[str], None] | None = None,
) -> AsyncIterator[NatsBus]:
    """Connect to the broker, and stay connected until the context is left.

    A broker that is not there is waited for, with a backoff from 0.25 to 5 s; each failure is logged, and
    told to ``on_status``. Leaving takes at most a second, whatever the broker does: half of it for queued
    messages. An exception of the body comes out as it is, not wrapped in groups.

    It is to be opened outside the nurseries that use it, at the outermost place: it runs an asyncio loop,
    which a second bus inside shares.

    Args:
        options: servers and credentials.
        connect_deadline: seconds that the first connection may take; without it there is no limit.
        on_status: function that is called with a line of text whenever the connection comes or goes.

    Raises:
        UnsupportedServer: the first server that answers is too old, or refuses the credentials or
            certificate.
        BusError: ``connect_deadline`` has passed.
    """
    bus = NatsBus(options if options is not None else BusOptions(), on_status)
    async with keep_open(bus, connect_deadline=connect_deadline):
        yield bus


@asynccontextmanager
async def keep_open(bus: NatsBus, *, connect_deadline: float | None = None) -> AsyncIterator[None]:
    """Keep an existing bus open, as `open_bus` does."""
    failure: Exception | None = None
    async with _asyncio_loop():
        try:
            with trio.move_on_after(math.inf if connect_deadline is None else connect_deadline):
                await bus.connect(first=True)
            bus.check_connected(connect_deadline)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(bus.run, name="bus")
                try:
                    yield
                except Exception as error:  # noqa: BLE001  (raised again below, outside the nurseries)
                    failure = error
                finally:
                    await bus.goodbye()  # noqa: ASYNC102 - as above
                    bus.stop()
        except Exception as error:  # noqa: BLE001  (the same)
            failure = error
    if failure is not None:
        raise failure


@asynccontextmanager
async def _asyncio_loop() -> AsyncIterator[None]:
    """Run an asyncio loop of our own: a shared one would end with its owner."""
    async with trio_asyncio.open_loop() as loop:
        # By default an exception in any asyncio task or callback ends the loop, and all builds with it.
        loop.set_exception_handler(_log_asyncio)
        yield


def _log_asyncio(_: object, context: Mapping[str, Any]) -> None:
    error = context.get("exception")
    log.error("an asyncio task failed", problem=context.get("message"), exc_info=error)
