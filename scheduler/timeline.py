"""When each component of a build ran, and why the build took as long as it did. Pure.

A component is *due* when the last of its dependencies is done. From then until it leaves it waits: for a
slot, a limit, a pause, and where it was tried again, for the attempts before the last. From then until it has
settled it works. The rest of a build's time is its dependencies', which is what the critical path shows.
"""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from attrs import frozen

from scheduler.loose import number, objects, text, texts, whole

SETTLED = frozenset({"completed", "errored", "skipped"})
"""States in which a component stays."""
OVER = frozenset({"done", "errored", "cancelled"})
"""What a build is called that has ended."""
_MICROSECONDS = 1_000_000


@frozen
class Span:
    """The time that one component took; times are seconds since 1970."""

    component: str
    state: str
    due: float
    sent: float
    """When the last attempt left; its end where none ever did."""
    ended: float
    """When it settled; for one that is not there yet, when we looked."""
    needs: tuple[str, ...] = ()
    subject: str = ""
    attempt: int = 1
    error: str = ""

    @property
    def waiting(self) -> float:
        """Seconds that it was due and had not left."""
        return self.sent - self.due

    @property
    def working(self) -> float:
        """Seconds that the last attempt took."""
        return self.ended - self.sent

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
    def working(self) -> float:
        """Seconds of all components together."""
        return sum(span.working for span in self.spans)

    def slowest(self, count: int) -> list[Span]:
        """Those that worked longest, the longest first."""
        return heapq.nsmallest(count, self.spans, key=lambda span: (-span.working, span.component))

    @property
    def most(self) -> int:
        """How many worked at the same time at most."""
        return len(pack([(span.sent, span.ended) for span in self.spans if span.ended > span.sent])[1])


def read_timeline(answer: Mapping[str, Any]) -> Timeline:
    """The timeline of a build, from the answer to ``get`` with its graph.

    While the build runs, what is not settled has lasted until the answer; once it is over, what never settled
    has no time of its own.

    Times that contradict each other (clocks are set, processes follow one another) are moved as little as
    makes them fit: nothing is sent before it is due, or ends before it was sent.
    """
    now = number(answer.get("now"))
    until = None if answer.get("status") in OVER else now
    components = objects(answer.get("components"))
    spans = [span for one in components if (span := _read_span(one, until)) is not None]
    spans.sort(key=lambda span: (span.due, span.ended, span.component))
    if not spans:
        return Timeline((), now or 0.0, now or 0.0, ())
    began, ended = spans[0].due, max(span.ended for span in spans)
    return Timeline(tuple(spans), began, ended, critical_path(spans))


def _read_span(one: Mapping[str, Any], now: float | None) -> Span | None:
    component, state, due = one.get("id"), one.get("state"), number(one.get("due"))
    if not isinstance(component, str) or not isinstance(state, str):
        return None
    sent, ended = number(one.get("sent")), number(one.get("ended"))
    if due is None:
        # Not due yet, or skipped, or an older scheduler that has no word for it.
        due = sent if sent is not None else ended if state == "completed" else None
    if ended is None and state not in SETTLED:
        ended = now
    if due is None or ended is None:
        return None
    ended = max(due, ended)
    sent = ended if sent is None else min(max(sent, due), ended)
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
    )


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


def pack(intervals: Sequence[tuple[float, float]]) -> tuple[list[int], list[float]]:
    """Give each interval a lane, so that no two in a lane overlap, with as few lanes as there can be.

    Intervals that only touch share a lane.

    Returns:
        The lane of each interval, from 0; and when the last one of each lane ends.
    """
    lanes = [0] * len(intervals)
    ends: list[float] = []
    free: list[int] = []
    busy: list[tuple[float, int]] = []
    for index in sorted(range(len(intervals)), key=intervals.__getitem__):
        begin, end = intervals[index]
        while busy and busy[0][0] <= begin:
            heapq.heappush(free, heapq.heappop(busy)[1])
        if free:
            lane = heapq.heappop(free)
        else:
            lane = len(ends)
            ends.append(end)
        ends[lane] = end
        lanes[index] = lane
        heapq.heappush(busy, (end, lane))
    return lanes, ends


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
        for moment, sign in ((span.sent, 1.0), (span.ended, -1.0)):
            place = min(max((moment - began) / width, 0.0), float(columns))
            column = min(int(place), columns - 1)
            area[column] += sign * (column + 1 - place)
            level[column + 1] += sign
    heights, crossing = [], 0.0
    for column in range(columns):
        crossing += level[column]
        heights.append(max(0.0, area[column] + crossing))
    return heights


def trace(timeline: Timeline, build: str) -> list[dict[str, Any]]:
    """The timeline as Perfetto and chrome://tracing open it: the JSON array of the Trace Event Format.

    Three tracks, shown as processes: the critical path, what worked, and what waited. Complete events (``X``)
    of a thread must nest or follow one another, so that what overlaps is put into different ones. Times are
    whole microseconds from the beginning.
    https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
    """
    spans = timeline.spans
    working = [span for span in spans if span.ended > span.sent]
    waiting = [span for span in spans if span.sent > span.due]
    events: list[dict[str, Any]] = []

    def moment(time: float) -> int:
        return round((time - timeline.began) * _MICROSECONDS)

    def add(process: int, name: str, parts: Sequence[tuple[Span, float, float]], category: str) -> None:
        # Rounded first: rounding is what might make two overlap that did not.
        whole = [(moment(begin), moment(end)) for _, begin, end in parts]
        lanes, ends = pack(whole)
        label = f"{build}: {name}"
        events.append(_named("process_name", process, 0, label))
        events.append({**_named("process_sort_index", process, 0, ""), "args": {"sort_index": process}})
        events.extend(
            _named("thread_name", process, lane + 1, f"lane {lane + 1}") for lane in range(len(ends))
        )
        events.extend(
            {
                "name": span.component,
                "cat": category,
                "ph": "X",
                "ts": begin,
                "dur": end - begin,
                "pid": process,
                "tid": lane + 1,
                "args": _arguments(span),
            }
            for (span, _, _), (begin, end), lane in zip(parts, whole, lanes, strict=True)
        )

    add(1, "critical path", _one_after_another(timeline.path), "path")
    add(2, "working", [(span, span.sent, span.ended) for span in working], "working")
    add(3, "waiting for slots and limits", [(span, span.due, span.sent) for span in waiting], "waiting")
    return events


def _one_after_another(path: Sequence[Span]) -> list[tuple[Span, float, float]]:
    """The parts of the path, each from the end of the one before it at the earliest."""
    parts, before = [], float("-inf")
    for span in path:
        begin = min(max(span.due, before), span.ended)
        parts.append((span, begin, span.ended))
        before = span.ended
    return parts


def _named(kind: str, process: int, thread: int, name: str) -> dict[str, Any]:
    return {"name": kind, "ph": "M", "pid": process, "tid": thread, "args": {"name": name}}


def _arguments(span: Span) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "subject": span.subject,
        "state": span.state,
        "attempt": span.attempt,
        "waited": round(span.waiting, 6),
        "worked": round(span.working, 6),
    }
    if span.error:
        arguments["error"] = span.error
    return arguments
