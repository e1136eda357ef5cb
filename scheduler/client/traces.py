"""Writes a build's timeline as a trace for Perfetto and chrome://tracing. Pure."""

import heapq
from collections.abc import Sequence
from typing import Any

from scheduler.client.timeline import Span, Timeline, Wait

_MICROSECONDS = 1_000_000
_WAITS = {
    Wait.SLOTS: "waiting for slots and limits",
    Wait.RETRY: "between two attempts",
    Wait.PAUSE: "paused by an operator",
    Wait.OUTAGE: "waiting for the broker",
}


def trace(timeline: Timeline, build: str) -> list[dict[str, Any]]:
    """Write the timeline as the JSON array of the Trace Event Format.

    Tracks are shown as processes: the critical path, all attempts, and one for each reason of waits. Parts
    without any length have the duration 0. Complete events (``X``) of a thread must nest or follow one
    another, so overlapping ones are put into different threads. Times are whole microseconds from the
    beginning.
    https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
    """
    spans = timeline.spans
    events: list[dict[str, Any]] = []

    def moment(time: float) -> int:
        return round((time - timeline.began) * _MICROSECONDS)

    def add(process: int, name: str, parts: Sequence[tuple[Span, float, float]], category: str) -> None:
        # Rounded first, since rounding might make two parts overlap.
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
    add(2, "working", [(span, *part) for span in spans for part in span.attempts], "working")
    for process, (kind, name) in enumerate(_WAITS.items(), 3):
        waiting = [(span, *part) for span in spans for part in span.waited_for(kind)]
        if waiting:
            add(process, name, waiting, kind)
    return events


def _one_after_another(path: Sequence[Span]) -> list[tuple[Span, float, float]]:
    """Cut the path into parts, each beginning no earlier than the end of the one before it."""
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
        "waits": {kind.value: round(seconds, 6) for kind, seconds in span.waits.items() if seconds},
    }
    if span.error:
        arguments["error"] = span.error
    return arguments


def pack(intervals: Sequence[tuple[float, float]]) -> tuple[list[int], list[float]]:
    """Assign each interval to a lane, so that no two in a lane overlap, with as few lanes as possible.

    Intervals that only touch share a lane.

    Returns:
        The lane of each interval, from 0; and the end of the last interval of each lane.
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
