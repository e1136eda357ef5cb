"""Measures what the connector kit costs: ``python -m benchmarks.kit`` runs it in turn with a bare connector.

Both answer requests such as the scheduler sends, of a component of half a kilobyte with its three headers,
500 in flight, each after 50 ms. The *bare* connector is nats-py, a task for each request, JSON in and out: it
keeps no key, sends no heartbeat, and converts nothing. The *kit* has a handler that takes and returns a dict,
with the record in memory: on Trio, once with its log off, once with the log written to a file as a service's
is; one that takes and returns an object of a class; and one on asyncio and one in threads. CPU time is that
of the connector's process, from its first request to its last reply, by request.
"""

import argparse
import asyncio
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

import attrs
import nats
import psutil  # type: ignore[import-untyped]
from attrs import frozen
from nats.aio.client import Client
from nats.aio.msg import Msg

from benchmarks.processes import NotReadyError, nats_server, running, scratch

MOST: Final = 1.5
"""Largest allowed multiple of the bare connector's CPU time."""
WINDOW: Final = 500
"""Requests in flight."""
SUBJECT: Final = "vpc.create.aws"
_WORK: Final = 0.05
"""Seconds that a request takes."""
_WARM: Final = 1_000
"""Requests before those that count."""
_DEADLINE: Final = 60.0
_FIRST: Final = b'{"_component_id": "vpc::0", "name": "vpc-0", "cidr": "10.0.0.0/16", "tags": {}}'
"""Request that finds out whether the connector is there."""
KINDS: Final = ("bare", "kit", "kit, logging", "kit, class", "kit, asyncio", "kit, threads")


@frozen
class Cost:
    """CPU time by request of each kind of connector, in microseconds: the median of all rounds."""

    requests: int
    rounds: int
    microseconds: dict[str, float]
    multiples: dict[str, float]
    """Multiple of the bare connector's, by pair, and the median of those."""

    @property
    def met(self) -> bool:
        """Whether the target is met."""
        return self.multiples["kit"] <= MOST

    def table(self) -> str:
        """Return it as text."""
        head = f"{'connector':<14}{'CPU by request':>16}{'times bare':>12}"
        rows = [
            f"{kind:<14}{self.microseconds[kind]:>13.0f} us{self.multiples[kind]:>12.2f}" for kind in KINDS
        ]
        verdict = "met" if self.met else "missed"
        what = f"{self.rounds} rounds of {self.requests:,} requests, {WINDOW} in flight"
        return "\n".join([head, *rows, f"{what}; at most {MOST:g} times without a log: {verdict}"])


# The connectors, each in a process of its own.


@attrs.define
class _Vpc:
    name: str
    cidr: str
    tags: dict[str, str]
    vpc_aws_id: str = ""


async def _serve_bare(url: str) -> None:
    client = await nats.connect(url)
    tasks: set[asyncio.Task[None]] = set()
    slots = asyncio.Semaphore(WINDOW)

    async def create(message: Msg) -> None:
        async with slots:
            component = json.loads(message.data)
            await asyncio.sleep(_WORK)
            component["vpc_aws_id"] = "vpc-1"
            component["_state"] = "completed"
            await message.respond(json.dumps(component).encode())

    async def begin(message: Msg) -> None:
        task = asyncio.create_task(create(message))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    await client.subscribe(SUBJECT, queue="connectors", cb=begin)
    await client.flush()
    await asyncio.Event().wait()


def _serve_kit(url: str, kind: str) -> None:
    import trio  # noqa: PLC0415 - the bare connector does without

    from scheduler.connectors import Connectors  # noqa: PLC0415
    from scheduler.connectors.handlers import Backend  # noqa: PLC0415
    from scheduler.log import configure_logging  # noqa: PLC0415

    configure_logging("info" if kind == "kit, logging" else "error", "json")
    connectors = Connectors("aws", concurrency=WINDOW)

    def done(request: dict[str, Any]) -> dict[str, Any]:
        request["vpc_aws_id"] = "vpc-1"
        return request

    async def on_trio(request: dict[str, Any]) -> dict[str, Any]:
        await trio.sleep(_WORK)
        return done(request)

    async def of_a_class(request: _Vpc) -> _Vpc:
        await trio.sleep(_WORK)
        return attrs.evolve(request, vpc_aws_id="vpc-1")

    async def on_asyncio(request: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(_WORK)
        return done(request)

    def in_a_thread(request: dict[str, Any]) -> dict[str, Any]:
        time.sleep(_WORK)
        return done(request)

    handlers: dict[str, Callable[..., Any]] = {
        "kit, class": of_a_class,
        "kit, asyncio": on_asyncio,
        "kit, threads": in_a_thread,
    }
    backend: Backend | None = "asyncio" if kind == "kit, asyncio" else None
    connectors.create("vpc", backend=backend)(handlers.get(kind, on_trio))
    trio.run(connectors.run, url)


def _serve(kind: str, url: str) -> None:
    if kind == "bare":
        asyncio.run(_serve_bare(url))
    else:
        _serve_kit(url, kind)


# The measurement.


class Driver:
    """Keeps requests in flight, as a scheduler does."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._owner = secrets.token_hex(4)
        self._left = 0
        self._waiting = 0
        self._number = 0
        self._done = asyncio.Event()

    async def open(self) -> None:
        """Hear replies."""
        await self._client.subscribe(f"scheduler.reply.{self._owner}.aws.*", cb=self._on_reply)

    async def run(self, requests: int) -> None:
        """Send so many requests, and await their replies."""
        self._left, self._waiting = requests, requests
        self._done.clear()
        for _ in range(min(WINDOW, requests)):
            await self._send()
        await asyncio.wait_for(self._done.wait(), _DEADLINE)

    async def _send(self) -> None:
        self._left -= 1
        self._number += 1
        token = f"{self._owner}.aws.{secrets.token_hex(16)}"
        build, component = f"b-{self._owner}", f"vpc::{self._number}"
        body = {
            "service": build, "_component_id": component, "_component": "vpc", "_action": "create",
            "_provider": "aws", "_state": "running", "name": f"vpc-{self._number}", "cidr": "10.0.0.0/16",
            "tags": {f"tag-{number}": "x" * 20 for number in range(8)},
        }  # fmt: skip
        key = f"{build}/{component}"
        headers = {
            "Nats-Msg-Id": f"{key}/1",
            "Scheduler-Component-Key": key,
            "Scheduler-Heartbeat": f"scheduler.beat.{token}",
        }
        data = json.dumps(body).encode()
        await self._client.publish(SUBJECT, data, reply=f"scheduler.reply.{token}", headers=headers)

    async def _on_reply(self, message: Msg) -> None:
        if b'"completed"' not in message.data:
            raise RuntimeError(f"no success: {message.data[:500]!r}")
        self._waiting -= 1
        if self._left:
            await self._send()
        if not self._waiting:
            self._done.set()


async def _measured(kind: str, url: str, requests: int, folder: Path) -> float:
    """Return the CPU time by request of a connector, in seconds."""
    command = [sys.executable, "-m", "benchmarks.kit", "--serve", kind, "--url", url]
    log = folder / "connector.log"
    with running(command, log=log) as process:
        client = await nats.connect(url)
        try:
            driver = Driver(client)
            await driver.open()
            await _there(client, process, log)
            await driver.run(_WARM)
            connector = psutil.Process(process.pid)
            before = _cpu(connector)
            await driver.run(requests)
            return (_cpu(connector) - before) / requests
        finally:
            await client.close()


async def _there(client: Client, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Wait until the connector subscribes."""
    deadline = time.monotonic() + _DEADLINE
    while time.monotonic() < deadline and process.poll() is None:
        try:
            await client.request(SUBJECT, _FIRST, timeout=1)
        except nats.errors.NoRespondersError:
            await asyncio.sleep(0.05)
        else:
            return
    raise NotReadyError(f"the connector did not start: {_tail(log)}")


def _tail(log: Path) -> str:
    return log.read_text()[-2_000:]


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


async def measure(requests: int, rounds: int) -> Cost:
    """Measure all kinds in turn, in so many rounds; each round begins with another one."""
    found: dict[str, list[float]] = {kind: [] for kind in KINDS}
    with scratch() as folder, nats_server(folder / "nats") as url:
        for number in range(rounds):
            shift = number % len(KINDS)
            for kind in (*KINDS[shift:], *KINDS[:shift]):
                found[kind].append(await _measured(kind, url, requests, folder))
            sys.stderr.write(f"round {number + 1} of {rounds}\n")
    pairs = {
        kind: [one / bare for one, bare in zip(found[kind], found["bare"], strict=True)] for kind in KINDS
    }
    return Cost(
        requests,
        rounds,
        {kind: median(values) * 1e6 for kind, values in found.items()},
        {kind: median(values) for kind, values in pairs.items()},
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a table, write a JSON file; return 1 if ``--check`` is given and a target is missed."""
    parser = argparse.ArgumentParser("python -m benchmarks.kit", description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--repeat", type=int, default=10, metavar="N", help="rounds (10)")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "kit.json")
    parser.add_argument("--check", action="store_true", help="exit code 1 if the target is missed")
    parser.add_argument("--serve", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    found = parser.parse_args(arguments)
    if found.serve:
        _serve(found.serve, found.url)
        return 0
    cost = asyncio.run(measure(found.requests, found.repeat))
    found.output.parent.mkdir(parents=True, exist_ok=True)
    document = {**attrs.asdict(cost), "at_most": MOST, "met": cost.met, "cores": os.cpu_count()}
    found.output.write_text(json.dumps(document, indent=1) + "\n")
    sys.stdout.write(f"{cost.table()}\nwritten: {found.output}\n")
    return int(found.check and not cost.met)


if __name__ == "__main__":
    sys.exit(main())
