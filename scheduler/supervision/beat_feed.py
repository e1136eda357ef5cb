"""Publishes what connectors say in heartbeats, beside the events of each build.

It goes out once a second, and only the last of each component. It has no number: whoever misses it gets the
next one, or the snapshot. A heartbeat that says nothing new is not published.
"""

from typing import Any, Final, Protocol

import msgspec
import trio

from scheduler.bus import Bus
from scheduler.dispatch.call import Call
from scheduler.journal.timings import Timings
from scheduler.plan import Plan
from scheduler.runtime.pace import paced

_PERIOD: Final = 1.0
"""Seconds between two messages about one build."""
_MOST: Final = 500
"""Components in one message."""
_MESSAGE_SHOWN: Final = 200
"""Characters shown of what a connector says; `get` has all of it."""
_AT_ONCE: Final = 50
"""Heartbeats that are looked at before others have a turn: a millisecond or two."""


class Told(Protocol):
    """Track of a build that messages are about; see `feed.Track`."""

    plan: Plan
    timings: Timings
    sequence: int

    def publish(self, bus: Bus, sequence: int, **parts: Any) -> None:
        """Publish a message about the build."""


class BeatEvent(msgspec.Struct, omit_defaults=True, gc=False):
    """Last word of the connector of a component, as it is published."""

    component: str
    attempt: int
    time: float
    progress: float | None = None
    message: str | None = None
    instance: str | None = None


class BeatFeed:
    """Publishes what connectors say of all builds of this process.

    Args:
        bus: connection.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._news: dict[Told, dict[Call, None]] = {}
        """Attempts of which there is something new, by build."""
        self._wake = trio.Event()

    def note(self, track: Told, call: Call) -> None:
        """Let what the connector of an attempt says be published within a second."""
        self._news.setdefault(track, {})[call] = None
        self._wake.set()

    def close(self, track: Told) -> None:
        """Publish nothing more about a build that has ended. Idempotent."""
        self._news.pop(track, None)

    async def run(self) -> None:
        """Publish once a second; never returns."""
        while True:
            await self._wake.wait()
            await trio.sleep(_PERIOD)
            if not self._bus.connected:
                continue
            self._wake = trio.Event()
            await self._publish()

    async def _publish(self) -> None:
        # In a function of its own, so that no track is kept alive while there is nothing new.
        news, self._news = self._news, {}
        for track, calls in news.items():
            beats: list[BeatEvent] = []
            async for call in paced(calls, every=_AT_ONCE):
                if (beat := _beat(track, call)) is not None:
                    beats.append(beat)
                if len(beats) == _MOST:
                    track.publish(self._bus, track.sequence, events=[], beats=beats)
                    beats = []
            if beats:
                track.publish(self._bus, track.sequence, events=[], beats=beats)
            await trio.lowlevel.checkpoint()


def _beat(track: Told, call: Call) -> BeatEvent | None:
    """Return the last word on an attempt; None where it has ended."""
    pulse, request = call.pulse, call.request
    if pulse is None or pulse.heard is None or call.answered:
        return None
    time = track.timings.clock() - (trio.current_time() - pulse.heard)
    masked = track.plan.texts.masked
    return BeatEvent(
        request.component,
        request.started.failed + 1,
        time,
        pulse.progress,
        masked(pulse.message, _MESSAGE_SHOWN) or None,
        masked(pulse.instance) or None,
    )
