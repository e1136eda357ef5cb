"""Of several schedulers one works: how candidates find out which, and that one that goes is noticed."""

# ruff: noqa: ARG001 - a test asks for the clock by naming it

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count

import pytest
import structlog
import trio
from support.fake_bus import FakeBus, tell_subscribers
from trio.testing import MockClock

from scheduler.bus import Message
from scheduler.bus.discovery import Discovery, Identity
from scheduler.errors import BusError
from scheduler.supervision.peers import CANDIDATES, Peers


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


async def leases_of(*ids: str) -> frozenset[str]:
    """Return the ids of schedulers that keep leases."""
    return frozenset(ids)


@pytest.mark.parametrize("alone", [True, False])
async def test_the_elected_one_waits_for_one_without_a_lease_that_works(
    autojump_clock: MockClock, fake_bus: FakeBus, alone: bool
) -> None:
    """But not for one that had the lease; nor does it look where it was told that it is alone."""
    elder = Discovery(fake_bus, Identity("scheduler", "b", "1.0"), [])
    former = Discovery(fake_bus, Identity("scheduler", "c", "1.0"), [])
    for one in (elder, former):
        await one.open()
    peers = Peers(fake_bus, "scheduler", "a")
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            partial(peers.stand_elected, partial(leases_of, "a", "c"), inherited=False, alone=alone)
        )
        await trio.sleep(30)
        assert (len(nursery.child_tasks) == 0) is alone
        await elder.close()
    assert alone or trio.current_time() - began < 35


async def test_the_elected_one_gives_way_to_a_candidate_that_has_decided(
    autojump_clock: MockClock, fake_bus: FakeBus
) -> None:
    """One without a lease that is about to work, and cannot be found yet; and the other way round."""
    await Peers(fake_bus, "scheduler", "b").stand_by()
    peers = Peers(fake_bus, "scheduler", "a")
    with trio.move_on_after(60) as waiting:
        await peers.stand_elected(partial(leases_of, "a"), inherited=False, alone=False)
    assert waiting.cancelled_caught


async def test_the_elected_one_waits_for_none_that_had_the_lease_and_is_still_there(
    autojump_clock: MockClock, fake_bus: FakeBus
) -> None:
    """It gave the lease up, and says until its end that it has decided."""
    former = Peers(fake_bus, "scheduler", "b")
    await former.stand_elected(partial(leases_of, "b"), inherited=True, alone=False)
    began = trio.current_time()
    await Peers(fake_bus, "scheduler", "c").stand_elected(
        partial(leases_of, "b", "c"), inherited=False, alone=False
    )
    assert trio.current_time() - began < 1.5


async def test_behind_one_that_inherited_the_lease_a_candidate_stands_by(
    autojump_clock: MockClock, fake_bus: FakeBus
) -> None:
    """It begins at once, and says from then on that it has decided."""
    began = trio.current_time()
    await Peers(fake_bus, "scheduler", "z").stand_elected(leases_of, inherited=True, alone=False)
    assert trio.current_time() - began < 0.1
    with trio.move_on_after(60) as waiting:
        await Peers(fake_bus, "scheduler", "a").stand_by()
    assert waiting.cancelled_caught


async def test_a_scheduler_is_absent_if_nobody_hears_the_question(
    autojump_clock: MockClock, fake_bus: FakeBus
) -> None:
    """One that hangs is there; somebody who hears everything is none."""
    peers = Peers(fake_bus, "scheduler", "a")
    assert await peers.is_absent()
    await fake_bus.subscribe(">", lambda _: None)
    assert not await peers.is_absent(), "it cannot be told who listens"
    await tell_subscribers(fake_bus, ">")
    assert await peers.is_absent()


async def test_one_that_hangs_is_not_absent(autojump_clock: MockClock, fake_bus: FakeBus) -> None:
    """It hears the question, and does not answer."""
    await fake_bus.subscribe("$SRV.PING.scheduler", lambda _: None)
    await tell_subscribers(fake_bus, "$SRV.PING.scheduler")
    assert not await Peers(fake_bus, "scheduler", "a").is_absent()


async def test_an_elder_that_goes_is_told_once(autojump_clock: MockClock, fake_bus: FakeBus) -> None:
    """One without a lease keeps its builds while it answers; a few silent rounds, and it has gone."""
    other = Discovery(fake_bus, Identity("scheduler", "b", "1.0"), [])
    await other.open()
    peers = Peers(fake_bus, "scheduler", "a")
    gone: list[None] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peers.watch, partial(leases_of, "a"), lambda: gone.append(None))
        await trio.sleep(60)
        assert peers.elders == {"b"}
        await other.close()
        await trio.sleep(60)
        assert len(gone) == 1
        assert not peers.elders
        nursery.cancel_scope.cancel()


async def test_one_with_a_lease_is_no_elder(autojump_clock: MockClock, fake_bus: FakeBus) -> None:
    """Its lease says whether it owns builds."""
    await Discovery(fake_bus, Identity("scheduler", "b", "1.0"), []).open()
    peers = Peers(fake_bus, "scheduler", "a")
    with trio.move_on_after(60):
        await peers.watch(partial(leases_of, "a", "b"), lambda: None)
    assert not peers.elders


@pytest.mark.parametrize("leased", [{"b"}, set()])
async def test_only_behind_an_elder_one_stands_by(
    autojump_clock: MockClock, fake_bus: FakeBus, leased: set[str]
) -> None:
    """Builds are shared with schedulers that keep leases, and with no others."""
    other = Discovery(fake_bus, Identity("scheduler", "b", "1.0"), [])
    await other.open()
    peers = Peers(fake_bus, "scheduler", "a")
    with trio.move_on_after(60) as waiting:
        await peers.stand_behind(partial(leases_of, *leased))
    assert waiting.cancelled_caught is not bool(leased)
    await other.close()
    with trio.fail_after(10):
        await peers.stand_behind(partial(leases_of, *leased))


async def test_an_elder_gives_way_to_one_that_keeps_a_lease(
    autojump_clock: MockClock, fake_bus: FakeBus
) -> None:
    """As soon as that one has begun, and before service discovery tells of it."""
    await Peers(fake_bus, "scheduler", "z").stand_behind(partial(leases_of, "z"))
    with trio.move_on_after(60) as waiting:
        await Peers(fake_bus, "scheduler", "a").stand_by()
    assert waiting.cancelled_caught


async def test_one_that_hangs_and_has_a_lease_keeps_nobody_waiting(
    autojump_clock: MockClock, fake_bus: FakeBus
) -> None:
    """When its lease has run out its builds are taken over; new ones are taken at once."""
    await fake_bus.subscribe(PING, Silent(fake_bus).take)
    with trio.fail_after(5):
        await Peers(fake_bus, "scheduler", "a").stand_behind(partial(leases_of, "b"))


PING = "$SRV.PING.scheduler"


class Silent:
    """Another scheduler whose subscription is there, and that answers from some time on, or never."""

    def __init__(self, bus: FakeBus, answers_from: float = float("inf")) -> None:
        self._bus = bus
        self._from = trio.current_time() + answers_from
        self.asked: list[float] = []

    def take(self, message: Message) -> None:
        self.asked.append(trio.current_time())
        if trio.current_time() >= self._from:
            self._bus.publish(message.reply, b'{"id":"b"}')


async def taken_over(bus: FakeBus, written: Callable[[], int] | None = None, most: float = 60.0) -> float:
    """Seconds until a stand-by takes over; infinite where it does not within ``most``."""
    began = trio.current_time()

    async def read() -> int:
        assert written is not None
        return written()

    peers = Peers(bus, "scheduler", "a") if written is None else Peers(bus, "scheduler", "a", read)
    with trio.move_on_after(most):
        await peers.stand_by()
        return trio.current_time() - began
    return float("inf")


async def test_one_that_is_gone_is_succeeded_at_once(autojump_clock: MockClock, fake_bus: FakeBus) -> None:
    """The broker says that nobody is there: no silence has to be waited for, whatever was written."""
    numbers = count()
    assert await taken_over(fake_bus, lambda: next(numbers)) < 0.5


async def test_one_that_is_silent_is_asked_three_times_over_ten_seconds(
    autojump_clock: MockClock, fake_bus: FakeBus
) -> None:
    """Hung, or stopped: nothing is written, and it is succeeded then."""
    other = Silent(fake_bus)
    await fake_bus.subscribe(PING, other.take)
    began = trio.current_time()
    with said() as events:
        seconds = await taken_over(fake_bus, lambda: 7)
    assert 10 <= seconds < 15
    assert [at - began for at in other.asked[:3]] == pytest.approx([0, 6.5, 11.0], abs=2.5)
    assert "another scheduler is silent, and nothing is written: it counts as gone" in events


@pytest.mark.parametrize("after", [0.5, 4.0, 8.0])
async def test_one_that_answers_once_in_ten_seconds_is_not_succeeded(
    autojump_clock: MockClock, fake_bus: FakeBus, after: float
) -> None:
    """However busy it was until then."""
    await fake_bus.subscribe(PING, Silent(fake_bus, after).take)
    assert await taken_over(fake_bus, lambda: 7) == float("inf")


async def test_one_that_goes_while_it_is_waited_for_is_succeeded_then(
    autojump_clock: MockClock, fake_bus: FakeBus
) -> None:
    """A process that hung, and was killed."""
    other = await fake_bus.subscribe(PING, Silent(fake_bus).take)

    async def die() -> None:
        await trio.sleep(2)
        await other.unsubscribe()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(die)
        assert await taken_over(fake_bus, lambda: 7) < 8


async def test_while_the_logs_grow_nobody_takes_over(autojump_clock: MockClock, fake_bus: FakeBus) -> None:
    """Somebody works, though he does not answer; once nothing grows any more, he has stopped."""
    await fake_bus.subscribe(PING, Silent(fake_bus).take)
    began = trio.current_time()
    seconds = await taken_over(fake_bus, lambda: int(min(trio.current_time() - began, 100)), 200)
    assert 100 <= seconds < 130


async def test_where_it_cannot_be_told_whether_the_logs_grow_nobody_takes_over(
    autojump_clock: MockClock, fake_bus: FakeBus
) -> None:
    """Silence alone is not enough."""
    await fake_bus.subscribe(PING, Silent(fake_bus).take)

    def fail() -> int:
        raise BusError("no answer")

    assert await taken_over(fake_bus, fail) == float("inf")


@pytest.mark.parametrize(("subjects", "waits"), [((">",), False), ((">", PING), True)])
async def test_who_hears_everything_is_no_scheduler(
    autojump_clock: MockClock, fake_bus: FakeBus, subjects: tuple[str, ...], waits: bool
) -> None:
    """Where the broker tells who subscribes to what, a monitor makes nobody wait."""
    await fake_bus.subscribe(">", lambda _: None)
    await tell_subscribers(fake_bus, *subjects)
    seconds = await taken_over(fake_bus, lambda: 7)
    assert (seconds > 10) is waits
    assert seconds < 15
