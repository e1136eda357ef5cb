"""Limits on requests in flight: how slots are counted, queued for and handed out."""

from collections import Counter, OrderedDict, deque
from collections.abc import Callable

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from scheduler.slots import Slots


class Takers:
    """Tasks that wait for a slot, and what became of them, in order."""

    def __init__(self, slots: Slots, nursery: trio.Nursery) -> None:
        self.slots = slots
        self.got: list[str] = []
        """Who got a slot, in the order of getting it."""
        self.refused: list[str] = []
        """Who went on without one."""
        self._nursery = nursery

    def take(self, build: str, name: str) -> trio.CancelScope:
        scope = trio.CancelScope()
        self._nursery.start_soon(self._take, build, name, scope)
        return scope

    async def take_all(self, build: str, *names: str) -> None:
        for name in names:
            self.take(build, name)
            await wait_all_tasks_blocked()

    async def _take(self, build: str, name: str, scope: trio.CancelScope) -> None:
        with scope:
            (self.got if await self.slots.take(build) else self.refused).append(name)


def test_a_build_gets_no_more_than_its_limit() -> None:
    """The slot after the last one of a build is not there, while another build still gets one."""
    slots = Slots(per_instance=10, per_build=2)
    assert [slots.try_take("a") for _ in range(3)] == [True, True, False]
    assert slots.try_take("b")
    assert slots.taken == 3


def test_all_builds_together_get_no_more_than_the_instance_has() -> None:
    """The limit of the instance holds over all builds."""
    slots = Slots(per_instance=2, per_build=2)
    assert [slots.try_take(build) for build in ("a", "b", "c")] == [True, True, False]


async def test_a_taken_slot_is_given_without_waiting() -> None:
    """Where there is room, taking a slot does not wait."""
    slots = Slots(per_instance=1, per_build=1)
    with trio.CancelScope() as scope:
        scope.cancel()
        assert await slots.take("a")
    assert slots.taken == 1


async def test_within_a_build_slots_go_out_in_the_order_of_asking() -> None:
    """The one of a build that asked first gets the first slot that is given back."""
    slots = Slots(per_instance=10, per_build=1)
    assert slots.try_take("a")
    async with trio.open_nursery() as nursery:
        takers = Takers(slots, nursery)
        await takers.take_all("a", "first", "second", "third")
        for _ in range(3):
            slots.release("a")
            await wait_all_tasks_blocked()
    assert takers.got == ["first", "second", "third"]


async def test_between_builds_slots_go_in_turns() -> None:
    """A build with one in the queue is not kept waiting behind all of a build with many."""
    slots = Slots(per_instance=1, per_build=1)
    assert slots.try_take("other")
    async with trio.open_nursery() as nursery:
        takers = Takers(slots, nursery)
        await takers.take_all("huge", "huge-1", "huge-2", "huge-3")
        await takers.take_all("small", "small-1", "small-2")
        holder = "other"
        for _ in range(5):
            before = len(takers.got)
            slots.release(holder)
            await wait_all_tasks_blocked()
            holder = takers.got[before].partition("-")[0]
    assert takers.got == ["huge-1", "small-1", "huge-2", "small-2", "huge-3"]


async def test_nobody_overtakes_those_of_its_own_build_who_wait() -> None:
    """A build that has somebody waiting gets no slot past its queue."""
    slots = Slots(per_instance=2, per_build=1)
    assert slots.try_take("a")
    async with trio.open_nursery() as nursery:
        takers = Takers(slots, nursery)
        await takers.take_all("a", "waits")
        assert not slots.try_take("a")
        slots.release("a")
        # Handed out, but its task has not run yet: the slot is taken all the same.
        assert not slots.try_take("a")
    assert takers.got == ["waits"]


async def test_a_build_at_its_own_limit_does_not_block_another() -> None:
    """A slot that a build may not have goes to the next build in turn."""
    slots = Slots(per_instance=3, per_build=1)
    assert slots.try_take("a")
    assert slots.try_take("b")
    assert slots.try_take("c")
    async with trio.open_nursery() as nursery:
        takers = Takers(slots, nursery)
        await takers.take_all("a", "a-1")
        await takers.take_all("b", "b-1")
        slots.release("b")
        await wait_all_tasks_blocked()
        assert takers.got == ["b-1"]
        slots.release("a")
    assert takers.got == ["b-1", "a-1"]


async def test_cancelled_while_waiting_it_leaves_the_queue() -> None:
    """Whoever is cancelled in the queue takes no slot, and those behind it move up."""
    slots = Slots(per_instance=10, per_build=1)
    assert slots.try_take("a")
    async with trio.open_nursery() as nursery:
        takers = Takers(slots, nursery)
        scope = takers.take("a", "first")
        await wait_all_tasks_blocked()
        await takers.take_all("a", "second")
        scope.cancel()
        await wait_all_tasks_blocked()
        slots.release("a")
    assert takers.got == ["second"]
    slots.release("a")
    assert slots.taken == 0
    assert slots.try_take("a"), "an empty queue must not be left behind"


async def test_cancelled_after_it_was_handed_a_slot_it_passes_it_on() -> None:
    """A slot that was handed to a task which is cancelled before it runs goes to the next."""
    slots = Slots(per_instance=10, per_build=1)
    assert slots.try_take("a")
    async with trio.open_nursery() as nursery:
        takers = Takers(slots, nursery)
        first = takers.take("a", "first")
        await wait_all_tasks_blocked()
        await takers.take_all("a", "second")
        first.cancel()
        slots.release("a")
    assert takers.got == ["second"]
    assert slots.taken == 1
    slots.release("a")
    assert slots.taken == 0


async def test_those_who_wait_are_dismissed_without_a_slot() -> None:
    """When a build needs no more slots, its waiters go on without one, and nobody else's do."""
    slots = Slots(per_instance=2, per_build=1)
    assert slots.try_take("a")
    assert slots.try_take("b")
    async with trio.open_nursery() as nursery:
        takers = Takers(slots, nursery)
        await takers.take_all("a", "a-1", "a-2")
        await takers.take_all("b", "b-1")
        slots.dismiss("a")
        await wait_all_tasks_blocked()
        assert set(takers.refused) == {"a-1", "a-2"}
        assert takers.got == []
        slots.release("b")
    assert takers.got == ["b-1"]
    slots.release("a")
    slots.release("b")
    assert slots.taken == 0


async def test_dismissed_and_cancelled_at_once_it_gives_back_nothing() -> None:
    """A waiter that is cancelled and dismissed before it runs does not release what it never had."""
    slots = Slots(per_instance=2, per_build=1)
    assert slots.try_take("a")
    async with trio.open_nursery() as nursery:
        takers = Takers(slots, nursery)
        scope = takers.take("a", "a-1")
        await wait_all_tasks_blocked()
        scope.cancel()
        slots.dismiss("a")
    assert slots.taken == 1
    assert slots._dismissed == set()


def test_to_dismiss_a_build_without_waiters_changes_nothing() -> None:
    """A build that nobody of waits for can be dismissed any time, and take slots afterwards."""
    slots = Slots(per_instance=1, per_build=1)
    slots.dismiss("a")
    assert slots.try_take("a")


def test_a_slot_that_was_never_taken_cannot_be_given_back() -> None:
    """Giving back what was not taken is a bug, and says so."""
    slots = Slots(per_instance=1, per_build=1)
    with pytest.raises(KeyError):
        slots.release("a")


class Model:
    """What `Slots` should do, said naively: builds take turns, the one served goes to the end."""

    def __init__(self, per_instance: int, per_build: int) -> None:
        self.per_instance = per_instance
        self.per_build = per_build
        self.held: Counter[str] = Counter()
        self.queues: OrderedDict[str, deque[int]] = OrderedDict()

    def room(self, build: str) -> bool:
        return self.held.total() < self.per_instance and self.held[build] < self.per_build

    def take(self, build: str, number: int) -> set[int]:
        if self.room(build) and build not in self.queues:
            self.held[build] += 1
            return {number}
        self.queues.setdefault(build, deque()).append(number)
        return set()

    def release(self, build: str) -> set[int]:
        self.held[build] -= 1
        return self.hand_out()

    def leave(self, build: str, number: int) -> None:
        self.queues[build].remove(number)
        if not self.queues[build]:
            del self.queues[build]

    def dismiss(self, build: str) -> set[int]:
        return set(self.queues.pop(build, ()))

    def hand_out(self) -> set[int]:
        for build in list(self.queues):
            if self.held.total() >= self.per_instance:
                break
            self.queues.move_to_end(build)
            if self.room(build):
                self.held[build] += 1
                number = self.queues[build].popleft()
                if not self.queues[build]:
                    del self.queues[build]
                return {number}
        return set()


BUILDS = "abc"


@given(
    per_instance=st.integers(1, 3),
    per_build=st.integers(1, 2),
    operations=st.lists(
        st.tuples(
            st.sampled_from(["take", "take", "take", "release", "release", "cancel", "race", "dismiss"]),
            st.integers(0, 1_000),
        ),
        min_size=20,
        max_size=80,
    ),
)
@settings(max_examples=300, deadline=None)
def test_random_operations_agree_with_a_naive_model(
    per_instance: int, per_build: int, operations: list[tuple[str, int]]
) -> None:
    """Whatever is asked, cancelled, given back and dismissed: limits hold, and nobody waits beside room."""
    trio.run(_agree, per_instance, per_build, operations)


async def _agree(per_instance: int, per_build: int, operations: list[tuple[str, int]]) -> None:
    slots = Slots(per_instance=per_instance, per_build=per_build)
    model = Model(per_instance, per_build)
    scopes: dict[int, tuple[str, trio.CancelScope]] = {}
    """Who waits."""
    holders: list[tuple[str, int]] = []
    got: set[int] = set()
    refused: set[int] = set()

    async def take(build: str, number: int, scope: trio.CancelScope) -> None:
        with scope:
            (got if await slots.take(build) else refused).add(number)

    def expect(numbers: set[int]) -> None:
        for number in numbers:
            build, _ = scopes.pop(number)
            holders.append((build, number))

    async with trio.open_nursery() as nursery:
        for number, (operation, choice) in enumerate(operations):
            build = BUILDS[choice % len(BUILDS)]
            waiting = sorted(scopes)
            one = waiting[choice % len(waiting)] if waiting else None
            if operation == "take":
                scope = trio.CancelScope()
                scopes[number] = (build, scope)
                nursery.start_soon(take, build, number, scope)
                await wait_all_tasks_blocked()
                expect(model.take(build, number))
            elif operation == "release" and holders:
                build, _ = holders.pop(choice % len(holders))
                slots.release(build)
                expect(model.release(build))
            elif operation == "cancel" and one is not None:
                build, scope = scopes.pop(one)
                scope.cancel()
                model.leave(build, one)
            elif operation == "race" and holders and one is not None:
                # A slot may be handed to somebody who is cancelled and has not left the queue yet.
                back, _ = holders.pop(choice % len(holders))
                scopes[one][1].cancel()
                slots.release(back)
                lucky = model.release(back)
                build, _ = scopes.pop(one)
                if one in lucky:
                    expect(model.release(build))
                else:
                    model.leave(build, one)
                    expect(lucky)
            elif operation == "dismiss":
                gone = model.dismiss(build)
                slots.dismiss(build)
                await wait_all_tasks_blocked()
                assert gone <= refused
                for name in gone:
                    del scopes[name]
            await wait_all_tasks_blocked()
            _check(slots, model, {name for _, name in holders}, got, set(scopes))
        nursery.cancel_scope.cancel()


def _check(slots: Slots, model: Model, holding: set[int], got: set[int], waiting: set[int]) -> None:
    assert holding <= got
    assert not waiting & got
    assert slots.taken == model.held.total() == len(holding) <= slots.per_instance
    assert max(model.held.values(), default=0) <= slots.per_build
    stuck: Callable[[str], bool] = lambda build: build in slots._queues and model.room(build)  # noqa: E731
    assert not any(stuck(build) for build in BUILDS)
    assert {name for queue in model.queues.values() for name in queue} == waiting
    assert sum(len(queue) for queue in slots._queues.values()) == len(waiting)
    assert not slots._dismissed
