"""The keeper of the streams beside the log: makes a stream again that is removed while the service runs.

Its content is lost, which is logged, and its users continue. The log itself is never made again: a new one
would forget every build.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog
import trio

from scheduler.errors import BusError, JetStreamUnavailable, StoreError, StreamNotFound, StreamUnheard
from scheduler.jetstream.api import JetStream
from scheduler.jetstream.setup import make_again
from scheduler.jetstream.streams import StreamLayout
from scheduler.stores.commit_health import SURELY_GONE, CommitHealth, patiently

_log = structlog.get_logger(__name__)

_T = TypeVar("_T")
_PAUSE = 1.0
_REPEAT = 60.0
"""Seconds between two log lines about the same trouble."""


class Keeper:
    """Keeps those streams, for one process.

    Args:
        js: JetStream with the streams.
        health: takes note while JetStream does not answer at all; not while a single stream is missing.
        layout: desired state of the streams.
    """

    def __init__(self, js: JetStream, health: CommitHealth, layout: StreamLayout) -> None:
        self._js = js
        self._health = health
        self._layout = layout
        self._problems: dict[str, str] = {}
        self._locks: dict[str, trio.Lock] = {}
        self._said = -_REPEAT

    def problem(self, stream: str) -> str:
        """Return why a user of the stream has to wait; empty where it need not, as far as is known."""
        return self._problems.get(stream, "")

    async def ask(self, stream: str, ask: Callable[[], Awaitable[_T]], *answers: type[BusError]) -> _T:
        """Ask something of a stream until there is an answer, as `patiently` does.

        Args:
            stream: the name of the stream.
            ask: function that asks once.
            answers: types of errors that count as an answer, and are raised.

        Raises:
            BusClosed, MessageTooLarge: as `patiently`.
        """

        async def once() -> _T:
            try:
                return await ask()
            except StreamUnheard:
                raise
            except JetStreamUnavailable:
                # Another program may listen on its subjects without answering.
                await self._js.info(stream)  # noqa: ASYNC120 - cancelled, it is all the same
                raise

        while True:
            try:
                return await patiently(self._health, once, StreamNotFound, StreamUnheard, *answers)
            except (StreamNotFound, StreamUnheard):
                await self.restore(stream)

    async def restore(self, stream: str) -> None:
        """Return once the stream is there; if it surely is gone, make it again as soon as that works.

        Raises:
            BusClosed, MessageTooLarge: as `patiently`.
        """
        js = self._js
        looks, generation = 0, js.bus.generation
        async with self._locks.setdefault(stream, trio.Lock()):
            try:
                while True:
                    try:
                        await patiently(self._health, lambda: js.info(stream), StreamNotFound)
                    except StreamNotFound:
                        # A server that has just started may not know its streams yet.
                        looks = looks + 1 if generation == js.bus.generation else 1
                        generation = js.bus.generation
                    else:
                        return
                    if looks == 1:
                        self._say(stream, f"the stream {stream} is gone; it is looked for, then made again")
                    if looks >= SURELY_GONE:
                        await self._make(stream)
                    await trio.sleep(_PAUSE)
            finally:
                self._problems.pop(stream, None)

    def _say(self, stream: str, problem: str) -> None:
        self._problems[stream] = problem
        if trio.current_time() - self._said >= _REPEAT:
            self._said = trio.current_time()
            _log.error("a stream is missing: what needs it waits", stream=stream, reason=problem[:1_000])

    async def _make(self, stream: str) -> None:
        try:
            await make_again(self._js, self._layout, stream)
        except (StoreError, BusError) as error:
            self._say(stream, f"the stream {stream} is gone, and cannot be made again: {error}")
        else:
            _log.error("a stream was removed: it was made again, and what it held is lost", stream=stream)
