"""The costs of a fleet that the benchmark shows."""

from attrs import evolve

from benchmarks.fleet import Idle, Shared, met, ratio, table

ALONE = Shared(
    1,
    directly=True,
    cpu=[100.0, 200.0, 300.0],
    rate=[1_000.0],
    busiest=[1.0],
    broker=[150.0],
    writes=[1.5],
    stored=[12_345.0],
)
IDLE = Idle(10, messages=12_345.6, sent=123_456, received=1_234_567, leases=5, cpu=0.0062, broker=0.1)


def of_two(*cpu: float) -> Shared:
    return evolve(ALONE, instances=2, cpu=list(cpu))


def test_a_component_is_compared_within_its_round() -> None:
    """The machine may be slower in another one."""
    assert ratio([ALONE, two := of_two(105.0, 220.0, 330.0)], two) == 1.1


def test_a_fleet_that_costs_too_much_is_marked() -> None:
    """That its connectors answer as old ones do has no target."""
    dear = of_two(120.0, 240.0, 360.0)
    assert met([ALONE, of_two(105.0, 210.0, 315.0)])
    assert not met([ALONE, dear])
    assert "1.20!" in table([ALONE, dear], ())
    old = [evolve(one, directly=False) for one in (ALONE, dear)]
    assert met([ALONE, *old])
    assert "!" not in table(old, ())


def test_the_tables_fit_into_a_terminal() -> None:
    """Of 80 columns, whatever is measured."""
    assert max(map(len, table([ALONE, of_two(*[99_999.0] * 3)], [IDLE]).splitlines())) <= 80
