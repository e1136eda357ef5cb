"""Client that submits builds with bare nats-py, and notes the times of what happens."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from time import perf_counter
from typing import Any, Self

import msgspec
import nats
from attrs import frozen
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from benchmarks import builds, connector

DEADLINE = 600.0
"""Deadline of anything, in seconds."""
_PING = "$SRV.PING.scheduler"


class BuildFailedError(Exception):
    """Build that was refused or did not complete, so that its time is no measurement."""


@frozen
class Times:
    """Times of a build, by the machine's monotonic clock, in seconds."""

    submitted: float
    accepted: float
    reported: float

    @property
    def total(self) -> float:
        """Seconds from submission to report."""
        return self.reported - self.submitted

    @property
    def accept(self) -> float:
        """Seconds from submission to the answer."""
        return self.accepted - self.submitted

    @property
    def walk(self) -> float:
        """Seconds from the answer to the report."""
        return self.reported - self.accepted


class _Head(msgspec.Struct):
    id: str = ""


class Client:
    """Client with a connection; made by `connect`."""

    def __init__(self, nats_client: NatsClient) -> None:
        self.nats = nats_client
        self._awaited: dict[str, asyncio.Future[tuple[float, bool]]] = {}

    async def listen(self, action: str = builds.ACTION) -> Self:
        """Listen for reports of builds with this action; to be called before one is submitted."""
        await self.nats.subscribe(f"{action}.done", cb=self._on_report)
        await self.nats.subscribe(f"{action}.error", cb=self._on_report)
        await self.nats.flush()
        return self

    async def _on_report(self, message: Msg) -> None:
        now = perf_counter()
        future = self._awaited.pop(msgspec.json.decode(message.data, type=_Head).id, None)
        if future is not None and not future.done():
            future.set_result((now, message.subject.endswith(".done")))

    async def submit(self, build_id: str, action: str, data: bytes) -> "Submitted":
        """Submit a build.

        Raises:
            BuildFailedError: it is refused.
        """
        future = self._awaited[build_id] = asyncio.get_running_loop().create_future()
        submitted = perf_counter()
        answer = await self.nats.request(action, data, timeout=DEADLINE)
        accepted = perf_counter()
        if msgspec.json.decode(answer.data)["status"] != "accepted":
            raise BuildFailedError(answer.data[:2_000].decode())
        return Submitted(submitted, accepted, future)

    async def run(self, build: dict[str, Any]) -> Times:
        """Submit a build and await its report.

        Raises:
            BuildFailedError: it is refused, or ends in an error.
        """
        return await (await self.submit(build["id"], build["action"], builds.encode(build))).report()

    async def eta(self, build_id: str) -> float | None:
        """Ask the scheduler for the seconds until a build is finished; None if it does not know."""
        question = msgspec.json.encode({"id": build_id, "components": False})
        answer = await self.nats.request("scheduler.build.get", question, timeout=DEADLINE)
        eta = msgspec.json.decode(answer.data).get("eta")
        return eta if isinstance(eta, float | int) else None

    async def command(self, do: str, **details: Any) -> Any:
        """Send the connector a command."""
        request = msgspec.json.encode({"do": do, **details})
        return msgspec.json.decode(
            (await self.nats.request(connector.CONTROL, request, timeout=DEADLINE)).data
        )

    async def await_service(self) -> float:
        """Return the time at which the scheduler first answers a ping of the service discovery."""
        async with asyncio.timeout(DEADLINE):
            while True:
                # Without a subscriber the broker says so at once.
                with contextlib.suppress(NatsError):
                    await self.nats.request(_PING, b"", timeout=1)
                    return perf_counter()
                await asyncio.sleep(0.002)


@frozen
class Submitted:
    """Accepted build."""

    submitted: float
    accepted: float
    _future: "asyncio.Future[tuple[float, bool]]"

    @property
    def over(self) -> bool:
        """Whether its report has arrived."""
        return self._future.done()

    async def report(self) -> Times:
        """Await the report.

        Raises:
            BuildFailedError: the build ended in an error.
        """
        async with asyncio.timeout(DEADLINE):
            reported, completed = await self._future
        if not completed:
            raise BuildFailedError("a build ended in an error; see the scheduler's log")
        return Times(self.submitted, self.accepted, reported)


@contextlib.asynccontextmanager
async def connect(url: str) -> AsyncIterator[Client]:
    """Connect a client while the context lasts."""
    client = await nats.connect(url)
    try:
        yield Client(client)
    finally:
        async with asyncio.timeout(5):
            await client.close()


def run_elsewhere(url: str, build: dict[str, Any]) -> Times:
    """Submit a build and await its report, in this process and with a new loop."""

    async def main() -> Times:
        async with connect(url) as client:
            await client.listen(build["action"])
            return await client.run(build)

    return asyncio.run(main())
