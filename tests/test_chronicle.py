"""When what happened to a build's components: as it happens, and as its log says afterwards."""

import random
from collections.abc import Iterable

from builds import Document, build, change, prepare
from fake_bus import FakeBus
from hypothesis import given
from hypothesis import strategies as st
from logs import NOW, fold, record, reread, settled

from scheduler.chronicle import Chronicle
from scheduler.events import Event, Finished, Reported, Retried, Retrying, Sent, Settled, Started, Supplied
from scheduler.feed import Feed, Track
from scheduler.outcome import Outcome, failure
from scheduler.plan import Phase, Plan, Request

SECONDS = NOW / 1_000


def times(chronicle: Chronicle, count: int) -> list[tuple[float | None, float | None, float | None]]:
    """Of each component when it was due, when it was sent and when it ended: seconds since NOW."""

    def since(at: float | None) -> float | None:
        return None if at is None else round(at - SECONDS, 3)

    return [
        (since(chronicle.due(one)), since(chronicle.sent(one)), since(chronicle.ended(one)))
        for one in range(count)
    ]


def recall(document: Document, log: Iterable[tuple[float, Event]]) -> Chronicle:
    """What a log says of a build; each event with the seconds since NOW."""
    plan = Plan(prepare(document))
    written = [(0.0, plan.accepted), *log]
    records = [record(n, one, at=NOW + round(at * 1_000)) for n, (at, one) in enumerate(written, 1)]
    return Chronicle.recall(plan.build, plan.graph, fold(reread(records)), lambda: SECONDS)


def started(name: str, attempt: int = 1) -> Started:
    return Started(name, f"b-1/{name}/{attempt}", b"")


PAIR = build(change("a"), change("b"), edges=[("a", "b")])


def test_what_a_log_says_of_times() -> None:
    """A component is due when its dependencies are completed, and sent when its last attempt was."""
    chronicle = recall(
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
    assert times(chronicle, 2) == [(0, 8, 9), (9, 11, None)]
    assert (chronicle.accepted, chronicle.over) == (SECONDS, None)


def test_nothing_is_due_behind_a_failure() -> None:
    """An outcome that is an error completes no dependency."""
    chronicle = recall(PAIR, [(1, started("a")), (2, settled("a", "errored"))])
    assert times(chronicle, 2) == [(0, 1, 2), (None, None, None)]


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
    chronicle = recall(
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
    assert times(chronicle, 3) == [(0, 1, 3), (90, None, None), (90, None, None)]
    assert (chronicle.accepted - SECONDS, chronicle.over) == (90, None)


def test_a_build_that_is_over() -> None:
    """The log says when it had come to its end."""
    chronicle = recall(build(change("a", "none")), [(1, settled("a")), (2.5, Finished(None))])
    assert chronicle.over == SECONDS + 2.5


def test_a_further_run_that_begins_here() -> None:
    """Whoever begins it has all that is to be done wait anew."""
    chronicle = recall(PAIR, [(1, started("a")), (2, settled("a", "errored")), (3, Finished("no"))])
    chronicle.begin_anew([0, 1], SECONDS + 5)
    assert times(chronicle, 2) == [(None, None, None)] * 2
    assert chronicle.over is None


class Live:
    """A build whose events are told and written down as a walk would do it."""

    def __init__(self, document: Document, seed: int) -> None:
        self.plan = Plan(prepare(document))
        self.chance = random.Random(seed)
        self.now = 0.0
        count = len(self.plan.phases)
        chronicle = Chronicle(count, SECONDS, lambda: SECONDS + self.now)
        self.track = Track(Feed(FakeBus()), self.plan, chronicle, lambda _subject, _seconds: None)
        self.log: list[tuple[float, Event]] = []
        self.requests: dict[int, Request] = {}
        self.due()

    def keep(self, *events: Event) -> None:
        self.log += [(self.now, event) for event in events]

    def due(self) -> None:
        plan = self.plan
        for vertex in plan.phases.within(Phase.WAITING):
            if all(plan.phase(one) is Phase.COMPLETED for one in plan.graph.dependencies[vertex]):
                self.track.due(vertex)

    def settle(self, step: Event) -> None:
        self.keep(step)
        if isinstance(step, Settled):
            vertex = self.plan.graph.index[step.component]
            error = step.body.get("error") if step.body["_state"] == "errored" else None
            self.track.settled(vertex, self.plan.attempt(vertex), error)
            self.due()

    def step(self) -> None:
        plan, chance = self.plan, self.chance
        self.now += chance.randrange(1, 5_000) / 1_000
        errored = plan.phases.within(Phase.ERRORED)
        if errored and chance.random() < 0.3:
            before = {*errored, *plan.phases.within(Phase.SKIPPED)}
            vertex = chance.choice(errored)
            events = plan.retry(vertex) if chance.random() < 0.5 else plan.supply(vertex, {})
            self.keep(*[one for one in events if not isinstance(one, Settled)])
            for vertex in sorted(before):
                if plan.phase(vertex) is Phase.WAITING:
                    self.track.waits(vertex)
            for one in events:
                if isinstance(one, Settled):
                    self.settle(one)
            self.due()
            return
        ready = [
            vertex
            for vertex in plan.phases.within(Phase.WAITING, Phase.RETRYING)
            if all(plan.phase(one) is Phase.COMPLETED for one in plan.graph.dependencies[vertex])
        ]
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
        if isinstance(step, Retrying):
            self.track.retries(vertex, self.plan.attempt(vertex), step.error, step.pause)
        self.settle(step)


@given(st.integers(0, 10**6), st.integers(0, 40))
def test_a_log_says_the_times_that_were_told(seed: int, steps: int) -> None:
    """Recalled from the log, the times of a build are those that whoever followed it has heard."""
    names = ["a", "b", "c", "d", "e"]
    document = build(
        *(change(name, "none" if name == "d" else "create", _retry={"attempts": 2}) for name in names),
        edges=[("a", "b"), ("a", "d"), ("b", "c"), ("d", "c")],
        options={"on_error": "continue"},
    )
    live = Live(document, seed)
    for _ in range(steps):
        live.step()
    again = recall(document, live.log)
    assert times(again, 5) == times(live.track.chronicle, 5)
    assert again.accepted == live.track.chronicle.accepted
