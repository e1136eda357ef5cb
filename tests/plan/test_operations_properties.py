"""Random builds, outcomes and operators: nothing illegal happens, and the log says all of it again."""

import random
from collections import Counter
from typing import Any

from attrs import field, frozen
from hypothesis import event, given, settings
from hypothesis import strategies as st
from support.builds import Document, build, change, prepare, report_document
from support.logs import NOW, fold, record, reread

from scheduler.definition.rules import Retry
from scheduler.definition.strictjson import decode, encode
from scheduler.errors import InvalidRule, Refused
from scheduler.journal.events import Event, Finished, Reported, Retrying, Sent, Settled
from scheduler.journal.history import History
from scheduler.journal.records import Status, decode_event, encode_event
from scheduler.plan import Phase, Plan, Request, ending, late_replies, steering
from scheduler.plan.outcome import Outcome, failure
from scheduler.plan.summary import accepted_of, report_of

POLICIES: list[Document] = [
    {},
    {},
    {"on_error": "continue"},
    {"max_failures": 1},
    {"on_error": "continue", "max_failures": "50%"},
]
RETRIES = [None, None, {"attempts": 2}, {"attempts": 3, "backoff": 0.5}]
OPERATIONS = ["cancel", "pause", "unpause", "retry", "retry one", "retry now", "supply", "limit"]
FEW = settings(max_examples=400)


@frozen
class Case:
    """A build, how often its attempts fail, and what happens next at every step."""

    document: Document
    trouble: float
    """How likely an attempt fails."""
    meddling: float
    """How likely an operator does something at a step."""
    seed: int
    steps: int = field(repr=False)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    size = draw(st.integers(1, 7))
    names = [f"c{number}" for number in range(size)]
    changes, edges = [], []
    for number, name in enumerate(names):
        retry = draw(st.sampled_from(RETRIES))
        action = draw(st.sampled_from(["create", "create", "create", "delete", "find", "none"]))
        one = change(name, action, name=name, _retry=retry)
        for before in draw(st.lists(st.sampled_from(names[:number]), max_size=2)) if number else []:
            edges.append((before, name))
            if draw(st.booleans()):
                one["ref"] = f'{{{{ components["{before}"].name }}}}'
        changes.append(one)
    options = dict(draw(st.sampled_from(POLICIES)))
    if draw(st.integers(0, 3)) == 0:
        options["retry"] = {"attempts": 2}
    document = build(*draw(st.permutations(changes)), edges=edges, options=options)
    return Case(
        document,
        draw(st.sampled_from([0.1, 0.3, 0.6])),
        draw(st.sampled_from([0.0, 0.1, 0.4])),
        draw(st.integers(0, 10**6)),
        draw(st.integers(0, 80)),
    )


class Drive:
    """Drives a plan as a walk would, in any order, with an operator; notes what would be persisted."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.chance = random.Random(case.seed)
        self.plan = Plan(prepare(case.document))
        self.events: list[Event] = [accepted_of(self.plan)]
        self.flying: dict[int, Request] = {}
        self.given_up: list[Request] = []
        self.attempts: list[str] = []
        self.done: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()

    def step(self) -> None:
        """Something happens, if anything can."""
        if not self.plan.state.finished and self.plan.state.over:
            self.finish()
        elif self.chance.random() < self.case.meddling or (self.plan.state.finished and self.case.meddling):
            self.meddle(self.chance.choice(OPERATIONS))
        elif self.given_up and self.chance.random() < 0.3:
            self.reply_late()
        else:
            self.go_on()
        self.check()

    def finish(self) -> None:
        self.events += [
            *late_replies.take_adopted(self.plan),
            ending.finish(self.plan),
            Reported(self.plan.state.run),
        ]
        # As whoever begins another run has it: from the log.
        self.plan = replayed(history_of(self.events))
        self.given_up.clear()

    def go_on(self) -> None:
        """A component begins, or an attempt ends."""
        plan = self.plan
        due = [
            vertex
            for vertex in range(len(plan.phases))
            if plan.is_due(vertex)
            and all(plan.phases[one] is Phase.COMPLETED for one in plan.graph.dependencies[vertex])
        ]
        todo = [("begin", vertex) for vertex in due] + [("end", vertex) for vertex in self.flying]
        todo += [("give up", vertex) for vertex in plan.phases.unsettled() if plan.is_to_be_given_up(vertex)]
        if not todo or plan.state.finished:
            return
        what, vertex = self.chance.choice(todo)
        if what == "give up":
            self.events.append(ending.give_up_retrying(plan, vertex))
        elif what == "end":
            self.end(vertex)
        else:
            self.begin(vertex)

    def begin(self, vertex: int) -> None:
        plan = self.plan
        step = plan.begin(vertex)
        if step is None:
            assert plan.state.held
            return
        if isinstance(step, Settled):
            self.events.append(step)
            return
        assert plan.phases.is_starting(vertex)
        self.events.append(step.started)
        if self.chance.random() < 0.1:
            self.events.append(plan.withdraw(vertex))
            return
        plan.sent(vertex)
        assert step.attempt not in self.attempts
        self.attempts.append(step.attempt)
        self.flying[vertex] = step
        if self.chance.random() < 0.7:
            self.events.append(Sent(step.component, step.attempt))

    def end(self, vertex: int) -> None:
        request = self.flying.pop(vertex)
        if self.plan.phases[vertex] is not Phase.RUNNING:
            return
        if self.chance.random() < self.case.trouble:
            silent = self.chance.random() < 0.5
            body = None if silent else {**decode(request.body), "_state": "errored", "error": "no"}
            outcome = Outcome(
                completed=False,
                body=body,
                error=f"{request.component} broke",
                retryable=self.chance.random() < 0.8,
            )
            if silent:
                self.given_up.append(request)
        else:
            outcome = Outcome(completed=True, body={**decode(request.body), "name": f"new {vertex}"})
        luck, elapsed = self.chance.random(), self.chance.random() * 100
        self.events.append(self.plan.settle(request, outcome, luck=luck, elapsed=elapsed))

    def reply_late(self) -> None:
        request = self.given_up.pop(self.chance.randrange(len(self.given_up)))
        outcome = Outcome(completed=True, body={**decode(request.body), "late": True})
        if self.chance.random() < 0.2:
            outcome = failure("late error")
        settled = late_replies.rescue(self.plan, request, outcome)
        if settled is not None:
            self.events.append(settled)
        elif late_replies.adopt(self.plan, request, outcome):
            self.events += late_replies.take_adopted(self.plan)

    def meddle(self, what: str) -> None:
        """An operator does something; a refusal changes nothing."""
        plan, chance = self.plan, self.chance
        vertex = chance.randrange(len(plan.phases))
        if plan.state.finished and what not in {"retry", "retry one", "supply"}:
            return
        before = state(plan)
        try:
            match what:
                case "cancel":
                    events = steering.cancel(plan, chance.choice(["", "enough"]))
                case "pause" | "unpause":
                    events = steering.pause(plan, on=what == "pause")
                case "retry":
                    events = steering.retry(plan)
                case "retry one":
                    events = steering.retry(plan, vertex)
                case "retry now":
                    events = steering.retry_now(plan, vertex, "given up")
                    self.give_up(vertex, plan)
                case "supply":
                    events = steering.supply(plan, vertex, {"name": "supplied", "by": "hand"})
                case _:
                    events = steering.limit(plan, chance.choice([{"*": 3}, {}, {"*": "5/s"}, {"*": 0}]))
        except (Refused, InvalidRule):
            assert state(plan) == before
            self.refusals[what] += 1
            return
        self.done[what] += 1
        self.events += events

    def give_up(self, vertex: int, plan: Plan) -> None:
        """Its attempt is not awaited any more; a late success counts."""
        if (request := self.flying.pop(vertex, None)) is not None:
            self.given_up.append(request)
        assert plan.phases[vertex] is Phase.WAITING or vertex in plan.state.ledger.final

    def check(self) -> None:
        """What holds at every moment."""
        plan = self.plan
        phases = [plan.phases[vertex] for vertex in range(len(plan.phases))]
        counts = plan.phases.shown()
        assert sum(counts.values()) == len(phases)
        assert counts["completed"] == phases.count(Phase.COMPLETED)
        assert counts["skipped"] == phases.count(Phase.SKIPPED)
        for vertex, phase in enumerate(phases):
            before = [phases[one] for one in plan.graph.dependencies[vertex]]
            if phase is Phase.SKIPPED:
                assert {Phase.ERRORED, Phase.SKIPPED} & set(before), "skipped behind nothing that failed"
            elif phase is Phase.WAITING and not plan.state.halted:
                assert not {Phase.ERRORED, Phase.SKIPPED} & set(before), "waits behind something that failed"
        if Phase.ERRORED in phases:
            assert plan.state.cause is not None


def state(plan: Plan) -> Any:
    """Everything that can be seen of a plan."""
    phases = [plan.phases[vertex] for vertex in range(len(plan.phases))]
    return (
        phases,
        [plan.attempt(vertex) for vertex, phase in enumerate(phases)],
        [plan.error(vertex) for vertex in range(len(phases))],
        plan.phases.shown(),
        plan.state.cause,
        (
            plan.state.halted,
            plan.state.paused,
            plan.state.cancelled,
            plan.state.finished,
            plan.state.run,
            plan.state.over,
        ),
        plan.state.rules,
        encode(report_document(plan)),
        [plan.is_instant(vertex) for vertex in range(len(phases))],
    )


def history_of(events: list[Event]) -> History:
    return fold(reread([record(n, one, at=NOW + n) for n, one in enumerate(events, 1)]))


def replayed(history: History) -> Plan:
    """The plan of the next process."""
    assert history.accepted is not None
    plan = Plan(prepare(decode(encode(history.accepted.document))))
    for step in history.steps:
        plan.replay(step)
    return plan


def known_to_have_left(drive: Drive) -> None:
    """What is in flight is so for the next process as well, once it has asked."""
    for vertex in range(len(drive.plan.phases)):
        if drive.plan.phases[vertex] is Phase.RUNNING:
            drive.events.append(Sent(drive.flying[vertex].component, drive.flying[vertex].attempt))


@given(cases())
@FEW
def test_the_log_says_what_the_plan_says(case: Case) -> None:
    """Whatever connectors and operators do, and wherever it ends, the next process's plan is the same."""
    drive = Drive(case)
    for _ in range(case.steps):
        drive.step()
    for what in drive.done:
        event(what)
    known_to_have_left(drive)
    history = history_of(drive.events)
    again = replayed(history)
    assert state(again) == state(drive.plan)
    assert set(history.in_flight) == set(drive.plan.phases.in_flight_ids())
    assert set(history.pauses) == {drive.plan.graph.ids[v] for v in drive.plan.phases.within(Phase.RETRYING)}
    assert history.run == drive.plan.state.run
    assert (history.status is Status.REPORTED) == drive.plan.state.finished
    for vertex, request in drive.flying.items():
        if drive.plan.phases[vertex] is Phase.RUNNING:
            assert again.resume(vertex) == request


def inside(plan: Plan) -> Any:
    """All that a plan's state holds; a request that has left may be so without its log saying that yet."""
    one = plan.state
    phases = [
        Phase.RUNNING if phase is Phase.STARTING else phase
        for phase in map(plan.phases.__getitem__, range(len(plan.phases)))
    ]
    return (
        phases,
        [(one.attempts.failed(vertex), one.attempts.is_between(vertex)) for vertex in range(len(phases))],
        {vertex: one.last_errors[vertex] for vertex in plan.phases.within(Phase.RETRYING)},
        (one.draining, one.paused, one.cancelled, one.finished, one.run, one.rules, one.cause, one.forgiven),
        (one.outputs, one.adoptable, one.unpersisted),
        encode(one.ledger.final),
        encode(one.ledger.existing),
    )


@given(cases())
@FEW
def test_at_every_moment_the_log_so_far_says_what_the_plan_says(case: Case) -> None:
    """A process that dies there leaves nothing behind that the next one does not know."""
    drive, shadow, told = Drive(case), Plan(prepare(case.document)), 1
    for _ in range(case.steps):
        drive.step()
        for one in drive.events[told:]:
            shadow.replay(decode_event(encode_event(one)))
        told = len(drive.events)
        assert inside(shadow) == inside(drive.plan)


@given(cases(), st.integers(0, 60))
@FEW
def test_a_replayed_plan_goes_on_as_the_first_one(case: Case, cut: int) -> None:
    """The next process, treated as the first one would have been, comes to the same end."""
    drive, other = Drive(case), Drive(case)
    for _ in range(cut):
        drive.step()
        other.step()
    known_to_have_left(other)
    other.plan = replayed(history_of(other.events))
    for _ in range(case.steps):
        drive.step()
        other.step()
        assert state(other.plan) == state(drive.plan)


@given(cases())
@FEW
def test_every_build_comes_to_an_end(case: Case) -> None:
    """Whatever happened before: left alone, and not paused, a build ends, and everything has its place."""
    drive = Drive(case)
    for _ in range(case.steps):
        drive.step()
    if drive.plan.state.paused:
        drive.events += steering.pause(drive.plan, on=False)
    drive.case = Case(case.document, case.trouble, 0.0, case.seed, 0)
    for _ in range(400):
        if drive.plan.state.finished:
            break
        drive.step()
    plan = drive.plan
    assert plan.state.finished
    counts = plan.phases.shown()
    assert counts["running"] == counts["retrying"] == 0
    if plan.state.cause is None:
        assert counts["completed"] == len(plan.phases)
    if not plan.state.halted:
        assert counts["waiting"] == 0
    ends = [one for one in drive.events if isinstance(one, Finished)]
    assert len(ends) == plan.state.run
    assert report_of(plan).run == plan.state.run


@given(st.integers(1, 50), st.floats(0, 1), st.integers(1, 60))
def test_a_pause_between_attempts_is_within_its_bounds(failed: int, luck: float, most: int) -> None:
    """However often it has failed, the pause is not negative and not above the longest."""
    assert 0 <= Retry(attempts=60, backoff=0.5, max_backoff=most).pause(failed, luck) <= most


def test_the_random_builds_have_everything_in_them() -> None:
    """Over a few hundred seeds there are attempts that fail, rescues, adoptions, skips and further runs."""
    seen: Counter[str] = Counter()
    for seed in range(300):
        names = ["a", "b", "c"]
        document = build(
            *(change(name, _retry={"attempts": 2} if name != "c" else None) for name in names),
            edges=[("a", "b")],
            options={"on_error": "continue"} if seed % 2 else {},
        )
        drive = Drive(Case(document, 0.5, 0.2, seed, 0))
        for _ in range(80):
            drive.step()
        seen.update(type(one).__name__ for one in drive.events)
        seen.update(f"refused {what}" for what in drive.refusals)
        seen["run 2"] += drive.plan.state.run > 1
        seen["adoptable"] += any(isinstance(e, Settled) and "adoptable" in e.body for e in drive.events)
        seen["rescued"] += any(
            isinstance(one, Retrying)
            and isinstance(two, Settled)
            and two.component == one.component
            and two.body["_state"] == "completed"
            for one, two in zip(drive.events, drive.events[1:], strict=False)
        )
    wanted = {"Retrying", "Cancelled", "Paused", "Unpaused", "Retried", "Supplied", "Limited", "run 2"}
    wanted |= {"adoptable", "rescued", "Withdrawn", *(f"refused {what}" for what in OPERATIONS)}
    assert wanted <= {name for name, number in seen.items() if number}
