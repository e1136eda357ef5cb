"""What a browser says that its frames cost."""

import math
from collections.abc import Callable
from typing import Any

from playwright.sync_api import Page

Event = dict[str, Any]

_CATEGORIES = ["devtools.timeline", "toplevel", "cc"]
_FRAME = "ProxyMain::BeginMainFrame"
"""A frame as its page makes it: callbacks, style, layout, paint, and the hand-over to the compositor."""
_SCRIPT = "FireAnimationFrame"


class Frames:
    """Milliseconds of the frames that a page made: of processor time, whatever else the machine does."""

    def __init__(self, events: list[Event]) -> None:
        threads = [(one["pid"], one["tid"]) for one in events if one["name"] == _SCRIPT]
        page = max(set(threads), key=threads.count)
        own = [one for one in events if (one["pid"], one["tid"]) == page and one.get("ph") == "X"]
        scripts = sorted(one["ts"] for one in own if one["name"] == _SCRIPT)
        # Of those that nothing was drawn in nobody asks.
        self.times = sorted(
            float(one.get("tdur") or one["dur"]) / 1_000
            for one in own
            if one["name"] == _FRAME and any(one["ts"] <= at <= one["ts"] + one["dur"] for at in scripts)
        )

    def __len__(self) -> int:
        return len(self.times)

    def percentile(self, share: float) -> float:
        """Milliseconds that this share of the frames stays below."""
        return self.times[min(len(self.times) - 1, math.ceil(share * len(self.times)) - 1)]


def traced(page: Page, action: Callable[[], None]) -> Frames:
    """Trace the browser while something is done in a page."""
    session = page.context.new_cdp_session(page)
    events: list[Event] = []
    complete: list[Event] = []
    session.on("Tracing.dataCollected", lambda data: events.extend(data["value"]))
    session.on("Tracing.tracingComplete", lambda data: complete.append(data))  # noqa: PLW0108 - it gets an attribute
    config = {"includedCategories": _CATEGORIES}
    session.send("Tracing.start", {"transferMode": "ReportEvents", "traceConfig": config})
    action()
    session.send("Tracing.end")
    while not complete:
        page.wait_for_timeout(50)
    session.detach()
    return Frames(events)


def heap(page: Page) -> float:
    """MiB that the scripts of a page keep, after a collection."""
    session = page.context.new_cdp_session(page)
    session.send("HeapProfiler.enable")
    session.send("HeapProfiler.collectGarbage")
    used: float = session.send("Runtime.getHeapUsage")["usedSize"] / 2**20
    session.detach()
    return used
