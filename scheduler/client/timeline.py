"""Timeline of a build: when each component ran, and what took the time. Pure.

A component is *due* when the last of its dependencies has completed. From then on it waits or works until it
is settled. It works while an attempt is in flight. It waits for the next attempt, for the end of an
operator's pause, for the broker during an outage, and otherwise for a slot or a limit. The rest of a build's
time belongs to its dependencies, and the critical path shows it.
"""

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from functools import cached_property
from typing import Any, TypeAlias

from attrs import frozen

from scheduler.client.lenient import number, objects, text, texts, whole
from scheduler.text import so_far

SETTLED = frozenset({"completed", "errored", "skipped"})
"""Final states of a component."""
FINISHED = frozenset({"done", "errored", "cancelled"})
"""Statuses of a finished build."""

Interval: TypeAlias = tuple[float, float]
"""Beginning and end, in seconds since 1970."""


class Wait(StrEnum):
    """Reason for which a component that is due waits."""

    SLOTS = "slots"
    """A slot or a limit; and, for milliseconds, the commit of its start."""
    RETRY = "retry"
    """The next attempt: the pause between two."""
    PAUSE = "pause"
    """An operator's pause of the build."""
    OUTAGE = "outage"
    """An outage of the broker, or of the store."""
    APPROVAL = "approval"
    """A person who approves."""


@frozen(slots=False)
class Span:
    """Times of one component, in seconds since 1970."""

    component: str
    state: str
    due: float
    sent: float
    """Start of the last attempt; the component's end if none was ever sent."""
    ended: float
    """Time at which it settled; if it has not, the time of the answer."""
    needs: tuple[str, ...] = ()
    subject: str = ""
    attempt: int = 1
    error: str = ""
    note: str = ""
    """Last word of its connector, while it works."""
    before: tuple[Interval, ...] = ()
    """Attempts before the last one."""
    parts: tuple[tuple[Wait, Interval], ...] = ()
    """Reasons and times of its waits, in order; gaps are waits for slots."""

    @cached_property
    def attempts(self) -> tuple[Interval, ...]:
        """Times at which attempts were in flight; if there was none, the moment at which it settled."""
        if self.ended > self.sent or (self.state in SETTLED and not self.before):
            return (*self.before, (self.sent, self.ended))
        return self.before

    @cached_property
    def working(self) -> float:
        """Seconds with an attempt in flight."""
        return self.ended - self.sent + sum(end - begin for begin, end in self.before)

    @property
    def waiting(self) -> float:
        """Seconds due without an attempt in flight."""
        return max(0.0, self.total - self.working)

    @cached_property
    def waits(self) -> dict[Wait, float]:
        """Seconds of waiting by reason."""
        found = dict.fromkeys(Wait, 0.0)
        for kind, (begin, end) in self.parts:
            found[kind] += end - begin
        found[Wait.SLOTS] += max(0.0, self.waiting - sum(found.values()))
        return found

    def waited_for(self, kind: Wait) -> list[Interval]:
        """Return the times at which it waited for this reason."""
        if self.parts:
            return [part for found, part in self.parts if found is kind]
        return [(self.due, self.sent)] if kind is Wait.SLOTS and self.sent > self.due else []

    @property
    def total(self) -> float:
        """Seconds from due to settled."""
        return self.ended - self.due


@frozen
class Timeline:
    """Times of all components that were ever due."""

    spans: tuple[Span, ...]
    """Components, by the time at which they were due."""
    began: float
    ended: float
    path: tuple[Span, ...]
    """Critical path, first to last: each was due when the one before it ended."""

    @property
    def seconds(self) -> float:
        """Seconds from the first component due to the last one's end."""
        return self.ended - self.began

    @property
    def waiting(self) -> float:
        """Seconds of waiting, all components together."""
        return sum(span.waiting for span in self.spans)

    @property
    def waits(self) -> dict[Wait, float]:
        """Seconds of waiting by reason, all components together."""
        return waits_of(self.spans)

    @property
    def working(self) -> float:
        """Seconds of work, all components together."""
        return sum(span.working for span in self.spans)

    def slowest(self, count: int) -> list[Span]:
        """Return the components that worked longest, the longest first."""
        return heapq.nsmallest(count, self.spans, key=lambda span: (-span.working, span.component))

    @property
    def most(self) -> int:
        """Largest number at work at a time; one that begins when another ends comes after it."""
        changes = [(end, -1) for span in self.spans for begin, end in span.attempts if end > begin]
        changes += [(begin, 1) for span in self.spans for begin, end in span.attempts if end > begin]
        most = working = 0
        for _, change in sorted(changes):
            working += change
            most = max(most, working)
        return most


def waits_of(spans: Iterable[Span]) -> dict[Wait, float]:
    """Sum the waits of several components by reason, in seconds."""
    found = dict.fromkeys(Wait, 0.0)
    for span in spans:
        for kind, seconds in span.waits.items():
            found[kind] += seconds
    return found


def read_timeline(answer: Mapping[str, Any]) -> Timeline:
    """Read the timeline of a build from the answer to ``get`` with its graph.

    While the build runs, a component that is not settled lasts until the answer. Once the build is finished,
    a component that never settled has no times.

    Times can contradict each other in the logs of earlier versions, whose clocks could be set. They are moved
    as little as possible: nothing is sent before it is due, or ends before it was sent.
    """
    now = number(answer.get("now"))
    until = None if answer.get("status") in FINISHED else now
    reader = _Reader(
        until,
        list(_intervals(answer.get("pauses"), "began", "ended", until)),
        list(_intervals(answer.get("outages"), "began", "ended", until)),
    )
    components = objects(answer.get("components"))
    spans = [span for one in components if (span := reader.span(one)) is not None]
    spans.sort(key=lambda span: (span.due, span.ended, span.component))
    if not spans:
        return Timeline((), now or 0.0, now or 0.0, ())
    began, ended = spans[0].due, max(span.ended for span in spans)
    return Timeline(tuple(spans), began, ended, critical_path(spans))


def _intervals(value: Any, begin: str, end: str, otherwise: float | None = None) -> Iterator[Interval]:
    for one in objects(value):
        first, last = number(one.get(begin)), number(one.get(end))
        last = otherwise if last is None else last
        if first is not None and last is not None and last >= first:
            yield first, last


@frozen
class _Reader:
    """Reader of components.

    Args:
        now: the end of what is not settled, seconds since 1970; None if that has no times.
        pauses, outages: those of the build, in order.
    """

    now: float | None
    pauses: Sequence[Interval]
    outages: Sequence[Interval]

    def span(self, one: Mapping[str, Any]) -> Span | None:
        """Read a component's times; None if it has none, or they cannot be read."""
        component, state, due = one.get("id"), one.get("state"), number(one.get("due"))
        if not isinstance(component, str) or not isinstance(state, str):
            return None
        sent, ended = number(one.get("sent")), number(one.get("ended"))
        failed = objects(one.get("failed"))
        if due is None:
            # Not due yet, or skipped, or from an older scheduler, which does not tell it.
            due = sent if sent is not None else ended if state == "completed" else None
        if ended is None and state not in SETTLED:
            ended = self.now
        if due is None or ended is None:
            return None
        ended = max(due, ended)
        sent = ended if sent is None else min(max(sent, due), ended)
        before = tuple(_clipped(_intervals(failed, "sent", "failed"), due, sent)) if failed else ()
        busy = (*before, (sent, ended))
        parts: tuple[tuple[Wait, Interval], ...] = ()
        if one.get("gate") is True and sent > due:
            # Neither a pause nor an outage keeps a person from deciding.
            parts = ((Wait.APPROVAL, (due, sent)),)
        elif sent > due and (failed or self.pauses or self.outages):
            retries = tuple(_clipped(_intervals(failed, "failed", "again"), due, sent))
            parts = tuple(self._parts(due, busy, retries))
        return Span(
            component=component,
            state=state,
            due=due,
            sent=sent,
            ended=ended,
            needs=tuple(texts(one.get("needs"))),
            subject=text(one.get("subject")),
            attempt=whole(one.get("attempt"), 1),
            error=text(one.get("error")),
            note=so_far(number(one.get("progress")), text(one.get("message"))),
            before=before,
            parts=parts,
        )

    def _parts(
        self, due: float, attempts: Sequence[Interval], retries: Sequence[Interval]
    ) -> Iterator[tuple[Wait, Interval]]:
        """Find the reasons of waits without an attempt in flight; the first reason that applies counts."""
        gaps = [(due, due)]
        for begin, end in attempts:
            gaps[-1] = (gaps[-1][0], begin)
            gaps.append((end, end))
        left: Sequence[Interval] = [gap for gap in gaps if gap[1] > gap[0]]
        found: list[tuple[Wait, Interval]] = []
        for kind, reasons in ((Wait.RETRY, retries), (Wait.PAUSE, self.pauses), (Wait.OUTAGE, self.outages)):
            rest: list[Interval] = []
            for gap in left:
                inside = list(_clipped(reasons, *gap))
                found += [(kind, part) for part in inside]
                rest += _without(gap, inside)
            left = rest
        found += [(Wait.SLOTS, gap) for gap in left]
        yield from sorted(found, key=lambda part: part[1])


def _clipped(intervals: Iterable[Interval], low: float, high: float) -> Iterator[Interval]:
    """Cut intervals, which are in order, to those between two moments, without overlaps."""
    for first, last in intervals:
        begin, end = max(first, low), min(last, high)
        if end > begin:
            yield begin, end
            low = end


def _without(whole_: Interval, parts: Iterable[Interval]) -> list[Interval]:
    """Remove parts, which are in order, from an interval."""
    begin, rest = whole_[0], []
    for first, last in parts:
        if first > begin:
            rest.append((begin, first))
        begin = last
    if whole_[1] > begin:
        rest.append((begin, whole_[1]))
    return rest


def critical_path(spans: Sequence[Span]) -> tuple[Span, ...]:
    """Find the critical path: from the last component to end back, each time to the last dependency to end.

    The end of that dependency made its dependent due: had it ended sooner, so would the build.
    """
    by_name = {span.component: span for span in spans}
    path: list[Span] = []
    seen: set[str] = set()
    current = max(spans, key=_by_end, default=None)
    while current is not None and current.component not in seen:
        path.append(current)
        seen.add(current.component)
        needed = (by_name[need] for need in current.needs if need in by_name)
        current = max(needed, key=_by_end, default=None)
    return tuple(reversed(path))


def _by_end(span: Span) -> tuple[float, str]:
    return span.ended, span.component


def histogram(spans: Iterable[Span], began: float, ended: float, columns: int) -> list[float]:
    """Return the average number of components at work in each of ``columns`` equal parts of the time.

    It costs a step for each span and each column, not for each pair of them.
    """
    width = (ended - began) / columns
    if width <= 0:
        return [0.0] * columns
    # The area of each column, as differences: spans that begin or end inside it, and spans that cross it.
    area, level = [0.0] * (columns + 1), [0.0] * (columns + 2)
    for span in spans:
        for moment, sign in (
            (time, sign) for part in span.attempts for time, sign in zip(part, (1.0, -1.0), strict=True)
        ):
            place = min(max((moment - began) / width, 0.0), float(columns))
            column = min(int(place), columns - 1)
            area[column] += sign * (column + 1 - place)
            level[column + 1] += sign
    heights, crossing = [], 0.0
    for column in range(columns):
        crossing += level[column]
        heights.append(max(0.0, area[column] + crossing))
    return heights
