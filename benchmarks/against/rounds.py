"""Measures both versions in turn, a build of one and a build of the other; each round the other one first.

Both services run all the time, and one of them at a time has work. They share a broker and a connector's
process, but not an account: in one account the queue groups would share the builds out, and an older version
may want streams of another form. The bare loop has the third account. A measurement that needs a fresh
service starts both anew; that of a restart has a fresh broker as well, since builds of earlier rounds would
be in its log.
"""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Container, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, median
from time import perf_counter
from typing import TypeVar

from attrs import evolve, frozen

from benchmarks import builds, durable, measure
from benchmarks.against import rows
from benchmarks.against.rows import Comparison, Contest, Latency, Part, Planned, Row
from benchmarks.against.versions import Version
from benchmarks.instructions import count
from benchmarks.machine import Machine
from benchmarks.processes import Installation, Store, scratch
from benchmarks.results import Round, Spread
from benchmarks.stage import Ground, Stage, grounds, stage, staged
from scheduler.local.generate import Shape

_T = TypeVar("_T")
_S = TypeVar("_S")
_ACCOUNTS = ("before", "after", "bare")


@frozen
class Arrangement:
    """What is compared, and how often."""

    before: Version
    after: Version
    stores: Sequence[Store]
    shapes: Sequence[Shape]
    sizes: Sequence[int]
    """Components of builds, smallest first."""
    repeat: int
    """Rounds."""
    block: int
    """Components of a block: smaller builds are repeated."""
    progress: Callable[[str], None]
    """Called with what is measured next."""

    @property
    def size(self) -> int:
        """Components of the largest builds."""
        return self.sizes[-1]


async def contests(of: Arrangement) -> list[Contest]:
    """Measure builds of all shapes and sizes with each store."""
    found = []
    for store in of.stores:
        with scratch() as folder:
            async with _ready(folder, of, store) as both:
                for shape in of.shapes:
                    for size in of.sizes:
                        of.progress(f"{store}, {shape} {size:,}")

                        async def block(on: Stage, shape: Shape = shape, size: int = size) -> Round:
                            return await measure.block(on, shape, size, of.block)

                        before, after = await in_turn(of.repeat, both, block)
                        found.append(Contest(store, shape, size, before, after))
    return found


async def latency(of: Arrangement) -> list[Row]:
    """Measure the latencies that a user notices."""
    of.progress("latencies")
    with scratch() as folder, ProcessPoolExecutor(1, mp_context=get_context("spawn")) as elsewhere:

        async def latencies(on: Stage) -> Latency:
            dependent, _ = await measure.along_a_chain(on.client, 1)
            alone = await measure.small_builds(on.client)
            beside: list[float] = []
            for _ in range(measure.MOST_LARGE_BUILDS):
                beside += [one.total for one in await measure.run_beside(on, elsewhere, of.size)]
                if len(beside) >= measure.PROBES:
                    break
            p50 = median(one.total for one in alone)
            return Latency(median(dependent), p50, Spread.of(beside).p99)

        async with _ready(folder, of, Store.MEMORY) as both:
            return rows.latency(of.size, *await in_turn(of.repeat, both, latencies))


async def memory(of: Arrangement) -> list[Row]:
    """Measure the memory of waiting components, each time in a fresh service."""
    of.progress("memory")
    with scratch() as folder:
        async with grounds(folder, _ACCOUNTS) as (before, after, bare):

            async def waiting(one: tuple[Ground, Version]) -> float:
                on, version = one
                async with staged(on, bare, Store.MEMORY, installation=version.installation) as ready:
                    return (await measure.memory(ready, of.size)).first

            both = (before, of.before), (after, of.after)
            return rows.memory(of.size, *await in_turn(of.repeat, both, waiting))


async def plan(of: Arrangement) -> list[Row]:
    """Measure the command that shows what a build will do."""
    of.progress("scheduler plan")
    with scratch() as folder:
        file = folder / "build.json"
        file.write_bytes(builds.encode(builds.make(Shape.LAYERED, of.size)))

        async def command(version: Version) -> Planned:
            return await asyncio.to_thread(_plan, version.installation, file)

        both = of.before, of.after
        # Compiles the modules.
        await in_turn(1, both, command)
        return rows.plan(of.size, *await in_turn(of.repeat, both, command))


def _plan(installation: Installation, file: Path) -> Planned:
    began = perf_counter()
    process = subprocess.Popen(
        installation.command("scheduler", "plan", str(file)),
        cwd=installation.root,
        stdout=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    wall = perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args)
    return Planned(wall, usage.ru_utime + usage.ru_stime)


async def restart(of: Arrangement) -> list[Row]:
    """Measure how soon a build goes on after its service was killed."""
    if of.size < durable.LEAST:
        return []
    of.progress("restarts")

    async def killed(version: Version) -> float:
        with scratch() as folder:
            return (await durable.restart(folder, of.size, version.installation)).request

    return rows.restart(of.size, *await in_turn(of.repeat, (of.before, of.after), killed))


async def growth(of: Arrangement) -> list[Row]:
    """Measure very large builds of this version, each between two large ones."""
    found = []
    for store in of.stores:
        of.progress(f"{store}, layered {of.size * rows.LARGER:,}")
        with scratch() as folder:
            async with stage(folder, store, measure.LARGE_LIMITS) as on:
                pairs = [await _grown(on, of.size) for _ in range(of.repeat)]
        small, large = zip(*pairs, strict=True)
        found += rows.growth(store, of.size, small, large)
    return found


async def instructions(of: Arrangement) -> list[Row]:
    """Count the instructions of a component: once, as they hardly differ from round to round."""
    found = []
    for store in of.stores:
        for shape in of.shapes:
            of.progress(f"instructions, {store}, {shape}")

            async def counted(version: Version, store: Store = store, shape: Shape = shape) -> float:
                return await count(store, shape, version.installation)

            found += rows.instructions(store, shape, *await in_turn(1, (of.before, of.after), counted))
    return found


async def _grown(on: Stage, size: int) -> tuple[float, float]:
    """Measure the seconds of CPU of a component in a large build and in a very large one."""
    costs = []
    for components in (size, size * rows.LARGER, size):
        _, cpu = await measure.run_all(on, [builds.make(Shape.LAYERED, components)])
        costs.append(cpu / components)
    first, larger, last = costs
    return mean((first, last)), larger


@asynccontextmanager
async def _ready(folder: Path, of: Arrangement, store: Store) -> AsyncIterator[tuple[Stage, Stage]]:
    """Start the services of both versions beside each other."""
    async with (
        grounds(folder, _ACCOUNTS, store) as (before, after, bare),
        staged(before, bare, store, installation=of.before.installation) as one,
        staged(after, bare, store, installation=of.after.installation) as other,
    ):
        yield one, other


async def in_turn(
    repeat: int, both: tuple[_S, _S], measured: Callable[[_S], Awaitable[_T]]
) -> tuple[tuple[_T, ...], tuple[_T, ...]]:
    """Measure both in turn; the order changes each round, so that no drift of the machine favours one."""
    found: tuple[list[_T], list[_T]] = ([], [])
    for number in range(repeat):
        for which in (0, 1) if number % 2 == 0 else (1, 0):
            found[which].append(await measured(both[which]))
    return tuple(found[0]), tuple(found[1])


_PARTS: Mapping[Part, Callable[[Arrangement], Awaitable[list[Row]]]] = {
    Part.LATENCY: latency,
    Part.MEMORY: memory,
    Part.PLAN: plan,
    Part.DURABLE: restart,
    Part.LARGE: growth,
    Part.INSTRUCTIONS: instructions,
}


async def compare(of: Arrangement, parts: Container[Part], keep: Callable[[Comparison], None]) -> Comparison:
    """Measure the named parts of both versions; ``keep`` gets what there is after each of them."""
    found = Comparison(Machine.this(), of.before, of.after, (), ())
    if Part.THROUGHPUT in parts:
        blocks = await contests(of)
        found = evolve(found, contests=tuple(blocks), rows=tuple(rows.throughput(blocks)))
        keep(found)
    for part, measured in _PARTS.items():
        if part in parts:
            found = evolve(found, rows=(*found.rows, *await measured(of)))
            keep(found)
    return found
