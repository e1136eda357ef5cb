"""When what happened to a build's components: as it happens, and as its log says afterwards."""

import random
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from support.builds import Document, build, change, prepare
from support.fake_bus import FakeBus
from support.logs import NOW, fold, record, reread, settled

from scheduler.journal.events import (
    Cancelled,
    Event,
    Finished,
    Paused,
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
)
from scheduler.journal.records import TIMED, Record
from scheduler.journal.timings import Timings
from scheduler.plan import Phase, Plan, Request, late_replies, steering
from scheduler.plan.outcome import Outcome, failure
from scheduler.plan.summary import accepted_of
from scheduler.supervision.feed import Feed, Track

SECONDS = NOW / 1_000


def times(timings: Timings, count: int) -> list[tuple[float | None, float | None, float | None]]:
    """Of each component when it was due, when it was sent and when it ended: seconds since NOW."""

    def since(at: float | None) -> float | None:
        return None if at is None else round(at - SECONDS, 3)

    return [
        (since(timings.due(one)), since(timings.sent(one)), since(timings.ended(one))) for one in range(count)
    ]


def recall(document: Document, log: Iterable[tuple[float, Event]], late: float = 0.0) -> Timings:
    """What a log says of a build; each event with the seconds since NOW.

    With ``late``, what says when it happened was written down so many seconds later, or with what came next.
    """
    plan = Plan(prepare(document))
    records: list[Record] = []
    until = float("inf")
    one: Any
    for at, one in reversed(list(log)):
        timed = bool(late) and type(one) in TIMED
        until = min(at + late, until) if timed else at
        event = replace(one, time=SECONDS + at) if timed else one
        records.insert(0, record(0, event, at=NOW + round(until * 1_000)))
    records.insert(0, record(0, accepted_of(plan), at=NOW))
    records = [evolve(one, n=n) for n, one in enumerate(records, 1)]
    return Timings.of_history(plan.build, plan.graph, fold(reread(records)), lambda: SECONDS)


def rounded(intervals: Iterable[Sequence[float | None]]) -> list[list[float | None]]:
    """Seconds since NOW."""
    return [[None if at is None else round(at - SECONDS, 3) for at in one] for one in intervals]


def started(name: str, attempt: int = 1) -> Started:
    return Started(name, f"b-1/{name}/{attempt}", b"")


PAIR = build(change("a"), change("b"), edges=[("a", "b")])


def test_what_a_log_says_of_times() -> None:
    """A component is due when its dependencies are completed, and sent when its last attempt was."""
    timings = recall(
        PAIR,
        [
            (1, started("a")),
            (2, Sent("a", "b-1/a/1")),
            (5, Retrying("a", "b-1/a/1", "503", 2.0)),
            (7, started("a", 2)),
            (8, Sent("a", "b-1/a/2")),
            (9, settled("a")),
            (11, started("b")),
        ],
    )
    assert times(timings, 2) == [(0, 8, 9), (9, 11, None)]
    assert (timings.accepted, timings.over) == (SECONDS, None)
    assert rounded(timings.failed(0)) == [[2, 5, 7]]


def test_what_was_written_late_happened_when_it_says() -> None:
    """A request left before the word of it was written; an outcome that came sooner says when it left."""
    written = [
        record(1, accepted_of(Plan(prepare(PAIR))), at=NOW),
        record(2, started("a"), at=NOW + 1_000),
        record(3, Sent("a", "b-1/a/1", time=SECONDS + 1.01), at=NOW + 1_250),
        record(4, replace(settled("a"), time=SECONDS + 4.0), started("b"), at=NOW + 9_000),
        # It went out again; what counts is the first copy.
        record(5, replace(settled("b"), sent=SECONDS + 9.02, time=SECONDS + 9.05), at=NOW + 9_060),
    ]
    plan = Plan(prepare(PAIR))
    timings = Timings.of_history(plan.build, plan.graph, fold(reread(written)), lambda: SECONDS)
    assert times(timings, 2) == [(0, 1.01, 4), (4, 9.02, 9.05)]


def test_a_copy_of_a_request_does_not_move_when_it_left() -> None:
    """The first word of it counts."""
    log: list[tuple[float, Event]] = [
        (1, started("a")),
        (2, Sent("a", "b-1/a/1")),
        (7, Sent("a", "b-1/a/1")),
        (8, replace(settled("a"), sent=SECONDS + 7)),
    ]
    assert times(recall(PAIR, log), 1) == [(0, 2, 8)]


def test_failed_attempts_are_remembered_to_a_bound() -> None:
    """Of a component that fails ever again the last hundred, in 24 bytes each."""
    timings = Timings(1, 0.0, lambda: SECONDS)
    for second in range(1, 1_001):
        timings.note_sent(0, second)
        timings.note_failed(0, second + 0.5, 0.25)
    remembered = timings.failed(0)
    assert len(remembered) == 100
    assert (remembered[0].sent, remembered[-1].again) == (901, 1_000.75)
    assert sys.getsizeof(timings._failed[0]) < 100 * 24 * 1.2


def test_between_two_attempts_none_is_in_flight() -> None:
    """Until the next one leaves; a late success of the one that had failed takes that back."""
    log: list[tuple[float, Event]] = [
        (1, started("a")),
        (2, Sent("a", "b-1/a/1")),
        (5, Retrying("a", "b-1/a/1", "timed out", 60.0)),
    ]
    waiting = recall(PAIR, log)
    assert (times(waiting, 1), rounded(waiting.failed(0))) == ([(0, None, None)], [[2, 5, 65]])
    late = recall(PAIR, [*log, (30, settled("a"))])
    assert (times(late, 1), late.failed(0)) == ([(0, 2, 30)], [])
    halted = recall(PAIR, [*log, (30, settled("a", "errored"))])
    assert (times(halted, 1), rounded(halted.failed(0))) == ([(0, None, 30)], [[2, 5, 65]])


def test_a_late_success_beside_an_error_does_not_move_its_end() -> None:
    """It had failed when it was said to."""
    log: list[tuple[float, Event]] = [
        (1, started("a")),
        (2, settled("a", "errored")),
        (9, settled("a", "errored", adoptable={})),
    ]
    assert times(recall(PAIR, log), 1) == [(0, 1, 2)]


def test_pauses_and_outages_are_known() -> None:
    """Those of operators end with a cancellation, too; those of the broker are told when they are over."""
    timings = recall(
        PAIR,
        [
            (1, started("a")),
            (5, Paused()),
            (6, Unpaused()),
            (10, Suspended()),
            (10, Resumed(3.0)),
            (20, Paused()),
            (21, Cancelled("cancelled")),
        ],
    )
    assert rounded(timings.pauses) == [[5, 6], [20, 21]]
    assert rounded(timings.outages) == [[7, 10]]
    assert rounded(recall(PAIR, [(5, Paused())]).pauses) == [[5, None]]


def test_nothing_is_due_behind_a_failure() -> None:
    """An outcome that is an error completes no dependency."""
    timings = recall(PAIR, [(1, started("a")), (2, settled("a", "errored"))])
    assert times(timings, 2) == [(0, 1, 2), (None, None, None)]


def test_what_was_completed_before_the_build_is_waited_for_by_nobody() -> None:
    """What depends on it alone is due from the beginning."""
    document = build(change("a", _state="completed"), change("b"), edges=[("a", "b")])
    assert times(recall(document, []), 2) == [(None, None, None), (0, None, None)]


def test_a_component_that_is_sent_again_by_an_operator() -> None:
    """It is as if it had not been tried: due from then on."""
    log: list[tuple[float, Event]] = [
        (1, started("a")),
        (2, settled("a", "errored")),
        (60, Retried(("a",), 1)),
        (61, started("a", 2)),
    ]
    assert times(recall(PAIR, log), 2) == [(60, 61, None), (None, None, None)]


def test_a_component_that_had_failed_and_is_supplied() -> None:
    """It is over when the operator says so, and what is behind it due."""
    log: list[tuple[float, Event]] = [
        (1, started("a")),
        (2, settled("a", "errored")),
        (60, Supplied("a", {})),
        (60, settled("a")),
    ]
    assert times(recall(PAIR, log), 2) == [(60, None, 60), (60, None, None)]


def test_a_further_run_has_its_own_beginning() -> None:
    """What is to be done in it is due from then on; what was completed before keeps its times."""
    timings = recall(
        build(change("a"), change("b"), change("c")),
        [
            (1, started("a")),
            (2, started("b")),
            (3, settled("a")),
            (4, settled("b", "errored")),
            (5, Finished("b: no")),
            (5, Reported(1)),
            (90, Retried(("b",), 2)),
        ],
    )
    assert times(timings, 3) == [(0, 1, 3), (90, None, None), (90, None, None)]
    assert (timings.accepted - SECONDS, timings.over) == (90, None)


def test_a_build_that_is_over() -> None:
    """The log says when it had come to its end."""
    timings = recall(build(change("a", "none")), [(1, settled("a")), (2.5, Finished(None))])
    assert timings.over == SECONDS + 2.5


def test_a_further_run_that_begins_here() -> None:
    """In a new run everything that is to be done waits again."""
    timings = recall(PAIR, [(1, started("a")), (2, settled("a", "errored")), (3, Finished("no"))])
    timings.begin_run([0, 1], SECONDS + 5)
    assert times(timings, 2) == [(None, None, None)] * 2
    assert timings.over is None


class Live:
    """A build whose events are told and written down as a walk would do it."""

    def __init__(self, document: Document, seed: int) -> None:
        self.plan = Plan(prepare(document))
        self.chance = random.Random(seed)
        self.now = 0.0
        count = len(self.plan.phases)
        timings = Timings(count, SECONDS, lambda: SECONDS + self.now)
        self.track = Track(Feed(FakeBus()), self.plan, timings, lambda _subject, _seconds: None)
        self.log: list[tuple[float, Event]] = []
        self.requests: dict[int, Request] = {}
        self.due()

    def keep(self, *events: Event) -> None:
        self.log += [(self.now, event) for event in events]

    def due(self) -> None:
        plan = self.plan
        for vertex in plan.phases.within(Phase.WAITING):
            if all(plan.phases[one] is Phase.COMPLETED for one in plan.graph.dependencies[vertex]):
                self.track.due(vertex)

    def departures(self) -> list[tuple[float, Event]]:
        """The word that what is in flight has left, as it is written sooner or later."""
        running = self.plan.phases.within(Phase.RUNNING)
        requests = [(self.track.timings.sent(one), self.requests[one]) for one in running]
        return [((at or 0.0) - SECONDS, Sent(one.component, one.attempt)) for at, one in requests]

    def settle(self, step: Event) -> None:
        if isinstance(step, Settled | Retrying):
            step = replace(step, sent=self.track.timings.sent(self.plan.graph.index[step.component]))
        self.keep(step)
        if isinstance(step, Settled):
            vertex = self.plan.graph.index[step.component]
            error = step.body.get("error") if step.body["_state"] == "errored" else None
            self.track.settled(vertex, self.plan.attempt(vertex), error)
            self.due()

    def step(self) -> None:
        plan, chance = self.plan, self.chance
        self.now += chance.randrange(1, 5_000) / 1_000
        if chance.random() < 0.1 and not plan.state.halted:
            self.keep(*steering.pause(plan, on=not plan.state.paused))
            self.track.happened("paused" if plan.state.paused else "resumed")
            return
        errored = plan.phases.within(Phase.ERRORED)
        if errored and chance.random() < 0.3:
            before = {*errored, *plan.phases.within(Phase.SKIPPED)}
            vertex = chance.choice(errored)
            events = (
                steering.retry(plan, vertex) if chance.random() < 0.5 else steering.supply(plan, vertex, {})
            )
            self.keep(*[one for one in events if not isinstance(one, Settled)])
            for vertex in sorted(before):
                if plan.phases[vertex] is Phase.WAITING:
                    self.track.waits(vertex)
            for one in events:
                if isinstance(one, Settled):
                    self.settle(one)
            self.due()
            return
        open_ = plan.phases.within(Phase.RUNNING, Phase.RETRYING)
        if open_ and chance.random() < 0.1:
            self.give_up(chance.choice(open_))
            return
        ready = [
            vertex
            for vertex in plan.phases.within(Phase.WAITING, Phase.RETRYING)
            if all(plan.phases[one] is Phase.COMPLETED for one in plan.graph.dependencies[vertex])
        ]
        retrying = plan.phases.within(Phase.RETRYING)
        if retrying and chance.random() < 0.2:
            vertex = chance.choice(retrying)
            late = late_replies.rescue(plan, self.requests[vertex], Outcome(completed=True, body={}))
            if late is not None:
                self.settle(late)
            return
        if plan.state.paused:
            ready = []
        todo = [*ready, *plan.phases.within(Phase.RUNNING)]
        if not todo:
            return
        vertex = chance.choice(todo)
        if vertex in ready:
            self.begin(vertex)
        elif chance.random() < 0.15:
            self.keep(plan.withdraw(vertex))
            self.track.waits(vertex)
        else:
            self.end(vertex)

    def give_up(self, vertex: int) -> None:
        """An operator has an attempt given up, and another one sent."""
        before = {vertex, *self.plan.phases.within(Phase.ERRORED, Phase.SKIPPED)}
        attempt, sent = self.plan.attempt(vertex), self.track.timings.sent(vertex)
        failed, retried = steering.retry_now(self.plan, vertex, "given up")
        assert isinstance(failed, Settled)
        self.keep(replace(failed, sent=sent), retried)
        self.track.settled(vertex, attempt, "given up")
        for one in sorted(before):
            if self.plan.phases[one] is Phase.WAITING:
                self.track.waits(one)
        self.due()

    def begin(self, vertex: int) -> None:
        step = self.plan.begin(vertex)
        if isinstance(step, Settled):
            self.settle(step)
        elif step is not None:
            self.requests[vertex] = step
            self.plan.sent(vertex)
            self.keep(step.started)
            self.track.sent(vertex, self.plan.attempt(vertex))

    def end(self, vertex: int) -> None:
        good = self.chance.random() < 0.6
        outcome = Outcome(completed=True, body={}) if good else failure("no")
        step = self.plan.settle(self.requests[vertex], outcome)
        self.settle(step)
        if isinstance(step, Retrying):
            self.track.retries(vertex, self.plan.attempt(vertex), step.error, step.pause)


@given(st.integers(0, 10**6), st.integers(0, 40))
def test_a_log_says_the_times_that_were_told(seed: int, steps: int) -> None:
    """Read from the log, the times of a build equal those noted live."""
    names = ["a", "b", "c", "d", "e"]
    document = build(
        *(change(name, "none" if name == "d" else "create", _retry={"attempts": 2}) for name in names),
        edges=[("a", "b"), ("a", "d"), ("b", "c"), ("d", "c")],
        options={"on_error": "continue"},
    )
    live = Live(document, seed)
    for _ in range(steps):
        live.step()
    for late in (0.0, 0.25, 60.0):
        log = [*live.log, *(live.departures() if late else ())]
        again = recall(document, sorted(log, key=lambda one: round(one[0], 3)), late)
        assert times(again, 5) == times(live.track.timings, 5)
        assert [rounded(again.failed(one)) for one in range(5)] == [
            rounded(live.track.timings.failed(one)) for one in range(5)
        ]
        assert rounded(again.pauses) == rounded(live.track.timings.pauses)
        assert again.accepted == live.track.timings.accepted
