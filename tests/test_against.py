"""The benchmark of two versions compares what was measured side by side, and judges it."""

from typing import Any

import pytest
from attrs import evolve

from benchmarks.against import rows
from benchmarks.against.rounds import in_turn
from benchmarks.against.rows import Comparison, Contest, Latency, Limit, Part, Planned, Row
from benchmarks.against.table import table
from benchmarks.against.versions import Version, other_version
from benchmarks.environments import InstallationError
from benchmarks.machine import Machine
from benchmarks.processes import THIS, Store
from benchmarks.results import Round
from scheduler.local.generate import Shape


def block(**changes: Any) -> Round:
    usual = Round(
        bare=100_000.0,
        walk=10_000.0,
        total=8_000.0,
        cpu=200e-6,
        accept=0.5,
        connector=0.3,
        bare_connector=0.9,
    )
    return evolve(usual, **changes)


def contest(before: list[Round], after: list[Round], size: int = 10_000, **changes: Any) -> Contest:
    usual = Contest(Store.MEMORY, Shape.LAYERED, size, tuple(before), tuple(after))
    return evolve(usual, **changes)


def row(before: tuple[float, ...], after: tuple[float, ...], limit: float) -> Row:
    return Row("seconds", "anything", before, after, Limit(limit))


def comparison(*found: Row, **changes: Any) -> Comparison:
    machine = Machine(
        "A processor", 2, "Linux 1", 0.5, "3.11.7", {"nats-server": "v2"}, "2026-11-30T00:00:00+00:00"
    )
    packages = {"trio": "0.31.0", "attrs": "25.1.0"}
    before = Version("1234567", "1234567" + "0" * 33, THIS, packages)
    usual = Comparison(machine, before, evolve(before, name="89abcde+"), (), found)
    return evolve(usual, **changes)


async def test_of_two_versions_each_is_first_in_every_second_round() -> None:
    order: list[str] = []

    async def measured(one: str) -> int:
        order.append(one)
        return len(order)

    assert await in_turn(3, ("a", "b"), measured) == ((1, 4, 5), (2, 3, 6))
    assert order == ["a", "b", "b", "a", "a", "b"]


def test_a_ratio_is_the_median_of_the_ratios_of_rounds_and_not_the_ratio_of_medians() -> None:
    """The machine became slower by half from one round to the next."""
    found = row((1.0, 2.0, 4.0), (0.5, 1.0, 4.0), 0.6)
    assert found.judged == (0.5, 0.5, 1.0)
    assert found.figure == 0.5


@pytest.mark.parametrize(
    ("limit", "met"),
    [
        (Limit(0.5), True),
        (Limit(0.49), False),
        (Limit(0.5, at_least=True), True),
        (Limit(0.51, at_least=True), False),
        (None, None),
    ],
)
def test_a_target_is_met_by_the_figure_that_is_exactly_it(limit: Limit | None, met: bool | None) -> None:
    assert evolve(row((2.0,), (1.0,), 0.0), limit=limit).met is met


def test_a_target_is_for_builds_of_10000() -> None:
    small, large = (rows.throughput([contest([block()], [block()], size)]) for size in (1_000, 10_000))
    assert [one.limit for one in small] == [None, None, None]
    assert [one.limit for one in large] == [Limit(0.5), Limit(0.4), Limit(0.19, at_least=True)]


@pytest.mark.parametrize("store", Store)
@pytest.mark.parametrize("shape", Shape)
def test_every_shape_with_every_store_has_its_targets(store: Store, shape: Shape) -> None:
    found = rows.throughput([contest([block()], [block()], store=store, shape=shape)])
    assert all(one.limit is not None for one in found)


def test_the_speed_beside_the_bare_loop_of_the_same_round_is_judged_by_itself() -> None:
    before, after = [block(walk=10_000.0)], [block(walk=40_000.0, bare=200_000.0)]
    floor = rows.throughput([contest(before, after)])[-1]
    assert (floor.before, floor.after, floor.judged, floor.met) == ((0.1,), (0.2,), (0.2,), True)


def test_seconds_become_the_unit_of_their_section() -> None:
    cost, acceptance, _ = rows.throughput([contest([block(cpu=300e-6)], [block(accept=0.25)])])
    assert [*cost.before, *cost.after] == pytest.approx([300, 200])
    assert (acceptance.before, acceptance.after) == ((500,), (250,))
    slow, fast = Latency(0.002, 0.004, 0.1), Latency(0.001, 0.001, 0.02)
    found = rows.latency(10_000, [slow], [fast])
    assert [(one.before, one.after, one.met) for one in found] == [
        ((2,), (1,), True),
        ((4,), (1,), True),
        ((100,), (20,), True),
    ]


def test_one_missed_target_is_enough() -> None:
    met, missed = row((2.0,), (1.0,), 0.5), row((2.0,), (1.0,), 0.4)
    assert not comparison(met, evolve(missed, limit=None)).missed
    assert comparison(met, missed).missed


def test_the_table_has_every_row_with_its_spread_and_verdict_in_80_columns() -> None:
    contests = [
        contest([block(cpu=1.234567)] * 3, [block(cpu=9.87654)] * 3, store=store, shape=shape)
        for store in Store
        for shape in Shape
    ]
    found = comparison(
        *rows.throughput(contests),
        *rows.latency(10_000, [Latency(1, 2, 3)] * 3, [Latency(1, 2, 3)] * 3),
        *rows.memory(10_000, [5_000.0, 4_000.0, 4_000.0], [2_500.0, 2_400.0, 3_200.0]),
        *rows.plan(10_000, [Planned(100.0, 99.0)], [Planned(50.0, 50.0)]),
        *rows.restart(10_000, [1.0], [0.4]),
        *rows.growth(Store.JETSTREAM, 10_000, [1e-4], [1.2e-4]),
    )
    lines = table(found).splitlines()
    assert max(len(line) for line in lines) <= 80
    assert "memory, wide, 10,000           4,000     2,500   0.60   0.50-0.80 <= 0.75 met" in lines
    assert lines[-1].endswith("<= 1.10 MISSED")


def test_packages_of_different_versions_are_named_and_no_others() -> None:
    found = comparison()
    assert "with the same packages" in table(found)
    after = evolve(found.after, packages={"trio": "0.32.0", "attrs": "25.1.0", "msgspec": "0.20.0"})
    assert "packages that differ: trio 0.31.0 / 0.32.0" in table(evolve(found, after=after))


def test_a_commit_that_does_not_exist_is_no_version() -> None:
    with pytest.raises(InstallationError, match="git rev-parse"):
        other_version("no-such-commit")


def test_instructions_are_shown_in_thousands_and_counted_only_if_named() -> None:
    [counted] = rows.instructions(Store.MEMORY, Shape.WIDE, (1_240_000.0,), (620_000.0,))
    assert (counted.before, counted.after, counted.figure, counted.met) == ((1240.0,), (620.0,), 0.5, None)
    assert [part for part in Part if part.only_if_named] == [Part.INSTRUCTIONS]
