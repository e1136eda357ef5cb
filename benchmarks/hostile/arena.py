"""Arena of an attack: a login, a connector, and counts of the answers."""

import asyncio
import contextlib
import itertools
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from time import perf_counter
from typing import Any

from attrs import field, frozen
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from benchmarks.hostile.broker import MAX_PAYLOAD, User, log_in
from benchmarks.processes import NO_SETTINGS, Store

PLACEHOLDER = "@build@"
"""Placeholder for the id of a build, replaced when it is submitted."""
PROVIDER = "evil"
_PATIENCE = 120.0
_ROOM = 1_024
"""Bytes of a message that are its headers' and its subject's."""
_ANNOUNCED = 40
"""Bytes before a message, at least, which the client does not count."""
_AT_LEAST = 4.0
"""Shortest duration of an attack, in seconds: refused input is sent again."""
_numbers = itertools.count(1)


class Arena:
    """Made for one attack by `entered`."""

    def __init__(self, url: str, store: Store, restart: Callable[[], Awaitable[float]]) -> None:
        self.url = url
        self.store = store
        self.restart = restart
        """Kill the scheduler, and start another; return the seconds until that one is ready."""
        self.tally: Counter[str] = Counter()
        """Outcomes of what was sent, each in a word."""
        self.waiting = 0
        """Largest number of components of accepted, unfinished builds."""
        self.builds = 0
        """Largest number of accepted, unfinished builds."""
        self.said = ""
        """Text of the first refusal or failure."""
        self.began = 0.0
        self._reports: dict[str, asyncio.Future[str]] = {}
        self._components: dict[str, int] = {}
        self._clients: list[Client] = []

    @property
    def sent(self) -> int:
        """Bytes that went to the scheduler, in preparation or after."""
        stats = [client.stats for client in self._clients]
        return sum(one["out_bytes"] + _ANNOUNCED * one["out_msgs"] for one in stats)

    @property
    def address(self) -> tuple[str, int]:
        """URL of the broker, for attacks that do not use a client."""
        host, _, port = self.url.removeprefix("nats://").rpartition(":")
        return host, int(port)

    def begin(self) -> None:
        """Note that the preparation is finished, and the measurement begins."""
        self.tally.clear()
        self.began = perf_counter()

    def again(self) -> bool:
        """Whether the attack is to be repeated."""
        return perf_counter() - self.began < _AT_LEAST

    async def log_in(self, user: User = User.HOSTILE) -> Client:
        """Open another connection."""
        client = await log_in(self.url, user)
        self._clients.append(client)
        return client

    async def open(self) -> None:
        """Connect, and listen for reports."""
        self.nats = await self.log_in()
        self.connector = await self.log_in(User.CONNECTOR)
        for action in ("build.create", "build.import", "build.delete", "build.sync"):
            for how in ("done", "error"):
                await self.nats.subscribe(f"{action}.{how}", cb=self._on_report, pending_bytes_limit=2**30)
        await self.nats.flush()

    async def close(self) -> None:
        """Leave nothing behind."""
        for client in self._clients:
            with contextlib.suppress(NatsError, TimeoutError, OSError):
                async with asyncio.timeout(5):
                    await client.close()
        self._clients.clear()

    async def _on_report(self, message: Msg) -> None:
        # A report is the whole build, and its id the first key: it is not worth decoding it all.
        start = message.data.find(b'"id":"hostile-')
        name = message.data[start + 6 : message.data.find(b'"', start + 6)].decode()
        report = self._reports.pop(name, None)
        if report is not None and not report.done():
            done = message.subject.endswith(".done")
            self.said = self.said or ("" if done else _error(message.data))
            report.set_result("done" if done else "failed")

    async def submit(self, data: bytes, action: str = "build.create", components: int = 0) -> str | None:
        """Submit a build, and note what it is answered; gives its id where it is accepted.

        Args:
            data: as of `encode`; it gets an id of its own.
            action: the subject.
            components: how many will wait for their turn.
        """
        if len(data) > MAX_PAYLOAD - _ROOM:
            raise ValueError(f"{len(data)} bytes: the broker would cut us off")
        name = f"hostile-{next(_numbers)}"
        data = data.replace(PLACEHOLDER.encode(), name.encode(), 1)
        self._reports[name] = asyncio.get_running_loop().create_future()
        self.tally["unanswered"] += 1
        try:
            answer = await self.nats.request(action, data, timeout=_PATIENCE)
        except (NatsError, TimeoutError):
            return None
        self.tally["unanswered"] -= 1
        # Neither is this: it may hold thousands of problems.
        if b'"accepted"' not in answer.data[:1000]:
            self.tally["refused"] += 1
            self.said = self.said or answer.data[:500].decode(errors="replace")
            self._reports.pop(name, None)
            return None
        self._components[name] = components
        self.waiting = max(self.waiting, sum(self._components.values()))
        self.builds = max(self.builds, len(self._components))
        return name

    async def ended(self, name: str | None) -> None:
        """Wait for a build's report, if it was accepted."""
        report = self._reports.get(name or "")
        if report is not None:
            self.tally["going"] += 1
            how = await report
            self.tally["going"] -= 1
            self.tally[how] += 1
            self._components.pop(name or "", None)

    async def run(self, data: bytes, action: str = "build.create", components: int = 0) -> str | None:
        """Submit a build and wait for its end."""
        name = await self.submit(data, action, components)
        await self.ended(name)
        return name

    async def ask(
        self, verb: str, document: Mapping[str, Any] | bytes, client: Client | None = None
    ) -> bytes:
        """Ask an operator's question; the answer is empty where there is none."""
        client = client or self.nats
        question = document if isinstance(document, bytes) else json.dumps(document).encode()
        try:
            answer = await client.request(f"scheduler.build.{verb}", question, timeout=_PATIENCE)
        except (NatsError, TimeoutError):
            self.tally["unanswered"] += 1
            return b""
        refused = bool(answer.headers and "Nats-Service-Error" in answer.headers)
        self.tally["refused" if refused else "answered"] += 1
        return answer.data

    async def connect(
        self, kind: str, answer: Callable[[dict[str, Any]], Any], action: str = "create"
    ) -> None:
        """Be a connector: ``answer`` gives what a component became, as an object or bytes; None: no reply."""

        async def on_request(message: Msg) -> None:
            result = answer(json.loads(message.data))
            if result is not None:
                body = result if isinstance(result, bytes) else encode(result)
                if len(body) > MAX_PAYLOAD - _ROOM:
                    self.tally["too large a reply"] += 1
                await message.respond(body)

        await self.connector.subscribe(
            f"{kind}.{action}.{PROVIDER}", cb=on_request, pending_bytes_limit=2**30
        )
        await self.connector.flush()


def _error(report: bytes) -> str:
    start = report.rfind(b'"error":')
    return report[start : start + 500].decode(errors="replace")


@contextlib.asynccontextmanager
async def entered(arena: Arena) -> AsyncIterator[Arena]:
    """An arena with its connections."""
    try:
        await arena.open()
        yield arena
    finally:
        await arena.close()


Course = AsyncIterator[None]
"""An attack: it prepares, yields once when all is there, and then attacks."""


@frozen
class Attack:
    """Attack on others."""

    name: str
    course: Callable[[Arena], Course]
    limit: float
    """Seconds after which it is stopped if it does not end."""
    stores: tuple[Store, ...]
    settings: Mapping[str, str] = field(factory=lambda: NO_SETTINGS)
    signalled: bool = True
    """Whether the process gets the signals to end during it."""
    excuse: str = ""


ATTACKS: dict[str, Attack] = {}
"""Attacks by name."""


def attack(
    name: str,
    *,
    limit: float = 15.0,
    stores: Iterable[Store] = tuple(Store),
    settings: Mapping[str, str] = NO_SETTINGS,
    signalled: bool = True,
    excuse: str = "",
) -> Callable[[Callable[[Arena], Course]], Callable[[Arena], Course]]:
    """Enter a course of attack into `ATTACKS`."""

    def enter(course: Callable[[Arena], Course]) -> Callable[[Arena], Course]:
        ATTACKS[name] = Attack(name, course, limit, tuple(stores), settings, signalled, excuse)
        return course

    return enter


def component(key: int | str, kind: str = "thing", **fields: Any) -> dict[str, Any]:
    """A change of this type."""
    return {
        "_component_id": f"{kind}::{key}",
        "_component": kind,
        "_action": "create",
        "_provider": PROVIDER,
        "_state": "waiting",
        **fields,
    }


def encode(value: Any) -> bytes:
    """As compact JSON."""
    return json.dumps(value, separators=(",", ":")).encode()


def build(changes: Iterable[Any], **fields: Any) -> bytes:
    """A build that is to be given an id."""
    return encode({"id": PLACEHOLDER, "components": [], "changes": list(changes), "edges": [], **fields})


def completed(asked: dict[str, Any]) -> dict[str, Any]:
    """Return the reply of an honest connector."""
    return asked | {"_state": "completed"}
