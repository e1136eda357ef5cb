"""Prints the results as a table."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from statistics import median

from benchmarks.hostile import tables
from benchmarks.machine import Machine
from benchmarks.processes import Store
from benchmarks.profiling import table as profiling
from benchmarks.results import (
    Beside,
    Commands,
    Durable,
    Latencies,
    Makespan,
    Point,
    Results,
    Spread,
    Target,
)

_WIDTH = 100


def table(results: Results) -> str:
    """Format all results in lines of at most 100 characters, or 110 for attacks."""
    return "\n".join(line.rstrip() for line in _lines(results))


def _lines(results: Results) -> Iterator[str]:
    yield from _machine(results.machine)
    if results.points:
        yield ""
        yield "                components/s from   bare loop    ratio from   CPU us a  accept  connector"
        yield "shape      size  acceptance  submit        /s  accept. submit component      ms       busy"
    for point in results.points:
        if point.store is Store.MEMORY:
            yield _point(point)
    durable = [point for point in results.points if point.store is Store.JETSTREAM]
    if durable:
        yield f"the same with --store jetstream{'commits':>56} events"
    for point in durable:
        commits, events = point.median("commits"), point.median("events")
        yield f"{_point(point)} {commits:>7,.0f} {events:>6.1f}"
    if results.latencies is not None:
        yield from _latencies(results.latencies)
    if results.durable is not None:
        yield from _durable(results.durable)
    yield ""
    if results.memory is not None:
        memory = results.memory
        yield (
            f"memory of a waiting component beyond its JSON, {memory.size:,} of them:"
            f" {memory.first:,.0f} bytes; in further builds {memory.further:,.0f}"
        )
    for steady in results.steady:
        longest = "none" if steady.collection is None else f"{steady.collection * 1e3:.0f} ms"
        yield (
            f"{steady.store}: {steady.late} builds of {steady.size:,}: {steady.before / 2**20:.1f} MiB after"
            f" {steady.early}, {steady.after / 2**20:.1f} after all; collections above 10 ms: {longest}"
        )
    if results.collections is not None:
        one = results.collections
        yield (
            f"a collection of garbage at the start {one.start * 1e3:.1f} ms, idle {one.idle * 1e3:.2f} ms,"
            f" forced beside a build of {one.size:,} {one.forced * 1e3:.0f} ms"
        )
    if results.start_up is not None:
        embedded = results.start_up.embedded
        shown = "failed" if embedded is None else f"{embedded:.2f} s"
        yield f"start-up: {results.start_up.service:.2f} s; with the embedded broker {shown}"
    if results.commands is not None:
        yield from _commands(results.commands)
    for grown in results.growth:
        yield (
            f"{grown.store}, {grown.shape}, {grown.size:,} components: accepted after {grown.accept:.1f} s,"
            f" {grown.walk:,.0f}/s, {grown.cpu * 1e6:.0f} us each, {grown.peak / 2**20:,.0f} MiB at most"
        )
    if results.makespans:
        yield from _makespans(results.makespans)
    if results.beside is not None:
        yield from _beside(results.beside)
    for profile in results.profiles:
        yield ""
        yield from profiling.lines(profile)
    if results.hostile:
        yield tables.table(results.hostile)
    for target in results.targets():
        yield _target(target)


def _machine(machine: Machine) -> Iterator[str]:
    yield f"{machine.cpu}, {machine.cores} cores, {machine.system}, load {machine.load:.2f}"
    named = ", ".join(f"{name} {number}" for name, number in machine.versions.items())
    yield from textwrap.wrap(f"Python {machine.python}, {named}", _WIDTH)


def _point(point: Point) -> str:
    rates = f"{point.median('walk'):>11,.0f} {point.median('total'):>7,.0f}"
    ratios = f"{point.median('bare'):>9,.0f} {point.ratio:>8.3f} {point.total_ratio:>6.3f}"
    costs = f"{point.median('cpu') * 1e6:>9.0f} {point.median('accept') * 1e3:>7.0f}"
    busy = f"{point.median('connector'):>10.0%}"
    return f"{point.shape:<8} {point.size:>6,} {rates} {ratios} {costs} {busy}"


def _latencies(latencies: Latencies) -> Iterator[str]:
    yield ""
    yield "latency, ms                                             count     p50     p99     max"
    yield from _spreads(
        {
            "a dependency's reply to its dependent's request": latencies.dependent,
            "the bare round trip, measured alike": latencies.round_trip,
            "a one-component build, alone": latencies.alone,
            f"the same beside a build of {latencies.beside_size:,}": latencies.beside,
        }
    )


def _durable(durable: Durable) -> Iterator[str]:
    yield ""
    yield "with --store jetstream, ms                              count     p50     p99     max"
    yield from _spreads(
        {
            "a dependency's reply to its dependent's request": durable.dependent,
            "a one-component build, alone": durable.alone,
        }
    )
    yield f"a chain takes {durable.commits:.2f} commits a step; an idle service {durable.idle:.2%} of a core"
    for restart in durable.restarts:
        yield (
            f"killed in a build of {restart.size:,}: the next one is ready after {restart.ready:.2f} s, sends"
            f" after {restart.request:.2f} s, reports after {restart.report:.2f} s"
        )


def _commands(commands: Commands) -> Iterator[str]:
    yield ""
    yield "CPU of a command's start, ms                            median   / bare"
    yield f"{'import msgspec, nats, trio_asyncio (bare)':<55} {commands.baseline * 1e3:>6.0f}"
    for name, seconds in commands.seconds.items():
        shown = f"scheduler {name}"
        yield f"{shown:<55} {seconds * 1e3:>6.0f} {commands.ratio(name):>8.2f}"


def _makespans(makespans: Sequence[Makespan]) -> Iterator[str]:
    yield ""
    yield "makespan, s, connectors taking 0.5 and more                             time left off by"
    yield "                         bound  median   worst   ratio   median   worst  limits"
    for one in makespans:
        figures = f"{one.bound:>8.2f} {median(one.seconds):>7.2f} {max(one.seconds):>7.2f} {one.ratio:>7.3f}"
        off = f"{median(one.eta):>8.1%} {max(one.eta):>7.1%}" if one.eta else " " * 16
        yield f"{one.shape:<14} {one.size:>7,}{figures} {off}  {one.limits or '-'}"


def _beside(beside: Beside) -> Iterator[str]:
    yield ""
    yield "connectors taking 0.5 s, ms                             count     p50     p99     max"
    yield from _spreads(
        {
            f"a build of {beside.size} components, alone": beside.alone,
            f"the same beside a build of {beside.beside_size:,} that takes all slots": beside.beside,
        }
    )


def _spreads(rows: Mapping[str, Spread]) -> Iterator[str]:
    for name, spread in rows.items():
        figures = " ".join(f"{value * 1e3:>7.2f}" for value in (spread.p50, spread.p99, spread.max))
        yield f"{name:<55} {spread.count:>5} {figures}"


def _target(target: Target) -> str:
    sign = ">=" if target.at_least else "<="
    verdict = "met" if target.met else "NOT MET"
    value = f"{target.value:,.2f}" if target.limit < 50 else f"{target.value:,.0f}"
    return f"{target.name:<55} {value:>8}  ({sign} {target.limit:,g})  {verdict}"
