"""That we are there is said by a thread of its own; where it cannot, by the loop; and by one of the two."""

import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from conftest import ServerFactory
from structlog.testing import capture_logs
from support.brokers import NatsServer, eventually

from scheduler.bus import Message, Subscription
from scheduler.bus import presence as presence_module
from scheduler.bus.companion import Companion
from scheduler.bus.discovery import Discovery, Identity
from scheduler.bus.nats import NatsBus, open_bus
from scheduler.bus.options import BusOptions
from scheduler.bus.presence import PresenceThread, open_presence

pytestmark = pytest.mark.integration


@asynccontextmanager
async def discoverable(
    server: NatsServer, silent: Callable[[], bool] = lambda: False
) -> AsyncIterator[tuple[NatsBus, PresenceThread]]:
    """A bus, and on it a service that can be found."""
    options = BusOptions((server.url,), name="scheduler test")
    async with open_bus(options) as bus, open_presence(bus, options, silent) as presence:
        await Discovery(bus, Identity("scheduler", "ID1", "1.0"), [], presence).open()
        yield bus, presence


@pytest.fixture(autouse=True)
def slow_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The service waits for the thread to answer, however slow this machine is."""
    monkeypatch.setattr(presence_module, "_BEGINNING", 60.0)


async def answers(bus: NatsBus, subject: str = "$SRV.PING", least: int = 1) -> int:
    """How many answers there are to one question: those that must come are waited for."""
    found: list[Message] = []
    inbox = bus.new_inbox()
    subscription = await bus.subscribe(inbox, found.append)
    bus.publish(subject, b"", reply=inbox)
    await eventually(lambda: len(found) >= least, 20)
    # Nothing tells that there is no other one under way.
    await trio.sleep(0.2)
    await subscription.unsubscribe()
    return len(found)


@pytest.mark.parametrize("tail", ["", ".scheduler", ".scheduler.ID1"])
async def test_each_question_has_one_answer(nats_server: NatsServer, tail: str) -> None:
    """The thread's, which is there when the service can be found; while it is away the loop's."""
    async with discoverable(nats_server) as (bus, presence):
        assert presence.answering
        assert await answers(bus, f"$SRV.PING{tail}") == 1
        presence._listening = False
        assert await answers(bus, f"$SRV.PING{tail}") == 1


async def test_what_is_asked_while_the_thread_begins_is_answered(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From its first subscription on: the loop does not listen yet, so nothing else would answer."""
    subscribed, asked = threading.Event(), threading.Event()
    original = Companion.subscribe

    async def subscribe(self: Companion, *args: Any, **options: Any) -> Subscription:
        subscription = await original(self, *args, **options)
        await self.flush()
        subscribed.set()
        await trio.to_thread.run_sync(asked.wait)
        return subscription

    monkeypatch.setattr(Companion, "subscribe", subscribe)
    options = BusOptions((nats_server.url,), name="scheduler test")
    async with (
        open_bus(options) as bus,
        open_presence(bus, options, lambda: False) as presence,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(presence.announce, ["$SRV.PING", "$SRV.PING.scheduler"], b"{}")
        try:
            await trio.to_thread.run_sync(subscribed.wait, 20)
            assert await answers(bus) == 1
        finally:
            asked.set()


async def test_while_the_loop_counts_as_gone_nothing_is_said(nats_server: NatsServer) -> None:
    """And again once it turns."""
    silent = True
    async with discoverable(nats_server, lambda: silent) as (bus, presence):
        await eventually(lambda: presence.answering, 20)
        assert await answers(bus, least=0) == 0
        silent = False
        assert await answers(bus) == 1


async def test_after_a_restart_of_the_broker_there_is_one_answer(nats_server: NatsServer) -> None:
    """The thread comes back as the first connection does."""
    async with discoverable(nats_server) as (bus, presence):
        await eventually(lambda: presence.answering, 20)
        nats_server.kill()
        nats_server.start()
        await eventually(lambda: bus.connected and presence.answering, 20)
        assert await answers(bus) == 1


async def test_where_there_is_no_second_connection_the_loop_answers(
    start_nats_server: ServerFactory,
) -> None:
    """That is said once."""
    server = start_nats_server({"max_connections": 1})
    with capture_logs() as logs:
        began = trio.current_time()
        async with discoverable(server) as (bus, presence):
            assert any("no second connection" in line["event"] for line in logs)
            assert trio.current_time() - began < 30, "it is not waited for"
            assert not presence.answering
            assert await answers(bus) == 1


async def test_no_answer_goes_to_a_subject_of_the_system(nats_server: NatsServer) -> None:
    """A question cannot have the thread write into a log."""
    async with discoverable(nats_server) as (bus, presence):
        await eventually(lambda: presence.answering, 20)
        found: list[Message] = []
        await bus.subscribe("scheduler.log.b1", found.append)
        bus.publish("$SRV.PING", b"", reply="scheduler.log.b1")
        assert await answers(bus) == 1
        assert found == []


async def test_it_ends_with_the_context(nats_server: NatsServer) -> None:
    """The thread too."""
    async with discoverable(nats_server) as (_, presence):
        await eventually(lambda: presence.answering, 20)
        thread = presence._thread
        assert thread is not None
        assert thread.is_alive()
    thread.join(10)
    assert not thread.is_alive()
