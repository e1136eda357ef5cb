"""Timeline and events of a build, and its prediction beside what happened. Pure; for a thread."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from scheduler.client.lenient import number, objects, text, whole
from scheduler.client.timeline import FINISHED, Interval, Span, Timeline, Wait, read_timeline
from scheduler.client.traces import pack
from scheduler.control.verbs import Document
from scheduler.runtime.yielding import yield_now
from scheduler.web.page.structure import Whole

MOST_EVENTS: Final = 2_000
"""Events in an answer."""
_OF_AN_ORDER: Final = ("component", "by", "vouched", "claim", "reason")
_DIGITS: Final = 4
"""Digits of a second that are told."""


def timeline_of(found: Whole) -> Document:
    """Return the times of a build by columns, as `answers.TimelineAnswer` says."""
    timeline = read_timeline(found.answer | {"components": found.rows})
    spans, began = timeline.spans, found.accepted or timeline.began
    lanes, ends = pack([(span.due, span.ended) for span in spans])

    def moment(time: float) -> float:
        return round(time - began, _DIGITS)

    places = {span.component: place for place, span in enumerate(spans)}
    attempts, waits = [], {kind.value: list[tuple[int, float, float]]() for kind in Wait}
    for place, span in enumerate(spans):
        yield_now()
        attempts += [(place, moment(begin), moment(end)) for begin, end in span.before]
        for kind in Wait:
            waits[kind.value] += [
                (place, moment(begin), moment(end)) for begin, end in span.waited_for(kind) if end > begin
            ]
    return {
        "id": found.answer.get("id"),
        "status": found.status,
        "began": began,
        "length": moment(timeline.ended),
        "live": found.status not in FINISHED,
        "index": [found.structure.index[span.component] for span in spans],
        "lane": lanes,
        "lanes": len(ends),
        "due": [moment(span.due) for span in spans],
        "sent": [moment(span.sent) for span in spans],
        "end": [moment(span.ended) for span in spans],
        "attempts": attempts,
        "waits": waits,
        "pauses": [_told(one, moment) for one in _intervals(found, "pauses")],
        "outages": [_told(one, moment) for one in _intervals(found, "outages")],
        "critical": [places[span.component] for span in timeline.path],
        "most": timeline.most,
        "working": round(timeline.working, _DIGITS),
        "waiting": {kind.value: round(seconds, _DIGITS) for kind, seconds in timeline.waits.items()},
    }


def _told(one: Interval, moment: Any) -> tuple[float, float]:
    return moment(one[0]), moment(one[1])


def _intervals(found: Whole, name: str) -> Iterator[Interval]:
    for one in objects(found.answer.get(name)):
        begin = number(one.get("began"))
        if begin is not None:
            yield begin, number(one.get("ended")) or max(begin, found.now)


def events_of(found: Whole, orders: Sequence[Mapping[str, Any]], *, after: int, limit: int) -> Document:
    """Return a page of what happened in a build, as `answers.EventPage` says.

    Args:
        found: the build.
        orders: orders about it, as ``history`` answers them.
        after: number of events that are left out before; -1: all but the last ones.
        limit: most events.
    """
    events = [*_of_build(found), *_of_orders(orders)]
    for row in found.rows:
        yield_now()
        events += _of_component(row)
    events.sort(key=_place_of)
    total = len(events)
    begin = max(0, total - limit) if after < 0 else min(after, total)
    page = [{"n": begin + place} | event for place, event in enumerate(events[begin : begin + limit])]
    return {
        "id": found.answer.get("id"),
        "status": found.status,
        "total": total,
        "events": page,
        "next": begin + limit if begin + limit < total else None,
    }


_FIRST_AND_LAST: Final = {"accepted": -1, "ended": 1}


def _place_of(event: Mapping[str, Any]) -> tuple[int, float]:
    # A log has these two to the millisecond, and all between them to the microsecond.
    return _FIRST_AND_LAST.get(event["event"], 0), event["time"]


def _of_build(found: Whole) -> Iterator[Document]:
    answer = found.answer
    if found.accepted:
        yield {"time": found.accepted, "event": "accepted"}
    for one in objects(answer.get("pauses")):
        yield from _pair(one, "paused", "resumed")
    for one in objects(answer.get("outages")):
        yield from _pair(one, "outage", "outage_over")
    ended = number(answer.get("ended"))
    if ended is not None:
        error = text(answer.get("error"))
        status = {"time": ended, "event": "ended", "status": found.status}
        yield status | ({"error": error} if error else {})


def _pair(one: Mapping[str, Any], began: str, ended: str) -> Iterator[Document]:
    for name, event in (("began", began), ("ended", ended)):
        time = number(one.get(name))
        if time is not None:
            yield {"time": time, "event": event}


def _of_orders(orders: Sequence[Mapping[str, Any]]) -> Iterator[Document]:
    for order in orders:
        time = number(order.get("time"))
        if time is not None:
            told = {name: order[name] for name in _OF_AN_ORDER if name in order}
            yield {"time": time, "event": "order", "order": text(order.get("verb")), **told}


def _of_component(row: Mapping[str, Any]) -> Iterator[Document]:
    component, state, last = text(row.get("id")), text(row.get("state")), whole(row.get("attempt"), 1)
    failed = objects(row.get("failed"))
    due, sent, ended = (number(row.get(name)) for name in ("due", "sent", "ended"))
    if due is not None:
        yield {"time": due, "event": "due", "component": component}
    for attempt, one in enumerate(failed, 1):
        begin, end = number(one.get("sent")), number(one.get("failed"))
        if begin is not None:
            yield {"time": begin, "event": "sent", "component": component, "attempt": attempt}
        if end is not None:
            event = {"time": end, "event": "failed", "component": component, "attempt": attempt}
            yield event | ({} if begin is None else {"seconds": round(max(0.0, end - begin), _DIGITS)})
    if sent is not None and state != "retrying":
        yield {"time": sent, "event": "sent", "component": component, "attempt": last}
    if ended is not None:
        event = {"time": ended, "event": state, "component": component}
        event |= {} if sent is None else {"seconds": round(max(0.0, ended - sent), _DIGITS)}
        yield event | ({"error": text(row.get("error"))} if row.get("error") else {})


def comparison_of(found: Whole, plan: Mapping[str, Any]) -> Document:
    """Return a prediction beside what happened, as `answers.PlanAnswer` says.

    Args:
        found: the build.
        plan: answer to ``plan``.
    """
    timeline = read_timeline(found.answer | {"components": found.rows})
    spans = {span.component: span for span in timeline.spans}
    took: dict[str, list[float]] = {}
    numbers: dict[str, int] = {}
    for row in found.rows:
        yield_now()
        subject, span = text(row.get("subject")), spans.get(text(row.get("id")))
        numbers[subject] = numbers.get(subject, 0) + 1
        if span is not None and span.state == "completed" and span.ended > span.sent:
            took.setdefault(subject, []).append(span.ended - span.sent)
    durations = plan.get("durations")
    told = {name: value for name, value in plan.items() if name != "waves"}
    waves = [len(wave.get("components", ())) for wave in objects(plan.get("waves"))]
    return {
        "id": found.answer.get("id"),
        "status": found.status,
        "plan": told | {"waves": waves},
        "seconds": number(plan.get("seconds")) or 0.0,
        "took": _took(found, timeline),
        "subjects": [
            _compared(subject, expected, numbers.get(subject, 0), took.get(subject, []))
            for subject, expected in (durations if isinstance(durations, dict) else {}).items()
            if isinstance(expected, dict)
        ],
        "predicted_path": [
            dict(step) | {"actual": _actual(spans.get(text(step.get("id"))))}
            for step in objects(plan.get("critical_path"))
        ],
        "critical_path": [
            {"id": span.component, "seconds": round(span.total, _DIGITS)} for span in timeline.path
        ],
    }


def _took(found: Whole, timeline: Timeline) -> float:
    ended = number(found.answer.get("ended"))
    end = found.now if ended is None else ended
    return round(max(0.0, end - (found.accepted or timeline.began)), _DIGITS)


def _actual(span: Span | None) -> float | None:
    return None if span is None or span.state != "completed" else round(span.ended - span.sent, _DIGITS)


def _compared(subject: str, expected: Mapping[str, Any], number_: int, took: Sequence[float]) -> Document:
    return {
        "subject": subject,
        "components": number_,
        "predicted": number(expected.get("seconds")) or 0.0,
        "source": text(expected.get("source")),
        "done": len(took),
        "mean": round(sum(took) / len(took), _DIGITS) if took else None,
        "longest": round(max(took), _DIGITS) if took else None,
    }
