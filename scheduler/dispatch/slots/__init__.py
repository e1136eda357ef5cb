"""How many requests may be in flight and begin: by subject, per build and for the instance, shared fairly."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from itertools import count
from typing import Final, NoReturn

import trio

from scheduler.definition.rules import LimitRule
from scheduler.dispatch.slots.accounts import Account, Accounts
from scheduler.dispatch.slots.alarms import Alarms
from scheduler.dispatch.slots.budget import ByteBudget
from scheduler.dispatch.slots.lines import Fate, Line, Ring, Seat, Waiter
from scheduler.dispatch.slots.pools import Pool
from scheduler.dispatch.slots.shares import Share, may_have_one_more

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
    that there is no deadlock. Whoever waits stands in a `Ring`, with all that fall under the same limits of
    the instance; no ring holds up another one. When there is room again,

    - senders of builds take turns, one slot a turn, and so do the builds of a sender: the one that was served
      longest ago has it, and who comes anew goes before the one that had the last;
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
        self._accounts = Accounts(rules, per_instance, per_build, self.budget)
        self._kept = self._accounts.shares.kept
        self._alarms = Alarms()
        self._turn = 0
        self._numbers = count()

    @property
    def taken(self) -> int:
        """How many requests are in flight."""
        return self._accounts.all.taken

    def open(self, build: Hashable, rules: Sequence[LimitRule] = (), sender: str = "") -> None:
        """A build begins, with limits of its own; ``sender`` sent it (empty: nobody knows who)."""
        self._accounts.make(build, sender).opened = True
        self.change(build, rules)

    def change(self, build: Hashable, rules: Sequence[LimitRule]) -> None:
        """Give a build other limits of its own from now on; what is in flight stays, and counts."""
        account = self._accounts.get(build)
        if account is not None and account.rules != tuple(rules):
            self._accounts.change(account, rules)
            if account.waiting:
                self._serve(self._back_in_turn(account))

    def close(self, build: Hashable) -> None:
        """Forget a build: who waits goes on without a slot, what it holds is given back. Idempotent."""
        account = self._accounts.get(build)
        if account is None:
            return
        self.dismiss(build)
        account.opened = False
        for subject in [subject for subject, times in account.flying.items() for _ in range(times)]:
            self.release(build, subject)
        self._accounts.forget(account)
        self._follow_budget()

    def try_take(self, build: Hashable, subject: str, priority: float = 0.0, size: int = 0) -> bool:  # noqa: ARG002
        """Take the slots for a request if all are there and nobody waits for the same; never waits.

        Args:
            build: whose it is.
            subject: its subject.
            priority: as in `take`; without a meaning for who does not wait.
            size: as in `queue`.
        """
        account = self._accounts.get(build) or self._accounts.make(build)
        line = account.line_of.get(subject) or self._accounts.line(account, subject)
        if size or account.singly:
            return self._try_singly(account, line, subject, size)
        # With room for it nobody waits for the same: they would have been served. But for rates, whose time
        # comes by itself.
        if line.rates:
            return self._try_rated(account, line, subject)
        every = self._accounts.all
        free = every.count - every.taken
        # As `may_have_one_more` says it: this is done for each and every request.
        if free <= self._kept and account.share.taken >= free:
            self._accounts.drop_if_empty(account)
            return False
        for pool in line.counted:
            if pool.taken >= pool.count:
                self._accounts.drop_if_empty(account)
                return False
        for pool in line.counted:
            pool.taken += 1
        account.flying[subject] = account.flying.get(subject, 0) + 1
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
            if waiter.fate is Fate.SERVED:
                self.release(build, subject, size)
            else:
                self.leave(waiter)
            raise
        return waiter.fate is Fate.SERVED

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
        account = self._accounts.get(build) or self._accounts.make(build)
        budget = self.budget
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
        account.unweighed = False
        if fits:
            self._serve(self._back_in_turn(account))
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
        account = self._accounts.get(build) or self._accounts.make(build)
        line = account.line_of.get(subject) or self._accounts.line(account, subject)
        seat = line.seat
        if not seat.lines:
            seat.served = max(seat.served, self._turn - 0.5)
            if not seat.bench.waiting:
                seat.bench.served = max(seat.bench.served, self._turn - 0.5)
        number = next(self._numbers) if again is None else again - _AGAIN
        waiter = Waiter(line, subject, (-priority, number), ended, size)
        line.push(waiter)
        self.waiters += 1
        return waiter

    def serve(self, build: Hashable) -> None:
        """Serve who waits beside a build, itself included, as long as there is room."""
        account = self._accounts.get(build)
        if account is not None:
            # They wait for a reason: if that is a rate, this sets the alarm.
            self._serve(self._back_in_turn(account))

    def leave(self, waiter: Waiter) -> None:
        """Somebody waits no more, without having been told so. Idempotent."""
        if waiter.fate is Fate.WAITS:
            waiter.fate = Fate.LEFT
            waiter.line.one_less()
            self.waiters -= 1
            account = waiter.line.seat.account
            if account.short is not None:
                # It may be that one: then others need less.
                self.budget.end_wait(account)
                self._serve(self._back_in_turn(account))
            self._accounts.drop_if_empty(account)

    def occupy(self, build: Hashable, subject: str, size: int = 0) -> None:
        """Count a request that is in flight already, be there room or not; it is no start for a rate."""
        account = self._accounts.make(build)
        if size:
            self.budget.take(account, size)
        for pool in self._accounts.line(account, subject).counted:
            pool.taken += 1
        account.flying[subject] = account.flying.get(subject, 0) + 1

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
        account = self._accounts.get(build)
        if account is None:
            return
        flying = account.flying
        left = flying[subject] - 1
        if left:
            flying[subject] = left
        else:
            del flying[subject]
        line = account.line_of.get(subject) or self._accounts.line(account, subject)
        for pool in line.counted:
            pool.taken -= 1
        if size:
            budget = self.budget
            if size <= budget.large and account.short is None:
                # As `ByteBudget` does it: this is done for each and every request.
                account.bytes -= size
                budget.taken -= size
            else:
                budget.give_back(account, size)
        # Without a size it may be the one whose size was awaited: nothing is sent of it.
        weighed = account.unweighed and not size
        if weighed:
            account.unweighed = False
        if self.waiters:
            self._refill(account, line)
            if size:
                self._follow_budget()
            elif weighed:
                self._serve(self._back_in_turn(account))
        if not account.opened:
            self._accounts.drop_if_empty(account)

    def dismiss(self, build: Hashable) -> None:
        """Nobody of this build needs a slot any more: those who wait go on without one."""
        account = self._accounts.get(build)
        if account is None:
            return
        self.budget.end_wait(account)
        account.unweighed = False
        for seat in account.waiting:
            for line in list(seat.lines):
                for waiter in line.clear():
                    self.waiters -= 1
                    waiter.end(Fate.DISMISSED)
        self._accounts.drop_if_empty(account)

    def blocking(self, build: Hashable, subject: str) -> list[str]:
        """The limits that would keep such a request waiting now, as their settings write them."""
        account = self._accounts.make(build)
        now = trio.current_time()
        found = [pool.label for pool in self._accounts.line(account, subject).pools if not pool.room(now)]
        if account.short is not None:
            found.append(self.budget.label)
        self._accounts.drop_if_empty(account)
        return found

    def waiting(self, build: Hashable) -> Mapping[str, int]:
        """By limit, how many components of this build wait and are kept by it."""
        found: dict[str, int] = {}
        account = self._accounts.get(build)
        if account is not None and account.waiting:
            now = trio.current_time()
            for line in (line for seat in account.waiting for line in seat.lines):
                labels = [pool.label for pool in line.pools if not pool.room(now)]
                for label in labels if account.short is None else [*labels, self.budget.label]:
                    found[label] = found.get(label, 0) + line.length
        return found

    async def run(self) -> NoReturn:
        """Wake those who wait for a rate; where there are no rates there is nothing to do."""
        while True:
            await self._alarms.wait()
            await trio.lowlevel.checkpoint()
            self._follow_alarms(trio.current_time())

    # ---- handing out

    def _try_rated(self, account: Account, line: Line, subject: str) -> bool:
        """As `try_take`, where a rate has a say: who waits for one that has room now goes first."""
        now = trio.current_time()
        self._follow_alarms(now)
        if not all(pool.room(now) for pool in line.pools):
            self._accounts.drop_if_empty(account)
            return False
        self._take(account, line, subject, now)
        return True

    def _try_singly(self, account: Account, line: Line, subject: str, size: int) -> bool:
        """As `try_take`, where sizes have a say."""
        now = trio.current_time()
        if line.rates:
            self._follow_alarms(now)
        fits = not account.held_back and all(pool.room(now) for pool in line.pools)
        if not fits or (size and not self.budget.fits(account, size)):
            self._accounts.drop_if_empty(account)
            return False
        self._take(account, line, subject, now)
        self._take_bytes(account, size)
        return True

    def _take_bytes(self, account: Account, size: int) -> None:
        if size:
            self.budget.take(account, size)
        else:
            account.unweighed = account.singly

    def _follow_budget(self) -> None:
        """Who waited for bytes that are there now has a turn."""
        for account in self.budget.freed():
            self._serve(self._back_in_turn(account))

    @staticmethod
    def _take(account: Account, line: Line, subject: str, now: float) -> None:
        for pool in line.pools:
            pool.take(now)
        account.flying[subject] = account.flying.get(subject, 0) + 1

    def _rated(self, build: Hashable, subject: str) -> bool:
        account = self._accounts.get(build) or self._accounts.make(build)
        return bool((account.line_of.get(subject) or self._accounts.line(account, subject)).rates)

    def _refill(self, account: Account, line: Line) -> None:
        """Hand out what was given back by a request of ``line``."""
        rings: dict[Ring, None] = {}
        if any(pool.taken == pool.count - 1 for pool in line.own if isinstance(pool, Pool)):
            rings |= self._back_in_turn(account)
        for pool in line.seat.bench.ring.pools:
            # With room before, it kept nobody.
            if isinstance(pool, Pool) and pool.taken == pool.count - 1:
                rings |= pool.rings
        if rings:
            self._serve(rings)
        shares = self._accounts.shares
        if shares.full:
            if account.share.waits:
                account.share.wait()
            while (share := shares.next()) is not None:
                self._serve(self._benches_back_in_turn(share))

    @staticmethod
    def _back_in_turn(account: Account) -> dict[Ring, None]:
        """A limit of the build itself has room: it waits for its turn again."""
        rings: dict[Ring, None] = {}
        for seat in account.seats.values():
            if seat.lines:
                seat.push()
                rings[seat.bench.ring] = None
        return rings

    @staticmethod
    def _benches_back_in_turn(share: Share) -> dict[Ring, None]:
        """A sender may have one more in flight: its builds wait for their turn again."""
        rings: dict[Ring, None] = {}
        for bench in share.benches.values():
            if bench.turns:
                if not bench.queued:
                    bench.ring.push(bench)
                rings[bench.ring] = None
        return rings

    def _follow_alarms(self, now: float) -> None:
        for rate in self._alarms.pop_due(now):
            self._serve(dict(rate.rings) if rate.owner is None else self._back_in_turn(rate.owner))

    def _serve(self, rings: Iterable[Ring]) -> None:
        """Serve who waits in these rings, as long as there is room for somebody."""
        now = trio.current_time()
        while True:
            next_one: Seat | None = None
            for ring in rings:
                if not ring or ring.blocked(now, self._alarms):
                    continue
                seat = ring.head(now, self._alarms)
                if seat is not None and (next_one is None or _is_before(seat, next_one)):
                    next_one = seat
            if next_one is None:
                return
            self._serve_one(next_one, now)

    def _serve_one(self, seat: Seat, now: float) -> None:
        """It is the turn of this build: serve its most urgent component, whatever limits it falls under."""
        self._turn += 1
        account = seat.account
        best: Line | None = None
        rivals = account.waiting
        for rival in rivals if len(rivals) <= _MOST_COMPARED else (seat,):
            if rival is not seat and rival.bench.ring.blocked(now, self._alarms):
                continue
            line = rival.best(now, self._alarms)
            if line is not None:
                # It could have had this turn, so it counts as its own: many rings give no more turns.
                rival.served = self._turn
                if best is None or line.order < best.order:
                    best = line
        assert best is not None, "its ring found somebody to be served"
        seat.bench.served = best.seat.bench.served = self._turn
        size = best.first.size
        if size and not self.budget.fits(account, size):
            account.singly = True
            self.budget.wait(account, size)
            return
        waiter = best.pop()
        self.waiters -= 1
        self._take(account, best, waiter.subject, now)
        self._take_bytes(account, size)
        waiter.end(Fate.SERVED)


def _is_before(one: Seat, other: Seat) -> bool:
    """Whether it is the turn of a build rather than of one in another ring."""
    if one.bench.share is other.bench.share:
        return one.served < other.served
    return one.bench.served < other.bench.served
