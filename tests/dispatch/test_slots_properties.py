"""Slots under random limits: no limit is ever passed, no slot is lost, and everybody is served in the end."""

import math
from collections import Counter
from collections.abc import Sequence

import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from scheduler.definition.rules import LimitRule
from scheduler.dispatch.slots import Slots

BUILDS = "abc"
SENDERS = {"a": "one", "b": "one", "c": "two"}
WORDS = (("vpc", "lb"), ("create", "delete"), ("aws", "fake"))

subjects = st.tuples(*map(st.sampled_from, WORDS)).map(".".join)
patterns = st.tuples(*(st.sampled_from((*words, "*")) for words in WORDS)).map(".".join)
rules = st.lists(
    st.builds(LimitRule, patterns, st.integers(1, 3), st.sampled_from((None, None, None, 1.0, 60.0))),
    max_size=4,
)
steps = st.lists(
    st.tuples(
        st.sampled_from(
            ["take"] * 6
            + ["try"] * 3
            + ["release"] * 4
            + ["cancel", "race", "dismiss", "change", "occupy", "sleep"]
        ),
        st.sampled_from(BUILDS),
        subjects,
        st.integers(0, 1_000),
    ),
    min_size=10,
    max_size=80,
)


class World:
    """Tasks that take slots, and what they hold."""

    def __init__(self, slots: Slots, instance: Sequence[LimitRule], own: dict[str, list[LimitRule]]) -> None:
        self.slots = slots
        self.instance = instance
        self.own = own
        self.held: Counter[tuple[str, str]] = Counter()
        self.excess: Counter[tuple[str, str]] = Counter()
        """Of what is held, what was in flight already."""
        self.starts: list[tuple[float, str, str]] = []
        self.waiting: dict[int, tuple[str, str, trio.CancelScope]] = {}
        self.refused = 0
        self.rated = any(rule.period for rules in (instance, *own.values()) for rule in rules)

    def got(self, build: str, subject: str) -> None:
        self.held[build, subject] += 1
        self.starts.append((trio.current_time(), build, subject))

    async def take(self, number: int, build: str, subject: str) -> None:
        scope = trio.CancelScope()
        self.waiting[number] = (build, subject, scope)
        with scope:
            if await self.slots.take(build, subject, number % 5):
                self.got(build, subject)
            else:
                self.refused += 1
        del self.waiting[number]

    def release(self, choice: int) -> None:
        held = sorted(self.held.elements())
        if held:
            one = held[choice % len(held)]
            self.held[one] -= 1
            # What exceeds the limits is the first to go.
            self.excess[one] = max(0, self.excess[one] - 1)
            self.slots.release(*one)

    def counted(self, rule: LimitRule, build: str | None = None) -> int:
        """How many requests in flight fall under a rule."""
        return sum(
            times
            for (whose, subject), times in self.held.items()
            if rule.matches(subject) and build in {None, whose}
        )

    def of_sender(self, build: str) -> int:
        """How many requests in flight the sender of a build has."""
        return sum(times for (one, _), times in self.held.items() if SENDERS[one] == SENDERS[build])

    def full(self, build: str, subject: str) -> list[str]:
        """The limits that keep such a request, naively."""
        now = trio.current_time()
        found = [
            str(rule) for rule in self.instance if rule.matches(subject) and self._is_full(rule, None, now)
        ]
        free = self.slots.per_instance - self.held.total()
        if free <= 0:
            found.append(f"max_in_flight={self.slots.per_instance}")
        elif free <= self.slots.per_instance // 8 and self.of_sender(build) >= free:
            found.append(f"max_in_flight={self.slots.per_instance} (its sender's share)")
        found += [
            f"options.limits {rule}"
            for rule in self.own[build]
            if rule.matches(subject) and self._is_full(rule, build, now)
        ]
        if sum(times for (whose, _), times in self.held.items() if whose == build) >= self.slots.per_build:
            found.append(f"max_in_flight_per_build={self.slots.per_build}")
        return found

    def _is_full(self, rule: LimitRule, build: str | None, now: float) -> bool:
        if rule.period is None:
            return self.counted(rule, build) >= rule.count
        begun = [at for at, whose, subject in self.starts if rule.matches(subject) and build in {None, whose}]
        return len(begun) >= rule.count and begun[-rule.count] + rule.period * 1.01 > now

    def check(self, *, changed: bool) -> None:
        """Nothing is above its limit, and nobody waits beside room."""
        assert self.slots.taken == self.held.total()
        assert self.slots.waiters == len(self.waiting)
        if not self.excess.total() and not changed:
            self._check_limits()
        for build, subject, _ in self.waiting.values():
            blocking = self.slots.blocking(build, subject)
            assert blocking
            if not changed:
                assert sorted(blocking) == sorted(self.full(build, subject))

    def _check_limits(self) -> None:
        assert self.slots.taken <= self.slots.per_instance
        # Of the last eighth nobody has more than half: some of it is left for whoever has little.
        assert max(map(self.of_sender, BUILDS)) <= self.slots.per_instance - self.slots.per_instance // 8
        every: list[tuple[LimitRule, str | None]] = [(rule, None) for rule in self.instance]
        every += [(rule, name) for name in BUILDS for rule in self.own[name]]
        for rule, build in every:
            if rule.period is None:
                assert self.counted(rule, build) <= rule.count
            else:
                begun = [
                    at
                    for at, whose, subject in self.starts
                    if rule.matches(subject) and build in {None, whose}
                ]
                for first, beyond in zip(begun, begun[rule.count :], strict=False):
                    assert beyond - first >= rule.period


@given(
    instance=rules,
    own=st.fixed_dictionaries(dict.fromkeys(BUILDS, rules)),
    other=rules,
    per_instance=st.integers(1, 16),
    per_build=st.integers(1, 12),
    steps=steps,
)
@settings(max_examples=400)
def test_limits_hold_and_everybody_is_served(
    *,
    instance: list[LimitRule],
    own: dict[str, list[LimitRule]],
    other: list[LimitRule],
    per_instance: int,
    per_build: int,
    steps: list[tuple[str, str, str, int]],
) -> None:
    """Whatever is asked, cancelled, changed and given back: limits hold, and all ends without a deadlock."""

    async def main() -> None:
        slots = Slots(instance, per_instance=per_instance, per_build=per_build)
        for build in BUILDS:
            slots.open(build, own[build], SENDERS[build])
        world = World(slots, instance, dict(own))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(slots.run)
            await _walk(world, nursery, steps, other)
            await _end(world)
            nursery.cancel_scope.cancel()

    trio.run(main, clock=MockClock(autojump_threshold=0))


async def _walk(
    world: World, nursery: trio.Nursery, steps: list[tuple[str, str, str, int]], other: list[LimitRule]
) -> None:
    changed = False
    for number, (step, build, subject, choice) in enumerate(steps):
        waiting = sorted(world.waiting)
        if step == "take":
            nursery.start_soon(world.take, number, build, subject)
        elif step == "try" and world.slots.try_take(build, subject):
            world.got(build, subject)
        elif step == "release":
            world.release(choice)
        elif step == "cancel" and waiting:
            world.waiting[waiting[choice % len(waiting)]][2].cancel()
        elif step == "race" and waiting and not world.rated:
            # A slot may be handed to somebody who is cancelled and has not left yet; of a rate it is lost.
            world.waiting[waiting[choice % len(waiting)]][2].cancel()
            world.release(choice)
        elif step == "dismiss":
            world.slots.dismiss(build)
        elif step == "change":
            # In flight may be more than the new limits allow.
            changed = changed or world.own[build] != other
            world.own[build] = other
            world.rated = world.rated or any(rule.period for rule in other)
            world.slots.change(build, other)
        elif step == "occupy":
            world.slots.occupy(build, subject)
            world.held[build, subject] += 1
            world.excess[build, subject] += 1
        elif step == "sleep":
            await trio.sleep(choice / 100)
        await wait_all_tasks_blocked()
        world.check(changed=changed)


async def _end(world: World) -> None:
    """Give back all that is held, over and over: whoever waits is served at last, and nothing is left."""
    with trio.move_on_after(3_600 * 24):
        while world.waiting:
            before = len(world.waiting)
            while world.held.total():
                world.release(0)
            await wait_all_tasks_blocked()
            if len(world.waiting) == before:
                await trio.sleep(1)
    assert not world.waiting
    while world.held.total():
        world.release(0)
    assert world.slots.taken == 0
    for build in BUILDS:
        for subject in {subject for _, _, subject in world.starts}:
            blocking = world.slots.blocking(build, subject)
            assert all("/" in limit for limit in blocking), "only a rate may still keep somebody"


@given(st.lists(st.tuples(subjects, st.floats(0, 9)), min_size=1, max_size=30), rules)
@settings(max_examples=100)
def test_a_crowd_goes_through_without_a_deadlock(
    crowd: list[tuple[str, float]], rules: list[LimitRule]
) -> None:
    """Components that hold their slots for a while all get them, under any limits that overlap."""

    async def work(slots: Slots, build: str, subject: str, priority: float) -> None:
        assert await slots.take(build, subject, priority)
        await trio.sleep(0.1 + priority / 10)
        slots.release(build, subject)

    async def main() -> None:
        slots = Slots(rules)
        async with trio.open_nursery() as outer:
            outer.start_soon(slots.run)
            with trio.fail_after(math.inf if not rules else 24 * 3_600):
                async with trio.open_nursery() as nursery:
                    for number, (subject, priority) in enumerate(crowd):
                        nursery.start_soon(work, slots, BUILDS[number % 3], subject, priority)
            outer.cancel_scope.cancel()
        assert slots.taken == slots.waiters == 0

    trio.run(main, clock=MockClock(autojump_threshold=0))
