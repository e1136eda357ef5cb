"""How many slots the builds of one sender may have together, and what is left for those of others."""

from weakref import ref

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from scheduler.definition.rules import parse_limits
from scheduler.dispatch.slots import Slots

VPC = "vpc.create.aws"


def fill(slots: Slots, sender: str, builds: int = 4) -> int:
    """Have the builds of a sender take all that they are given; returns how many that are."""
    taken = 0
    for number in range(builds):
        slots.open((sender, number), sender=sender)
        while slots.try_take((sender, number), VPC):
            taken += 1
    return taken


class Takers:
    """Builds that take one slot each, and who had it, in order."""

    def __init__(self, slots: Slots, nursery: trio.Nursery) -> None:
        self.slots = slots
        self.got: list[str] = []
        self._nursery = nursery

    async def take(self, build: str, sender: str, subject: str = VPC) -> None:
        self.slots.open(build, sender=sender)
        self._nursery.start_soon(self._take, build, subject)
        await wait_all_tasks_blocked()

    async def _take(self, build: str, subject: str) -> None:
        if await self.slots.take(build, subject):
            self.got.append(build)


@pytest.mark.parametrize(("most", "alone"), [(1, 1), (7, 7), (8, 7), (16, 14), (2_000, 1_750)])
def test_a_sender_alone_has_seven_eighths(most: int, alone: int) -> None:
    """However many builds it has; where there are fewer than eight slots it has all of them."""
    slots = Slots(per_instance=most)
    assert fill(slots, "one", 5) == alone


def test_some_are_left_for_whoever_comes_next() -> None:
    """Nine senders, one after another, take all that they are given, and give nothing back."""
    slots = Slots(per_instance=2_000)
    assert [fill(slots, f"sender {number}") for number in range(10)] == [
        1_750,
        125,
        63,
        31,
        16,
        8,
        4,
        2,
        1,
        0,
    ]


def test_senders_that_push_together_have_the_same() -> None:
    """And an eighth is left for those who have little."""
    slots = Slots(per_instance=2_000)
    for sender in "abcd":
        slots.open(sender, sender=sender)
    taken = dict.fromkeys("abcd", 0)
    for _ in range(600):
        for sender in taken:
            taken[sender] += slots.try_take(sender, VPC)
    assert set(taken.values()) <= {437, 438}
    assert slots.taken == 1_750


def test_builds_of_unknown_senders_share_what_one_has() -> None:
    """After a restart nobody knows who sent them."""
    slots = Slots(per_instance=16)
    for build in range(20):
        slots.open(build)
    assert sum(slots.try_take(build, VPC) for build in range(20)) == 14
    slots.open("known", sender="somebody")
    assert slots.try_take("known", VPC)


async def test_who_is_kept_by_the_share_is_told_so() -> None:
    """It is not the limit of all that lacks room, and for others nothing does."""
    slots = Slots(per_instance=16)
    fill(slots, "one")
    assert slots.blocking(("one", 0), VPC) == ["max_in_flight=16 (its sender's share)"]
    assert slots.blocking("another", VPC) == []
    assert fill(slots, "two") == 1
    assert fill(slots, "three") == 1
    assert slots.blocking(("one", 0), VPC) == ["max_in_flight=16"]


async def test_who_waits_goes_on_when_its_sender_has_less(nursery: trio.Nursery) -> None:
    """One of its builds gives a slot back: another one has it, and only one."""
    slots = Slots(per_instance=16)
    takers = Takers(slots, nursery)
    fill(slots, "one")
    await takers.take("x", "one")
    await takers.take("y", "one")
    assert takers.got == []
    assert slots.waiting("x") == {"max_in_flight=16 (its sender's share)": 1}
    slots.release(("one", 0), VPC)
    await wait_all_tasks_blocked()
    assert takers.got == ["x"]


async def test_who_waits_goes_on_when_others_have_less(nursery: trio.Nursery) -> None:
    """What another sender gives back adds to what is free, and so to what this one may have."""
    slots = Slots(per_instance=16)
    takers = Takers(slots, nursery)
    slots.open("another", sender="two")
    assert [slots.try_take("another", VPC) for _ in range(8)] == [True] * 8
    assert fill(slots, "one") == 6
    await takers.take("x", "one")
    slots.release("another", VPC)
    await wait_all_tasks_blocked()
    assert takers.got == ["x"]


async def test_it_is_what_a_sender_has_now_that_counts(nursery: trio.Nursery) -> None:
    """Not what it had when it began to wait, beside senders who came later and took of what was left."""
    slots = Slots(per_instance=64)
    takers = Takers(slots, nursery)
    assert [fill(slots, sender) for sender in ("two", "one")] == [56, 4]
    await takers.take("x", "one")
    assert [fill(slots, sender) for sender in ("three", "four")] == [2, 1]
    slots.release(("one", 0), VPC)
    await wait_all_tasks_blocked()
    assert takers.got == []
    slots.release(("one", 0), VPC)
    await wait_all_tasks_blocked()
    assert takers.got == ["x"]


async def test_it_waits_for_the_share_under_every_limit(nursery: trio.Nursery) -> None:
    """Builds under a limit by subject wait beside those under none, and go on as they do."""
    slots = Slots(parse_limits("lb.*.*=3"), per_instance=16)
    takers = Takers(slots, nursery)
    fill(slots, "one")
    await takers.take("x", "one", "lb.create.aws")
    await takers.take("y", "one")
    for _ in range(2):
        slots.release(("one", 0), VPC)
    await wait_all_tasks_blocked()
    assert sorted(takers.got) == ["x", "y"]


async def test_senders_take_turns(nursery: trio.Nursery) -> None:
    """A sender of many builds has one turn, as one of a single build has."""
    slots = Slots(parse_limits("*=1"))
    takers = Takers(slots, nursery)
    slots.open("first", sender="one")
    assert slots.try_take("first", VPC)
    for number in range(4):
        await takers.take(f"one {number}", "one")
    await takers.take("two 0", "two")
    await takers.take("two 1", "two")
    slots.release("first", VPC)
    await wait_all_tasks_blocked()
    for _ in range(5):
        slots.release(takers.got[-1], VPC)
        await wait_all_tasks_blocked()
    assert takers.got == ["one 0", "two 0", "one 1", "two 1", "one 2", "one 3"]


async def test_who_had_no_turn_for_long_saves_none_up(nursery: trio.Nursery) -> None:
    """A sender who comes anew goes behind one that has been waiting meanwhile."""
    slots = Slots(parse_limits("*=1"))
    takers = Takers(slots, nursery)

    async def go_on() -> None:
        slots.release(takers.got[-1], VPC)
        await wait_all_tasks_blocked()

    for number, sender in enumerate(["one", "two", "three", "three", "one", "one"]):
        await takers.take(f"{sender} {number}", sender)
    for _ in range(3):
        await go_on()
    assert takers.got == ["one 0", "two 1", "three 2", "one 4"]
    await takers.take("two 6", "two")
    for _ in range(3):
        await go_on()
    assert takers.got[4:] == ["three 3", "two 6", "one 5"]


async def test_a_sender_whose_builds_are_over_leaves_nothing_behind() -> None:
    """Also where it kept builds of its own waiting until they were closed; no collector is needed."""
    slots = Slots(per_instance=16)
    fill(slots, "one", 1)
    async with trio.open_nursery() as nursery:
        takers = Takers(slots, nursery)
        await takers.take("x", "one")
        usage = slots.limiter.usages.get("x")
        assert usage is not None
        slots.release(("one", 0), VPC)
        await takers.take("y", "one")
        there = ref(usage)
        del usage
        for build in ("y", "x", ("one", 0)):
            slots.close(build)
    assert there() is None
    assert slots.taken == 0
    assert not slots.limiter.usages.shares.full
    assert not slots.limiter.usages._share_of
    assert fill(slots, "two") == 14
