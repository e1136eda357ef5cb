"""Prober: a process apart from the attack that measures the times of its own builds and questions.

Every `PERIOD` seconds it submits a build of one component, on a connection and with a user of its own, asks
``$SRV.PING``, and sends a message to itself through the broker, which tells what is the machine's fault. Its
time counts from when it was due, whatever became of the ones before, so a stall is not hidden.
"""

import asyncio
import contextlib
import json
import sys
from collections.abc import Awaitable, Callable
from time import perf_counter

import psutil  # type: ignore[import-untyped]
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from benchmarks.hostile.broker import User, log_in

READY = "ready"
PERIOD = 0.1
"""Seconds."""
PATIENCE = 60.0
"""Seconds until an answer or a report counts as none."""
_ACTION = "build.patch"
"""Action that no attack uses, so that only our reports arrive on it."""
_SUBJECT = "probe.create.healthy"
_ECHO = "bench.healthy"
_LOOK = 0.05
"""Seconds between two looks at how much memory the scheduler has."""


class FailedError(Exception):
    """Healthy build that was refused or failed."""


class Prober:
    """Probes, and what they found.

    Args:
        url: the broker's.
        pid: the scheduler's process.
    """

    def __init__(self, url: str, pid: int) -> None:
        self.url = url
        self.pid = pid
        self.samples: dict[str, list[tuple[float, float | None]]] = {
            "build": [],
            "ping": [],
            "echo": [],
            "work": [],
        }
        """When it was due, and how many seconds it took; None: refused, failed, or not within `PATIENCE`.

        As ``work``: the seconds of CPU time that the scheduler had meanwhile, which no other process adds to.
        """
        self.resident: list[tuple[float, int]] = []
        self.faults: list[str] = []
        self._reports: dict[str, asyncio.Future[bool]] = {}
        self._over = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Probe until `stop`, and wait for what is outstanding."""
        self._submitter = await log_in(self.url, User.HEALTHY)
        self._connector = await log_in(self.url, User.CONNECTOR)
        await self._connector.subscribe(_SUBJECT, cb=_apply)
        await self._connector.subscribe(_ECHO, cb=_echo)
        for how in ("done", "error"):
            await self._submitter.subscribe(f"{_ACTION}.{how}", cb=self._on_report)
        await asyncio.gather(self._connector.flush(), self._submitter.flush())
        sys.stdout.write(f"{READY}\n")
        sys.stdout.flush()
        looking = asyncio.create_task(self._look())
        began, number = perf_counter(), 0
        while not self._over.is_set():
            due = began + number * PERIOD
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), max(0.0, due - perf_counter()))
            self._begin("build", due, self._build(f"healthy-{self.pid}-{number}"))
            self._begin("ping", due, self._request("$SRV.PING.scheduler"))
            self._begin("echo", due, self._request(_ECHO))
            number += 1
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=PATIENCE / 2)
        for task in (looking, *self._tasks):
            task.cancel()
        await asyncio.gather(looking, *self._tasks, return_exceptions=True)

    def obey(self, order: str) -> None:
        """Go on with the scheduler whose process this is, or, where there is none, come to an end."""
        if order.strip():
            self.pid = int(order)
        else:
            self._over.set()

    def _begin(self, kind: str, due: float, probe: Awaitable[None]) -> None:
        task = asyncio.ensure_future(self._take_time(kind, due, probe))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _take_time(self, kind: str, due: float, probe: Awaitable[None]) -> None:
        seconds: float | None = None
        before = self._cpu()
        try:
            async with asyncio.timeout(PATIENCE):
                await probe
            seconds = perf_counter() - due
            if kind == "build":
                self.samples["work"].append((due, self._cpu() - before))
        except (NatsError, FailedError, TimeoutError) as error:
            self.faults.append(f"{kind}: {error!r:.300}")
        finally:
            self.samples[kind].append((due, seconds))

    def _cpu(self) -> float:
        with contextlib.suppress(psutil.Error):
            times = psutil.Process(self.pid).cpu_times()
            return float(times.user + times.system)
        return 0.0

    async def _build(self, name: str) -> None:
        change = {
            "_component_id": "probe::1",
            "_component": "probe",
            "_action": "create",
            "_provider": "healthy",
            "_state": "waiting",
            "label": "{{ build.id }}",
        }
        document = {"id": name, "components": [], "changes": [change], "edges": []}
        report = self._reports[name] = asyncio.get_running_loop().create_future()
        try:
            data = json.dumps(document).encode()
            answer = await self._submitter.request(_ACTION, data, timeout=PATIENCE)
            if json.loads(answer.data).get("status") != "accepted":
                raise FailedError(answer.data[:300])
            if not await report:
                raise FailedError("errored")
        finally:
            del self._reports[name]

    async def _on_report(self, message: Msg) -> None:
        report = self._reports.get(json.loads(message.data)["id"])
        if report is not None and not report.done():
            report.set_result(message.subject.endswith(".done"))

    async def _request(self, subject: str) -> None:
        await self._connector.request(subject, b"", timeout=PATIENCE)

    async def _look(self) -> None:
        while True:
            with contextlib.suppress(psutil.Error):
                self.resident.append((perf_counter(), psutil.Process(self.pid).memory_info().rss))
            await asyncio.sleep(_LOOK)


async def _apply(message: Msg) -> None:
    component = json.loads(message.data)
    await message.respond(json.dumps(component | {"_state": "completed"}).encode())


async def _echo(message: Msg) -> None:
    await message.respond(b"")


def _read_orders(obey: Callable[[str], object]) -> None:
    for line in sys.stdin:
        obey(line)
    obey("")


async def main(url: str, pid: int) -> None:
    """Probe until standard input ends; then print the results."""
    prober = Prober(url, pid)
    loop = asyncio.get_running_loop()
    loop.run_in_executor(None, _read_orders, lambda order: loop.call_soon_threadsafe(prober.obey, order))
    await prober.run()
    found = {"samples": prober.samples, "resident": prober.resident, "faults": prober.faults[:20]}
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
