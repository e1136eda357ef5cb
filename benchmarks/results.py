"""Results of a run, and the targets that they have to meet."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import median, quantiles

from attrs import field, frozen

from benchmarks.hostile.judging import Ordeal
from benchmarks.machine import Machine
from benchmarks.processes import Store
from benchmarks.profiling.shares import Profile
from scheduler.local.generate import Shape


@frozen
class Round:
    """Block of builds, with the bare loop before it."""

    bare: float
    """Messages per second of the bare loop."""
    walk: float
    """Components per second, from the acceptance of the build to its report."""
    total: float
    """Components per second, from the submission."""
    cpu: float
    """CPU time of the service for a component, in seconds."""
    accept: float
    """Time from the submission to the answer, in seconds."""
    connector: float
    """Share of one core of the connector during our builds."""
    bare_connector: float
    """Share of one core of the connector during the bare loop."""
    commits: float = 0.0
    """Commits per second from the acceptance of the build to its report, if the store has any."""
    events: float = 0.0
    """Events per commit."""


@frozen
class Point:
    """Shape and size of builds, with medians of their figures over all rounds."""

    shape: Shape
    size: int
    rounds: tuple[Round, ...]
    store: Store = Store.MEMORY

    def median(self, name: str) -> float:
        """Return the median of one figure over all rounds."""
        return float(median(getattr(one, name) for one in self.rounds))

    @property
    def ratio(self) -> float:
        """Ratio of components per second, from the acceptance, to the bare loop's messages."""
        return median(one.walk / one.bare for one in self.rounds)

    @property
    def total_ratio(self) -> float:
        """Ratio from the submission, which includes reading and checking the build."""
        return median(one.total / one.bare for one in self.rounds)


@frozen
class Spread:
    """Distribution of a time, in seconds."""

    count: int
    p50: float
    p99: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Compute the distribution of at least two values."""
        cuts = quantiles(values, n=100, method="inclusive")
        return cls(len(values), cuts[49], cuts[98], max(values))


@frozen
class Latencies:
    """Latencies that a user notices."""

    dependent: Spread
    """Time from a dependency's reply to its dependent's request, without other work."""
    round_trip: Spread
    """Time from a message to its answer by a bare client, measured in the same way."""
    alone: Spread
    """Time of a build of one component, from submission to report."""
    beside: Spread
    """Time of such a build beside a large one, which is read, run and reported meanwhile."""
    beside_size: int


@frozen
class Memory:
    """Memory of a waiting component beyond its own JSON, in bytes."""

    size: int
    first: float
    """Memory in a process without a large build before: it includes unreturned memory of the reading."""
    further: float
    """Memory of further builds beside the first."""


@frozen
class Steady:
    """Steady state: resident memory of a service over many builds, one after another."""

    store: Store
    size: int
    """Components of each."""
    early: int
    late: int
    """Numbers of builds after which it was measured."""
    before: int
    """Bytes after the first builds."""
    after: int
    """Bytes after all builds."""
    collection: float | None
    """Longest garbage collection above 10 ms, in seconds; None if there was none."""

    @property
    def grown(self) -> float:
        """Growth, in MiB."""
        return (self.after - self.before) / 2**20


@frozen
class Collections:
    """Times of garbage collections that find nothing, in seconds."""

    size: int
    """Components of the build that runs during the forced one."""
    start: float
    """Collection before the first build."""
    idle: float
    """Collection while the service is idle."""
    forced: float
    """Collection of everything: only if memory grows that no build explains, at most once in ten minutes."""


@frozen
class StartUp:
    """Median times from the start of the process to its first answer to a ping, in seconds."""

    service: float
    embedded: float | None
    """Time with the embedded broker; None if it does not start."""


@frozen
class Commands:
    """Median CPU times of a command's start, in seconds."""

    baseline: float
    """Time to load the libraries that every asking command needs."""
    seconds: Mapping[str, float]
    """Time of each command to its end, or until it connects."""

    def ratio(self, command: str) -> float:
        """Return the ratio of a command to the baseline."""
        return self.seconds[command] / self.baseline


@frozen
class Growth:
    """Growth of cost from a large build to a very large one."""

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
    """CPU time for a component in a build of 10,000, in seconds."""
    peak: int
    """Largest memory of the service, in bytes."""

    @property
    def ratio(self) -> float:
        """Ratio of the costs of a component."""
        return self.cpu / self.against


@frozen
class Restart:
    """Times from the start of a process after one that was killed in the middle of a build, in seconds."""

    size: int
    ready: float
    """Time to its first answer to a ping."""
    request: float
    """Time to its first request of that build."""
    report: float
    """Time to the build's report."""


@frozen
class Durable:
    """Cost of the durable store beside throughput, and its restarts."""

    dependent: Spread
    """Time from a dependency's reply to its dependent's request, without other work."""
    alone: Spread
    """A build of one component, from submission to report."""
    commits: float
    """Commits per component of a chain."""
    idle: float
    """Share of one core of an idle service."""
    restarts: tuple[Restart, ...]


@frozen
class Makespan:
    """Makespan of builds of one shape with connectors that take half a second and more."""

    shape: str
    size: int
    limits: str
    """Limits, in the form of ``SCHEDULER_LIMITS``."""
    bound: float
    """Lower bound in seconds: the critical path, or the work under a limit divided by the limit."""
    seconds: tuple[float, ...]
    """Time from the acceptance of each build to its report, in seconds."""
    eta: tuple[float, ...]
    """Errors of the predicted times left, as shares of the whole duration."""

    @property
    def ratio(self) -> float:
        """Ratio of the median to the bound."""
        return median(self.seconds) / self.bound


@frozen
class Beside:
    """Time of a small build with connectors that take half a second, from submission to report."""

    alone: Spread
    beside: Spread
    """Time beside a large build that has all slots."""
    size: int
    beside_size: int

    @property
    def ratio(self) -> float:
        """Ratio of the times at the 99th percentile."""
        return self.beside.p99 / self.alone.p99


@frozen
class Target:
    """Target for a number."""

    name: str
    value: float
    limit: float
    at_least: bool

    @property
    def met(self) -> bool:
        """Whether the target is met."""
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
    """Results of one run."""

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
    profiles: tuple[Profile, ...] = field(factory=tuple)

    def targets(self) -> list[Target]:
        """Yield the targets whose sizes were measured."""
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
