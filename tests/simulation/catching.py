"""Seeds that catch the mutants, as of the last time that they were sought; kept in ``caught.json``.

Such a seed is tried before all others: most mutants are caught by one seed in thirty, and each costs a part
of a second. Where the package has changed so that it catches nothing any more, the others are tried as ever.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from simulation.judging import DEFAULT, chosen, judge_all
from simulation.mutants import MUTANTS, mutated

KEPT: Final = Path(__file__).with_name("caught.json")
FURTHER: Final = "200:1500"
"""Seeds among which one is sought where none of those of every run catches a mutant."""


def _read() -> dict[str, int]:
    kept: dict[str, int] = json.loads(KEPT.read_text())
    return {name: seed for name, seed in kept.items() if name in MUTANTS}


def seeds_for(name: str) -> Iterable[int]:
    """The seeds for a mutant: the one that has caught it, then those of every run; each once."""
    kept = _read()
    return dict.fromkeys([*([kept[name]] if name in kept else []), *chosen(DEFAULT)])


def catching(name: str, seeds: Iterable[int]) -> int | None:
    """The first seed in which a package with this fault breaks a promise; a run that fails is not enough."""
    with mutated(name):
        for verdict in judge_all(seeds):
            if any(" fails: " not in problem for problem in verdict.problems):
                return verdict.seed
    return None


def seek() -> Iterator[str]:
    """Seek the seeds anew, and keep them; yields a line for each mutant."""
    kept = _read()
    for name in MUTANTS:
        seed = catching(name, [*seeds_for(name), *chosen(FURTHER)])
        yield f"{name}: {seed}"
        if seed is not None:
            kept[name] = seed
    KEPT.write_text(json.dumps(kept, indent=2) + "\n")
