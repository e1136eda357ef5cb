"""Starts and warms up the processes of a measurement."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from time import perf_counter

import psutil  # type: ignore[import-untyped]
from attrs import frozen

from benchmarks import builds
from benchmarks.client import Client, connect
from benchmarks.processes import NO_SETTINGS, Store, connectors, nats_server, service
from scheduler.local.generate import Shape


@frozen
class Ground:
    """Ground of a service: a broker, a connector and a client."""

    url: str
    folder: Path
    client: Client
    connector: psutil.Process


@asynccontextmanager
async def ground(folder: Path, store: Store = Store.MEMORY) -> AsyncIterator[Ground]:
    """Start fresh ones; the broker is set up for services with this store."""
    jetstream = store is Store.JETSTREAM
    with nats_server(folder, jetstream=jetstream) as url, connectors(url, folder) as connector:
        async with connect(url) as client:
            await client.listen()
            yield Ground(url, folder, client, psutil.Process(connector))


@frozen
class Stage:
    """Stage of a measurement: all processes that run meanwhile."""

    url: str
    client: Client
    service: psutil.Process
    connector: psutil.Process
    store: Store
    bare: Ground
    """Ground of the bare loop."""


@asynccontextmanager
async def stage(
    folder: Path, store: Store = Store.MEMORY, settings: Mapping[str, str] = NO_SETTINGS
) -> AsyncIterator[Stage]:
    """Start a fresh nats-server, connector and service, and warm them up with a small build of each shape."""
    async with AsyncExitStack() as stack:
        on = await stack.enter_async_context(ground(folder, store))
        scheduler = stack.enter_context(service(on.url, folder, store=store, settings=settings))
        await on.client.await_service()
        for shape in Shape:
            await on.client.run(builds.make(shape, 100))
        # The store's streams capture all replies, so the bare loop has a broker without streams.
        plain = on if store is Store.MEMORY else await stack.enter_async_context(ground(folder / "bare"))
        yield Stage(on.url, on.client, psutil.Process(scheduler), on.connector, store, plain)


def cpu_time(process: psutil.Process) -> float:
    """Return the CPU time of a process, in seconds."""
    times = process.cpu_times()
    return float(times.user + times.system)


async def until_idle(process: psutil.Process) -> None:
    """Wait until a process has been idle for a quarter of a second, but not for ever."""
    deadline = perf_counter() + 10
    before, now = -1.0, cpu_time(process)
    while before != now and perf_counter() < deadline:
        await asyncio.sleep(0.25)
        before, now = now, cpu_time(process)
