"""Placing of builds: which instance gets one; pure."""

import heapq
import json
import random

import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st

from scheduler.fleet.placing import HERE, Candidate, Placing, Report, estimate


def candidate(key: str, components: int = 0, *, count: int = 1, takes: bool = True) -> Candidate:
    return Candidate(key, f"{key}-1", Report(count, components), takes)


def placing(*candidates: Candidate) -> Placing:
    found = Placing()
    found.see(candidates)
    return found


def test_a_build_goes_where_the_fewest_components_are_active() -> None:
    """Of the others, the one with the fewest."""
    assert placing(candidate("a", 500), candidate("b", 100)).choose(900) == "b"


def test_alone_an_instance_takes_every_build() -> None:
    """However many components are active there."""
    assert placing().choose(100_000) == HERE


@pytest.mark.parametrize(("here", "there"), [(8, 0), (100, 92), (10_000, 9_600), (10_000, 20_000)])
def test_an_instance_that_is_about_as_good_as_the_best_keeps_a_build(here: int, there: int) -> None:
    """A hop is spared."""
    assert placing(candidate("a", there)).choose(here) == HERE


@pytest.mark.parametrize(("here", "there"), [(9, 0), (10_000, 9_599)])
def test_one_that_is_not_passes_it_on(here: int, there: int) -> None:
    """Beyond the margin."""
    assert placing(candidate("a", there)).choose(here) == "a"


def test_one_that_drains_or_is_full_gets_none() -> None:
    """Even where nothing is active there."""
    assert placing(candidate("a", takes=False), candidate("b", 800)).choose(900) == "b"
    assert placing(candidate("a", takes=False)).choose(900) == HERE


def test_one_that_has_gone_gets_none() -> None:
    """It is not among those seen."""
    found = placing(candidate("a"), candidate("b", 800))
    found.see([candidate("b", 800)])
    assert found.choose(900) == "b"
    assert not found.knows("a")


def test_where_this_one_takes_none_another_gets_every_build() -> None:
    """None is left where there is no other that takes builds."""
    assert placing(candidate("a", 800)).choose(None) == "a"
    assert placing(candidate("a", takes=False)).choose(None) is None


def test_one_that_was_tried_is_not_tried_again() -> None:
    """Nor is this one."""
    found = placing(candidate("a"), candidate("b", 800))
    assert found.choose(900, {"a"}) == "b"
    assert found.choose(0, {HERE, "a"}) == "b"
    assert found.choose(0, {HERE, "a", "b"}) is None


def test_what_is_on_its_way_to_an_instance_counts() -> None:
    """Until it is answered; the same where it is taken here."""
    found = placing(candidate("a"), candidate("b", 100))
    found.begin("a", 200)
    assert found.choose(900) == "b"
    found.end("a", 200)
    assert found.choose(900) == "a"
    found.begin(HERE, 500)
    assert found.choose(0) == "a"
    found.end(HERE, 500)
    assert found.choose(0) == HERE


def test_an_answer_tells_the_load_until_a_newer_lease_does() -> None:
    """A lease that was written before it says nothing new."""
    found = placing(candidate("a", count=3), candidate("b", 100))
    found.begin("a", 10)
    found.end("a", 10, Report(4, 700))
    found.see([candidate("a", 1, count=4), candidate("b", 100)])
    assert found.choose(900) == "b"
    found.see([candidate("a", 2, count=5), candidate("b", 100)])
    assert found.choose(900) == "a"


def test_an_answer_older_than_the_lease_is_not_heeded() -> None:
    """They may overtake each other."""
    found = placing(candidate("a", 700, count=5), candidate("b", 100))
    found.begin("a", 10)
    found.end("a", 10, Report(4, 0))
    assert found.choose(900) == "b"


def test_a_new_process_of_the_name_begins_anew() -> None:
    """Its renewals are counted from the start."""
    found = placing(candidate("a", 700, count=50), candidate("b", 100))
    found.see([Candidate("a", "a-2", Report(1, 0), takes=True), candidate("b", 100)])
    assert found.choose(900) == "a"


def test_one_that_could_not_take_a_build_rests_for_two_renewals() -> None:
    """By then it has said that it lives."""
    found = placing(candidate("a", count=5), candidate("b", 100))
    found.rest("a")
    for count, chosen in ((6, "b"), (7, "a")):
        found.see([candidate("a", count=count), candidate("b", 100)])
        assert found.choose(900) == chosen


@pytest.mark.parametrize(("here", "tried"), [(None, set[str]()), (5, {HERE})])
def test_one_that_rests_gets_what_would_be_refused_otherwise(here: int | None, tried: set[str]) -> None:
    """Such as an instance that was seen before it took builds, while this one ends; others come first."""
    found = placing(candidate("a", 10), candidate("b", 90))
    found.rest("a")
    assert found.choose(here, tried) == "b"
    assert found.choose(here, {*tried, "b"}) == "a"
    assert found.choose(here, {*tried, "a", "b"}) is None


def test_the_size_of_a_build_is_estimated_by_its_components() -> None:
    """Of a large one by its beginning."""
    small = json.dumps({"changes": [{"_component_id": f"vm::{n}"} for n in range(100)]}).encode()
    large = json.dumps({"changes": [{"_component_id": "vm", "pad": "x" * 100}] * 20_000}).encode()
    assert estimate(small) == 100
    assert estimate(large) == pytest.approx(20_000, rel=0.02)
    assert estimate(b"no build") == 1


# A burst, simulated: each receiver has a few builds under way at a time, and knows of the others what their
# leases of up to two seconds ago and their answers say.

PERIOD = 2.0
AT_ONCE = 16


@define(eq=False)
class Instance:
    key: str
    active: int
    takes: bool
    phase: float
    placing: Placing = field(factory=Placing)
    queue: list[int] = field(factory=list)
    given: list[int] = field(factory=list)
    count: int = 1

    def lease(self) -> Candidate:
        return Candidate(self.key, self.key, Report(self.count, self.active), self.takes)


class Burst:
    """Builds that come in all at once."""

    def __init__(self, instances: list[Instance], seed: int) -> None:
        self.instances = {one.key: one for one in instances}
        self.leases = {one.key: one.lease() for one in instances}
        self.random = random.Random(seed)
        self.events: list[tuple[float, int, object]] = []
        self.number = 0
        self.under_way = 0
        for one in instances:
            self.at(one.phase, ("renew", one))
            self.look(one)

    def at(self, time: float, what: object) -> None:
        self.number += 1
        heapq.heappush(self.events, (time, self.number, what))

    def look(self, one: Instance) -> None:
        one.placing.see(lease for key, lease in self.leases.items() if key != one.key)

    def next(self, time: float, one: Instance) -> None:
        """Place the next build that one has received."""
        if not one.queue:
            return
        size = one.queue.pop()
        self.under_way += 1
        to = one.placing.choose(one.active if one.takes else None)
        assert to is not None
        one.placing.begin(to, size)
        there = self.instances[to or one.key]
        self.at(time + self.random.uniform(0.001, 0.02), ("taken", one, to, there, size))

    def run(self) -> None:
        for one in self.instances.values():
            for _ in range(AT_ONCE):
                self.next(0.0, one)
        while self.under_way:
            time, _, what = heapq.heappop(self.events)
            match what:
                case ("renew", Instance() as one):
                    one.count += 1
                    self.leases[one.key] = one.lease()
                    self.at(time + PERIOD, ("renew", one))
                    for each in self.instances.values():
                        self.at(time + self.random.uniform(0, PERIOD), ("look", each))
                case ("look", Instance() as one):
                    self.look(one)
                case ("taken", Instance() as one, str() as to, Instance() as there, int() as size):
                    there.active += size
                    there.given.append(size)
                    self.at(time + 0.001, ("answered", one, to, size, Report(there.count, there.active)))
                case ("answered", Instance() as one, str() as to, int() as size, Report() as report):
                    one.placing.end(to, size, report)
                    self.under_way -= 1
                    self.next(time, one)


@given(
    loads=st.lists(st.integers(0, 3_000), min_size=3, max_size=3),
    receivers=st.lists(st.integers(1, 5), min_size=3, max_size=3),
    seed=st.integers(0, 2**32),
)
def test_a_burst_of_a_thousand_spreads_within_a_tenth(
    loads: list[int], receivers: list[int], seed: int
) -> None:
    """Of mixed size, whoever receives them, with leases two seconds old; what ran before is made up for."""
    instances = [
        Instance(f"i{n}", load, takes=True, phase=seed % (n + 7) / 7) for n, load in enumerate(loads)
    ]
    burst = Burst(instances, seed)
    sizes = [burst.random.choice((1, 3, 10, 30, 100)) for _ in range(1_000)]
    for size in sizes:
        burst.random.choices(instances, receivers)[0].queue.append(size)
    burst.run()
    active = [one.active for one in instances]
    mean = sum(active) / 3
    assert all(abs(one - mean) <= 0.1 * mean for one in active), active
    assert sum(len(one.given) for one in instances) == 1_000


@given(st.integers(0, 2**32))
def test_equal_builds_spread_within_a_tenth_in_number(seed: int) -> None:
    """Each instance gets between 300 and 367 of a thousand."""
    instances = [Instance(f"i{n}", 0, takes=True, phase=seed % (n + 7) / 7) for n in range(3)]
    burst = Burst(instances, seed)
    for _ in range(1_000):
        burst.random.choice(instances).queue.append(5)
    burst.run()
    assert all(300 <= len(one.given) <= 367 for one in instances)


@given(st.integers(0, 2**32))
def test_in_a_burst_one_that_takes_none_gets_none(seed: int) -> None:
    """What it receives it passes on, and the others share it within a tenth."""
    instances = [Instance(f"i{n}", 0, takes=n > 0, phase=seed % (n + 7) / 7) for n in range(3)]
    burst = Burst(instances, seed)
    for _ in range(1_000):
        burst.random.choice(instances).queue.append(5)
    burst.run()
    assert [len(instances[0].given), *(450 <= len(one.given) <= 550 for one in instances[1:])] == [
        0,
        True,
        True,
    ]
