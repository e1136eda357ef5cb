"""Limits on requests: how slots are counted, queued for and handed out."""

import pytest
import trio
from support.stretches import measured_stretches
from trio.testing import MockClock, wait_all_tasks_blocked

from scheduler.definition.rules import parse_limits
from scheduler.dispatch.slots import Slots
from scheduler.limiter import Part

VPC = "vpc.create.aws"
NETWORK = "network.create.aws"


class Takers:
    """Tasks that wait for a slot, and what became of them, in order."""

    def __init__(self, slots: Slots, nursery: trio.Nursery) -> None:
        self.slots = slots
        self.got: list[str] = []
        """Who got a slot, in the order of getting it."""
        self.refused: list[str] = []
        """Who went on without one."""
        self._nursery = nursery

    def take(self, build: str, name: str, subject: str = VPC, priority: float = 0.0) -> trio.CancelScope:
        scope = trio.CancelScope()
        self._nursery.start_soon(self._take, build, name, subject, priority, scope)
        return scope

    async def take_all(self, build: str, *names: str, subject: str = VPC, priority: float = 0.0) -> None:
        for name in names:
            self.take(build, name, subject, priority)
            await wait_all_tasks_blocked()

    async def _take(
        self, build: str, name: str, subject: str, priority: float, scope: trio.CancelScope
    ) -> None:
        with scope:
            taken = await self.slots.take(build, subject, priority)
            (self.got if taken else self.refused).append(name)


def test_a_build_gets_no_more_than_its_limit() -> None:
    """The slot after the last one of a build is not there, while another build still gets one."""
    slots = Slots(per_instance=10, per_build=2)
    assert [slots.try_take("a", VPC) for _ in range(3)] == [True, True, False]
    assert slots.try_take("b", VPC)
    assert slots.taken == 3


def test_all_builds_together_get_no_more_than_the_instance_has() -> None:
    """The limit of the instance holds over all builds."""
    slots = Slots(per_instance=2, per_build=2)
    assert [slots.try_take(build, VPC) for build in ("a", "b", "c")] == [True, True, False]


async def test_a_taken_slot_is_given_without_waiting() -> None:
    """Where there is room, taking a slot does not wait."""
    slots = Slots(per_instance=1, per_build=1)
    with trio.CancelScope() as scope:
        scope.cancel()
        assert await slots.take("a", VPC)
    assert slots.taken == 1


async def test_within_a_build_slots_go_out_in_the_order_of_asking() -> None:
    """The one of a build that asked first gets the first slot that is given back."""
    slots = Slots(per_instance=10, per_build=1)
    assert slots.try_take("a", VPC)
    async with trio.open_nursery() as nursery:
        takers = Takers(slots, nursery)
        await takers.take_all("a", "first", "second", "third")
        for _ in range(3):
            slots.release("a", VPC)
            await wait_all_tasks_blocked()
    assert takers.got == ["first", "second", "third"]


async def test_between_builds_slots_go_in_turns() -> None:
    """A build with one in the queue is not kept waiting behind all of a build with many."""
    slots = Slots(per_instance=1, per_build=1)
    assert slots.try_take("other", VPC)
    async with trio.open_nursery() as nursery:
        takers = Takers(slots, nursery)
        await takers.take_all("huge", "huge-1", "huge-2", "huge-3")
        await takers.take_all("small", "small-1", "small-2")
        holder = "other"
        for _ in range(5):
            before = len(takers.got)
            slots.release(holder, VPC)
            await wait_all_tasks_blocked()
            holder = takers.got[before].partition("-")[0]
    assert takers.got == ["huge-1", "small-1", "huge-2", "small-2", "huge-3"]


async def test_nobody_overtakes_those_of_its_own_build_who_wait() -> None:
    """A build that has somebody waiting gets no slot past its queue."""
    slots = Slots(per_instance=2, per_build=1)
    assert slots.try_take("a", VPC)
    async with trio.open_nursery() as nursery:
        takers = Takers(slots, nursery)
        await takers.take_all("a", "waits")
        assert not slots.try_take("a", VPC)
        slots.release("a", VPC)
        # Handed out, but its task has not run yet: the slot is taken all the same.
        assert not slots.try_take("a", VPC)
    assert takers.got == ["waits"]


async def test_a_build_at_its_own_limit_does_not_block_another() -> None:
    """A slot that a build may not have goes to the next build in turn."""
    slots = Slots(per_instance=3, per_build=1)
    assert slots.try_take("a", VPC)
    assert slots.try_take("b", VPC)
    assert slots.try_take("c", VPC)
    async with trio.open_nursery() as nursery:
        takers = Takers(slots, nursery)
        await takers.take_all("a", "a-1")
        await takers.take_all("b", "b-1")
        slots.release("b", VPC)
        await wait_all_tasks_blocked()
        assert takers.got == ["b-1"]
        slots.release("a", VPC)
    assert takers.got == ["b-1", "a-1"]


async def test_cancelled_while_waiting_it_leaves_the_queue() -> None:
    """Whoever is cancelled in the queue takes no slot, and those behind it move up."""
    slots = Slots(per_instance=10, per_build=1)
    assert slots.try_take("a", VPC)
    async with trio.open_nursery() as nursery:
        takers = Takers(slots, nursery)
        scope = takers.take("a", "first")
        await wait_all_tasks_blocked()
        await takers.take_all("a", "second")
        scope.cancel()
        await wait_all_tasks_blocked()
        slots.release("a", VPC)
    assert takers.got == ["second"]
    slots.release("a", VPC)
    assert slots.taken == 0
    assert slots.try_take("a", VPC), "an empty queue must not be left behind"


async def test_cancelled_after_it_was_handed_a_slot_it_passes_it_on() -> None:
    """A slot that was handed to a task which is cancelled before it runs goes to the next."""
    slots = Slots(per_instance=10, per_build=1)
    assert slots.try_take("a", VPC)
    async with trio.open_nursery() as nursery:
        takers = Takers(slots, nursery)
        first = takers.take("a", "first")
        await wait_all_tasks_blocked()
        await takers.take_all("a", "second")
        first.cancel()
        slots.release("a", VPC)
    assert takers.got == ["second"]
    assert slots.taken == 1
    slots.release("a", VPC)
    assert slots.taken == 0


async def test_those_who_wait_are_dismissed_without_a_slot() -> None:
    """When a build needs no more slots, its waiters go on without one, and nobody else's do."""
    slots = Slots(per_instance=2, per_build=1)
    assert slots.try_take("a", VPC)
    assert slots.try_take("b", VPC)
    async with trio.open_nursery() as nursery:
        takers = Takers(slots, nursery)
        await takers.take_all("a", "a-1", "a-2")
        await takers.take_all("b", "b-1")
        slots.dismiss("a")
        await wait_all_tasks_blocked()
        assert set(takers.refused) == {"a-1", "a-2"}
        assert takers.got == []
        slots.release("b", VPC)
    assert takers.got == ["b-1"]
    slots.release("a", VPC)
    slots.release("b", VPC)
    assert slots.taken == 0


async def test_dismissed_and_cancelled_at_once_it_gives_back_nothing() -> None:
    """A waiter that is cancelled and dismissed before it runs does not release what it never had."""
    slots = Slots(per_instance=2, per_build=1)
    assert slots.try_take("a", VPC)
    async with trio.open_nursery() as nursery:
        takers = Takers(slots, nursery)
        scope = takers.take("a", "a-1")
        await wait_all_tasks_blocked()
        scope.cancel()
        slots.dismiss("a")
    assert slots.taken == 1
    assert slots.waiters == 0


def test_to_dismiss_a_build_without_waiters_changes_nothing() -> None:
    """A build that nobody of waits for can be dismissed any time, and take slots afterwards."""
    slots = Slots(per_instance=1, per_build=1)
    slots.dismiss("a")
    assert slots.try_take("a", VPC)


def test_a_slot_that_was_never_taken_cannot_be_given_back() -> None:
    """Giving back what was not taken is a bug, and says so."""
    slots = Slots(per_instance=1, per_build=1)
    slots.open("a")
    with pytest.raises(KeyError):
        slots.release("a", VPC)


async def test_whoever_comes_anew_waits_for_one_release_beside_a_huge_build() -> None:
    """A build of one component beside one of ten thousand has the first slot or the second."""
    slots = Slots(per_instance=4, per_build=4)
    for _ in range(4):
        assert slots.try_take("huge", VPC)
    async with trio.open_nursery() as nursery:
        takers = Takers(slots, nursery)
        for number in range(10_000):
            takers.take("huge", f"huge-{number}")
        await wait_all_tasks_blocked()
        slots.release("huge", VPC)
        await takers.take_all("small", "small")
        slots.release("huge", VPC)
        await wait_all_tasks_blocked()
        assert takers.got[1:] == ["small"]
        nursery.cancel_scope.cancel()


async def test_new_builds_without_end_do_not_starve_an_old_one() -> None:
    """A build that waits has its turn again and again, though a new one comes with each release."""
    slots = Slots(per_instance=1, per_build=1)
    assert slots.try_take("holder", VPC)
    async with trio.open_nursery() as nursery:
        takers = Takers(slots, nursery)
        await takers.take_all("old", *(f"old-{number}" for number in range(5)))
        holder = "holder"
        for number in range(10):
            await takers.take_all(f"new{number}", f"new{number}-1")
            slots.release(holder, VPC)
            await wait_all_tasks_blocked()
            holder = takers.got[-1].partition("-")[0]
        assert sum(name.startswith("old") for name in takers.got) == 3
        nursery.cancel_scope.cancel()


# ---- limits by subject


async def test_a_limit_counts_what_matches_over_all_builds() -> None:
    """Requests of two builds share a limit; what does not match it is free."""
    slots = Slots(parse_limits("vpc.create.*=2"))
    assert [slots.try_take(build, VPC) for build in ("a", "b", "c")] == [True, True, False]
    assert slots.try_take("c", "vpc.delete.aws")
    assert slots.blocking("c", VPC) == ["vpc.create.*=2"]
    slots.release("a", VPC)
    assert slots.try_take("c", VPC)


async def test_all_slots_are_taken_or_none() -> None:
    """A request that one of its limits keeps leaves the slots of the others to whoever can use them."""
    slots = Slots(parse_limits("*.create.*=2, vpc.*.*=1"))
    assert slots.try_take("a", VPC)
    async with trio.open_nursery() as nursery:
        takers = Takers(slots, nursery)
        await takers.take_all("a", "vpc")
        assert slots.try_take("b", NETWORK), "the one that waits for a vpc holds nothing"
        slots.release("a", VPC)
        await wait_all_tasks_blocked()
        assert takers.got == ["vpc"]


async def test_a_build_has_limits_of_its_own() -> None:
    """They hold within the build, and say so; another build does not notice."""
    slots = Slots()
    slots.open("a", parse_limits("vpc.create.*=1"))
    assert slots.try_take("a", VPC)
    assert not slots.try_take("a", VPC)
    assert slots.try_take("a", NETWORK)
    assert slots.try_take("b", VPC)
    assert slots.blocking("a", VPC) == ["options.limits vpc.create.*=1"]


async def test_a_build_at_its_own_limit_leaves_its_turn_to_others() -> None:
    """Who has a limit of its own that keeps it is passed over, and has its turn when it has room again."""
    slots = Slots(parse_limits("*=2"))
    slots.open("a", parse_limits("*=1"))
    assert slots.try_take("a", VPC)
    assert slots.try_take("b", VPC)
    async with trio.open_nursery() as nursery:
        takers = Takers(slots, nursery)
        await takers.take_all("a", "a-1")
        await takers.take_all("b", "b-1", "b-2")
        slots.release("b", VPC)
        await wait_all_tasks_blocked()
        assert takers.got == ["b-1"]
        slots.release("a", VPC)
        await wait_all_tasks_blocked()
        assert takers.got == ["b-1", "a-1"]
        slots.release("a", VPC)
    assert takers.got == ["b-1", "a-1", "b-2"]


async def test_one_kind_of_request_does_not_hold_up_another() -> None:
    """Those that wait for a vpc do not keep a network of the same build waiting."""
    slots = Slots(parse_limits("vpc.*.*=1, *=3"))
    assert slots.try_take("a", VPC)
    async with trio.open_nursery() as nursery:
        takers = Takers(slots, nursery)
        await takers.take_all("a", "vpc-1", "vpc-2")
        assert slots.try_take("a", NETWORK)
        nursery.cancel_scope.cancel()


async def test_within_a_build_the_most_urgent_goes_first() -> None:
    """Of equal ones who asked first, and whatever other limits they fall under."""
    slots = Slots(parse_limits("*=1, vpc.*.*=1"))
    assert slots.try_take("a", NETWORK)
    async with trio.open_nursery() as nursery:
        takers = Takers(slots, nursery)
        await takers.take_all("a", "low", priority=1.0)
        await takers.take_all("a", "middle", subject=NETWORK, priority=2.0)
        await takers.take_all("a", "high", priority=3.0)
        await takers.take_all("a", "also high", priority=3.0)
        for held in (NETWORK, VPC, VPC, NETWORK):
            slots.release("a", held)
            await wait_all_tasks_blocked()
    assert takers.got == ["high", "also high", "middle", "low"]


async def test_of_equally_urgent_ones_those_under_the_narrowest_limit_go_first() -> None:
    """A narrow limit is kept full, though others asked earlier: what it keeps waiting is left in the end."""
    slots = Slots(parse_limits("*=2, vpc.*.*=1"))
    assert slots.try_take("a", NETWORK)
    assert slots.try_take("a", NETWORK)
    async with trio.open_nursery() as nursery:
        takers = Takers(slots, nursery)
        await takers.take_all("a", "network", subject=NETWORK)
        await takers.take_all("a", "vpc")
        slots.release("a", NETWORK)
        await wait_all_tasks_blocked()
        assert takers.got == ["vpc"]
        slots.release("a", NETWORK)
    assert takers.got == ["vpc", "network"]


async def test_urgency_does_not_count_between_builds() -> None:
    """Builds take turns, however urgent their components are."""
    slots = Slots(parse_limits("*=1"))
    assert slots.try_take("x", VPC)
    async with trio.open_nursery() as nursery:
        takers = Takers(slots, nursery)
        await takers.take_all("a", "a-1", "a-2", priority=9.0)
        await takers.take_all("b", "b-1", priority=1.0)
        holder = "x"
        for _ in range(3):
            slots.release(holder, VPC)
            await wait_all_tasks_blocked()
            holder = takers.got[-1][0]
    assert takers.got == ["a-1", "b-1", "a-2"]


async def test_a_build_has_one_turn_however_many_kinds_wait() -> None:
    """Waiting under several limits brings no more of the slots that are scarce."""
    slots = Slots(parse_limits("*=1, vpc.*.*=9, network.*.*=9, lb.*.*=9"))
    assert slots.try_take("x", VPC)
    async with trio.open_nursery() as nursery:
        takers = Takers(slots, nursery)
        for kind in ("vpc", "network", "lb"):
            await takers.take_all("a", f"a-{kind}-1", f"a-{kind}-2", subject=f"{kind}.create.aws")
        await takers.take_all("b", *(f"b-vpc-{number}" for number in range(6)))
        slots.release("x", VPC)
        await wait_all_tasks_blocked()
        for _ in range(11):
            build, kind, _ = takers.got[-1].split("-")
            slots.release(build, f"{kind}.create.aws")
            await wait_all_tasks_blocked()
    assert "".join(name[0] for name in takers.got) == "ab" * 6


async def test_a_scarce_kind_is_shared_though_one_build_is_served_elsewhere() -> None:
    """A build that gets plenty of other slots is not passed over where a scarce one is shared."""
    slots = Slots(parse_limits("*=2, vpc.*.*=1"))
    assert slots.try_take("x", VPC)
    assert slots.try_take("a", NETWORK)
    async with trio.open_nursery() as nursery:
        takers = Takers(slots, nursery)
        await takers.take_all("a", *(f"a-network-{number}" for number in range(50)), subject=NETWORK)
        await takers.take_all("a", "a-vpc", priority=1.0)
        await takers.take_all("b", *(f"b-vpc-{number}" for number in range(5)))
        holder = "x"
        for _ in range(4):
            for _ in range(5):
                slots.release("a", NETWORK)
                await wait_all_tasks_blocked()
            slots.release(holder, VPC)
            await wait_all_tasks_blocked()
            holder = next(name for name in reversed(takers.got) if "vpc" in name)[0]
        assert takers.got.count("a-vpc") == 1
        nursery.cancel_scope.cancel()


async def test_what_keeps_a_build_is_counted_by_limit() -> None:
    """For a board: how many components wait for which limit."""
    slots = Slots(parse_limits("vpc.*.*=1"), per_build=2)
    slots.open("a")
    assert slots.waiting("a") == {}
    assert slots.try_take("a", VPC)
    async with trio.open_nursery() as nursery:
        takers = Takers(slots, nursery)
        await takers.take_all("a", "vpc-1", "vpc-2")
        assert slots.waiting("a") == {"vpc.*.*=1": 2}
        assert slots.try_take("a", NETWORK)
        await takers.take_all("a", "network", subject=NETWORK)
        assert slots.waiting("a") == {"vpc.*.*=1": 2, "max_in_flight_per_build=2": 3}
        assert slots.waiting("b") == {}
        nursery.cancel_scope.cancel()


def test_what_is_in_flight_already_may_exceed_the_limits() -> None:
    """After a restart it counts all the same, and nothing begins before there is room."""
    slots = Slots(per_instance=2, per_build=9)
    for _ in range(3):
        slots.occupy("a", VPC)
    assert slots.taken == 3
    slots.release("a", VPC)
    assert not slots.try_take("a", VPC)
    slots.release("a", VPC)
    assert slots.try_take("a", VPC)


async def test_other_limits_count_what_is_in_flight() -> None:
    """A lower limit lets nothing begin until enough has ended; a higher one lets go who waits."""
    slots = Slots()
    slots.open("a", parse_limits("vpc.*.*=3"))
    for _ in range(3):
        assert slots.try_take("a", VPC)
    slots.change("a", parse_limits("vpc.*.*=2"))
    slots.release("a", VPC)
    assert not slots.try_take("a", VPC)
    async with trio.open_nursery() as nursery:
        takers = Takers(slots, nursery)
        await takers.take_all("a", "first", "second")
        slots.release("a", VPC)
        await wait_all_tasks_blocked()
        assert takers.got == ["first"]
        slots.change("a", parse_limits("vpc.*.*=3"))
    assert takers.got == ["first", "second"]
    for _ in range(3):
        slots.release("a", VPC)
    assert slots.taken == 0


async def test_a_closed_build_leaves_nothing_behind() -> None:
    """Who waits goes on without a slot, what is in flight is given back, and twice is as good as once."""
    slots = Slots(parse_limits("*=1"))
    slots.open("a")
    assert slots.try_take("a", VPC)
    async with trio.open_nursery() as nursery:
        takers = Takers(slots, nursery)
        await takers.take_all("a", "a-1")
        await takers.take_all("b", "b-1")
        slots.close("a")
        slots.close("a")
    assert (takers.got, takers.refused) == (["b-1"], ["a-1"])
    slots.release("a", VPC)
    slots.release("b", VPC)
    assert slots.taken == slots.waiters == len(slots.limiter.usages) == 0


async def test_a_build_that_was_never_opened_is_forgotten_when_it_is_empty() -> None:
    """Without `open` nothing is kept of a build that has nothing in flight and nobody waiting."""
    slots = Slots(per_instance=1)
    assert slots.try_take("a", VPC)
    assert not slots.try_take("b", VPC)
    assert slots.blocking("c", VPC) == ["max_in_flight=1"]
    slots.dismiss("b")
    slots.release("a", VPC)
    assert len(slots.limiter.usages) == 0


async def test_those_who_left_do_not_keep_others_from_room() -> None:
    """When all who waited are gone, who comes next finds the room that there is."""
    slots = Slots(parse_limits("vpc.*.*=1"))
    assert slots.try_take("a", VPC)
    async with trio.open_nursery() as nursery:
        takers = Takers(slots, nursery)
        await takers.take_all("b", "b-1")
        nursery.cancel_scope.cancel()
    slots.release("a", VPC)
    assert slots.try_take("c", VPC)


async def test_many_subjects_are_forgotten_and_counted_all_the_same() -> None:
    """A build with thousands of subjects and sets of limits stays within them, and gives all back."""
    rules = ", ".join(f"t{number}.*.*=900, *.*.p{number}=900" for number in range(20))
    slots = Slots(per_instance=9_000, per_build=9_000)
    slots.open("a", parse_limits(f"*=900, {rules}"))
    subjects = [f"t{number % 60}.create.p{number // 60}" for number in range(3_000)]
    taken = [subject for subject in subjects if slots.try_take("a", subject)]
    assert len(taken) == 900
    usage = slots.limiter.usages.get("a")
    assert usage is not None
    assert len(usage.priority_queue_of) <= 1_024
    assert len(usage.priority_queues) <= 33
    for subject in reversed(taken):
        slots.release("a", subject)
    assert slots.taken == 0
    assert [pool.taken for pool in usage.limits if not hasattr(pool, "starts")] == [0] * 41


# ---- rates


class Clock:
    """Takers under a rate: when each of them began."""

    def __init__(self, slots: Slots) -> None:
        self.slots = slots
        self.starts: list[float] = []

    async def start(self, build: str, subject: str = VPC) -> None:
        assert await self.slots.take(build, subject)
        self.starts.append(trio.current_time())
        self.slots.release(build, subject)

    async def run(self, times: int, *builds: str) -> None:
        async with trio.open_nursery() as outer:
            outer.start_soon(self.slots.run)
            async with trio.open_nursery() as nursery:
                for build in builds:
                    for _ in range(times):
                        nursery.start_soon(self.start, build)
            outer.cancel_scope.cancel()


def most_within(starts: list[float], period: float) -> int:
    return max(sum(one <= other < one + period for other in starts) for one in starts)


async def test_a_rate_holds_in_every_window(autojump_clock: MockClock) -> None:
    """No window of a period has more starts than the rate, and none is given away."""
    clock = Clock(Slots(parse_limits("*.create.aws=20/s")))
    began = autojump_clock.current_time()
    await clock.run(50, "a", "b")
    assert most_within(clock.starts, 1.0) == 20
    assert autojump_clock.current_time() - began == pytest.approx(4.04, abs=0.01)


async def test_a_pause_saves_up_no_more_than_a_period(autojump_clock: MockClock) -> None:
    """After a pause there may be as many as in a period at once, and not twice as many around its end."""
    slots = Slots(parse_limits("*=4/s"))
    starts = []
    for pause in (0.0, 0.9, 0.0, 0.0, 0.0, 0.05, 0.1, 0.9, 0.2, 0.0, 0.0, 0.0):
        await trio.sleep(pause)
        if slots.try_take("a", VPC):
            starts.append(autojump_clock.current_time())
    assert len(starts) == 9
    assert most_within(starts, 1.0) == 4


async def test_builds_share_a_rate(autojump_clock: MockClock) -> None:
    """Of a rate's slots a small build gets its share, however many wait in a huge one."""
    slots = Slots(parse_limits("*=2/m"))
    order = []

    async def start(build: str) -> None:
        assert await slots.take(build, VPC)
        order.append(build)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(slots.run)
        for _ in range(100):
            nursery.start_soon(start, "huge")
        await wait_all_tasks_blocked()
        nursery.start_soon(start, "small")
        await trio.sleep(61)
        assert sorted(order) == ["huge", "huge", "huge", "small"]
        assert autojump_clock.current_time() < 120
        nursery.cancel_scope.cancel()


async def test_a_rate_of_a_build_is_its_own(autojump_clock: MockClock) -> None:
    """Who waits for a rate of its own build is woken when it has room; others do not wait."""
    slots = Slots()
    slots.open("a", parse_limits("*=1/s"))
    began = autojump_clock.current_time()
    clock = Clock(slots)
    await clock.run(3, "a", "b")
    assert [start - began for start in clock.starts] == pytest.approx([0.0] * 4 + [1.01, 2.02])


async def test_what_was_begun_counts_under_a_changed_rate() -> None:
    """To change a rate does not begin its period anew."""
    slots = Slots()
    slots.open("a", parse_limits("vpc.*.*=2/m"))
    assert slots.try_take("a", VPC)
    assert slots.try_take("a", VPC)
    slots.change("a", parse_limits("vpc.*.*=3/m"))
    assert slots.try_take("a", VPC)
    assert not slots.try_take("a", VPC)
    assert slots.blocking("a", VPC) == ["options.limits vpc.*.*=3/m"]


async def test_who_comes_when_a_rate_has_room_goes_behind_those_who_wait(mock_clock: MockClock) -> None:
    """The time has come and nobody was woken yet: room is for those who wait, of whatever limits."""
    slots = Slots(parse_limits("*=1/s, vpc.*.*=9"))
    assert slots.try_take("a", VPC)
    async with trio.open_nursery() as nursery:
        takers = Takers(slots, nursery)
        await takers.take_all("a", "waits")
        mock_clock.jump(2)
        assert not slots.try_take("b", NETWORK)
        await wait_all_tasks_blocked()
        assert takers.got == ["waits"]


async def test_a_request_waits_for_its_rate_and_for_its_slot(autojump_clock: MockClock) -> None:
    """Under a rate and a number in flight it begins when both have room, whichever comes last."""
    slots = Slots(parse_limits("*=1, *=1/s"))
    assert slots.try_take("a", VPC)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(slots.run)
        takers = Takers(slots, nursery)
        await takers.take_all("a", "first", "second")
        await trio.sleep(0.5)
        slots.release("a", VPC)
        await trio.sleep(0.5)
        assert takers.got == []
        await trio.sleep(0.02)
        assert takers.got == ["first"]
        assert autojump_clock.current_time() == pytest.approx(1.02)
        await trio.sleep(5)
        assert takers.got == ["first"]
        slots.release("a", VPC)
        await wait_all_tasks_blocked()
        assert takers.got == ["first", "second"]
        nursery.cancel_scope.cancel()


async def test_what_thousands_of_builds_want_is_counted_in_slices() -> None:
    """Others have a turn after some hundred builds: the limits of a fleet are shared five times a second."""
    slots = Slots(parse_limits("vpc.*.*=5"), per_instance=20_000, per_build=500)
    (rule,) = parse_limits("vpc.*.*=5")
    slots.allot({rule.kind: Part(0, rule)})
    for number in range(10_000):
        slots.limiter.open(number)
        slots.limiter.queue(number, VPC, 0.0, lambda _: None)
    with measured_stretches() as stretches:
        wanted = await slots.wanting()
    assert slots.use(wanted)["vpc.*.*"] == (0, 10_000)
    assert max(stretches.tasks).seconds < 0.01, stretches.tasks
