"""How far a build is, from what the scheduler publishes and answers about it. No terminal, no clock.

Events come on ``scheduler.event.<build>`` (WIRE: "Progress"), numbered from 1 for each build. Whoever comes
late, or misses one, takes a *snapshot*, the answer to ``get``, and goes on with the events beyond its number.
"""

import heapq
import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from attrs import define, evolve, field, frozen

from scheduler.client.lenient import number, objects, text, whole
from scheduler.client.timeline import OVER, Span, read_timeline

SLOWEST = 10
"""How many of the slowest components are remembered."""
_UNDER_WAY = ("running", "retrying")
STATES = ("waiting", "running", "retrying", "completed", "errored", "skipped")
"""The states of a component, as events and answers name them."""


@frozen
class Running:
    """A component that was sent and has not been answered."""

    component: str
    since: float
    """By our own clock."""


@frozen
class Retrying:
    """A component that failed and is to be sent again."""

    component: str
    attempt: int
    """The one that failed."""
    at: float | None
    """When it is sent again, by our own clock."""
    error: str


@frozen
class News:
    """Something that happened and may deserve a line."""

    component: str
    """Empty for what concerns the build as a whole."""
    state: str
    """Of the component, or what happened: ``paused``, ``resumed``, ``cancelled``, ``retried``, ..."""
    took: float | None = None
    """Seconds that the attempt took."""
    error: str = ""
    """Its text, for an event of the build what else there is to say."""
    attempt: int = 1
    retry_in: float | None = None
    event: Mapping[str, Any] | None = None
    """As it was published; None for what a snapshot tells, or the report."""
    old: bool = False
    """Whether it is no news: it happened before we came."""


@define
class Progress:
    """How far a build is.

    The counts are always the scheduler's own, and what we did not see is missing at most from the list of
    what runs, until the next snapshot.
    """

    build: str
    action: str
    began: float
    """When it was accepted, or we started to follow, by our own clock."""
    total: int = 0
    counts: dict[str, int] = field(factory=dict)
    """Of each of `STATES`; one that is not there is 0."""
    status: str = "running"
    run: int = 1
    """How often the build was begun; a retry of one that was over begins it again."""
    running: dict[str, Running] = field(factory=dict)
    """In the order in which they were sent: the longest running first."""
    retrying: dict[str, Retrying] = field(factory=dict)
    errors: dict[str, str] = field(factory=dict)
    limits: tuple[tuple[str, int], ...] = ()
    """The limits that are reached, and how many components wait for each."""
    ends: float | None = None
    """When it is expected to end, by our own clock."""
    overdue_since: float | None = None
    """Since when an attempt is late that the end waits for, by our own clock."""
    ended: float | None = None
    error: str | None = None
    """The first cause, once the build has ended with an error."""
    path: tuple[Span, ...] = ()
    """The critical path, where it was told."""
    sequence: int = 0
    """The number of the last event that is known of."""
    source: str = ""
    """Who tells, as far as is known: whoever goes on with the build has other numbers."""
    informed: bool = False
    """Whether we came at the beginning, or have had a snapshot: what the next one tells is news."""
    behind: bool = False
    """Whether something was missed, so that a snapshot is to be taken."""
    away: float | None = None
    """Since when there is no connection to the broker, by our own clock."""
    silent: float | None = None
    """Since when no scheduler has answered or said anything, by our own clock."""
    _as_of: float = float("-inf")
    """The time of that event or of the snapshot, by the scheduler's clock."""
    _expected: int = 0
    """The number that the last summary told; by the next one we should have heard of it."""
    _states: dict[str, str] = field(factory=dict)
    _slowest: list[tuple[float, str]] = field(factory=list)

    def count(self, state: str) -> int:
        """How many components are in a state."""
        if self.counts or state != "waiting":
            return self.counts.get(state, 0)
        return self.total

    @property
    def done(self) -> int:
        """How many are completed."""
        return self.count("completed")

    @property
    def slowest(self) -> list[tuple[float, str]]:
        """Seconds and component of those that took longest, the longest first."""
        return sorted(self._slowest, key=lambda pair: (-pair[0], pair[1]))

    def elapsed(self, now: float) -> float:
        """Seconds since the beginning, up to the end."""
        return (now if self.ended is None else self.ended) - self.began

    def left(self, now: float) -> float | None:
        """Seconds until the expected end; None where nothing is expected, or it is overdue."""
        return self.ends - now if self.ends is not None and self.ends > now and self.ended is None else None

    def overdue(self, now: float) -> float | None:
        """Seconds by which an attempt is late that the end waits for; None where there is none."""
        return None if self.overdue_since is None or self.ended is not None else now - self.overdue_since

    # Events.

    def apply(self, message: Mapping[str, Any], now: float) -> list[News]:
        """Take in one message of ``scheduler.event.<build>`` and say what is new in it.

        Events that are known already are passed over. One that does not follow the last known one says that
        something was missed: it counts all the same, and ``behind`` is set. What cannot be read is passed
        over too: a display is no place to fail.
        """
        at = number(message.get("time"))
        self._hear_of(text(message.get("source")))
        known = self.sequence
        news: list[News] = []
        events = message.get("events")
        for event in events if isinstance(events, list) else ():
            # JSON gives dicts; asking for a Mapping would take as long as all the rest.
            if type(event) is dict and self._is_next(event):
                item = self._apply(event, at, now)
                if item is not None:
                    news.append(item)
        if self.sequence > known:
            self._take_counts(message)
        return news

    def _hear_of(self, source: str) -> None:
        """Another process, or another run, has numbers of its own, and did things that we did not hear of."""
        if source and source != self.source:
            if self.source:
                self.behind, self.sequence, self._expected = True, 0, 0
                self._as_of = float("-inf")
            self.source = source

    def _is_next(self, event: Mapping[str, Any]) -> bool:
        sequence, time = event.get("seq"), number(event.get("time"))
        if type(sequence) is not int:
            return False
        if sequence <= self.sequence:
            # Known; unless it is younger than what we know: another process counts from the start.
            self.behind |= time is not None and time > self._as_of
            return False
        self.behind |= sequence > self.sequence + 1
        self.sequence = sequence
        if time is not None:
            self._as_of = max(self._as_of, time)
        return True

    def _apply(self, event: Mapping[str, Any], at: float | None, now: float) -> News | None:
        component, state, time = event.get("component"), event.get("state"), number(event.get("time"))
        if isinstance(event.get("event"), str):
            return self._apply_to_build(event)
        if not isinstance(component, str) or not isinstance(state, str):
            return None
        # Their clock may be off: what counts is how old the event was when its message was written.
        moment = now - max(0.0, at - time) if at is not None and time is not None else now
        error = text(event.get("error"))
        attempt, retry_in = whole(event.get("attempt"), 1), number(event.get("retry_in"))
        took = number(event.get("seconds"))
        self._move(component, state, moment, error)
        if state == "retrying":
            again = None if retry_in is None else moment + retry_in
            self.retrying[component] = Retrying(component, attempt, again, error)
        if took is not None and state in {"completed", "errored"}:
            self._remember(max(0.0, took), component)
        return News(component, state, took, error, attempt, retry_in, event)

    def _apply_to_build(self, event: Mapping[str, Any]) -> News:
        what = str(event["event"])
        self.status = {"paused": "paused", "cancelled": "halted", "halted": "halted"}.get(what, self.status)
        if what in {"resumed", "retried"}:
            self.status = "running"
        said = (event.get(name) for name in ("component", "text", "reason", "error"))
        parts = [part for part in said if isinstance(part, str) and part]
        return News("", what, error=": ".join(parts), event=event)

    def _move(self, component: str, state: str, moment: float, error: str) -> None:
        self._states[component] = state
        self.running.pop(component, None)
        self.retrying.pop(component, None)
        if state == "running":
            self.running[component] = Running(component, moment)
        if state == "errored":
            self.errors[component] = error or "failed"
        else:
            self.errors.pop(component, None)

    def _remember(self, took: float, component: str) -> None:
        if len(self._slowest) < SLOWEST:
            heapq.heappush(self._slowest, (took, component))
        else:
            heapq.heappushpop(self._slowest, (took, component))

    # Answers.

    def snapshot(self, answer: Mapping[str, Any], now: float) -> list[News]:
        """Take in the whole answer to ``get``, components and all; from here on its number counts.

        Returns:
            What it says of components that we did not know: in the order in which they ended.
        """
        self.behind = False
        old, self.informed = not self.informed, True
        self.source = text(answer.get("source")) or self.source
        self.sequence = self._expected = whole(answer.get("seq"), 0)
        their_now = number(answer.get("now"))
        self._as_of = float("-inf") if their_now is None else their_now
        self._take_summary(answer, now)
        before = self._states
        self._states, self.running, self.retrying, self.errors = {}, {}, {}, {}
        self._slowest = []
        news = []
        components = answer.get("components")
        for one in sorted(objects(components), key=lambda one: number(one.get("sent")) or 0.0):
            item = self._take_component(one, their_now, now)
            if item is not None and before.get(item.component) != item.state and item.state != "waiting":
                news.append((number(one.get("ended")) or math.inf, evolve(item, old=old)))
        return [item for _, item in sorted(news, key=lambda pair: pair[0])]

    def _take_component(self, one: Mapping[str, Any], their_now: float | None, now: float) -> News | None:
        component, state = one.get("id"), one.get("state")
        if not isinstance(component, str) or not isinstance(state, str):
            return None

        def ours(time: float | None) -> float:
            return now if time is None or their_now is None else now - (their_now - time)

        sent, ended, again = (number(one.get(name)) for name in ("sent", "ended", "retry_at"))
        error, attempt = text(one.get("error")), whole(one.get("attempt"), 1)
        self._move(component, state, min(now, ours(sent)), error)
        if state == "retrying":
            at = None if again is None else ours(again)
            self.retrying[component] = Retrying(component, attempt, at, error)
        took = max(0.0, ended - sent) if sent is not None and ended is not None else None
        if took is not None and state in {"completed", "errored"}:
            self._remember(took, component)
        else:
            took = None
        return News(component, state, took, error, attempt)

    def refresh(self, answer: Mapping[str, Any] | None, now: float) -> None:
        """Take in the answer to ``get`` without components; None says that nobody answered."""
        if answer is None:
            self.limits, self.ends, self.overdue_since = (), None, None
            return
        self._hear_of(text(answer.get("source")))
        # What was published before the last question has come in by now, or never will.
        self.behind |= self.sequence < self._expected
        self._expected = whole(answer.get("seq"), 0)
        self._take_summary(answer, now)

    def _take_summary(self, answer: Mapping[str, Any], now: float) -> None:
        status, action, error = (answer.get(name) for name in ("status", "action", "error"))
        self.status = status if isinstance(status, str) else self.status
        self.action = action if isinstance(action, str) and action else self.action
        self.run = whole(answer.get("run"), self.run)
        if whole(answer.get("seq"), 0) >= self.sequence:
            self._take_counts(answer)
        their_now, eta = number(answer.get("now")), number(answer.get("eta"))
        accepted, ended = number(answer.get("accepted")), number(answer.get("ended"))
        if accepted is not None and their_now is not None:
            self.began = now - max(0.0, their_now - accepted)
        # One that is tried again has ended no longer.
        self.ended = None
        if ended is not None and their_now is not None and self.status in OVER:
            self.ended = now - max(0.0, their_now - ended)
        self.error = (text(error) or "the build failed") if self.status in {"errored", "cancelled"} else None
        self.ends = None if eta is None else now + eta
        overdue = number(answer.get("overdue"))
        self.overdue_since = None if overdue is None else now - max(0.0, overdue)
        self.limits = tuple(
            (one["limit"], whole(one.get("waiting"), 0))
            for one in objects(answer.get("limits"))
            if isinstance(one.get("limit"), str)
        )

    def _take_counts(self, answer: Mapping[str, Any]) -> None:
        counts = answer.get("counts")
        if isinstance(counts, Mapping):
            self.counts = {state: max(0, whole(counts.get(state), 0)) for state in STATES}
        self.total = max(whole(answer.get("total"), 0), sum(self.counts.values())) or self.total

    # The end.

    def finish(self, report: Mapping[str, Any], now: float, *, failed: bool) -> list[News]:
        """Take in the report; what it says of the components counts, where it says anything."""
        self.ended = now if self.ended is None else self.ended
        self.status = "errored" if failed else "done"
        self.running.clear()
        self.retrying.clear()
        news = []
        changes = objects(report.get("changes"))
        if isinstance(report.get("changes"), list):
            self.total = len(changes)
            completed = sum(change.get("_state") == "completed" for change in changes)
            errored = sum(change.get("_state") == "errored" for change in changes)
            # A report knows no such state: what was skipped says waiting there.
            skipped = min(self.count("skipped"), self.total - completed - errored)
            waiting = self.total - completed - errored - skipped
            self.counts = dict.fromkeys(STATES, 0) | {
                "waiting": waiting, "completed": completed, "errored": errored, "skipped": skipped
            }  # fmt: skip
            for change in changes:
                component = str(change.get("_component_id"))
                if change.get("_state") == "completed" and self._states.get(component) in _UNDER_WAY:
                    # The word of its end was missed.
                    news.append(News(component, "completed"))
                if change.get("_state") == "errored" and component not in self.errors:
                    self.errors[component] = text(change.get("error")) or "failed"
                    news.append(News(component, "errored", None, self.errors[component]))
        elif not failed and self.done + self.count("skipped") < self.total:
            self.counts = dict.fromkeys(STATES, 0) | {"completed": self.total}
        self.error = (text(report.get("error")) or "the build failed") if failed else None
        return news

    def explain(self, answer: Mapping[str, Any]) -> None:
        """Take in the answer to ``get`` with its graph, after the end: the critical path and the slowest.

        Its error, too: the scheduler knows secrets that the report does not tell.
        """
        if self.error is not None and whole(answer.get("run"), 1) == self.run:
            self.error = text(answer.get("error")) or self.error
        timeline = read_timeline(answer)
        if timeline.spans:
            self.path = timeline.path
            self._slowest = [(span.working, span.component) for span in timeline.slowest(SLOWEST)]


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
