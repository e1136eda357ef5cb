"""A seed decides everything."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from simulation.driver import simulate
from simulation.judging import chosen

SEEDS = range(12)


def test_a_seed_gives_one_trace_in_every_process() -> None:
    """Two processes, whose strings hash differently, see the same things happen at the same times."""
    outputs = []
    for number in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": number, "PYTHONPATH": str(Path(__file__).parents[1])}
        command = [sys.executable, "-m", "simulation", "--digest", f"{SEEDS.start}:{SEEDS.stop}"]
        process = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        outputs.append(process.stdout.splitlines())
    assert outputs[0] == outputs[1] == [f"{seed} {simulate(seed).trace.digest()}" for seed in SEEDS]


def test_seeds_differ() -> None:
    """Another seed is another run."""
    assert len({simulate(seed).trace.digest() for seed in SEEDS}) == len(SEEDS)


@pytest.mark.parametrize(
    ("text", "seeds"), [("7", [7]), ("3:6", [3, 4, 5]), ("1,5:7", [1, 5, 6]), ("0:1500", list(range(1500)))]
)
def test_seeds_are_chosen_by_ranges(text: str, seeds: list[int]) -> None:
    """A number, a range without its end, several of either."""
    assert chosen(text) == seeds
