"""Replies on their way to the broker: sent again where the connection was lost under them."""

from typing import Final

import trio

from scheduler.bus import Bus
from scheduler.errors import BusClosed, BusError, BusFull
from scheduler.runtime.logger import Logger

_SETTLING: Final = 3.0
"""Seconds after a reconnect in which no reply is sent: its reader may not be back yet, and core NATS keeps
nothing."""
_NO_ROOM: Final = 0.1
_CONFIRMING: Final = 60.0
"""Seconds for one reply to reach the broker, once there is a connection."""
_TRIES: Final = 5

log = Logger()


class Post:
    """Sends replies, each until the broker has it."""

    def __init__(self, bus: Bus, nursery: trio.Nursery) -> None:
        self._bus = bus
        self._nursery = nursery
        self._settled_at = trio.current_time()
        self._under_way = 0
        self._none_left = trio.Event()
        bus.on_connected(self._note_connection)

    def send(self, subject: str, body: bytes) -> None:
        """Send a reply in a task of its own."""
        self._under_way += 1
        self._nursery.start_soon(self._deliver, subject, body)

    async def emptied(self) -> None:
        """Wait until every reply has reached the broker, or was given up."""
        while self._under_way:
            self._none_left = trio.Event()
            await self._none_left.wait()

    def _note_connection(self) -> None:
        if self._bus.generation > 1:
            self._settled_at = trio.current_time() + _SETTLING

    async def _deliver(self, subject: str, body: bytes) -> None:
        try:
            for _ in range(_TRIES):
                if await self._sent(subject, body):
                    return
            log.error("a reply may be lost: the connection to the broker does not last", subject=subject)
        except BusClosed:
            log.error("a reply was not sent: the connection to the broker was closed", subject=subject)  # noqa: TRY400
        except BusError as error:
            log.error("a reply was not sent", subject=subject, reason=str(error))  # noqa: TRY400
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._none_left.set()

    async def _sent(self, subject: str, body: bytes) -> bool:
        """Send a reply once; return whether the broker has it.

        Raises:
            BusError: it cannot be sent at all.
        """
        await trio.sleep_until(self._settled_at)
        deadline = trio.current_time() + _CONFIRMING
        while True:
            try:
                outgoing = self._bus.publish(subject, body)
                break
            except BusFull:
                if trio.current_time() > deadline:
                    raise
                await trio.sleep(_NO_ROOM)
        while True:
            with trio.move_on_after(_CONFIRMING):
                await self._bus.flush()
                break
            if self._bus.connected:
                # It stalls; the bus will find that out, and connect again.
                return False
        if outgoing.refused is not None:
            raise outgoing.refused
        return outgoing.generation == self._bus.generation
