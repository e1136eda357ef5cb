"""Measurements, each on processes that are ready."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import cycle, islice
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, median
from time import perf_counter
from typing import Any

import psutil  # type: ignore[import-untyped]

from benchmarks import bare, builds, logs
from benchmarks.client import Client, Times, connect, run_elsewhere
from benchmarks.processes import NotReadyError, Store, embedded_service, nats_server, service
from benchmarks.results import Growth, Latencies, Memory, Point, Round, Spread, StartUp
from benchmarks.stage import Stage, cpu_time, until_idle
from scheduler.local.generate import Shape

BLOCK = 10_000
"""Components of a block: small builds are repeated to reach this number, up to `_MOST_BUILDS`."""
_MOST_BUILDS = 20
PROBES = 60
MOST_LARGE_BUILDS = 20
CHAIN = 500
"""Components of the chain for measuring latencies."""


LARGE = 100_000
"""Components of a very large build."""
_AGAINST = 10_000
_AGAINST_BUILDS = 3
LARGE_LIMITS = {"max_changes": "100000", "max_edges": "1000000", "max_template_nodes": "1000000"}
"""Settings of a service that accepts builds of `LARGE`."""
_LOOK = 0.05
"""Seconds between two measurements of a process's memory."""


async def throughput(on: Stage, shape: Shape, size: int, repeat: int) -> Point:
    """Measure blocks of builds and the bare loop in turn."""
    return Point(shape, size, tuple([await block(on, shape, size) for _ in range(repeat)]), on.store)


async def block(on: Stage, shape: Shape, size: int, components: int = BLOCK) -> Round:
    """Measure the bare loop, and then a block of so many components, or of one build if that has more."""
    requests = list(islice(cycle(builds.requests(builds.make(shape, size))), 2 * components))
    connector, began = cpu_time(on.bare.connector), perf_counter()
    rate = await bare.run_loop(on.bare.client, requests)
    bare_connector = (cpu_time(on.bare.connector) - connector) / (perf_counter() - began)

    made = [builds.make(shape, size) for _ in range(min(_MOST_BUILDS, max(1, components // size)))]
    connector, began = cpu_time(on.connector), perf_counter()
    times, cpu = await run_all(on, made)
    connector_share = (cpu_time(on.connector) - connector) / (perf_counter() - began)
    done = size * len(made)
    walk = sum(one.walk for one in times)
    written = [await logs.measure(on.client, build["id"]) for build in made if on.store is Store.JETSTREAM]
    records = sum(log.records for log in written)
    return Round(
        bare=rate,
        walk=done / walk,
        total=done / sum(one.total for one in times),
        cpu=cpu / done,
        accept=mean(one.accept for one in times),
        connector=connector_share,
        bare_connector=bare_connector,
        commits=records / walk,
        events=sum(log.events for log in written) / records if records else 0.0,
    )


async def run_all(on: Stage, made: Sequence[dict[str, Any]]) -> tuple[list[Times], float]:
    """Run builds one after another; return them, and the service's CPU time for all of them in seconds."""
    cpu = cpu_time(on.service)
    times = [await on.client.run(build) for build in made]
    # Work after a report, such as freeing the build's memory, is part of the build's cost.
    await until_idle(on.service)
    return times, cpu_time(on.service) - cpu


async def growth(on: Stage, shape: Shape) -> Growth:
    """Measure the cost of a component in a very large build, against a large one; see `LARGE_LIMITS`."""
    before = [(await run_all(on, [builds.make(shape, _AGAINST)]))[1] for _ in range(_AGAINST_BUILDS)]
    build = builds.make(shape, LARGE)
    over = asyncio.Event()
    watching = asyncio.create_task(_peak(on.service, over))
    (times,), cpu = await run_all(on, [build])
    over.set()
    return Growth(
        shape,
        on.store,
        LARGE,
        walk=LARGE / times.walk,
        accept=times.accept,
        cpu=cpu / LARGE,
        against=median(before) / _AGAINST,
        peak=await watching,
    )


async def _peak(process: psutil.Process, over: asyncio.Event) -> int:
    """Measure a process's largest memory, in bytes, until a job has ended."""
    most = 0
    while not over.is_set():
        most = max(most, process.memory_info().rss)
        await asyncio.sleep(_LOOK)
    return most


async def latencies(on: Stage, size: int, repeat: int) -> Latencies:
    """Measure latencies along a chain, and of a small build alone and beside a large one."""
    dependent, round_trip = await along_a_chain(on.client, repeat)
    alone = await small_builds(on.client)
    beside: list[Times] = []
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as elsewhere:
        for number in range(MOST_LARGE_BUILDS):
            if number >= repeat and len(beside) >= PROBES:
                break
            beside += await run_beside(on, elsewhere, size)
    return Latencies(
        Spread.of(dependent),
        Spread.of(round_trip),
        Spread.of([one.total for one in alone]),
        Spread.of([one.total for one in beside]),
        size,
    )


async def along_a_chain(client: Client, repeat: int) -> tuple[list[float], list[float]]:
    """Measure seconds from a dependency's reply to its dependent's request, and of the bare round trip."""
    chain = builds.make_chain(CHAIN)
    body = max((body for _, body in builds.requests(chain)), key=len)
    dependent: list[float] = []
    round_trip: list[float] = []
    for _ in range(repeat):
        round_trip += await bare.round_trips(client, CHAIN, body)
        await client.command("trace")
        await client.run({**chain, "id": builds.make(Shape.WIDE, 1)["id"]})
        dependent += await client.command("latencies")
    return dependent, round_trip


async def small_builds(client: Client) -> list[Times]:
    """Run builds of one component, one after another."""
    return [await _probe(client) for _ in range(PROBES)]


async def _probe(client: Client) -> Times:
    return await client.run(builds.make(Shape.WIDE, 1))


async def run_beside(on: Stage, elsewhere: ProcessPoolExecutor, size: int) -> list[Times]:
    """Run small builds one after another, from before a large one is submitted until it is reported."""
    large = builds.make(Shape.LAYERED, size, action=builds.BIG_ACTION)
    future = asyncio.wrap_future(elsewhere.submit(run_elsewhere, on.url, large))
    probes = []
    while not future.done():
        probes.append(await _probe(on.client))
    times = await future
    # The clock is the machine's, so times of two processes can be compared.
    return [one for one in probes if one.reported > times.submitted and one.submitted < times.reported]


async def memory(on: Stage, size: int) -> Memory:
    """Measure bytes per component of builds whose first component is held, so that all others wait."""
    await on.client.command("hold", text=f'"_component_id":"{builds.SINGLE[0]}"')
    held = [builds.make(Shape.WIDE, size) for _ in range(3)]
    json = sum(len(builds.encode(change)) for change in held[0]["changes"]) / size
    grown = [on.service.memory_info().rss]
    waiting = []
    for number, build in enumerate(held, 1):
        waiting.append(await on.client.submit(build["id"], build["action"], builds.encode(build)))
        await on.client.command("await held", count=number)
        await until_idle(on.service)
        grown.append(on.service.memory_info().rss)
    await on.client.command("release")
    for one in waiting:
        await one.report()
    return Memory(size, (grown[1] - grown[0]) / size - json, (grown[3] - grown[1]) / (2 * size) - json)


async def start_up(folder: Path, repeat: int) -> StartUp:
    """Measure the time from start to first answer, with a running broker and with an embedded one."""
    plain = []
    with nats_server(folder) as url:
        async with connect(url) as client:
            for _ in range(repeat):
                began = perf_counter()
                with service(url, folder):
                    plain.append(await client.await_service() - began)
    own = []
    for _ in range(repeat):
        began = perf_counter()
        try:
            with embedded_service(folder) as url:
                async with connect(url) as client:
                    own.append(await client.await_service() - began)
        except NotReadyError:
            break
    return StartUp(median(plain), median(own) if own else None)
