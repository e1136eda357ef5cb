"""Counts requests in flight and begun, and queues those beyond the limits; time is an argument.

A request takes a slot of every limit that it falls under, or none: no request waits with a slot in hand, so
that there is no deadlock. Waiters stand in a `FairQueue`, with all that fall under the same limits of the
instance; no fair queue holds up another one. When there is room again,

- senders of builds take turns, one slot a turn, and so do the builds of a sender: the one that was served
  longest ago has it; a build that just arrived precedes the one served last;
- within a build the most urgent component goes first, of equal ones that under the narrowest limit, and of
  these the one that asked first.

However many builds a sender has, it leaves room for those of others (`shares`).

Bytes in flight are bounded as well (`byte_budget`). How many a request takes is known only when it is
rendered, and that is done when it has its slots: then it is weighed (`Limiter.weigh`), and where there is no
room for it, it waits again, at the head of its build, now for both (`Limiter.queue` with its size).
"""

import sys
from collections.abc import Callable, Collection, Hashable, Sequence
from itertools import count
from typing import Final

from scheduler.definition.rules import LimitRule
from scheduler.limiter.alarms import Alarms
from scheduler.limiter.byte_budget import ByteBudget
from scheduler.limiter.dispenser import Dispenser
from scheduler.limiter.limits import Limit
from scheduler.limiter.queues import PriorityQueue, Waiter
from scheduler.limiter.usage import Usage, Usages

MAX_BYTES: Final = 8 * 1024 * 1024
"""Default bound on the bytes of requests in flight."""
_AGAIN: Final = 1 << 62
"""Puts a number before all others."""


def _ignore() -> None:
    """Set no alarm: the caller looks at `Limiter.due`."""


class Limiter:
    """Decides which requests may begin, and which waits for its turn.

    Methods without ``now`` only take note of what is free; `hand_out` serves waiters. It is to be called
    after each that frees something, before anything else happens.

    Args:
        rules: limits over all builds, by subject.
        per_instance: at most this many slots are taken at a time.
        per_build: at most this many of them by one build.
        max_bytes: of requests in flight, over all builds.
        sooner: called when `due` becomes sooner; it must not call back.
    """

    def __init__(
        self,
        rules: Sequence[LimitRule],
        *,
        per_instance: int,
        per_build: int,
        max_bytes: int = MAX_BYTES,
        sooner: Callable[[], object] = _ignore,
    ) -> None:
        self.budget = ByteBudget(max_bytes)
        """Budget of bytes in flight."""
        self.usages = Usages(rules, per_instance, per_build, self.budget)
        """The builds."""
        self._every = self.usages.all
        self._kept = self.usages.shares.kept
        self._alarms = Alarms(sooner)
        self.dispenser = Dispenser(self.usages, self._alarms)
        """The requests that wait."""
        self.marked: Collection[object] = self.dispenser.marked
        """The queues in which somebody may have a slot now: if there are any, call `hand_out`."""
        self.hand_out = self.dispenser.hand_out
        """Serves those for which there may be room at ``now``."""
        self.follow_alarms = self.dispenser.follow_alarms
        """Serves those that waited for a rate that has room at ``now``."""
        self.call = self.dispenser.mark_waiter
        """Notes that a waiter is to be looked at."""
        self.leave = self.dispenser.leave
        """Lets a waiter go that was not told so. Idempotent."""
        self._numbers = count()

    @property
    def taken(self) -> int:
        """Requests in flight."""
        return self._every.taken

    @property
    def waiters(self) -> int:
        """Requests that wait for a slot."""
        return self.dispenser.waiters

    @property
    def due(self) -> float:
        """The time in seconds of the next call of `follow_alarms`; infinite if none is due."""
        return self._alarms.due

    def open(self, build: Hashable, rules: Sequence[LimitRule] = (), sender: str = "") -> None:
        """Begin a build with limits of its own; ``sender`` sent it (empty: not known)."""
        self.usages.make(build, sender).opened = True
        self.change(build, rules)

    def change(self, build: Hashable, rules: Sequence[LimitRule]) -> None:
        """Give a build other limits of its own from now on; what is in flight stays, and counts."""
        usage = self.usages.get(build)
        if usage is not None and usage.rules != tuple(rules):
            self.usages.change(usage, rules)
            self.dispenser.mark(usage)

    def close(self, build: Hashable) -> None:
        """Forget a build: its waiters go on without a slot, what it holds is given back. Idempotent."""
        usage = self.usages.get(build)
        if usage is None:
            return
        self.dismiss(build)
        usage.opened = False
        for subject in [subject for subject, times in usage.flying.items() for _ in range(times)]:
            self.give_back(build, subject)
        self.usages.forget(usage)

    def limits(self, build: Hashable) -> list[Limit]:
        """Return every limit by subject that a request of a build may fall under, and that on all of them."""
        usage = self._usage(build)
        return [*self.usages.limits, *usage.limits, usage.cap]

    def priority_queue(self, build: Hashable, subject: str) -> PriorityQueue:
        """Return the queue in which such a request waits, with its limits."""
        usage = self._usage(build)
        return usage.priority_queue_of.get(subject) or self.usages.priority_queue(usage, subject)

    def try_counted(self, build: Hashable, subject: str) -> bool | None:
        """Take the slots for a request as `try_take` does, without a time; None where the time may matter.

        It does not for most requests, which depend on neither rates nor sizes.
        """
        usage = self.usages.get(build) or self.usages.make(build)
        priority_queue = usage.priority_queue_of.get(subject) or self.usages.priority_queue(usage, subject)
        if priority_queue.rates or usage.account.singly:
            return None
        # With room for it no other waits for the same: it would have been served.
        every = self._every
        free = every.count - every.taken
        # As `may_have_one_more` says it: this is done for each and every request. Without one that is free
        # none may have more.
        if free <= self._kept and usage.share.taken >= free:
            self.usages.drop_if_empty(usage)
            return False
        for limit in priority_queue.bounded:
            if limit.taken >= limit.count:
                self.usages.drop_if_empty(usage)
                return False
        for limit in priority_queue.counted:
            limit.taken += 1
        usage.flying[subject] = usage.flying.get(subject, 0) + 1
        return True

    def try_take(self, build: Hashable, subject: str, size: int, now: float) -> bool:
        """Take the slots for a request if all are there and no other waits for the same.

        Args:
            build: whose it is.
            subject: its subject.
            size: as in `queue`.
            now: time in seconds.
        """
        usage = self._usage(build)
        priority_queue = self.priority_queue(build, subject)
        if priority_queue.rates:
            # Those that wait for a rate that has room by now go first.
            self.follow_alarms(now)
        account = usage.account
        fits = not account.held_back and all(limit.room(now) for limit in priority_queue.limits)
        if not fits or (size and not self.budget.fits(account, size)):
            self.usages.drop_if_empty(usage)
            return False
        self.dispenser.take(usage, priority_queue, subject, size, now)
        return True

    def take_all(self, build: Hashable, subjects: Sequence[str]) -> bool | None:
        """Take the slots for several requests if there are some for all of them; or none.

        Returns:
            None for one request for which the time may matter, as in `try_counted`.
        """
        if len(subjects) == 1:
            return self.try_counted(build, subjects[0])
        taken = []
        for subject in subjects:
            # Where a rate lets only some begin, the queue decides which of them do.
            if not self.try_counted(build, subject):
                break
            taken.append(subject)
        else:
            return True
        for subject in taken:
            self.give_back(build, subject)
        return False

    def weigh(self, build: Hashable, size: int) -> bool:
        """Take room for a request of ``size`` bytes that has its slots; or none, where there is not so much.

        Then it is to be queued again, with its size, before its slots are given back.
        """
        usage = self.usages.get(build) or self.usages.make(build)
        account, budget = usage.account, self.budget
        room = budget.most - budget.taken - account.bytes
        if not account.singly and 2 * size <= room and size <= budget.large:
            # As `ByteBudget` does it: this is done for each and every request.
            account.bytes += size
            budget.taken += size
            return True
        fits = account.short is None and budget.fits(account, size)
        if fits:
            budget.take(account, size)
        account.singly = not fits or not budget.is_ample(account)
        if fits:
            # Otherwise its slots are given back next, and that calls those that it holds up.
            account.unweighed = False
            self.dispenser.mark(usage)
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
        """Queue a request for its slots; it has none before it is called (`call`, `call_all`).

        Of those that are called before one call of `hand_out` the most urgent is served first, whatever their
        order: this is how what one completion makes due is compared with all that waits already.

        Args:
            build: whose it is.
            subject: its subject.
            priority: the higher the more urgent; compared within the build.
            ended: called at the end of the wait with whether it has its slots; it must not call back.
            size: bytes that it waits for as well, where that is known; 0 where it is not.
            again: it had its slots before: it goes before those of its urgency that had none, and among those
                that had some in the order of this number.
        """
        usage = self.usages.get(build) or self.usages.make(build)
        priority_queue = usage.priority_queue_of.get(subject) or self.usages.priority_queue(usage, subject)
        number = next(self._numbers) if again is None else again - _AGAIN
        waiter = Waiter(priority_queue, subject, ended, size)
        self.dispenser.enter(usage, (-priority, number, waiter))
        return waiter

    def call_all(self, build: Hashable) -> None:
        """Note that all waiters of a build are to be looked at."""
        usage = self.usages.get(build)
        if usage is not None:
            self.dispenser.mark(usage)

    def occupy(self, build: Hashable, subject: str, size: int = 0, begun: float | None = None) -> None:
        """Account for a request already in flight, even over the limit.

        Args:
            build: whose it is.
            subject: its subject.
            size: in bytes.
            begun: the time at which it began, for rates, not before that of others; None: it consumes none.
        """
        usage = self.usages.make(build)
        if size:
            self.budget.take(usage.account, size)
        priority_queue = self.usages.priority_queue(usage, subject)
        for limit in priority_queue.counted:
            limit.taken += 1
        if begun is not None:
            for rate in priority_queue.rates:
                rate.take(begun)
        usage.flying[subject] = usage.flying.get(subject, 0) + 1

    def give_back(self, build: Hashable, subject: str, size: int = 0) -> bool:
        """Give the slots of a request back. Those of a closed build are free already.

        A rate's slot is not given back: the request has begun.

        Args:
            build: whose it is.
            subject: its subject.
            size: in bytes, where it was weighed, or queued with its size.

        Returns:
            Whether somebody waits, so that `hand_out` is to be called.

        Raises:
            KeyError: the build has no request on ``subject`` in flight.
        """
        usage = self.usages.get(build)
        if usage is None:
            return False
        flying = usage.flying
        left = flying[subject] - 1
        if left:
            flying[subject] = left
        else:
            del flying[subject]
        priority_queue = usage.priority_queue_of.get(subject) or self.usages.priority_queue(usage, subject)
        for limit in priority_queue.counted:
            limit.taken -= 1
        account = usage.account
        if size:
            budget = self.budget
            if size <= budget.large and account.short is None:
                # As `ByteBudget` does it: this is done for each and every request.
                account.bytes -= size
                budget.taken -= size
            else:
                budget.give_back(account, size)
        waiters = self.dispenser.waiters
        if waiters:
            self.dispenser.mark_freed(usage, priority_queue)
        if account.unweighed and not size:
            # It may be the one whose size was awaited: nothing is sent of it.
            account.unweighed = False
            self.dispenser.mark(usage)
        if not usage.opened:
            self.usages.drop_if_empty(usage)
        return waiters > 0

    def dismiss(self, build: Hashable, most: int = sys.maxsize) -> bool:
        """Send waiters of a build on without a slot, at most so many; returns whether others still wait."""
        usage = self.usages.get(build)
        if usage is None:
            return False
        self.dispenser.dismiss(usage, most)
        self.usages.drop_if_empty(usage)
        return usage.waiters > 0

    def _usage(self, build: Hashable) -> Usage:
        return self.usages.get(build) or self.usages.make(build)
