"""The forecast against the slots of a running process: one limiter, by two clocks."""

import sys
from collections.abc import Sequence
from functools import partial

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from support.graphs import graphs, made
from trio.testing import MockClock

from scheduler.definition.graph import Graph
from scheduler.definition.rules import LimitRule
from scheduler.dispatch.slots import Slots
from scheduler.forecast import forecast

WORDS = (("vpc", "net"), ("create", "delete"), ("aws", "gcp"))
SUBJECTS = st.none() | st.tuples(*map(st.sampled_from, WORDS)).map(".".join)
PATTERNS = st.tuples(*(st.sampled_from(("*", *words)) for words in WORDS)).map(".".join)
PERIODS = st.sampled_from((None, None, None, 1.0, 60.0))
RULES = st.lists(st.builds(LimitRule, PATTERNS, st.integers(1, 3), PERIODS), max_size=4)
QUARTERS = st.integers(0, 12)


class Case:
    """A build with the time that each component takes, and the limits that it runs under."""

    def __init__(self, draw: st.DrawFn) -> None:
        size, edges = draw(graphs(acyclic=True, most=14))
        self.graph: Graph = made(size, edges)
        # No two ways to the end are equally long: there is one order only.
        self.seconds = [draw(QUARTERS) / 4 + 2.0 ** -(8 + vertex) for vertex in range(size)]
        self.subjects = [draw(SUBJECTS) for _ in range(size)]
        self.rules = draw(RULES)
        self.own = draw(RULES)
        self.cap = draw(st.integers(1, 6) | st.just(500))
        self.remaining = self.graph.remaining(self.seconds)

    def __repr__(self) -> str:
        rules = [str(rule) for rule in self.rules], [str(rule) for rule in self.own]
        return f"{self.graph.dependencies} {self.seconds} {self.subjects} {rules} {self.cap}"


class Site:
    """Runs a build as the walk does: what one completion makes due is compared with all that waits."""

    def __init__(self, case: Case, slots: Slots, nursery: trio.Nursery) -> None:
        self.case = case
        self.slots = slots
        self.nursery = nursery
        self.missing = [len(dependencies) for dependencies in case.graph.dependencies]
        self.starts = [-1.0] * len(self.missing)
        self.left = len(self.missing)
        self.ended = trio.Event()

    async def run(self) -> None:
        self.line_up([vertex for vertex, count in enumerate(self.missing) if not count])
        if self.left:
            await self.ended.wait()

    def line_up(self, due: Sequence[int], given_back: str | None = None) -> None:
        for vertex in due:
            subject = self.case.subjects[vertex]
            if subject is None:
                self.begin(vertex, served=True)
            else:
                begin = partial(self.begin, vertex)
                self.slots.queue("build", subject, self.case.remaining[vertex], begin)
        if given_back is not None:
            self.slots.release("build", given_back)
        self.slots.serve("build")

    def begin(self, vertex: int, served: bool) -> None:
        assert served
        self.starts[vertex] = trio.current_time()
        self.nursery.start_soon(self.work, vertex)

    async def work(self, vertex: int) -> None:
        await trio.sleep_until(self.starts[vertex] + self.case.seconds[vertex])
        due = []
        for dependent in self.case.graph.dependents[vertex]:
            self.missing[dependent] -= 1
            if not self.missing[dependent]:
                due.append(dependent)
        self.line_up(due, self.case.subjects[vertex])
        self.left -= 1
        if not self.left:
            self.ended.set()


async def really(case: Case) -> list[float]:
    """The time at which each component starts, by the slots of a process."""
    slots = Slots(case.rules, per_instance=sys.maxsize, per_build=case.cap)
    slots.open("build", case.own)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(slots.run)
        began = trio.current_time()
        site = Site(case, slots, nursery)
        with trio.fail_after(24 * 3_600):
            await site.run()
        nursery.cancel_scope.cancel()
    assert slots.taken == slots.waiters == 0
    return [start - began for start in site.starts]


@given(st.composite(Case)())
@settings(max_examples=400)
def test_what_is_predicted_is_what_happens(case: Case) -> None:
    """Under any limits, rates and bounds each component starts at the very time that was forecast."""
    found = forecast(case.graph, case.seconds, case.subjects, case.rules, own=case.own, cap=case.cap)
    starts = trio.run(really, case, clock=MockClock(autojump_threshold=0.0))
    assert starts == pytest.approx(list(found.starts), abs=1e-6)
