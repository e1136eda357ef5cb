"""Figures of two versions side by side, and the targets that they have to meet.

A machine that is shared may be twice as fast a minute later. So both versions are measured one right after
the other, in rounds, and only what is of one round is compared: a ratio is the median of the rounds' ratios.
"""

from collections.abc import Sequence
from enum import StrEnum
from statistics import median

from attrs import frozen

from benchmarks.against.versions import Version
from benchmarks.machine import Machine
from benchmarks.processes import Store
from benchmarks.results import Round
from scheduler.local.generate import Shape


class Part(StrEnum):
    """Parts of the measurement, as in ``--only``, in their order."""

    THROUGHPUT = "throughput"
    LATENCY = "latency"
    MEMORY = "memory"
    PLAN = "plan"
    DURABLE = "durable"
    LARGE = "large"
    INSTRUCTIONS = "instructions"

    @property
    def only_if_named(self) -> bool:
        """Whether it is left out unless it is asked for."""
        return self is Part.INSTRUCTIONS


@frozen
class Limit:
    """Limit of a figure."""

    value: float
    at_least: bool = False

    def holds(self, figure: float) -> bool:
        """Whether a figure keeps to it."""
        return figure >= self.value if self.at_least else figure <= self.value


@frozen
class Row:
    """Figure in each round, of the version before and of this one."""

    section: str
    """What it is and its unit; rows of a section follow each other."""
    name: str
    before: tuple[float, ...]
    after: tuple[float, ...]
    limit: Limit | None = None
    """Target, if this is the size that it is for."""
    relative: bool = True
    """Whether the ratio of the two is judged; otherwise the later figure itself is."""
    columns: tuple[str, str] = ("before", "after")

    @property
    def judged(self) -> tuple[float, ...]:
        """What is judged, in each round."""
        if not self.relative:
            return self.after
        return tuple(after / before for before, after in zip(self.before, self.after, strict=True))

    @property
    def figure(self) -> float:
        """Median of what is judged."""
        return median(self.judged)

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without one."""
        return None if self.limit is None else self.limit.holds(self.figure)


@frozen
class Contest:
    """Blocks of builds of one shape and size, of both versions in turn, each behind its bare loop."""

    store: Store
    shape: Shape
    size: int
    before: tuple[Round, ...]
    after: tuple[Round, ...]


@frozen
class Comparison:
    """Results of a run."""

    machine: Machine
    before: Version
    after: Version
    contests: tuple[Contest, ...]
    rows: tuple[Row, ...]
    """Rows of all parts, in the order of the table."""

    @property
    def missed(self) -> bool:
        """Whether any target is missed."""
        return any(row.met is False for row in self.rows)


SIZE = 10_000
"""Components of the builds that the targets are for."""
LARGER = 10
"""How many times larger a very large build is."""
_CPU = {
    (Store.MEMORY, Shape.LAYERED): 0.50,
    (Store.MEMORY, Shape.WIDE): 0.47,
    (Store.MEMORY, Shape.CHAINS): 0.55,
    (Store.JETSTREAM, Shape.LAYERED): 0.55,
    (Store.JETSTREAM, Shape.WIDE): 0.55,
    (Store.JETSTREAM, Shape.CHAINS): 0.50,
}
_FLOORS = {
    (Store.MEMORY, Shape.LAYERED): 0.19,
    (Store.MEMORY, Shape.WIDE): 0.19,
    (Store.MEMORY, Shape.CHAINS): 0.15,
    (Store.JETSTREAM, Shape.LAYERED): 0.11,
    (Store.JETSTREAM, Shape.WIDE): 0.11,
    (Store.JETSTREAM, Shape.CHAINS): 0.05,
}
_ACCEPTANCE, _MEMORY, _PLAN, _RESTART, _GROWTH = 0.4, 0.75, 0.5, 0.5, 1.10
_DEPENDENT, _ALONE, _BESIDE = 0.6, 0.6, 0.4


def throughput(contests: Sequence[Contest]) -> list[Row]:
    """Make the rows of builds: their cost, their acceptance, and their speed beside the bare loop."""
    costs, accepted, floors = [], [], []
    for one in contests:
        key, name = (one.store, one.shape), f"{one.store}, {one.shape}, {one.size:,}"
        costs.append(
            Row(
                "CPU of the service a component, us",
                name,
                tuple(block.cpu * 1e6 for block in one.before),
                tuple(block.cpu * 1e6 for block in one.after),
                _limit(one.size, _CPU[key]),
            )
        )
        accepted.append(
            Row(
                "from submission to acceptance, ms",
                name,
                tuple(block.accept * 1e3 for block in one.before),
                tuple(block.accept * 1e3 for block in one.after),
                _limit(one.size, _ACCEPTANCE),
            )
        )
        floors.append(
            Row(
                "components/s from acceptance, of the bare loop's messages/s",
                name,
                tuple(block.walk / block.bare for block in one.before),
                tuple(block.walk / block.bare for block in one.after),
                _limit(one.size, _FLOORS[key], at_least=True),
                relative=False,
            )
        )
    return [*costs, *accepted, *floors]


@frozen
class Latency:
    """Latencies of one round, in seconds."""

    dependent: float
    """Median time from a dependency's reply to its dependent's request."""
    alone: float
    """Median time of a build of one component."""
    beside: float
    """99th percentile of that time beside a large build."""


def latency(size: int, before: Sequence[Latency], after: Sequence[Latency]) -> list[Row]:
    """Make the rows of latencies, with a large build of ``size`` components."""
    section = "latency, ms (memory store)"
    return [
        Row(
            section,
            name,
            tuple(getattr(one, figure) * 1e3 for one in before),
            tuple(getattr(one, figure) * 1e3 for one in after),
            _limit(size, limit),
        )
        for figure, name, limit in (
            ("dependent", "reply to next request, p50", _DEPENDENT),
            ("alone", "build of one, alone, p50", _ALONE),
            ("beside", f"... beside {size:,}, p99", _BESIDE),
        )
    ]


def memory(size: int, before: Sequence[float], after: Sequence[float]) -> list[Row]:
    """Make the row of memory of a waiting component, in bytes."""
    section = "memory of a waiting component beyond its JSON, bytes"
    return [Row(section, f"memory, wide, {size:,}", tuple(before), tuple(after), _limit(size, _MEMORY))]


@frozen
class Planned:
    """Cost of a whole process of ``scheduler plan``, in seconds."""

    wall: float
    cpu: float


def plan(size: int, before: Sequence[Planned], after: Sequence[Planned]) -> list[Row]:
    """Make the rows of ``scheduler plan FILE``."""
    return [
        Row(
            "scheduler plan FILE, the whole process, s",
            f"{name}, layered, {size:,}",
            tuple(getattr(one, figure) for one in before),
            tuple(getattr(one, figure) for one in after),
            _limit(size, _PLAN),
        )
        for figure, name in (("wall", "wall time"), ("cpu", "CPU"))
    ]


def restart(size: int, before: Sequence[float], after: Sequence[float]) -> list[Row]:
    """Make the row of restarts: seconds from the start to the next request."""
    section = "from start to next request after kill -9, s"
    return [Row(section, f"jetstream, wide, {size:,}", tuple(before), tuple(after), _limit(size, _RESTART))]


def growth(store: Store, size: int, small: Sequence[float], large: Sequence[float]) -> list[Row]:
    """Make the row of a very large build of this version against one of ``size``, in seconds a component."""
    return [
        Row(
            "growth: CPU of this version a component, us",
            f"{store}, layered",
            tuple(one * 1e6 for one in small),
            tuple(one * 1e6 for one in large),
            _limit(size, _GROWTH),
            columns=(f"{size:,}", f"{size * LARGER:,}"),
        )
    ]


def instructions(store: Store, shape: Shape, before: Sequence[float], after: Sequence[float]) -> list[Row]:
    """Make the row of the instructions of a component."""
    return [
        Row(
            "instructions of the service a component, thousands",
            f"{store}, {shape}",
            tuple(one / 1e3 for one in before),
            tuple(one / 1e3 for one in after),
        )
    ]


def _limit(size: int, value: float, *, at_least: bool = False) -> Limit | None:
    """Return a target, which is only one for builds of `SIZE`."""
    return Limit(value, at_least) if size == SIZE else None
