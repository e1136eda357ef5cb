"""Tells a stream of logs that was purged from one in which a single build's log was removed.

A record of no build stands in the stream from its first use on. Whoever finds a log of its own gone looks for
it: where it is gone as well, all logs are.
"""

import secrets
from collections.abc import Callable
from contextlib import suppress

from scheduler.errors import WrongLastSequence
from scheduler.jetstream.api import JetStream
from scheduler.jetstream.streams import LOG, SENTINEL
from scheduler.records import tombstone


class Sentinel:
    """That record.

    Args:
        js: where the stream is.
        instance: names this process.
        wall_clock: seconds since 1970.
    """

    def __init__(self, js: JetStream, instance: str, wall_clock: Callable[[], float]) -> None:
        self._js = js
        self._instance = instance
        self._wall_clock = wall_clock
        self._seen = False

    async def place(self) -> None:
        """Put it there, unless it is there; several processes may do so at once.

        Raises:
            BusError: as for `JetStream`.
        """
        if await self._js.last(LOG, SENTINEL) is None:
            record_id = f"sentinel-{secrets.token_hex(8)}"
            at = int(self._wall_clock() * 1_000)
            data, headers = tombstone(record_id, instance=self._instance, at=at, why="sentinel")
            with suppress(WrongLastSequence):
                await self._js.publish(SENTINEL, data, expected=0, headers=headers)
        self._seen = True

    async def is_gone(self) -> bool:
        """Whether it was there, and is not any more.

        Raises:
            BusError: as for `JetStream`.
        """
        return self._seen and await self._js.last(LOG, SENTINEL) is None
