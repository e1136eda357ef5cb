"""Builds between two instances of a fleet: what one leaves, and when another takes it over."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

import pytest
import trio
from support.durable import Plant, log_of, until
from support.fakes import document, ignore
from support.instances import Other
from trio.testing import MockClock

from scheduler.fleet.bucket import LEASES, LeaseBucket
from scheduler.fleet.fleet import Fleet
from scheduler.fleet.lease import Standing
from scheduler.fleet.news import NEWS
from scheduler.jetstream.api import JetStream
from scheduler.journal.events import Accepted, Sent, Started
from scheduler.service import Stopping

CHAIN = document("ab", [("a", "b")])


@pytest.mark.parametrize(("standing", "awaits"), [(Standing.ACTIVE, False), (Standing.DRAINING, True)])
async def test_builds_are_left_to_others_only_where_these_take_them(
    autojump_clock: MockClock, standing: Standing, awaits: bool
) -> None:
    """Where all are told to end in the same moment, each awaits what it has in flight."""
    plant = Plant(ignore)
    async with plant.run() as process, trio.open_nursery() as nursery:
        other = Other(plant.broker)
        await other.open(nursery)
        assert (await process.submit(CHAIN))["status"] == "accepted"
        fleet = process.service.persistence.fleet
        assert fleet is not None
        await until(fleet.others, 10)
        other.renews = False
        await other.renew(standing)
        process.service.stop()
        await trio.sleep(5)
        plant.answer("a")
        await trio.sleep(5)
        settled = [one for record in plant.broker.told() for one in record if one == "settled a"]
        assert bool(settled) is awaits
        nursery.cancel_scope.cancel()


async def test_a_log_that_nobody_can_read_delays_no_take_over(autojump_clock: MockClock) -> None:
    """Who wrote it has perhaps gone long ago; that is not found out anew for each look."""
    plant = Plant(ignore)
    await plant.broker.set_up()
    plant.broker.publish(log_of("b9"), b"{}")
    async with plant.run() as process, trio.open_nursery() as nursery:
        other = Other(plant.broker)
        await other.open(nursery)
        await trio.sleep(61)
        assert list(process.service.roster.quarantined) == ["b9"]
        digest = "00" * 16
        plant.broker.write(Accepted(CHAIN, digest, "0123456789abcdef"), digest=digest)
        plant.broker.write(Started("a", "b1/a/1", b""), Sent("a", "b1/a/1"))
        other.renews = False
        await other.renew(Standing.GONE)
        process.bus.deliver(NEWS, b"")
        assert await until(lambda: process.service.roster.see("b1"), 30) < 1
        nursery.cancel_scope.cancel()


async def test_what_a_process_left_to_the_next_of_its_name_is_taken_up_at_once(
    autojump_clock: MockClock,
) -> None:
    """The lease of the one that wrote the log is gone, but it had one: it is none of an earlier version."""
    plant = Plant(ignore)
    async with plant.run() as process, trio.open_nursery() as nursery:
        other = Other(plant.broker)
        await other.open(nursery)
        fleet = process.service.persistence.fleet
        assert fleet is not None
        await until(fleet.others, 10)
        digest = "00" * 16
        plant.broker.write(Accepted(CHAIN, digest, "0123456789abcdef"), digest=digest)
        plant.broker.write(Started("a", "b1/a/1", b""), Sent("a", "b1/a/1"))
        other.renews = False
        following = Other(plant.broker, instance="following")
        following.renews = False
        # It takes no builds, so that they are this one's to take first.
        await following.renew(Standing.DRAINING)
        process.bus.deliver(NEWS, b"")
        assert await until(lambda: process.service.roster.see("b1"), 30) < 1
        nursery.cancel_scope.cancel()


async def test_what_others_were_to_take_first_waits_for_their_head_start_alone(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also at the start of a process: perhaps the others cannot take it, and have left it."""
    monkeypatch.setattr(Fleet, "is_first_for", lambda *_: False)
    plant = Plant(ignore)
    await plant.broker.set_up()
    digest = "00" * 16
    plant.broker.write(Accepted(CHAIN, digest, "0123456789abcdef"), digest=digest)
    async with plant.run() as process:
        # Two looks take a second each, as the writer of the log has no lease.
        assert 3 <= await until(lambda: process.service.roster.see("b1"), 30) < 6


@pytest.mark.parametrize("turns", range(8))
async def test_a_process_that_ends_before_it_is_ready_is_not_waited_for(
    autojump_clock: MockClock, turns: int
) -> None:
    """Its lease says that it has gone; what it was about to take over is anybody's, and nothing was sent."""
    plant = Plant(ignore)
    plant.stopping = stopping = Stopping()
    await plant.broker.set_up()
    plant.broker.write(Accepted(CHAIN, "00" * 16, "0123456789abcdef"), digest="00" * 16)
    async with trio.open_nursery() as nursery:

        async def run() -> None:
            async with plant.run():
                await trio.sleep_forever()

        nursery.start_soon(run)
        leases = LeaseBucket(JetStream(plant.broker.bus))
        while f"{LEASES}p1" not in {one.subject for one in plant.broker.bus.published}:
            await trio.lowlevel.checkpoint()
        for _ in range(turns):
            await trio.lowlevel.checkpoint()
        assert not stopping.ready
        assert stopping.give_up is not None
        await stopping.give_up()
        assert (await leases.read())["p1"].lease.standing is Standing.GONE
        await trio.sleep(5)
        assert plant.requests == []
        nursery.cancel_scope.cancel()
