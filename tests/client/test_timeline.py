"""Who ran when: waiting, working, the critical path, lanes, and the trace."""

import json
from io import StringIO
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from scheduler.client.timeline import Span, Timeline, Wait, critical_path, histogram, read_timeline
from scheduler.client.traces import pack, trace
from scheduler.display.timeline import show_timeline

T = 1_800_000_000.0
JSON = dict[str, Any]


def component(name: str, due: float, sent: float, ended: float, *needs: str, **fields: Any) -> JSON:
    """One that is completed; times are seconds since T."""
    times = {"due": T + due, "sent": T + sent, "ended": T + ended}
    return {"id": name, "state": "completed", "attempt": 1, "needs": list(needs), **times, **fields}


DIAMOND = [
    component("vpc", 0, 0, 2),
    component("net", 2, 2.5, 4, "vpc"),
    component("gate", 2, 2, 9, "vpc"),
    component("vm", 9, 9, 10, "net", "gate"),
]


def timeline_of(components: list[JSON], now: float, status: str = "running") -> Timeline:
    return read_timeline({"status": status, "now": now, "components": components})


def names(spans: Any) -> list[str]:
    return [span.component for span in spans]


def test_the_critical_path_follows_what_ended_last() -> None:
    """Of two dependencies the one that ended last made the component due."""
    found = timeline_of(DIAMOND, T + 10)
    assert names(found.path) == ["vpc", "gate", "vm"]
    assert (found.began, found.ended, found.seconds) == (T, T + 10, 10)


def test_waiting_and_working_are_told_apart() -> None:
    """From being due to leaving it waits, from then on it works."""
    found = timeline_of(DIAMOND, T + 10)
    (net,) = [span for span in found.spans if span.component == "net"]
    assert (net.waiting, net.working, net.total) == (0.5, 1.5, 2)
    assert (found.waiting, found.working) == (0.5, 11.5)
    assert names(found.slowest(2)) == ["gate", "vpc"]
    assert found.most == 2


WAITED = {
    "status": "done",
    "now": T + 100,
    "pauses": [{"began": T + 20, "ended": T + 30}, {"began": T + 98}],
    "outages": [{"began": T + 28, "ended": T + 33}],
    "components": [
        component(
            "a",
            0,
            40,
            50,
            failed=[
                {"sent": T + 1, "failed": T + 4, "again": T + 6},
                {"sent": T + 7, "failed": T + 15, "again": T + 22},
            ],
        ),
        component("b", 25, 35, 36),
        component("c", 50, 50, 50, "a"),
    ],
}


def test_each_kind_of_waiting_has_a_name() -> None:
    """Between attempts, paused, without the broker; what is left was for slots. Attempts are work."""
    found = read_timeline(WAITED)
    a, b, c = found.spans
    assert a.attempts == ((T + 1, T + 4), (T + 7, T + 15), (T + 40, T + 50))
    assert (a.working, a.waiting, a.total) == (21, 29, 50)
    # Whoever waits for another attempt would do so without a pause as well.
    assert a.waits == {"slots": 1 + 1 + 7, "retry": 2 + 7, "pause": 8, "outage": 3, "approval": 0}
    assert b.waits == {"slots": 2, "retry": 0, "pause": 5, "outage": 3, "approval": 0}
    assert set(c.waits.values()) == {0}
    assert found.waits == {"slots": 11, "retry": 9, "pause": 13, "outage": 6, "approval": 0}
    assert found.waiting == sum(found.waits.values())


def test_a_gate_waits_for_a_person_whatever_else_happens() -> None:
    """Neither a pause nor an outage is the reason for its wait."""
    gate = component("a", 0, 0, 50) | {"sent": None, "state": "completed", "gate": True}
    (span,) = read_timeline(WAITED | {"components": [gate]}).spans
    assert span.waits == {"slots": 0, "retry": 0, "pause": 0, "outage": 0, "approval": 50}
    assert span.working == 0


def test_a_pause_that_goes_on_lasts_until_now() -> None:
    """What is held by it waits for its end."""
    waiting = component("a", 90, 0, 0) | {"state": "waiting", "ended": None, "sent": None}
    (span,) = read_timeline(WAITED | {"status": "paused", "components": [waiting]}).spans
    assert span.waits == {"slots": 8, "retry": 0, "pause": 2, "outage": 0, "approval": 0}
    assert (span.attempts, span.working) == ((), 0)


def test_what_waits_for_another_attempt_does_not_work() -> None:
    """Its attempt has failed; nor did it where the build was halted before the next one."""
    fields: JSON = {"failed": [{"sent": T + 1, "failed": T + 4, "again": T + 60}], "sent": None}
    retrying = component("a", 0, 0, 0) | fields | {"state": "retrying", "ended": None}
    errored = component("b", 0, 0, 9) | fields | {"state": "errored"}
    found = timeline_of([retrying, errored], T + 10)
    assert [span.attempts for span in found.spans] == [((T + 1, T + 4),)] * 2
    assert [(span.working, span.waits[Wait.RETRY]) for span in found.spans] == [(3, 5), (3, 6)]


def test_how_many_worked_at_a_time_at_most() -> None:
    """What begins in the moment in which another ends comes after it; every attempt counts."""
    one_by_one = [component(name, 0, number, number + 1) for number, name in enumerate("abcd")]
    assert timeline_of(one_by_one, T + 9).most == 1
    retried = component("e", 0, 8, 9, failed=[{"sent": T + 0.5, "failed": T + 0.75, "again": T + 1}])
    assert timeline_of([*one_by_one, retried], T + 9).most == 2
    assert timeline_of([component("f", 0, 0, 0)], T + 9).most == 0


def test_a_trace_has_what_took_no_time_and_what_was_waited_for() -> None:
    """Each attempt, the instant ones too, and a track for each kind of waiting that there was."""
    events = trace(read_timeline(WAITED), "b1")
    worked = [(one["name"], one["ts"], one["dur"]) for one in events if one.get("cat") == "working"]
    assert sorted(worked) == [
        ("a", 1_000_000, 3_000_000),
        ("a", 7_000_000, 8_000_000),
        ("a", 40_000_000, 10_000_000),
        ("b", 35_000_000, 1_000_000),
        ("c", 50_000_000, 0),
    ]
    tracks = [one["args"]["name"] for one in events if one["name"] == "process_name"]
    assert tracks == [
        "b1: critical path",
        "b1: working",
        "b1: waiting for slots and limits",
        "b1: between two attempts",
        "b1: paused by an operator",
        "b1: waiting for the broker",
    ]
    paused = [(one["name"], one["ts"], one["dur"]) for one in events if one.get("cat") == "pause"]
    assert sorted(paused) == [("a", 22_000_000, 8_000_000), ("b", 25_000_000, 5_000_000)]
    quiet = trace(timeline_of([component("a", 0, 0, 1)], T), "b1")
    assert [one["args"]["name"] for one in quiet if one["name"] == "process_name"] == tracks[:2]


def test_what_has_not_ended_lasts_until_now() -> None:
    """What runs or waits for a slot is shown up to the answer; of a build that is over it is left out."""
    running = component("a", 0, 1, 0) | {"state": "running", "ended": None}
    waiting = component("b", 0, 0, 0) | {"state": "waiting", "ended": None, "sent": None}
    found = timeline_of([running, waiting], T + 5)
    assert [(span.component, span.waiting, span.working) for span in found.spans] == [
        ("a", 1, 4),
        ("b", 5, 0),
    ]
    assert timeline_of([running, waiting], T + 5, "errored").spans == ()


@pytest.mark.parametrize(
    "one",
    [
        {}, {"id": 5, "state": "running", "due": T}, {"id": "a", "state": "waiting"}, {"id": "a", "due": T},
        {"id": "a", "state": "skipped"}, {"id": "a", "state": "errored", "due": T},
        {"id": "a", "state": "waiting", "due": "soon"}, {"id": "a", "state": "waiting", "due": True},
    ],
)  # fmt: skip
def test_what_was_never_due_is_not_in_it(one: JSON) -> None:
    """Components without times, or that cannot be read, are left out."""
    found = timeline_of([one], T)
    assert (found.spans, found.path, found.seconds, found.most) == ((), (), 0, 0)


def test_times_that_contradict_each_other_are_moved() -> None:
    """A clock that was set back makes nothing negative."""
    (span,) = timeline_of([component("a", 5, 3, 4)], T + 9).spans
    assert (span.waiting, span.working) == (0, 0)


def test_a_circle_of_needs_ends() -> None:
    """Whatever an answer says, the walk back comes to an end."""
    spans = [Span(name, "completed", 0, 0, 1, (other,)) for name, other in (("a", "b"), ("b", "a"))]
    assert len(critical_path(spans)) == 2


def test_touching_components_share_a_lane() -> None:
    """One that begins when another ends needs no lane of its own."""
    assert pack([(0, 2), (2, 3), (1, 4)])[0] == [0, 0, 1]


def test_the_histogram_of_known_times() -> None:
    """Each column is the average of what worked in it."""
    spans = [
        Span("a", "completed", 0, 0, 4),
        Span("b", "completed", 0, 1, 2),
        Span("c", "completed", 0, 2.5, 4),
    ]
    assert histogram(spans, 0, 4, 4) == pytest.approx([1, 2, 1.5, 2])
    assert histogram([], 0, 0, 3) == [0, 0, 0]


# Properties.

MOMENTS = st.floats(0, 1e5, allow_nan=False)
INTERVALS = st.lists(st.tuples(MOMENTS, MOMENTS).map(sorted).map(tuple), max_size=60)


@given(INTERVALS)
def test_lanes_never_overlap_and_are_as_few_as_can_be(intervals: list[tuple[float, float]]) -> None:
    """In a lane each interval begins when the one before it has ended; there are as many as run at once."""
    lanes, ends = pack(intervals)
    by_lane: dict[int, list[tuple[float, float]]] = {}
    for lane, interval in zip(lanes, intervals, strict=True):
        by_lane.setdefault(lane, []).append(interval)
    for members in by_lane.values():
        assert all(one[1] <= two[0] for one, two in pairwise(sorted(members)))
    assert sorted(by_lane) == list(range(len(ends)))
    solid = [one for one in intervals if one[1] > one[0]]
    at_once = max((sum(a <= begin < b for a, b in solid) for begin, _ in solid), default=0)
    assert len(pack(solid)[1]) == at_once


@st.composite
def builds(draw: st.DrawFn) -> list[JSON]:
    """Components of a build as it would have run: each due when its last dependency ended."""
    made: list[JSON] = []
    ends: dict[str, float] = {}
    for number in range(draw(st.integers(1, 25))):
        needs = draw(st.sets(st.sampled_from(sorted(ends)), max_size=3)) if ends else set()
        due = max((ends[need] for need in needs), default=0.0)
        sent = due + draw(st.floats(0, 50))
        ended = sent + draw(st.floats(0, 50))
        name = f"c{number:02}"
        ends[name] = ended
        made.append(component(name, due, sent, ended, *sorted(needs)))
    return made


@given(builds())
def test_waiting_and_working_are_all_of_the_time(made: list[JSON]) -> None:
    """Of each component, and of the whole critical path, waiting and working make up the total."""
    found = timeline_of(made, T)
    assert all(span.waiting >= 0 and span.working >= 0 for span in found.spans)
    assert found.waiting + found.working == pytest.approx(sum(span.total for span in found.spans), abs=1e-4)
    path = found.path
    assert sum(span.total for span in path) == pytest.approx(found.seconds, abs=1e-4)
    assert all(two.due == pytest.approx(one.ended, abs=1e-4) for one, two in pairwise(path))
    assert all(one.component in two.needs for one, two in pairwise(path))


@given(builds(), st.integers(1, 90))
def test_the_histogram_holds_all_of_the_work(made: list[JSON], columns: int) -> None:
    """The area below the histogram is the time that components worked."""
    found = timeline_of(made, T)
    heights = histogram(found.spans, found.began, found.ended, columns)
    area = sum(heights) * found.seconds / columns
    assert area == pytest.approx(found.working, rel=1e-3, abs=1e-3)
    assert max(heights) <= len(found.spans) + 1e-3


@given(builds())
def test_the_trace_keeps_the_rules_of_its_format(made: list[JSON]) -> None:
    """Whole microseconds, every thread named once, and nothing on a thread overlaps, after rounding too."""
    found = timeline_of(made, T)
    events = json.loads(json.dumps(trace(found, "b1")))
    assert {event["ph"] for event in events} <= {"M", "X"}
    threads = [(event["pid"], event["tid"]) for event in events if event["name"] == "thread_name"]
    assert len(threads) == len(set(threads))
    by_thread: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for event in events:
        if event["ph"] == "X":
            assert type(event["ts"]) is type(event["dur"]) is int
            assert min(event["ts"], event["dur"]) >= 0
            assert event["name"]
            begin = event["ts"]
            by_thread.setdefault((event["pid"], event["tid"]), []).append((begin, begin + event["dur"]))
    assert set(by_thread) == set(threads)
    for parts in by_thread.values():
        assert all(one[1] <= two[0] for one, two in pairwise(sorted(parts)))
    worked = [event for event in events if event.get("cat") == "working"]
    assert sum(event["dur"] for event in worked) == pytest.approx(found.working * 1e6, abs=2 * len(made) + 1)


def test_a_trace_says_what_went_wrong() -> None:
    """The text of an error stands beside its component."""
    found = timeline_of([component("a", 0, 1, 2, state="errored", error="boom", attempt=3)], T)
    arguments = [event["args"] for event in trace(found, "b1") if event.get("cat") == "working"]
    assert [(one["state"], one["attempt"], one["error"]) for one in arguments] == [("errored", 3, "boom")]


def test_a_component_at_work_has_the_last_word_of_its_connector() -> None:
    """It is read from the answer, and shown below its bar."""
    one = component("a", 0, 1, 9, progress=0.4, message="attaching")
    timeline = timeline_of([one], 10.0)
    assert timeline.spans[0].note == "40 %, attaching"
    console = Console(file=StringIO(), width=80)
    show_timeline(console, timeline, "b", "running")
    assert isinstance(console.file, StringIO)
    assert "40 %, attaching" in console.file.getvalue()
