"""Tells connectors which attempts were given up, so that they need not finish them.

Nothing waits for that, and nothing follows from it here: a reply that comes nevertheless counts as ever.
"""

from collections import deque
from typing import Final, NoReturn

import msgspec
import trio

from scheduler.bus import Bus
from scheduler.errors import BusError
from scheduler.plan import Request
from scheduler.plan.outcome import cut
from scheduler.runtime.log_limits import RateLimitedLog

CANCEL: Final = "scheduler.cancel."
"""Beginning of the subjects for attempts that were given up; the request's own subject follows."""
_MOST: Final = 10_000
"""Attempts that wait to be told of: more than can be in flight by default. Each takes some hundred bytes, as
requests are not kept; at most 5 KiB."""
_AT_ONCE: Final = 100
"""Messages that are published before others have a turn: a millisecond or two."""
_REASON: Final = 1_024
"""Bytes of a reason."""


class GivenUp(msgspec.Struct, gc=False):
    """Message about one attempt."""

    attempt: str
    """Its id: the header ``Nats-Msg-Id`` of its request, decoded."""
    key: str
    """Key of its component: the header ``Scheduler-Component-Key``, decoded."""
    build: str
    component: str
    reason: str


class Cancelling:
    """Messages about attempts that were given up; `run` has to be running.

    Args:
        bus: connection on which they are published.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._queue: deque[tuple[str, GivenUp]] = deque()
        """Subjects of requests, and what is to be said."""
        self._wake = trio.Event()
        self._log = RateLimitedLog()

    def tell(self, request: Request, reason: str) -> None:
        """Publish soon that an attempt was given up; synchronous, and never raises."""
        if len(self._queue) >= _MOST:
            self._log.warning(
                "connectors are not told of attempts that were given up: too many at a time", most=_MOST
            )
            return
        reason = cut(reason, _REASON)
        told = GivenUp(request.attempt, request.key, request.build, request.component, reason)
        self._queue.append((request.subject, told))
        self._wake.set()

    async def run(self) -> NoReturn:
        """Publish what is to be said, in order; never returns."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            while self._queue:
                self._publish_some()
                await trio.lowlevel.checkpoint()

    def _publish_some(self) -> None:
        for _ in range(min(_AT_ONCE, len(self._queue))):
            subject, told = self._queue.popleft()
            try:
                self._bus.publish(CANCEL + subject, msgspec.json.encode(told))
            except BusError as error:
                self._log.warning(
                    "a connector is not told that an attempt was given up",
                    build=told.build,
                    component=told.component,
                    reason=str(error),
                )
