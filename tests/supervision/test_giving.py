"""Builds that an instance gives to another one while they run, and those that it is offered."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from msgspec.structs import replace
from support.durable import Fate, Plant, Process, flat, log_of, until
from support.fake_bus import FakeBus
from support.fakes import change, document, encode, ignore
from support.instances import Other
from trio.testing import MockClock

import scheduler.supervision.giving
from scheduler.bus import Message
from scheduler.config import parse_rules
from scheduler.errors import LogRemoved
from scheduler.fleet import rebalancing
from scheduler.fleet.lease import Load, Standing
from scheduler.fleet.rebalancing import ACCEPT_REST, REFUSED_REST, REST, SETTLED
from scheduler.journal.records import GIVEN_HEADER, Position, instance_of
from scheduler.stores.jetstream import JetStreamStore
from scheduler.supervision.draining import give_away

GIVEN = "Scheduler-Given-To"
"""Header of the record with which a build is left; other versions know it by this name."""


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Builds of three components are large."""
    monkeypatch.setattr(rebalancing, "LEAST_GAP", 2)
    monkeypatch.setattr(rebalancing, "LEAST_SIZE", 1)
    monkeypatch.setattr(scheduler.supervision.giving, "LEAST_GAP", 2)


class Scene:
    """A scheduler with builds, and an idle one beside it that says what a test wants."""

    def __init__(self, plant: Plant, process: Process, other: Other) -> None:
        self.plant = plant
        self.process = process
        self.other = other

    @property
    def told(self) -> list[str]:
        """Verbs that the other one was told about builds."""
        return [verb for verb, _, _ in self.other.asked]

    async def offer(self, components: int = 2, load: int = 9, build: str = "b9") -> bool:
        """Offer a build to the scheduler; whether it agrees."""
        bus = self.process.bus
        body = encode({"build": build, "components": components, "load": load, "by": "beta"})
        answers: list[Message] = []
        inbox = bus.new_inbox()
        await bus.subscribe(inbox, answers.append)
        fleet = self.process.service.persistence.fleet
        assert fleet is not None
        bus.publish(f"{fleet.subject}offer", body, reply=inbox)
        await until(lambda: answers, 5)
        takes: bool = json.loads(answers[0].data)["takes"]
        return takes


@asynccontextmanager
async def opened(
    builds: int = 2, *, takes: bool | None = True, gated: bool = False, **settings: Any
) -> AsyncIterator[Scene]:
    """The scene; ``takes``: what the other one says to an offer, None: nothing; ``gated``: none is sent."""
    plant = Plant(ignore, **settings)

    def says(verb: str, _: Any) -> Any:
        return {"takes": takes} if verb == "offer" and takes is not None else None

    async with plant.run() as process, trio.open_nursery() as nursery:
        for number in range(builds):
            first = change("a", action="approve") if gated else "a"
            chain = document([first, "b", "c"], [("a", "b"), ("b", "c")]) | {"id": f"b{number + 1}"}
            assert (await process.submit(chain))["status"] == "accepted"
        other = Other(plant.broker, says=says)
        other.lease = replace(other.lease, load=Load())
        await other.open(nursery)
        yield Scene(plant, process, other)
        nursery.cancel_scope.cancel()


def slow_down(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """The broker takes a while to say what has reached it."""
    flush = FakeBus.flush

    async def slow(bus: FakeBus) -> None:
        await trio.sleep(seconds)
        await flush(bus)

    monkeypatch.setattr(FakeBus, "flush", slow)


async def test_a_build_is_left_to_the_idle_instance(autojump_clock: MockClock) -> None:
    """By its last record it has no owner, and is for that instance; what has left is known to have left."""
    async with opened() as scene:
        broker = scene.plant.broker
        await until(lambda: any(GIVEN in one for one in broker.headers("b1")), 60)
        last = broker.headers("b1")[-1]
        assert (last[GIVEN_HEADER], instance_of(last["Scheduler-Record"])) == ("other", "")
        assert flat(broker.told("b1"))[-1] == "sent a"
        assert not any(GIVEN in one for one in broker.headers("b2"))
        await until(lambda: "given" in scene.told, 1)
        assert scene.told == ["offer", "given"]


async def test_what_has_just_left_is_recorded_before_the_build_is_given_away(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise its next owner would send it again."""
    monkeypatch.setattr(rebalancing, "SETTLED", 0.0)
    monkeypatch.setattr(scheduler.supervision.giving, "PERIOD", 0.01)
    monkeypatch.setattr(scheduler.stores.jetstream, "_LULL", 1_000.0)
    async with opened() as scene:
        broker = scene.plant.broker
        await until(lambda: any(GIVEN in one for one in broker.headers("b1")), 60)
        assert "sent a" in flat(broker.told("b1"))


async def test_a_build_is_given_away_only_once_a_slow_broker_has_said_what_has_left(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is in a hurry: with `never` its next owner would fail what is not known to have left."""
    monkeypatch.setattr(rebalancing, "SETTLED", 0.0)
    monkeypatch.setattr(scheduler.supervision.giving, "PERIOD", 0.01)
    monkeypatch.setattr(scheduler.stores.jetstream, "_LULL", 1_000.0)
    slow_down(monkeypatch, 3)
    async with opened() as scene:
        broker = scene.plant.broker
        await until(lambda: any(GIVEN in one for one in broker.headers("b1")), 60)
        assert "sent a" in flat(broker.told("b1"))


async def test_what_was_about_to_be_sent_is_withdrawn_however_slow_the_log_is(
    autojump_clock: MockClock,
) -> None:
    """Its next owner would send it again, or fail it with `never`, as if it might have left."""
    async with opened(builds=1) as scene, trio.open_nursery() as nursery:
        broker, process = scene.plant.broker, scene.process
        await until(lambda: "sent a" in flat(broker.told("b1")), 5)
        broker.line.plan(log_of("b1"), Fate.HOLD)
        (asked,) = [message for message, _ in scene.plant.requests]
        broker.publish(asked.reply, encode({**json.loads(asked.data), "_state": "completed"}))
        await broker.line.reached(log_of("b1"))
        walk = process.service.roster.walk("b1")
        assert walk is not None
        nursery.start_soon(give_away, walk, process.store, "other")
        await trio.sleep(3)
        broker.line.release()
        await until(lambda: any(GIVEN in one for one in broker.headers("b1")), 5)
        assert flat(broker.told("b1"))[-2:] == ["started b", "withdrawn b"]


async def test_a_build_given_away_while_nothing_was_in_flight_is_forgotten(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it is taken back its log goes on with the replies, as that of any other build."""
    slow_down(monkeypatch, 0.4)
    async with opened(gated=True) as scene:
        store = scene.process.store
        await until(lambda: any(GIVEN in one for one in scene.plant.broker.headers("b1")), 60)
        await until(lambda: not scene.process.service.roster.holds("b1"), 1)
        await trio.sleep(1)
        store.positions.see(Position(99, 1))
        assert store.positions.position("b1") == store.positions.seen


async def test_a_build_that_nobody_takes_is_taken_back(autojump_clock: MockClock) -> None:
    """After the head start of the other one; what is in flight is awaited, and not sent again."""
    async with opened() as scene:
        broker = scene.plant.broker
        await until(lambda: any(GIVEN in one for one in broker.headers("b1")), 60)
        await until(lambda: "loading" in flat(broker.told("b1")), 8)
        await trio.sleep(5)
        (asked,) = [message for message, body in scene.plant.requests if body["service"] == "b1"]
        broker.publish(asked.reply, encode({**json.loads(asked.data), "_state": "completed"}))
        await until(lambda: "started b" in flat(broker.told("b1")), 5)
        assert sorted(scene.process.requests) == ["a", "a", "b"]


async def test_an_instance_that_does_not_take_what_it_gets_is_offered_nothing_more(
    autojump_clock: MockClock,
) -> None:
    """For some minutes; the build that was taken back stays for longer."""
    async with opened() as scene:
        await until(lambda: "given" in scene.told, 60)
        await trio.sleep(REFUSED_REST - 5)
        assert scene.told == ["offer", "given"]
        await trio.sleep(REST)
        offered = [question["build"] for verb, question, _ in scene.other.asked if verb == "offer"]
        assert offered == ["b1", "b2"]


@pytest.mark.parametrize("takes", [False, None])
async def test_an_instance_that_does_not_agree_gets_nothing(
    autojump_clock: MockClock, takes: bool | None
) -> None:
    """One of an earlier version says nothing; it is asked again much later."""
    async with opened(takes=takes) as scene:
        await until(lambda: scene.told, 60)
        await trio.sleep(REFUSED_REST - 10)
        assert scene.told == ["offer"]
        assert not any(GIVEN in one for name in ("b1", "b2") for one in scene.plant.broker.headers(name))
        assert len(scene.process.service.roster.walks()) == 2


async def test_a_build_that_is_all_there_is_stays(autojump_clock: MockClock) -> None:
    """The other one would be loaded then."""
    async with opened(builds=1) as scene:
        await trio.sleep(SETTLED + 60)
        assert scene.told == []


async def test_an_instance_that_drains_is_offered_nothing(autojump_clock: MockClock) -> None:
    """It hands over what it has."""
    async with opened() as scene:
        scene.other.renews = False
        await scene.other.renew(Standing.DRAINING)
        await trio.sleep(SETTLED + 4)
        assert scene.told == []


async def test_a_paused_build_stays(autojump_clock: MockClock) -> None:
    """It would have nothing to do there."""
    async with opened() as scene:
        for walk in scene.process.service.roster.walks():
            await walk.steer().pause()
        await trio.sleep(SETTLED + 30)
        assert scene.told == []


@pytest.mark.parametrize(("limit", "moves"), [("vpc.create.*=9", False), ("disk.create.*=9", True)])
async def test_a_build_with_a_limited_request_in_flight_stays(
    autojump_clock: MockClock, limit: str, moves: bool
) -> None:
    """The request would not be counted while the build changes hands. Others do not matter."""
    async with opened(rules=parse_rules(limit)) as scene:
        scene.other.lease = replace(scene.other.lease, limits=(limit,))
        (subject,) = {
            call.request.subject for walk in scene.process.service.roster.walks() for call in walk.calls()
        }
        assert subject.startswith("vpc.create.")
        await trio.sleep(SETTLED + 30)
        assert ("given" in scene.told) is moves


async def test_a_build_stays_while_instances_differ_in_their_limits(autojump_clock: MockClock) -> None:
    """Which requests count is not sure then."""
    async with opened(rules=parse_rules("disk.create.*=9")) as scene:
        await trio.sleep(SETTLED + 30)
        assert scene.told == []


async def test_an_idle_instance_agrees_to_one_build_at_a_time(autojump_clock: MockClock) -> None:
    """The others do not know yet that it is not idle any more."""
    async with opened(builds=0) as scene:
        assert await scene.offer()
        assert not await scene.offer()
        await trio.sleep(ACCEPT_REST)
        assert await scene.offer()


async def test_an_instance_refuses_what_would_make_it_loaded(autojump_clock: MockClock) -> None:
    """It compares with what it has at that moment: six components, in two builds."""
    async with opened(takes=False) as scene:
        assert not await scene.offer(components=4, load=13)
        assert not await scene.offer(components=2, load=11)
        assert await scene.offer(components=3, load=12)


async def test_an_instance_refuses_a_build_that_it_would_not_take_up(autojump_clock: MockClock) -> None:
    """It could not read its log before, and does not try again: its giver would wait in vain."""
    async with opened(builds=0) as scene:
        scene.process.service.roster.left["b9"] = "beyond this version"
        assert not await scene.offer(build="b9")
        assert await scene.offer(build="b8")


async def test_an_instance_that_ends_refuses(autojump_clock: MockClock) -> None:
    """It is handing over what it has."""
    async with opened(builds=0) as scene:
        scene.process.service.roster.send_nothing()
        assert not await scene.offer()


async def test_what_no_instance_says_is_ignored(autojump_clock: MockClock) -> None:
    """It is answered to nobody, and does no harm."""
    async with opened(builds=0) as scene:
        fleet = scene.process.service.persistence.fleet
        assert fleet is not None
        for verb in ("offer", "given"):
            for data in (b"", b"[]", b"\xff", b'{"build": 1}'):
                scene.process.bus.publish(f"{fleet.subject}{verb}", data, reply="_INBOX.x")
        await trio.sleep(1)
        assert await scene.offer()


async def test_a_build_whose_log_was_removed_meanwhile_is_reported_here(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No other instance can know of it any more."""

    async def removed(*_: object) -> None:
        await trio.lowlevel.checkpoint()
        raise LogRemoved("the log was removed by hand")

    monkeypatch.setattr(JetStreamStore, "give", removed)
    async with opened() as scene:
        await until(lambda: scene.plant.broker.reports("b1"), 60)
        assert "given" not in scene.told
        assert not scene.process.service.roster.quarantined
