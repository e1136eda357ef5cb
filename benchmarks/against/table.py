"""Prints both versions side by side, in lines of at most 80 characters."""

import textwrap
from collections.abc import Iterator
from statistics import median

from benchmarks.against.rows import Comparison, Limit, Row

_WIDTH = 80


def table(found: Comparison) -> str:
    """Format all rows, with the machine before them."""
    return "\n".join(line.rstrip() for line in _lines(found))


def _lines(found: Comparison) -> Iterator[str]:
    machine = found.machine
    before, after = found.before, found.after
    yield from _wrapped(f"{machine.cpu}, {machine.cores} cores, {machine.system}, load {machine.load:.2f}")
    yield from _wrapped(f"Python {machine.python}, nats-server {machine.versions['nats-server']}")
    yield from _wrapped(f"before: {before.name}; after: {after.name}; {_packages(found)}")
    section = ""
    for row in found.rows:
        if row.section != section:
            section = row.section
            yield ""
            yield section
            one, other = row.columns
            yield f"{'':<26} {one:>9} {other:>9}  ratio (of rounds) target"
        yield _row(row)


def _packages(found: Comparison) -> str:
    """Name the packages of both that are not of the same version."""
    before, after = found.before.packages, found.after.packages
    differing = [
        f"{name} {before[name]} / {after[name]}"
        for name in sorted(before.keys() & after.keys(), key=str.lower)
        if before[name] != after[name]
    ]
    return f"packages that differ: {', '.join(differing)}" if differing else "with the same packages"


def _wrapped(text: str) -> Iterator[str]:
    yield from textwrap.wrap(text, _WIDTH)


def _row(row: Row) -> str:
    before, after = (_number(median(figures)) for figures in (row.before, row.after))
    ratio = f"{row.figure:.2f}" if row.relative else ""
    spread = f"{min(row.judged):.2f}-{max(row.judged):.2f}"
    return f"{row.name:<26} {before:>9} {after:>9} {ratio:>6} {spread:>11} {_verdict(row.met, row.limit)}"


def _verdict(met: bool | None, limit: Limit | None) -> str:
    if limit is None:
        return ""
    return f"{'>=' if limit.at_least else '<='} {limit.value:.2f} {'met' if met else 'MISSED'}"


def _number(value: float) -> str:
    """Format a figure with three digits."""
    digits = len(str(int(value))) if value >= 1 else 0
    return f"{value:,.{max(0, 3 - digits)}f}"
