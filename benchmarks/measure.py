"""The measurements, each on processes that are ready."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager
from itertools import cycle, islice
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, median
from time import perf_counter

import psutil  # type: ignore[import-untyped]
from attrs import frozen

from benchmarks import bare, builds
from benchmarks.client import Client, Times, connect, run_elsewhere
from benchmarks.processes import NotReadyError, connectors, embedded_service, nats_server, service
from benchmarks.results import Latencies, Memory, Point, Round, Spread, StartUp
from scheduler.generate import Shape

_BLOCK = 10_000
"""Components of a block: small builds are repeated until there are as many, within `_MOST_BUILDS`."""
_MOST_BUILDS = 20
_PROBES = 60
_MOST_LARGE_BUILDS = 20
_CHAIN = 500


@frozen
class Stage:
    """Everything that runs while something is measured."""

    url: str
    client: Client
    service: psutil.Process
    connector: psutil.Process


@asynccontextmanager
async def stage(folder: Path) -> AsyncIterator[Stage]:
    """A fresh nats-server, connector and service, warmed up by a small build of each shape."""
    with nats_server(folder) as url, connectors(url, folder) as connector, service(url, folder) as scheduler:
        async with connect(url) as client:
            await client.listen()
            await client.await_service()
            for shape in Shape:
                await client.run(builds.make(shape, 100))
            yield Stage(url, client, psutil.Process(scheduler), psutil.Process(connector))


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


async def throughput(on: Stage, shape: Shape, size: int, repeat: int) -> Point:
    """Blocks of builds and the bare loop in turn."""
    return Point(shape, size, tuple([await _round(on, shape, size) for _ in range(repeat)]))


async def _round(on: Stage, shape: Shape, size: int) -> Round:
    requests = list(islice(cycle(builds.requests(builds.make(shape, size))), 2 * _BLOCK))
    connector, began = _cpu(on.connector), perf_counter()
    rate = await bare.run_loop(on.client, requests)
    bare_connector = (_cpu(on.connector) - connector) / (perf_counter() - began)

    made = [builds.make(shape, size) for _ in range(min(_MOST_BUILDS, max(1, _BLOCK // size)))]
    cpu, connector, began = _cpu(on.service), _cpu(on.connector), perf_counter()
    times = [await on.client.run(build) for build in made]
    connector_share = (_cpu(on.connector) - connector) / (perf_counter() - began)
    # What follows a report (releasing the build's memory) is a part of the build's cost.
    await _until_idle(on.service)
    components = size * len(made)
    return Round(
        bare=rate,
        walk=components / sum(one.walk for one in times),
        total=components / sum(one.total for one in times),
        cpu=(_cpu(on.service) - cpu) / components,
        accept=mean(one.accept for one in times),
        connector=connector_share,
        bare_connector=bare_connector,
    )


async def _until_idle(process: psutil.Process) -> None:
    """Wait until a process has had nothing to do for a quarter of a second, but not for ever."""
    deadline = perf_counter() + 10
    before, now = -1.0, _cpu(process)
    while before != now and perf_counter() < deadline:
        await asyncio.sleep(0.25)
        before, now = now, _cpu(process)


async def latencies(on: Stage, size: int, repeat: int) -> Latencies:
    """Waits along a chain, and of a small build alone and beside a large one."""
    chain = builds.make_chain(_CHAIN)
    body = max((body for _, body in builds.requests(chain)), key=len)
    dependent: list[float] = []
    round_trip: list[float] = []
    for _ in range(repeat):
        round_trip += await bare.round_trips(on.client, _CHAIN, body)
        await on.client.order("trace")
        await on.client.run({**chain, "id": builds.make(Shape.WIDE, 1)["id"]})
        dependent += await on.client.order("latencies")
    alone = [await _probe(on.client) for _ in range(_PROBES)]
    beside: list[Times] = []
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as elsewhere:
        for number in range(_MOST_LARGE_BUILDS):
            if number >= repeat and len(beside) >= _PROBES:
                break
            beside += await _beside(on, elsewhere, size)
    return Latencies(
        Spread.of(dependent),
        Spread.of(round_trip),
        Spread.of([one.total for one in alone]),
        Spread.of([one.total for one in beside]),
        size,
    )


async def _probe(client: Client) -> Times:
    return await client.run(builds.make(Shape.WIDE, 1))


async def _beside(on: Stage, elsewhere: ProcessPoolExecutor, size: int) -> list[Times]:
    """Small builds, one after another, from before a large one is submitted until it is reported."""
    large = builds.make(Shape.LAYERED, size, action=builds.BIG_ACTION)
    future = asyncio.wrap_future(elsewhere.submit(run_elsewhere, on.url, large))
    probes = []
    while not future.done():
        probes.append(await _probe(on.client))
    times = await future
    # The clock is the machine's: times of two processes compare.
    return [one for one in probes if one.reported > times.submitted and one.submitted < times.reported]


async def memory(on: Stage, size: int) -> Memory:
    """Bytes a component of builds whose first component is held back, so that all others wait for it."""
    await on.client.order("hold", text=f'"_component_id":"{builds.SINGLE[0]}"')
    held = [builds.make(Shape.WIDE, size) for _ in range(3)]
    json = sum(len(builds.encode(change)) for change in held[0]["changes"]) / size
    grown = [on.service.memory_info().rss]
    waiting = []
    for number, build in enumerate(held, 1):
        waiting.append(await on.client.submit(build["id"], build["action"], builds.encode(build)))
        await on.client.order("await held", count=number)
        await _until_idle(on.service)
        grown.append(on.service.memory_info().rss)
    await on.client.order("release")
    for one in waiting:
        await one.report()
    return Memory(size, (grown[1] - grown[0]) / size - json, (grown[3] - grown[1]) / (2 * size) - json)


async def start_up(folder: Path, repeat: int) -> StartUp:
    """Spawn to first answer: on a broker that is there, and with one of its own."""
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
