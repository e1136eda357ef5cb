"""Builds as the plan drives them, written to a log: whatever is read of it says what the plan says."""

import random
from collections.abc import Iterator
from copy import copy
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from support.builds import prepare, report_document
from support.cases import Case, Watch, cases
from support.logs import NOW, fold, kept, record, reread

from scheduler.definition.graph import Vertex
from scheduler.definition.strictjson import decode, encode
from scheduler.errors import UnreadableLog
from scheduler.journal.events import (
    Event,
    Loading,
    Released,
    Reported,
    Resumed,
    Retrying,
    Sent,
    Settled,
    Suspended,
    Withdrawn,
)
from scheduler.journal.history import History
from scheduler.journal.records import Record
from scheduler.plan import Phase, Plan, Request, ending, late_replies
from scheduler.plan.outcome import Outcome
from scheduler.plan.summary import accepted_of, report_of

NO_STEPS = (Suspended, Resumed, Loading, Released)
FEW = settings(max_examples=150)


class Noted(Plan):
    """A plan that notes what its driver would have persisted; some of what was sent is never noted."""

    def __init__(self, *args: Any, chance: random.Random, **more: Any) -> None:
        super().__init__(*args, **more)
        self.events: list[Event] = [accepted_of(self)]
        self.chance = chance
        self._named: dict[Vertex, str] = {}

    def begin(self, vertex: Vertex, rendered: Request | None = None) -> Request | Settled | None:
        step = super().begin(vertex, rendered)
        if isinstance(step, Request):
            self._named[vertex] = step.attempt
            self.events.append(step.started)
        elif step is not None:
            self.events.append(step)
        return step

    def sent(self, vertex: Vertex) -> None:
        super().sent(vertex)
        if self.chance.random() < 0.7:
            self.events.append(Sent(self.graph.ids[vertex], self._named[vertex]))

    def withdraw(self, vertex: Vertex) -> Withdrawn:
        step = super().withdraw(vertex)
        self.events.append(step)
        return step

    def settle(
        self, request: Request, outcome: Outcome, luck: float = 1.0, elapsed: float = 0.0
    ) -> Settled | Retrying:
        step = super().settle(request, outcome, luck=luck, elapsed=elapsed)
        self.events.append(step)
        if not outcome.completed and self.chance.random() < 0.5:
            assert late_replies.adopt(self, request, Outcome(completed=True, body={"late": True}))
            self.events += late_replies.take_adopted(self)
        return step


def watch_noted(case: Case, seed: int) -> tuple[Watch, Noted]:
    """A build at its beginning, whose events are noted."""
    watch = Watch(case)
    plan = Noted(prepare(case.document), chance=random.Random(seed))
    watch.run.plan = plan
    return watch, plan


def walk(watch: Watch, steps: list[int]) -> None:
    for choice in steps:
        if not watch.step(choice):
            return


def in_records(events: list[Event], seed: int) -> list[Record]:
    """The events in groups as they may come, by several processes, with outages between them."""
    chance = random.Random(seed)
    records: list[Record] = []
    rest, epoch, clock = list(events), 1, NOW
    while rest:
        count = chance.choice([1, 1, 2, 5, 100])
        group, rest = rest[:count], rest[count:]
        if records and chance.random() < 0.2:
            epoch += 1
            group.insert(0, Loading())
        if records and chance.random() < 0.2:
            group[:0] = [Suspended(), Resumed(chance.random() * 10)]
        clock += chance.randrange(10_000)
        records.append(record(len(records) + 1, *group, epoch=epoch, at=clock))
    return records


def noted_in_flight(plan: Noted) -> dict[str, bool]:
    """Of the components in flight, whether it was noted that they were sent."""
    sent = {event.component for event in plan.events if isinstance(event, Sent)}
    return {name: name in sent for name in plan.phases.in_flight_ids()}


@given(cases(), st.integers(0, 40), st.integers(0, 10**6))
@FEW
def test_a_log_says_what_the_plan_says(case: Case, cut: int, seed: int) -> None:
    """Written in any groups, read and folded, a log has each step, and everything that is in flight."""
    watch, plan = watch_noted(case, seed)
    walk(watch, case.order[:cut])
    records = in_records(plan.events, seed)
    history = fold(reread(records))
    assert list(map(kept, history.steps)) == list(map(kept, plan.events))
    assert {name: flight.sent for name, flight in history.in_flight.items()} == noted_in_flight(plan)
    assert all(NOW <= flight.since <= records[-1].at for flight in history.in_flight.values())
    assert (history.n, history.epoch) == (len(records), records[-1].epoch)
    states = {one["_component_id"]: one["_state"] for one in report_document(plan)["changes"]}
    for step in history.steps:
        if isinstance(step, Settled):
            assert step.body["_state"] == states[step.component]


@given(cases(), st.integers(0, 10**6))
@FEW
def test_every_beginning_of_a_log_can_be_folded(case: Case, seed: int) -> None:
    """Wherever a log ends, for the time being, what is there is understood."""
    watch, plan = watch_noted(case, seed)
    walk(watch, case.order)
    plan.events += [ending.finish(plan), Reported(1)]
    records = list(reread(in_records(plan.events, seed)))
    history = History()
    for count, one in enumerate(records, 1):
        history.add(one)
        assert history.n == count
        assert history.steps == fold(records[:count]).steps
    assert history.run == 1
    assert history.finished == ending.finish(plan)


def damages(records: list[Record], chance: random.Random) -> Iterator[tuple[str, list[Record]]]:
    """The log with something wrong in it, and what."""
    at = chance.randrange(len(records))
    yield "lost", records[:at] + records[at + 1 :]
    yield "doubled", [*records[: at + 1], *records[at:]]
    other = chance.randrange(len(records))
    swapped = list(records)
    swapped[at], swapped[other] = swapped[other], swapped[at]
    yield "swapped", swapped


@given(cases(), st.integers(0, 10**6))
@FEW
def test_a_damaged_log_is_noticed(case: Case, seed: int) -> None:
    """A record that is lost, doubled or out of its place is never passed over, unless it was the last."""
    watch, plan = watch_noted(case, seed)
    walk(watch, case.order)
    records = list(reread(in_records(plan.events, seed)))
    for what, damaged in damages(records, random.Random(seed)):
        try:
            fold(damaged)
        except UnreadableLog:
            continue
        assert damaged == records[: len(damaged)], what


@given(cases(), st.integers(0, 10**6), st.integers(0, 10**6))
@FEW
def test_events_in_disorder(case: Case, seed: int, place: int) -> None:
    """Where events change places, the log is refused or says just what stands in it."""
    watch, plan = watch_noted(case, seed)
    walk(watch, case.order)
    events = list(plan.events)
    events.insert(place % len(events), events.pop((place // 7) % len(events)))
    try:
        history = fold(reread(in_records(events, seed)))
    except UnreadableLog:
        return
    assert list(map(kept, history.steps)) == list(map(kept, events))


def replayed(history: History, chance: random.Random) -> Noted:
    """The plan of the next process."""
    assert history.accepted is not None
    plan = Noted(prepare(decode(encode(history.accepted.document))), chance=chance)
    for step in history.steps:
        plan.replay(step)
    return plan


def beside(watch: Watch, plan: Noted) -> Watch:
    """Another watch that has seen what ``watch`` has, over a replayed plan: it resumes what flies."""
    other = Watch(watch.case)
    other.run.plan = plan
    for name in ("sent", "completed", "failed", "flying", "halted"):
        setattr(other, name, copy(getattr(watch, name)))
    for name in other.flying:
        request = other.run.resume(name)
        assert request == watch.run.requests[name]
        plan.state.depart(other.run.vertex(name))
    return other


def text(plan: Plan) -> bytes:
    """The report as things stand, byte for byte."""
    return b"".join(report_of(plan).chunks())


@given(cases(), st.integers(0, 40), st.integers(0, 10**6))
@FEW
def test_a_replayed_plan_goes_on_as_the_first_one(case: Case, cut: int, seed: int) -> None:
    """Wherever a process ends, the next one's plan stands where the log does, and comes to the same end."""
    watch, plan = watch_noted(case, seed)
    walk(watch, case.order[:cut])
    again = replayed(fold(reread(in_records(plan.events, seed))), copy(plan.chance))
    noted = noted_in_flight(plan)
    for vertex, name in enumerate(plan.graph.ids):
        # What is not known to have left may have, and may not.
        expected = plan.phases[vertex] if noted.get(name, True) else Phase.STARTING
        assert again.phases[vertex] is expected
        assert again.phases.is_in_flight(vertex) == plan.phases.is_in_flight(vertex)
    assert again.state.cause == plan.state.cause
    assert again.phases.in_flight == plan.phases.in_flight
    assert again.phases.settled == plan.phases.settled
    assert again.state.over == plan.state.over
    other = beside(watch, again)
    assert text(again) == text(plan)
    walk(watch, case.order)
    walk(other, case.order)
    assert other.sent == watch.sent
    assert ending.finish(again) == ending.finish(plan)
    assert text(again) == text(plan)


@given(cases(), st.integers(0, 20), st.integers(0, 10**6))
@FEW
def test_the_report_of_a_finished_build_is_in_its_log(case: Case, halt_at: int, seed: int) -> None:
    """However a build ended, its log gives the same report again."""
    watch, plan = watch_noted(case, seed)
    walk(watch, case.order[:halt_at])
    if seed % 2:
        plan.state.halt("somebody stopped it")
        watch.halted = True
    walk(watch, case.order)
    plan.events.append(ending.finish(plan))
    again = replayed(fold(reread(in_records(plan.events, seed))), plan.chance)
    assert again.state.over
    assert again.state.cause == plan.state.cause
    assert text(again) == text(plan)
