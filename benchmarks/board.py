"""Measures the cost of the board: ``python -m benchmarks.board`` runs ``scheduler watch`` in a terminal.

A fake scheduler publishes a build of 10,000 components that lasts 20 seconds: each of them starts and
completes, about a hundred run at a time, some are retried, some fail. The board is a separate process, on a
pseudo-terminal of 80 by 24, as in real use.

``--beats 500`` has so many components in flight, and the connector of each say something new every second,
which the service publishes in one message a second.
"""

import argparse
import asyncio
import contextlib
import fcntl
import json
import os
import pty
import random
import struct
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import nats
import psutil  # type: ignore[import-untyped]
from attrs import define, field, frozen
from nats.aio.client import Client
from nats.aio.msg import Msg

from benchmarks.processes import nats_server, scratch

BUILD = "watched"
MOST = 0.05
"""Largest allowed share of one core."""
_STATES = ("waiting", "running", "retrying", "completed", "errored", "skipped")
_PERIOD = 0.1
"""Seconds between two messages, as in the service."""
_AT_ONCE = 100
_BEATS_EVERY = 10
"""Periods between two messages about heartbeats, as in the service."""
_PAGE = 1_000
_LINES, _COLUMNS = 24, 80


@frozen
class Cost:
    """Cost of the board while the build ran."""

    components: int
    events: int
    beats: int
    """Heartbeats that say something new, in a second."""
    seconds: float
    cpu: float
    """CPU time in that time, in seconds."""
    start: float
    """CPU time before, in seconds: the interpreter, the connection, the first snapshot."""
    bytes_drawn: int

    @property
    def share(self) -> float:
        """Share of one core."""
        return self.cpu / self.seconds

    def line(self) -> str:
        """Return it as a line of text."""
        verdict = "met" if self.share < MOST else "missed"
        return (
            f"board: {self.components:,} components, {self.events:,} events, {self.beats} beats a second "
            f"in {self.seconds:.1f} s: "
            f"{self.share:.1%} of a core (at most {MOST:.0%}: {verdict}), {self.start:.2f} s of CPU to start"
        )


@define
class Feed:
    """Fake scheduler with one build."""

    client: Client
    components: int
    seconds: float
    beats: int = 0
    sequence: int = 0
    states: list[str] = field(init=False)
    counts: dict[str, int] = field(init=False)
    began: float = field(factory=time.time)

    def __attrs_post_init__(self) -> None:
        self.states = ["waiting"] * self.components
        self.counts = dict.fromkeys(_STATES, 0) | {"waiting": self.components}

    async def open(self) -> None:
        """Answer questions."""
        await self.client.subscribe("scheduler.build.get", cb=self._answer)

    async def _answer(self, message: Msg) -> None:
        question = json.loads(message.data)
        now = time.time()
        answer: dict[str, Any] = {
            "id": BUILD, "action": "build.create", "status": "running", "total": self.components, "run": 1,
            "counts": self.counts, "accepted": self.began, "seq": self.sequence, "now": now,
            "eta": max(0.0, self.began + self.seconds - now), "paused": False, "next": None,
            "limits": [{"limit": "*=100", "waiting": self.counts["waiting"]}],
        }  # fmt: skip
        if question["components"]:
            start = question["from"]
            end = start + _PAGE
            answer["components"] = [
                {"id": _name(number), "state": self.states[number], "attempt": 1, "sent": now}
                for number in range(start, min(end, self.components))
            ]
            answer["next"] = end if end < self.components else None
        await message.respond(json.dumps(answer).encode())

    async def run(self) -> None:
        """Publish the whole build, evenly over its time, and report."""
        luck = random.Random(1)
        ticks = round(self.seconds / _PERIOD)
        running: list[int] = []
        at_once = max(_AT_ONCE, self.beats)
        started = 0
        self.began = begin = time.time()
        for tick in range(ticks):
            events: list[dict[str, Any]] = []
            due = round(self.components * (tick + 1) / ticks)
            while started < due:
                self._tell(events, started, "running", waited=0.1)
                running.append(started)
                started += 1
            while len(running) > (0 if tick == ticks - 1 else at_once):
                number = running.pop(luck.randrange(len(running)))
                if luck.random() < 0.01:
                    self._tell(events, number, "retrying", seconds=0.5, error="throttled", retry_in=0.1)
                    self._tell(events, number, "running", waited=0.2)
                failed = luck.random() < 0.005
                state, more = ("errored", {"error": "no such image"}) if failed else ("completed", {})
                self._tell(events, number, state, seconds=luck.random(), **more)
            await self._publish(events)
            if self.beats and tick % _BEATS_EVERY == 0:
                await self._publish([], beats=[_beat(number, tick) for number in running[: self.beats]])
            await asyncio.sleep(max(0.0, begin + (tick + 1) * _PERIOD - time.time()))

    def _tell(self, events: list[dict[str, Any]], number: int, state: str, **fields: Any) -> None:
        self.sequence += 1
        self.counts[self.states[number]] -= 1
        self.counts[state] += 1
        self.states[number] = state
        one = {
            "seq": self.sequence,
            "time": time.time(),
            "component": _name(number),
            "state": state,
            "attempt": 1,
        }
        events.append(one | fields)

    async def _publish(self, events: Sequence[dict[str, Any]], **more: Any) -> None:
        document = {
            "v": 2, "build": BUILD, "seq": self.sequence, "time": time.time(), "total": self.components,
            "counts": self.counts, "done": self.counts["completed"], "events": events, **more,
        }  # fmt: skip
        await self.client.publish(f"scheduler.event.{BUILD}", json.dumps(document).encode())


def _name(number: int) -> str:
    return f"{('vpc', 'network', 'instance', 'firewall')[number % 4]}::node-{number:05}"


def _beat(number: int, tick: int) -> dict[str, Any]:
    share = tick % 100 / 100
    said = {"progress": share, "message": f"step {tick} of the installation", "instance": "aws-7"}
    return {"component": _name(number), "attempt": 1, "time": time.time(), **said}


@contextlib.contextmanager
def _board(url: str) -> Iterator[tuple[psutil.Process, int]]:
    """Start ``scheduler watch`` in a terminal; return the process, and our end of the terminal."""
    command = [sys.executable, "-m", "scheduler", "watch", BUILD, "--nats-url", url]
    child, terminal = pty.fork()
    if child == 0:
        os.environ["TERM"] = "xterm-256color"
        os.execv(command[0], command)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", _LINES, _COLUMNS, 0, 0))
    process = psutil.Process(child)
    try:
        yield process, terminal
    finally:
        process.terminate()
        os.close(terminal)
        os.waitpid(child, 0)


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


async def measure(components: int, seconds: float, beats: int = 0) -> Cost:
    """Run the feed while the board watches."""
    with scratch() as folder, nats_server(folder / "nats") as url:
        client = await nats.connect(url)
        feed = Feed(client, components, seconds, beats)
        await feed.open()
        drawn = 0
        with _board(url) as (process, terminal):
            first = asyncio.Event()

            def read() -> None:
                nonlocal drawn
                with contextlib.suppress(OSError):
                    drawn += len(os.read(terminal, 65_536))
                if drawn:
                    first.set()

            loop = asyncio.get_running_loop()
            loop.add_reader(terminal, read)
            await asyncio.wait_for(first.wait(), 20)
            await asyncio.sleep(2 * _PERIOD)
            # By now the pages of the first snapshot have been fetched, too.
            await asyncio.sleep(1)
            start, before, began = _cpu(process), drawn, time.perf_counter()
            await feed.run()
            took, cpu = time.perf_counter() - began, _cpu(process) - start
            loop.remove_reader(terminal)
        await client.close()
        return Cost(components, feed.sequence, beats, took, cpu, start, drawn - before)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a line, write a JSON file; return 1 if ``--check`` is given and the target is missed."""
    parser = argparse.ArgumentParser("python -m benchmarks.board", description=__doc__)
    parser.add_argument("--components", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--beats", type=int, default=0, help="heartbeats that say something new, in a second")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "board.json")
    parser.add_argument("--check", action="store_true", help="exit code 1 if the target is missed")
    found = parser.parse_args(arguments)
    cost = asyncio.run(measure(found.components, found.seconds, found.beats))
    found.output.parent.mkdir(parents=True, exist_ok=True)
    document = {**attrs.asdict(cost), "share": cost.share, "at_most": MOST, "met": cost.share < MOST}
    found.output.write_text(json.dumps(document, indent=1) + "\n")
    sys.stdout.write(f"{cost.line()}\nwritten: {found.output}\n")
    return int(found.check and cost.share >= MOST)


if __name__ == "__main__":
    sys.exit(main())
