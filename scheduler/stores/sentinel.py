"""The sentinel: tells a purged stream of logs from one in which a single build's log was removed.

It is a record of no build, in the stream from its first use on. A process that misses a log of its own looks
for it: if the sentinel is gone as well, all logs are, and the process ends as for a missing stream.
"""

import secrets
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import Final, NoReturn

import structlog
import trio

from scheduler.errors import BusError, LogMissing, StreamNotFound, WrongLastSequence
from scheduler.jetstream.api import JetStream
from scheduler.jetstream.streams import LOG, REPORTS, SENTINEL, log_subject
from scheduler.journal.records import tombstone
from scheduler.stores.commit_health import CommitHealth, ask_the_log

_log = structlog.get_logger(__name__)

_PERIOD: Final = 10.0
"""Seconds between two looks for the sentinel, while this process has builds."""
_SPOT_CHECKS: Final = 3
"""Logs of this process that are looked for where the stream seems to be purged."""


class Sentinel:
    """Places the sentinel, and looks for it.

    Args:
        js: JetStream with the stream.
        health: takes note that all logs are gone.
        instance: name of this process.
        wall_clock: function that returns seconds since 1970.
        ours: function that returns the builds whose logs are known to have been there.
    """

    def __init__(
        self,
        js: JetStream,
        health: CommitHealth,
        instance: str,
        wall_clock: Callable[[], float],
        ours: Callable[[], Iterable[str]],
    ) -> None:
        self._js = js
        self._health = health
        self._instance = instance
        self._wall_clock = wall_clock
        self._ours = ours
        self._seen = False

    async def place(self) -> None:
        """Write the sentinel unless it is there; several processes may do so at once.

        If that does not work now, `watch` does it later: a service is ready without it.
        """
        try:
            await self._place()
        except BusError as error:
            text = "the log is not marked yet: should it be purged, that is not seen before its next record"
            _log.warning(text, reason=str(error))

    async def watch(self) -> NoReturn:
        """Notice in time that all logs are gone: a build that waits for a reply has nothing to write."""
        while True:
            await trio.sleep(_PERIOD)
            if not any(True for _ in self._ours()):
                continue
            try:
                if not self._seen:
                    await self._place()
                gone = await self._is_gone()
            except StreamNotFound:
                gone = True
            except BusError:
                continue
            if gone and not await self.all_gone():
                self._seen = False

    async def all_gone(self) -> bool:
        """Whether the stream of all logs was purged; if so, this process ends."""
        bus = self._js.bus
        if not await ask_the_log(self._health, bus, self._is_gone):
            return False
        for build in list(islice(self._ours(), _SPOT_CHECKS)):
            look = partial(self._js.last, LOG, log_subject(build))
            if await ask_the_log(self._health, bus, look) is not None:
                return False
        msg = (
            f"the stream {LOG} was purged: no build can be accepted or resumed. Restore it from a backup"
            f" (nats stream restore); or, to forget all builds, purge {REPORTS} as well"
        )
        self._health.missing(LogMissing(msg))
        return True

    async def _place(self) -> None:
        if await self._js.last(LOG, SENTINEL) is None:
            record_id = f"sentinel-{secrets.token_hex(8)}"
            at = int(self._wall_clock() * 1_000)
            data, headers = tombstone(record_id, instance=self._instance, at=at, why="sentinel")
            with suppress(WrongLastSequence):
                await self._js.publish(SENTINEL, data, expected=0, headers=headers)
        self._seen = True

    async def _is_gone(self) -> bool:
        """Whether the sentinel was there, and is no longer."""
        return self._seen and await self._js.last(LOG, SENTINEL) is None
