"""The simulation finds faults: each of those that are put into the package on purpose is caught."""

import pytest

from simulation.judging import DEFAULT, chosen, judge_all
from simulation.mutants import MUTANTS, mutated


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_caught(name: str) -> None:
    """A package with this one fault breaks a promise in some run; to end with an error is not enough."""
    with mutated(name):
        verdicts = judge_all(chosen(DEFAULT))
        assert any(" fails: " not in problem for verdict in verdicts for problem in verdict.problems)
