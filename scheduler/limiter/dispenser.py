"""Hands out the slots that are free to the requests that wait for them."""

from collections.abc import Hashable, Iterable
from typing import Final

from scheduler.limiter.alarms import Alarms
from scheduler.limiter.limits import Limit, RateLimit
from scheduler.limiter.queues import BuildQueue, FairQueue, Place, PriorityQueue, Waiter, WaiterState
from scheduler.limiter.shares import Share
from scheduler.limiter.usage import Usage, Usages

_MOST_COMPARED: Final = 16
"""Fair queues in which a build's most urgent component is looked for when other builds wait as well."""


class Dispenser:
    """Serves waiters in their order.

    What frees a slot only marks the fair queues for which it may matter; `hand_out` then serves these. So all
    that one completion makes due is compared with all that waits already.

    Args:
        usages: all builds.
        alarms: the rates that keep somebody waiting.
    """

    def __init__(self, usages: Usages, alarms: Alarms) -> None:
        self.waiters = 0
        """Requests that wait for a slot."""
        self.marked: dict[FairQueue, object] = {}
        """The fair queues in which somebody may have a slot now."""
        self._entered: dict[FairQueue, None] = {}
        """The fair queues with a new waiter: whatever is served next is compared with it."""
        self._crowd: dict[Usage, None] = {}
        """The builds with a waiter. While there is one only, nothing waits for its turn."""
        self._usages = usages
        self._budget = usages.budget
        self._shares = usages.shares
        self._every = usages.all
        self._alarms = alarms
        self._turn = 0
        self._openings = 0

    def enter(self, usage: Usage, place: Place) -> None:
        """Queue a waiter at its place."""
        if not usage.waiters:
            for other in self._crowd if len(self._crowd) == 1 else ():
                # They take turns from now on.
                for build_queue in other.waiting:
                    build_queue.push()
            self._crowd[usage] = None
        usage.waiters += 1
        self.waiters += 1
        priority_queue = place[2].priority_queue
        build_queue = priority_queue.build_queue
        if not build_queue.priority_queues:
            # A build that just arrived precedes the one served last.
            sender_queue = build_queue.sender_queue
            build_queue.served = max(build_queue.served, self._turn - 0.5)
            if not sender_queue.waiting:
                sender_queue.served = max(sender_queue.served, self._turn - 0.5)
        priority_queue.push(place)
        self._entered[build_queue.sender_queue.fair_queue] = None

    def leave(self, waiter: Waiter) -> None:
        """Let a waiter go that was not told so. Idempotent."""
        if waiter.state is not WaiterState.WAITS:
            return
        waiter.state = WaiterState.LEFT
        waiter.priority_queue.one_less()
        account = waiter.priority_queue.build_queue.account
        usage = self._usage(account.build)
        self._count_out(usage)
        if account.short is not None:
            # It may be that one: then others need less.
            self._budget.end_wait(account)
            self.mark(usage)
        self._usages.drop_if_empty(usage)

    def dismiss(self, usage: Usage, most: int) -> None:
        """Send waiters of a build on without a slot, at most so many."""
        self._budget.end_wait(usage.account)
        usage.account.unweighed = False
        for build_queue in usage.waiting:
            for priority_queue in list(build_queue.priority_queues):
                if not most:
                    return
                waiters = priority_queue.take_out(most)
                most -= len(waiters)
                if waiters:
                    self._count_out(usage, len(waiters))
                for waiter in waiters:
                    waiter.state = WaiterState.DISMISSED
                    waiter.ended(False)

    def _count_out(self, usage: Usage, count: int = 1) -> None:
        self.waiters -= count
        usage.waiters -= count
        if not usage.waiters:
            del self._crowd[usage]

    # ---- notes

    def mark_waiter(self, waiter: Waiter) -> None:
        """Note that there may be room for one waiter."""
        build_queue = waiter.priority_queue.build_queue
        if len(self._crowd) > 1:
            build_queue.push()
        self.marked[build_queue.sender_queue.fair_queue] = None

    def mark(self, usage: Usage) -> None:
        """Note that there may be room for a build: it waits for its turn again."""
        for build_queue in usage.build_queues.values():
            if build_queue.priority_queues:
                build_queue.push()
                self.marked[build_queue.sender_queue.fair_queue] = None

    def mark_freed(self, usage: Usage, priority_queue: PriorityQueue) -> None:
        """Note what a request of ``priority_queue`` gave back, once it has."""
        for limit in priority_queue.gate.flights:
            # With room before, it kept nobody.
            if limit.taken == limit.count - 1:
                self._open_own(usage, limit)
        for limit in priority_queue.build_queue.sender_queue.fair_queue.gate.flights:
            if limit.taken == limit.count - 1:
                self._open(limit)
        if self._shares.full and usage.share.waits:
            usage.share.wait()

    def reopen(self, limit: Limit) -> None:
        """Note that a limit of the instance has another count now."""
        if isinstance(limit, RateLimit):
            self._alarms.drop(limit)
        self._open(limit)

    def renew(self) -> None:
        """Note that the fair queues are other ones now, with the waiters of those before."""
        self.marked.clear()
        self._entered.clear()
        for usage in self._usages.all_waiting():
            self.mark(usage)

    def _open_own(self, usage: Usage, limit: Limit) -> None:
        """Note that a limit of a build has room."""
        self._openings += 1
        opened = False
        for gate in usage.gates.values():
            if gate.shut_by is limit:
                gate.shut_by = None
                gate.opened = self._openings
                opened = True
        if opened and usage.waiters:
            if len(self._crowd) > 1:
                self.mark(usage)
            else:
                self.marked.update(usage.build_queues)

    def _open(self, limit: Limit) -> None:
        """Note that a limit of the instance has room."""
        self._openings += 1
        for fair_queue in self._usages.behind.get(limit, ()):
            gate = fair_queue.gate
            if gate.shut_by is limit:
                gate.shut_by = None
                gate.opened = self._openings
                self.marked[fair_queue] = None

    def _mark_sender(self, share: Share) -> None:
        """Note that a sender may have one more in flight: its builds wait for their turn again."""
        for fair_queue, sender_queue in self._usages.sender_queues[share].items():
            if sender_queue.waiting:
                if sender_queue.turns and not sender_queue.queued:
                    fair_queue.add(sender_queue)
                self.marked[fair_queue] = None

    # ---- handing out

    def follow_alarms(self, now: float) -> None:
        """Serve those that waited for a rate that has room by now."""
        for rate in self._alarms.pop_due(now):
            owner = self._usages.owners.get(rate)
            if owner is None:
                self._open(rate)
            else:
                self._open_own(owner, rate)
        self._serve_marked(now)

    def hand_out(self, now: float) -> None:
        """Serve those for which there may be room, as long as there is."""
        if self._alarms.due <= now:
            self.follow_alarms(now)
        self._serve_marked(now)
        if self._shares.full:
            while (share := self._shares.next()) is not None:
                self._mark_sender(share)
                self._serve_marked(now)
        if self._budget.waits:
            for account in self._budget.freed():
                self.mark(self._usage(account.build))
                self._serve_marked(now)

    def take(self, usage: Usage, priority_queue: PriorityQueue, subject: str, size: int, now: float) -> None:
        """Count a request that begins now."""
        for limit in priority_queue.counted:
            limit.taken += 1
        for rate in priority_queue.rates:
            rate.take(now)
        usage.flying[subject] = usage.flying.get(subject, 0) + 1
        if size:
            self._budget.take(usage.account, size)
        else:
            usage.account.unweighed = usage.account.singly

    def _serve_marked(self, now: float) -> None:
        if not self.marked:
            return
        fair_queues = tuple(self.marked | self._entered)
        self.marked.clear()
        self._entered.clear()
        if len(self._crowd) == 1:
            (usage,) = self._crowd
            while usage.waiters and (best := self._most_urgent(usage, fair_queues, now)) is not None:
                self._serve(usage, best, now)
        else:
            while (best := self._next(fair_queues, now)) is not None:
                self._give_turn(best, now)

    def _most_urgent(
        self, usage: Usage, fair_queues: Iterable[FairQueue], now: float
    ) -> PriorityQueue | None:
        """Return the queue of the most urgent component with room for it, where one build alone waits."""
        if usage.account.singly and usage.account.held_back:
            return None
        every = self._every
        if every.count - every.taken <= self._shares.kept and not usage.share.room():
            usage.share.wait()
            return None
        alarms, turn = self._alarms, self._turn + 1
        best: PriorityQueue | None = None
        for fair_queue in fair_queues:
            build_queue = usage.build_queues.get(fair_queue)
            if build_queue is None or not build_queue.priority_queues or fair_queue.gate.is_shut(now, alarms):
                continue
            priority_queue = build_queue.most_urgent(now, alarms)
            if priority_queue is not None:
                # It could have had this turn, so it counts as its own: many fair queues give no more turns.
                build_queue.served = build_queue.sender_queue.served = turn
                if best is None or priority_queue.order < best.order:
                    best = priority_queue
        if best is not None:
            self._turn = turn
        return best

    def _next(self, fair_queues: Iterable[FairQueue], now: float) -> PriorityQueue | None:
        """Return the priority queue of the build whose turn it is in these fair queues."""
        found: PriorityQueue | None = None
        for fair_queue in fair_queues:
            if not fair_queue or fair_queue.gate.is_shut(now, self._alarms):
                continue
            priority_queue = fair_queue.head(now, self._alarms)
            if priority_queue is not None and (
                found is None or _is_before(priority_queue.build_queue, found.build_queue)
            ):
                found = priority_queue
        return found

    def _give_turn(self, best: PriorityQueue, now: float) -> None:
        """Serve the most urgent component of the build whose turn it is, whatever limits it falls under.

        Args:
            best: the queue of the most urgent one in the fair queue that gave it the turn.
            now: time in seconds.
        """
        self._turn += 1
        build_queue = best.build_queue
        build_queue.served = self._turn
        usage = self._usage(build_queue.account.build)
        rivals = usage.waiting if len(usage.build_queues) > 1 else ()
        for rival in rivals if len(rivals) <= _MOST_COMPARED else ():
            if rival is build_queue or rival.sender_queue.fair_queue.gate.is_shut(now, self._alarms):
                continue
            priority_queue = rival.most_urgent(now, self._alarms)
            if priority_queue is not None:
                rival.served = self._turn
                if priority_queue.order < best.order:
                    best = priority_queue
        build_queue.sender_queue.served = best.build_queue.sender_queue.served = self._turn
        self._serve(usage, best, now)

    def _serve(self, usage: Usage, priority_queue: PriorityQueue, now: float) -> None:
        waiter = priority_queue.first
        size = waiter.size
        if size and not self._budget.fits(usage.account, size):
            usage.account.singly = True
            self._budget.wait(usage.account, size)
            return
        priority_queue.drop_first()
        self._count_out(usage)
        self.take(usage, priority_queue, waiter.subject, size, now)
        waiter.state = WaiterState.SERVED
        waiter.ended(True)

    def _usage(self, build: Hashable) -> Usage:
        usage = self._usages.get(build)
        assert usage is not None, "a build of which somebody waits is known"
        return usage


def _is_before(one: BuildQueue, other: BuildQueue) -> bool:
    """Return whether it is the turn of a build rather than of one in another fair queue."""
    if one.sender_queue.share is other.sender_queue.share:
        return one.served < other.served
    return one.sender_queue.served < other.sender_queue.served
