"""Of several schedulers one works: how candidates find out which, and that one that goes is noticed."""

# ruff: noqa: ARG001 - a test asks for the clock by naming it

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import structlog
import trio
from fake_bus import FakeBus
from trio.testing import MockClock

from scheduler.discovery import Discovery, Identity
from scheduler.peers import CANDIDATES, Peers


async def begin(bus: FakeBus, name: str, after: float, working: list[str]) -> None:
    """Stand by, and then work: be found by service discovery, as the service does it."""
    await trio.sleep(after)
    await Peers(bus, "scheduler", name).stand_by()
    working.append(name)
    # A service has things to do before it can be found.
    await trio.sleep(0.1)
    await Discovery(bus, Identity("scheduler", name, "1.0"), []).open()


@contextmanager
def said() -> Iterator[list[str]]:
    with structlog.testing.capture_logs() as logs:
        events: list[str] = []
        yield events
        events += [line["event"] for line in logs]


@pytest.mark.parametrize("between", [0.0, 0.01, 0.05, 0.15, 0.3, 1.0])
@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")])
async def test_of_two_that_begin_together_one_works(
    autojump_clock: MockClock, fake_bus: FakeBus, names: tuple[str, str], between: float
) -> None:
    """Whichever id is smaller, and however close they are."""
    working: list[str] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(begin, fake_bus, names[0], 0.0, working)
        nursery.start_soon(begin, fake_bus, names[1], between, working)
        await trio.sleep(30)
        assert len(working) == 1
        nursery.cancel_scope.cancel()


async def test_one_alone_works_at_once(autojump_clock: MockClock, fake_bus: FakeBus) -> None:
    """Nobody is waited for who is not there."""
    began = trio.current_time()
    with said() as events:
        await Peers(fake_bus, "scheduler", "a").stand_by()
    assert trio.current_time() - began < 0.5
    assert events == []


async def test_one_that_has_decided_goes_first(autojump_clock: MockClock, fake_bus: FakeBus) -> None:
    """Between deciding and being found by service discovery it is known by what it tells candidates."""
    await Peers(fake_bus, "scheduler", "z").stand_by()
    with trio.move_on_after(60) as waiting:
        await Peers(fake_bus, "scheduler", "a").stand_by()
    assert waiting.cancelled_caught


async def test_a_candidate_answers_on_no_subject_of_the_system(
    autojump_clock: MockClock, fake_bus: FakeBus
) -> None:
    """Nobody has it write into a log."""
    await Peers(fake_bus, "scheduler", "a").stand_by()
    fake_bus.published.clear()
    fake_bus.deliver(CANDIDATES, b'{"id":"b"}', reply="scheduler.log.b1")
    await trio.sleep(1)
    assert fake_bus.published == []


async def test_one_that_goes_is_told_once(autojump_clock: MockClock, fake_bus: FakeBus) -> None:
    """Another one that works is live while it answers; two silent rounds, and it has gone."""
    other = Discovery(fake_bus, Identity("scheduler", "b", "1.0"), [])
    await other.open()
    peers = Peers(fake_bus, "scheduler", "a")
    gone: list[None] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peers.watch, lambda: gone.append(None))
        await trio.sleep(60)
        assert peers.live == {"a", "b"}
        assert await peers.look() == {"a", "b"}
        await other.close()
        await trio.sleep(60)
        assert len(gone) == 1
        assert peers.live == {"a"}
        nursery.cancel_scope.cancel()
