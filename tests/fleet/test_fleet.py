"""Membership in the fleet: leases in a bucket, on a broker that lives in this process."""

# ruff: noqa: ARG001 - a test asks for the clock and the server by naming them

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from structlog.testing import capture_logs
from support.fake_bus import FakeBus
from support.fake_jetstream import FakeJetStream, plug_into
from trio.testing import MockClock

from scheduler.errors import JetStreamUnavailable, NotPermitted
from scheduler.fleet.absences import UNASKED, answer_of
from scheduler.fleet.bucket import STREAM, LeaseBucket
from scheduler.fleet.fleet import Fleet, NameInUse, Superseded
from scheduler.fleet.lease import LEASE, PERIOD, RENEW_WITHIN, Lease, Load
from scheduler.fleet.news import NEWS
from scheduler.jetstream.api import JetStream


@pytest.fixture
def server(fake_bus: FakeBus) -> FakeJetStream:
    """A broker with JetStream."""
    return plug_into(fake_bus)


class Instance:
    """An instance of the fleet, and what it was told."""

    def __init__(self, bus: FakeBus, process: str, name: str = "", load: Load | None = None) -> None:
        self.lapses: list[float] = []
        self.changes = 0
        self.fleet = Fleet(
            JetStream(bus),
            instance=process,
            name=name,
            load=lambda: load or Load(),
            on_lapse=lambda: self.lapses.append(trio.current_time()),
            on_change=self._on_change,
        )

    def _on_change(self) -> None:
        self.changes += 1

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Fleet]:
        """Join, and stay until the context is left; then end without a word."""
        await self.fleet.join()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.fleet.run)
            yield self.fleet
            nursery.cancel_scope.cancel()


def kill(bus: FakeBus, process: str) -> None:
    """End the subscriptions of a process, as a server does when its connection closes."""
    for sid, interest in list(bus.interests.items()):
        if f".{process}." in interest.subject:
            del bus.interests[sid]


def pings(bus: FakeBus) -> list[str]:
    """List the questions whether an instance is there."""
    return [one.subject for one in bus.published if one.subject.endswith(".ping")]


async def until(condition: Callable[[], bool]) -> float:
    """Wait until something is so; return the seconds that it took."""
    began = trio.current_time()
    while True:
        if condition():
            return trio.current_time() - began
        await trio.sleep(0.01)


async def test_alone_it_owns_everything(
    autojump_clock: MockClock, fake_bus: FakeBus, server: FakeJetStream
) -> None:
    """And may send for as long as it renews its lease."""
    one = Instance(fake_bus, "a-1")
    async with one.running() as fleet:
        await trio.sleep(60)
        assert fleet.fresh
        assert fleet.owners() == {"a-1"}
        assert fleet.others() == []
        assert not one.lapses


async def test_two_see_each_other_and_their_load(
    autojump_clock: MockClock, fake_bus: FakeBus, server: FakeJetStream
) -> None:
    """Soon after the second one has come."""
    one, two = Instance(fake_bus, "a-1"), Instance(fake_bus, "b-1", load=Load(builds=7))
    async with one.running() as first, two.running() as second:
        await trio.sleep(2 * PERIOD)
        assert first.owners() == second.owners() == {"a-1", "b-1"}
        assert [member.lease.load.builds for member in first.others()] == [7]
        assert one.changes == 1


async def test_one_that_stops_renewing_is_gone_after_its_lease(
    autojump_clock: MockClock, fake_bus: FakeBus, server: FakeJetStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a cluster, where nobody but the lease can tell; within 20 s."""
    monkeypatch.setattr(FakeBus, "clustered", True)
    one, two = Instance(fake_bus, "a-1"), Instance(fake_bus, "b-1")
    async with one.running() as first:
        async with two.running():
            await trio.sleep(10)
        assert RENEW_WITHIN < await until(lambda: first.owners() == {"a-1"}) <= 20


async def test_a_single_server_tells_who_has_gone(
    autojump_clock: MockClock, fake_bus: FakeBus, server: FakeJetStream
) -> None:
    """So nobody waits for the lease."""
    one, two = Instance(fake_bus, "a-1"), Instance(fake_bus, "b-1")
    async with one.running() as first:
        async with two.running():
            await trio.sleep(10)
        kill(fake_bus, "b-1")
        assert await until(lambda: first.owners() == {"a-1"}) <= 4 * PERIOD


@pytest.mark.parametrize("comes", [True, False])
async def test_after_the_brokers_absence_others_have_time_to_come_back(
    autojump_clock: MockClock, fake_bus: FakeBus, server: FakeJetStream, comes: bool
) -> None:
    """They try every five seconds: one that is a little later keeps its builds; another is not waited for."""
    one, two = Instance(fake_bus, "a-1"), Instance(fake_bus, "b-1")
    async with one.running() as first:
        async with two.running():
            await trio.sleep(10)
        kill(fake_bus, "b-1")
        fake_bus.disconnect()
        await trio.sleep(1)
        fake_bus.reconnect()
        await trio.sleep(4.5)
        assert first.owners() == {"a-1", "b-1"}
        if comes:
            async with two.running():
                await trio.sleep(20)
                assert one.changes == 1
        else:
            assert await until(lambda: first.owners() == {"a-1"}) < 6


async def test_one_that_renews_its_lease_is_not_asked_for(
    autojump_clock: MockClock, fake_bus: FakeBus, server: FakeJetStream
) -> None:
    """But once, when it was not known: an idle fleet has nothing else to say."""
    async with Instance(fake_bus, "a-1").running(), Instance(fake_bus, "b-1").running():
        await trio.sleep(2 * PERIOD)
        asked = len(pings(fake_bus))
        await trio.sleep(60)
        assert asked > 0
        assert len(pings(fake_bus)) == asked


async def test_the_next_process_finds_at_once_that_the_last_one_has_gone(
    autojump_clock: MockClock, fake_bus: FakeBus, server: FakeJetStream
) -> None:
    """Where the broker is a single server: what was killed is taken over within a second."""
    last = Instance(fake_bus, "a-1")
    async with last.running():
        pass
    kill(fake_bus, "a-1")
    began = trio.current_time()
    async with Instance(fake_bus, "b-1").running() as fleet:
        assert trio.current_time() - began <= 1
        assert fleet.owners() == {"b-1"}


async def test_one_that_leaves_is_gone_at_once(
    autojump_clock: MockClock, fake_bus: FakeBus, server: FakeJetStream
) -> None:
    """The others are told, and need not look by themselves."""
    one, two = Instance(fake_bus, "a-1"), Instance(fake_bus, "b-1")
    async with one.running() as first, two.running() as second:
        await trio.sleep(10)
        await second.leave()
        assert not second.fresh
        assert await until(lambda: first.owners() == {"a-1"}) < 0.5
        assert not two.lapses


async def test_a_name_is_retaken_at_once(
    autojump_clock: MockClock, fake_bus: FakeBus, server: FakeJetStream
) -> None:
    """The process before it owns nothing any more; if it only stood still, it ends."""
    first, second = Instance(fake_bus, "a-1", "a"), Instance(fake_bus, "a-2", "a")
    with pytest.RaisesGroup(Superseded, flatten_subgroups=True, allow_unwrapped=True):
        async with first.running():
            kill(fake_bus, "a")
            async with second.running() as new:
                assert trio.current_time() < 1
                assert new.owners() == {"a-2"}
                await trio.sleep(2 * PERIOD)
    assert not first.fleet.fresh


@pytest.mark.parametrize("stays", [True, False])
async def test_a_process_does_not_take_the_name_of_one_that_answers(
    autojump_clock: MockClock, fake_bus: FakeBus, server: FakeJetStream, stays: bool
) -> None:
    """It waits a while for that one to end, and then refuses; or two would replace each other for ever."""
    second = Instance(fake_bus, "a-2", "a")
    async with Instance(fake_bus, "a-1", "a").running() as first, trio.open_nursery() as nursery:
        if stays:
            with pytest.raises(NameInUse, match=r"--instance a is in use: a-1 answers under it; give each"):
                await second.fleet.join()
            await trio.sleep(10)
            assert first.fresh
            assert first.owners() == {"a-1"}
        else:
            nursery.start_soon(second.fleet.join)
            await trio.sleep(3)
            kill(fake_bus, "a")
            assert await until(lambda: second.fleet.fresh) <= 1


@asynccontextmanager
async def answering(bus: FakeBus, name: str, process: str, after: float) -> AsyncIterator[None]:
    """Answer, as a process that has a name, so many seconds after each question."""
    async with trio.open_nursery() as nursery:

        async def answer(reply: str) -> None:
            await trio.sleep(after)
            bus.deliver(reply, answer_of(process))

        subject = f"scheduler.instance.{name}.ping"
        subscription = await bus.subscribe(subject, lambda asked: nursery.start_soon(answer, asked.reply))
        yield
        await subscription.unsubscribe()
        nursery.cancel_scope.cancel()


async def test_a_process_that_is_slow_to_answer_keeps_its_name(
    autojump_clock: MockClock, fake_bus: FakeBus, server: FakeJetStream
) -> None:
    """A second of silence is what a busy broker or process may take."""
    async with answering(fake_bus, "a", "a-1", after=2.5):
        with pytest.raises(NameInUse, match="a-1 answers under it"):
            await Instance(fake_bus, "a-2", "a").fleet.join()


async def test_the_name_of_a_process_that_hangs_is_taken_after_two_silences(
    autojump_clock: MockClock, fake_bus: FakeBus, server: FakeJetStream
) -> None:
    """It subscribes still, and says nothing."""
    await fake_bus.subscribe("scheduler.instance.a.ping", lambda _: None)
    async with Instance(fake_bus, "a-2", "a").running() as fleet:
        assert fleet.fresh
        assert 3 < trio.current_time() < 5


async def test_silence_over_a_new_connection_proves_nothing_about_a_name(
    autojump_clock: MockClock, fake_bus: FakeBus, server: FakeJetStream
) -> None:
    """The other process may come back to the broker a little later."""
    second = Instance(fake_bus, "a-2", "a")
    fake_bus.disconnect()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(second.fleet.join)
        await trio.sleep(3.9)
        assert not second.fleet.fresh
        fake_bus.reconnect()
        async with answering(fake_bus, "a", "a-1", after=0):
            await trio.sleep(3)
            assert not second.fleet.fresh
        await trio.sleep(1)
        assert second.fleet.fresh


async def test_silence_without_a_connection_proves_nothing_about_a_name(
    autojump_clock: MockClock, fake_bus: FakeBus, server: FakeJetStream
) -> None:
    """However long the broker is away: the question has not even left."""
    second = Instance(fake_bus, "a-2", "a")
    fake_bus.disconnect()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(second.fleet.join)
        await trio.sleep(60)
        assert not second.fleet.fresh
        fake_bus.reconnect()
        async with answering(fake_bus, "a", "a-1", after=0):
            await trio.sleep(3)
            assert not second.fleet.fresh
        await trio.sleep(1)
        assert second.fleet.fresh


async def test_a_name_is_asked_for_again_where_its_lease_could_not_be_taken(
    autojump_clock: MockClock, fake_bus: FakeBus, server: FakeJetStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may have come meanwhile; neither is told of the other by the one that waits."""
    late, new = Instance(fake_bus, "a-1", "a"), Instance(fake_bus, "a-2", "a")

    async def silent() -> None:
        raise JetStreamUnavailable("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(late.fleet.keeper, "take", silent)
        async with trio.open_nursery() as nursery:

            async def join() -> None:
                with pytest.raises(NameInUse, match="a-2 answers under it"):
                    await late.fleet.join()

            nursery.start_soon(join)
            await trio.sleep(0.5)
            patch.undo()
            async with new.running() as fleet:
                assert trio.current_time() < 1
                await trio.sleep(20)
                assert fleet.fresh


async def test_its_own_answer_keeps_no_process_from_its_name(
    autojump_clock: MockClock, fake_bus: FakeBus, server: FakeJetStream
) -> None:
    """A server of a cluster may pass a question on to a subscription that has just ended."""
    async with trio.open_nursery() as nursery, answering(fake_bus, "a", "a-1", after=0):
        one = Instance(fake_bus, "a-1", "a")
        nursery.start_soon(one.fleet.join)
        await trio.sleep(10)
        assert one.fleet.fresh


async def test_where_instances_may_not_be_asked_for_their_leases_decide(
    autojump_clock: MockClock, fake_bus: FakeBus, server: FakeJetStream
) -> None:
    """That is said once, with the cure; what was killed is taken over later."""
    fake_bus.forbidden.add("scheduler.instance.b-1.ping")
    with capture_logs() as logs:
        async with Instance(fake_bus, "a-1").running() as first:
            await LeaseBucket(JetStream(fake_bus)).write("b-1", Lease("b-1", "b-1"), expected=0)
            await trio.sleep(2 * PERIOD)
            assert first.owners() == {"a-1", "b-1"}
            assert RENEW_WITHIN < 2 * PERIOD + await until(lambda: first.owners() == {"a-1"}) <= 20
    [said] = [one for one in logs if one["event"] == UNASKED]
    assert "scheduler permissions" in said["cure"]


async def test_a_name_that_may_not_be_asked_for_is_not_taken(
    autojump_clock: MockClock, fake_bus: FakeBus, server: FakeJetStream
) -> None:
    """Two processes would replace each other unseen."""
    fake_bus.forbidden.add("scheduler.instance.a.ping")
    with pytest.raises(NotPermitted, match=r"scheduler\.instance\.a\.ping"):
        await Instance(fake_bus, "a-1", "a").fleet.join()


async def test_under_the_name_of_its_process_it_asks_nobody(
    autojump_clock: MockClock, fake_bus: FakeBus, server: FakeJetStream
) -> None:
    """Where somebody subscribes to everything, the broker would leave the question to that one."""
    await fake_bus.subscribe(">", lambda _: None)
    began = trio.current_time()
    async with Instance(fake_bus, "a-1").running():
        assert trio.current_time() == began


async def test_one_whose_lease_was_retaken_is_known_to_have_had_one(
    autojump_clock: MockClock, fake_bus: FakeBus, server: FakeJetStream
) -> None:
    """To the next process of the name, and to the others: nobody asks whether it is of an earlier version."""
    async with Instance(fake_bus, "b-1").running() as other:
        async with Instance(fake_bus, "a-1", name="a").running():
            await trio.sleep(PERIOD)
        kill(fake_bus, "a")
        async with Instance(fake_bus, "a-2", name="a").running() as following:
            await until(lambda: "a-2" in other.owners())
            for fleet in (other, following):
                assert fleet.had_lease("a-1")
                assert not fleet.had_lease("a-0")


async def test_without_the_broker_it_stops_sending_in_time(
    autojump_clock: MockClock, fake_bus: FakeBus, server: FakeJetStream
) -> None:
    """Says so once, and may send again with the first renewal that goes through."""
    one = Instance(fake_bus, "a-1")
    async with one.running() as fleet:
        await trio.sleep(1)
        fake_bus.disconnect()
        went = trio.current_time()
        with capture_logs() as logs:
            await trio.sleep(RENEW_WITHIN - PERIOD - 0.1)
            assert fleet.fresh
            await trio.sleep(60)
            assert not fleet.check()
            assert [RENEW_WITHIN - PERIOD <= at - went <= RENEW_WITHIN for at in one.lapses] == [True]
            fake_bus.reconnect()
            await fleet.renewed()
        assert fleet.check()
        events = [entry["event"] for entry in logs]
        assert events.count("the lease of this instance ran out: nothing is sent until it is renewed") == 1
        assert events[-1] == "the lease of this instance is renewed"


async def test_time_in_which_nothing_could_be_read_costs_nobody_its_lease(
    autojump_clock: MockClock, fake_bus: FakeBus, server: FakeJetStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an outage of the broker both find each other again, and nothing has changed for either."""
    monkeypatch.setattr(FakeBus, "clustered", True)
    one, two = Instance(fake_bus, "a-1"), Instance(fake_bus, "b-1")
    async with one.running() as first, two.running() as second:
        await trio.sleep(10)
        changes = one.changes, two.changes
        fake_bus.disconnect()
        await trio.sleep(300)
        fake_bus.reconnect()
        await trio.sleep(60)
        assert first.owners() == second.owners() == {"a-1", "b-1"}
        assert (one.changes, two.changes) == changes


async def test_a_stop_of_the_process_is_noticed_before_anything_leaves(
    autojump_clock: MockClock, fake_bus: FakeBus, server: FakeJetStream
) -> None:
    """The check before messages leave says so, before any timer has run."""
    one = Instance(fake_bus, "a-1")
    await one.fleet.join()
    autojump_clock.jump(20)
    assert not one.fleet.check()
    assert len(one.lapses) == 1
    assert not one.fleet.check()
    assert len(one.lapses) == 1


async def test_a_renewal_that_was_under_way_too_long_renews_nothing(
    autojump_clock: MockClock, fake_bus: FakeBus, server: FakeJetStream
) -> None:
    """It counts from when it began."""
    one = Instance(fake_bus, "a-1")
    await one.fleet.join()
    fleet, write = one.fleet, one.fleet.keeper._bucket.write

    async def slowly(*args: object, **named: object) -> int:
        revision = await write(*args, **named)  # type: ignore[arg-type]
        autojump_clock.jump(20)
        return revision

    fleet.keeper._bucket.write = slowly  # type: ignore[method-assign]
    await fleet.keeper.renew()
    assert not fleet.fresh
    assert len(one.lapses) == 1


async def test_builds_without_an_owner_spread_over_those_that_are_left(
    autojump_clock: MockClock, fake_bus: FakeBus, server: FakeJetStream
) -> None:
    """Each has one instance that takes it first, and all agree which."""
    fleets = [Instance(fake_bus, f"{name}-1", name) for name in "abc"]
    async with fleets[0].running() as a, fleets[1].running() as b, fleets[2].running() as c:
        await trio.sleep(2 * PERIOD)
        builds = [f"build-{number}" for number in range(300)]
        firsts = [[fleet.is_first_for(build) for fleet in (a, b, c)] for build in builds]
        assert all(sum(first) == 1 for first in firsts)
        assert all(70 <= sum(column) <= 130 for column in zip(*firsts, strict=True))


async def test_news_are_looked_at_once(
    autojump_clock: MockClock, fake_bus: FakeBus, server: FakeJetStream
) -> None:
    """A word from another instance makes it look now."""
    one = Instance(fake_bus, "a-1")
    async with one.running() as fleet:
        await trio.sleep(0.5)
        two = Instance(fake_bus, "b-1")
        await two.fleet.join()
        fake_bus.deliver(NEWS, b"")
        await trio.sleep(0.1)
        assert fleet.owners() == {"a-1", "b-1"}


async def test_one_that_joins_is_seen_by_the_others_at_once(
    autojump_clock: MockClock, fake_bus: FakeBus, server: FakeJetStream
) -> None:
    """What it takes from now on is not said to be without an owner."""
    async with Instance(fake_bus, "a-1").running() as first:
        await trio.sleep(0.5)
        async with Instance(fake_bus, "b-1").running():
            assert await until(lambda: "b-1" in first.owners()) < 0.5


@pytest.mark.parametrize("others", [0, 1])
async def test_a_bucket_that_was_removed_is_made_again(
    autojump_clock: MockClock, fake_bus: FakeBus, server: FakeJetStream, others: int
) -> None:
    """Otherwise nothing would ever be sent again; no instance loses its lease by that."""
    one, two = Instance(fake_bus, "a-1"), Instance(fake_bus, "b-1")
    async with one.running() as first, trio.open_nursery() as nursery:
        if others:
            await two.fleet.join()
            nursery.start_soon(two.fleet.run)
        await trio.sleep(5)
        server.remove_stream("KV_SCHEDULER")
        await trio.sleep(60)
        assert first.fresh
        assert len(first.owners()) == 1 + others
        assert one.lapses == two.lapses == []
        nursery.cancel_scope.cancel()


async def test_one_that_ends_is_to_take_over_nothing(
    autojump_clock: MockClock, fake_bus: FakeBus, server: FakeJetStream
) -> None:
    """Otherwise the builds that fall to it would wait until it has gone."""
    one, two = Instance(fake_bus, "a-1"), Instance(fake_bus, "b-1")
    async with one.running() as first, two.running() as second:
        await second.drain()
        await trio.sleep(PERIOD)
        assert all(first.is_first_for(f"build-{number}") for number in range(50))


async def test_the_log_names_instances_and_tells_an_end_in_order_from_a_loss(
    autojump_clock: MockClock, fake_bus: FakeBus, server: FakeJetStream
) -> None:
    """By the name that operators gave; a restart that was planned is no warning."""
    one, two, three = (Instance(fake_bus, f"p-{n}", name=f"scheduler-{n}") for n in range(3))
    with capture_logs() as logs:
        async with one.running():
            async with two.running() as ends:
                await trio.sleep(2 * PERIOD)
                await ends.leave()
            await trio.sleep(2 * PERIOD)
            async with three.running():
                await trio.sleep(2 * PERIOD)
            kill(fake_bus, "scheduler-2")
            await trio.sleep(30)
            async with Instance(fake_bus, "p-3", name="scheduler-3").running():
                await trio.sleep(2 * PERIOD)
            kill(fake_bus, "scheduler-3")
            async with Instance(fake_bus, "p-4", name="scheduler-3").running():
                await trio.sleep(2 * PERIOD)
    told = {
        (line["log_level"], line["other"], line["process"])
        for line in logs
        if line["event"] == "another instance has gone: its builds are taken over"
    }
    assert told == {
        ("info", "scheduler-1", "p-1"),
        ("warning", "scheduler-2", "p-2"),
        ("warning", "scheduler-3", "p-3"),
    }


async def test_a_bucket_that_was_removed_is_made_again_in_time(
    autojump_clock: MockClock, fake_bus: FakeBus, server: FakeJetStream
) -> None:
    """No lease runs out by that, and nobody takes the builds of the others over."""
    one, two = Instance(fake_bus, "a-1"), Instance(fake_bus, "b-1")
    async with one.running() as first, two.running() as second:
        await trio.sleep(2 * PERIOD)
        changes = one.changes, two.changes
        server.remove_stream(STREAM)
        assert await first.leased() == {"a-1", "b-1"}
        for _ in range(300):
            await trio.sleep(0.1)
            assert first.owners() == second.owners() == {"a-1", "b-1"}
        assert first.fresh
        assert second.fresh
        assert not one.lapses
        assert not two.lapses
        assert (one.changes, two.changes) == changes
        assert max(member.age for member in first.members()) < 2 * PERIOD


async def test_instances_that_hang_are_asked_for_at_once(
    autojump_clock: MockClock, fake_bus: FakeBus, server: FakeJetStream
) -> None:
    """Each takes its whole time to be silent: one after another they would stretch everybody's lease."""
    one, others = Instance(fake_bus, "a-1"), [Instance(fake_bus, f"b-{n}") for n in range(10)]
    for other in others:
        await other.fleet.join()
        kill(fake_bus, other.fleet.instance)
        await fake_bus.subscribe(f"{other.fleet.subject}ping", lambda _: None)
    began = trio.current_time()
    await one.fleet.join()
    assert trio.current_time() - began < 3
    assert len(one.fleet.others()) == 10


async def test_the_others_are_told_of_many_orphans_at_once(
    autojump_clock: MockClock, fake_bus: FakeBus, server: FakeJetStream
) -> None:
    """At most once a second; the last word of them is not lost."""
    one, two = Instance(fake_bus, "a-1"), Instance(fake_bus, "b-1")
    async with one.running() as first, two.running():
        await trio.sleep(10)
        changes = two.changes
        for _ in range(1_000):
            first.tell_of_orphans()
            await trio.sleep(0.002)
        assert 2 <= two.changes - changes <= 3
        await trio.sleep(2)
        changes = two.changes
        first.tell_of_orphans()
        await trio.sleep(0.1)
        assert two.changes == changes + 1


async def test_what_replaced_a_process_owns_its_builds(
    autojump_clock: MockClock, fake_bus: FakeBus, server: FakeJetStream
) -> None:
    """Until the replaced one notices with its next renewal, it must not take them for builds of nobody."""
    first, second = Instance(fake_bus, "a-1", "a"), Instance(fake_bus, "a-2", "a")
    await first.fleet.join()
    await second.fleet.keeper.take()
    await first.fleet.look()
    assert first.fleet.owners() == {"a-1", "a-2"}


async def test_a_lease_that_was_seen_once_holds_though_the_bucket_is_removed(
    autojump_clock: MockClock, fake_bus: FakeBus, server: FakeJetStream
) -> None:
    """Also one that was seen before this process has joined: its holder may be about to write it again."""
    await Instance(fake_bus, "a-1").fleet.join()
    second = Instance(fake_bus, "b-1")
    assert await second.fleet.leased() == {"a-1", "b-1"}
    server.remove_stream("KV_SCHEDULER")
    async with second.running() as fleet:
        assert fleet.owners() == {"a-1", "b-1"}
        assert await until(lambda: fleet.owners() == {"b-1"}) > LEASE - PERIOD
