"""A build's schedule, simulated: what holds for every graph and every set of limits, and known schedules."""

import math
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.graphs import graphs, made

from scheduler.definition.graph import Graph
from scheduler.definition.rules import LimitRule, parse_limits
from scheduler.forecast import NEVER, Forecast, Standing, forecast
from scheduler.limiter import stretched

KINDS = ("vpc.create.aws", "net.create.aws", "vpc.delete.gcp", None)
RULES = (
    "*=2",
    "*=1",
    "vpc.*.*=1",
    "*.create.*=2",
    "net.create.aws=3",
    "*.create.aws=1/s",
    "*=2/s",
    "vpc.*.*=1/m",
)


class Case:
    """A graph with durations, subjects and limits."""

    def __init__(self, graph: Graph, seconds: list[float], subjects: list[str | None], rules: str) -> None:
        self.graph = graph
        self.seconds = seconds
        self.subjects = subjects
        self.rules = parse_limits(rules)

    def __repr__(self) -> str:
        return (
            f"{self.graph.dependencies} {self.seconds} {self.subjects} {[str(rule) for rule in self.rules]}"
        )

    def forecast(self, **more: Any) -> Forecast:
        return forecast(self.graph, self.seconds, self.subjects, self.rules, **more)

    def under(self, rule: LimitRule) -> list[int]:
        return [v for v, subject in enumerate(self.subjects) if subject is not None and rule.matches(subject)]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    size, edges = draw(graphs(acyclic=True, most=12))
    # Quarters add up exactly.
    seconds = [draw(st.integers(0, 8)) / 4 for _ in range(size)]
    subjects = [draw(st.sampled_from(KINDS)) for _ in range(size)]
    rules = draw(st.lists(st.sampled_from(RULES), max_size=3))
    return Case(made(size, edges), seconds, subjects, ",".join(rules))


def chain_of(case: Case) -> float:
    return max(case.graph.remaining(case.seconds), default=0.0)


@given(cases())
def test_everything_runs_for_its_time_after_what_it_depends_on(case: Case) -> None:
    """Every vertex starts when its dependencies have ended, or later, and takes its seconds."""
    seen = case.forecast()
    for vertex, needs in enumerate(case.graph.dependencies):
        assert seen.starts[vertex] >= max((seen.ends[one] for one in needs), default=0.0)
        assert seen.ends[vertex] == seen.starts[vertex] + case.seconds[vertex]
    assert seen.seconds == max(seen.ends, default=0.0)


@given(cases(), st.none() | st.integers(1, 3))
def test_no_more_run_at_a_time_than_limits_allow(case: Case, cap: int | None) -> None:
    """At every start as many run as every limit on what is in flight has room for, at most."""
    seen = case.forecast(cap=cap)
    rules = [rule for rule in case.rules if rule.period is None]
    for rule in [*rules, *([LimitRule("*.*.*", cap)] if cap else [])]:
        members = case.under(rule)
        for at in {seen.starts[vertex] for vertex in members}:
            running = [v for v in members if seen.starts[v] <= at < seen.ends[v]]
            assert len(running) <= rule.count


@given(cases())
def test_no_more_begin_in_a_period_than_rates_allow(case: Case) -> None:
    """Of those under a rate, one starts a period or more after the one that is ``count`` before it."""
    seen = case.forecast()
    for rule in case.rules:
        if rule.period is not None:
            starts = sorted(seen.starts[vertex] for vertex in case.under(rule))
            for before, after in zip(starts, starts[rule.count :], strict=False):
                assert after - before >= stretched(rule.period) - 1e-9


@given(cases())
def test_nothing_waits_without_a_reason(case: Case) -> None:
    """What starts later than its dependencies ended waited for a limit that was used up till then."""
    seen = case.forecast()
    for vertex, needs in enumerate(case.graph.dependencies):
        ready = max((seen.ends[one] for one in needs), default=0.0)
        start, subject = seen.starts[vertex], case.subjects[vertex]
        if start == ready:
            continue
        assert subject is not None
        moments = {at for at in (*seen.starts, *seen.ends, ready) if ready <= at < start}
        for at in moments:
            assert any(used_up(case, seen, rule, at) for rule in case.rules if rule.matches(subject))


def used_up(case: Case, seen: Forecast, rule: LimitRule, at: float) -> bool:
    members = case.under(rule)
    if rule.period is None:
        return sum(seen.starts[v] <= at < seen.ends[v] or seen.starts[v] == at for v in members) >= rule.count
    gap = stretched(rule.period)
    return sum(seen.starts[v] <= at < seen.starts[v] + gap for v in members) >= rule.count


@given(cases())
def test_it_takes_no_less_than_its_lower_bounds(case: Case) -> None:
    """Neither the longest chain nor what any limit makes of the work is undercut."""
    seen = case.forecast()
    assert seen.seconds >= seen.chain == chain_of(case)
    assert all(seen.seconds >= bound - 1e-9 for bound in seen.bounds.values())
    assert seen.lower_bound == max([seen.chain, *seen.bounds.values()])


@given(cases())
def test_without_limits_it_takes_as_long_as_its_longest_chain(case: Case) -> None:
    """There is nothing to wait for but dependencies."""
    seen = forecast(case.graph, case.seconds)
    assert seen.seconds == seen.chain == seen.lower_bound == chain_of(case)


@given(cases())
def test_the_path_tells_where_all_the_time_went(case: Case) -> None:
    """Its steps and what they waited for limits add up to the whole, along edges."""
    seen = case.forecast()
    assert sum(step.seconds + step.waited for step in seen.path) == pytest.approx(seen.seconds)
    assert sum(seen.lost.values()) == pytest.approx(sum(step.waited for step in seen.path))
    for before, after in pairwise(seen.path):
        assert before.vertex in case.graph.dependencies[after.vertex]


@given(cases(), st.data())
def test_from_the_middle_it_goes_on_to_the_same_end(case: Case, data: st.DataObject) -> None:
    """From what was done and ran at a moment of a schedule, what is left takes what is left of its time."""
    case.rules = tuple(rule for rule in case.rules if rule.period is None)
    whole = case.forecast()
    now = data.draw(st.sampled_from(sorted({0.0, *whole.starts})))
    done = [v for v, end in enumerate(whole.ends) if end <= now]
    running = {v: now - start for v, start in enumerate(whole.starts) if start < now < whole.ends[v]}
    late = [v for v, elapsed in running.items() if case.seconds[v] - elapsed < elapsed / 10]
    rest = case.forecast(standing=Standing(done=done, running=running))
    if not late:
        assert rest.seconds == pytest.approx(whole.seconds - now)
    assert all(rest.starts[v] >= 0 for v in range(len(case.seconds)) if v not in running)


def line(*names: str) -> Graph:
    return Graph.of(names, pairwise(names))


def test_the_longest_way_to_the_end_goes_first() -> None:
    """With one slot the head of the chain runs before one that nothing waits for."""
    graph = Graph.of(["alone", "head", "tail"], [("head", "tail")])
    seen = forecast(graph, [2.0, 1.0, 5.0], ["a.create.x"] * 3, parse_limits("*=2"), cap=1)
    assert list(seen.starts) == [6.0, 0.0, 1.0]


def test_limits_of_the_build_count_beside_those_of_the_service() -> None:
    """What falls under both waits for both, and is told by the limit that let it go last."""
    graph = Graph.of(["a", "b", "c"], [])
    subjects = ["vpc.create.x", "vpc.create.x", "net.create.x"]
    rules, own = parse_limits("*=2"), parse_limits("vpc.*.*=1")
    seen = forecast(graph, [9.0, 5.0, 1.0], subjects, rules, own=own)
    assert list(seen.starts) == [0.0, 9.0, 0.0]
    assert seen.queued == {"*=2": 0, "vpc.*.*=1": 1}
    assert seen.bounds == {"*=2": 7.5, "vpc.*.*=1": 14.0}


def test_the_most_urgent_goes_first_whatever_limits_it_falls_under() -> None:
    """Of those that share a limit, not of those alone that fall under all the same ones."""
    graph = Graph.of(["a", "b", "c"], [])
    subjects = ["vpc.create.x", "net.create.x", "vpc.create.x"]
    seen = forecast(graph, [1.0, 5.0, 9.0], subjects, parse_limits("*=1, vpc.*.*=2"))
    assert list(seen.starts) == [14.0, 9.0, 0.0]


def test_who_waits_for_one_limit_does_not_hold_up_others() -> None:
    """A queue before a limit that is used up leaves room under the others to whoever is next."""
    graph = Graph.of(["a", "b", "c"], [])
    subjects = ["vpc.create.x", "vpc.create.x", "net.create.x"]
    seen = forecast(graph, [9.0, 9.0, 1.0], subjects, parse_limits("*=2, vpc.*.*=1"))
    assert list(seen.starts) == [0.0, 9.0, 0.0]
    assert seen.queued == {"*=2": 0, "vpc.*.*=1": 1}
    assert seen.lost == {"vpc.*.*=1": 9.0}


def test_what_is_not_sent_falls_under_no_limit() -> None:
    """A change of action none takes no slot, and none of the rate."""
    seen = forecast(line("a", "b"), [0.0, 1.0], [None, "a.create.x"], parse_limits("*=1/h"))
    assert seen.seconds == 1.0


def test_who_is_late_is_taken_to_be_late_for_a_while() -> None:
    """What has run for longer than expected needs a tenth of that time again."""
    seen = forecast(line("a", "b"), [10.0, 5.0], standing=Standing(running={0: 50.0}))
    assert seen.ends[0] == 5.0
    assert seen.starts[0] == -50.0
    assert seen.seconds == 10.0


def test_what_is_in_flight_takes_its_slots() -> None:
    """More in flight than a limit allows, as after it was lowered: nothing starts until there is room."""
    graph = Graph.of(["a", "b", "c"], [])
    standing = Standing(running={0: 1.0, 1: 2.0})
    seen = forecast(graph, [4.0] * 3, ["a.create.x"] * 3, parse_limits("*=1"), standing=standing)
    assert list(seen.ends) == [3.0, 2.0, 7.0]


def test_starts_of_a_moment_ago_count_for_a_rate() -> None:
    """What runs since less than a period has used up a part of the rate."""
    graph = Graph.of(["a", "b"], [])
    standing = Standing(running={0: 20.0})
    seen = forecast(graph, [30.0] * 2, ["a.create.x"] * 2, parse_limits("*=1/m"), standing=standing)
    assert seen.starts[1] == pytest.approx(stretched(60.0) - 20.0)


@pytest.mark.parametrize("running", [{0: 20.0, 1: 50.0}, {1: 50.0, 0: 20.0}])
def test_a_rate_counts_its_newest_starts(running: dict[int, float]) -> None:
    """More of them than it allows, as after it was lowered, in whatever order they are told."""
    graph = Graph.of(["a", "b", "c"], [])
    standing = Standing(running=running)
    seen = forecast(graph, [90.0] * 3, ["a.create.x"] * 3, parse_limits("*=1/m"), standing=standing)
    assert seen.starts[2] == pytest.approx(stretched(60.0) - 20.0)


def test_what_runs_beyond_a_limit_is_in_no_bound() -> None:
    """After a limit was lowered more may run than it allows: no bound is above what it takes then."""
    graph = Graph.of(["a", "b", "c"], [])
    standing = Standing(running=dict.fromkeys(range(3), 1.0))
    seen = forecast(graph, [4.0] * 3, ["a.create.x"] * 3, parse_limits("*=1"), standing=standing)
    assert seen.lower_bound == seen.seconds == 3.0


def test_a_pause_before_another_attempt_is_waited_for() -> None:
    """What is to be sent again starts when its pause is over, and counts in the longest chain."""
    seen = forecast(line("a", "b"), [1.0, 1.0], standing=Standing(retrying={0: 30.0}))
    assert list(seen.starts) == [30.0, 31.0]
    assert seen.seconds == seen.chain == 32.0


def test_behind_what_failed_nothing_starts() -> None:
    """What depends on it, directly or not, has neither start nor end; the rest is predicted."""
    graph = Graph.of(["bad", "b", "c", "alone"], [("bad", "b"), ("b", "c")])
    seen = forecast(graph, [1.0] * 4, standing=Standing(never=[0]))
    assert list(seen.ends) == [NEVER, NEVER, NEVER, 1.0]
    assert seen.seconds == 1.0


def test_nothing_to_be_done_takes_no_time() -> None:
    """A build whose changes are all completed."""
    seen = forecast(line("a", "b"), [1.0, 1.0], standing=Standing(done=[0, 1]))
    assert (seen.seconds, seen.path, seen.lower_bound) == (0.0, [], 0.0)
    assert not math.isinf(max(seen.ends))


def test_a_thousand_kinds_under_a_hundred_limits_are_soon_done() -> None:
    """Every start looks at what is next, not at all who wait: the simulation stays small."""
    size = 1_000
    graph = Graph.of([str(number) for number in range(size)], [])
    subjects = [f"t{number}.create.p{number % 10}" for number in range(size)]
    rules = parse_limits(",".join(f"t{number}.*.*=1" for number in range(99)) + ",*=3")
    seen = forecast(graph, [1.0] * size, subjects, rules)
    assert seen.seconds == pytest.approx(math.ceil(size / 3))
    assert max(Counter(seen.starts).values()) == 3
