"""Measure, print a table, write a JSON file and a plot: ``python -m benchmarks --help``."""

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from benchmarks import commands, durable, makespan, measure, plot, steady
from benchmarks.against import plot as against_plot
from benchmarks.against import table as against_table
from benchmarks.against import versions
from benchmarks.against.rounds import Arrangement, compare
from benchmarks.against.rows import Comparison, Part
from benchmarks.environments import InstallationError
from benchmarks.hostile import runner, tables
from benchmarks.hostile.attacks import ATTACKS
from benchmarks.hostile.judging import Ordeal
from benchmarks.machine import Machine
from benchmarks.peers import measuring
from benchmarks.peers.results import table as peer_table
from benchmarks.processes import Store, scratch
from benchmarks.profiling.profile import profile
from benchmarks.profiling.shares import Profile
from benchmarks.results import Growth, Makespan, Point, Results, Steady
from benchmarks.stage import stage
from benchmarks.table import table
from scheduler.local.generate import Shape

_OUTPUT = Path(__file__).parent / "results"
_PARTS = ("throughput", "latency", "memory", "start-up", "durable", "makespan")
_QUICK_BLOCK = 1_000
"""Components of a block that is only tried out against another version."""
_LARGE, _HOSTILE, _PROFILE = "large", "hostile", "profile"
"""Parts that are measured only if they are named."""


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="builds of 100 and 1,000, once each")
    parser.add_argument("--sizes", type=int, nargs="+", metavar="N", help="components (100 1000 10000)")
    parser.add_argument("--shapes", type=Shape, nargs="+", help="layered wide chains")
    parser.add_argument("--stores", type=Store, nargs="+", help="memory jetstream")
    parser.add_argument(
        "--repeat", type=int, metavar="N", help="rounds of each (3; 5 against another version)"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=(*_PARTS, Part.PLAN, Part.INSTRUCTIONS, _LARGE, _HOSTILE, _PROFILE),
        help="parts to measure; large (100,000 in one build), hostile (attacks) and profile (where the CPU"
        f" goes; layered, memory) only if named; against another version: {', '.join(Part)}"
        " (all but the last, which needs valgrind)",
    )
    parser.add_argument(
        "--attacks",
        nargs="+",
        choices=ATTACKS,
        default=list(ATTACKS),
        metavar="NAME",
        help="attacks to run (all)",
    )
    parser.add_argument(
        "--viewers", type=int, default=0, metavar="N", help="viewers of the page during attacks (0)"
    )
    parser.add_argument("--against", metavar="REV", help="measure a commit and this version in turn")
    parser.add_argument(
        "--against-python", type=Path, metavar="PATH", help="interpreter of a checkout at REV (make one)"
    )
    parser.add_argument(
        "--peers", action="store_true", help="measure Dask and Celery beside this scheduler, and nothing else"
    )
    parser.add_argument("--output", type=Path, help="the JSON file; the plot is beside it")
    parser.add_argument("--check", action="store_true", help="exit code 1 if a target is missed")
    found = parser.parse_args(arguments)
    parts = (*_PARTS, _LARGE, _HOSTILE, _PROFILE) if found.against is None else tuple(Part)
    if found.only is not None and (unknown := set(found.only) - set(parts)):
        parser.error(f"not measured here: {', '.join(sorted(unknown))}; only {', '.join(parts)}")
    found.profiled = found.stores or [Store.MEMORY], found.shapes or [Shape.LAYERED]
    found.stores, found.shapes = found.stores or list(Store), found.shapes or list(Shape)
    found.sizes = sorted(found.sizes or ([100, 1_000] if found.quick else [100, 1_000, 10_000]))
    quick, usual = (1, 3) if found.against is None else (2, 5)
    found.repeat = found.repeat or (quick if found.quick else usual)
    usual_parts = _PARTS if found.against is None else tuple(one for one in Part if not one.only_if_named)
    found.only = found.only or usual_parts
    name = "peers" if found.peers else "results" if found.against is None else "against"
    found.output = found.output or _OUTPUT / f"{name}.json"
    return found


async def _measure(arguments: argparse.Namespace) -> Results:
    results = Results(Machine.this())
    largest, only, repeat = arguments.sizes[-1], arguments.only, arguments.repeat
    if "throughput" in only:
        points = [point for store in arguments.stores for point in await _throughput(arguments, store)]
        results = attrs.evolve(results, points=tuple(points))
    if "latency" in only:
        _progress("latencies")
        with scratch() as folder:
            async with stage(folder) as on:
                results = attrs.evolve(results, latencies=await measure.latencies(on, largest, repeat))
    if "memory" in only:
        _progress("memory")
        # In fresh processes: memory left by a large build would be used again, and not counted.
        with scratch() as folder:
            async with stage(folder) as on:
                results = attrs.evolve(results, memory=await measure.memory(on, largest))
        many = [await _steady(store, quick=arguments.quick) for store in arguments.stores]
        found = steady.collections(largest)
        results = attrs.evolve(results, steady=tuple(many), collections=found)
    if "start-up" in only:
        _progress("start-up")
        with scratch() as folder:
            results = attrs.evolve(results, start_up=await measure.start_up(folder, repeat))
        results = attrs.evolve(results, commands=commands.measure(repeat))
    if "durable" in only and Store.JETSTREAM in arguments.stores:
        _progress("the durable store")
        sizes = [size for size in arguments.sizes if size >= durable.LEAST]
        with scratch() as folder:
            results = attrs.evolve(results, durable=await durable.measure(folder, repeat, sizes))
    if "makespan" in only:
        results = attrs.evolve(results, makespans=await _makespans(repeat))
        _progress("a small build beside a large one")
        with scratch() as folder:
            results = attrs.evolve(results, beside=await makespan.beside(folder, largest))
    if _LARGE in only:
        grown = [await _growth(store, shape) for store in arguments.stores for shape in arguments.shapes]
        results = attrs.evolve(results, growth=tuple(grown))
    if _PROFILE in only:
        profiles = [one for store in arguments.profiled[0] for one in await _profile(arguments, store)]
        results = attrs.evolve(results, profiles=tuple(profiles))
    if _HOSTILE in only:
        attacks = [(store, name) for store in arguments.stores for name in arguments.attacks]
        ordeals = [await _ordeal(store, name, arguments.viewers) for store, name in attacks]
        results = attrs.evolve(results, hostile=tuple(one for one in ordeals if one is not None))
    return results


async def _throughput(arguments: argparse.Namespace, store: Store) -> list[Point]:
    points = []
    with scratch() as folder:
        async with stage(folder, store) as on:
            for shape in arguments.shapes:
                for size in arguments.sizes:
                    _progress(f"{store}, {shape} {size:,}")
                    points.append(await measure.throughput(on, shape, size, arguments.repeat))
    return points


async def _profile(arguments: argparse.Namespace, store: Store) -> list[Profile]:
    profiles = []
    with scratch() as folder:
        async with stage(folder, store) as on:
            for shape in arguments.profiled[1]:
                _progress(f"profile, {store}, {shape} {arguments.sizes[-1]:,}")
                profiles.append(await profile(on, shape, arguments.sizes[-1], arguments.repeat))
    return profiles


async def _steady(store: Store, *, quick: bool) -> Steady:
    _progress(f"memory over many builds, {store}")
    with scratch() as folder:
        return await steady.steady(folder, store, quick=quick)


async def _makespans(repeat: int) -> tuple[Makespan, ...]:
    found = []
    for make in makespan.CASES:
        case = make()
        _progress(f"makespan, {case.name} {len(case.vertices):,}")
        with scratch() as folder:
            found.append(await makespan.makespan(folder, case, repeat))
    return tuple(found)


async def _growth(store: Store, shape: Shape) -> Growth:
    _progress(f"{store}, {shape} {measure.LARGE:,}")
    with scratch() as folder:
        async with stage(folder, store, measure.LARGE_LIMITS) as on:
            return await measure.growth(on, shape)


async def _ordeal(store: Store, name: str, viewers: int) -> Ordeal | None:
    if store not in ATTACKS[name].stores:
        return None
    ordeal = await runner.ordeal(ATTACKS[name], store, viewers)
    _progress(f"{store}, {tables.line(ordeal)}")
    return ordeal


def _progress(what: str) -> None:
    sys.stderr.write(f"measuring: {what}\n")
    sys.stderr.flush()


def _write(results: Results, output: Path) -> None:
    document = attrs.asdict(results)
    document["targets"] = [{**attrs.asdict(target), "met": target.met} for target in results.targets()]
    for shown, ordeal in zip(document["hostile"], results.hostile, strict=True):
        shown["broken"] = sorted(ordeal.broken())
    _write_json(document, output)
    if results.points:
        plot.draw(results, output.with_suffix(".png"))


def _write_json(document: Mapping[str, Any], output: Path) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(document, indent=1, default=str) + "\n")


def _compare(arguments: argparse.Namespace) -> int:
    """Measure another version and this one; return the exit code."""
    compared = Arrangement(
        versions.other_version(arguments.against, arguments.against_python),
        versions.this_version(),
        arguments.stores,
        arguments.shapes,
        arguments.sizes,
        arguments.repeat,
        _QUICK_BLOCK if arguments.quick else measure.BLOCK,
        _progress,
    )

    def keep(found: Comparison) -> None:
        document = attrs.asdict(found)
        for shown, row in zip(document["rows"], found.rows, strict=True):
            shown |= {"judged": row.judged, "figure": row.figure, "met": row.met}
        _write_json(document, arguments.output)
        if found.contests:
            against_plot.draw(found, arguments.output.with_suffix(".png"))

    found = asyncio.run(compare(compared, arguments.only, keep))
    sys.stdout.write(f"{against_table.table(found)}\n\nwritten: {arguments.output}\n")
    return int(arguments.check and found.missed)


def _measure_peers(arguments: argparse.Namespace) -> int:
    """Measure others beside this scheduler; return the exit code."""
    machine = Machine.this()
    size = _QUICK_BLOCK if arguments.quick else measuring.SIZE
    peers = asyncio.run(measuring.compare(size, arguments.repeat, _progress))
    _write_json(
        {"machine": attrs.asdict(machine), "peers": [attrs.asdict(one) for one in peers]}, arguments.output
    )
    shown = f"{machine.cpu}, {machine.cores} cores, {machine.system}, load {machine.load:.2f}"
    sys.stdout.write(f"{shown}\n{peer_table(peers)}\n\nwritten: {arguments.output}\n")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark.

    The exit code is 1 if ``--check`` is given and a target is missed, or if an attack broke the rule.
    """
    # Leaves every context, so that no process stays.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    found = _arguments(arguments)
    try:
        if found.peers:
            return _measure_peers(found)
        if found.against is not None:
            return _compare(found)
    except InstallationError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    results = asyncio.run(_measure(found))
    _write(results, found.output)
    sys.stdout.write(f"{table(results)}\n\nwritten: {found.output}\n")
    missed = found.check and not all(target.met for target in results.targets())
    return int(missed or any(ordeal.broken() for ordeal in results.hostile))


if __name__ == "__main__":
    sys.exit(main())
