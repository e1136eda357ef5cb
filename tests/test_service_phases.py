"""The order in which a service begins and ends, and what becomes of its phases when one of them fails."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from support.durable import Broker, wall_clock
from support.fake_bus import FakeBus, Published
from support.fakes import FakeStore, change, document, ignore, is_reply_subject, open_service
from trio.testing import MockClock, wait_all_tasks_blocked

from scheduler.config import Settings
from scheduler.errors import NotPermitted
from scheduler.service import Service, Stopping
from scheduler.stores import Store
from scheduler.stores.jetstream import JetStreamStore
from scheduler.stores.memory import MemoryStore
from scheduler.supervision.intake import SUBJECTS

LEFT = document([change("a", _state="running")])


class Noted:
    """What happens to a service, in order."""

    def __init__(self) -> None:
        self.steps: list[str] = []

    def add(self, step: str) -> None:
        """Note a step where it is not the same as the last one."""
        if self.steps[-1:] != [step]:
            self.steps.append(step)


class NotingBus(FakeBus):
    """A bus that notes what is subscribed to and what is given up."""

    def __init__(self, noted: Noted) -> None:
        super().__init__()
        self._noted = noted
        self.lose = self._note_request

    async def subscribe(self, subject: str, handler: Any, *, queue: str = "") -> Any:
        kind = _kind(subject)
        if kind:
            self._noted.add(f"listens for {kind}")
        return await super().subscribe(subject, handler, queue=queue)

    def _note_request(self, message: Published) -> bool:
        if message.reply.startswith("scheduler.reply."):
            self._noted.add("sends")
        return False


class NotingStore(FakeStore):
    """A store that notes when it is asked what an earlier process left."""

    def __init__(self, noted: Noted) -> None:
        super().__init__(resumable=True)
        self.documents = {"b1": LEFT}
        self._noted = noted

    async def unfinished(self) -> AsyncIterator[str]:
        self._noted.add("takes up")
        yield "b1"


def _kind(subject: str) -> str:
    if is_reply_subject(subject):
        return "replies"
    if subject in SUBJECTS:
        return "builds"
    return "questions" if subject.startswith("scheduler.build.") else ""


async def test_replies_are_heard_before_anything_is_taken_up_and_builds_are_taken_last() -> None:
    """What is answered to an earlier process finds us listening, and no build comes to half a service."""
    noted = Noted()
    async with open_service(bus=NotingBus(noted), store=NotingStore(noted), script=ignore) as site:
        await site.submit(document("c", build="b2"))
        await wait_all_tasks_blocked()
    listening = [step for step in noted.steps if step.startswith("listens")]
    assert listening == ["listens for replies", "listens for questions", "listens for builds"]
    assert noted.steps.index("listens for replies") < noted.steps.index("takes up")
    assert noted.steps[-1] == "sends"


@pytest.mark.parametrize("store", ["memory", "jetstream"])
@pytest.mark.parametrize("forbidden", ["build.create", "scheduler.build.list", "$SRV.>", "*.create.*.done"])
async def test_a_phase_that_cannot_begin_ends_those_before_it(
    autojump_clock: MockClock, store: str, forbidden: str
) -> None:
    """The error comes out, and nobody was told that the service is ready."""
    broker = Broker()
    broker.bus.forbidden.add(forbidden)
    kept: Store = MemoryStore()
    if store == "jetstream":
        await broker.set_up()
        kept = JetStreamStore(broker.bus, instance="me", wall_clock=wall_clock)
    stopping = Stopping()
    service = Service(Settings(), broker.bus, kept, stopping=stopping)
    with pytest.raises(ExceptionGroup) as raised, trio.fail_after(100):
        await service.run()
    assert raised.group_contains(NotPermitted)
    assert not stopping.ready
