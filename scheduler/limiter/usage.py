"""The builds that take slots, and the limits that a request of theirs falls under."""

from collections.abc import Hashable, Sequence
from typing import Final

from scheduler.definition.rules import LimitRule
from scheduler.limiter.byte_budget import ByteAccount, ByteBudget
from scheduler.limiter.gate import Gate
from scheduler.limiter.limits import FlightLimit, Limit, RateLimit, cap_text, make_limits
from scheduler.limiter.queues import BuildQueue, FairQueue, PriorityQueue, SenderQueue
from scheduler.limiter.shares import Share, Shares

_MOST_REMEMBERED: Final = 1_024
"""Subjects whose limits are remembered, of the instance and of each build: there may be many."""
_MOST_SETS: Final = 32
"""Sets of limits of its own that the components of a build may fall under.

What goes beyond takes a slot of each limit of its build: no limit is passed, and a build with thousands of
such sets, which is not made in good faith, slows down itself and no other build."""
_OWN: Final = "options.limits "


class Usage:
    """The requests that a build has in flight, and those that wait.

    No queue refers back to it: it goes with the last reference of its registry.
    """

    __slots__ = (
        "__weakref__",
        "account",
        "build",
        "build_queues",
        "cap",
        "flying",
        "gates",
        "limits",
        "opened",
        "priority_queue_of",
        "priority_queues",
        "rules",
        "share",
        "waiters",
    )

    def __init__(self, build: Hashable, cap: FlightLimit, share: Share) -> None:
        self.build = build
        self.cap = cap
        """The limit on everything that the build has in flight."""
        self.share = share
        """The limit on everything that its sender has in flight."""
        self.account = ByteAccount(build)
        self.opened = False
        """Whether it is kept until it is closed; else it goes as soon as it is empty."""
        self.rules: tuple[LimitRule, ...] = ()
        self.limits: list[Limit] = []
        """Its own limits, one for each rule."""
        self.flying: dict[str, int] = {}
        """Requests in flight, by subject."""
        self.build_queues: dict[FairQueue, BuildQueue] = {}
        self.priority_queues: dict[tuple[FairQueue, tuple[int, ...]], PriorityQueue] = {}
        self.priority_queue_of: dict[str, PriorityQueue] = {}
        """By subject; those that were seen lately."""
        self.gates: dict[tuple[int, ...], Gate] = {}
        """The sets of its limits that some subject falls under, by their numbers."""
        self.waiters = 0
        """Requests that wait."""

    @property
    def waiting(self) -> list[BuildQueue]:
        """Its build queues with a waiter."""
        return [build_queue for build_queue in self.build_queues.values() if build_queue.priority_queues]

    def set_of(self, subject: str) -> tuple[int, ...]:
        """Return the numbers of its limits that a request falls under; they stay while the limits do."""
        numbers = tuple(number for number, rule in enumerate(self.rules) if rule.matches(subject))
        if numbers in self.gates or len(self.gates) < _MOST_SETS:
            return numbers
        return tuple(range(len(self.rules)))


class Usages:
    """Every build that is open, or has a request in flight or waiting.

    Args:
        rules: limits over all builds, by subject.
        per_instance: at most this many requests in flight.
        per_build: at most this many of them of one build.
        budget: of bytes.
    """

    def __init__(
        self, rules: Sequence[LimitRule], per_instance: int, per_build: int, budget: ByteBudget
    ) -> None:
        self.all = FlightLimit(f"max_in_flight={per_instance}", per_instance)
        """The limit on everything that is in flight."""
        self.budget = budget
        self.shares = Shares(self.all)
        """The senders that keep builds of theirs waiting by what they have in flight."""
        self.rules = tuple(rules)
        self.limits = make_limits(self.rules)
        """The limits over all builds, one for each rule."""
        self.behind: dict[Limit, list[FairQueue]] = {limit: [] for limit in (*self.limits, self.all)}
        """For each limit of the instance the fair queues whose requests fall under it."""
        self.owners: dict[RateLimit, Usage] = {}
        """The builds whose limit a rate is."""
        self.sender_queues: dict[Share, dict[FairQueue, SenderQueue]] = {}
        """For each sender the places at which its builds wait for their turn."""
        self._share_of: dict[str, Share] = {}
        self._per_build = per_build
        self._cap_text = cap_text(per_build)
        self._usages: dict[Hashable, Usage] = {}
        self._fair_queues: dict[tuple[int, ...], FairQueue] = {}
        self._fair_queue_of: dict[str, FairQueue] = {}
        self.get = self._usages.get
        """The usage of a build, or None."""

    def __len__(self) -> int:
        """Number of builds."""
        return len(self._usages)

    def all_waiting(self) -> list[Usage]:
        """Return the builds with a waiter."""
        return [usage for usage in self._usages.values() if usage.waiters]

    def make(self, build: Hashable, sender: str = "") -> Usage:
        """Return the usage of a build, a new one, of this sender, if it has none."""
        usage = self._usages.get(build)
        if usage is None:
            share = self._share_of.get(sender)
            if share is None:
                share = self._share_of[sender] = Share(sender, self.all, self.shares)
                self.sender_queues[share] = {}
            share.usages += 1
            cap = FlightLimit(self._cap_text, self._per_build)
            usage = self._usages[build] = Usage(build, cap, share)
        return usage

    def forget(self, usage: Usage) -> None:
        """Forget a finished build without a waiter. Idempotent.

        Its build queues may stay in the fair queues' heaps, and its rates among the alarms, until their turn
        comes; neither keeps the build alive until then.
        """
        if self._usages.pop(usage.build, None) is None:
            return
        self.budget.close(usage.account)
        for build_queue in usage.build_queues.values():
            build_queue.leave()
        self._retire(usage.limits)
        share = usage.share
        share.usages -= 1
        if not share.usages:
            del self._share_of[share.sender]
            for sender_queue in self.sender_queues.pop(share).values():
                sender_queue.leave()
            self.shares.strike(share)

    def drop_if_empty(self, usage: Usage) -> None:
        """Forget a usage that was not opened, and has nothing in flight or waiting."""
        if not (usage.opened or usage.flying or usage.waiters):
            self.forget(usage)

    def priority_queue(self, usage: Usage, subject: str) -> PriorityQueue:
        """Return the queue for requests on ``subject`` of a build, with the limits they count for."""
        priority_queue = usage.priority_queue_of.get(subject)
        if priority_queue is not None:
            return priority_queue
        fair_queue, numbers = self._fair_queue(subject), usage.set_of(subject)
        priority_queue = usage.priority_queues.get((fair_queue, numbers))
        if priority_queue is None:
            gate = usage.gates.get(numbers)
            if gate is None:
                gate = usage.gates[numbers] = Gate((*(usage.limits[number] for number in numbers), usage.cap))
            priority_queue = PriorityQueue(self._build_queue(usage, fair_queue), gate)
            usage.priority_queues[fair_queue, numbers] = priority_queue
        if len(usage.priority_queue_of) >= _MOST_REMEMBERED:
            usage.priority_queue_of.clear()
        usage.priority_queue_of[subject] = priority_queue
        return priority_queue

    def _build_queue(self, usage: Usage, fair_queue: FairQueue) -> BuildQueue:
        build_queue = usage.build_queues.get(fair_queue)
        if build_queue is None:
            sender_queues = self.sender_queues[usage.share]
            sender_queue = sender_queues.get(fair_queue)
            if sender_queue is None:
                sender_queue = sender_queues[fair_queue] = SenderQueue(usage.share, fair_queue)
            build_queue = usage.build_queues[fair_queue] = BuildQueue(usage.account, sender_queue)
        return build_queue

    def _fair_queue(self, subject: str) -> FairQueue:
        fair_queue = self._fair_queue_of.get(subject)
        if fair_queue is None:
            numbers = tuple(number for number, rule in enumerate(self.rules) if rule.matches(subject))
            fair_queue = self._fair_queues.get(numbers)
            if fair_queue is None:
                limits = (*(self.limits[number] for number in numbers), self.all)
                fair_queue = self._fair_queues[numbers] = FairQueue(Gate(limits))
                for limit in limits:
                    self.behind[limit].append(fair_queue)
            if len(self._fair_queue_of) >= _MOST_REMEMBERED:
                self._fair_queue_of.clear()
            self._fair_queue_of[subject] = fair_queue
        return fair_queue

    def change(self, usage: Usage, rules: Sequence[LimitRule]) -> None:
        """Give a build other limits: requests in flight count, and waiters wait for what is new."""
        before = {
            rule.pattern: limit
            for rule, limit in zip(usage.rules, usage.limits, strict=True)
            if isinstance(limit, RateLimit)
        }
        places = [
            place
            for build_queue in usage.waiting
            for priority_queue in list(build_queue.priority_queues)
            for place in priority_queue.clear()
        ]
        retired = usage.limits
        usage.rules = tuple(rules)
        usage.limits = make_limits(usage.rules, _OWN)
        usage.priority_queues.clear()
        usage.priority_queue_of.clear()
        usage.gates.clear()
        for rule, limit in zip(usage.rules, usage.limits, strict=True):
            if isinstance(limit, RateLimit):
                self.owners[limit] = usage
                if rule.pattern in before:
                    limit.follow(before[rule.pattern])
        self._retire(retired)
        for subject, flying in usage.flying.items():
            for limit in self.priority_queue(usage, subject).gate.limits:
                if isinstance(limit, FlightLimit) and limit is not usage.cap:
                    limit.taken += flying
        for place in places:
            self.priority_queue(usage, place[2].subject).push(place)

    def recall(self, build: Hashable, subject: str, begun: float) -> None:
        """Count a request of a build that began in an earlier process under the build's own rates.

        Those of the instance are not touched: what began elsewhere counts there.

        Args:
            build: whose it is.
            subject: its subject; empty where that is not known any more, and each rate may be concerned.
            begun: the time at which it began, in seconds; not before that of others.
        """
        usage = self.make(build)
        for rate in self.priority_queue(usage, subject).rates if subject else usage.limits:
            if isinstance(rate, RateLimit) and self.owners.get(rate) is usage:
                rate.take(begun)

    def adopt(self, rules: Sequence[LimitRule]) -> None:
        """Give the instance other limits: requests in flight count, and waiters wait for what is new.

        Limits on the same (`LimitRule.kind`) stay, with what they counted. All waiters are queued again, so
        it takes a microsecond or two for each; it happens when the rules of another instance become known.
        """
        usages = list(self._usages.values())
        places = [
            (usage, place)
            for usage in usages
            for build_queue in usage.waiting
            for priority_queue in list(build_queue.priority_queues)
            for place in priority_queue.clear()
        ]
        for usage in usages:
            for build_queue in usage.build_queues.values():
                build_queue.leave()
            usage.build_queues.clear()
            usage.priority_queues.clear()
            usage.priority_queue_of.clear()
        for sender_queues in self.sender_queues.values():
            for sender_queue in sender_queues.values():
                sender_queue.leave()
            sender_queues.clear()
        self._fair_queues.clear()
        self._fair_queue_of.clear()
        kept: dict[str, list[Limit]] = {}
        for rule, limit in zip(self.rules, self.limits, strict=True):
            kept.setdefault(rule.kind, []).append(limit)
        self.rules = tuple(rules)
        self.limits = [
            kept[rule.kind].pop(0) if kept.get(rule.kind) else self._counting(rule, usages) for rule in rules
        ]
        self.behind = {limit: [] for limit in (*self.limits, self.all)}
        for usage, place in places:
            self.priority_queue(usage, place[2].subject).push(place)

    @staticmethod
    def _counting(rule: LimitRule, usages: Sequence[Usage]) -> Limit:
        """Return a limit that counts what is in flight already."""
        (limit,) = make_limits((rule,))
        if isinstance(limit, FlightLimit):
            for usage in usages:
                limit.taken += sum(n for subject, n in usage.flying.items() if rule.matches(subject))
        return limit

    def _retire(self, limits: Sequence[Limit]) -> None:
        """Let go of limits that are gone, although an alarm of theirs may be set."""
        for limit in limits:
            if isinstance(limit, RateLimit):
                del self.owners[limit]
                limit.starts.clear()
