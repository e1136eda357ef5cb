"""Sharing of limits over the fleet: instances on a broker that lives in this process."""

# ruff: noqa: ARG001 - a test asks for the clock and the server by naming them

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from support.fake_bus import FakeBus
from support.fake_jetstream import FakeJetStream, plug_into
from trio.testing import MockClock

from scheduler.definition.rules import parse_limits
from scheduler.dispatch.slots import Slots
from scheduler.fleet.bucket import LIMITS
from scheduler.fleet.fleet import Fleet
from scheduler.fleet.lease import LEASE, RENEW_WITHIN
from scheduler.fleet.ledger import ShareLedger
from scheduler.fleet.reclaiming import Reclaimed, Reclaimer
from scheduler.fleet.sharing import Sharing
from scheduler.jetstream.api import JetStream

VPC = "vpc.create.aws"


@pytest.fixture
def server(fake_bus: FakeBus) -> FakeJetStream:
    """A broker with JetStream."""
    return plug_into(fake_bus)


class Instance:
    """An instance with limits, and the requests that it has in flight."""

    def __init__(self, bus: FakeBus, process: str, limits: str = "vpc.*.*=4", name: str = "") -> None:
        rules = parse_limits(limits) if limits else ()
        self.process = process
        self.slots = Slots(rules)
        self.owning: set[str] = set()
        """Processes that own unfinished builds, as the logs say."""
        js = JetStream(bus)
        self.fleet = Fleet(js, instance=process, name=name, limits=map(str, rules), on_lapse=self._suspend)
        self.sharing = Sharing(js, self.fleet, self.slots, rules, unfinished=self._unfinished)

    def _suspend(self) -> None:
        self.sharing.suspend()

    async def _unfinished(self) -> set[str]:
        return self.owning

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Instance"]:
        """Join, and stay until the context is left; then end without a word."""
        await self.fleet.join()
        await self.sharing.join()
        async with trio.open_nursery() as nursery:
            for part in (self.fleet.run, self.sharing.run, self.slots.run):
                nursery.start_soon(part)
            yield self
            nursery.cancel_scope.cancel()

    def begin(self, most: int = 100) -> int:
        """Begin as many requests as may be; the others wait. Returns how many are in flight."""
        for _ in range(most):
            self.slots.queue("build", VPC, 0.0, lambda _: None)
        self.slots.serve("build")
        return self.slots.taken

    def end(self, count: int = 1) -> None:
        """End requests; others begin in their place where they may."""
        for _ in range(count):
            self.slots.release("build", VPC)


def writes(bus: FakeBus) -> int:
    """Return how often the document was written."""
    return sum(message.subject == LIMITS for message in bus.published)


async def until(condition: Callable[[], bool]) -> float:
    """Wait until something is so; return the seconds that it took."""
    began = trio.current_time()
    with trio.fail_after(300):
        while not condition():  # noqa: ASYNC110 - looked at from outside
            await trio.sleep(0.01)
    return trio.current_time() - began


def kill(bus: FakeBus, process: str) -> None:
    """End the subscriptions of a process, as a server does when its connection closes."""
    for sid, interest in list(bus.interests.items()):
        if f".{process}." in interest.subject:
            del bus.interests[sid]


async def test_without_limits_nothing_is_read_or_written(
    autojump_clock: MockClock, fake_bus: FakeBus, server: FakeJetStream
) -> None:
    """Most fleets have none."""
    async with Instance(fake_bus, "a", "").running(), Instance(fake_bus, "b", "").running():
        await trio.sleep(60)
    asked = [message for message in fake_bus.published if LIMITS.encode() in message.data]
    assert (writes(fake_bus), asked) == (0, [])


async def test_one_alone_has_all_from_the_start_and_writes_once(
    autojump_clock: MockClock, fake_bus: FakeBus, server: FakeJetStream
) -> None:
    """Before anything is sent its part is there; nothing is written for a request."""
    async with Instance(fake_bus, "a").running() as one:
        assert one.begin() == 4
        await trio.sleep(60)
        one.end(3)
        await trio.sleep(60)
        assert writes(fake_bus) == 1


@pytest.mark.parametrize("taken", [True, False])
async def test_where_the_document_is_new_builds_of_the_dead_are_counted_first(
    autojump_clock: MockClock, fake_bus: FakeBus, server: FakeJetStream, taken: bool
) -> None:
    """Its bucket was removed, say. A build that nobody can take does not keep all back for ever."""
    one = Instance(fake_bus, "a")
    one.owning = {"a", "dead"}
    async with one.running():
        assert one.begin() == 0
        await trio.sleep(5)
        assert one.slots.taken == 0
        if taken:
            async with one.sharing.taking_over(["dead"]):
                one.owning = {"a"}
            assert await until(lambda: one.slots.taken == 4) < 1
        else:
            assert LEASE < await until(lambda: one.slots.taken == 4) < LEASE + RENEW_WITHIN


async def test_two_that_are_busy_have_equal_parts_soon(
    autojump_clock: MockClock, fake_bus: FakeBus, server: FakeJetStream
) -> None:
    """As requests of the first end, the second begins its own; never are there more than the limit."""
    async with Instance(fake_bus, "a").running() as one, Instance(fake_bus, "b").running() as two:
        await trio.sleep(5)
        assert one.begin() == 4
        assert two.begin() == 0
        for _ in range(10):
            await trio.sleep(1.5)
            assert one.slots.taken + two.slots.taken <= 4
            if one.slots.taken > 2:
                one.end()
        assert (one.slots.taken, two.slots.taken) == (2, 2)
        written = writes(fake_bus)
        await trio.sleep(60)
        assert writes(fake_bus) - written <= 2
        assert one.slots.told("vpc.*.*=4") == "vpc.*.*=4 (2 of them for this instance, the others have 2)"


async def test_what_an_idle_one_has_the_other_gets_within_a_second(
    autojump_clock: MockClock, fake_bus: FakeBus, server: FakeJetStream
) -> None:
    """It asks in the document, and is told of the answer."""
    async with Instance(fake_bus, "a").running(), Instance(fake_bus, "b").running() as two:
        await trio.sleep(5)
        two.begin(3)
        assert await until(lambda: two.slots.taken == 3) < 2.0


async def test_the_lowest_limit_holds(
    autojump_clock: MockClock, fake_bus: FakeBus, server: FakeJetStream
) -> None:
    """Where instances differ, and for those that have no such limit, too."""
    async with (
        Instance(fake_bus, "a", "vpc.*.*=4").running() as one,
        Instance(fake_bus, "b", "vpc.*.*=2").running() as two,
        Instance(fake_bus, "c", "").running() as three,
    ):
        await trio.sleep(10)
        assert one.begin() + two.begin() + three.begin() <= 2
        await trio.sleep(10)
        assert one.slots.taken + two.slots.taken + three.slots.taken == 2


async def test_what_a_dead_one_had_is_free_once_its_builds_are_taken_over(
    autojump_clock: MockClock, fake_bus: FakeBus, server: FakeJetStream
) -> None:
    """Until then nothing begins in its place."""
    async with Instance(fake_bus, "b").running() as two:
        async with Instance(fake_bus, "a").running() as one:
            await trio.sleep(5)
            one.begin(1)
            await until(lambda: one.slots.taken == 1)
            two.owning = {"a"}
        kill(fake_bus, "a")
        two.begin()
        await trio.sleep(60)
        assert two.slots.taken == 3
        async with two.sharing.taking_over(["a"]):
            two.slots.occupy("build", VPC)
            two.owning = set()
            await trio.sleep(60)
            assert two.slots.taken == 4
        two.end()
        await until(lambda: two.slots.taken == 4)


async def test_one_that_leaves_requests_in_flight_leaves_them_reserved(
    autojump_clock: MockClock, fake_bus: FakeBus, server: FakeJetStream
) -> None:
    """Until its builds are taken over."""
    async with Instance(fake_bus, "a").running() as one, Instance(fake_bus, "b").running() as two:
        await trio.sleep(5)
        two.begin()
        await until(lambda: two.slots.taken == 4)
        one.owning = {"b"}
        await two.sharing.leave(idle=False)
        await two.fleet.leave()
        one.begin()
        await trio.sleep(60)
        assert one.slots.taken == 0
        one.owning = set()
        await until(lambda: one.slots.taken == 4)


async def test_builds_that_are_left_give_nothing_up(
    autojump_clock: MockClock, fake_bus: FakeBus, server: FakeJetStream
) -> None:
    """Their slots are given back, and their requests are in flight, until another one has the builds."""
    async with Instance(fake_bus, "a").running() as one, Instance(fake_bus, "b").running() as two:
        await trio.sleep(5)
        two.begin(4)
        await until(lambda: two.slots.taken == 4)
        one.owning = {"b"}
        two.sharing.keep()
        two.end(4)
        one.begin()
        await trio.sleep(60)
        await two.sharing.leave(idle=False)
        await two.fleet.leave()
        await trio.sleep(60)
        assert one.slots.taken == 0


async def test_builds_that_are_left_while_the_document_is_read_give_nothing_up(
    autojump_clock: MockClock, fake_bus: FakeBus, server: FakeJetStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What becomes free in the middle of a step is not in what it writes."""
    look = Reclaimer.look
    async with Instance(fake_bus, "a").running() as one, Instance(fake_bus, "b").running() as two:
        await trio.sleep(5)
        two.begin(4)
        await until(lambda: two.slots.taken == 4)
        one.owning = {"b"}
        looked = trio.Event()

        async def look_and_leave(reclaimer: Reclaimer, ledger: ShareLedger) -> Reclaimed:
            if reclaimer is two.sharing._reclaimer and not looked.is_set():
                two.sharing.keep()
                two.end(4)
                looked.set()
            return await look(reclaimer, ledger)

        monkeypatch.setattr(Reclaimer, "look", look_and_leave)
        one.begin()
        await looked.wait()
        await trio.sleep(60)
        assert one.slots.taken == 0


async def test_one_that_has_nothing_in_flight_leaves_nothing_reserved(
    autojump_clock: MockClock, fake_bus: FakeBus, server: FakeJetStream
) -> None:
    """The other one has all within a second or two."""
    async with Instance(fake_bus, "a").running() as one, Instance(fake_bus, "b").running() as two:
        await trio.sleep(5)
        two.owning = one.owning = {"a"}
        await one.sharing.leave(idle=True)
        await one.fleet.leave()
        assert one.begin() == 0
        two.begin()
        assert await until(lambda: two.slots.taken == 4) < 3.0


async def test_while_the_bucket_is_out_of_reach_a_part_stays_as_it_is(
    autojump_clock: MockClock, fake_bus: FakeBus, server: FakeJetStream
) -> None:
    """It goes on with what it has; once its lease has run out nothing begins, and all is there after that."""
    async with Instance(fake_bus, "a").running() as one:
        server.silent = True
        await trio.sleep(5)
        assert one.begin(2) == 2
        await trio.sleep(15)
        assert not one.fleet.fresh
        assert one.begin(2) == 2
        server.silent = False
        await until(lambda: one.slots.taken == 4)


async def test_a_take_over_that_waits_for_the_broker_does_not_spin(
    autojump_clock: MockClock, fake_bus: FakeBus, server: FakeJetStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lease has run out meanwhile, and nothing can be read: it looks a few times a second."""
    steps = 0
    step = Sharing._try_step

    async def counted(sharing: Sharing) -> None:
        nonlocal steps
        steps += 1
        if steps > 1_000:
            raise AssertionError("it spins")
        await step(sharing)

    async def take_over(sharing: Sharing) -> None:
        async with sharing.taking_over(["b"]):
            pass

    async with Instance(fake_bus, "a").running() as one, trio.open_nursery() as nursery:
        await trio.sleep(5)
        monkeypatch.setattr(Sharing, "_try_step", counted)
        fake_bus.taps.clear()
        await until(lambda: not one.fleet.fresh)
        nursery.start_soon(take_over, one.sharing)
        await trio.sleep(20)
        assert steps <= 20 * 11
        nursery.cancel_scope.cancel()
