"""The wall clocks of the service's processes: each has one of its own, which may be wrong, and may be set.

The broker's clock is right, and Trio's passes evenly. What clocks do is drawn from numbers of its own.
"""

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import trio
from attrs import define, field, frozen
from support.fake_jetstream import DAY_ZERO, SECOND

from simulation.processes import Process
from simulation.who import WHO

SHORTEST = 120.0
"""Seconds by which a clock is wrong at least, where it is: what the checker tells from a slow world."""
_ERRORS = (SHORTEST, -SHORTEST, 3_600.0, -3_600.0, 86_400.0, -86_400.0)


@frozen
class Setting:
    """The clock of some process is set."""

    at: float
    seconds: float
    """By how much."""
    number: int
    """Chooses the process."""


@frozen
class Disorder:
    """Faults of the clocks of a scenario."""

    errors: tuple[float, ...] = (0.0,)
    """By how many seconds each process's clock is wrong when it starts, in turn."""
    settings: tuple[Setting, ...] = ()
    change_after_failure: bool = False
    """Whether a process is killed right after a failure, and the next one has another clock."""

    @property
    def agree(self) -> bool:
        """Whether all processes have the same time."""
        return not self.settings and len(set(self.errors)) == 1


def disorder(seed: int, begin: float, heals_at: float) -> Disorder:
    """Decide it for a seed.

    Args:
        seed: decides.
        begin: when the first build is handed in.
        heals_at: when everything is well again; of clocks, that they are not set any more.
    """
    rng = random.Random(f"clocks {seed}")
    if rng.random() < 0.5:
        return Disorder()
    errors = tuple(rng.choice((0.0, 0.0, *_ERRORS)) for _ in range(5))
    settings = (
        Setting(min(heals_at, begin + rng.uniform(0.0, 8.0)), rng.choice(_ERRORS), rng.randrange(1000))
        for _ in range(rng.choice((0, 1, 1, 2)))
    )
    change = rng.random() < 0.5
    if change:
        errors = (0.0, rng.choice((-86_400.0, -3_600.0, 3_600.0)))
    return Disorder(errors, tuple(settings), change_after_failure=change)


@define(eq=False)
class Clocks:
    """By how much each process's clock is wrong."""

    disorder: Disorder
    _wrong: dict[str, float] = field(factory=dict)

    def started(self, process: Process, number: int) -> None:
        """A process starts, the one of that number."""
        errors = self.disorder.errors
        self._wrong[process.name] = errors[number % len(errors)]

    def set(self, process: Process, seconds: float) -> None:
        """The clock of a process is set by so much."""
        self._wrong[process.name] += seconds

    def wall_clock(self) -> float:
        """Seconds since 1970, as the process sees it that asks."""
        process = WHO.get()
        wrong = self._wrong[process.name] if process is not None else 0.0
        return DAY_ZERO / SECOND + trio.current_time() + wrong

    def _nanoseconds(self) -> int:
        return round(self.wall_clock() * SECOND)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Make the package use these clocks."""
        with (
            mock.patch.object(time, "time", self.wall_clock),
            mock.patch.object(time, "time_ns", self._nanoseconds),
        ):
            yield
