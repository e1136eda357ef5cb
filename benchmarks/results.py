"""What was measured, the issue's targets, and both as a table and as JSON."""

import os
import platform
import subprocess
import textwrap
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median, quantiles

from attrs import field, frozen

from benchmarks.processes import nats_binary
from scheduler import __version__
from scheduler.generate import Shape

_WIDTH = 100


@frozen
class Round:
    """One block of builds and the bare loop before it."""

    bare: float
    """Messages a second of the bare loop."""
    walk: float
    """Components a second, from the acceptance of the build to its report."""
    total: float
    """Components a second, from the submission."""
    cpu: float
    """Seconds of CPU time that the service takes for a component."""
    accept: float
    """Seconds from the submission to the answer."""
    connector: float
    """The part of one core that the connector took during our builds."""
    bare_connector: float
    """The part of one core that the connector took during the bare loop."""


@frozen
class Point:
    """A shape and a size; figures are medians over the rounds."""

    shape: Shape
    size: int
    rounds: tuple[Round, ...]

    def median(self, name: str) -> float:
        """The median of one figure of the rounds."""
        return float(median(getattr(one, name) for one in self.rounds))

    @property
    def ratio(self) -> float:
        """Our components a second, from the acceptance, over the bare loop's messages."""
        return median(one.walk / one.bare for one in self.rounds)

    @property
    def total_ratio(self) -> float:
        """The same from the submission: with reading and checking the build."""
        return median(one.total / one.bare for one in self.rounds)


@frozen
class Spread:
    """Seconds, many times."""

    count: int
    p50: float
    p99: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """The spread of at least two values."""
        cuts = quantiles(values, n=100, method="inclusive")
        return cls(len(values), cuts[49], cuts[98], max(values))


@frozen
class Latencies:
    """Waits that somebody notices."""

    dependent: Spread
    """From a dependency's reply to its dependent's request, nothing else going on."""
    round_trip: Spread
    """From a message to its answer by a bare client, measured the same way."""
    alone: Spread
    """A build of one component, from submission to report."""
    beside: Spread
    """The same beside a large build, which is being read, runs, and is reported meanwhile."""
    beside_size: int


@frozen
class Memory:
    """Bytes of memory a waiting component, beyond its own JSON."""

    size: int
    first: float
    """In a process that had no large build before: with all that reading it took and did not give back."""
    further: float
    """For further builds beside the first."""


@frozen
class StartUp:
    """Seconds from the start of the process to its first answer to a ping; medians."""

    service: float
    embedded: float | None
    """With the embedded broker; None where it does not start."""


@frozen
class Machine:
    """What it was measured on."""

    cpu: str
    cores: int
    system: str
    load: float
    """The load average when the measurement began: other people's work."""
    python: str
    versions: dict[str, str]
    when: str

    @classmethod
    def this(cls) -> "Machine":
        """The machine that we run on."""
        names = ("trio", "trio-asyncio", "nats-py", "msgspec")
        server = subprocess.run([nats_binary(), "--version"], capture_output=True, check=True, timeout=10)
        return cls(
            _cpu_model(),
            len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 0,
            f"{platform.system()} {platform.release()}",
            os.getloadavg()[0],
            platform.python_version(),
            {
                "scheduler": __version__,
                **{name: version(name) for name in names},
                "nats-server": server.stdout.decode().split()[-1],
            },
            datetime.now(UTC).isoformat(timespec="seconds"),
        )


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


@frozen
class Target:
    """A number of the issue, and whether it is met."""

    name: str
    value: float
    limit: float
    at_least: bool

    @property
    def met(self) -> bool:
        """Whether it is."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit


@frozen
class Results:
    """All of one run."""

    machine: Machine
    points: tuple[Point, ...] = field(factory=tuple)
    latencies: Latencies | None = None
    memory: Memory | None = None
    start_up: StartUp | None = None

    def targets(self) -> list[Target]:
        """The issue's numbers, as far as their sizes were measured."""
        return list(self._targets())

    def _targets(self) -> Iterator[Target]:
        points = {(point.shape, point.size): point for point in self.points}
        for shape, floor in ((Shape.LAYERED, 0.10), (Shape.WIDE, 0.10), (Shape.CHAINS, 0.06)):
            large, small = points.get((shape, 10_000)), points.get((shape, 1_000))
            if large is None:
                continue
            yield Target(f"{shape}: of the bare loop", large.ratio, floor, at_least=True)
            if small is not None:
                growth = large.median("cpu") / small.median("cpu")
                yield Target(f"{shape}: cost at 10,000 / at 1,000", growth, 1.2, at_least=False)
        if self.memory is not None and self.memory.size == 10_000:
            name = "bytes a waiting component, beyond its JSON"
            yield Target(name, self.memory.first, 5_000, at_least=False)
        if self.latencies is not None and self.latencies.beside_size == 10_000:
            name = "ms of a one-component build beside 10,000, worst"
            yield Target(name, self.latencies.beside.max * 1_000, 100, at_least=False)

    def table(self) -> str:
        """Everything, for a person, in lines of 100 characters at most."""
        return "\n".join(line.rstrip() for line in self._lines())

    def _lines(self) -> Iterator[str]:
        machine = self.machine
        yield f"{machine.cpu}, {machine.cores} cores, {machine.system}, load {machine.load:.2f}"
        named = ", ".join(f"{name} {number}" for name, number in machine.versions.items())
        yield from textwrap.wrap(f"Python {machine.python}, {named}", _WIDTH)
        if self.points:
            yield ""
            yield "                components/s from   bare loop    ratio from   CPU us a  accept  connector"
            yield "shape      size  acceptance  submit        /s  accept. submit component      ms       busy"
        for point in self.points:
            rates = f"{point.median('walk'):>11,.0f} {point.median('total'):>7,.0f}"
            ratios = f"{point.median('bare'):>9,.0f} {point.ratio:>8.3f} {point.total_ratio:>6.3f}"
            costs = f"{point.median('cpu') * 1e6:>9.0f} {point.median('accept') * 1e3:>7.0f}"
            busy = f"{point.median('connector'):>10.0%}"
            yield f"{point.shape:<8} {point.size:>6,} {rates} {ratios} {costs} {busy}"
        if self.latencies is not None:
            yield ""
            yield "latency, ms                                             count     p50     p99     max"
            rows = {
                "a dependency's reply to its dependent's request": self.latencies.dependent,
                "the bare round trip, measured alike": self.latencies.round_trip,
                "a one-component build, alone": self.latencies.alone,
                f"the same beside a build of {self.latencies.beside_size:,}": self.latencies.beside,
            }
            for name, spread in rows.items():
                figures = " ".join(f"{value * 1e3:>7.2f}" for value in (spread.p50, spread.p99, spread.max))
                yield f"{name:<55} {spread.count:>5} {figures}"
        yield ""
        if self.memory is not None:
            yield (
                f"memory of a waiting component beyond its JSON, {self.memory.size:,} of them:"
                f" {self.memory.first:,.0f} bytes; in further builds {self.memory.further:,.0f}"
            )
        if self.start_up is not None:
            embedded = self.start_up.embedded
            shown = "failed" if embedded is None else f"{embedded:.2f} s"
            yield f"start-up: {self.start_up.service:.2f} s; with the embedded broker {shown}"
        for target in self.targets():
            sign = ">=" if target.at_least else "<="
            verdict = "met" if target.met else "NOT MET"
            value = f"{target.value:,.2f}" if target.limit < 50 else f"{target.value:,.0f}"
            yield f"{target.name:<55} {value:>8}  ({sign} {target.limit:,g})  {verdict}"
