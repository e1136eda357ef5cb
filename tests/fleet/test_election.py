"""Election of the one scheduler that works, on a broker that lives in this process."""

# ruff: noqa: ARG001 - a test asks for the clock and the server by naming them

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from structlog.testing import capture_logs
from support.durable import Broker, Fate, until
from support.fake_bus import FakeBus
from support.fake_jetstream import FakeJetStream, plug_into
from trio.testing import MockClock

from scheduler.errors import NotPermitted
from scheduler.fleet.bucket import STREAM, LeaseBucket
from scheduler.fleet.contested import KEY, ContestedLease
from scheduler.fleet.election import Election
from scheduler.fleet.keeper import LAPSED, Superseded
from scheduler.fleet.lease import LEASE, PERIOD, RENEW_WITHIN, Lease, Standing
from scheduler.jetstream.api import JetStream

LEASE_SUBJECT = "$KV.SCHEDULER.ernest.active"


@pytest.fixture
def server(fake_bus: FakeBus) -> FakeJetStream:
    """A broker with JetStream."""
    return plug_into(fake_bus)


class Candidate:
    """A process that wants to be elected, and what it was told."""

    def __init__(self, bus: FakeBus, process: str, name: str = "", *, absent: bool = False) -> None:
        self.told: list[str] = []
        self.absent = absent
        """Whether it sees that nobody works."""
        self.election = Election(
            JetStream(bus),
            instance=process,
            name=name,
            on_lapse=lambda: self.told.append("lapsed"),
            on_regain=lambda: self.told.append("may send"),
        )

    async def is_absent(self) -> bool:
        await trio.lowlevel.checkpoint()
        return self.absent

    async def run(self) -> None:
        """Be elected, and work until cancelled."""
        await self.election.take(self.is_absent)
        await self.election.run()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Election]:
        """Stand by or work until the context is left; then end without a word."""
        assert not await self.election.open()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.run)
            yield self.election
            nursery.cancel_scope.cancel()


def is_fresh(election: Election) -> bool:
    """Whether it may send, at this moment."""
    return election.fresh


async def test_of_many_that_begin_at_once_one_is_elected(
    autojump_clock: MockClock, fake_bus: FakeBus, server: FakeJetStream
) -> None:
    """And it stays so, while the others stand by."""
    candidates = [Candidate(fake_bus, f"p-{number}", absent=True) for number in range(5)]
    async with trio.open_nursery() as nursery:
        for one in candidates:
            assert not await one.election.open()
            nursery.start_soon(one.run)
        for _ in range(30):
            await trio.sleep(PERIOD)
            assert sum(one.election.elected for one in candidates) == 1
        assert sorted(one.told for one in candidates) == [[], [], [], [], ["may send"]]
        nursery.cancel_scope.cancel()


async def test_no_instance_that_shares_builds_sees_the_holder(
    autojump_clock: MockClock, fake_bus: FakeBus, server: FakeJetStream
) -> None:
    """The lease has a key of its own in the bucket, beside theirs."""
    async with Candidate(fake_bus, "p-1").running() as election:
        await until(lambda: election.elected)
        assert await LeaseBucket(JetStream(fake_bus)).read() == {}
        assert [kept.subject for kept in server.streams[STREAM].messages.values()] == [LEASE_SUBJECT]


async def test_a_holder_that_stops_renewing_is_followed_after_its_lease_and_not_before_it_sends_nothing(
    autojump_clock: MockClock, fake_bus: FakeBus, server: FakeJetStream
) -> None:
    """Within 20 s, where nothing but the lease can tell."""
    second = Candidate(fake_bus, "p-2")
    async with Candidate(fake_bus, "p-1").running() as first:
        await until(lambda: first.elected)
        async with trio.open_nursery() as nursery:
            assert not await second.election.open()
            nursery.start_soon(second.run)
            await trio.sleep(30)
            assert not second.election.elected
            nursery.cancel_scope.cancel()
    silent = trio.current_time()
    async with Candidate(fake_bus, "p-3").running() as third:
        await until(lambda: third.elected)
        assert not first.fresh
        assert RENEW_WITHIN < trio.current_time() - silent <= LEASE + 2 * PERIOD
        assert not third.inherited


@pytest.mark.parametrize("clustered", [False, True])
async def test_a_single_server_tells_that_the_holder_has_gone(
    autojump_clock: MockClock,
    fake_bus: FakeBus,
    server: FakeJetStream,
    monkeypatch: pytest.MonkeyPatch,
    clustered: bool,
) -> None:
    """Then the lease is not waited for, once it was not renewed; in a cluster it is."""
    monkeypatch.setattr(FakeBus, "clustered", clustered)
    async with Candidate(fake_bus, "p-1").running() as first:
        await until(lambda: first.elected)
    async with Candidate(fake_bus, "p-2", absent=True).running() as second:
        took = await until(lambda: second.elected)
    assert took >= LEASE if clustered else 2 * PERIOD <= took < 4 * PERIOD


async def test_after_the_brokers_absence_the_holder_has_time_to_come_back(
    autojump_clock: MockClock, fake_bus: FakeBus, server: FakeJetStream
) -> None:
    """It tries every five seconds; one that never comes is not waited for until its lease runs out."""
    second = Candidate(fake_bus, "p-2", absent=True)
    async with Candidate(fake_bus, "p-1").running() as first:
        await until(lambda: first.elected)
        await trio.sleep(1)
    async with second.running() as following:
        fake_bus.disconnect()
        await trio.sleep(1)
        fake_bus.reconnect()
        assert 5 < await until(lambda: following.elected) < 10


async def test_under_the_name_of_the_holder_the_lease_is_taken_at_once_if_that_has_gone(
    autojump_clock: MockClock, fake_bus: FakeBus, server: FakeJetStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in a cluster; but not from one that is there."""
    monkeypatch.setattr(FakeBus, "clustered", True)
    async with Candidate(fake_bus, "p-1", "one").running() as first:
        await until(lambda: first.elected)
        async with Candidate(fake_bus, "p-2", "one").running() as second:
            await trio.sleep(60)
            assert not second.elected
    async with Candidate(fake_bus, "p-3", "one", absent=True).running() as third:
        assert await until(lambda: third.elected) < 1


async def test_what_cannot_be_read_does_not_count(
    autojump_clock: MockClock, fake_bus: FakeBus, server: FakeJetStream
) -> None:
    """While JetStream is away nobody is elected; the holder may not send, and is not followed after it."""
    one, two = Candidate(fake_bus, "p-1"), Candidate(fake_bus, "p-2")
    async with one.running() as first:
        await until(lambda: first.elected)
        async with two.running() as second:
            await trio.sleep(10)
            with capture_logs() as logs:
                server.silent = True
                await trio.sleep(100)
            assert not is_fresh(first)
            assert [line["event"] for line in logs].count(LAPSED) == 1
            server.silent = False
            await trio.sleep(10)
            assert is_fresh(first)
            assert not second.elected
    assert one.told == ["may send", "lapsed", "may send"]


async def test_after_a_new_connection_it_sends_nothing_before_it_has_renewed_its_lease_there(
    autojump_clock: MockClock, fake_bus: FakeBus, server: FakeJetStream
) -> None:
    """However short the outage was: one that is not connected may have been followed."""
    one = Candidate(fake_bus, "p-1")
    async with one.running() as first:
        await until(lambda: first.elected)
        await trio.sleep(10)
        fake_bus.disconnect()
        await trio.sleep(0.1)
        fake_bus.reconnect()
        assert not first.keeper.check()
        assert one.told == ["may send", "lapsed"]
        # At once: the next renewal was due in two seconds.
        assert await until(lambda: first.fresh, 3) < 0.1
        assert one.told == ["may send", "lapsed", "may send"]
        assert first.keeper.tenure.lapses == 0


async def test_one_that_finds_another_holder_ends(
    autojump_clock: MockClock, fake_bus: FakeBus, server: FakeJetStream
) -> None:
    """It stood still, and was followed: it may send nothing from the moment on at which it looks."""
    one = Candidate(fake_bus, "p-1")
    assert not await one.election.open()
    await one.election.take(one.is_absent)
    await trio.sleep(3)
    async with Candidate(fake_bus, "p-2").running() as second:
        await until(lambda: second.elected)
        assert not one.election.keeper.check()
        with pytest.RaisesGroup(
            pytest.RaisesExc(Superseded, match="p-2 was elected"), flatten_subgroups=True
        ):
            await one.election.run()
        assert one.told == ["may send", "lapsed"]
        assert not one.election.fresh


async def test_one_that_hears_of_another_holder_ends_at_once(
    autojump_clock: MockClock, fake_bus: FakeBus, server: FakeJetStream
) -> None:
    """It was taken for gone; until its next renewal it would send beside the other one."""
    one, two = Candidate(fake_bus, "p-1", "a"), Candidate(fake_bus, "p-2", "a", absent=True)
    assert not await one.election.open()
    await one.election.take(one.is_absent)
    async with trio.open_nursery() as nursery:
        began = trio.current_time()
        nursery.start_soon(two.run)
        with pytest.RaisesGroup(Superseded, flatten_subgroups=True):
            await one.election.run()
        assert trio.current_time() - began < 0.1
        nursery.cancel_scope.cancel()


async def test_a_lease_that_is_offered_is_taken_at_once(
    autojump_clock: MockClock, fake_bus: FakeBus, server: FakeJetStream
) -> None:
    """The one that gives it up may do nothing from then on; the next one knows that nobody was between."""
    one = Candidate(fake_bus, "p-1")
    async with one.running() as first, Candidate(fake_bus, "p-2").running() as second:
        await trio.sleep(10)
        working, other = (first, second) if first.elected else (second, first)
        began = trio.current_time()
        assert await working.hand_over()
        assert trio.current_time() - began < 0.5
        assert (working.fresh, other.fresh) == (False, True)
        assert other.inherited
        await trio.sleep(60)
        assert other.fresh
        await working.leave()
        assert other.holder is not None
        assert other.holder.lease.instance == other.instance


async def test_those_that_stand_by_are_listed_behind_the_holder(
    autojump_clock: MockClock, fake_bus: FakeBus, server: FakeJetStream
) -> None:
    """By name; a lease that ran out is said to have."""
    async with Candidate(fake_bus, "p-1", "zeta").running() as first:
        await until(lambda: first.elected)
        async with Candidate(fake_bus, "p-2", "two").running(), Candidate(fake_bus, "p-3", "one").running():
            await trio.sleep(5)
            shown = await first.instances()
            assert [(row["name"], row["standing"]) for row in shown] == [
                ("zeta", "active"),
                ("one", "standby"),
                ("two", "standby"),
            ]
            assert [row["age"] is None for row in shown] == [False, True, True]
        server.silent = True
        await trio.sleep(20)
        assert (await first.instances())[0]["standing"] == "lapsed"


async def test_a_lease_that_nobody_takes_is_taken_back(
    autojump_clock: MockClock, fake_bus: FakeBus, server: FakeJetStream
) -> None:
    """After a second; then what is in flight can be awaited, and at the end it is given up for good."""
    one = Candidate(fake_bus, "p-1")
    async with one.running() as first:
        await until(lambda: first.elected)
        assert not await first.hand_over()
        assert first.fresh
        await trio.sleep(60)
        assert is_fresh(first)
        assert first.holder is not None
        assert first.holder.lease.standing is Standing.DRAINING
        await first.leave()
        assert not is_fresh(first)
        assert one.told == ["may send", "may send"]
    async with Candidate(fake_bus, "p-2").running() as second:
        assert await until(lambda: second.elected) < 0.1


async def test_a_lease_that_nobody_takes_is_taken_back_although_an_answer_was_lost(
    autojump_clock: MockClock,
) -> None:
    """The word that it is given up is stored, and nobody heard it: a single scheduler awaits its replies."""
    broker = Broker()
    async with Candidate(broker.bus, "p-1").running() as first:
        await until(lambda: first.elected)
        # Otherwise the next renewal would have found out.
        await trio.sleep(PERIOD / 4)
        broker.line.plan(LEASE_SUBJECT, Fate.MUTE)
        assert not await first.hand_over()
        assert first.fresh


async def test_one_that_cannot_tell_whether_its_lease_was_taken_does_nothing_more(
    autojump_clock: MockClock, fake_bus: FakeBus, server: FakeJetStream
) -> None:
    """JetStream goes away while it is given up."""
    async with Candidate(fake_bus, "p-1").running() as first:
        await until(lambda: first.elected)
        server.silent = True
        assert await first.hand_over()
        assert not first.fresh


async def test_a_lease_of_a_later_version_is_respected(
    autojump_clock: MockClock, fake_bus: FakeBus, server: FakeJetStream
) -> None:
    """As long as it changes, whatever it says."""
    candidate = Candidate(fake_bus, "p-1", absent=True)
    async with candidate.running() as election:
        await until(lambda: election.elected)
    js = JetStream(fake_bus)
    second = Candidate(fake_bus, "p-2")
    async with trio.open_nursery() as nursery:
        await js.publish(LEASE_SUBJECT, b"[1]")
        assert not await second.election.open()
        nursery.start_soon(second.run)
        for number in range(20):
            await trio.sleep(PERIOD)
            await js.publish(LEASE_SUBJECT, b"[%d]" % number)
            assert not second.election.elected
        await until(lambda: second.election.elected, 20)
        nursery.cancel_scope.cancel()


async def test_a_bucket_that_is_removed_is_made_again(
    autojump_clock: MockClock, fake_bus: FakeBus, server: FakeJetStream
) -> None:
    """The holder renews its lease there, and is not followed."""
    async with Candidate(fake_bus, "p-1").running() as first:
        await until(lambda: first.elected)
        async with Candidate(fake_bus, "p-2").running() as second:
            await trio.sleep(10)
            server.remove_stream(STREAM)
            await trio.sleep(60)
            assert first.fresh
            assert not second.elected


@pytest.mark.parametrize(
    "forbidden", ["$JS.API.STREAM.MSG.GET.>", "$JS.API.STREAM.CREATE.>", "scheduler.fleet.news"]
)
async def test_without_the_right_to_it_there_is_no_lease(
    autojump_clock: MockClock, fake_bus: FakeBus, server: FakeJetStream, forbidden: str
) -> None:
    """That is known at once, with the subject that is missing."""
    fake_bus.forbidden.add(forbidden)
    began = trio.current_time()
    assert forbidden.rstrip(">") in await Candidate(fake_bus, "p-1").election.open()
    assert trio.current_time() - began < 1


async def test_without_the_right_to_write_it_none_is_elected(
    autojump_clock: MockClock, fake_bus: FakeBus, server: FakeJetStream
) -> None:
    """That is an error of its own, as waiting would not help."""
    fake_bus.forbidden.add(LEASE_SUBJECT)
    candidate = Candidate(fake_bus, "p-1")
    assert not await candidate.election.open()
    with pytest.raises(NotPermitted, match=KEY):
        await candidate.election.take(candidate.is_absent)


async def test_the_holders_that_are_remembered_are_bounded(
    autojump_clock: MockClock, fake_bus: FakeBus, server: FakeJetStream
) -> None:
    """The last ones are, and this process itself."""
    lease = ContestedLease(JetStream(fake_bus), "me", 1)
    await lease.read()
    revision = 0
    for number in range(1_010):
        holder = Lease(f"p-{number}", "a")
        revision = await lease.bucket.write(KEY, holder, expected=revision)
        assert await lease.look()
    assert len(lease.seen) == 1_001
    assert {"me", "p-1009", "p-10"} <= lease.seen
    assert "p-9" not in lease.seen
