"""Keeps recorded durations over a restart, as one object beside the logs."""

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
"""Seconds between two writings: durations recorded since are lost with the process, and recorded again."""
_DEADLINE = 10.0
_MOST_BYTES = 8 * 1024 * 1024


class Experience:
    """Durations from earlier processes, and for the next one.

    They help priorities and predictions: that they cannot be read or written does no harm.

    Args:
        store: store with the object.
        durations: durations to be kept.
    """

    def __init__(self, store: JetStreamStore, durations: Durations) -> None:
        self._store = store
        self._durations = durations

    async def run(self) -> NoReturn:
        """Restore the durations, then write them from time to time; never returns."""
        await self.restore()
        while True:
            await trio.sleep(_PERIOD)
            await self.keep()

    async def restore(self) -> None:
        """Restore the durations that were kept."""
        try:
            with trio.fail_after(_DEADLINE):
                data = await self._store.objects.get(OBJECT, most=_MOST_BYTES)
            if data is not None:
                self._durations.restore(decode(data))
        except (BusError, InvalidJSON, trio.TooSlowError) as error:
            _log.info("durations of earlier builds are not known", reason=str(error))

    async def keep(self) -> None:
        """Write the durations, if any are new."""
        if not self._durations.changed:
            return
        try:
            with trio.fail_after(_DEADLINE):
                await self._store.objects.put(OBJECT, encode(dict(self._durations.recorded())))
        except (BusError, trio.TooSlowError) as error:
            _log.info("durations could not be kept for now", reason=str(error))
        else:
            self._durations.changed = False
