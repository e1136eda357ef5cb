"""Measures memory over many builds, and the cost of the garbage collector."""

import asyncio
import gc
import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import msgspec

from benchmarks import builds
from benchmarks.processes import Store
from benchmarks.results import Collections, Steady
from benchmarks.stage import stage, until_idle
from scheduler.definition.limits import DEFAULT_LIMITS
from scheduler.definition.validation import read_build
from scheduler.local.generate import Shape
from scheduler.plan import Plan
from scheduler.runtime.collector import collect
from scheduler.runtime.tuning import tune_interpreter

SIZE = 1_500
"""Components of each build."""
EARLY, LATE = 20, 200
"""Numbers of builds after which memory is measured."""
_QUICK = 40
_LOOKS = 5
_REST = 4.0
"""Idle time in which the service collects its garbage, in seconds."""


async def steady(folder: Path, store: Store, *, quick: bool = False) -> Steady:
    """Run builds one after another; measure resident memory after the first ones and after all."""
    late = _QUICK if quick else LATE
    resident = {}
    async with stage(folder, store) as on:
        for number in range(1, late + 1):
            await on.client.run(builds.make(Shape.LAYERED, SIZE))
            if number in {EARLY, late}:
                await until_idle(on.service)
                resident[number] = on.service.memory_info().rss
        await asyncio.sleep(_REST)
    told = list(_collections(folder / "scheduler.log"))
    return Steady(store, SIZE, EARLY, late, resident[EARLY], resident[late], max(told, default=None))


def _collections(log: Path) -> Iterator[float]:
    """Read the times of logged collections, those above 10 ms and forced ones, in seconds."""
    for line in log.read_text().splitlines():
        if "garbage collected" in line:
            yield float(json.loads(line)["seconds"])


def collections(size: int) -> Collections:
    """Measure collections of a service with a build of ``size`` components, in a new process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as elsewhere:
        return elsewhere.submit(_collect, size).result()


def _collect(size: int) -> Collections:
    tune_interpreter()
    # Loaded, as in a service.
    __import__("scheduler.process")
    start = collect(everything=True)[1]
    rest = median([collect(everything=False)[1] for _ in range(_LOOKS)])
    gc.disable()
    data = msgspec.json.encode(builds.make(Shape.LAYERED, size))
    plan = Plan(read_build(data), limits=DEFAULT_LIMITS)
    forced = median([collect(everything=True)[1] for _ in range(_LOOKS)])
    return Collections(len(plan.phases), start, rest, forced)
