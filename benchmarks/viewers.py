"""Measures the cost of the page's viewers: ``python -m benchmarks.viewers`` lets 200 look at one build.

A build of 10,000 components runs against simulated connectors, at a steady pace, with the memory store. In
turns nobody looks at it, and 200 streams are open on it, read by another process. What the service needs more
of the processor is what they cost; and the turns of its loop say whether builds waited for them.
"""

import argparse
import contextlib
import re
import statistics
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil  # type: ignore[import-untyped]
import trio
from attrs import frozen

from benchmarks.crowd import crowd
from benchmarks.processes import THIS, free_port, nats_server, running, scratch, service
from benchmarks.stage import cpu_time
from scheduler.bus.nats import open_bus
from scheduler.bus.options import BusOptions
from scheduler.client.submit import submit
from scheduler.local.generate import generate

MOST = 0.15
"""Largest allowed share of one core."""
_LONGEST = 0.010
"""Longest stretch on the loop, in seconds."""
_BUILD = "viewed"
_TURNS = re.compile(r'scheduler_loop_turn_seconds_bucket\{le="([^"]+)"\} (\S+)')


@frozen
class Phase:
    """Time in which viewers look, or do not."""

    viewers: int
    seconds: float
    cpu: float
    """CPU time of the service, in seconds."""
    updates: float
    """Updates that a viewer got in a second."""
    long_turns: int
    """Turns of the loop that took longer than 10 ms."""
    done: float
    """Components that ended in a second."""

    @property
    def share(self) -> float:
        """Share of one core."""
        return self.cpu / self.seconds

    def line(self) -> str:
        """Return it as a line of text."""
        return (
            f"{self.viewers:4} viewers, {self.seconds:.1f} s: {self.share:6.1%} of a core, "
            f"{self.done:.0f} components/s, {self.updates:.1f} updates/s each, "
            f"{self.long_turns} turns over 10 ms"
        )


@contextlib.contextmanager
def _connectors(url: str, folder: Path) -> Iterator[None]:
    command = THIS.command("scheduler", "simulate", "--nats-url", url, "--latency", "2s")
    with running(command, log=folder / "simulate.log"):
        yield


def _long_turns(port: int) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        found = {le: float(count) for le, count in _TURNS.findall(answer.read().decode())}
    return round(found["+Inf"] - found["0.01"])


def _completed(port: int) -> int:
    url = f"http://127.0.0.1:{port}/api/builds/{_BUILD}"
    with urllib.request.urlopen(url, timeout=10) as answer:
        counts: dict[str, int] = msgspec.json.decode(answer.read())["counts"]
    return counts["completed"]


def _measure(port: int, process: psutil.Process, viewers: int, seconds: float, folder: Path) -> Phase:
    with crowd(folder, port, viewers, f"/api/builds/{_BUILD}/stream") as looking:
        done, turns = _completed(port), _long_turns(port)
        began, cpu = time.monotonic(), cpu_time(process)
        time.sleep(seconds)
        took, cpu = time.monotonic() - began, cpu_time(process) - cpu
        seen = looking.leave()
        turns = _long_turns(port) - turns
        done = _completed(port) - done
    updates = seen.updates / viewers / took if viewers else 0.0
    return Phase(viewers, took, cpu, updates, turns, done / took)


async def _submit(url: str, components: int) -> None:
    build = generate(components, build=_BUILD)
    async with open_bus(BusOptions(servers=(url,))) as bus:
        await submit(bus, "build.create", msgspec.json.encode(build), _BUILD, note=lambda _: None)


def main(arguments: list[str] | None = None) -> int:
    """Measure, and print what viewers cost; exit code 1 where that is over the limit."""
    parser = argparse.ArgumentParser("python -m benchmarks.viewers", description=__doc__)
    parser.add_argument("--components", type=int, default=10_000)
    parser.add_argument("--viewers", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each phase; there are four")
    found = parser.parse_args(arguments)
    port = free_port()
    settings = {"web": str(port), "metrics": str(port)}
    phases: list[Phase] = []
    with (
        scratch() as folder,
        nats_server(folder) as url,
        _connectors(url, folder),
        service(url, folder, settings=settings) as pid,
    ):
        process = psutil.Process(pid)
        time.sleep(3)
        trio.run(_submit, url, found.components)
        time.sleep(3)
        for viewers in (0, found.viewers, 0, found.viewers):
            phases.append(_measure(port, process, viewers, found.seconds, folder))
            sys.stdout.write(f"{phases[-1].line()}\n")
            sys.stdout.flush()
    quiet = statistics.mean(phase.share for phase in phases if not phase.viewers)
    looked_at = statistics.mean(phase.share for phase in phases if phase.viewers)
    cost = looked_at - quiet
    verdict = "met" if cost < MOST else "missed"
    sys.stdout.write(
        f"{found.viewers} viewers of {found.components:,} components: {cost:.1%} of a core"
        f" (at most {MOST:.0%}: {verdict})\n"
    )
    return 0 if cost < MOST else 1


if __name__ == "__main__":
    sys.exit(main())
