"""What was measured, and what it is to be at least."""

import os
import platform
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median, quantiles

from attrs import field, frozen

from benchmarks.hostile.judging import Ordeal
from benchmarks.processes import Store, nats_binary
from scheduler import __version__
from scheduler.local.generate import Shape


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
    commits: float = 0.0
    """Commits a second from the acceptance of the build to its report, where the store has any."""
    events: float = 0.0
    """Events in one commit."""


@frozen
class Point:
    """A shape and a size; figures are medians over the rounds."""

    shape: Shape
    size: int
    rounds: tuple[Round, ...]
    store: Store = Store.MEMORY

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
class Steady:
    """Resident memory of a service over many builds, one after another."""

    store: Store
    size: int
    """Components of each."""
    early: int
    late: int
    """Builds after which it was looked at."""
    before: int
    """Bytes, after the first builds."""
    after: int
    """Bytes, after all of them."""
    collection: float | None
    """Seconds of the longest collection of garbage above 10 ms; None where there was none."""

    @property
    def grown(self) -> float:
        """MiB that it has grown by."""
        return (self.after - self.before) / 2**20


@frozen
class Collections:
    """Seconds of a collection of garbage, with nothing to be found."""

    size: int
    """Components of a build that is there during the last one."""
    start: float
    """Before the first build is taken."""
    idle: float
    """While nothing is to be done."""
    forced: float
    """Over everything: only where memory grows that no build explains, and once in ten minutes at most."""


@frozen
class StartUp:
    """Seconds from the start of the process to its first answer to a ping; medians."""

    service: float
    embedded: float | None
    """With the embedded broker; None where it does not start."""


@frozen
class Commands:
    """What commands take to start; medians of seconds of CPU."""

    baseline: float
    """To load the libraries that no command which asks can do without."""
    seconds: Mapping[str, float]
    """By command, to its end, or to where it connects."""

    def ratio(self, command: str) -> float:
        """Of a command to the baseline."""
        return self.seconds[command] / self.baseline


@frozen
class Growth:
    """A very large build against a large one."""

    shape: Shape
    store: Store
    size: int
    walk: float
    """Components a second, from the acceptance of the build to its report."""
    accept: float
    """Seconds from the submission to the answer."""
    cpu: float
    """Seconds of CPU time that the service takes for a component."""
    against: float
    """The same in a build of 10,000."""
    peak: int
    """The most bytes of memory that the service had."""

    @property
    def ratio(self) -> float:
        """How many times as much a component costs."""
        return self.cpu / self.against


@frozen
class Restart:
    """Seconds from the start of a process after one that was killed in the middle of a build."""

    size: int
    ready: float
    """To its first answer to a ping."""
    request: float
    """To the first request that it sends for that build."""
    report: float
    """To the build's report."""


@frozen
class Durable:
    """What the durable store costs beside throughput, and what it is for."""

    dependent: Spread
    """From a dependency's reply to its dependent's request, nothing else going on."""
    alone: Spread
    """A build of one component, from submission to report."""
    commits: float
    """Commits for each component of a chain."""
    idle: float
    """The part of one core that a service takes that has nothing to do."""
    restarts: tuple[Restart, ...]


@frozen
class Makespan:
    """Builds of one shape with connectors that take half a second and more."""

    shape: str
    size: int
    limits: str
    """As in ``SCHEDULER_LIMITS``."""
    bound: float
    """Seconds: the critical path, or the work under a limit over the limit."""
    seconds: tuple[float, ...]
    """From the acceptance of each build to its report."""
    eta: tuple[float, ...]
    """How far the times left that were asked for on the way were off, as shares of the whole duration."""

    @property
    def ratio(self) -> float:
        """The median over the bound."""
        return median(self.seconds) / self.bound


@frozen
class Beside:
    """A small build with connectors that take half a second, from submission to report."""

    alone: Spread
    beside: Spread
    """While a large build has all the slots that there are."""
    size: int
    beside_size: int

    @property
    def ratio(self) -> float:
        """How many times as long it takes, at the 99th percentile."""
        return self.beside.p99 / self.alone.p99


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
    """A number that is asked for, and whether it is met."""

    name: str
    value: float
    limit: float
    at_least: bool

    @property
    def met(self) -> bool:
        """Whether it is."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit


_FLOORS = {
    (Store.MEMORY, Shape.LAYERED): 0.10,
    (Store.MEMORY, Shape.WIDE): 0.10,
    (Store.MEMORY, Shape.CHAINS): 0.06,
    (Store.JETSTREAM, Shape.LAYERED): 0.06,
    (Store.JETSTREAM, Shape.WIDE): 0.06,
    (Store.JETSTREAM, Shape.CHAINS): 0.04,
}
_RESTARTS = {1_000: 2.0, 10_000: 5.0}


@frozen
class Results:
    """All of one run."""

    machine: Machine
    points: tuple[Point, ...] = field(factory=tuple)
    latencies: Latencies | None = None
    memory: Memory | None = None
    steady: tuple[Steady, ...] = field(factory=tuple)
    collections: Collections | None = None
    start_up: StartUp | None = None
    commands: Commands | None = None
    durable: Durable | None = None
    growth: tuple[Growth, ...] = field(factory=tuple)
    makespans: tuple[Makespan, ...] = field(factory=tuple)
    beside: Beside | None = None
    hostile: tuple[Ordeal, ...] = field(factory=tuple)

    def targets(self) -> list[Target]:
        """The numbers that are asked for, as far as their sizes were measured."""
        return list(self._targets())

    def _targets(self) -> Iterator[Target]:
        points = {(point.store, point.shape, point.size): point for point in self.points}
        for (store, shape), floor in _FLOORS.items():
            large, small = points.get((store, shape, 10_000)), points.get((store, shape, 1_000))
            if large is None:
                continue
            yield Target(f"{store}, {shape}: of the bare loop", large.ratio, floor, at_least=True)
            if small is not None and store is Store.MEMORY:
                growth = large.median("cpu") / small.median("cpu")
                yield Target(f"{store}, {shape}: cost at 10,000 / at 1,000", growth, 1.2, at_least=False)
        for grown in self.growth:
            name = f"{grown.store}, {grown.shape}: cost at {grown.size:,} / at 10,000"
            yield Target(name, grown.ratio, 1.3, at_least=False)
        for restart in self.durable.restarts if self.durable is not None else ():
            if restart.size in _RESTARTS:
                name = f"s from start to first request, build of {restart.size:,}"
                yield Target(name, restart.request, _RESTARTS[restart.size], at_least=False)
        if self.commands is not None:
            name = "CPU of `scheduler status` until it connects / bare"
            yield Target(name, self.commands.ratio("status"), 1.5, at_least=False)
        for one in self.makespans:
            yield Target(f"{one.shape}: makespan over its lower bound", one.ratio, 1.02, at_least=False)
        if self.beside is not None:
            name = f"p99 of {self.beside.size} components beside {self.beside.beside_size:,} over alone"
            yield Target(name, self.beside.ratio, 1.5, at_least=False)
        for steady in self.steady:
            name = f"{steady.store}: MiB grown from build {steady.early} to build {steady.late}"
            yield Target(name, steady.grown, 5.0, at_least=False)
        if self.memory is not None and self.memory.size == 10_000:
            name = "bytes a waiting component, beyond its JSON"
            yield Target(name, self.memory.first, 5_000, at_least=False)
        if self.latencies is not None and self.latencies.beside_size == 10_000:
            name = "ms of a one-component build beside 10,000, worst"
            yield Target(name, self.latencies.beside.max * 1_000, 100, at_least=False)
