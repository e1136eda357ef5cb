"""Runs seeds and judges them: what the tests and ``python -m simulation`` have in common."""

import os
from collections.abc import Iterable, Iterator

from attrs import field, frozen

from simulation.checker import Checker
from simulation.driver import simulate
from simulation.scenario import Scenario
from simulation.trace import Trace

VARIABLE = "SIMULATION_SEEDS"
"""The seeds to run: ``4711``, or ``0:20000`` without the last one; several of either, with commas."""
DEFAULT = "0:200"
"""Those of every run of the tests; each mutant has to be caught by one of them."""


@frozen
class Verdict:
    """Result of a seed."""

    seed: int
    problems: tuple[str, ...]
    """Empty where all promises were kept."""
    scenario: Scenario | None = field(default=None, repr=False)
    trace: Trace | None = field(default=None, repr=False)

    def __str__(self) -> str:
        lines = "\n".join(f"  {problem}" for problem in self.problems[:10])
        replay = f"PYTHONPATH=tests python -m simulation {self.seed}"
        return f"seed {self.seed}:\n{lines}\n  to see all of it: {replay}"


def judge(seed: int) -> Verdict:
    """Run a seed."""
    try:
        driver = simulate(seed)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is to be told with its seed
        return Verdict(seed, (f"the run itself fails: {error!r}",))
    problems = Checker(driver.scenario).check(driver.trace.steps, stuck=driver.stuck)
    return Verdict(seed, tuple(problems), driver.scenario, driver.trace)


def judge_all(seeds: Iterable[int]) -> Iterator[Verdict]:
    """The seeds with problems."""
    for seed in seeds:
        verdict = judge(seed)
        if verdict.problems:
            yield verdict


def chosen(text: str | None = None) -> list[int]:
    """The seeds that a text, or the environment variable, names."""
    seeds: list[int] = []
    for part in (text or os.environ.get(VARIABLE) or DEFAULT).split(","):
        first, colon, end = part.partition(":")
        seeds += range(int(first), int(end) if colon else int(first) + 1)
    return seeds
