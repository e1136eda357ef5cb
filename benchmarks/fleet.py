"""Measures what it costs to share builds: ``python -m benchmarks.fleet``.

One broker and one connector process serve fleets of one, two and three schedulers at the same time, in an
account each. In each round every fleet in turn gets as many builds of the same size, all at once; its CPU
time a component is that of all its processes, until they are idle again. The connector answers on the
request's own reply subject, or as old ones do on ``<subject>.done``, which every instance hears.

The second table is of idle fleets, each on a broker of its own: messages and bytes a second that pass through
the broker, leases written a second, and CPU.
"""

import argparse
import asyncio
import json
import sys
import urllib.request
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Final

import attrs
import psutil  # type: ignore[import-untyped]
from attrs import frozen

from benchmarks import builds
from benchmarks.client import Client, connect
from benchmarks.machine import Machine
from benchmarks.processes import Store, configured_server, scratch, service
from benchmarks.stage import Ground, cpu_time, grounds, until_idle
from scheduler.fleet.bucket import STREAM
from scheduler.jetstream.capturing import REPLIES
from scheduler.jetstream.streams import LOG, REPORTS
from scheduler.local.generate import Shape

MOST: Final = 1.10
"""Most that a component may cost in a fleet, times its cost alone; for replies on reply subjects."""
SIZES: Final = (1, 2, 3)
"""Instances of the fleets that work."""
IDLE: Final = (1, 3, 10)
"""Instances of the fleets that are idle."""
_BUILD: Final = 500
"""Components of a build."""
_DEADLINE: Final = 60.0


@frozen
class Shared:
    """Cost of a component in one fleet; a list has a figure for each round."""

    instances: int
    directly: bool
    """Whether the connector answers on the request's own reply subject."""
    cpu: list[float]
    """CPU time of all instances a component, in microseconds."""
    rate: list[float]
    """Components a second, from the first submission to the last report."""
    busiest: list[float]
    """Part of the CPU time that one instance has taken: of three, a third if they share evenly."""
    broker: list[float]
    """CPU time of the broker a component, in microseconds."""
    writes: list[float]
    """Messages that JetStream has stored for a component."""
    stored: list[float]
    """Bytes that JetStream keeps of a component when its build is reported."""


@frozen
class Idle:
    """Cost of a fleet that does nothing."""

    instances: int
    messages: float
    """Messages a second that clients send to the broker."""
    sent: float
    """Bytes a second that they send."""
    received: float
    """Bytes a second that they get."""
    leases: float
    """Writes a second to the bucket."""
    cpu: float
    """CPU of one instance, as a part of a core."""
    broker: float
    """CPU of the broker, as a part of a core."""


@frozen
class Figures:
    """What one round has cost; the units are those of `Shared`."""

    cpu: float
    rate: float
    busiest: float
    broker: float
    writes: float
    stored: float


@frozen
class Running:
    """A fleet that runs."""

    client: Client
    services: list[psutil.Process]
    broker: psutil.Process

    async def state(self) -> tuple[int, int]:
        """Return the number of messages that were stored so far, and the bytes that are kept."""
        streams = [await self.client.nats.jsm().stream_info(name) for name in (LOG, REPLIES, REPORTS)]
        return sum(one.state.last_seq for one in streams), sum(one.state.bytes for one in streams)


@asynccontextmanager
async def _fleet(on: Ground, instances: int, broker: psutil.Process) -> AsyncIterator[Running]:
    """Start the instances of one fleet, and wait until each sees the others."""
    async with AsyncExitStack() as stack:
        services = []
        for number in range(1, instances + 1):
            folder = on.folder / f"instance-{number}"
            folder.mkdir()
            settings = {"instance": f"instance-{number}"}
            process = service(on.url, folder, store=Store.JETSTREAM, settings=settings)
            services.append(psutil.Process(stack.enter_context(process)))
        await on.client.await_service()
        async with asyncio.timeout(_DEADLINE):
            while await _seen(on.client) < instances:  # noqa: ASYNC110 - only they know
                await asyncio.sleep(0.2)
        yield Running(on.client, services, broker)


async def _seen(client: Client) -> int:
    """Ask how many instances work."""
    answer = json.loads((await client.nats.request("scheduler.build.instances", b"{}", timeout=5)).data)
    return sum(one.get("standing") == "active" for one in answer.get("instances", ()))


async def _round(fleet: Running, count: int) -> Figures:
    """Run builds side by side."""
    made = [builds.make(Shape.LAYERED, _BUILD) for _ in range(count)]
    writes, stored = await fleet.state()
    processes = [fleet.broker, *fleet.services]
    before = [cpu_time(one) for one in processes]
    began = perf_counter()
    await asyncio.gather(*(fleet.client.run(build) for build in made))
    seconds = perf_counter() - began
    for one in fleet.services:
        await until_idle(one)
    broker, *spent = (cpu_time(one) - earlier for one, earlier in zip(processes, before, strict=True))
    written, kept = await fleet.state()
    components = count * _BUILD
    return Figures(
        cpu=sum(spent) / components * 1e6,
        rate=components / seconds,
        busiest=max(spent) / sum(spent),
        broker=broker / components * 1e6,
        writes=(written - writes) / components,
        stored=(kept - stored) / components,
    )


async def measure_shared(components: int, rounds: int, progress: Callable[[str], object]) -> list[Shared]:
    """Measure all fleets in turn, with both kinds of connectors."""
    cases = [(size, directly) for directly in (True, False) for size in SIZES]
    found: dict[tuple[int, bool], list[Figures]] = {case: [] for case in cases}
    count = max(1, components // _BUILD)
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(scratch())
        names = [f"of-{size}" for size in SIZES]
        all_grounds = await stack.enter_async_context(grounds(folder, names, Store.JETSTREAM))
        broker = _broker(folder)
        fleets = {
            size: await stack.enter_async_context(_fleet(on, size, broker))
            for size, on in zip(SIZES, all_grounds, strict=True)
        }
        for number in range(-1, rounds):
            order = SIZES if number % 2 == 0 else SIZES[::-1]
            for directly in (True, False):
                progress(f"round {number + 1} of {rounds}" if number >= 0 else "warming up")
                for size in order:
                    await fleets[size].client.command("answer directly", directly=directly)
                    figures = await _round(fleets[size], count)
                    if number >= 0:
                        found[size, directly].append(figures)
    names = [field.name for field in attrs.fields(Figures)]
    return [
        Shared(
            size, directly, **{name: [getattr(one, name) for one in found[size, directly]] for name in names}
        )
        for size, directly in cases
    ]


def _broker(folder: Path) -> psutil.Process:
    """Return the process of the broker that keeps its files in a folder."""
    [ports] = folder.glob("nats-server_*.ports")
    return psutil.Process(int(ports.stem.partition("_")[2]))


@frozen
class _Counters:
    messages: int
    sent: int
    received: int
    writes: int


async def _counters(monitoring: str) -> _Counters:
    """Ask the broker what has passed through it."""

    def get(path: str) -> Any:
        with urllib.request.urlopen(f"{monitoring}{path}", timeout=5) as answer:
            return json.load(answer)

    server = await asyncio.to_thread(get, "/varz")
    js = await asyncio.to_thread(get, "/jsz?streams=true")
    [writes] = [
        stream["state"]["last_seq"]
        for account in js["account_details"]
        for stream in account["stream_detail"]
        if stream["name"] == STREAM
    ]
    return _Counters(server["in_msgs"], server["in_bytes"], server["out_bytes"], writes)


async def measure_idle(instances: int, seconds: float) -> Idle:
    """Measure an idle fleet on a broker of its own."""
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(scratch())
        settings = {
            "http": "127.0.0.1:-1",
            "jetstream": {"store_dir": str(folder / "jetstream"), "sync_interval": "always"},
        }
        url = stack.enter_context(configured_server(folder, json.dumps(settings)))
        [ports] = folder.glob("nats-server_*.ports")
        monitoring = json.loads(ports.read_text())["monitoring"][0].rstrip("/")
        broker = _broker(folder)
        client = await stack.enter_async_context(connect(url))
        fleet = await stack.enter_async_context(
            _fleet(Ground(url, folder, client, broker), instances, broker)
        )
        await asyncio.sleep(5)
        processes = [broker, *fleet.services]
        before, cpu = await _counters(monitoring), [cpu_time(one) for one in processes]
        began = perf_counter()
        await asyncio.sleep(seconds)
        after, passed = await _counters(monitoring), perf_counter() - began
        spent = [cpu_time(one) - earlier for one, earlier in zip(processes, cpu, strict=True)]
    return Idle(
        instances,
        messages=(after.messages - before.messages) / passed,
        sent=(after.sent - before.sent) / passed,
        received=(after.received - before.received) / passed,
        leases=(after.writes - before.writes) / passed,
        cpu=sum(spent[1:]) / instances / passed,
        broker=spent[0] / passed,
    )


def ratio(shared: Sequence[Shared], one: Shared) -> float:
    """Return the median of the rounds' ratios to a single instance of the same row."""
    [alone] = [other for other in shared if other.instances == 1 and other.directly == one.directly]
    return median(cpu / single for cpu, single in zip(one.cpu, alone.cpu, strict=True))


def met(shared: Sequence[Shared]) -> bool:
    """Return whether sharing costs little enough."""
    return all(ratio(shared, one) <= MOST for one in shared if one.directly)


def table(shared: Sequence[Shared], idle: Sequence[Idle]) -> str:
    """Format the costs in lines of at most 80 columns."""
    lines = []
    if shared:
        lines += ["instances, replies on      CPU a component  to one  components/s  busiest has"]
    for one in shared:
        times = ratio(shared, one)
        mark = "!" if one.directly and times > MOST else " "
        lines.append(
            f"{one.instances:>9}  {'reply subjects' if one.directly else '<subject>.done'}"
            f" {median(one.cpu):>13,.0f} us {times:>7.2f}{mark} {median(one.rate):>12,.0f}"
            f" {median(one.busiest):>12.0%}"
        )
    if shared:
        broker, writes, stored = (
            median(figure for one in shared for figure in getattr(one, name))
            for name in ("broker", "writes", "stored")
        )
        lines += [
            f"broker, a component: {broker:.0f} us of CPU, {writes:.2f} writes, {stored:,.0f} bytes kept"
        ]
    if idle:
        lines += ["", "idle: instances  messages/s  bytes/s in, out     leases/s  CPU of one, broker"]
    lines += [
        f"{one.instances:>15} {one.messages:>11,.0f} {one.sent:>9,.0f} {one.received:>10,.0f}"
        f" {one.leases:>9.1f} {one.cpu:>10.2%} {one.broker:>8.2%}"
        for one in idle
    ]
    return "\n".join(lines).strip()


async def _measure(found: argparse.Namespace) -> tuple[list[Shared], list[Idle]]:
    def progress(what: str) -> None:
        sys.stderr.write(f"{what}\n")

    shared = await measure_shared(found.components, found.repeat, progress) if found.repeat else []
    idle = []
    for instances in IDLE if found.idle else ():
        progress(f"idle: {instances}")
        idle.append(await measure_idle(instances, found.idle))
    return shared, idle


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a table, write a JSON file; return 1 if ``--check`` is given and a target is missed."""
    parser = argparse.ArgumentParser("python -m benchmarks.fleet", description=__doc__)
    parser.add_argument("--components", type=int, default=10_000, help="of all builds of a round (10000)")
    parser.add_argument("--repeat", type=int, default=5, metavar="N", help="rounds (5); 0: none")
    parser.add_argument("--idle", type=float, default=20.0, metavar="SECONDS", help="of each (20); 0: none")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "fleet.json")
    parser.add_argument("--check", action="store_true", help="exit code 1 if the target is missed")
    found = parser.parse_args(arguments)
    shared, idle = asyncio.run(_measure(found))
    found.output.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "machine": attrs.asdict(Machine.this()),
        "at_most": MOST,
        "shared": [{**attrs.asdict(one), "ratio": ratio(shared, one)} for one in shared],
        "idle": [attrs.asdict(one) for one in idle],
    }
    found.output.write_text(json.dumps(document, indent=1) + "\n")
    sys.stdout.write(f"{table(shared, idle)}\n\nwritten: {found.output}\n")
    return int(found.check and not met(shared))


if __name__ == "__main__":
    sys.exit(main())
