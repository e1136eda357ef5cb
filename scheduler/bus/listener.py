"""A second connection, to another server of the same cluster, on which we only listen.

A server of a cluster that is stopped, or hangs, takes with it what others sent to us over it. A stream cannot
make up for that: a replicated one without acknowledgements keeps nothing while it has no leader. What is
subscribed to on two servers arrives, whichever of them goes away.

It is a `NatsBus` of its own that publishes nothing. It never stays on the server of the first connection:
where that one moves to this one's server, this one leaves. Where the broker is a single server it is never
opened.
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
"""Seconds for which a connection may bring nothing any more before it is given up."""

log = Logger()


class NatsListener(NatsBus):
    """Listens beside ``first``; made by `open_listener`."""

    def __init__(self, first: NatsBus, options: BusOptions) -> None:
        super().__init__(attrs.evolve(options, name=f"{options.name} (replies)"))
        self._first = first
        self._since = math.inf
        self._was_there = False
        """Whether we listened all the while that the first connection was last away."""
        self._first_id = first.server_id
        self._same_server = True
        """Whether the first connection came back to the very process that it was lost to."""
        self._said: set[str] = set()
        self._clustered = trio.Event()
        first.avoided = self._place
        first.on_connected(self._on_first_connected)
        self._look_at_cluster()

    def listen(self, subject: str, handler: Handler) -> Callable[[], None]:
        """As in the port."""
        interest = self._begin(subject, "", handler)
        if self.connected:
            self.outbox.command(interest.line)
        return partial(self.end, interest)

    def missed(self, *, captured: bool) -> bool:
        """As in the port."""
        return not self._was_there and not (captured and self._same_server)

    async def keep_listening(self) -> None:
        """Be connected for as long as there is a cluster; returns after `stop`."""
        await self._clustered.wait()
        await self.connect()
        await self.run()

    def _place(self) -> str:
        """The server that it is on."""
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

    # What differs from the first connection.

    def _candidates(self) -> list[tuple[str, str | None]]:
        self._servers |= self._first.known()
        theirs = self._first.server
        return sorted(super()._candidates(), key=lambda one: one[0] == theirs)

    def _check_server(self, connection: Connection) -> None:
        if self._first.connected and connection.server_id == self._first.server_id:
            raise BusError("the first connection is to this server")

    def _note_failure(self, shown: str, reason: str, delay: float) -> None:  # noqa: ARG002 - theirs
        # It is tried for as long as we live, where there is no other server too: each reason once.
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
    """Listen on another server of ``first``'s cluster, where it has one, until the context is left.

    An exception of the body comes out as it is, not wrapped in groups.

    Args:
        first: the first connection; its context is around this one, and has the asyncio loop.
        options: as whom to connect, and to which servers beside those that the cluster tells of.
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
