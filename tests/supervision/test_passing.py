"""Builds that are passed on to another instance, and what becomes of them when it does not answer."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from attrs import define, field
from support.durable import until
from support.fake_bus import FakeBus
from support.fakes import document, encode
from trio.testing import MockClock, wait_all_tasks_blocked

from scheduler.bus import Message
from scheduler.definition.validation import Prepared, read_build
from scheduler.errors import InvalidBuild
from scheduler.fleet.lease import Lease, Load, Member, Standing
from scheduler.supervision import passing
from scheduler.supervision.intake import Receipts
from scheduler.supervision.passing import Passing
from scheduler.supervision.reception import Reception
from scheduler.supervision.refusals import refused
from scheduler.tracing.context import TraceContext


@define(eq=False)
class Keeper:
    """Lease of an instance, as far as its own process knows it."""

    active: int = 0
    count: int = 1
    now: float = 1_000.0
    ahead: float = 0.0
    """Seconds by which its clock is ahead."""

    def load(self) -> Load:
        return Load(components=self.active)

    def wall_clock(self) -> float:
        return self.now + trio.current_time() + self.ahead


@define(eq=False)
class Fleet:
    """The fleet as one instance sees it."""

    key: str
    keeper: Keeper = field(factory=Keeper)
    leases: dict[str, Lease] = field(factory=dict)
    fresh: bool = True

    @property
    def subject(self) -> str:
        return f"scheduler.instance.{self.key}."

    def owners(self) -> frozenset[str]:
        return frozenset({self.key, *self.leases})

    def others(self) -> list[Member]:
        return [Member(lease, 1, 0.0) for lease in self.leases.values()]

    def see(self, key: str, components: int = 0, *, standing: Standing = Standing.ACTIVE) -> None:
        self.leases[key] = Lease(key, key, standing, count=1, load=Load(components=components))


class Reader:
    """Reads each build at once."""

    def is_small(self, data: bytes) -> bool:
        return True

    async def read_submitted(self, data: bytes, action: str | None = None) -> Prepared:
        return read_build(data, action=action)


class Instance:
    """One instance: its reception, and the builds that begin there."""

    def __init__(self, bus: FakeBus, key: str, log: dict[str, str]) -> None:
        self.bus = bus
        self.fleet = Fleet(key)
        self.log = log
        """Owner of each build, in the broker: the first append counts."""
        self.submitted: list[tuple[str, str]] = []
        """Builds that were to begin here, with their senders."""
        self.contexts: dict[str, TraceContext | None] = {}
        """Trace contexts of these builds."""
        self.gate = trio.Event()
        self.gate.set()
        self.refusal: InvalidBuild | None = None
        fleet: Any = self.fleet
        self.passing = Passing(fleet, bus, self._is_unfinished)
        receipts = Receipts(bus, lambda _: False, self.passing.load)
        reader: Any = Reader()
        self.reception = Reception(bus, receipts, reader, self._submit, self.passing)

    async def _submit(self, prepared: Prepared, sender: str, context: TraceContext | None) -> bool:
        build = prepared.build.id
        self.submitted.append((build, sender))
        self.contexts[build] = context
        await self.gate.wait()
        if self.refusal is not None:
            raise self.refusal
        self.log.setdefault(build, self.fleet.key)
        return False

    async def _is_unfinished(self, build: str) -> bool:
        return build in self.log

    @property
    def begun(self) -> list[str]:
        return [build for build, _ in self.submitted]

    def take(self, build: str = "b1", *, reply: str = "_INBOX.client.1", **more: Any) -> None:
        """Have a build come in here, as the queue group chose this instance."""
        self.take_bytes(encode({**document("a", id=build), **more}), reply=reply)

    def take_bytes(
        self, data: bytes, *, reply: str = "_INBOX.client.1", headers: Mapping[str, str] | None = None
    ) -> None:
        self.reception._admission.on_build(Message("build.create", data, reply, headers))


class Site:
    """Two instances, ``a`` that gets builds and is loaded, and ``b`` that is idle."""

    def __init__(self) -> None:
        self.bus = FakeBus()
        self.log: dict[str, str] = {}
        self.a, self.b = Instance(self.bus, "a", self.log), Instance(self.bus, "b", self.log)
        self.a.fleet.keeper.active = 900
        self.a.fleet.see("b")
        self.b.fleet.see("a", 900)

    def answers(self, reply: str = "_INBOX.client.1") -> list[Any]:
        return [json.loads(one.data) for one in self.bus.published if one.subject == reply]

    def passed(self) -> list[str]:
        return [one.subject for one in self.bus.published if one.subject.endswith(".submit")]

    def hang(self, instance: Instance) -> None:
        """Let nothing that is passed on reach an instance, although it subscribes."""
        for interest in self.bus.interests.values():
            if interest.subject == f"{instance.fleet.subject}submit":
                interest.handler = lambda _: None

    def end(self, instance: Instance) -> None:
        """Let an instance subscribe to nothing any more."""
        for interest in list(self.bus.interests.values()):
            if interest.subject == f"{instance.fleet.subject}submit":
                self.bus.end(interest)


@asynccontextmanager
async def site() -> AsyncIterator[Site]:
    one = Site()
    async with one.a.reception.open(), one.b.reception.open():
        yield one


ACCEPTED = {"id": "b1", "status": "accepted"}


async def test_a_build_takes_its_trace_context_along_and_nothing_else_of_its_headers(
    autojump_clock: MockClock,
) -> None:
    trace, state = f"00-{'a' * 32}-{'b' * 16}-01", "vendor=1"
    headers = {"Traceparent": trace, "TRACESTATE": state, "Other": "1"}
    async with site() as found:
        found.a.take_bytes(encode(document("a", id="b1")), headers=headers)
        await until(lambda: bool(found.b.contexts))
    [(build, context)] = found.b.contexts.items()
    assert (build, context) == ("b1", TraceContext("a" * 32, "b" * 16, 1, state))
    [passed] = [one for one in found.bus.published if one.subject.endswith(".submit")]
    assert passed.headers is not None
    assert (passed.headers["traceparent"], passed.headers["tracestate"]) == (trace, state)
    assert "Other" not in passed.headers


async def test_a_build_begins_where_it_fits_best_and_its_sender_hears_of_it(
    autojump_clock: MockClock,
) -> None:
    """Once, with the answer of the instance that has it; its sender keeps its turn there."""
    async with site() as found:
        found.a.take()
        await trio.sleep(0.1)
        assert found.a.begun == []
        assert found.b.submitted == [("b1", "reply _INBOX.client")]
        assert found.answers() == [ACCEPTED]


async def test_alone_nothing_is_passed_on(autojump_clock: MockClock) -> None:
    """Nor looked at for that."""
    async with site() as found:
        found.a.fleet.leases.clear()
        found.a.take()
        await trio.sleep(0.1)
        assert found.a.begun == ["b1"]
        assert found.passed() == []


async def test_what_was_passed_on_is_not_passed_on_again(autojump_clock: MockClock) -> None:
    """Even where this instance has more to do than the one that it comes from."""
    async with site() as found:
        found.b.fleet.keeper.active = 5_000
        found.a.take()
        await trio.sleep(0.1)
        assert found.b.begun == ["b1"]
        assert len(found.passed()) == 1


async def test_a_refusal_of_the_build_itself_is_given_as_it_is(autojump_clock: MockClock) -> None:
    """With all that is wrong with it; nobody else is asked."""
    async with site() as found:
        found.a.take(action="nonsense", changes=[{"_component_id": 7}])
        await trio.sleep(0.1)
        [answer] = found.answers()
        assert (answer["id"], answer["status"], answer["error"]["code"]) == ("b1", "rejected", "invalid")
        assert answer["error"]["details"]
        assert found.a.begun == found.b.begun == []


@pytest.mark.parametrize("code", ["busy", "shutting_down"])
async def test_where_the_other_one_cannot_take_it_this_one_does(code: str, autojump_clock: MockClock) -> None:
    """And for a while that one is asked no more."""
    async with site() as found:
        found.b.refusal = refused(code, "not now")
        found.a.take()
        await trio.sleep(0.1)
        found.a.take("b2")
        await trio.sleep(0.1)
        assert found.b.begun == ["b1"]
        assert found.a.begun == ["b1", "b2"]
        assert [answer["status"] for answer in found.answers()] == ["accepted"] * 2


async def test_where_nobody_can_take_it_it_is_refused_once(autojump_clock: MockClock) -> None:
    """With the last reason."""
    async with site() as found:
        found.a.refusal = found.b.refusal = refused("busy", "not now")
        found.a.take()
        await trio.sleep(0.1)
        [answer] = found.answers()
        assert answer["error"]["code"] == "busy"


async def test_where_the_other_one_is_not_there_this_one_takes_it_at_once(autojump_clock: MockClock) -> None:
    """The broker says that nobody subscribes: an earlier version, or one that has just gone."""
    async with site() as found:
        found.end(found.b)
        found.a.take()
        await trio.sleep(0.1)
        assert found.a.begun == ["b1"]
        assert found.answers() == [ACCEPTED]


async def test_where_the_other_one_says_nothing_this_one_takes_it_after_two_seconds(
    autojump_clock: MockClock,
) -> None:
    """It may hang; then it rests."""
    async with site() as found:
        found.hang(found.b)
        found.a.take()
        await trio.sleep(1.9)
        assert found.a.begun == []
        await trio.sleep(0.2)
        assert found.a.begun == ["b1"]
        found.a.take("b2")
        await trio.sleep(0.1)
        assert found.a.begun == ["b1", "b2"]


async def test_one_that_has_the_build_is_waited_for(autojump_clock: MockClock) -> None:
    """It may have to read a large one for longer than others wait for a word."""
    async with site() as found:
        found.b.gate = trio.Event()
        found.a.take()
        await trio.sleep(60)
        assert found.a.begun == []
        found.b.gate.set()
        await trio.sleep(0.1)
        assert found.answers() == [ACCEPTED]
        assert found.a.begun == []


async def test_when_that_one_goes_this_one_takes_the_build(autojump_clock: MockClock) -> None:
    """As soon as its lease has run out."""
    async with site() as found:
        found.b.gate = trio.Event()
        found.a.take()
        await trio.sleep(15)
        found.a.fleet.leases.clear()
        await trio.sleep(1)
        assert found.a.begun == ["b1"]
        assert found.answers() == [ACCEPTED]


async def test_when_the_connection_is_lost_this_one_takes_the_build(autojump_clock: MockClock) -> None:
    """The answer may be lost with it."""
    async with site() as found:
        found.b.gate = trio.Event()
        found.a.take()
        await trio.sleep(1)
        found.bus.disconnect()
        found.bus.reconnect()
        await trio.sleep(1)
        assert found.a.begun == ["b1"]


async def test_when_both_take_it_the_log_has_one_owner_and_the_sender_one_answer(
    autojump_clock: MockClock,
) -> None:
    """The first append decides; what the other one says then reaches nobody."""
    async with site() as found:
        found.b.gate = trio.Event()
        found.a.take()
        await trio.sleep(1)
        found.a.fleet.leases.clear()
        await trio.sleep(1)
        found.b.gate.set()
        await trio.sleep(1)
        assert (found.a.begun, found.b.begun) == (["b1"], ["b1"])
        assert found.log == {"b1": "a"}
        assert found.answers() == [ACCEPTED]


async def test_a_build_nobody_asks_about_is_kept_until_the_other_one_has_it(
    autojump_clock: MockClock,
) -> None:
    """Ernest's mapper publishes and forgets: where the other one is lost, this one has it still."""
    async with site() as found:
        found.b.gate = trio.Event()
        found.a.take(reply="")
        await trio.sleep(5)
        assert found.a.reception.bytes > 0
        found.a.fleet.leases.clear()
        await trio.sleep(1)
        assert found.log == {"b1": "a"}


async def test_where_nobody_asked_a_refusal_is_published_once(autojump_clock: MockClock) -> None:
    """By the instance that got the build."""
    async with site() as found:
        found.a.take(reply="", changes=[{"_component_id": 7}])
        await trio.sleep(0.1)
        [error] = [one for one in found.bus.published if one.subject == "build.create.error"]
        assert json.loads(error.data)["id"] == "b1"


async def test_no_refusal_is_published_while_a_build_of_that_id_runs_elsewhere(
    autojump_clock: MockClock,
) -> None:
    """Whoever keeps builds would take the running one for failed."""
    async with site() as found:
        found.log["b1"] = "b"
        found.a.take(reply="", changes=[{"_component_id": 7}])
        await trio.sleep(0.1)
        assert [one for one in found.bus.published if one.subject == "build.create.error"] == []


async def test_one_that_stops_passes_everything_on(autojump_clock: MockClock) -> None:
    """Whatever it has to do, also what waits already; none is refused."""
    async with site() as found:
        found.a.fleet.keeper.active, found.b.fleet.keeper.active = 0, 900
        found.a.fleet.see("b", 900)
        found.a.gate = trio.Event()
        found.a.refusal = refused("shutting_down", "the scheduler is shutting down")
        found.a.take()
        await wait_all_tasks_blocked()
        assert found.a.begun == ["b1"]
        found.a.reception.stop_reading()
        found.a.gate.set()
        found.a.take("b2", reply="_INBOX.client.2")
        await trio.sleep(0.1)
        assert sorted(found.b.begun) == ["b1", "b2"]
        assert found.answers() + found.answers("_INBOX.client.2") == [ACCEPTED, {**ACCEPTED, "id": "b2"}]


async def test_one_whose_lease_has_run_out_passes_everything_on(autojump_clock: MockClock) -> None:
    """Its builds are about to be taken over."""
    async with site() as found:
        found.a.fleet.keeper.active, found.a.fleet.fresh = 0, False
        found.a.take()
        await trio.sleep(0.1)
        assert found.b.begun == ["b1"]


async def test_a_build_that_was_long_under_way_is_refused(autojump_clock: MockClock) -> None:
    """Taken here by then, it may have ended and be forgotten; so it is where the clocks are far apart."""
    async with site() as found:
        found.b.fleet.keeper.ahead = 11
        found.a.take()
        await trio.sleep(0.1)
        assert found.b.begun == []
        assert found.a.begun == ["b1"]


@pytest.mark.parametrize(
    "headers",
    [
        None,
        {},
        {"Scheduler-Intake": "scheduler.log.b1", "Scheduler-Expires": "2000"},
        {"Scheduler-Intake": "build.create"},
        {"Scheduler-Intake": "build.create", "Scheduler-Expires": "soon"},
    ],
)
async def test_what_no_instance_has_passed_on_is_ignored(
    headers: dict[str, str] | None, autojump_clock: MockClock
) -> None:
    """It is no build of a sender."""
    async with site() as found:
        found.bus.deliver(
            "scheduler.instance.b.submit", encode(document("a")), reply="_INBOX.x.1", headers=headers
        )
        await trio.sleep(0.1)
        assert found.b.begun == []
        assert found.answers("_INBOX.x.1") == []


async def test_two_that_pass_on_to_each_other_do_not_wait_for_each_other(autojump_clock: MockClock) -> None:
    """What comes from others has workers of its own."""
    async with site() as found:
        found.a.fleet.see("b", 0)
        found.b.fleet.keeper.active = 900
        found.b.fleet.see("a", 0)
        began = trio.current_time()
        for number in range(100):
            found.a.take(f"a{number}")
            found.b.take(f"b{number}")
        await until(lambda: len(found.log) == 200)
        assert trio.current_time() - began < 0.5


async def test_beyond_a_bound_builds_stay_here(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So many and no more wait for the answers of others."""
    monkeypatch.setattr(passing, "_MOST", 2)
    async with site() as found:
        found.b.gate = trio.Event()
        for number in range(3):
            found.a.take(f"b{number}")
        await trio.sleep(0.1)
        assert found.b.begun == ["b0", "b1"]
        assert found.a.begun == ["b2"]


async def test_beyond_a_number_of_bytes_builds_stay_here(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large ones count by their size."""
    size = len(encode(document("a", id="b0")))
    monkeypatch.setattr(passing, "_MOST_BYTES", 2 * size)
    async with site() as found:
        found.b.gate = trio.Event()
        for number in range(3):
            found.a.take(f"b{number}")
        await trio.sleep(0.1)
        assert (found.b.begun, found.a.begun) == (["b0", "b1"], ["b2"])


async def test_one_that_is_as_large_as_a_message_may_be_stays_here(autojump_clock: MockClock) -> None:
    """With the headers it would be too large."""
    async with site() as found:
        found.bus.max_payload = len(encode(document("a"))) + 20
        found.a.take()
        await trio.sleep(0.1)
        assert found.a.begun == ["b1"]


async def test_a_reference_to_an_object_is_passed_on_as_it_is(autojump_clock: MockClock) -> None:
    """The definition itself stays where it is."""
    data = encode({"id": "b1", "object": "upload/1.json"})
    async with site() as found:
        found.a.take_bytes(data)
        await trio.sleep(0.1)
        [one] = [one for one in found.bus.published if one.subject == "scheduler.instance.b.submit"]
        assert one.data == data
