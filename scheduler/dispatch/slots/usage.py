"""The builds that take slots, and which limits a request of theirs falls under."""

from collections.abc import Hashable, Sequence
from typing import Final

from scheduler.definition.rules import LimitRule
from scheduler.dispatch.slots.budget import ByteBudget, Shortage
from scheduler.dispatch.slots.pools import AnyPool, Pool, Rate, make_pools
from scheduler.dispatch.slots.queues import BuildQueue, FairQueue, PriorityQueue
from scheduler.dispatch.slots.shares import Share, Shares

_MOST_REMEMBERED: Final = 1_024
"""Subjects whose limits are remembered, of the instance and of each build: there may be many."""
_MOST_SETS: Final = 32
"""Sets of limits of its own that the components of a build may fall under.

What goes beyond takes a slot of each limit of its build: no limit is passed, and a build with thousands of
such sets, which is not made in good faith, slows down itself and nobody else."""
_OWN: Final = "options.limits "


class Usage:
    """What a build has in flight, and who of it waits."""

    __slots__ = (
        "__weakref__",
        "build_queues",
        "bytes",
        "cap",
        "flying",
        "key",
        "opened",
        "pools",
        "priority_queue_of",
        "priority_queues",
        "rules",
        "sets",
        "share",
        "short",
        "single",
        "singly",
        "unweighed",
    )

    def __init__(self, key: Hashable, cap: Pool, share: Share) -> None:
        self.key: Hashable = key
        self.cap = cap
        """For everything that the build has in flight."""
        self.share = share
        """For everything that its sender has in flight."""
        self.opened = False
        """Whether it is kept until it is closed; else it goes as soon as it is empty."""
        self.rules: tuple[LimitRule, ...] = ()
        self.pools: list[AnyPool] = []
        """Its own limits, one for each rule."""
        self.flying: dict[str, int] = {}
        """By subject, how many requests are in flight."""
        self.build_queues: dict[FairQueue, BuildQueue] = {}
        self.priority_queues: dict[tuple[FairQueue, tuple[int, ...]], PriorityQueue] = {}
        self.priority_queue_of: dict[str, PriorityQueue] = {}
        """By subject; what has been seen lately."""
        self.sets: set[tuple[int, ...]] = set()
        """Which of its limits go together for some subject."""
        self.bytes = 0
        """In flight, but for ``single``."""
        self.single = 0
        """Bytes in flight of a request that counts beside the others."""
        self.short: Shortage | None = None
        """That its next request finds no room by its size: nobody of it has a turn then."""
        self.singly = False
        """Whether it was short lately: then it has its slots one after another, each when the size of the
        request before is known. Otherwise hundreds would have slots, and give them back again and again."""
        self.unweighed = False
        """Whether there is such a request whose size is not known yet."""

    @property
    def held_back(self) -> bool:
        """Whether nobody of it may have slots, for what is known of sizes."""
        return self.singly and (self.unweighed or self.short is not None)

    def dissolve(self) -> None:
        """Let go of all that refers to the usage, once nobody of the build waits any more.

        Its build queues may stay in the fair queues' heaps, and its rates among the alarms, until
        their turn comes: neither may keep the build alive until then. Nor may they all keep each
        other alive until the garbage collector comes round.
        """
        for build_queue in self.build_queues.values():
            build_queue.leave()
        for pool in self.pools:
            if isinstance(pool, Rate):
                pool.retire()
        self.build_queues.clear()
        self.priority_queues.clear()
        self.priority_queue_of.clear()
        self.pools.clear()

    @property
    def waiting(self) -> list[BuildQueue]:
        """Its build queues where somebody waits."""
        return [build_queue for build_queue in self.build_queues.values() if build_queue.priority_queues]

    def set_of(self, subject: str) -> tuple[int, ...]:
        """The numbers of its limits that such a request falls under; the same as long as the limits are."""
        numbers = tuple(number for number, rule in enumerate(self.rules) if rule.matches(subject))
        if numbers not in self.sets:
            if len(self.sets) == _MOST_SETS:
                return tuple(range(len(self.rules)))
            self.sets.add(numbers)
        return numbers


class Usages:
    """Every build that has something in flight, waits or is open.

    Args:
        rules: limits over all builds, by subject.
        per_instance: at most this many requests in flight.
        per_build: at most this many of them of one build.
        budget: of bytes.
    """

    def __init__(
        self, rules: Sequence[LimitRule], per_instance: int, per_build: int, budget: ByteBudget
    ) -> None:
        self.all = Pool(f"max_in_flight={per_instance}", per_instance)
        """For everything that is in flight."""
        self.budget = budget
        self.shares = Shares(self.all)
        """The senders that keep builds of theirs waiting by what they have in flight."""
        self._share_of: dict[str, Share] = {}
        self._per_build = per_build
        self._cap_label = f"max_in_flight_per_build={per_build}"
        self._rules = tuple(rules)
        self._pools = make_pools(self._rules)
        self._usages: dict[Hashable, Usage] = {}
        self._fair_queues: dict[tuple[int, ...], FairQueue] = {}
        self._fair_queue_of: dict[str, FairQueue] = {}
        self.get = self._usages.get
        """The usage of a build, or None."""

    def __len__(self) -> int:
        """How many there are."""
        return len(self._usages)

    def make(self, build: Hashable, sender: str = "") -> Usage:
        """The usage of a build, a new one, of this sender, if it has none."""
        usage = self._usages.get(build)
        if usage is None:
            share = self._share_of.get(sender)
            if share is None:
                share = self._share_of[sender] = Share(sender, self.all, self.shares)
            share.usages += 1
            cap = Pool(self._cap_label, self._per_build)
            usage = self._usages[build] = Usage(build, cap, share)
        return usage

    def forget(self, usage: Usage) -> None:
        """Its build is over; nobody of it waits. Idempotent."""
        if self._usages.pop(usage.key, None) is None:
            return
        self.budget.close(usage)
        usage.dissolve()
        share = usage.share
        share.usages -= 1
        if not share.usages:
            del self._share_of[share.sender]
            share.dissolve()

    def drop_if_empty(self, usage: Usage) -> None:
        """Forget a usage that nobody opened and nobody needs any more."""
        if not usage.opened and not usage.flying and not usage.waiting:
            self.forget(usage)

    def priority_queue(self, usage: Usage, subject: str) -> PriorityQueue:
        """Where requests on ``subject`` of a build wait, and what they count for."""
        priority_queue = usage.priority_queue_of.get(subject)
        if priority_queue is not None:
            return priority_queue
        fair_queue, numbers = self._fair_queue(subject), usage.set_of(subject)
        priority_queue = usage.priority_queues.get((fair_queue, numbers))
        if priority_queue is None:
            build_queue = usage.build_queues.get(fair_queue)
            if build_queue is None:
                build_queue = usage.build_queues[fair_queue] = BuildQueue(
                    usage, fair_queue.sender_queue(usage.share)
                )
            pools = (*(usage.pools[number] for number in numbers), usage.cap)
            priority_queue = usage.priority_queues[fair_queue, numbers] = PriorityQueue(build_queue, pools)
        if len(usage.priority_queue_of) >= _MOST_REMEMBERED:
            usage.priority_queue_of.clear()
        usage.priority_queue_of[subject] = priority_queue
        return priority_queue

    def _fair_queue(self, subject: str) -> FairQueue:
        fair_queue = self._fair_queue_of.get(subject)
        if fair_queue is None:
            numbers = tuple(number for number, rule in enumerate(self._rules) if rule.matches(subject))
            fair_queue = self._fair_queues.get(numbers)
            if fair_queue is None:
                fair_queue = self._fair_queues[numbers] = FairQueue(
                    (*(self._pools[number] for number in numbers), self.all)
                )
            if len(self._fair_queue_of) >= _MOST_REMEMBERED:
                self._fair_queue_of.clear()
            self._fair_queue_of[subject] = fair_queue
        return fair_queue

    def change(self, usage: Usage, rules: Sequence[LimitRule]) -> None:
        """Give a build other limits: what is in flight counts, and who waits does so for what is new."""
        before = {
            rule.pattern: pool
            for rule, pool in zip(usage.rules, usage.pools, strict=True)
            if isinstance(pool, Rate)
        }
        waiters = [
            waiter
            for build_queue in usage.waiting
            for priority_queue in list(build_queue.priority_queues)
            for waiter in priority_queue.clear()
        ]
        retired = usage.pools
        usage.rules = tuple(rules)
        usage.pools = make_pools(usage.rules, _OWN, usage)
        usage.priority_queues.clear()
        usage.priority_queue_of.clear()
        usage.sets.clear()
        for rule, pool in zip(usage.rules, usage.pools, strict=True):
            if isinstance(pool, Rate) and rule.pattern in before:
                pool.follow(before[rule.pattern])
        for pool in retired:
            if isinstance(pool, Rate):
                pool.retire()
        for subject, flying in usage.flying.items():
            for pool in self.priority_queue(usage, subject).own:
                if isinstance(pool, Pool) and pool is not usage.cap:
                    pool.taken += flying
        for waiter in waiters:
            self.priority_queue(usage, waiter.subject).push(waiter)
