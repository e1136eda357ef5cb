"""The ordeals as a table for people."""

from collections.abc import Iterator, Sequence
from math import isinf

from benchmarks.hostile.judging import CACHES, Measure, Ordeal

_OURS = "scheduler/"
PAST = "!"
"""Behind a figure that is past the rule."""


def table(ordeals: Sequence[Ordeal]) -> str:
    """A line an attack, of 110 characters at most."""
    return "\n".join(line.rstrip() for line in _lines(ordeals))


def _lines(ordeals: Sequence[Ordeal]) -> Iterator[str]:
    for store in dict.fromkeys(ordeal.store for ordeal in ordeals):
        mine = [ordeal for ordeal in ordeals if ordeal.store is store]
        yield f"{store}: healthy builds beside each attack, ms; ping: the worst; RSS: MiB grown; exit: s"
        if viewers := max(ordeal.viewers for ordeal in mine):
            yield f"{viewers} viewers of the page, before and meanwhile"
        yield (
            f"{'attack':<30} {'bytes':>6}  {'what became of it':<21}"
            f" {'p50':>6}  {'p99':>6}  {'worst':>6}  {'ping':>6}  {'RSS':>6}  {'exit':>4}"
        )
        for ordeal in mine:
            yield line(ordeal)
        bad = sum(bool(ordeal.broken()) for ordeal in mine)
        alone = max(ordeal.alone.worst for ordeal in mine)
        echo = max(ordeal.echo.worst for ordeal in mine)
        yield f"{len(mine)} attacks, {bad} past the rule ({PAST})"
        yield f"The worst of a healthy build alone: {_time(alone)} ms; of a message to itself: {_time(echo)}."
        yield f"Of RSS, {CACHES // 2**20} MiB are the caches', which have a bound."
        for ordeal in mine:
            if ordeal.excuse:
                yield f"{ordeal.attack}: {ordeal.excuse}"
        yield from _held(mine)


def _held(ordeals: Sequence[Ordeal]) -> Iterator[str]:
    held = {ordeal.attack: {one.kind: one for one in ordeal.stretches} for ordeal in ordeals}
    held = {name: found for name, found in held.items() if found}
    if held:
        yield "The loop was held by one step of a task, and by a round of all; ms of CPU; where the step was:"
    for name, found in held.items():
        step, around = found.get("step"), found.get("round")
        where = "" if step is None else next((call for call in step.at if call.startswith(_OURS)), step.what)
        times = " ".join(f"{_time(one.seconds) if one else '':>6}" for one in (step, around))
        yield f"{name:<30} {times}  {where:.64}"


def line(ordeal: Ordeal) -> str:
    """An ordeal, in the columns of the table."""
    broken = ordeal.broken()

    def cell(measure: Measure, shown: str, width: int) -> str:
        return f"{shown:>{width}}{PAST if measure in broken else ' '}"

    took = f"{ordeal.outcome} {ordeal.seconds:.1f} s"
    exits = "" if ordeal.exit is None else "never" if isinf(ordeal.exit) else f"{ordeal.exit:.1f}"
    cells = [
        f"{ordeal.attack[:30]:<30}",
        f"{_size(ordeal.sent):>6}",
        f" {took[:21]:<21}",
        f"{_time(ordeal.beside.p50):>6} ",
        cell(Measure.P99, _time(ordeal.beside.p99), 6),
        cell(Measure.WORST, _time(ordeal.beside.worst), 6),
        cell(Measure.PING, _time(ordeal.ping.worst), 6),
        cell(Measure.MEMORY, f"{ordeal.grown / 2**20:,.0f}", 6),
        cell(Measure.EXIT, exits, 4),
    ]
    return " ".join(cells)


def _size(count: int) -> str:
    for unit, size in (("M", 2**20), ("K", 2**10)):
        if count >= size:
            value = count / size
            return f"{value:.1f}{unit}" if value < 10 else f"{value:,.0f}{unit}"
    return f"{count}"


def _time(seconds: float) -> str:
    """Milliseconds."""
    return "failed" if isinf(seconds) else f"{seconds * 1e3:,.0f}"
