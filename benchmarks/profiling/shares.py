"""Divides the CPU time that was measured without a profiler by the samples that were taken with it."""

from collections import Counter
from collections.abc import Mapping, Sequence

from attrs import frozen

from benchmarks.processes import THIS, Store
from benchmarks.profiling.frames import Samples, assign
from scheduler.local.generate import Shape


@frozen
class Spent:
    """CPU time for a component, in seconds."""

    loop: float
    """User time of the thread that has the loop."""
    beside: float
    """User time of all other threads."""
    system: float
    """Time of all threads in the kernel."""

    @property
    def total(self) -> float:
        """Sum of all."""
        return self.loop + self.beside + self.system


@frozen
class Profile:
    """Profile of a service that runs builds of one shape and size."""

    store: Store
    shape: Shape
    size: int
    spent: Spent
    """Medians of the rounds without py-spy."""
    cost: float
    """CPU time with py-spy, as a multiple of that without."""
    samples: int
    rows: Mapping[str, float]
    """User time for a component by row, in seconds."""
    others: Mapping[str, float]
    """The same of functions without a row."""


def combine(
    lines: Sequence[str], pid: int, spent: Spent, *, cost: float, of: tuple[Store, Shape, int]
) -> Profile:
    """Divide what was spent by the samples of each thread, as py-spy prints them with ids of threads."""
    main = f"thread ({pid})"
    loop = assign([line for line in lines if line.startswith(main)], THIS.root)
    beside = assign([line for line in lines if not line.startswith(main)], THIS.root)
    rows: Counter[str] = Counter()
    others: Counter[str] = Counter()
    for found, seconds in ((loop, spent.loop), (beside, spent.beside)):
        _add(rows, found, found.counts, seconds)
        _add(others, found, found.others, seconds)
    return Profile(*of, spent, cost, loop.total + beside.total, rows, others)


def _add(sums: Counter[str], found: Samples, counts: Mapping[str, int], seconds: float) -> None:
    for name, count in counts.items():
        sums[name] += seconds * count / max(1, found.total)  # type: ignore[assignment]
