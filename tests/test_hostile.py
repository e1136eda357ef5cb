"""The benchmark of attacks judges what it measured: percentiles, the rule, the table."""

from math import inf
from typing import Any

import pytest
from attrs import evolve

from benchmarks.hostile.attacks import ATTACKS
from benchmarks.hostile.judging import CACHES, Measure, Ordeal, Waits, within
from benchmarks.hostile.tables import table
from benchmarks.processes import Store

MIB = 2**20


def waits(*seconds: float | None) -> Waits:
    return Waits.of([(0.0, one) for one in seconds])


def ordeal(**changes: Any) -> Ordeal:
    quick = waits(*[0.005] * 100)
    calm = Ordeal(
        attack="calm",
        store=Store.MEMORY,
        sent=1_000,
        outcome="refused",
        seconds=4.0,
        alone=quick,
        beside=quick,
        ping=quick,
        echo=quick,
        work=quick,
        grown=0,
        waiting=0,
        builds=0,
        exit=0.1,
    )
    return evolve(calm, **changes)


def test_a_percentile_is_a_value_that_was_measured() -> None:
    found = waits(*[number / 1_000 for number in range(1, 201)])
    assert (found.count, found.p50, found.p99, found.worst) == (200, 0.1, 0.198, 0.2)


def test_of_a_few_samples_the_slowest_is_the_99th_percentile() -> None:
    assert waits(0.1, 0.2, 0.3).p99 == 0.3


def test_a_probe_that_failed_took_for_ever() -> None:
    found = waits(0.1, None, 0.1)
    assert (found.worst, found.p50, found.failed) == (inf, 0.1, 1)


def test_nothing_measured_is_no_measurement() -> None:
    with pytest.raises(ValueError, match="nothing"):
        Waits.of([])


def test_samples_belong_to_the_time_at_which_they_were_due() -> None:
    samples = [(1.0, 9.0), (2.0, 0.1), (3.0, None)]
    assert within(samples, 2.0, 3.0) == [(2.0, 0.1)]


def test_what_keeps_the_rule_breaks_nothing() -> None:
    assert ordeal().broken() == set()


@pytest.mark.parametrize(
    ("changes", "measure"),
    [
        ({"beside": waits(*[0.01] * 95, *[0.26] * 5)}, Measure.P99),
        ({"beside": waits(*[0.01] * 199, 0.51)}, Measure.WORST),
        ({"beside": waits(*[0.01] * 199, None)}, Measure.WORST),
        ({"ping": waits(*[0.001] * 199, 0.101)}, Measure.PING),
        ({"exit": 1.1}, Measure.EXIT),
        ({"exit": inf}, Measure.EXIT),
        ({"grown": CACHES + 4 * 1_000 + 1}, Measure.MEMORY),
    ],
)
def test_what_is_past_the_rule_is_named(changes: dict[str, Any], measure: Measure) -> None:
    assert ordeal(**changes).broken() == {measure}


def test_where_a_build_alone_is_slow_it_may_take_five_times_that() -> None:
    slow = ordeal(alone=waits(*[0.2] * 50), beside=waits(*[0.99] * 100))
    assert slow.broken() == set()
    assert evolve(slow, beside=waits(*[1.01] * 100)).broken() == {Measure.P99, Measure.WORST}


def test_memory_may_grow_with_what_came_in_and_what_waits() -> None:
    grown = ordeal(grown=CACHES + 4 * MIB + 10 * 6_144 + 5 * 24_576, sent=MIB, waiting=10, builds=5)
    assert grown.broken() == set()
    assert evolve(grown, builds=4).broken() == {Measure.MEMORY}
    assert evolve(grown, waiting=9).broken() == {Measure.MEMORY}


def test_an_excuse_is_for_the_healthy_builds_alone() -> None:
    slow = ordeal(excuse="they are the same", beside=waits(3.0), ping=waits(3.0))
    assert slow.broken() == {Measure.PING}


def test_an_exit_that_was_not_measured_is_not_judged() -> None:
    assert ordeal(exit=None).broken() == set()


def test_the_table_marks_what_is_past_the_rule_and_fits() -> None:
    bad = ordeal(
        attack=max(ATTACKS, key=len),
        outcome="12,345 refused, 12,345 done",
        sent=300 * MIB,
        beside=waits(None),
        ping=waits(61.2345),
        exit=inf,
        grown=99_999 * MIB,
        excuse="",
    )
    lines = table([ordeal(), bad]).splitlines()
    assert max(map(len, lines)) <= 110
    calm_line, bad_line = lines[2:4]
    assert "!" not in calm_line
    assert bad_line.split()[-6:] == ["failed", "failed!", "failed!", "61,234!", "99,999!", "never!"]
    assert "2 attacks, 1 past the rule" in lines[4]


def test_every_name_of_an_attack_fits_its_column() -> None:
    assert max(map(len, ATTACKS)) <= 30
