"""Times in which a reply may have come and nobody here could hear it."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

import trio
from structlog.testing import capture_logs
from support.bench import Bench, request
from support.fake_bus import FakeBus, FakeListener
from support.fakes import open_world
from trio.testing import MockClock, wait_all_tasks_blocked

from scheduler.dispatch.call import Signal
from scheduler.dispatch.gaps import Gaps
from scheduler.jetstream.capturing import StreamLayout
from scheduler.plan.outcome import Outcome


def test_a_provider_whose_replies_are_not_captured_is_named_once() -> None:
    """Where replies of some providers are captured; where those of all or none are, there is no such one."""
    bus = FakeBus()
    gaps = Gaps(bus, bus, None, StreamLayout(providers=("aws",)))
    with capture_logs() as lines:
        assert not Gaps(bus, bus, None).leaves_out(request(provider="gcp"))
        assert not Gaps(bus, bus, None, StreamLayout()).leaves_out(request(provider="gcp"))
        assert [gaps.leaves_out(request(provider=name)) for name in ("aws", "gcp", "gcp")] == [
            False,
            True,
            True,
        ]
    assert [one["provider"] for one in lines] == ["gcp"]


async def test_a_timeout_says_that_the_reply_may_have_been_missed(autojump_clock: MockClock) -> None:
    """Where neither connection was up while the request was out; not of what left after that."""
    listener = FakeListener()
    async with (
        open_world(cloud=False, listener=listener, timeout=100) as world,
        trio.open_nursery() as nursery,
    ):
        bench = Bench(world, nursery)
        await bench.take_requests()
        covered = await bench.send(request("a"))
        world.bus.disconnect()
        world.bus.reconnect()
        assert covered.call.maybe_missed == ""
        listener.deaf = True
        world.bus.disconnect()
        waiting = await bench.send(request("b"))
        world.bus.reconnect()
        await wait_all_tasks_blocked()
        later = await bench.send(request("c"))
        assert [bool(one.call.maybe_missed) for one in (covered, waiting, later)] == [True, False, False]
        await trio.sleep(200)
        assert covered.failed == (
            "timed out after 100 s; it may have been answered while the broker was away:"
            " check whether it was done, then retry or skip it"
        )
        assert waiting.failed == later.failed == "timed out after 100 s"
        nursery.cancel_scope.cancel()


async def test_of_what_an_earlier_process_sent_too(autojump_clock: MockClock) -> None:
    """It was out all the while."""
    listener = FakeListener()
    async with open_world(cloud=False, listener=listener) as world:
        call = world.connectors.expect(request(), "k")
        found = [bool(call.maybe_missed)]
        listener.deaf = True
        world.bus.disconnect()
        world.bus.reconnect()
        later = world.connectors.expect(request("z"), "l")
        found += [bool(call.maybe_missed), bool(later.maybe_missed)]
        assert found == [False, True, False]
        call.abandon()
        outcome: Outcome | Signal = await call.outcome()
        assert outcome is Signal.LEFT


async def test_what_came_on_shared_subjects_while_their_connection_was_away_may_have_been_missed(
    autojump_clock: MockClock,
) -> None:
    """A timeout says so of what had been sent by then."""
    shared = FakeBus()
    async with open_world(cloud=False, shared=shared) as world, trio.open_nursery() as nursery:
        bench = Bench(world, nursery)
        await bench.take_requests()
        sent = await bench.send(request("a"))
        found = [bool(sent.call.maybe_missed)]
        shared.disconnect()
        shared.reconnect()
        await wait_all_tasks_blocked()
        found.append(bool(sent.call.maybe_missed))
        assert found == [False, True]
        nursery.cancel_scope.cancel()
