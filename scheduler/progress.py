"""How far a build is, learnt from what the scheduler publishes about it. Pure: no terminal, no clock."""

import heapq
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from attrs import define, field, frozen

SLOWEST = 5
"""How many of the slowest components are remembered."""


@frozen
class Running:
    """A component that was sent and has not been answered."""

    component: str
    since: float
    """By our own clock."""


@frozen
class News:
    """Something that happened and may deserve a line."""

    component: str
    state: str
    took: float | None = None
    """Seconds from being sent to being answered, where we saw both."""
    error: str = ""


@define
class Progress:
    """How far a build is, from what the scheduler published about it.

    Messages may be lost: the scheduler's own totals count, and what we did not see is missing at most
    from the list of what runs.
    """

    build: str
    action: str
    began: float
    """When we started to follow, by our own clock."""
    total: int = 0
    done: int = 0
    running: dict[str, Running] = field(factory=dict)
    """In the order in which they were sent: the longest running first."""
    errors: dict[str, str] = field(factory=dict)
    ended: float | None = None
    error: str | None = None
    """The first cause, once the build has ended with an error."""
    _sent: dict[str, float] = field(factory=dict)
    _slowest: list[tuple[float, str]] = field(factory=list)

    @property
    def waiting(self) -> int:
        """The components that are neither running nor settled."""
        return max(0, self.total - self.done - len(self.running) - len(self.errors))

    @property
    def slowest(self) -> list[tuple[float, str]]:
        """Seconds and component of those that took longest, the longest first."""
        return sorted(self._slowest, key=lambda pair: (-pair[0], pair[1]))

    def elapsed(self, now: float) -> float:
        """Seconds since we started to follow, up to the end."""
        return (now if self.ended is None else self.ended) - self.began

    def apply(self, message: Mapping[str, Any], now: float) -> list[News]:
        """Take in one message of ``scheduler.event.<build>`` and say what is new in it.

        What cannot be read is passed over: a display is no place to fail.
        """
        at = _number(message.get("time"))
        self.total = max(self.total, int(_number(message.get("total")) or 0))
        news: list[News] = []
        events = message.get("events")
        for event in events if isinstance(events, list) else ():
            if isinstance(event, Mapping) and isinstance(event.get("component"), str):
                news.extend(self._apply(event, at, now))
        # Theirs counts those as well that we missed, and those that were completed from the start.
        self.done = max(self.done, min(self.total, int(_number(message.get("done")) or 0)))
        return news

    def _apply(self, event: Mapping[str, Any], at: float | None, now: float) -> Iterator[News]:
        component, state = event["component"], event.get("state")
        time = _number(event.get("time"))
        if state == "running":
            self.errors.pop(component, None)
            # Their clock may be off: what counts is how old the event was when its message was written.
            age = at - time if at is not None and time is not None else 0.0
            self.running[component] = Running(component, now - max(0.0, age))
            if time is not None:
                self._sent[component] = time
        elif state == "waiting":
            self.running.pop(component, None)
            self._sent.pop(component, None)
        elif state in {"completed", "errored"}:
            self.running.pop(component, None)
            sent = self._sent.pop(component, None)
            took = max(0.0, time - sent) if sent is not None and time is not None else None
            if took is not None:
                self._remember(took, component)
            if state == "completed":
                self.done += 1
                yield News(component, state, took)
            else:
                text = event.get("error")
                text = text if isinstance(text, str) and text else "failed"
                self.errors[component] = text
                yield News(component, state, took, text)

    def _remember(self, took: float, component: str) -> None:
        if len(self._slowest) < SLOWEST:
            heapq.heappush(self._slowest, (took, component))
        else:
            heapq.heappushpop(self._slowest, (took, component))

    def finish(self, report: Mapping[str, Any], now: float, *, failed: bool) -> list[News]:
        """Take in the report; what it says of the components counts, where it says anything."""
        self.ended = now
        self.running.clear()
        news = []
        changes = report.get("changes")
        if isinstance(changes, list):
            changes = [change for change in changes if isinstance(change, Mapping)]
            self.total = len(changes)
            self.done = sum(change.get("_state") == "completed" for change in changes)
            for change in changes:
                component = str(change.get("_component_id"))
                if change.get("_state") == "errored" and component not in self.errors:
                    self.errors[component] = str(change.get("error") or "failed")
                    news.append(News(component, "errored", None, self.errors[component]))
        elif not failed:
            self.done = self.total
        if failed:
            self.error = str(report.get("error") or "the build failed")
        return news


def _number(value: Any) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


class View(Protocol):
    """Shows a build's progress to somebody."""

    def start(self) -> None:
        """Begin; whoever begins also calls ``stop``."""

    def update(self, news: Sequence[News], now: float) -> None:
        """Show what is new, and the passage of time."""

    def note(self, text: str) -> None:
        """Say something beside the build, on a line of its own."""

    def stop(self) -> None:
        """Leave the terminal as it was; idempotent."""

    def summary(self, now: float) -> None:
        """Say how it ended, after ``stop``."""
