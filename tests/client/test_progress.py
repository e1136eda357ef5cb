"""How far a build is, as told by events, snapshots, summaries and the report."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.feeds import JSON, T, Told, event

from scheduler.client.attempts import SLOWEST
from scheduler.client.counts import STATES
from scheduler.client.progress import Progress

NAMES = ("a", "b", "c")


@pytest.fixture
def told() -> Told:
    """A build of three, as its scheduler tells of it."""
    return Told(*NAMES)


@pytest.fixture
def progress() -> Progress:
    """The same, as somebody who follows it knows it; our clock begins at 100."""
    return Progress("b", "build.create", 100.0, total=3)


def counts(progress: Progress) -> dict[str, int]:
    """The counts that are not 0."""
    return {state: progress.count(state) for state in STATES if progress.count(state)}


def test_a_component_goes_from_waiting_to_done(told: Told, progress: Progress) -> None:
    """Each event moves one component from one count to another, and is news, with its duration."""
    assert counts(progress) == {"waiting": 3}
    progress.apply(told.message(event("a", "running", 0)), 100.0)
    assert counts(progress) == {"running": 1, "waiting": 2}
    assert list(progress.running) == ["a"]
    (news,) = progress.apply(told.message(event("a", "completed", 1.5, seconds=1.5)), 101.5)
    assert (news.component, news.state, news.took) == ("a", "completed", 1.5)
    assert counts(progress) == {"waiting": 2, "completed": 1}
    assert progress.running == {}


def test_an_error_is_kept_with_its_text(told: Told, progress: Progress) -> None:
    """An errored component is counted apart, and its text is kept, until it is tried again."""
    events = event("a", "running", 0), event("a", "errored", 1, seconds=1.0, error="no such image")
    news = progress.apply(told.message(*events), 101.0)[-1]
    assert (news.took, news.error) == (1.0, "no such image")
    assert progress.errors == {"a": "no such image"}
    progress.apply(told.message(event("a", "running", 5, attempt=2)), 105.0)
    assert progress.errors == {}
    assert counts(progress) == {"running": 1, "waiting": 2}


def test_what_is_tried_again_is_shown_until_it_leaves(told: Told, progress: Progress) -> None:
    """A component that failed and will be sent again is known with its attempt, error and time."""
    events = event("a", "running", 0), event("a", "retrying", 1, error="throttled", retry_in=4.0)
    progress.apply(told.message(*events, at=2.0), 200.0)
    again = progress.retrying["a"]
    assert (again.attempt, again.at, again.error) == (1, 203.0, "throttled")
    assert progress.running == {}
    progress.apply(told.message(event("a", "running", 5, attempt=2)), 203.0)
    assert progress.retrying == {}


@pytest.mark.parametrize(
    ("what", "status"),
    [("paused", "paused"), ("cancelled", "halted"), ("halted", "halted"), ("extended", "running")],
)
def test_what_happens_to_the_build_is_news(told: Told, progress: Progress, what: str, status: str) -> None:
    """An event of the build itself has no component, and says why; resuming undoes it."""
    (news,) = progress.apply(told.message({"event": what, "time": 1.0, "reason": "maintenance"}), 101.0)
    assert (news.component, news.state, news.error) == ("", what, "maintenance")
    assert progress.status == status
    progress.apply(told.message({"event": "resumed", "time": 2.0}), 102.0)
    assert progress.status == "running"


def test_a_withdrawn_component_waits_again(told: Told, progress: Progress) -> None:
    """What was about to be sent and was not is no longer shown as running."""
    progress.apply(told.message(event("a", "running", 0), event("a", "waiting", 1)), 101.0)
    assert counts(progress) == {"waiting": 3}
    assert progress.running == {}


def test_known_events_change_nothing(told: Told, progress: Progress) -> None:
    """A message that comes twice, or late, is passed over, its counts too."""
    first = told.message(event("a", "running", 0))
    second = told.message(event("a", "completed", 1, seconds=1.0))
    progress.apply(first, 100.0)
    progress.apply(second, 101.0)
    assert progress.apply(first, 102.0) == []
    assert progress.apply(second, 102.0) == []
    assert counts(progress) == {"waiting": 2, "completed": 1}
    assert not progress.behind


def test_a_gap_is_noticed(told: Told, progress: Progress) -> None:
    """Where an event is missing what comes still counts, and a snapshot is wanted."""
    progress.apply(told.message(event("a", "running", 0)), 100.0)
    told.message(event("b", "running", 1))
    progress.apply(told.message(event("c", "running", 2)), 102.0)
    assert counts(progress) == {"running": 3}
    assert (progress.behind, list(progress.running)) == (True, ["a", "c"])
    progress.snapshot(told.answer(3.0), 103.0)
    assert (progress.behind, list(progress.running)) == (False, ["a", "b", "c"])


def test_a_process_that_counts_anew_is_noticed(told: Told, progress: Progress) -> None:
    """An event that is younger than what we know, with a number that we had, wants a snapshot."""
    progress.apply(told.message(event("a", "running", 0), event("b", "running", 1)), 101.0)
    told.sequence = 0
    progress.apply(told.message(event("c", "running", 9)), 109.0)
    assert progress.behind is True
    progress.snapshot(told.answer(10.0), 110.0)
    assert progress.sequence == 1
    progress.apply(told.message(event("c", "completed", 11, seconds=2.0)), 111.0)
    assert progress.done == 1
    assert not progress.behind


def test_another_process_is_heard_whatever_its_numbers_and_its_clock(told: Told, progress: Progress) -> None:
    """What it tells counts, and what was done in between is asked for."""
    first = told.message(*(event("a", "running", second) for second in range(9)))
    progress.apply(first | {"source": "one"}, 100.0)
    told.sequence = 3
    second = told.message(event("a", "completed", -86_400, seconds=20.0)) | {"source": "two"}
    assert [item.state for item in progress.apply(second, 120.0)] == ["completed"]
    assert (progress.behind, progress.done) == (True, 1)
    progress.snapshot(told.answer(-86_300, source="two"), 120.0)
    assert not progress.behind
    again = told.message(event("b", "completed", -86_200, seconds=1.0)) | {"source": "two"}
    assert [item.component for item in progress.apply(again, 121.0)] == ["b"]
    assert not progress.behind


def test_another_process_is_noticed_by_its_answers(told: Told, progress: Progress) -> None:
    """Before it tells anything."""
    progress.apply(told.message(event("a", "running", 0)) | {"source": "one"}, 100.0)
    progress.refresh(told.answer(5, components=False, source="one"), 105.0)
    assert not progress.behind
    progress.refresh(told.answer(7, components=False, source="two"), 107.0)
    assert progress.behind


def test_a_build_is_overdue_more_and_more(progress: Progress) -> None:
    """Until an answer says otherwise; then the expected end counts again."""
    progress.refresh({"now": T, "eta": None, "overdue": 1_140.0, "status": "running"}, 100.0)
    assert (progress.overdue(101.0), progress.left(101.0)) == (1_141.0, None)
    progress.refresh({"now": T + 2, "eta": 9.0, "overdue": None, "status": "running"}, 102.0)
    assert (progress.overdue(103.0), progress.left(103.0)) == (None, 8.0)
    progress.refresh({"now": T + 4, "overdue": 3.0, "status": "running"}, 104.0)
    progress.refresh(None, 106.0)
    assert progress.overdue(106.0) is None


def test_missing_the_last_event_is_noticed(told: Told, progress: Progress) -> None:
    """Two seconds after a summary told of an event it must have come; otherwise a snapshot is wanted."""
    told.message(event("a", "running", 0))
    progress.refresh(told.answer(1.0, components=False), 101.0)
    assert not progress.behind
    progress.refresh(told.answer(3.0, components=False), 103.0)
    assert progress.behind


def test_elapsed_times_do_not_trust_the_other_clock(told: Told, progress: Progress) -> None:
    """How long something runs is by our clock, whatever theirs shows, and by age when the message came."""
    progress.apply(told.message(event("a", "running", 0), at=0.0), 200.0)
    progress.apply(told.message(event("b", "running", -2), at=0.0), 200.0)
    progress.apply(told.message(event("c", "running", 50), at=0.0), 200.0)
    assert [item.since for item in progress.running.values()] == [200.0, 198.0, 200.0]


@pytest.mark.parametrize(
    "document",
    [
        {}, {"events": None}, {"events": [None, 5, {}, {"component": 5, "state": "running", "seq": 1}]},
        {"total": "x", "done": True, "time": None, "counts": 5}, {"events": {"component": "a", "seq": 1}},
        {"events": [{"component": "a", "state": "running"}]}, {"events": [{"seq": True, "component": "a"}]},
        {"events": [{"component": "a", "state": "running", "seq": "1", "time": T}], "counts": {"running": 9}},
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_passed_over(progress: Progress, document: JSON) -> None:
    """A message of another shape shows nothing and breaks nothing."""
    assert progress.apply(document, 101.0) == []
    assert counts(progress) == {"waiting": 3}
    progress.refresh(document, 101.0)
    progress.snapshot(document | {"components": document.get("events")}, 101.0)
    progress.explain(document)


def test_the_slowest_are_remembered() -> None:
    """Of many components those that took longest are kept, the longest first."""
    told, progress = Told(), Progress("b", "build.create", 100.0)
    for number in range(100):
        message = told.message(event(f"n{number}", "completed", number, seconds=float(number)))
        progress.apply(message, 1.0)
    assert progress.slowest == [(float(n), f"n{n}") for n in range(99, 99 - SLOWEST, -1)]


# Snapshots and summaries.


def test_a_late_joiner_knows_what_happened_before(told: Told, progress: Progress) -> None:
    """A snapshot gives counts, what runs since when, errors, and since when the build runs, as news."""
    told.message(event("a", "running", 0), event("b", "running", 2), event("a", "errored", 5, error="boom"))
    news = progress.snapshot(told.answer(10.0), 1_000.0)
    assert counts(progress) == {"running": 1, "waiting": 1, "errored": 1}
    assert progress.elapsed(1_000.0) == 10.0
    assert progress.running["b"].since == 992.0
    assert progress.errors == {"a": "boom"}
    assert progress.slowest == [(5.0, "a")]
    assert {(item.component, item.state, item.event) for item in news} == {
        ("a", "errored", None),
        ("b", "running", None),
    }


def test_what_was_missed_is_news_to_whoever_came_at_the_beginning(told: Told) -> None:
    """In the order in which it ended; to whoever came later it is none."""
    told.message(event("a", "completed", 2), event("b", "completed", 1))
    for informed in (True, False):
        progress = Progress("b", "build.create", 100.0, total=3, informed=informed)
        first = progress.snapshot(told.answer(5), 105.0)
        assert [(item.component, item.old) for item in first] == [("b", not informed), ("a", not informed)]
    told.message(event("c", "completed", 6))
    assert [(item.component, item.old) for item in progress.snapshot(told.answer(7), 107.0)] == [("c", False)]


def test_a_second_snapshot_tells_only_what_changed(told: Told, progress: Progress) -> None:
    """What is known already is no news again."""
    told.message(event("a", "running", 0), event("b", "running", 2))
    progress.snapshot(told.answer(3.0), 103.0)
    told.message(event("a", "completed", 4, seconds=4.0))
    news = progress.snapshot(told.answer(5.0), 105.0)
    assert [(item.component, item.state, item.took) for item in news] == [("a", "completed", 4.0)]


def test_events_before_a_snapshot_are_known(told: Told, progress: Progress) -> None:
    """Of what came in while the snapshot was asked, only what is beyond its number counts."""
    early = told.message(event("a", "running", 0))
    both = told.message(event("a", "completed", 1, seconds=1.0))
    snapshot = told.answer(1.5)
    late = told.message(event("b", "running", 2))
    progress.snapshot(snapshot, 101.5)
    news = [item for message in (early, both, late) for item in progress.apply(message, 102.0)]
    assert [(item.component, item.state) for item in news] == [("b", "running")]
    assert not progress.behind
    assert counts(progress) == {"running": 1, "waiting": 1, "completed": 1}


def test_who_took_the_build_over_is_told_even_if_the_snapshot_came_first(
    told: Told, progress: Progress
) -> None:
    """Once, as no snapshot says it; which of the two comes first is a matter of milliseconds."""
    progress.apply(told.message(event("a", "running", 0)) | {"source": "one"}, 100.0)
    taken = told.message({"event": "taken_over", "time": 1.0, "text": "1 in flight"}) | {"source": "two"}
    progress.snapshot(told.answer(1.5) | {"source": "two"}, 101.5)
    assert [item.state for item in progress.apply(taken, 101.6)] == ["taken_over"]
    assert progress.apply(taken, 101.7) == []


def test_a_summary_tells_the_limits_and_the_end(told: Told, progress: Progress) -> None:
    """Limits and the expected end are there while somebody answers, and gone when nobody does."""
    limits = [{"limit": "vpc.create.*=5", "waiting": 7}, {"limit": 5}, None]
    progress.refresh(told.answer(1.0, components=False, limits=limits, eta=20.0), 101.0)
    assert progress.limits == (("vpc.create.*=5", 7),)
    assert progress.left(111.0) == 10.0
    assert progress.left(122.0) is None
    progress.refresh(None, 103.0)
    assert progress.left(103.0) is None
    assert len(progress.limits) == 0


def test_a_summary_that_is_older_than_the_events_keeps_the_counts(told: Told, progress: Progress) -> None:
    """Counts never go back to what an answer said that was overtaken."""
    old = told.answer(0.5, components=False)
    progress.apply(told.message(event("a", "completed", 1, seconds=1.0)), 101.0)
    progress.refresh(old, 101.0)
    assert counts(progress) == {"waiting": 2, "completed": 1}


def test_a_finished_build_has_its_end_and_cause(told: Told, progress: Progress) -> None:
    """The answer about a build that is over says how long it took and why it failed."""
    told.status = "errored"
    progress.refresh(told.answer(100.0, ended=T + 60, error="a: boom"), 500.0)
    assert (progress.elapsed(900.0), progress.error, progress.status) == (60.0, "a: boom", "errored")


def test_a_build_that_is_tried_again_is_not_over(told: Told, progress: Progress) -> None:
    """Its former end and cause are forgotten."""
    told.status = "errored"
    progress.refresh(told.answer(100.0, ended=T + 60, error="a: boom"), 500.0)
    told.status = "running"
    progress.refresh(told.answer(110.0, run=2), 510.0)
    assert (progress.error, progress.ended, progress.run) == (None, None, 2)


def test_the_path_is_explained_by_the_graph(told: Told, progress: Progress) -> None:
    """With its graph the whole build tells the critical path, and the slowest of all."""
    for name, start in (("a", 0), ("b", 3)):
        told.message(event(name, "running", start), event(name, "completed", start + 3, seconds=3.0))
    told.status = "done"
    answer = told.answer(6.0)
    answer["components"][1] |= {"needs": ["a"], "due": T + 3}
    progress.explain(answer)
    assert [span.component for span in progress.path] == ["a", "b"]
    assert progress.slowest == [(3.0, "a"), (3.0, "b")]


# The report.


def test_the_report_has_the_last_word(told: Told, progress: Progress) -> None:
    """Counts are those of the report, and an error that was missed becomes known."""
    progress.apply(told.message(event("a", "running", 0), event("b", "running", 0)), 100.0)
    report = {
        "error": "b: boom",
        "changes": [
            {"_component_id": "a", "_state": "completed"},
            {"_component_id": "b", "_state": "errored", "error": "boom"},
            {"_component_id": "c", "_state": "waiting"},
        ],
    }
    missed, news = progress.finish(report, 105.0, failed=True)
    assert (missed.component, missed.state) == ("a", "completed")
    assert (news.component, news.error) == ("b", "boom")
    assert counts(progress) == {"waiting": 1, "completed": 1, "errored": 1}
    assert (progress.error, progress.status) == ("b: boom", "errored")
    assert progress.elapsed(999.0) == 5.0


def test_what_was_skipped_stays_skipped(told: Told, progress: Progress) -> None:
    """The report has no word for it: what says waiting there and was skipped is counted as that."""
    progress.apply(told.message(event("b", "errored", 1, error="x"), event("c", "skipped", 1)), 101.0)
    changes = [
        {"_component_id": name, "_state": state} for name, state in (("a", "completed"), ("c", "waiting"))
    ]
    changes.append({"_component_id": "b", "_state": "errored"})
    progress.finish({"error": "b: x", "changes": changes}, 102.0, failed=True)
    assert counts(progress) == {"completed": 1, "errored": 1, "skipped": 1}


def test_a_reduced_report_is_enough(progress: Progress) -> None:
    """A report without changes still says whether all is done."""
    progress.finish({}, 105.0, failed=False)
    assert counts(progress) == {"completed": 3}
    assert progress.error is None


# Whatever is lost, joined late or doubled.


@given(st.data())
def test_whoever_takes_snapshots_knows_the_truth(data: st.DataObject) -> None:
    """With messages lost at random, a snapshot wherever one is wanted leads to the scheduler's own state."""
    luck = random.Random(data.draw(st.integers(0, 2**32)))
    told = Told(*(f"n{number}" for number in range(6)))
    progress = Progress("b", "build.create", 0.0, total=6)
    time = 0.0
    for _ in range(data.draw(st.integers(1, 30))):
        events: list[JSON] = []
        for _ in range(luck.randint(1, 3)):
            time += 1.0
            name = luck.choice(list(told.states))
            state = luck.choice(STATES)
            events.append(event(name, state, time, error="x" if state == "errored" else None))
        message = told.message(*events)
        if luck.random() < 0.7:
            progress.apply(message, time)
        if progress.behind:
            progress.snapshot(told.answer(time), time)
    for _ in range(2):
        progress.refresh(told.answer(time, components=False), time)
    if progress.behind:
        progress.snapshot(told.answer(time), time)
    assert progress.counts == told.counts()
    expected: dict[str, set[str]] = {state: set() for state in STATES}
    for name, state in told.states.items():
        expected[state].add(name)
    assert set(progress.running) == expected["running"]
    assert set(progress.retrying) == expected["retrying"]
    assert set(progress.errors) == expected["errored"]


def test_news_of_a_snapshot_can_be_told_from_events(told: Told, progress: Progress) -> None:
    """News that an event told carries that event."""
    (item,) = progress.apply(told.message(event("a", "running", 0)), 100.0)
    assert item.event is not None
    assert item.event["seq"] == 1


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ("cancelled", "cancelled"),
        ("cancelled: wrong region", "cancelled"),
        ("vpc::web: cancelled: by the cloud", "errored"),
        ("cancelled::vm: no quota", "errored"),
    ],
)
def test_a_cancelled_build_ends_as_such(error: str, status: str) -> None:
    """Its report says so by its error alone; a component of that name does not."""
    progress = Progress("b", "build.create", 0.0)
    progress.finish({"error": error}, 5.0, failed=True)
    assert (progress.status, progress.error) == (status, error)


# ---- heartbeats


def test_what_connectors_say_is_kept_beside_what_runs(told: Told, progress: Progress) -> None:
    """A beat is no event: it changes no count and no order, and is gone with the attempt."""
    progress.apply(told.message(event("a", "running", 1), event("b", "running", 1)), 101.0)
    beats = [
        {"component": "a", "attempt": 1, "progress": 0.4, "message": "attaching"},
        {"component": "b", "message": "x\x1b[2J"},
        {"component": "c", "progress": 1},
        {"component": 5},
        7,
    ]
    assert progress.apply({**told.message(), "beats": beats}, 102.0) == []
    assert [(one.component, one.note) for one in progress.running.values()] == [
        ("a", "40 %, attaching"),
        ("b", "x\\x1b[2J"),
    ]
    assert (counts(progress), progress.behind) == ({"waiting": 1, "running": 2}, False)
    progress.apply(told.message(event("a", "retrying", 3), event("a", "running", 4, attempt=2)), 104.0)
    assert progress.running["a"].note == ""


def test_a_snapshot_has_what_connectors_said_last(told: Told, progress: Progress) -> None:
    """Who joins late sees it at once."""
    progress.apply(told.message(event("a", "running", 1)), 101.0)
    told.fields["a"] |= {"progress": 0.25, "message": "booting", "instance": "c-7", "beat": 2.0}
    progress.snapshot(told.answer(5.0), 105.0)
    assert progress.running["a"].note == "25 %, booting"
