"""A second connection, to another server of the same cluster, that only listens.

A server of a cluster that is stopped, or hangs, loses the messages that others sent through it. A stream
cannot make up for that: a replicated one without acknowledgements keeps nothing while it has no leader. A
message that is subscribed to on two servers arrives, whichever of them goes away.

The connection is a `NatsBus` of its own that publishes nothing. It never stays on the server of the first
connection: if that one moves to this one's server, this one leaves. If the broker is a single server, it is
never opened.
"""

import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import attrs
import trio

from scheduler.bus import Handler
from scheduler.bus.guards import MAX_OUTSTANDING_PINGS, PING_INTERVAL, Connection
from scheduler.bus.nats import NatsBus
from scheduler.bus.options import BusOptions
from scheduler.errors import BusError
from scheduler.runtime.logger import Logger

_UNNOTICED = PING_INTERVAL * (MAX_OUTSTANDING_PINGS + 1)
"""Seconds without any message after which a connection is given up."""

log = Logger()


class NatsListener(NatsBus):
    """Listens beside ``first``; made by `open_listener`."""

    def __init__(self, first: NatsBus, options: BusOptions) -> None:
        super().__init__(attrs.evolve(options, name=f"{options.name} (replies)"))
        self._first = first
        self._since = math.inf
        self._was_there = False
        """Whether this connection listened all the while that the first one was last away."""
        self._first_id = first.server_id
        self._same_server = True
        """Whether the first connection came back to the very server process that it was lost to."""
        self._said: set[str] = set()
        self._clustered = trio.Event()
        first.avoided = self._place
        first.on_connected(self._on_first_connected)
        self._look_at_cluster()

    def listen(self, subject: str, handler: Handler) -> Callable[[], None]:
        """Listen as in the port."""
        interest = self._begin(subject, "", handler)
        if self.connected:
            self.outbox.command(interest.line)
        return partial(self.end, interest)

    def missed(self, *, captured: bool) -> bool:
        """Whether messages may be lost, as in the port."""
        return not self._was_there and not (captured and self._same_server)

    async def keep_listening(self) -> None:
        """Stay connected for as long as there is a cluster; returns after `stop`."""
        await self._clustered.wait()
        await self.connect()
        await self.run()

    def _place(self) -> str:
        """Server that this connection is on."""
        return self.server if self.connected else ""

    def _look_at_cluster(self) -> None:
        if self._first.cluster:
            self._clustered.set()

    def _on_first_connected(self) -> None:
        first = self._first
        self._was_there = self.connected and self._since <= first.lost_at - _UNNOTICED
        self._same_server = first.server_id == self._first_id
        self._first_id = first.server_id
        self._look_at_cluster()
        if self._connection is not None and self.server_id == first.server_id:
            self._connection.lose("the first connection is to this server now")

    # Differences from the first connection.

    def _candidates(self) -> list[tuple[str, str | None]]:
        self._servers |= self._first.known()
        theirs = self._first.server
        return sorted(super()._candidates(), key=lambda one: one[0] == theirs)

    def _check_server(self, connection: Connection) -> None:
        if self._first.connected and connection.server_id == self._first.server_id:
            raise BusError("the first connection is to this server")

    def _note_failure(self, shown: str, reason: str, delay: float) -> None:  # noqa: ARG002 - theirs
        # It is tried for as long as the process lives, even without another server: each reason once.
        failure = f"{shown}: {reason}"
        if failure not in self._said and len(self._said) < _MOST_SAID:
            self._said.add(failure)
            log.warning("cannot listen on a second server", url=shown, reason=reason)

    def _note_connection(self) -> None:
        self._since = trio.current_time()
        self._said.clear()
        log.info("listening on a second server", url=self.url)

    def _note_loss(self, reason: str) -> None:
        log.info("not listening on a second server any more", url=self.url, reason=reason)


_MOST_SAID = 100


@asynccontextmanager
async def open_listener(first: NatsBus, options: BusOptions) -> AsyncIterator[NatsListener]:
    """Listen on another server of ``first``'s cluster, if it has one, until the context is left.

    An exception of the body comes out as it is, not wrapped in groups.

    Args:
        first: the first connection; its context is around this one, and has the asyncio loop.
        options: credentials, and servers beside those that the cluster tells of.
    """
    listener = NatsListener(first, options)
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listener.keep_listening, name="listener")
        try:
            yield listener
        except Exception as error:  # noqa: BLE001  (raised again below, outside the nursery)
            failure = error
        finally:
            listener.close()
            listener.stop()
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
