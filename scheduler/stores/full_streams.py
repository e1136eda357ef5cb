"""Warnings about captured replies that leave a full stream early: a heavy sender costs the others."""

from collections.abc import Callable, Iterable
from typing import Final, NoReturn

import structlog
import trio

from scheduler.errors import BusError
from scheduler.jetstream.api import JetStream

_log = structlog.get_logger(__name__)

_PERIOD: Final = 60.0
"""Seconds between two looks, and so the shortest time between two lines about one stream."""
_YOUNG: Final = 3_600.0
"""Seconds for which each reply should be kept, however long a scheduler is away."""
_CURE: Final = (
    "raise --reply-bytes, or give providers streams of their own (--capture-providers); look for a"
    " connector that sends many replies for which no build waits"
)


class Discards:
    """Watches the streams of replies.

    Args:
        js: JetStream with the streams.
        streams: function that returns their names.
        wall_clock: function that returns seconds since 1970.
    """

    def __init__(
        self, js: JetStream, streams: Callable[[], Iterable[str]], wall_clock: Callable[[], float]
    ) -> None:
        self._js = js
        self._streams = streams
        self._wall_clock = wall_clock
        self._first: dict[str, int] = {}

    async def run(self) -> NoReturn:
        """Look from time to time; never returns."""
        while True:
            for stream in list(self._streams()):
                try:
                    await self._look(stream)
                except BusError as error:
                    _log.debug("a stream of replies cannot be looked at", stream=stream, reason=str(error))
            await trio.sleep(_PERIOD)

    async def _look(self, stream: str) -> None:
        info = await self._js.info(stream)
        before = self._first.get(stream)
        self._first[stream] = info.first_sequence
        if before is None or info.first_sequence <= max(before, 1) or not info.messages:
            return
        oldest = await self._js.get(stream, info.first_sequence)
        # The discarded replies were hardly older than the oldest one now.
        age = None if oldest is None else self._wall_clock() - oldest.time / 1e9
        if age is not None and age < _YOUNG:
            _log.warning(
                "captured replies are discarded that are less than an hour old: the stream is full",
                stream=stream,
                discarded=info.first_sequence - max(before, 1),
                oldest_seconds=max(0, round(age)),
                bytes=info.bytes,
                cure=_CURE,
            )
