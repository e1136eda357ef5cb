"""Asking the broker whether anybody subscribes to a request's subject."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

import json

import pytest
import trio
from support.asking import ask, running
from support.brokers import NatsServer
from support.fake_bus import FakeBus
from trio.testing import MockClock

from scheduler.bus import Message
from scheduler.bus.interest import SUBJECT
from scheduler.bus.nats import open_bus
from scheduler.bus.options import BusOptions
from scheduler.bus.subjects import matches
from scheduler.control.subscribers import Subscribers


class Broker:
    """Answers with these subscriptions, and counts the questions."""

    def __init__(self, bus: FakeBus, *subjects: str) -> None:
        self.bus = bus
        self.subjects = list(subjects)
        self.asked = 0

    async def answer(self) -> None:
        await self.bus.subscribe(SUBJECT, self._answer)

    def _answer(self, message: Message) -> None:
        self.asked += 1
        data = {"connections": [{"subscriptions_list": self.subjects}], "total": 1}
        self.bus.publish(message.reply, json.dumps({"data": data}).encode())


async def test_a_subject_has_subscribers_or_not(fake_bus: FakeBus, autojump_clock: MockClock) -> None:
    """Patterns count; whoever hears everything is no connector."""
    await Broker(fake_bus, "vpc.*.aws", ">", "*.>").answer()
    found = await Subscribers(fake_bus).among(["vpc.create.aws", "net.create.aws"])
    assert found == {"vpc.create.aws": True, "net.create.aws": False}


async def test_many_who_ask_at_once_cost_one_question(fake_bus: FakeBus, autojump_clock: MockClock) -> None:
    """The answer is good for a second, and no longer."""
    broker = Broker(fake_bus, "vpc.create.aws")
    await broker.answer()
    subscribers = Subscribers(fake_bus)
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(subscribers.among, ["vpc.create.aws"])
    assert broker.asked == 1
    broker.subjects.clear()
    await trio.sleep(1.1)
    assert await subscribers.among(["vpc.create.aws"]) == {"vpc.create.aws": False}
    assert broker.asked == 2


async def test_inboxes_of_thousands_of_connections_are_not_compared(
    fake_bus: FakeBus, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what begins like the subject, or with any word: otherwise that holds up all builds."""
    compared: list[str] = []

    def matching(pattern: str, subject: str) -> bool:
        compared.append(pattern)
        return matches(pattern, subject)

    monkeypatch.setattr("scheduler.control.subscribers.matches", matching)
    await Broker(fake_bus, *(f"_INBOX.{n}.*" for n in range(1_000)), "*.create.aws", "vpc.get.*").answer()
    found = await Subscribers(fake_bus).among(["vpc.create.aws", "vpc.get.aws"])
    assert found == {"vpc.create.aws": True, "vpc.get.aws": True}
    assert set(compared) == {"*.create.aws", "vpc.get.*"}


async def test_nothing_in_flight_asks_nothing(fake_bus: FakeBus) -> None:
    """Without a subject there is nothing to be known."""
    broker = Broker(fake_bus)
    await broker.answer()
    assert await Subscribers(fake_bus).among([]) == {}
    assert broker.asked == 0


async def test_a_broker_that_does_not_tell_is_left_alone(
    fake_bus: FakeBus, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For half a minute; nothing is claimed meanwhile, and nobody waits."""
    questions: list[str] = []
    await fake_bus.subscribe(SUBJECT, lambda message: questions.append(message.subject))
    subscribers = Subscribers(fake_bus)
    began = trio.current_time()
    assert await subscribers.among(["vpc.create.aws"]) == {}
    assert await subscribers.among(["vpc.create.aws"]) == {}
    assert trio.current_time() - began < 1.5
    assert len(questions) == 1
    await trio.sleep(31)
    await subscribers.among(["vpc.create.aws"])
    assert len(questions) == 2


async def test_asking_again_and_again_leaves_nothing_behind(
    fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    """No handler, and no subscription."""
    await Broker(fake_bus).answer()
    before = len(fake_bus._on_refused), len(fake_bus.interests)
    for _ in range(3):
        await Subscribers(fake_bus).among(["vpc.create.aws"])
    assert (len(fake_bus._on_refused), len(fake_bus.interests)) == before


async def test_why_says_that_a_connector_has_gone() -> None:
    """It took the request, and is not subscribed any more; the build, and the component, say so."""
    async with running() as site:
        await Broker(site.bus, "other.create.aws").answer()
        for more in ({}, {"component": "a"}):
            [reason] = (await ask(site, "why", **more))["reasons"]
            assert reason["connector"] == "gone"
            assert "scheduler retry b1 a --now" in reason["cures"]


@pytest.mark.integration
async def test_a_server_tells_who_subscribes(nats_server: NatsServer) -> None:
    """A connector that leaves is missed."""
    options = BusOptions((nats_server.url,))
    async with open_bus(options) as ours, open_bus(options) as connector:
        subscription = await connector.subscribe("vpc.create.aws", lambda _: None, queue="q")
        await connector.flush()
        assert await Subscribers(ours).among(["vpc.create.aws"]) == {"vpc.create.aws": True}
        await subscription.unsubscribe()
        await connector.flush()
        assert await Subscribers(ours).among(["vpc.create.aws"]) == {"vpc.create.aws": False}
