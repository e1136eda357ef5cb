"""Requests held back while this process has no right to send: when they leave, and when they never do."""

# ruff: noqa: ARG001 - a test asks for the clock by naming it

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from support.bench import request
from support.fake_bus import FakeBus, Published
from trio.testing import MockClock, wait_all_tasks_blocked

from scheduler.dispatch.client import ConnectorClient
from scheduler.dispatch.timers import Timers
from scheduler.errors import Fenced
from scheduler.plan.outcome import Outcome

SUBJECT = "vpc.create.aws"


class Right:
    """A right to send that a test gives and takes."""

    def __init__(self) -> None:
        self.held = True
        self.asked: list[str] = []
        self.lost: set[str] = set()
        """Builds that another process has taken."""
        self._given = trio.Event()

    def check(self) -> bool:
        return self.held

    async def renewed(self) -> None:
        while not self.held:
            await self._given.wait()

    async def confirm(self, build: str) -> None:
        await trio.lowlevel.checkpoint()
        self.asked.append(build)
        if build in self.lost:
            msg = "another process has it"
            raise Fenced(msg)

    def give(self) -> None:
        self.held = True
        self._given.set()
        self._given = trio.Event()


class Bench:
    """A client whose right to send can be taken."""

    def __init__(self, bus: FakeBus) -> None:
        self.bus = bus
        self.right = Right()
        self.client = ConnectorClient(bus, Timers(bus), tenure=self.right)

    @property
    def requests(self) -> list[str]:
        """Builds whose requests have reached the broker, in order."""
        return [(one.headers or {})["Nats-Msg-Id"].partition("/")[0] for one in self.published]

    @property
    def published(self) -> list[Published]:
        return [one for one in self.bus.published if one.subject == SUBJECT and one.headers]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[ConnectorClient]:
        assert self.client.sending.held is not None
        async with trio.open_nursery() as nursery:
            await nursery.start(self.client.timers.run)
            nursery.start_soon(self.client.dispatcher.run)
            nursery.start_soon(self.client.sending.held.run)
            yield self.client
            nursery.cancel_scope.cancel()


@pytest.fixture
async def bench(fake_bus: FakeBus) -> Bench:
    return Bench(fake_bus)


async def test_with_the_right_nothing_is_asked(autojump_clock: MockClock, bench: Bench) -> None:
    """A request leaves at once."""
    async with bench.running() as client:
        client.send(request("a", build="b1"))
        await wait_all_tasks_blocked()
        assert bench.requests == ["b1"]
        assert bench.right.asked == []


async def test_without_it_a_request_waits(autojump_clock: MockClock, bench: Bench) -> None:
    """Until the right is given again, and its build was confirmed."""
    async with bench.running() as client:
        bench.right.held = False
        call = client.send(request("a", build="b1"))
        await trio.sleep(100)
        assert bench.requests == []
        assert call.is_queued
        bench.right.give()
        await wait_all_tasks_blocked()
        assert bench.requests == bench.right.asked == ["b1"]
        assert not call.is_queued


async def test_what_was_held_back_has_all_of_its_time_from_when_it_leaves(
    autojump_clock: MockClock, bench: Bench
) -> None:
    """Its connector has not had any of it."""
    async with bench.running() as client:
        bench.right.held = False
        call = client.send(request("a", build="b1", _timeout=10))
        await trio.sleep(9)
        bench.right.give()
        await trio.sleep(9)
        assert call.answer is None
        await trio.sleep(2)
        assert isinstance(call.answer, Outcome)


async def test_what_goes_out_again_has_the_rest_of_its_time(autojump_clock: MockClock, bench: Bench) -> None:
    """A connector may have it already."""
    async with bench.running() as client:
        call = client.send(request("a", build="b1", _timeout=10))
        await trio.sleep(5)
        bench.right.held = False
        client.sending.publish_again(call)
        await trio.sleep(1)
        bench.right.give()
        await trio.sleep(5)
        assert isinstance(call.answer, Outcome)


async def test_what_is_held_back_again_does_not_time_out_before_it_leaves(
    autojump_clock: MockClock, bench: Bench
) -> None:
    """Its first copy may have been lost: then no connector has had any of its time."""
    async with bench.running() as client:
        call = client.send(request("a", build="b1", _timeout=10))
        await trio.sleep(5)
        bench.right.held = False
        client.sending.publish_again(call)
        await trio.sleep(20)
        assert call.answer is None
        bench.right.give()
        await trio.sleep(9)
        assert bench.requests == ["b1", "b1"]
        assert call.answer is None
        await trio.sleep(2)
        assert isinstance(call.answer, Outcome)


async def test_what_is_held_back_before_its_timeout_has_its_turn_does_not_time_out(
    autojump_clock: MockClock, bench: Bench
) -> None:
    """Captured replies are looked at in between, which may take as long as a new connection."""
    async with bench.running() as client:
        call = client.send(request("a", build="b1", _timeout=10))
        await trio.sleep(5)
        bench.right.held = False
        client.sending.publish_again(call)
        await trio.sleep(20)
        client.sending.time_out(call)
        assert call.answer is None
        bench.right.give()
        await trio.sleep(1)
        assert bench.requests == ["b1", "b1"]


async def test_what_expired_while_held_back_ends_once_its_build_is_halted(
    autojump_clock: MockClock, bench: Bench
) -> None:
    """It is not sent again, so nothing else would ever end its wait."""
    async with bench.running() as client:
        call = client.send(request("a", build="b1", _timeout=10))
        await trio.sleep(5)
        bench.right.held = False
        client.sending.publish_again(call)
        await trio.sleep(20)
        assert not call.answered
        call.withdraw()
        await trio.sleep(1)
        assert isinstance(call.answer, Outcome)
        assert bench.requests == ["b1"]


async def test_what_waits_for_a_connection_is_held_back_as_well(
    autojump_clock: MockClock, bench: Bench
) -> None:
    """It must not leave with the next connection, before the right is given again."""
    async with bench.running() as client:
        bench.bus.disconnect()
        client.send(request("a", build="b1"))
        bench.right.held = False
        client.hold_back()
        bench.bus.reconnect()
        await trio.sleep(100)
        assert bench.requests == []
        bench.right.give()
        await wait_all_tasks_blocked()
        assert bench.requests == ["b1"]


async def test_a_build_that_another_process_has_sends_nothing(
    autojump_clock: MockClock, bench: Bench
) -> None:
    """And keeps no other one waiting."""
    async with bench.running() as client:
        bench.right.held = False
        bench.right.lost.add("b1")
        client.send(request("a", build="b1"))
        client.send(request("a", build="b2"))
        bench.right.give()
        await wait_all_tasks_blocked()
        assert bench.requests == ["b2"]
        assert sorted(bench.right.asked) == ["b1", "b2"]


async def test_lost_again_meanwhile_it_waits_again(autojump_clock: MockClock, bench: Bench) -> None:
    """The right is looked at in the moment in which the request is handed to the bus."""
    async with bench.running() as client:
        confirm = bench.right.confirm

        async def slowly(build: str) -> None:
            await confirm(build)
            bench.right.held = len(bench.right.asked) > 1

        bench.right.confirm = slowly  # type: ignore[method-assign]
        bench.right.held = False
        client.send(request("a", build="b1"))
        bench.right.give()
        await wait_all_tasks_blocked()
        assert bench.requests == []
        bench.right.give()
        await wait_all_tasks_blocked()
        assert bench.requests == ["b1"]
        assert bench.right.asked == ["b1", "b1"]


@pytest.mark.parametrize("how", ["withdraw", "close"])
async def test_what_is_taken_back_never_leaves(autojump_clock: MockClock, bench: Bench, how: str) -> None:
    """By its build, or because nobody awaits it any more."""
    async with bench.running() as client:
        bench.right.held = False
        call = client.send(request("a", build="b1"))
        getattr(call, how)()
        bench.right.give()
        await trio.sleep(10)
        assert bench.requests == []
        assert len(client.sending.held or ()) == 0


async def test_one_that_is_due_again_is_sent_once(autojump_clock: MockClock, bench: Bench) -> None:
    """Its time passes while it is held back; it never left, so it has all of its time again."""
    async with bench.running() as client:
        bench.right.held = False
        call = client.send(request("a", build="b1", timeout=5.0))
        await trio.sleep(12)
        assert not call.answered
        bench.right.give()
        await trio.sleep(1)
        assert bench.requests == ["b1"]


async def test_what_waited_for_a_connection_leaves_once_its_build_is_confirmed(
    autojump_clock: MockClock, bench: Bench
) -> None:
    """Meanwhile another process may have found this one gone, though its right still holds."""
    async with bench.running() as client:
        bench.right.lost.add("b1")
        bench.bus.disconnect()
        client.send(request("a", build="b1"))
        client.send(request("a", build="b2"))
        bench.bus.reconnect()
        await trio.sleep(10)
        assert sorted(bench.right.asked) == ["b1", "b2"]
        assert bench.requests == ["b2"]


@pytest.mark.parametrize("how", ["nobody listens", "lost", "a lapse"])
async def test_what_goes_out_again_is_confirmed_as_well(
    autojump_clock: MockClock, bench: Bench, how: str
) -> None:
    """Since it left, another process may have taken its build over, and await what is in flight there."""
    bench.right.lost.add("b1")
    if how != "nobody listens":
        await bench.bus.subscribe(SUBJECT, lambda _: None)
    async with bench.running() as client, trio.open_nursery() as nursery:
        await client.listen()
        calls = [client.send(request("a", build=build)) for build in ("b1", "b2")]
        for call in calls:
            nursery.start_soon(call.outcome)
        await wait_all_tasks_blocked()
        if how == "a lapse":
            client.hold_back()
        else:
            bench.bus.disconnect()
            bench.bus.reconnect()
        before = len(bench.requests)
        if how != "nobody listens":
            for call in calls:
                client.sending.publish_again(call)
        await trio.sleep(5)
        assert set(bench.requests[before:]) == {"b2"}
        assert "b1" in bench.right.asked
        # What is confirmed once goes out again without a question.
        asked = len(bench.right.asked)
        client.sending.publish_again(calls[1])
        await wait_all_tasks_blocked()
        assert len(bench.right.asked) == asked
        nursery.cancel_scope.cancel()


async def test_a_log_that_takes_long_keeps_no_other_build_waiting(
    autojump_clock: MockClock, bench: Bench
) -> None:
    """Neither those held back with it nor those that are held back while it is asked."""
    async with bench.running() as client:
        confirm = bench.right.confirm

        async def confirm_all_but_one(build: str) -> None:
            await confirm(build)
            if build == "slow":
                await trio.sleep(1_000)

        bench.right.confirm = confirm_all_but_one  # type: ignore[method-assign]
        for builds in (["slow", "b1"], ["b2"]):
            bench.right.held = False
            for build in builds:
                client.send(request("a", build=build))
            await wait_all_tasks_blocked()
            bench.right.give()
            await wait_all_tasks_blocked()
        assert sorted(bench.requests) == ["b1", "b2"]
        await trio.sleep(1_001)
        assert sorted(bench.requests) == ["b1", "b2", "slow"]


async def test_a_copy_that_was_taken_back_is_not_held_back(autojump_clock: MockClock, bench: Bench) -> None:
    """Its build was halted, and awaits the reply to the first copy; no second one leaves with the right."""
    async with bench.running() as client:
        call = client.send(request("a", build="b1"))
        await wait_all_tasks_blocked()
        bench.bus.disconnect()
        call.publish()
        call.withdraw()
        bench.right.held = False
        client.hold_back()
        bench.bus.reconnect()
        bench.right.give()
        await trio.sleep(1)
        assert bench.requests == ["b1"]
        assert not call.answered
