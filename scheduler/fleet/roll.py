"""Roll of the schedulers that stand by until they are elected: each answers who asks for them."""

from collections.abc import Callable
from typing import Final

import trio

from scheduler.bus import Bus, Message
from scheduler.definition.subjects import may_be_answered
from scheduler.errors import BusError
from scheduler.fleet.absences import INSTANCE
from scheduler.fleet.lease import Lease, Standing, encode_lease, read_lease
from scheduler.runtime.logger import Logger

log = Logger()

ROLL: Final = f"{INSTANCE}ernest.standby"
"""Subject on which those that stand by say that they do."""
_ANSWERS: Final = 0.3
"""Seconds for those that stand by to answer."""
_MOST: Final = 100
"""Most of them that are listed."""


class Roll:
    """Roll of those that stand by.

    Args:
        bus: the connection.
        standing_by: returns what this process would write into a lease; None where it does not stand by.
    """

    def __init__(self, bus: Bus, standing_by: Callable[[], Lease | None]) -> None:
        self._bus = bus
        self._standing_by = standing_by

    async def open(self) -> None:
        """Answer from now on; raises BusError."""
        await self._bus.subscribe(ROLL, self._answer)

    async def call(self) -> list[Lease]:
        """Return what those that stand by would write into a lease, by name.

        Raises:
            BusError: they cannot be asked.
        """
        found: dict[str, Lease] = {}

        def take(message: Message) -> None:
            lease = read_lease(message.data)
            if lease is not None and lease.standing is Standing.STANDBY and len(found) < _MOST:
                found[lease.instance] = lease

        inbox = self._bus.new_inbox()
        subscription = await self._bus.subscribe(inbox, take)
        try:
            self._bus.publish(ROLL, b"", reply=inbox)
            await trio.sleep(_ANSWERS)
        finally:
            with trio.move_on_after(_ANSWERS, shield=True):
                await subscription.unsubscribe()
        return sorted(found.values(), key=lambda lease: lease.name)

    def _answer(self, message: Message) -> None:
        lease = self._standing_by()
        if lease is None or not may_be_answered(message.reply):
            return
        try:
            self._bus.publish(message.reply, encode_lease(lease))
        except BusError as error:
            log.info("another scheduler was not answered", reason=str(error))
