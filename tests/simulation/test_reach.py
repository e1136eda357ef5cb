"""The simulation gets to where faults are: a world in which little goes wrong would prove little."""

from simulation.reaching import kept, missed


def test_it_happens() -> None:
    """All that is wanted is met in some run."""
    assert missed(kept()) == set()
