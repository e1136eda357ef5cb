"""A connector of the kit on the bus in memory, and a scheduler's side of it."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import trio
from attrs import define, field

from scheduler.connectors import Connectors
from scheduler.connectors.engine import Engine
from support.fake_bus import FakeBus, Published

JSON = dict[str, Any]


@define
class Peer:
    """The scheduler's side: sends requests, and has their replies and heartbeats."""

    bus: FakeBus
    engine: Engine
    _number: int = field(default=0, init=False)
    _news: trio.Event = field(factory=trio.Event, init=False)

    def __attrs_post_init__(self) -> None:
        self.bus.taps.append(self._hear)

    def _hear(self, _: Published) -> bool:
        self._news.set()
        return False

    def ask(
        self,
        subject: str = "vpc.create.aws",
        body: Mapping[str, Any] | bytes | None = None,
        *,
        attempt: str = "b/a/1",
        key: str = "b/a",
        token: str = "",
        reply: bool = True,
        headers: Mapping[str, str] | None = None,
    ) -> str:
        """Send a request; return the subject of its reply."""
        self._number += 1
        end = f"o.aws.{token or self._number}"
        type_, action, provider = subject.split(".")
        ids = {"service": "b", "_component_id": f"{type_}::a", "_component": type_, "_action": action}
        component = {**ids, "_provider": provider, "_state": "running", **(body or {})} if not isinstance(
            body, bytes
        ) else body  # fmt: skip
        data = component if isinstance(component, bytes) else json.dumps(component).encode()
        names = {
            "Nats-Msg-Id": attempt,
            "Scheduler-Component-Key": key,
            "Scheduler-Heartbeat": f"scheduler.beat.{end}",
            **(headers or {}),
        }
        to = f"scheduler.reply.{end}" if reply else ""
        self.bus.deliver(
            subject, data, reply=to, headers={name: text for name, text in names.items() if text}
        )
        return to

    def cancel(self, attempt: str = "b/a/1", reason: str = "why", subject: str = "vpc.create.aws") -> None:
        """Say that an attempt was given up."""
        notice = {"attempt": attempt, "key": "b/a", "build": "b", "component": "vpc::a", "reason": reason}
        self.bus.deliver(f"scheduler.cancel.{subject}", json.dumps(notice).encode())

    def replies(self, subject: str = "") -> list[JSON]:
        """Return the replies so far, to one request or to all."""
        return [
            json.loads(message.data)
            for message in self.bus.published
            if (message.subject == subject if subject else message.subject.startswith("scheduler.reply."))
        ]

    def beats(self) -> list[JSON]:
        """Return the heartbeats so far."""
        return [
            json.loads(one.data) for one in self.bus.published if one.subject.startswith("scheduler.beat.")
        ]

    async def reply(self, subject: str = "") -> JSON:
        """Wait for the first reply."""
        with trio.fail_after(100):
            while not self.replies(subject):
                self._news = trio.Event()
                await self._news.wait()
        return self.replies(subject)[0]


@asynccontextmanager
async def open_connector(connectors: Connectors, bus: FakeBus, drain: float = 30.0) -> AsyncIterator[Peer]:
    """Run a connector until the context is left; it then ends in order."""
    engine = connectors.engine(bus, drain)
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        yield Peer(bus, engine)
        engine.stopping.set()
