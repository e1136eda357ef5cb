"""Sharing of the limits over the fleet: reads and writes the document, and sets this instance's parts.

Where nobody has limits, nothing is read or written. One instance alone reads the document every `PERIOD`
seconds, and writes it once. With others it is read when one of them has written it (`CHANGED`), and an
instance writes at most once in `BETWEEN` seconds, and only when units change hands. While the bucket cannot
be reached, an instance goes on with the share that it has.

Nobody claims anything before each live instance counts it; one that does not within the time of a lease is of
a version that does not share limits, and is not waited for.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Final

import trio

from scheduler.bus import Message
from scheduler.definition.rules import LimitRule
from scheduler.errors import BusError, WrongLastSequence
from scheduler.fleet.bucket import LeaseBucket, LedgerBucket
from scheduler.fleet.fleet import Fleet
from scheduler.fleet.lease import LEASE, PERIOD
from scheduler.fleet.ledger import ShareLedger, limits_of, rule_of
from scheduler.fleet.parts import Parts, Quotas
from scheduler.fleet.reclaiming import Reclaimed, Reclaimer
from scheduler.fleet.shares import Situation, Stake, is_rate
from scheduler.jetstream.api import JetStream
from scheduler.runtime.logger import Logger

__all__ = ["CHANGED", "Quotas", "Sharing"]

CHANGED: Final = "scheduler.fleet.limits"
"""Subject on which an instance says that it has written the document."""
BETWEEN: Final = 1.0
"""Seconds between two writes of an instance by which units change hands."""
_TICK: Final = 0.2
"""Seconds between two looks at what this instance needs, where others share."""
_READS: Final = 0.1
"""Seconds between two reads of the document."""
_TRIES: Final = 5
"""Attempts to write the document over one that another instance wrote meanwhile, before the next tick."""
_OLD_READS: Final = 8
"""Reads of an older document after which the bucket counts as made again."""

log = Logger()


class Sharing:
    """This instance's part of the limits over the fleet; `join` first, then `run` has to be running.

    Args:
        js: JetStream of the store.
        fleet: this process and the others; it has joined.
        quotas: limits of this process.
        rules: limits of its settings.
        unfinished: reads from the logs which processes own unfinished builds.
    """

    def __init__(
        self,
        js: JetStream,
        fleet: Fleet,
        quotas: Quotas,
        rules: Iterable[LimitRule],
        *,
        unfinished: Callable[[], Awaitable[Collection[str]]],
    ) -> None:
        self._bus = js.bus
        self._bucket = LedgerBucket(js)
        self._fleet = fleet
        self._quotas = quotas
        self._rules = tuple(rules)
        self._reclaimer = Reclaimer(fleet, LeaseBucket(js), unfinished)
        self._stake = Stake(fleet.instance, limits_of(self._rules))
        self._parts = Parts(self._stake, quotas, self._rules)
        self._missing: dict[str, float] = {}
        """When each live instance was first seen without an entry in the document."""
        self._reclaimed = Reclaimed()
        """What dead instances do not use any more, at the revision that was read last."""
        self._last_read = self._next_write = float("-inf")
        self._old_reads = 0
        self._left = False
        self._kept = False
        """Whether the document is to say no more of this instance than it does."""
        self._stale = True
        """Whether the document is to be read before anything else."""
        self._unreadable = False
        """Whether the document is of another version."""
        self._trouble = False
        """Whether the document could not be used lately, and that was said."""
        self._nudged = trio.Event()
        self._stepped = trio.Event()

    # ---- what the rest of the process asks

    @property
    def concerned(self) -> bool:
        """Whether anybody in the fleet has limits."""
        return bool(
            self._rules
            or self._stake.ledger.holders
            or any(member.lease.limits for member in self._fleet.members())
        )

    def holds_for(self, subject: str) -> bool:
        """Return whether requests on a subject count for a limit."""
        kinds = self._stake.kinds()
        return any(rule_of(kind, 1).matches(subject) for kind in kinds if not is_rate(kind))

    def suspend(self) -> None:
        """Let nothing begin under shared limits until this instance knows anew what it holds. Synchronous.

        To be called when its lease ran out, and when a build was taken from it, before the slots of that
        are given back.
        """
        if self.concerned:
            self._stake.suspend()
            self._parts.apply(left=self._left)
            self._nudge()

    @asynccontextmanager
    async def taking_over(self, owners: Iterable[str]) -> AsyncIterator[None]:
        """Count requests of builds that are taken over from ``owners``: nothing of theirs is freed before.

        To be entered before the first append to their logs, and left once the requests in flight have their
        slots. Waits for as long as JetStream needs.
        """
        names = {owner for owner in owners if owner and owner != self._fleet.instance}
        if not names or not self.concerned:
            yield
            return
        stake = self._stake
        for owner in names:
            stake.taking[owner] = stake.taking.get(owner, 0) + 1
        self._stale = True
        while not self._counts(names):
            self._nudge()
            await self._stepped.wait()
            if not self._counts(names):
                # A step that may do nothing, as the lease has run out, is over at once.
                await trio.sleep(_READS)
        yield
        # Not where it was cancelled, or failed: then others free nothing before they have counted it.
        for owner in names:
            stake.taking[owner] -= 1
            if not stake.taking[owner]:
                del stake.taking[owner]
        self._reclaimer.look_soon()
        self._nudge()

    def _counts(self, names: Collection[str]) -> bool:
        """Return whether the document, as of now, says that this instance counts requests of these."""
        stake = self._stake
        return not self._stale and all(
            stake.covers(owner) for owner in names if owner in stake.ledger.holders
        )

    # ---- joining, staying and leaving

    async def join(self) -> None:
        """Take this instance's part, where that is possible at once; until then nothing limited begins."""
        me = self._fleet.find(self._fleet.instance)
        self._stake.identify(self._fleet.name, 0 if me is None else me.revision)
        if self.concerned:
            self._parts.apply(left=self._left)
            await self._try_step()

    async def run(self) -> None:
        """Follow the needs of this instance and of the others; never returns.

        Raises:
            BusError: the broker does not let us listen.
        """
        await self._bus.subscribe(CHANGED, self._on_change)
        while True:
            with trio.move_on_after(_TICK if self._is_shared else PERIOD):
                await self._nudged.wait()
            self._nudged = trio.Event()
            if self.concerned:
                await trio.sleep(
                    max(0.0, self._last_read + _READS - trio.current_time()) if self._stale else 0
                )
                await self._try_step()

    def keep(self) -> None:
        """Give nothing up from now on, whatever becomes free here. Synchronous.

        To be called before builds are left to others: their slots are given back then, and their requests
        are in flight as before.
        """
        self._kept = True

    async def leave(self, *, idle: bool) -> None:
        """Let nothing more begin, and free what this instance holds; the caller sets the deadline.

        Args:
            idle: whether none of its requests is in flight; else all stays reserved until its builds are
                taken over.
        """
        if not self.concerned or self._left:
            return
        self._left = True
        use = self._quotas.use({})
        self._parts.apply(left=self._left)
        try:
            while idle:
                draft = self._stake.end(use)
                if draft is None or await self._write(draft):
                    return
                await self._read()
        except BusError as error:
            log.info("the others find later that this instance uses no limits", reason=str(error))

    # ---- steps

    @property
    def _is_shared(self) -> bool:
        return not self._stake.alone or self._stake.suspended or bool(self._stake.taking)

    def _nudge(self) -> None:
        self._nudged.set()

    def _on_change(self, message: Message) -> None:
        if message.data != self._fleet.instance.encode():
            self._stale = True
            self._nudge()

    async def _try_step(self) -> None:
        try:
            await self._step()
        except BusError as error:
            if not self._trouble:
                log.warning("the limits of the fleet cannot be shared now", reason=str(error))
            self._trouble = True
        else:
            self._trouble = False
        self._stepped.set()
        self._stepped = trio.Event()

    async def _step(self) -> None:
        """Look at the document where that is due, and write what is to be changed."""
        if not self._fleet.fresh:
            return
        for _ in range(_TRIES):
            if self._stale or trio.current_time() >= self._last_read + PERIOD:
                await self._read()
                self._reclaimed = await self._reclaimer.look(self._stake.ledger)
            if await self._reclaimer.is_incomplete(self._stake.ledger, taking=bool(self._stake.taking)):
                return
            waiting = await self._quotas.wanting()
            # Not before: what is free here may have changed its meaning while that was read.
            if self._left or self._kept or not self._fleet.fresh:
                return
            draft = self._plan(waiting)
            if draft is None or (trio.current_time() < self._next_write and not self._is_urgent):
                return
            if await self._write(draft):
                return

    @property
    def _is_urgent(self) -> bool:
        stake, holder = self._stake, self._stake.holder
        return (
            stake.suspended
            or stake.draft is not None
            or holder is None
            or bool(self._reclaimed.freed)
            or set(holder.taking) != stake.taking.keys() & stake.ledger.holders.keys()
        )

    def _plan(self, waiting: Mapping[str, int]) -> ShareLedger | None:
        live = self._fleet.owners()
        return self._stake.plan(
            Situation(
                now=trio.current_time(),
                use=self._quotas.use(waiting),
                live=live,
                awaited=self._awaited(live),
                freed=self._reclaimed.freed,
                gone=self._reclaimed.gone,
            )
        )

    def _awaited(self, live: Collection[str]) -> list[str]:
        """Return the live instances that count what they should, or may do so soon."""
        now, holders = trio.current_time(), self._stake.ledger.holders
        kinds = self._stake.kinds()
        self._missing = {
            one: self._missing.get(one, now)
            for one in live
            if one != self._fleet.instance and (one not in holders or not kinds <= holders[one].shares.keys())
        }
        for one, since in self._missing.items():
            if since <= now - LEASE and since > now - LEASE - PERIOD:
                log.warning("an instance does not share the limits of the fleet", other=one)
        return [one for one in live if self._missing.get(one, now) > now - LEASE]

    async def _read(self) -> None:
        self._last_read = trio.current_time()
        ledger, revision = await self._bucket.read()
        self._unreadable = ledger is None
        if ledger is None:
            raise BusError("the document is of another version of scheduler")
        if self._stake.read(ledger, revision):
            self._old_reads = 0
        else:
            self._old_reads += 1
            if self._old_reads < _OLD_READS:
                return
            log.error("the limits of the fleet begin anew: their bucket was made again")
            self._stake.reset(ledger, revision)
            self._old_reads = 0
        self._stale = False
        self._parts.adopt()
        self._parts.apply(left=self._left)

    async def _write(self, draft: ShareLedger) -> bool:
        """Write the document; returns whether that went through."""
        # What is given up counts from now on, as nobody knows when it is stored.
        self._stake.send(draft)
        self._parts.apply(left=self._left)
        try:
            revision = await self._bucket.write(draft, expected=self._stake.revision)
        except WrongLastSequence:
            self._stale = True
            return False
        self._stake.stored(revision)
        self._reclaimed = Reclaimed()
        self._next_write = trio.current_time() + BETWEEN
        self._parts.adopt()
        self._parts.apply(left=self._left)
        try:
            self._bus.publish(CHANGED, self._fleet.instance.encode())
        except BusError as error:
            log.info("the others see the limits a little later", reason=str(error))
        return True
