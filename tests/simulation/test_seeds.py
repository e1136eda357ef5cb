"""The promises hold whatever goes wrong: one seed, one run of the real service in a simulated world."""

from collections.abc import Sequence

import pytest

from simulation.judging import chosen, judge_all

_SHARE = 50


def _shares() -> list[Sequence[int]]:
    seeds = chosen()
    return [seeds[start : start + _SHARE] for start in range(0, len(seeds), _SHARE)]


@pytest.mark.parametrize("seeds", _shares(), ids=lambda seeds: f"{seeds[0]}-{seeds[-1]}")
def test_the_promises_hold(seeds: Sequence[int]) -> None:
    """Every accepted build ends, with one outcome a component, one report, and nothing sent in vain."""
    verdicts = list(judge_all(seeds))
    assert not verdicts, "\n\n".join(["", *map(str, verdicts[:5]), f"{len(verdicts)} of {len(seeds)} seeds"])
