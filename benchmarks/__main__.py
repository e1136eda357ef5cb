"""Measure, print a table, write a JSON file and a plot: ``python -m benchmarks --help``."""

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import attrs

from benchmarks import measure, plot
from benchmarks.processes import scratch
from benchmarks.results import Machine, Point, Results
from scheduler.generate import Shape

_OUTPUT = Path(__file__).parent / "results" / "results.json"
_PARTS = ("throughput", "latency", "memory", "start-up")


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="builds of 100 and 1,000, once each")
    parser.add_argument("--sizes", type=int, nargs="+", metavar="N", help="components (100 1000 10000)")
    parser.add_argument("--shapes", type=Shape, nargs="+", default=list(Shape), help="layered wide chains")
    parser.add_argument("--repeat", type=int, metavar="N", help="rounds of each (3); medians are shown")
    parser.add_argument("--only", nargs="+", choices=_PARTS, default=_PARTS, help="parts to measure")
    parser.add_argument("--output", type=Path, default=_OUTPUT, help="the JSON file; the plot goes beside it")
    parser.add_argument("--check", action="store_true", help="exit code 1 where a target is not met")
    found = parser.parse_args(arguments)
    found.sizes = sorted(found.sizes or ([100, 1_000] if found.quick else [100, 1_000, 10_000]))
    found.repeat = found.repeat or (1 if found.quick else 3)
    return found


async def _measure(arguments: argparse.Namespace) -> Results:
    results = Results(Machine.this())
    largest, only = arguments.sizes[-1], arguments.only
    if "throughput" in only or "latency" in only:
        with scratch() as folder:
            async with measure.stage(folder) as on:
                points: list[Point] = []
                for shape in arguments.shapes if "throughput" in only else ():
                    for size in arguments.sizes:
                        _progress(f"{shape} {size:,}")
                        points.append(await measure.throughput(on, shape, size, arguments.repeat))
                results = attrs.evolve(results, points=tuple(points))
                if "latency" in only:
                    _progress("latencies")
                    results = attrs.evolve(
                        results, latencies=await measure.latencies(on, largest, arguments.repeat)
                    )
    if "memory" in only:
        _progress("memory")
        # In processes of its own: what a large build left behind would be used again, and not counted.
        with scratch() as folder:
            async with measure.stage(folder) as on:
                results = attrs.evolve(results, memory=await measure.memory(on, largest))
    if "start-up" in only:
        _progress("start-up")
        with scratch() as folder:
            results = attrs.evolve(results, start_up=await measure.start_up(folder, arguments.repeat))
    return results


def _progress(what: str) -> None:
    sys.stderr.write(f"measuring: {what}\n")
    sys.stderr.flush()


def _write(results: Results, output: Path) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    document = attrs.asdict(results)
    document["targets"] = [{**attrs.asdict(target), "met": target.met} for target in results.targets()]
    output.write_text(json.dumps(document, indent=1) + "\n")
    if results.points:
        plot.draw(results, output.with_suffix(".png"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; the exit code is 0 unless ``--check`` is given and a target is not met."""
    # So that every context is left, and no process stays.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    found = _arguments(arguments)
    results = asyncio.run(_measure(found))
    _write(results, found.output)
    sys.stdout.write(f"{results.table()}\n\nwritten: {found.output}\n")
    return int(found.check and not all(target.met for target in results.targets()))


if __name__ == "__main__":
    sys.exit(main())
