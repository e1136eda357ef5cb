"""How many requests may be in flight and begin: by subject, per build and for the instance, shared fairly."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from itertools import count
from typing import Final, NoReturn

import trio

from scheduler.definition.rules import LimitRule
from scheduler.dispatch.slots.alarms import Alarms
from scheduler.dispatch.slots.budget import ByteBudget
from scheduler.dispatch.slots.pools import Pool
from scheduler.dispatch.slots.queues import BuildQueue, FairQueue, PriorityQueue, Waiter, WaiterState
from scheduler.dispatch.slots.shares import Share, may_have_one_more
from scheduler.dispatch.slots.usage import Usage, Usages

__all__ = ["Slots", "Waiter", "may_have_one_more"]

MAX_BYTES: Final = 8 * 1024 * 1024
"""Bytes of requests in flight where nothing else is said."""
_AGAIN: Final = 1 << 62
"""What puts a number before all others."""
_MOST_COMPARED: Final = 16
"""Rings that a build's most urgent component is looked for in when it has a turn."""


class Slots:
    """Counts requests, and queues those beyond the limits.

    A request takes a slot of every limit that it falls under, or none: nobody waits with a slot in hand, so
    that there is no deadlock. Whoever waits stands in a `FairQueue`, with all that fall under the same
    limits of the instance; no fair queue holds up another one. When there is room again,

    - senders of builds take turns, one slot a turn, and so do the builds of a sender: the one that was served
      longest ago has it; a build that just arrived precedes the one served last;
    - within a build the most urgent component goes first, of equal ones that under the narrowest limit, and
      of these who asked first.

    However many builds a sender has, it leaves room for those of others (`shares`).

    Bytes in flight are bounded as well (`budget`). How many a request takes is known only when it is
    rendered, and that is done when it has its slots: then it is weighed (`weigh`), and where there is no room
    for it, it waits again, at the head of its build, now for both (`queue` with its size).

    Args:
        rules: limits over all builds, by subject.
        per_instance: at most this many slots are taken at a time.
        per_build: at most this many of them by one build.
        max_bytes: of requests in flight, over all builds.
    """

    def __init__(
        self,
        rules: Sequence[LimitRule] = (),
        *,
        per_instance: int = 2_000,
        per_build: int = 500,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self.per_instance = per_instance
        self.per_build = per_build
        self.waiters = 0
        """How many wait for a slot."""
        self.budget = ByteBudget(max_bytes)
        """Of bytes in flight."""
        self._usages = Usages(rules, per_instance, per_build, self.budget)
        self._kept = self._usages.shares.kept
        self._alarms = Alarms()
        self._turn = 0
        self._numbers = count()

    @property
    def taken(self) -> int:
        """How many requests are in flight."""
        return self._usages.all.taken

    def open(self, build: Hashable, rules: Sequence[LimitRule] = (), sender: str = "") -> None:
        """A build begins, with limits of its own; ``sender`` sent it (empty: nobody knows who)."""
        self._usages.make(build, sender).opened = True
        self.change(build, rules)

    def change(self, build: Hashable, rules: Sequence[LimitRule]) -> None:
        """Give a build other limits of its own from now on; what is in flight stays, and counts."""
        usage = self._usages.get(build)
        if usage is not None and usage.rules != tuple(rules):
            self._usages.change(usage, rules)
            if usage.waiting:
                self._serve(self._back_in_turn(usage))

    def close(self, build: Hashable) -> None:
        """Forget a build: who waits goes on without a slot, what it holds is given back. Idempotent."""
        usage = self._usages.get(build)
        if usage is None:
            return
        self.dismiss(build)
        usage.opened = False
        for subject in [subject for subject, times in usage.flying.items() for _ in range(times)]:
            self.release(build, subject)
        self._usages.forget(usage)
        self._follow_budget()

    def try_take(self, build: Hashable, subject: str, priority: float = 0.0, size: int = 0) -> bool:  # noqa: ARG002
        """Take the slots for a request if all are there and nobody waits for the same; never waits.

        Args:
            build: whose it is.
            subject: its subject.
            priority: as in `take`; without a meaning for who does not wait.
            size: as in `queue`.
        """
        usage = self._usages.get(build) or self._usages.make(build)
        priority_queue = usage.priority_queue_of.get(subject) or self._usages.priority_queue(usage, subject)
        if size or usage.singly:
            return self._try_singly(usage, priority_queue, subject, size)
        # With room for it nobody waits for the same: they would have been served. But for rates, whose time
        # comes by itself.
        if priority_queue.rates:
            return self._try_rated(usage, priority_queue, subject)
        every = self._usages.all
        free = every.count - every.taken
        # As `may_have_one_more` says it: this is done for each and every request.
        if free <= self._kept and usage.share.taken >= free:
            self._usages.drop_if_empty(usage)
            return False
        for pool in priority_queue.counted:
            if pool.taken >= pool.count:
                self._usages.drop_if_empty(usage)
                return False
        for pool in priority_queue.counted:
            pool.taken += 1
        usage.flying[subject] = usage.flying.get(subject, 0) + 1
        return True

    async def take(self, build: Hashable, subject: str, priority: float = 0.0, size: int = 0) -> bool:
        """Take the slots for a request, waiting for them; cancelled while waiting, it takes none.

        Args:
            build: whose it is.
            subject: its subject.
            priority: the higher the more urgent; compared within the build.
            size: as in `queue`.

        Returns:
            Whether they were taken: not where the build was dismissed meanwhile.
        """
        if self.try_take(build, subject, priority, size):
            return True
        ended = trio.Event()
        waiter = self.queue(build, subject, priority, lambda _: ended.set(), size=size)
        self.serve(build)
        try:
            await ended.wait()
        except trio.Cancelled:
            if waiter.fate is WaiterState.SERVED:
                self.release(build, subject, size)
            else:
                self.leave(waiter)
            raise
        return waiter.fate is WaiterState.SERVED

    def take_all(self, build: Hashable, subjects: Sequence[str]) -> bool:
        """Take the slots for several requests, as `try_take`, if there are some for all of them; or none."""
        if len(subjects) == 1:
            return self.try_take(build, subjects[0])
        taken = []
        for subject in subjects:
            # By a rate it is to be said who begins first, where not all can: that is left to the queue.
            if self._rated(build, subject) or not self.try_take(build, subject):
                break
            taken.append(subject)
        else:
            return True
        for subject in taken:
            self.release(build, subject)
        return False

    def weigh(self, build: Hashable, size: int) -> bool:
        """Take room for a request of ``size`` bytes that has its slots; or none, where there is not so much.

        Then it is to be queued again, with its size, before its slots are released.
        """
        usage = self._usages.get(build) or self._usages.make(build)
        budget = self.budget
        room = budget.most - budget.taken - usage.bytes
        if not usage.singly and 2 * size <= room and size <= budget.large:
            # As `ByteBudget` does it: this is done for each and every request.
            usage.bytes += size
            budget.taken += size
            return True
        fits = usage.short is None and budget.fits(usage, size)
        if fits:
            budget.take(usage, size)
        usage.singly = not fits or not budget.is_ample(usage)
        usage.unweighed = False
        if fits:
            self._serve(self._back_in_turn(usage))
        return fits

    def queue(
        self,
        build: Hashable,
        subject: str,
        priority: float,
        ended: Callable[[bool], None],
        *,
        size: int = 0,
        again: int | None = None,
    ) -> Waiter:
        """Have a request wait for its slots; to be followed by `serve` before anything else happens.

        Of those that are queued before one call of `serve` the most urgent is served first, whatever their
        order: this is how what one completion makes due is compared with all that waits already.

        Args:
            build: whose it is.
            subject: as in `take`.
            priority: as in `take`.
            ended: is told at the end of the wait whether it has its slots; it must not call back.
            size: bytes that it waits for as well, where that is known; 0 where it is not.
            again: it had its slots before: it goes before those of its urgency that had none, and among those
                that had some in the order of this number.
        """
        usage = self._usages.get(build) or self._usages.make(build)
        priority_queue = usage.priority_queue_of.get(subject) or self._usages.priority_queue(usage, subject)
        build_queue = priority_queue.build_queue
        if not build_queue.priority_queues:
            build_queue.served = max(build_queue.served, self._turn - 0.5)
            if not build_queue.sender_queue.waiting:
                build_queue.sender_queue.served = max(build_queue.sender_queue.served, self._turn - 0.5)
        number = next(self._numbers) if again is None else again - _AGAIN
        waiter = Waiter(priority_queue, subject, (-priority, number), ended, size)
        priority_queue.push(waiter)
        self.waiters += 1
        return waiter

    def serve(self, build: Hashable) -> None:
        """Serve who waits beside a build, itself included, as long as there is room."""
        usage = self._usages.get(build)
        if usage is not None:
            # They wait for a reason: if that is a rate, this sets the alarm.
            self._serve(self._back_in_turn(usage))

    def leave(self, waiter: Waiter) -> None:
        """Somebody waits no more, without having been told so. Idempotent."""
        if waiter.fate is WaiterState.WAITS:
            waiter.fate = WaiterState.LEFT
            waiter.priority_queue.one_less()
            self.waiters -= 1
            usage = waiter.priority_queue.build_queue.usage
            if usage.short is not None:
                # It may be that one: then others need less.
                self.budget.end_wait(usage)
                self._serve(self._back_in_turn(usage))
            self._usages.drop_if_empty(usage)

    def occupy(self, build: Hashable, subject: str, size: int = 0) -> None:
        """Account for a request already in flight, even over the limit; consumes no rate."""
        usage = self._usages.make(build)
        if size:
            self.budget.take(usage, size)
        for pool in self._usages.priority_queue(usage, subject).counted:
            pool.taken += 1
        usage.flying[subject] = usage.flying.get(subject, 0) + 1

    def release(self, build: Hashable, subject: str, size: int = 0) -> None:
        """Give the slots of a request back; they go to the next in turn at once.

        Of a build that was closed there is nothing to be given back any more. A rate's slot is not given
        back: it has begun.

        Args:
            build: whose it is.
            subject: its subject.
            size: in bytes, where it was weighed, or queued with its size.

        Raises:
            KeyError: the build has no request on ``subject`` in flight.
        """
        usage = self._usages.get(build)
        if usage is None:
            return
        flying = usage.flying
        left = flying[subject] - 1
        if left:
            flying[subject] = left
        else:
            del flying[subject]
        priority_queue = usage.priority_queue_of.get(subject) or self._usages.priority_queue(usage, subject)
        for pool in priority_queue.counted:
            pool.taken -= 1
        if size:
            budget = self.budget
            if size <= budget.large and usage.short is None:
                # As `ByteBudget` does it: this is done for each and every request.
                usage.bytes -= size
                budget.taken -= size
            else:
                budget.give_back(usage, size)
        # Without a size it may be the one whose size was awaited: nothing is sent of it.
        weighed = usage.unweighed and not size
        if weighed:
            usage.unweighed = False
        if self.waiters:
            self._refill(usage, priority_queue)
            if size:
                self._follow_budget()
            elif weighed:
                self._serve(self._back_in_turn(usage))
        if not usage.opened:
            self._usages.drop_if_empty(usage)

    def dismiss(self, build: Hashable) -> None:
        """Nobody of this build needs a slot any more: those who wait go on without one."""
        usage = self._usages.get(build)
        if usage is None:
            return
        self.budget.end_wait(usage)
        usage.unweighed = False
        for build_queue in usage.waiting:
            for priority_queue in list(build_queue.priority_queues):
                for waiter in priority_queue.clear():
                    self.waiters -= 1
                    waiter.end(WaiterState.DISMISSED)
        self._usages.drop_if_empty(usage)

    def blocking(self, build: Hashable, subject: str) -> list[str]:
        """The limits that would keep such a request waiting now, as their settings write them."""
        usage = self._usages.make(build)
        now = trio.current_time()
        found = [
            pool.label for pool in self._usages.priority_queue(usage, subject).pools if not pool.room(now)
        ]
        if usage.short is not None:
            found.append(self.budget.label)
        self._usages.drop_if_empty(usage)
        return found

    def waiting(self, build: Hashable) -> Mapping[str, int]:
        """By limit, how many components of this build wait and are kept by it."""
        found: dict[str, int] = {}
        usage = self._usages.get(build)
        if usage is not None and usage.waiting:
            now = trio.current_time()
            for priority_queue in (
                priority_queue
                for build_queue in usage.waiting
                for priority_queue in build_queue.priority_queues
            ):
                labels = [pool.label for pool in priority_queue.pools if not pool.room(now)]
                for label in labels if usage.short is None else [*labels, self.budget.label]:
                    found[label] = found.get(label, 0) + priority_queue.length
        return found

    async def run(self) -> NoReturn:
        """Wake those who wait for a rate; where there are no rates there is nothing to do."""
        while True:
            await self._alarms.wait()
            await trio.lowlevel.checkpoint()
            self._follow_alarms(trio.current_time())

    # ---- handing out

    def _try_rated(self, usage: Usage, priority_queue: PriorityQueue, subject: str) -> bool:
        """As `try_take`, where a rate has a say: who waits for one that has room now goes first."""
        now = trio.current_time()
        self._follow_alarms(now)
        if not all(pool.room(now) for pool in priority_queue.pools):
            self._usages.drop_if_empty(usage)
            return False
        self._take(usage, priority_queue, subject, now)
        return True

    def _try_singly(self, usage: Usage, priority_queue: PriorityQueue, subject: str, size: int) -> bool:
        """As `try_take`, where sizes have a say."""
        now = trio.current_time()
        if priority_queue.rates:
            self._follow_alarms(now)
        fits = not usage.held_back and all(pool.room(now) for pool in priority_queue.pools)
        if not fits or (size and not self.budget.fits(usage, size)):
            self._usages.drop_if_empty(usage)
            return False
        self._take(usage, priority_queue, subject, now)
        self._take_bytes(usage, size)
        return True

    def _take_bytes(self, usage: Usage, size: int) -> None:
        if size:
            self.budget.take(usage, size)
        else:
            usage.unweighed = usage.singly

    def _follow_budget(self) -> None:
        """Who waited for bytes that are there now has a turn."""
        for usage in self.budget.freed():
            self._serve(self._back_in_turn(usage))

    @staticmethod
    def _take(usage: Usage, priority_queue: PriorityQueue, subject: str, now: float) -> None:
        for pool in priority_queue.pools:
            pool.take(now)
        usage.flying[subject] = usage.flying.get(subject, 0) + 1

    def _rated(self, build: Hashable, subject: str) -> bool:
        usage = self._usages.get(build) or self._usages.make(build)
        return bool(
            (usage.priority_queue_of.get(subject) or self._usages.priority_queue(usage, subject)).rates
        )

    def _refill(self, usage: Usage, priority_queue: PriorityQueue) -> None:
        """Hand out what was given back by a request of ``priority_queue``."""
        fair_queues: dict[FairQueue, None] = {}
        if any(pool.taken == pool.count - 1 for pool in priority_queue.own if isinstance(pool, Pool)):
            fair_queues |= self._back_in_turn(usage)
        for pool in priority_queue.build_queue.sender_queue.fair_queue.pools:
            # With room before, it kept nobody.
            if isinstance(pool, Pool) and pool.taken == pool.count - 1:
                fair_queues |= pool.fair_queues
        if fair_queues:
            self._serve(fair_queues)
        shares = self._usages.shares
        if shares.full:
            if usage.share.waits:
                usage.share.wait()
            while (share := shares.next()) is not None:
                self._serve(self._sender_queues_back_in_turn(share))

    @staticmethod
    def _back_in_turn(usage: Usage) -> dict[FairQueue, None]:
        """A limit of the build itself has room: it waits for its turn again."""
        fair_queues: dict[FairQueue, None] = {}
        for build_queue in usage.build_queues.values():
            if build_queue.priority_queues:
                build_queue.push()
                fair_queues[build_queue.sender_queue.fair_queue] = None
        return fair_queues

    @staticmethod
    def _sender_queues_back_in_turn(share: Share) -> dict[FairQueue, None]:
        """A sender may have one more in flight: its builds wait for their turn again."""
        fair_queues: dict[FairQueue, None] = {}
        for sender_queue in share.sender_queues.values():
            if sender_queue.turns:
                if not sender_queue.queued:
                    sender_queue.fair_queue.push(sender_queue)
                fair_queues[sender_queue.fair_queue] = None
        return fair_queues

    def _follow_alarms(self, now: float) -> None:
        for rate in self._alarms.pop_due(now):
            self._serve(dict(rate.fair_queues) if rate.owner is None else self._back_in_turn(rate.owner))

    def _serve(self, fair_queues: Iterable[FairQueue]) -> None:
        """Serve who waits in these fair queues, as long as there is room for somebody."""
        now = trio.current_time()
        while True:
            next_one: BuildQueue | None = None
            for fair_queue in fair_queues:
                if not fair_queue or fair_queue.blocked(now, self._alarms):
                    continue
                build_queue = fair_queue.head(now, self._alarms)
                if build_queue is not None and (next_one is None or _is_before(build_queue, next_one)):
                    next_one = build_queue
            if next_one is None:
                return
            self._serve_one(next_one, now)

    def _serve_one(self, build_queue: BuildQueue, now: float) -> None:
        """It is the turn of this build: serve its most urgent component, whatever limits it falls under."""
        self._turn += 1
        usage = build_queue.usage
        best: PriorityQueue | None = None
        rivals = usage.waiting
        for rival in rivals if len(rivals) <= _MOST_COMPARED else (build_queue,):
            if rival is not build_queue and rival.sender_queue.fair_queue.blocked(now, self._alarms):
                continue
            priority_queue = rival.best(now, self._alarms)
            if priority_queue is not None:
                # It could have had this turn, so it counts as its own: many fair queues give no more turns.
                rival.served = self._turn
                if best is None or priority_queue.order < best.order:
                    best = priority_queue
        assert best is not None, "its ring found somebody to be served"
        build_queue.sender_queue.served = best.build_queue.sender_queue.served = self._turn
        size = best.first.size
        if size and not self.budget.fits(usage, size):
            usage.singly = True
            self.budget.wait(usage, size)
            return
        waiter = best.pop()
        self.waiters -= 1
        self._take(usage, best, waiter.subject, now)
        self._take_bytes(usage, size)
        waiter.end(WaiterState.SERVED)


def _is_before(one: BuildQueue, other: BuildQueue) -> bool:
    """Whether it is the turn of a build rather than of one in another fair queue."""
    if one.sender_queue.share is other.sender_queue.share:
        return one.served < other.served
    return one.sender_queue.served < other.sender_queue.served
