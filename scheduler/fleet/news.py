"""News among the instances of a fleet: that others should look at the leases, or at builds of nobody, now."""

from collections.abc import Callable
from typing import Final, NoReturn

import trio

from scheduler.bus import Bus, Message
from scheduler.errors import BusError
from scheduler.runtime.logger import Logger

NEWS: Final = "scheduler.fleet.news"
"""Subject on which an instance says that its lease has changed in a way that others should not wait for."""
ORPHANS: Final = b"orphans"
"""Content of the news that there is a build which no instance has; earlier versions do not read it."""
_BETWEEN: Final = 1.0
"""Seconds between two words of orphans: thousands of builds may be left at once, and by each instance."""

log = Logger()


class News:
    """News to the other instances, and from them; `run` has to be running.

    Args:
        bus: the connection.
        on_orphans: callback for when there are builds which no instance has.
    """

    def __init__(self, bus: Bus, on_orphans: Callable[[], None]) -> None:
        self._bus = bus
        self._on_orphans = on_orphans
        self._came = trio.Event()
        self._orphaned = trio.Event()
        """Event for when the others are to be told of orphans."""

    async def listen(self) -> None:
        """Hear the others.

        Raises:
            BusError: the broker does not let us listen.
        """
        await self._bus.subscribe(NEWS, self._hear)

    async def come(self) -> None:
        """Wait for news; those that came since this was awaited last count."""
        await self._came.wait()

    def seen(self) -> None:
        """Wait for later news from now on."""
        self._came = trio.Event()

    def spread(self, news: bytes = b"") -> None:
        """Tell the others to look at the leases now. Synchronous."""
        try:
            self._bus.publish(NEWS, news)
        except BusError as error:
            log.info("the others see it a little later", reason=str(error))

    def tell_of_orphans(self) -> None:
        """Tell the others that there are builds which no instance has: soon, once for many. Synchronous."""
        self._orphaned.set()

    async def run(self) -> NoReturn:
        """Tell the others of orphans where there are some; never returns."""
        while True:
            await self._orphaned.wait()
            self._orphaned = trio.Event()
            self.spread(ORPHANS)
            await trio.sleep(_BETWEEN)

    def _hear(self, message: Message) -> None:
        self._came.set()
        if message.data == ORPHANS:
            self._on_orphans()
