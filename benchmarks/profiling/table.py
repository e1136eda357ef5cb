"""Prints a profile as a table."""

from collections.abc import Iterator

from benchmarks.profiling.frames import ELSE, TITLES
from benchmarks.profiling.shares import Profile

_NAMED = 5
"""Functions without a row that are named."""


def lines(profile: Profile) -> Iterator[str]:
    """Format a profile in lines of at most 80 characters; shares are of all CPU time of the service."""
    spent = profile.spent
    yield f"{f'{profile.store}, {profile.shape}, {profile.size:,}':<50} us a component   of CPU"
    for title in TITLES:
        yield _line(title, profile.rows.get(title, 0.0), spent.total)
        if title == ELSE:
            largest = sorted(profile.others.items(), key=lambda item: -item[1])
            for function, seconds in largest[:_NAMED]:
                yield _line(f"  {function}"[-50:], seconds, spent.total)
    yield _line("in the kernel, whatever for", spent.system, spent.total)
    yield _line("all", spent.total, spent.total)
    yield (
        f"user time: the loop's thread {spent.loop * 1e6:.0f} us, others {spent.beside * 1e6:.0f};"
        f" {profile.samples:,} samples"
    )
    yield f"under py-spy the service took {profile.cost:.2f} times as much CPU, which is not in the table"


def _line(title: str, seconds: float, total: float) -> str:
    return f"{title:<50} {seconds * 1e6:>14.1f} {seconds / total:>8.1%}"
