"""When each component of a build ran, and why the build took as long as it did. Pure.

A component is *due* when the last of its dependencies is done. From then on it waits or works until it has
settled. It works while an attempt is in flight. It waits for another attempt, for the end of an operator's
pause, for the broker while that is away, and otherwise for a slot or a limit. The rest of a build's time is
its dependencies', which is what the critical path shows.
"""

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from functools import cached_property
from typing import Any, TypeAlias

from attrs import frozen

from scheduler.client.lenient import number, objects, text, texts, whole

SETTLED = frozenset({"completed", "errored", "skipped"})
"""States in which a component stays."""
OVER = frozenset({"done", "errored", "cancelled"})
"""What a build is called that has ended."""

Interval: TypeAlias = tuple[float, float]
"""From when to when, in seconds since 1970."""


class Wait(StrEnum):
    """What a component waits for that is due."""

    SLOTS = "slots"
    """A slot or a limit; and, for milliseconds, that its start is persisted."""
    RETRY = "retry"
    """Another attempt: the pause between two."""
    PAUSE = "pause"
    """An operator, who has paused the build."""
    OUTAGE = "outage"
    """The broker, or what keeps the log, which is away."""


@frozen(slots=False)
class Span:
    """The time that one component took; times are seconds since 1970."""

    component: str
    state: str
    due: float
    sent: float
    """When the last attempt left; its end where none is in flight, or ever was."""
    ended: float
    """When it settled; for one that is not there yet, when we looked."""
    needs: tuple[str, ...] = ()
    subject: str = ""
    attempt: int = 1
    error: str = ""
    before: tuple[Interval, ...] = ()
    """The attempts before the last one."""
    parts: tuple[tuple[Wait, Interval], ...] = ()
    """What it waited for and when, in order; what is missing there was a wait for slots."""

    @cached_property
    def attempts(self) -> tuple[Interval, ...]:
        """When its attempts were in flight; of what settled without any, the moment at which it did."""
        if self.ended > self.sent or (self.state in SETTLED and not self.before):
            return (*self.before, (self.sent, self.ended))
        return self.before

    @cached_property
    def working(self) -> float:
        """Seconds that its attempts took."""
        return self.ended - self.sent + sum(end - begin for begin, end in self.before)

    @property
    def waiting(self) -> float:
        """Seconds that it was due and no attempt was in flight."""
        return max(0.0, self.total - self.working)

    @cached_property
    def waits(self) -> dict[Wait, float]:
        """The same by what it waited for."""
        found = dict.fromkeys(Wait, 0.0)
        for kind, (begin, end) in self.parts:
            found[kind] += end - begin
        found[Wait.SLOTS] += max(0.0, self.waiting - sum(found.values()))
        return found

    def waited_for(self, kind: Wait) -> list[Interval]:
        """When it waited for that."""
        if self.parts:
            return [part for found, part in self.parts if found is kind]
        return [(self.due, self.sent)] if kind is Wait.SLOTS and self.sent > self.due else []

    @property
    def total(self) -> float:
        """Seconds from being due to being settled."""
        return self.ended - self.due


@frozen
class Timeline:
    """What happened when, of all components that were ever due."""

    spans: tuple[Span, ...]
    """By the time at which they were due."""
    began: float
    ended: float
    path: tuple[Span, ...]
    """The critical path, first to last: each one was due when the one before it ended."""

    @property
    def seconds(self) -> float:
        """From the first component's being due to the last one's end."""
        return self.ended - self.began

    @property
    def waiting(self) -> float:
        """Seconds of all components together."""
        return sum(span.waiting for span in self.spans)

    @property
    def waits(self) -> dict[Wait, float]:
        """The same by what they waited for."""
        return waits_of(self.spans)

    @property
    def working(self) -> float:
        """Seconds of all components together."""
        return sum(span.working for span in self.spans)

    def slowest(self, count: int) -> list[Span]:
        """Those that worked longest, the longest first."""
        return heapq.nsmallest(count, self.spans, key=lambda span: (-span.working, span.component))

    @property
    def most(self) -> int:
        """How many worked at the same time at most; one that begins when another ends comes after it."""
        changes = [(end, -1) for span in self.spans for begin, end in span.attempts if end > begin]
        changes += [(begin, 1) for span in self.spans for begin, end in span.attempts if end > begin]
        most = working = 0
        for _, change in sorted(changes):
            working += change
            most = max(most, working)
        return most


def waits_of(spans: Iterable[Span]) -> dict[Wait, float]:
    """For what several components waited, in seconds all together."""
    found = dict.fromkeys(Wait, 0.0)
    for span in spans:
        for kind, seconds in span.waits.items():
            found[kind] += seconds
    return found


def read_timeline(answer: Mapping[str, Any]) -> Timeline:
    """The timeline of a build, from the answer to ``get`` with its graph.

    While the build runs, what is not settled has lasted until the answer; once it is over, what never settled
    has no time of its own.

    Times that contradict each other (in the logs of versions whose clocks could be set) are moved as little
    as makes them fit: nothing is sent before it is due, or ends before it was sent.
    """
    now = number(answer.get("now"))
    until = None if answer.get("status") in OVER else now
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
    """Reads components.

    Args:
        now: until when what is not settled has lasted.
        pauses, outages: of the build, in order.
    """

    now: float | None
    pauses: Sequence[Interval]
    outages: Sequence[Interval]

    def span(self, one: Mapping[str, Any]) -> Span | None:
        """A component's; None where it has no time of its own, or it cannot be read."""
        component, state, due = one.get("id"), one.get("state"), number(one.get("due"))
        if not isinstance(component, str) or not isinstance(state, str):
            return None
        sent, ended = number(one.get("sent")), number(one.get("ended"))
        failed = objects(one.get("failed"))
        if due is None:
            # Not due yet, or skipped, or an older scheduler that has no word for it.
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
        if sent > due and (failed or self.pauses or self.outages):
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
            before=before,
            parts=parts,
        )

    def _parts(
        self, due: float, attempts: Sequence[Interval], retries: Sequence[Interval]
    ) -> Iterator[tuple[Wait, Interval]]:
        """What a component waited for, when no attempt was in flight: the first of these that there was."""
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
    """What of the intervals, which are in order, is within two moments, without overlaps."""
    for first, last in intervals:
        begin, end = max(first, low), min(last, high)
        if end > begin:
            yield begin, end
            low = end


def _without(whole_: Interval, parts: Iterable[Interval]) -> list[Interval]:
    """What is left of an interval without some parts of it, which are in order."""
    begin, rest = whole_[0], []
    for first, last in parts:
        if first > begin:
            rest.append((begin, first))
        begin = last
    if whole_[1] > begin:
        rest.append((begin, whole_[1]))
    return rest


def critical_path(spans: Sequence[Span]) -> tuple[Span, ...]:
    """Walk back from the last one that ended, each time to the dependency that ended last.

    That one's end is what made its dependent due: had it ended sooner, so would the build.
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
    """How many components worked at a time, on average within each of so many equal parts of the time.

    Costs a step for each span and column, not for each pair of them.
    """
    width = (ended - began) / columns
    if width <= 0:
        return [0.0] * columns
    # The area of each column, as differences: what begins and ends inside of it, and what crosses it whole.
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
