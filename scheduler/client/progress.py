"""Progress of a build, from the events and answers of a scheduler. It knows no terminal and no clock.

Events come on ``scheduler.event.<build>`` (WIRE: "Progress"), numbered from 1 for each build. A watcher that
joins late, or misses events, fetches a *snapshot*, the answer to ``get``, and continues from its number.
"""

import math
from collections.abc import Mapping
from typing import Any

from attrs import define, evolve, field, frozen

from scheduler.client.attempts import SLOWEST, Failing, Running, Slowest, note_beats, read_note
from scheduler.client.counts import GATED, STATES, TAKEN_OVER, counts_of
from scheduler.client.lenient import number, objects, text, whole
from scheduler.client.orders import ToldOrder, read_event, read_order
from scheduler.client.timeline import FINISHED, Span, read_timeline
from scheduler.client.view import News

_UNDER_WAY = ("running", "retrying")
_STATUS_AFTER = {
    "paused": "paused",
    "cancelled": "halted",
    "halted": "halted",
    "resumed": "running",
    "retried": "running",
}
"""Status of a build after an event of it."""


@frozen
class EarlierEnd:
    """End of a build that was over before it was submitted again, so that nothing was sent."""

    ended: float | None
    """Time of its end by the wall clock, in seconds since 1970; None if unknown."""
    now: float
    """Time of this submission, likewise."""
    took: float | None
    """Duration of that run, in seconds; None if unknown."""


@define
class Progress:
    """Progress of a build.

    The counts are always those of the scheduler. Missed events can only leave gaps in the list of running
    components, until the next snapshot.
    """

    build: str
    action: str
    began: float
    """Time at which it was accepted, or we started to follow, our clock, seconds."""
    total: int = 0
    counts: dict[str, int] = field(factory=dict)
    """Number of components by state, of `STATES`; a missing one is 0."""
    status: str = "running"
    run: int = 1
    """Number of the run; a retry of a finished build is a new run."""
    running: dict[str, Running] = field(factory=dict)
    """Running components, the longest running first."""
    retrying: dict[str, Failing] = field(factory=dict)
    errors: dict[str, str] = field(factory=dict)
    gated: int = 0
    """Number of components that wait for a person, by the last summary and the events since."""
    limits: tuple[tuple[str, int], ...] = ()
    """Limits that are reached, and the number of components that wait for each."""
    ends: float | None = None
    """Expected end, our clock, seconds."""
    overdue_since: float | None = None
    """Time since which an attempt that delays the end is late, our clock, seconds."""
    ended: float | None = None
    error: str | None = None
    """First cause, once the build has ended with an error."""
    path: tuple[Span, ...] = ()
    """Critical path, if a scheduler told it."""
    sequence: int = 0
    """Number of the last known event."""
    source: str = ""
    """Origin of the events, if known: another process or run has other numbers."""
    informed: bool = False
    """Whether we know the build from its start or from a snapshot, so that the next snapshot has news."""
    behind: bool = False
    """Whether events were missed, so that a snapshot is needed."""
    away: float | None = None
    """Time since which there is no connection to the broker, our clock, seconds."""
    silent: float | None = None
    """Time since which no scheduler has answered or published anything, our clock, seconds."""
    order: ToldOrder | None = None
    """Order of an operator that the build stands where it does for; else the last one."""
    earlier: EarlierEnd | None = None
    """Set if the build was over before it was submitted."""
    _as_of: float = float("-inf")
    """Time of the last event or snapshot, the scheduler's clock, seconds since 1970."""
    _expected: int = 0
    """Number of the last event by the last summary; we should have that event by the next summary."""
    _states: dict[str, str] = field(factory=dict)
    _slowest: Slowest = field(factory=Slowest)
    _taker: str = ""  # origin of which it was told that it has the build

    def count(self, state: str) -> int:
        """Return the number of components in a state."""
        if self.counts or state != "waiting":
            return self.counts.get(state, 0)
        return self.total

    @property
    def done(self) -> int:
        """Number of completed components."""
        return self.count("completed")

    @property
    def slowest(self) -> list[tuple[float, str]]:
        """Seconds and id of the slowest components, the slowest first."""
        return self._slowest.ranked()

    def elapsed(self, now: float) -> float:
        """Return the seconds from the beginning to the end, or to now."""
        return (now if self.ended is None else self.ended) - self.began

    def left(self, now: float) -> float | None:
        """Return the seconds until the expected end; None if it is unknown or overdue."""
        return self.ends - now if self.ends is not None and self.ends > now and self.ended is None else None

    def overdue(self, now: float) -> float | None:
        """Return the seconds by which an attempt delays the end; None if none does."""
        return None if self.overdue_since is None or self.ended is not None else now - self.overdue_since

    # Events.

    def apply(self, message: Mapping[str, Any], now: float) -> list[News]:
        """Apply one message of ``scheduler.event.<build>`` and return its news.

        Known events are ignored. A gap before an event means that others were missed: the event counts all
        the same, and ``behind`` is set. Events that cannot be read are ignored too: a display must not fail.
        """
        self._note_source(text(message.get("source")))
        at, known = number(message.get("time")), self.sequence
        news: list[News] = []
        events = message.get("events")
        for event in events if isinstance(events, list) else ():
            # JSON makes dicts, and a check for Mapping would take as long as all the rest.
            if type(event) is dict and self._is_next(event):
                item = self._apply(event, at, now)
                if item is not None:
                    news.append(item)
        if self.sequence > known:
            self._take_counts(message)
        note_beats(self.running, message.get("beats"))
        return news

    def _note_source(self, source: str) -> None:
        """Note the origin: another process, or another run, has its own numbers and events unknown to us."""
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
            # Known, unless it is younger than what we know: another process counts from 1 again.
            self.behind |= time is not None and time > self._as_of
            return event.get("event") == TAKEN_OVER and self._taker != self.source  # no snapshot tells it
        self.behind |= sequence > self.sequence + 1
        self.sequence = sequence
        if time is not None:
            self._as_of = max(self._as_of, time)
        return True

    def _apply(self, event: Mapping[str, Any], at: float | None, now: float) -> News | None:
        component, state, time = event.get("component"), event.get("state"), number(event.get("time"))
        if isinstance(event.get("event"), str):
            return self._apply_to_build(event, now)
        if not isinstance(component, str) or not isinstance(state, str):
            return None
        # Their clock may be off; only the event's age when its message was written counts.
        moment = now - max(0.0, at - time) if at is not None and time is not None else now
        error = text(event.get("error"))
        attempt = whole(event.get("attempt"), 1)
        retry_in, took = number(event.get("retry_in")), number(event.get("seconds"))
        self._move(component, state, moment, error)
        if state == "retrying":
            again = None if retry_in is None else moment + retry_in
            self.retrying[component] = Failing(component, attempt, again, error)
        if took is not None and state in {"completed", "errored"}:
            self._slowest.add(max(0.0, took), component)
        return News(component, state, took, error, attempt, retry_in, event)

    def _apply_to_build(self, event: Mapping[str, Any], now: float) -> News:
        what = str(event["event"])
        self._taker = self.source if what == TAKEN_OVER else self._taker
        self.status = _STATUS_AFTER.get(what, self.status)
        self.gated = max(0, self.gated + (what == GATED) - (what in {"approved", "rejected"}))
        self.order = read_event(event, now) or self.order
        said = (text(event.get(name)) for name in ("component", "text", "reason", "error"))
        return News("", what, error=": ".join(filter(None, said)), event=event)

    def _move(self, component: str, state: str, moment: float, error: str, note: str = "") -> None:
        self._states[component] = state
        self.running.pop(component, None)
        self.retrying.pop(component, None)
        if state == "running":
            self.running[component] = Running(component, moment, note)
        if state == "errored":
            self.errors[component] = error or "failed"
        else:
            self.errors.pop(component, None)

    # Answers.

    def snapshot(self, answer: Mapping[str, Any], now: float) -> list[News]:
        """Apply the whole answer to ``get``, with components; events continue from its number.

        Returns:
            News about components, in the order in which they ended.
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
        self._slowest = Slowest()
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
        self._move(component, state, min(now, ours(sent)), error, read_note(one))
        if state == "retrying":
            self.retrying[component] = Failing(component, attempt, again and ours(again), error)
        took = max(0.0, ended - sent) if sent is not None and ended is not None else None
        if took is not None and state in {"completed", "errored"}:
            self._slowest.add(took, component)
        else:
            took = None
        return News(component, state, took, error, attempt)

    def refresh(self, answer: Mapping[str, Any] | None, now: float) -> None:
        """Apply the answer to ``get`` without components; None: no scheduler answered."""
        if answer is None:
            self.limits, self.ends, self.overdue_since = (), None, None
            return
        self._note_source(text(answer.get("source")))
        # Events published before the last question have arrived by now, or never will.
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
            self.gated = max(0, whole(answer.get(GATED), 0))
        their_now, eta = number(answer.get("now")), number(answer.get("eta"))
        accepted, ended = number(answer.get("accepted")), number(answer.get("ended"))
        if accepted is not None and their_now is not None:
            self.began = now - max(0.0, their_now - accepted)
        # A build that was retried is no longer finished.
        self.ended = None
        if ended is not None and their_now is not None and self.status in FINISHED:
            self.ended = now - max(0.0, their_now - ended)
        self.error = (text(error) or "the build failed") if self.status in {"errored", "cancelled"} else None
        self.ends = None if eta is None else now + eta
        self.order = read_order(answer.get("order"), None if their_now is None else their_now - now)
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
        """Apply the report; its components count, if it has any."""
        self.ended = now if self.ended is None else self.ended
        error = text(report.get("error"))
        cancelled = error == "cancelled" or error.startswith("cancelled: ")
        self.status = "done" if not failed else "cancelled" if cancelled else "errored"
        self.running.clear()
        self.retrying.clear()
        self.gated = 0
        news = []
        changes = objects(report.get("changes"))
        if isinstance(report.get("changes"), list):
            self.total = len(changes)
            self.counts = counts_of(changes, self.count("skipped"))
            for change in changes:
                component = str(change.get("_component_id"))
                if change.get("_state") == "completed" and self._states.get(component) in _UNDER_WAY:
                    # The event of its end was missed.
                    news.append(News(component, "completed"))
                if change.get("_state") == "errored" and component not in self.errors:
                    self.errors[component] = text(change.get("error")) or "failed"
                    news.append(News(component, "errored", None, self.errors[component]))
        elif not failed and self.done + self.count("skipped") < self.total:
            self.counts = dict.fromkeys(STATES, 0) | {"completed": self.total}
        self.error = (error or "the build failed") if failed else None
        return news

    def explain(self, answer: Mapping[str, Any]) -> None:
        """Apply the answer to ``get`` with its graph, after the end: the critical path and the slowest.

        Its error counts, too: the scheduler masks secrets that the report does not tell.
        """
        if self.error is not None and whole(answer.get("run"), 1) == self.run:
            self.error = text(answer.get("error")) or self.error
        timeline = read_timeline(answer)
        if timeline.spans:
            self.path = timeline.path
            self._slowest = Slowest(timeline.slowest(SLOWEST))
