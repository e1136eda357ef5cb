"""A connection of its own for messages that must not queue behind all others, or must not delay them.

A connection delivers messages one after another: builds and replies would queue behind a flood of questions,
and builds behind a flood of replies. Several connections take turns; and if the broker cuts one of them off
because of its backlog, the others continue.

While the connection is away, the first one has its subscriptions. For a moment both have them, so this is for
queue groups only, whose members share the messages.

In a cluster it is on the first one's server, and on no other: another one may be that of the listener
(`scheduler.bus.listener`), and with that server both would go, while the first connection hears nothing.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from scheduler.bus import Handler, HeaderBlock, Headers, Outgoing, Subscription
from scheduler.bus.companion import Companion
from scheduler.bus.endpoint import Interest
from scheduler.bus.guards import TURN, Connection
from scheduler.bus.nats import FIRST_DELAY, NatsBus
from scheduler.bus.options import BusOptions
from scheduler.errors import BusError, NotPermitted
from scheduler.runtime.logger import Logger

_PATIENCE = 1.0
"""Seconds to wait for the first connection of all, and for the server's answer to a subscription."""
_AWAY = 0.1
"""Seconds for which the connection may be away before the first one stands in. If it cannot be opened, or if
the first one was away too, the first one stands in at once."""
_AWAY_IN_A_FLOOD = 1.0
"""The same if the server has cut it off because of its backlog, which the first one would then get."""
_FLOOD = 8 * 1024 * 1024
"""Bytes received over a connection from which its loss counts as one in a flood: far less than a server's
backlog."""

log = Logger()


class BesideBus(Companion):
    """A Bus for subscriptions, above all of queue groups, and for answers; made by `open_beside`."""

    def __init__(self, first: NatsBus, options: BusOptions, name: str, turn: int) -> None:
        super().__init__(first, options, name, f"{name} come in on the first one, behind all else")
        self.turn = turn
        self._lent: dict[int, Subscription] = {}
        """Substitute subscription of the first connection, by this one's subscription id."""
        self._moved = trio.Event()
        """Set when this connection comes or goes, or the first one comes."""
        self._came = trio.Event()
        """Set when this connection came for the first time."""
        self._needed = False
        """Whether the first connection is to stand in at once: it came back before this one, or this one
        could not be opened."""
        first.on_connected(self._note_first)

    # The port, where it differs.

    def publish(
        self, subject: str, data: bytes, *, reply: str = "", headers: Headers | HeaderBlock = None
    ) -> Outgoing:
        """Publish as in the port; on the first connection while this one is away."""
        if self.connected:
            return super().publish(subject, data, reply=reply, headers=headers)
        return self._first.publish(subject, data, reply=reply, headers=headers)

    async def subscribe(self, subject: str, handler: Handler, *, queue: str = "") -> Subscription:
        """Subscribe as in the port; without a queue group, nothing comes while this connection is away."""
        self._check_open()
        interest = self._begin(subject, queue, handler)
        try:
            if self.connected:
                self.outbox.command(interest.line)
                with trio.move_on_after(_PATIENCE):
                    await self.outbox.command_barrier().event.wait()
            if queue and not self.connected:
                await self._lend(interest)
            self._check_open()
        except BaseException:
            self.end(interest)
            raise
        interest.awaited = False
        if interest.refused:
            self.end(interest)
            raise NotPermitted("subscribe to", subject)
        return interest

    async def unsubscribe(self, interest: Interest) -> None:
        """End a subscription, and the first connection's substitute for it."""
        lent = self._lent.pop(interest.sid, None)
        await super().unsubscribe(interest)
        if lent is not None:
            await lent.unsubscribe()

    # Coming and going.

    @property
    def _flooded(self) -> bool:
        """Whether it was lost in a flood, as far as can be told: the server does not give its reason."""
        return self.received >= _FLOOD

    @property
    def longest_pause(self) -> float:
        """Longest pause before connecting again, in seconds; the shortest one in a flood, which recurs."""
        return FIRST_DELAY if self._flooded else super().longest_pause

    async def keep(self) -> None:
        """Stay connected until `stop`."""
        await self.connect()
        await self.run()

    async def stand_in(self) -> None:
        """Let the first connection take the place of this one while it is away; never returns."""
        while True:
            self._moved = trio.Event()
            if not (self.connected or self._needed):
                with trio.move_on_after(_AWAY_IN_A_FLOOD if self._flooded else _AWAY) as patience:
                    await self._moved.wait()
                if not patience.cancelled_caught:
                    # It came; or it came and went again; or the first one came.
                    continue
            self._needed = False
            if failures := await self._settle():
                text = "a further connection is away, and the first one is no help"
                log.warning(text, reason=failures[0], subjects=len(failures))
            await self._moved.wait()

    async def first_connected(self) -> None:
        """Wait a short time for the connection."""
        with trio.move_on_after(_PATIENCE):
            await self._came.wait()

    async def _settle(self) -> list[str]:
        """Lend or take back all subscriptions; return the reasons for failures."""
        failures: list[str] = []

        async def lend(interest: Interest) -> None:
            try:
                await self._lend(interest)
            except BusError as error:
                failures.append(str(error))

        # All of them at once: in between, the first connection gets only a share of the messages.
        async with trio.open_nursery() as nursery:
            if self.connected:
                while self._lent:
                    _, subscription = self._lent.popitem()
                    nursery.start_soon(subscription.unsubscribe)
            else:
                for interest in [one for one in self.interests.values() if one.queue]:
                    nursery.start_soon(lend, interest)
        return failures

    async def _lend(self, interest: Interest) -> None:
        if interest.sid in self._lent:
            return
        lent = await self._first.subscribe(interest.subject, interest.handler, queue=interest.queue)
        if interest.sid in self._lent or interest.sid not in self.interests:
            # Another one was lent meanwhile, or it is not wanted any more.
            await lent.unsubscribe()
        else:
            self._lent[interest.sid] = lent

    def tell_connected(self) -> None:
        """Tell the handlers that this connection is back, and take the subscriptions back."""
        super().tell_connected()
        self._needed = False
        self._moved.set()
        self._came.set()

    @property
    def _apart(self) -> bool:
        """Whether this connection is on another server than the first one has, or had last."""
        return bool(self._first.cluster) and self.server_id != self._first.server_id

    def _check_server(self, connection: Connection) -> None:
        if self._first.cluster and connection.server_id != self._first.server_id:
            raise BusError("the first connection is to another server")

    def _note_first(self) -> None:
        if self._connection is not None and self._apart:
            self._connection.lose("the first connection is to another server now")
        self._needed = not self.connected
        self._moved.set()

    def _note_failure(self, shown: str, reason: str, delay: float) -> None:
        super()._note_failure(shown, reason, delay)
        self._needed = True
        self._moved.set()

    def _note_loss(self, reason: str) -> None:
        super()._note_loss(reason)
        self._moved.set()


@asynccontextmanager
async def open_beside(
    first: NatsBus, options: BusOptions, name: str, turn: int = TURN
) -> AsyncIterator[BesideBus]:
    """Open a connection beside the first one until the context is left; wait for it at most a second.

    An exception of the body comes out as it is, not wrapped in groups. Messages that have to leave must be
    flushed before.

    Args:
        first: the first connection; its context is around this one, and has the asyncio loop.
        options: credentials, and servers beside those that the cluster tells of.
        name: purpose, in the plural: shown in the server's monitoring and in the log.
        turn: number of messages that are handled in a row before other tasks get a turn.
    """
    beside = BesideBus(first, options, name, turn)
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(beside.keep, name=name)
        nursery.start_soon(beside.stand_in)
        try:
            await beside.first_connected()
            yield beside
        except Exception as error:  # noqa: BLE001  (raised again below, outside the nursery)
            failure = error
        finally:
            beside.close()
            beside.stop()
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
