"""Keeps what was learnt of durations over a restart: as one object, beside the logs."""

from typing import Final, NoReturn

import structlog
import trio

from scheduler.definition.strictjson import decode, encode
from scheduler.errors import BusError, InvalidJSON
from scheduler.forecast.durations import Durations
from scheduler.stores.jetstream import JetStreamStore

_log = structlog.get_logger()

OBJECT: Final = "scheduler.durations.json"
"""The name of the object."""
_PERIOD = 60.0
"""Seconds between two writings: what was learnt since is lost with the process, and learnt again."""
_DEADLINE = 10.0
_MOST_BYTES = 8 * 1024 * 1024


class Experience:
    """What earlier processes learnt, and what the next one is to know.

    It is a help for priorities and predictions: that it cannot be read or written harms nobody.

    Args:
        store: has a place for it.
        durations: what is to be kept.
    """

    def __init__(self, store: JetStreamStore, durations: Durations) -> None:
        self._store = store
        self._durations = durations

    async def run(self) -> NoReturn:
        """Recall it, then write it from time to time; never returns."""
        await self.restore()
        while True:
            await trio.sleep(_PERIOD)
            await self.keep()

    async def restore(self) -> None:
        """Take in what was kept."""
        try:
            with trio.fail_after(_DEADLINE):
                data = await self._store.objects.get(OBJECT, most=_MOST_BYTES)
            if data is not None:
                self._durations.restore(decode(data))
        except (BusError, InvalidJSON, trio.TooSlowError) as error:
            _log.info("durations of earlier builds are not known", reason=str(error))

    async def keep(self) -> None:
        """Write it, if there is anything new in it."""
        if not self._durations.changed:
            return
        try:
            with trio.fail_after(_DEADLINE):
                await self._store.objects.put(OBJECT, encode(dict(self._durations.recorded())))
        except (BusError, trio.TooSlowError) as error:
            _log.info("durations could not be kept for now", reason=str(error))
        else:
            self._durations.changed = False
