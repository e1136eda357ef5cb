"""Measures the time of builds against its lower bound, with slow connectors.

A build cannot finish before its critical path, nor before the work under a limit is done by as many requests
as the limit allows. The larger of the two is the lower bound; the rest is due to the scheduler.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import Any, Final

from attrs import frozen

from benchmarks import builds
from benchmarks.client import Client, Times, run_elsewhere
from benchmarks.processes import Store
from benchmarks.results import Beside, Makespan, Spread
from benchmarks.stage import stage
from scheduler.definition.rules import parse_limits
from scheduler.local.generate import KINDS, PROVIDER, Shape

_LATENCY: Final = 0.5
"""Shortest time of a component, in seconds."""
_LOOK: Final = 0.5
"""Seconds between two questions for the time left."""
_SMALL: Final = 20
"""Components of a small build."""
LARGE: Final = 10_000
"""Components of the build beside which a small one runs."""
_PROBES: Final = 100
_AT_ONCE: Final = 8
"""Small builds at a time: few, so that they wait for the large build and not for each other."""
_FULL: Final = "*=500"
"""Largest number of requests in flight of the large build: it takes all slots."""
_numbers = count(1)


@frozen
class Vertex:
    """Component to be generated."""

    kind: str
    seconds: float
    needs: tuple[int, ...] = ()
    """Numbers of its dependencies, all of them smaller than its own."""


@frozen
class Case:
    """Shape of a build, with limits in the form of `SCHEDULER_LIMITS`."""

    name: str
    vertices: tuple[Vertex, ...]
    limits: str = ""

    @property
    def bound(self) -> float:
        """Lower bound of its time, in seconds."""
        ends: list[float] = []
        for vertex in self.vertices:
            ends.append(vertex.seconds + max((ends[need] for need in vertex.needs), default=0.0))
        work = [
            sum(one.seconds for one in self.vertices if rule.matches(f"{one.kind}.create.{PROVIDER}"))
            / rule.count
            for rule in parse_limits(self.limits)
            if rule.period is None
        ]
        return max(*ends, *work)

    def build(self) -> dict[str, Any]:
        """Make a build of this shape, with a new id."""
        ids = [f"{vertex.kind}::{number:05}" for number, vertex in enumerate(self.vertices)]
        edges = []
        for id_, vertex in zip(ids, self.vertices, strict=True):
            edges += [{"source": ids[need], "destination": id_} for need in vertex.needs]
        changes = [
            {
                "_component": vertex.kind,
                "_component_id": id_,
                "_action": "create",
                "_provider": PROVIDER,
                "_state": "waiting",
                "bench_seconds": vertex.seconds,
            }
            for id_, vertex in zip(ids, self.vertices, strict=True)
        ]
        return {
            "id": f"makespan-{self.name.replace(' ', '-')}-{next(_numbers)}",
            "action": builds.ACTION,
            "components": [],
            "changes": changes,
            "edges": edges,
        }


def _seconds(rng: random.Random) -> float:
    return _LATENCY * (1 + 2 * rng.random())


def _kind(number: int) -> str:
    return KINDS[number % len(KINDS)]


def _chains() -> Case:
    """Make twenty chains side by side."""
    rng = random.Random(0)
    return Case(
        "chains",
        tuple(Vertex(_kind(n), _seconds(rng), (n - 20,) if n >= 20 else ()) for n in range(20 * 20)),
    )


def _wide() -> Case:
    """Make a build without dependencies, of which fifty may run at a time, all in step."""
    return Case("wide", tuple(Vertex(_kind(n), 3 * _LATENCY) for n in range(500)), "*=50")


def _layered() -> Case:
    """Make twenty layers; each component depends on three of the layer before."""
    rng, width = random.Random(1), 50
    vertices = []
    for number in range(20 * width):
        start = number // width * width
        before = range(max(0, start - width), start)
        needs = tuple(rng.sample(before, min(3, len(before))))
        vertices.append(Vertex(_kind(number), _seconds(rng), needs))
    return Case("layered", tuple(vertices))


def _diamonds() -> Case:
    """Make one component, then a hundred that depend on it, then one that depends on all, and so on."""
    rng, vertices = random.Random(3), [Vertex("vpc", _LATENCY)]
    for _ in range(10):
        top = len(vertices) - 1
        vertices += [Vertex("network", _seconds(rng), (top,)) for _ in range(100)]
        vertices.append(Vertex("vpc", _LATENCY, tuple(range(top + 1, top + 101))))
    return Case("diamonds", tuple(vertices))


def _random() -> Case:
    """Make components with up to three dependencies among the three hundred before."""
    rng = random.Random(2)
    vertices = []
    for number in range(1_000):
        before = range(max(0, number - 300), number)
        needs = tuple(rng.sample(before, min(rng.randint(0, 3), len(before))))
        vertices.append(Vertex(_kind(number), _seconds(rng), needs))
    return Case("random", tuple(vertices))


def _skewed() -> Case:
    """Make a few slow chains under a narrow limit, among many quick components: both limits must be full.

    A scheduler that starts with the quick ones is left with the slow ones at the end.
    """
    slow = [Vertex("vpc", 12 * _LATENCY, (number - 16,) if number >= 16 else ()) for number in range(32)]
    quick = [Vertex("network", 3 * _LATENCY)] * 512
    return Case("skewed", (*slow, *quick), "*=40, vpc.create.*=8")


CASES: Final[Sequence[Callable[[], Case]]] = (_chains, _wide, _layered, _diamonds, _random, _skewed)


async def makespan(folder: Path, case: Case, repeat: int) -> Makespan:
    """Run builds of one shape, one after another, on a separate service."""
    settings = {"limits": case.limits} if case.limits else {}
    async with stage(folder, Store.JETSTREAM, settings) as on:
        await on.client.command("delay", seconds=_LATENCY)
        # From the first one it learns the durations.
        await on.client.run(case.build())
        runs = [await _watched(on.client, case.build()) for _ in range(repeat)]
    seconds = tuple(times.walk for times, _ in runs)
    eta = tuple(error for _, errors in runs for error in errors)
    return Makespan(case.name, len(case.vertices), case.limits, case.bound, seconds, eta)


async def _watched(client: Client, build: dict[str, Any]) -> tuple[Times, list[float]]:
    """Run a build, ask from time to time for its end, and return the errors of the answers."""
    submitted = await client.submit(build["id"], build["action"], builds.encode(build))
    said: list[tuple[float, float]] = []
    while not submitted.over:
        eta = await client.eta(build["id"])
        if eta is not None:
            said.append((perf_counter(), eta))
        await asyncio.sleep(_LOOK)
    times = await submitted.report()
    return times, [abs(at + eta - times.reported) / times.walk for at, eta in said]


async def beside(folder: Path, size: int = LARGE) -> Beside:
    """Run small builds alone, and beside one that takes every slot."""
    async with stage(folder, Store.JETSTREAM, {"limits": _FULL}) as on:
        await on.client.command("delay", seconds=_LATENCY)
        alone = await _probes(on.client, _PROBES)
        busy: list[Times] = []
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as elsewhere:
            while len(busy) < _PROBES:
                large = builds.make(Shape.WIDE, size, action=builds.BIG_ACTION)
                future = asyncio.wrap_future(elsewhere.submit(run_elsewhere, on.url, large))
                probes: list[Times] = []
                while not future.done():
                    probes += await _probes(on.client, _AT_ONCE)
                times = await future
                # The clock is the machine's, so times of two processes can be compared.
                busy += [
                    one for one in probes if one.submitted > times.accepted and one.reported < times.reported
                ]
    return Beside(
        Spread.of([one.total for one in alone]), Spread.of([one.total for one in busy]), _SMALL, size
    )


async def _probes(client: Client, times: int) -> list[Times]:
    """Run small builds, a few at a time, and none of them in step with another."""
    found: list[Times] = []
    left = iter(range(times))

    async def run(pause: float) -> None:
        await asyncio.sleep(pause)
        found.extend([await client.run(builds.make(Shape.LAYERED, _SMALL)) for _ in left])

    async with asyncio.TaskGroup() as group:
        for number in range(_AT_ONCE):
            group.create_task(run(number * _LATENCY / _AT_ONCE))
    return found
