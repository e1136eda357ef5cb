"""The builds that take slots, and which limits a request of theirs falls under."""

from collections.abc import Hashable, Sequence
from typing import Final

from scheduler.definition.rules import LimitRule
from scheduler.dispatch.slots.budget import ByteBudget, Shortage
from scheduler.dispatch.slots.lines import Line, Ring, Seat
from scheduler.dispatch.slots.pools import AnyPool, Pool, Rate, make_pools
from scheduler.dispatch.slots.shares import Share, Shares

_MOST_REMEMBERED: Final = 1_024
"""Subjects whose limits are remembered, of the instance and of each build: there may be many."""
_MOST_SETS: Final = 32
"""Sets of limits of its own that the components of a build may fall under.

What goes beyond takes a slot of each limit of its build: no limit is passed, and a build with thousands of
such sets, which is not made in good faith, slows down itself and nobody else."""
_OWN: Final = "options.limits "


class Account:
    """What a build has in flight, and who of it waits."""

    __slots__ = (
        "__weakref__",
        "bytes",
        "cap",
        "flying",
        "key",
        "line_of",
        "lines",
        "opened",
        "pools",
        "rules",
        "seats",
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
        self.seats: dict[Ring, Seat] = {}
        self.lines: dict[tuple[Ring, tuple[int, ...]], Line] = {}
        self.line_of: dict[str, Line] = {}
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
        """Let go of all that refers to the account, once nobody of the build waits any more.

        Its seats may stay in the rings' heaps, and its rates among the alarms, until their turn comes:
        neither may keep the build alive until then. Nor may they all keep each other alive until the garbage
        collector comes round.
        """
        for seat in self.seats.values():
            seat.leave()
        for pool in self.pools:
            if isinstance(pool, Rate):
                pool.retire()
        self.seats.clear()
        self.lines.clear()
        self.line_of.clear()
        self.pools.clear()

    @property
    def waiting(self) -> list[Seat]:
        """Its seats where somebody waits."""
        return [seat for seat in self.seats.values() if seat.lines]

    def set_of(self, subject: str) -> tuple[int, ...]:
        """The numbers of its limits that such a request falls under; the same as long as the limits are."""
        numbers = tuple(number for number, rule in enumerate(self.rules) if rule.matches(subject))
        if numbers not in self.sets:
            if len(self.sets) == _MOST_SETS:
                return tuple(range(len(self.rules)))
            self.sets.add(numbers)
        return numbers


class Accounts:
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
        self._accounts: dict[Hashable, Account] = {}
        self._rings: dict[tuple[int, ...], Ring] = {}
        self._ring_of: dict[str, Ring] = {}
        self.get = self._accounts.get
        """The account of a build, or None."""

    def __len__(self) -> int:
        """How many there are."""
        return len(self._accounts)

    def make(self, build: Hashable, sender: str = "") -> Account:
        """The account of a build, a new one, of this sender, if it has none."""
        account = self._accounts.get(build)
        if account is None:
            share = self._share_of.get(sender)
            if share is None:
                share = self._share_of[sender] = Share(sender, self.all, self.shares)
            share.accounts += 1
            cap = Pool(self._cap_label, self._per_build)
            account = self._accounts[build] = Account(build, cap, share)
        return account

    def forget(self, account: Account) -> None:
        """Its build is over; nobody of it waits. Idempotent."""
        if self._accounts.pop(account.key, None) is None:
            return
        self.budget.close(account)
        account.dissolve()
        share = account.share
        share.accounts -= 1
        if not share.accounts:
            del self._share_of[share.sender]
            share.dissolve()

    def drop_if_empty(self, account: Account) -> None:
        """Forget an account that nobody opened and nobody needs any more."""
        if not account.opened and not account.flying and not account.waiting:
            self.forget(account)

    def line(self, account: Account, subject: str) -> Line:
        """Where requests on ``subject`` of a build wait, and what they count for."""
        line = account.line_of.get(subject)
        if line is not None:
            return line
        ring, numbers = self._ring(subject), account.set_of(subject)
        line = account.lines.get((ring, numbers))
        if line is None:
            seat = account.seats.get(ring)
            if seat is None:
                seat = account.seats[ring] = Seat(account, ring.bench(account.share))
            pools = (*(account.pools[number] for number in numbers), account.cap)
            line = account.lines[ring, numbers] = Line(seat, pools)
        if len(account.line_of) >= _MOST_REMEMBERED:
            account.line_of.clear()
        account.line_of[subject] = line
        return line

    def _ring(self, subject: str) -> Ring:
        ring = self._ring_of.get(subject)
        if ring is None:
            numbers = tuple(number for number, rule in enumerate(self._rules) if rule.matches(subject))
            ring = self._rings.get(numbers)
            if ring is None:
                ring = self._rings[numbers] = Ring((*(self._pools[number] for number in numbers), self.all))
            if len(self._ring_of) >= _MOST_REMEMBERED:
                self._ring_of.clear()
            self._ring_of[subject] = ring
        return ring

    def change(self, account: Account, rules: Sequence[LimitRule]) -> None:
        """Give a build other limits: what is in flight counts, and who waits does so for what is new."""
        before = {
            rule.pattern: pool
            for rule, pool in zip(account.rules, account.pools, strict=True)
            if isinstance(pool, Rate)
        }
        waiters = [waiter for seat in account.waiting for line in list(seat.lines) for waiter in line.clear()]
        retired = account.pools
        account.rules = tuple(rules)
        account.pools = make_pools(account.rules, _OWN, account)
        account.lines.clear()
        account.line_of.clear()
        account.sets.clear()
        for rule, pool in zip(account.rules, account.pools, strict=True):
            if isinstance(pool, Rate) and rule.pattern in before:
                pool.follow(before[rule.pattern])
        for pool in retired:
            if isinstance(pool, Rate):
                pool.retire()
        for subject, flying in account.flying.items():
            for pool in self.line(account, subject).own:
                if isinstance(pool, Pool) and pool is not account.cap:
                    pool.taken += flying
        for waiter in waiters:
            self.line(account, waiter.subject).push(waiter)
