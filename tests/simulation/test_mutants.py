"""The simulation finds faults: each of those that are put into the package on purpose is caught."""

import pytest

from simulation.catching import catching, seeds_for
from simulation.mutants import MUTANTS


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_caught(name: str) -> None:
    """A package with this one fault breaks a promise in some run; to end with an error is not enough."""
    assert catching(name, seeds_for(name)) is not None
