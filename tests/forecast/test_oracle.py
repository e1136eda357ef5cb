"""The simulation of schedules against one that is too slow to be wrong: it looks at everything, always."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.definition.graph import Graph
from scheduler.definition.rules import LimitRule
from scheduler.forecast import NEVER, Forecast, Standing, forecast
from scheduler.limiter import stretched

TYPES = ("vpc", "disk")
ACTIONS = ("create", "delete")
PATTERNS = ("*.*.*", "vpc.*.*", "*.create.*", "vpc.create.aws", "*.*.aws", "disk.*.*")
# Multiples of a quarter: sums of them are exact, so that times without rates can be compared.
SECONDS = st.integers(0, 12).map(lambda quarters: quarters / 4)


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    size = draw(st.integers(1, 9))
    ids = [f"c{number}" for number in range(size)]
    pairs = [(ids[a], ids[b]) for b in range(size) for a in range(b)]
    return Graph.of(ids, draw(st.lists(st.sampled_from(pairs), unique=True, max_size=14)) if pairs else [])


RULES = st.lists(
    st.builds(
        LimitRule, st.sampled_from(PATTERNS), st.integers(1, 3), st.sampled_from([None, None, 1.0, 60.0])
    ),
    max_size=3,
    unique_by=str,
)
SUBJECTS = st.one_of(
    st.none(),
    st.tuples(st.sampled_from(TYPES), st.sampled_from(ACTIONS), st.sampled_from(["aws", "x"])).map(".".join),
)


Case: TypeAlias = tuple[Graph, list[float], list[str | None], list[LimitRule], int | None]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    graph = draw(graphs())
    size = len(graph.ids)
    return (
        graph,
        draw(st.lists(SECONDS, min_size=size, max_size=size)),
        draw(st.lists(SUBJECTS, min_size=size, max_size=size)),
        draw(RULES),
        draw(st.sampled_from([None, 1, 2])),
    )


@st.composite
def standings(draw: st.DrawFn, graph: Graph) -> Standing:
    """Any state that a build can be in: what has begun has completed dependencies."""
    done: set[int] = set()
    running: dict[int, float] = {}
    retrying: dict[int, float] = {}
    never: set[int] = set()
    for layer in graph.layers():
        for vertex in layer:
            if all(one in done for one in graph.dependencies[vertex]):
                where = draw(st.sampled_from(["done", "done", "running", "retrying", "never", "waiting"]))
                if where == "done":
                    done.add(vertex)
                elif where == "running":
                    running[vertex] = draw(SECONDS)
                elif where == "retrying":
                    retrying[vertex] = draw(SECONDS)
                elif where == "never":
                    never.add(vertex)
    return Standing(done, running, retrying, never)


def slowly(
    graph: Graph,
    seconds: Sequence[float],
    subjects: Sequence[str | None],
    rules: Sequence[LimitRule],
    cap: int | None,
) -> list[float]:
    """When each starts, by trying all that wait, the most urgent first, at every moment that matters."""
    remaining = graph.remaining(seconds)
    starts = [NEVER] * len(seconds)
    order = sorted(range(len(seconds)), key=lambda vertex: (-remaining[vertex], vertex))
    limits = [*rules, *([LimitRule("*.*.*", cap)] if cap is not None else [])]

    def room(vertex: int, now: float) -> bool:
        subject = subjects[vertex]
        for limit in limits:
            if subject is None or not limit.matches(subject):
                continue
            under = [
                one
                for one, other in enumerate(subjects)
                if other is not None and limit.matches(other) and starts[one] <= now
            ]
            if limit.period is None:
                if sum(starts[one] + seconds[one] > now or one in fresh for one in under) >= limit.count:
                    return False
            elif sum(starts[one] + stretched(limit.period) > now for one in under) >= limit.count:
                return False
        return True

    now = 0.0
    while True:
        # What takes no time holds its slot until the events of this moment were looked at once more.
        while True:
            fresh: set[int] = set()
            ended = {one for one, start in enumerate(starts) if start + seconds[one] <= now}
            for vertex in order:
                waits = starts[vertex] == NEVER and ended.issuperset(graph.dependencies[vertex])
                if waits and room(vertex, now):
                    starts[vertex] = now
                    fresh.add(vertex)
            if not fresh:
                break
        moments = [start + seconds[one] for one, start in enumerate(starts) if start < NEVER]
        moments += [
            start + stretched(limit.period)
            for limit in limits
            if limit.period is not None
            for start in starts
        ]
        later = [moment for moment in moments if now < moment < NEVER]
        if not later:
            return starts
        now = min(later)


def check(found: Forecast) -> None:
    assert found.seconds == max((end for end in found.ends if end < NEVER), default=0.0)
    assert not any(math.isnan(one) for one in [*found.starts, *found.ends])


@given(cases())
def test_it_is_the_schedule_of_the_slow_one(case: Case) -> None:
    """Each starts at the very moment at which trying all of them would have started it."""
    graph, seconds, subjects, rules, cap = case
    # No two ways to the end are equally long, so that there is one order only.
    seconds = [one + 2.0 ** -(10 + vertex) for vertex, one in enumerate(seconds)]
    found = forecast(graph, seconds, subjects, rules, cap=cap)
    check(found)
    assert list(found.starts) == slowly(graph, seconds, subjects, rules, cap)


@given(cases())
def test_the_path_makes_up_the_whole(case: Case) -> None:
    """Working and waiting on the path add up to the duration, and its links are edges."""
    graph, seconds, subjects, rules, cap = case
    found = forecast(graph, seconds, subjects, rules, cap=cap)
    assert sum(step.seconds + step.waited for step in found.path) == pytest.approx(found.seconds, abs=1e-9)
    for before, after in pairwise(found.path):
        assert before.vertex in graph.dependencies[after.vertex]


@given(st.data(), cases())
def test_from_anywhere_it_comes_to_an_end(data: st.DataObject, case: Case) -> None:
    """Whatever the state, all that can complete does, in order, and no bound is undercut."""
    graph, seconds, subjects, rules, cap = case
    standing = data.draw(standings(graph))
    found = forecast(graph, seconds, subjects, rules, cap=cap, standing=standing)
    check(found)
    lost = set(standing.never)
    for layer in graph.layers():
        for vertex in layer:
            if lost.intersection(graph.dependencies[vertex]):
                lost.add(vertex)
    assert {vertex for vertex, end in enumerate(found.ends) if end == NEVER} == lost
    for vertex, start in enumerate(found.starts):
        if vertex not in lost and vertex not in standing.done and vertex not in standing.running:
            assert all(found.ends[one] <= start for one in graph.dependencies[vertex])
            assert start >= standing.retrying.get(vertex, 0.0)
    assert found.seconds >= found.lower_bound - 1e-9


@given(st.data(), cases())
def test_from_anywhere_limits_hold(data: st.DataObject, case: Case) -> None:
    """What begins from now on finds room under every limit, beside what was there before."""
    graph, seconds, subjects, rules, cap = case
    # What takes no time is beside nothing.
    seconds = [one + 0.25 for one in seconds]
    standing = data.draw(standings(graph))
    found = forecast(graph, seconds, subjects, rules, cap=cap, standing=standing)
    for limit in [*rules, *([LimitRule("*.*.*", cap)] if cap is not None else [])]:
        under = [
            vertex
            for vertex, subject in enumerate(subjects)
            if subject is not None and limit.matches(subject) and vertex not in standing.done
        ]
        for vertex in under:
            start = found.starts[vertex]
            if start == NEVER or vertex in standing.running:
                continue
            if limit.period is None:
                beside = [one for one in under if found.starts[one] <= start < found.ends[one]]
            else:
                beside = [
                    one
                    for one in under
                    if found.starts[one] <= start < found.starts[one] + stretched(limit.period)
                ]
            assert len(beside) <= limit.count
