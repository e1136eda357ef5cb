"""Connectors as processes, on a real nats-server."""

import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from support.brokers import NatsServer, eventually

from scheduler.bus import Bus, Message
from scheduler.bus.nats import open_bus
from scheduler.bus.options import BusOptions
from scheduler.connectors import Connectors, Context

pytestmark = pytest.mark.integration

PROGRAM = Path(__file__).with_name("program.py")
DEADLINE = 40.0
"""Seconds for what takes one: a noisy machine is no failure of ours."""
JSON = dict[str, Any]


class Scheduler:
    """The scheduler's side, over a connection of its own."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.heard: list[Message] = []

    def hear(self, message: Message) -> None:
        self.heard.append(message)

    def ask(
        self, subject: str = "vpc.create.aws", *, attempt: str = "b/a/1", token: str = "t", **body: Any
    ) -> None:
        type_, action, provider = subject.split(".")
        ids = {"service": "b", "_component_id": f"{type_}::a", "_component": type_, "_action": action}
        headers = {
            "Nats-Msg-Id": attempt,
            "Scheduler-Component-Key": attempt.rpartition("/")[0],
            "Scheduler-Heartbeat": f"scheduler.beat.o.aws.{token}",
        }
        data = json.dumps({**ids, "_provider": provider, "_state": "running", **body}).encode()
        self.bus.publish(subject, data, reply=f"scheduler.reply.o.aws.{token}", headers=headers)

    def on(self, subject: str) -> list[JSON]:
        return [json.loads(message.data) for message in self.heard if message.subject == subject]

    async def first(self, subject: str) -> JSON:
        await eventually(lambda: bool(self.on(subject)), DEADLINE)
        return self.on(subject)[0]

    async def reply(self, token: str = "t") -> JSON:
        return await self.first(f"scheduler.reply.o.aws.{token}")


@asynccontextmanager
async def open_scheduler(server: NatsServer) -> AsyncIterator[Scheduler]:
    async with open_bus(BusOptions((server.url,))) as bus:
        scheduler = Scheduler(bus)
        for subject in ("scheduler.reply.>", "scheduler.beat.>", "scheduler.returned.*", "vpc.create.aws.*"):
            await bus.subscribe(subject, scheduler.hear)
        yield scheduler


class Process:
    """A connector process, and its log."""

    def __init__(self, process: "subprocess.Popen[str]", log: Path) -> None:
        self.process = process
        self._log = log

    async def ready(self) -> "Process":
        await eventually(lambda: "connector is ready" in self.log, DEADLINE)
        return self

    @property
    def log(self) -> str:
        return self._log.read_text()

    async def ended(self) -> int:
        with trio.fail_after(DEADLINE):
            return await trio.to_thread.run_sync(self.process.wait, abandon_on_cancel=True)


@pytest.fixture
def start(nats_server: NatsServer, tmp_path: Path) -> Iterator[Any]:
    """Start connector processes, which share a record and a cloud."""
    with ExitStack() as stack:
        number = 0

        @contextmanager
        def run(log: Path) -> Iterator[Process]:
            command = [
                sys.executable,
                str(PROGRAM),
                nats_server.url,
                str(tmp_path / "r.db"),
                str(tmp_path / "acts"),
            ]
            with (
                log.open("w") as out,
                subprocess.Popen(command, stdout=out, stderr=out, text=True) as process,
            ):
                try:
                    yield Process(process, log)
                finally:
                    process.kill()

        async def start() -> Process:
            nonlocal number
            number += 1
            return await stack.enter_context(run(tmp_path / f"log{number}")).ready()

        yield start


def acts(folder: Path) -> list[str]:
    file = folder / "acts"
    return file.read_text().splitlines() if file.exists() else []


async def test_a_request_is_answered_with_heartbeats_on_the_way(nats_server: NatsServer, start: Any) -> None:
    """A process of the kit does what the protocol says, over a real broker."""
    async with open_scheduler(nats_server) as scheduler:
        await start()
        scheduler.ask(name="a", after=0.5)
        reply = await scheduler.reply()
        assert (reply["_state"], reply["vpc_id"], reply["name"]) == ("completed", "vpc-1", "a")
        beats = scheduler.on("scheduler.beat.o.aws.t")
        assert all(beat["instance"] for beat in beats)
        assert beats[-1]["message"] == "begun"


async def test_processes_share_the_requests(nats_server: NatsServer, start: Any, tmp_path: Path) -> None:
    """Of two processes in the queue group one acts for each component."""
    async with open_scheduler(nats_server) as scheduler:
        processes = [await start(), await start()]
        for number in range(40):
            scheduler.ask(attempt=f"b/{number}/1", token=f"t{number}")
        for number in range(40):
            await scheduler.reply(f"t{number}")
        assert sorted(acts(tmp_path)) == sorted(f"b/{number}" for number in range(40))
        assert all(process.log.count('"completed"') for process in processes)


async def test_a_terminated_process_finishes_what_it_began(nats_server: NatsServer, start: Any) -> None:
    """SIGTERM loses no reply, and what comes after it goes to others."""
    async with open_scheduler(nats_server) as scheduler:
        process = await start()
        scheduler.ask(after=1.0)
        await scheduler.first("scheduler.beat.o.aws.t")
        process.process.send_signal(signal.SIGTERM)
        await eventually(lambda: "connector is stopping" in process.log, DEADLINE)
        assert (await scheduler.reply())["_state"] == "completed"
        assert await process.ended() == 0


async def test_a_second_signal_waits_for_nothing(nats_server: NatsServer, start: Any) -> None:
    """The process ends within seconds; its record says what is unfinished."""
    async with open_scheduler(nats_server) as scheduler:
        process = await start()
        scheduler.ask(before=1_000.0)
        await scheduler.first("scheduler.beat.o.aws.t")
        process.process.send_signal(signal.SIGTERM)
        await eventually(lambda: "connector is stopping" in process.log, DEADLINE)
        process.process.send_signal(signal.SIGTERM)
        assert await process.ended() == 0
        assert scheduler.on("scheduler.reply.o.aws.t") == []
        await start()
        assert (await scheduler.first("scheduler.returned.aws"))["attempts"] == ["b/a/1"]


async def test_a_killed_process_comes_back_and_acts_once(
    nats_server: NatsServer, start: Any, tmp_path: Path
) -> None:
    """It says which attempt it had begun; sent again, that finds what was done, and is answered."""
    async with open_scheduler(nats_server) as scheduler:
        process = await start()
        scheduler.ask(after=1_000.0)
        await eventually(lambda: acts(tmp_path) == ["b/a"], DEADLINE)
        process.process.kill()
        await start()
        returned = await scheduler.first("scheduler.returned.aws")
        assert returned["attempts"] == ["b/a/1"]
        scheduler.ask(after=1_000.0)
        reply = await scheduler.reply()
        assert (reply["_state"], reply["repeated"]) == ("completed", True)
        assert acts(tmp_path) == ["b/a"]


async def test_a_completed_key_is_answered_by_the_next_process(
    nats_server: NatsServer, start: Any, tmp_path: Path
) -> None:
    """The record outlives the process that made it."""
    async with open_scheduler(nats_server) as scheduler:
        process = await start()
        scheduler.ask()
        first = await scheduler.reply()
        process.process.kill()
        await start()
        assert scheduler.on("scheduler.returned.aws") == []
        scheduler.ask(attempt="b/a/2", token="again")
        assert await scheduler.reply("again") == first
        assert acts(tmp_path) == ["b/a"]


async def test_a_reply_survives_a_restart_of_the_broker(nats_server: NatsServer, start: Any) -> None:
    """What ends while the broker is away is answered when it is back."""
    async with open_scheduler(nats_server) as scheduler:
        await start()
        scheduler.ask(after=1.0)
        await scheduler.first("scheduler.beat.o.aws.t")
        nats_server.restart()
        assert (await scheduler.reply())["_state"] == "completed"


async def test_a_connector_runs_inside_a_program_of_its_own(nats_server: NatsServer) -> None:
    """`await connectors.run(url)` in a nursery serves until that is cancelled."""
    connectors = Connectors("aws")

    @connectors.create("vpc")
    async def create(context: Context) -> None: ...

    async with open_scheduler(nats_server) as scheduler, trio.open_nursery() as nursery:
        running = await nursery.start(connectors.run, nats_server.url)
        assert running.handlers == connectors.handlers
        scheduler.ask()
        assert (await scheduler.reply())["_state"] == "completed"
        nursery.cancel_scope.cancel()
