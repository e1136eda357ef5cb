"""Folding a build's log: what it says is taken, and what cannot have happened is refused."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.logs import ACCEPTED, EVENTS, NOW, fold, fold_events, record, reread, settled

from scheduler.errors import UnreadableLog
from scheduler.journal.events import (
    Accepted,
    Cancelled,
    Event,
    Extended,
    Finished,
    Limited,
    Loading,
    Paused,
    Released,
    Reported,
    Resumed,
    Retried,
    Retrying,
    Sent,
    Settled,
    Started,
    Supplied,
    Suspended,
    Unpaused,
    Withdrawn,
)
from scheduler.journal.history import Flight, History
from scheduler.journal.records import Elsewhere, Position, Record, Status

NO_STEPS = (Suspended, Resumed, Loading, Released)


def started(component: str, attempt: str = "") -> Started:
    return Started(component, attempt or f"b-1/{component}/1", b"")


def sent(component: str, attempt: str = "") -> Sent:
    return Sent(component, attempt or f"b-1/{component}/1")


def withdrawn(component: str) -> Withdrawn:
    return Withdrawn(component, b"")


def retrying(component: str, attempt: str = "", pause: float = 2.0) -> Retrying:
    return Retrying(component, attempt or f"b-1/{component}/1", "503", pause)


FAILED = settled("a", "errored", error="broken")
OVER: list[Event] = [Finished("a: broken"), Reported(1)]


def test_an_empty_log() -> None:
    """Before the first record nothing is known."""
    history = History()
    assert (history.n, history.epoch, history.accepted, history.status) == (0, 0, None, Status.OPEN)
    assert (history.position, history.loads, history.finished) == (Position(), 0, None)


def test_a_whole_build() -> None:
    """The steps come in their order, and what the records say of themselves is that of the last one."""
    a, b = started("a"), started("b")
    finished, reported = Finished("a: broken"), Reported(1)
    outcomes = [settled("a", "errored", error="broken"), settled("b")]
    history = fold(
        [
            record(1, ACCEPTED, position=Position(5, 50)),
            record(2, a, b),
            record(3, sent("a"), outcomes[0], epoch=2, position=Position(9, 90)),
            record(4, Loading(), epoch=3),
            record(5, Suspended(), Resumed(2.0), outcomes[1], finished, epoch=3, position=Position(7, 95)),
            record(6, reported, Released(), epoch=3, position=Position(7, 95)),
        ]
    )
    assert history.steps == [ACCEPTED, a, b, sent("a"), *outcomes, finished, reported]
    assert history.accepted is ACCEPTED
    assert (history.n, history.epoch, history.position) == (6, 3, Position(7, 95))
    assert (history.status, history.finished, history.run) == (Status.REPORTED, finished, 1)
    assert history.in_flight == {}


def test_the_status_follows_the_build() -> None:
    """A build is open, then finished, then reported, in whichever run."""
    history = fold_events()
    assert (history.status, history.finished) == (Status.OPEN, None)
    history.add(record(2, Finished(None)))
    assert (history.status, history.finished) == (Status.FINISHED, Finished(None))
    history.add(record(3, Reported(2)))
    assert (history.status, history.run) == (Status.REPORTED, 2)


def test_what_is_in_flight() -> None:
    """In flight is what was started and is neither settled nor withdrawn; the log says what surely left."""
    history = fold(
        [
            record(1, ACCEPTED, *map(started, "abcd")),
            record(2, sent("a"), sent("b"), withdrawn("d"), at=NOW + 100),
            record(3, settled("a"), started("e"), at=NOW + 200),
        ]
    )
    assert history.in_flight == {
        "b": Flight("b-1/b/1", NOW + 100, sent=True),
        "c": Flight("b-1/c/1", NOW),
        "e": Flight("b-1/e/1", NOW + 200),
    }


def test_a_withdrawn_component_may_start_again() -> None:
    """The next attempt counts, from when it was started."""
    history = fold(
        [
            record(1, ACCEPTED, started("a")),
            record(2, withdrawn("a")),
            record(3, started("a", "b-1/a/2"), at=NOW + 5),
        ]
    )
    assert history.in_flight == {"a": Flight("b-1/a/2", NOW + 5)}


def test_the_time_to_answer_begins_with_the_first_sending() -> None:
    """A request that was started long before, or that is sent again, has its time from its leaving."""
    history = fold(
        [
            record(1, ACCEPTED, started("a")),
            record(2, sent("a"), at=NOW + 3_600_000),
            record(3, sent("a"), at=NOW + 3_700_000),
        ]
    )
    assert history.in_flight == {"a": Flight("b-1/a/1", NOW + 3_600_000, sent=True)}


def test_an_outage_moves_what_is_in_flight() -> None:
    """Time in which there was no broker does not count; what began meanwhile has its time from the end."""
    history = fold(
        [
            record(1, ACCEPTED, started("before"), started("settled"), at=NOW),
            record(2, settled("settled"), at=NOW + 1_000),
            record(3, started("meanwhile"), at=NOW + 8_000),
            record(4, Suspended(), Resumed(7.5), started("after"), at=NOW + 10_000),
            record(5, Suspended(), Resumed(1.5), at=NOW + 20_000),
        ]
    )
    since = {name: flight.since - NOW for name, flight in history.in_flight.items()}
    assert since == {"before": 9_000, "meanwhile": 11_500, "after": 11_500}


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), max_size=6), st.integers(0, 200))
def test_outages_do_not_count(spans: list[tuple[int, int]], begun: int) -> None:
    """Whenever it began, a component's age in the end is the time in which there was a broker."""
    outages, clock = [], 0
    for pause, length in spans:
        outages.append((clock + pause, clock + pause + length))
        clock += pause + length
    # At one moment, what begins comes before the outage that ends.
    events: list[tuple[int, int, list[Event]]] = [
        (end, 1, [Suspended(), Resumed((end - start) / 1_000)]) for start, end in outages
    ]
    events.append((begun, 0, [started("a")]))
    events.sort(key=lambda one: one[:2])
    history = fold(
        [
            record(1, ACCEPTED, at=NOW),
            *(record(n, *these, at=NOW + at) for n, (at, _, these) in enumerate(events, 2)),
        ]
    )
    end = max(clock, begun)
    away = sum(max(0, stop - max(start, begun)) for start, stop in outages)
    assert NOW + end - history.in_flight["a"].since == pytest.approx(end - begun - away, abs=0.01)


def test_a_clock_that_goes_back_moves_nothing_back() -> None:
    """An outage that ended, by the writer's clock, before a component started does not touch it."""
    history = fold([record(1, ACCEPTED, started("a")), record(2, Suspended(), Resumed(5.0), at=NOW - 1_000)])
    assert history.in_flight["a"].since == NOW


def test_loads_are_counted_at_the_end() -> None:
    """Only `loading` marks in a row at the end count, over records; whatever else is logged ends the row."""
    load = Loading()
    assert fold_events(load).loads == 1
    assert fold_events(load, load, load).loads == 3
    assert fold([record(1, ACCEPTED, load), record(2, load, load)]).loads == 3
    assert fold_events(load, load, Released()).loads == 0
    assert fold_events(load, load, started("a"), load).loads == 1
    assert fold([record(1, ACCEPTED), record(2, load), record(3)]).loads == 0
    assert fold_events(Finished(None), Reported(1), load).loads == 1


def test_a_late_success_is_kept_beside_an_error() -> None:
    """An errored component may be settled once more, with what came late."""
    late = settled("a", "errored", error="timed out", adoptable={"_state": "completed"})
    history = fold_events(started("a"), settled("a", "errored", error="timed out"), late)
    assert history.steps[-1] is late


def test_a_submitted_adoptable_does_not_count_as_one() -> None:
    """A build that is submitted again as it was reported may have something adoptable in it from before."""
    old, new = ({"_state": "completed", "n": n} for n in (1, 2))
    history = fold_events(
        started("a"), settled("a", "errored", adoptable=old), settled("a", "errored", adoptable=new)
    )
    assert len(history.steps) == 4


def test_what_waits_for_another_attempt() -> None:
    """It is not in flight, and is due so long after its attempt was known to have failed."""
    history = fold([record(1, ACCEPTED, started("a")), record(2, retrying("a", pause=2.5), at=NOW + 1_000)])
    assert (history.in_flight, history.pauses, history.began) == ({}, {"a": NOW + 3_500}, {"a": NOW})


def test_another_attempt_is_in_flight() -> None:
    """Its time to answer is its own; that of all attempts together began with the first one."""
    history = fold(
        [
            record(1, ACCEPTED, started("a")),
            record(2, retrying("a"), at=NOW + 1_000),
            record(3, started("a", "b-1/a/2"), at=NOW + 3_000),
        ]
    )
    assert history.in_flight == {"a": Flight("b-1/a/2", NOW + 3_000)}
    assert (history.pauses, history.began) == ({}, {"a": NOW})


@pytest.mark.parametrize("outcome", [settled("a"), FAILED])
def test_a_component_may_settle_while_it_waits_for_another_attempt(outcome: Event) -> None:
    """A late success may come, or the build be halted: nothing of it is awaited any more."""
    history = fold_events(started("a"), retrying("a"), outcome)
    assert (history.in_flight, history.pauses, history.began) == ({}, {}, {})


def test_what_did_not_leave_has_not_begun() -> None:
    """The time of all its attempts begins with the first one that is not taken back."""
    history = fold([record(1, ACCEPTED, started("a")), record(2, Paused(), withdrawn("a"), at=NOW + 1_000)])
    assert (history.in_flight, history.began, history.held) == ({}, {}, {})
    history.add(record(3, Unpaused(), started("a"), at=NOW + 9_000))
    assert history.began == {"a": NOW + 9_000}


@pytest.mark.parametrize("again", [False, True])
def test_for_another_attempt_that_is_taken_back_the_time_stands_still_in_pauses(again: bool) -> None:
    """In the pause in which it is taken back as in the next one (``again``), in which it waits for a slot."""
    history = fold(
        [
            record(1, ACCEPTED, started("a")),
            record(2, retrying("a"), at=NOW + 1_000),
            record(3, started("a", "b-1/a/2"), at=NOW + 3_000),
            record(4, Paused(), withdrawn("a"), at=NOW + 4_000),
            record(5, Unpaused(), at=NOW + 6_000),
            *([record(6, Paused(), at=NOW + 7_000), record(7, Unpaused(), at=NOW + 10_000)] if again else []),
        ]
    )
    assert history.began == {"a": NOW + 2_000 + 3_000 * again}


def test_what_is_sent_again_by_an_operator_begins_again() -> None:
    """It may start and settle once more, and all of its time begins with that."""
    history = fold(
        [
            record(1, ACCEPTED, started("a"), FAILED),
            record(2, Retried(("a",), 1), at=NOW + 1_000),
            record(3, started("a", "b-1/a/2"), at=NOW + 2_000),
        ]
    )
    assert (history.began, history.run) == ({"a": NOW + 2_000}, 1)
    history.add(record(4, settled("a")))
    assert history.in_flight == {}


def test_a_further_run() -> None:
    """After its report a build may be resumed: it is open again, and is finished and reported again."""
    history = fold_events(FAILED, *OVER, Retried(("a",), 2))
    assert (history.status, history.run, history.finished) == (Status.OPEN, 2, None)
    then: list[Event] = [settled("a"), Finished(None), Reported(2)]
    for n, event in enumerate(then, history.n + 1):
        history.add(record(n, event))
    assert (history.status, history.run, history.finished) == (Status.REPORTED, 2, Finished(None))


@pytest.mark.parametrize("before", [[], [FAILED], [started("a")], [started("a"), retrying("a")]])
def test_what_an_operator_supplies_may_settle(before: list[Event]) -> None:
    """Whether it had not begun, had failed, or is in flight."""
    history = fold_events(*before, Supplied("a", {"x": 1}), settled("a"))
    assert (history.in_flight, history.pauses) == ({}, {})


def test_more_time_moves_a_deadline() -> None:
    """What is in flight has so much more time to answer."""
    history = fold_events(started("a"), Extended("a", 60.5))
    assert history.in_flight == {"a": Flight("b-1/a/1", NOW, extended=60_500)}


def test_each_step_has_its_time() -> None:
    """The times of the records stand beside the steps."""
    history = fold(
        [
            record(1, ACCEPTED, started("a")),
            record(2, Loading(), Suspended(), Resumed(0.0), Paused(), at=NOW + 5),
            record(3, Unpaused(), Limited({}), at=NOW + 9),
        ]
    )
    assert history.steps == [ACCEPTED, started("a"), Paused(), Unpaused(), Limited({})]
    assert history.times == [NOW, NOW, NOW + 5, NOW + 9, NOW + 9]


def test_an_event_that_is_elsewhere() -> None:
    """What was too large for its record has to be put in its place first."""
    with pytest.raises(UnreadableLog, match=r"^record 1: the object 'b-1/1' is missing; the build is left"):
        History().add(record(1, Elsewhere("b-1/1")))


@pytest.mark.parametrize(
    ("records", "says"),
    [
        ([record(2, ACCEPTED)], "record 2: it stands where record 1 is due"),
        ([record(1, ACCEPTED), record(1, started("a"))], "record 1: it stands where record 2 is due"),
        ([record(1, ACCEPTED), record(3, started("a"))], "record 3: it stands where record 2 is due"),
        ([record(1)], "record 1: it holds no event"),
        (
            [record(1, ACCEPTED, epoch=2), record(2, Loading(), epoch=1)],
            "record 2: it is of epoch 1, after one of epoch 2",
        ),
    ],
)
def test_records_must_follow_each_other(records: list[Record], says: str) -> None:
    """A record that is lost, doubled or out of order is noticed."""
    with pytest.raises(UnreadableLog, match=f"^{says}"):
        fold(records)


@pytest.mark.parametrize("event", [started("a"), settled("a"), Loading(), Released(), Finished(None)])
def test_first_of_all_the_build_is_accepted(event: Event) -> None:
    """Nothing comes before the build."""
    name = type(event).__name__.lower()
    with pytest.raises(
        UnreadableLog, match=f"record 1: '{name}' comes before the build is accepted; .* left"
    ):
        fold([record(1, event, ACCEPTED)])


A, B = "'a'", "'b-1/a/2'"


@pytest.mark.parametrize(
    ("events", "says"),
    [
        ([ACCEPTED], "'accepted' comes a second time"),
        ([started("a"), started("a")], f"{A} is started, and it is in flight already"),
        ([started("a"), sent("a"), started("a")], f"{A} is started, and it is in flight already"),
        ([started("a"), settled("a"), started("a")], f"{A} is started, and it is settled already"),
        ([settled("a"), started("a")], f"{A} is started, and it is settled already"),
        ([sent("a")], f"{A} is sent as 'b-1/a/1', which was not started"),
        ([started("a"), sent("a", "b-1/a/2")], f"{A} is sent as {B}, which was not started"),
        ([started("a"), settled("a"), sent("a")], f"{A} is sent as"),
        ([started("a"), withdrawn("a"), sent("a")], f"{A} is sent as"),
        ([withdrawn("a")], f"{A} is withdrawn, and it is not in flight"),
        ([started("a"), withdrawn("a"), withdrawn("a")], f"{A} is withdrawn, and it is not in flight"),
        ([started("a"), sent("a"), withdrawn("a")], f"{A} is withdrawn, and it is sent already"),
        ([started("a"), settled("a"), settled("a")], f"{A} is settled a second time"),
        ([settled("a"), settled("a", "errored", adoptable={})], f"{A} is settled a second time"),
        ([settled("a", "errored"), settled("a", "errored")], f"{A} is settled a second time"),
        ([settled("a", "errored"), settled("a", adoptable={})], f"{A} is settled a second time"),
        (
            [settled("a", "errored"), *[settled("a", "errored", adoptable={})] * 2],
            f"{A} is settled a second time",
        ),
        ([settled("a", "running")], f"{A} is settled, and its _state is 'running'"),
        ([Settled("a", {})], f"{A} is settled, and its _state is 'None'"),
        ([Settled("a", {"_state": []})], f"{A} is settled, and its _state is '\\[\\]'"),
        ([started("a"), Finished(None)], f"the build is finished, and {A} is in flight"),
        ([Finished(None), Finished(None)], "'finished' comes when the build is finished"),
        ([Finished(None), settled("a")], "'settled' comes when the build is finished"),
        ([Finished(None), started("a")], "'started' comes when the build is finished"),
        ([Reported(1)], "'reported' comes when the build is not finished"),
        ([Finished(None), Reported(1), Reported(1)], "'reported' comes when the build is reported"),
        ([Finished(None), Reported(1), started("a")], "'started' comes when the build is reported"),
        ([Finished(None), Reported(1), Suspended()], "'suspended' comes when the build is reported"),
        ([retrying("a")], f"{A} failed as 'b-1/a/1', which was not started"),
        ([started("a"), retrying("a", "b-1/a/2")], f"{A} failed as {B}, which was not started"),
        ([started("a"), retrying("a"), retrying("a")], f"{A} failed as 'b-1/a/1', which was not started"),
        ([started("a"), retrying("a"), sent("a")], f"{A} is sent as 'b-1/a/1', which was not started"),
        ([started("a"), retrying("a"), withdrawn("a")], f"{A} is withdrawn, and it is not in flight"),
        ([started("a"), settled("a"), retrying("a")], f"{A} failed as"),
        ([Retried(("a",), 1)], f"{A} is to be sent again, and it has not failed"),
        ([started("a"), Retried(("a",), 1)], f"{A} is to be sent again, and it has not failed"),
        ([settled("a"), Retried(("a",), 1)], f"{A} is to be sent again, and it has not failed"),
        ([FAILED, Retried(("a", "a"), 1)], f"{A} is to be sent again, and it has not failed"),
        ([FAILED, Retried(("a",), 2)], "run 2 begins, and run 1 is not finished"),
        ([FAILED, Finished(None), Retried(("a",), 2)], "'retried' comes when the build is finished"),
        ([FAILED, *OVER, Retried(("a",), 1)], "run 1 begins, after run 1"),
        ([FAILED, *OVER, Retried(("a",), 3)], "run 3 begins, after run 1"),
        ([FAILED, *OVER, Retried((), 2), settled("a")], f"{A} is settled a second time"),
        ([settled("a"), Supplied("a", {})], f"{A} is supplied, and it is completed already"),
        ([FAILED, *OVER, Supplied("a", {})], "'supplied' comes when the build is reported"),
        ([Extended("a", 1.0)], f"{A} is given more time, and it is not in flight"),
        ([started("a"), retrying("a"), Extended("a", 1.0)], f"{A} is given more time, and it is not in"),
        ([Finished(None), Cancelled("cancelled")], "'cancelled' comes when the build is finished"),
        ([Finished(None), Paused()], "'paused' comes when the build is finished"),
        ([Finished(None), Unpaused()], "'unpaused' comes when the build is finished"),
        ([Finished(None), Reported(1), Limited({})], "'limited' comes when the build is reported"),
        ([started("a" * 10_000), started("a" * 10_000)], "'a{256}' is started, and"),
    ],
)
def test_what_cannot_have_happened(events: list[Event], says: str) -> None:
    """An impossible order is refused with the record and what is wrong."""
    n = len(events) + 1
    with pytest.raises(UnreadableLog, match=f"^record {n}: {says}.*; the build is left as it is$"):
        fold_events(*events)


@pytest.mark.parametrize("after", [Loading(), Released()])
def test_a_reported_build_can_be_looked_at(after: Event) -> None:
    """What processes and people do with a build has its place at any time."""
    assert fold_events(Finished(None), Reported(1), after).status is Status.REPORTED


def test_an_outage_while_the_report_goes_out() -> None:
    """A finished build may meet an outage before it is reported."""
    assert fold_events(Finished(None), Suspended(), Resumed(1.0), Reported(1)).status is Status.REPORTED


LETTERS: dict[str, Event] = {
    "s": started("a"),
    "p": sent("a"),
    "w": withdrawn("a"),
    "C": settled("a"),
    "E": settled("a", "errored"),
    "L": settled("a", "errored", adoptable={}),
    "F": Finished(None),
    "R": Reported(1),
    "l": Loading(),
    "S": Suspended(),
    "M": Resumed(1.0),
}
LEGAL_OF_COMPONENT = re.compile(r"(sw)*((sp*)?(C|[EL]L?)|sp*)?")
LEGAL_OF_BUILD = re.compile(r"[a-zCELSM]*(F[lSM]*(R[l]*)?)?")


@given(st.text("sspppwwCELFRlSM", max_size=12))
@settings(max_examples=1_000)
def test_any_order_of_events(letters: str) -> None:
    """A log is taken exactly where a pattern, written down beside it, says that it can be."""
    own = re.sub("[^spwCEL]", "", letters)
    legal = LEGAL_OF_COMPONENT.fullmatch(own) and LEGAL_OF_BUILD.fullmatch(letters)
    if "F" in letters and re.search("sp*$", re.sub("[^spwCEL]", "", letters.partition("F")[0])):
        legal = None
    events = [LETTERS[letter] for letter in letters]
    if not legal:
        with pytest.raises(UnreadableLog):
            fold_events(*events)
        return
    history = fold_events(*events)
    assert history.steps == [ACCEPTED, *(one for one in events if not isinstance(one, NO_STEPS))]
    assert bool(history.in_flight) == bool(re.search("sp*$", own))
    assert history.loads == len(letters) - len(letters.rstrip("l"))


@given(st.lists(st.lists(EVENTS | st.builds(Elsewhere, st.text()), max_size=3), max_size=5))
def test_any_records(groups: list[list[Event | Elsewhere]]) -> None:
    """Whatever stands in readable records, folding it ends well or with an unreadable log."""
    history = History()
    try:
        for n, events in enumerate(groups, 1):
            history.add(record(n, *events))
    except UnreadableLog:
        return
    assert history.n == len(groups)


GATE = {"_component_id": "g", "_action": "approve"}


def gated(*events: Event) -> History:
    """The log of a build with a gate, whose changes may be JSON text, as in a log that was read."""
    accepted = Accepted({"id": "b-1", "changes": [{"_component_id": "a", "_action": "create"}, GATE]})
    return fold(reread(record(n, event) for n, event in enumerate((accepted, *events), 1)))


def test_a_gate_is_given_more_time_although_nothing_is_in_flight() -> None:
    """All that is added counts, until it is decided; after a retry it has its own time again."""
    history = gated(Extended("g", 5.0), Extended("g", 2.5))
    assert history.extended == {"g": 7_500.0}
    failed = settled("g", "errored")
    assert gated(Extended("g", 5.0), failed).extended == {}
    assert gated(Extended("g", 5.0), failed, Retried(("g",), 1)).extended == {}
    assert gated(Extended("g", 5.0), Finished("x"), Reported(1), Retried((), 2)).extended == {}


@pytest.mark.parametrize("events", [[Extended("a", 5.0)], [settled("g"), Extended("g", 5.0)]])
def test_nothing_else_that_waits_is_given_more_time(events: list[Event]) -> None:
    """Neither a component that is not a gate, nor a gate that is decided."""
    with pytest.raises(UnreadableLog, match="is given more time, and it is not in flight"):
        gated(*events)
