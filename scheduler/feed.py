"""Tells whoever wants to follow a build what happens in it, on ``scheduler.event.<build>``.

What happened within a tenth of a second travels in one message, so that following a build of thousands
costs it next to nothing. The feed is a courtesy: nothing depends on it, and the report is the truth.
"""

import time
from typing import Any

import structlog
import trio

from scheduler.bus import Bus
from scheduler.codec import encode_token
from scheduler.errors import BusError
from scheduler.model import State
from scheduler.strictjson import encode

_log = structlog.get_logger()

_PERIOD = 0.1
"""Seconds between two messages about one build."""
_MOST = 1_000
"""Events in one message."""
_ERROR_SHOWN = 1_000
"""Characters of an error's text; all of it is in the report."""


class Track:
    """What is to be told of one build; its `note` is a `build.Observer`."""

    def __init__(self, feed: "Feed", build: str, total: int, done: int) -> None:
        self.build = build
        self.total = total
        self.done = done
        """How many changes are completed."""
        self.sequence = 0
        self.events: list[dict[str, Any]] = []
        self._feed = feed
        self._subject = f"scheduler.event.{encode_token(build)}"

    def note(self, component: str, state: State, error: str | None) -> None:
        """A component has a new state."""
        if not self.events:
            self._feed.stir(self)
        event: dict[str, Any] = {"component": component, "state": state.value, "time": time.time()}
        if error is not None:
            event["error"] = error[:_ERROR_SHOWN]
        self.done += state is State.COMPLETED
        self.events.append(event)

    def flush(self, bus: Bus) -> None:
        """Publish what was noted."""
        events, self.events = self.events, []
        for start in range(0, len(events), _MOST):
            self.sequence += 1
            message = {
                "v": 1,
                "build": self.build,
                "seq": self.sequence,
                "time": time.time(),
                "total": self.total,
                "done": self.done,
                "events": events[start : start + _MOST],
            }
            try:
                bus.publish(self._subject, encode(message))
            except BusError as error:
                _log.debug("progress not published", build=self.build, error=str(error))


class Feed:
    """Publishes the progress of all builds of this process."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._stirred: dict[Track, None] = {}
        self._wake = trio.Event()

    def follow(self, build: str, total: int, done: int) -> Track:
        """Begin to tell of a build."""
        return Track(self, build, total, done)

    def stir(self, track: Track) -> None:
        """Something of this build is to be published soon."""
        self._stirred[track] = None
        self._wake.set()

    def close(self, track: Track) -> None:
        """The build is over: publish the rest now, before its report."""
        self._stirred.pop(track, None)
        track.flush(self._bus)

    async def run(self) -> None:
        """Publish from time to time; never returns."""
        while True:
            await self._wake.wait()
            await trio.sleep(_PERIOD)
            # While the broker is away nobody follows; what happens meanwhile is told afterwards.
            if not self._bus.connected:
                continue
            self._wake = trio.Event()
            stirred, self._stirred = self._stirred, {}
            for track in stirred:
                track.flush(self._bus)
                await trio.lowlevel.checkpoint()
