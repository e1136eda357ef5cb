"""Starts and warms up the processes of a measurement."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from time import perf_counter

import psutil  # type: ignore[import-untyped]
from attrs import frozen

from benchmarks import builds
from benchmarks.client import Client, connect
from benchmarks.processes import (
    NO_SETTINGS,
    THIS,
    Installation,
    Store,
    connectors,
    log_in,
    nats_server,
    service,
)
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
    with nats_server(folder, jetstream=jetstream) as url, connectors([url], folder) as process:
        async with _connected(url, folder, process) as on:
            yield on


@asynccontextmanager
async def grounds(
    folder: Path, accounts: Sequence[str], store: Store = Store.MEMORY
) -> AsyncIterator[list[Ground]]:
    """Start one fresh broker and one connector for several grounds, each in an account of its own."""
    jetstream = store is Store.JETSTREAM
    async with AsyncExitStack() as stack:
        url = stack.enter_context(nats_server(folder, jetstream=jetstream, accounts=accounts))
        urls = {account: log_in(url, account) for account in accounts}
        process = stack.enter_context(connectors(list(urls.values()), folder))
        found = []
        for account, own in urls.items():
            (folder / account).mkdir()
            found.append(await stack.enter_async_context(_connected(own, folder / account, process)))
        yield found


@asynccontextmanager
async def _connected(url: str, folder: Path, connector: int) -> AsyncIterator[Ground]:
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
        # The store's streams capture all replies, so the bare loop has a broker without streams.
        plain = on if store is Store.MEMORY else await stack.enter_async_context(ground(folder / "bare"))
        yield await stack.enter_async_context(staged(on, plain, store, settings))


@asynccontextmanager
async def staged(
    on: Ground,
    bare: Ground,
    store: Store,
    settings: Mapping[str, str] = NO_SETTINGS,
    installation: Installation = THIS,
) -> AsyncIterator[Stage]:
    """Start a service on a ground, and warm it up."""
    with service(on.url, on.folder, store=store, settings=settings, installation=installation) as scheduler:
        await on.client.await_service()
        for shape in Shape:
            await on.client.run(builds.make(shape, 100))
        yield Stage(on.url, on.client, psutil.Process(scheduler), on.connector, store, bare)


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
