"""The streams of the durable store: made when this process begins to work, and watched from then on."""

from contextlib import AsyncExitStack
from typing import NoReturn

import structlog
import trio

from scheduler.errors import JetStreamUnavailable
from scheduler.jetstream.api import JetStream
from scheduler.jetstream.rivals import Rivals
from scheduler.jetstream.setup import moves, set_up
from scheduler.jetstream.streams import StreamLayout
from scheduler.stores.direct_hearing import Caught, catching

_log = structlog.get_logger(__name__)

_PAUSE = 1.0


class AccountStreams:
    """The streams of one account.

    Args:
        js: JetStream of the store.
        layout: desired state of the streams.
    """

    def __init__(self, js: JetStream, layout: StreamLayout) -> None:
        self._js = js
        self._layout = layout
        self._rivals = Rivals(js)
        self.caught = Caught()
        """Replies that came while no stream took them, because the streams were being changed."""

    async def look(self) -> None:
        """Begin to look for another JetStream that answers; a standby process does only this."""
        await self._rivals.ask()

    async def make(self) -> None:
        """Make missing streams, and log deviations of the others; waits for a leader.

        Raises:
            StoreError: the store cannot work here, or another JetStream answers too; the message has the
            cure.
            BusError: as for `JetStream`, except that it is unavailable.
        """
        async with AsyncExitStack() as stack:
            hearing = False
            while True:
                try:
                    await self._rivals.check()
                    if not hearing and await moves(self._js, self._layout):
                        await stack.enter_async_context(catching(self._js.bus, self.caught))
                        hearing = True
                    deviations = await set_up(self._js, self._layout)
                except JetStreamUnavailable as error:
                    _log.warning("the streams cannot be set up yet", reason=str(error))
                    await trio.sleep(_PAUSE)
                else:
                    break
        for deviation in deviations:
            _log.warning("a stream is not as it should be", deviation=deviation)

    async def watch(self) -> NoReturn:
        """Prevent all appends while another JetStream answers; never returns."""
        await self._rivals.watch()
