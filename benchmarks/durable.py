"""Measures restarts with the durable store, and its cost beside throughput."""

import asyncio
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

import psutil  # type: ignore[import-untyped]

from benchmarks import builds, logs
from benchmarks.client import Submitted
from benchmarks.measure import CHAIN, along_a_chain, small_builds
from benchmarks.processes import THIS, Installation, Store, service
from benchmarks.results import Durable, Restart, Spread
from benchmarks.stage import Ground, Stage, cpu_time, ground, stage, until_idle
from scheduler.local.generate import Shape

_IN_FLIGHT = 500
"""Requests of one build that a service has in flight by default."""
_IDLE = 10.0
LEAST = 1_000
"""Components of the smallest build for measuring a restart."""


async def latencies(on: Stage, repeat: int) -> tuple[Spread, Spread]:
    """Measure latencies from a dependency's reply to its dependent's request, and of one-component builds."""
    dependent, _ = await along_a_chain(on.client, repeat)
    alone = await small_builds(on.client)
    return Spread.of(dependent), Spread.of([one.total for one in alone])


async def commits_a_step(on: Stage) -> float:
    """Measure the commits per component of a chain."""
    chain = builds.make_chain(CHAIN)
    await on.client.run(chain)
    return (await logs.measure(on.client, chain["id"])).records / CHAIN


async def idle(on: Stage) -> float:
    """Measure the share of a core that an idle service takes."""
    await until_idle(on.service)
    cpu = cpu_time(on.service)
    await asyncio.sleep(_IDLE)
    return (cpu_time(on.service) - cpu) / _IDLE


async def restart(folder: Path, size: int, installation: Installation = THIS) -> Restart:
    """Kill a service in the middle of a build, and measure how long the next one takes to resume it.

    A quarter of the components has completed, as many requests as allowed are in flight, and the others wait.
    The replies come while no service runs. The next process has to find the build, to read its log and those
    replies, and to persist the results, before its first request leaves.
    """
    async with ground(folder, Store.JETSTREAM) as on:
        await on.client.command("answer", count=size // 4)
        build = builds.make(Shape.WIDE, size)
        with service(on.url, folder, store=Store.JETSTREAM, installation=installation) as killed:
            await on.client.await_service()
            submitted = await on.client.submit(build["id"], build["action"], builds.encode(build))
            await on.client.command("await held", count=_IN_FLIGHT)
            await until_idle(psutil.Process(killed))
            os.kill(killed, signal.SIGKILL)
        await on.client.command("release")
        await on.client.command("trace")
        return await _go_on(on, size, submitted, installation)


async def _go_on(on: Ground, size: int, submitted: Submitted, installation: Installation) -> Restart:
    began = perf_counter()
    with service(on.url, on.folder, store=Store.JETSTREAM, installation=installation):
        ready = await on.client.await_service() - began
        first = await on.client.command("first request") - began
        # In the end all of it is done.
        times = await submitted.report()
        return Restart(size, ready, first, times.reported - began)


async def measure(folder: Path, repeat: int, sizes: Sequence[int]) -> Durable:
    """Measure all of it, on separate processes."""
    async with stage(folder / "stage", Store.JETSTREAM) as on:
        dependent, alone = await latencies(on, repeat)
        commits = await commits_a_step(on)
        resting = await idle(on)
    restarts = []
    for size in sizes:
        found = [await restart(folder / f"restart-{size}-{number}", size) for number in range(repeat)]
        restarts.append(sorted(found, key=lambda one: one.request)[len(found) // 2])
    return Durable(dependent, alone, commits, resting, tuple(restarts))
