"""Reclaims what dead instances hold of the limits over the fleet, once they surely do not use it any more.

That is, after it is sure that one sends nothing more,

- for requests in flight, when no unfinished build is owned by it, which is read from the logs; or after
  `RESERVED` seconds, as long as an attempt may take where nothing else is said;
- for rates, when their period has passed.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Final

import trio
from attrs import field, frozen

from scheduler.definition.tokens import encode_token
from scheduler.fleet.bucket import LeaseBucket
from scheduler.fleet.fleet import Fleet
from scheduler.fleet.lease import LEASE, PERIOD, RENEW_WITHIN, Member, read_lease
from scheduler.fleet.ledger import Holder, ShareLedger, rule_of
from scheduler.fleet.shares import is_rate
from scheduler.limiter import stretched
from scheduler.runtime.logger import Logger

RESERVED: Final = 3_600.0
"""Seconds for which requests of a dead instance are reserved at most."""
_FIRST: Final = PERIOD
"""Seconds between the first two looks at the logs for builds of the dead; doubled each time, ..."""
_LONGEST: Final = 30.0
"""... up to this."""
_SOON: Final = 0.2

log = Logger()


@frozen
class Reclaimed:
    """Shares that may be freed."""

    freed: Mapping[str, Collection[str]] = field(factory=dict)
    """Kinds that are not used any more, by instance."""
    gone: Collection[str] = ()
    """Dead instances without an unfinished build."""


class Reclaimer:
    """Finds out what dead instances do not use any more.

    Args:
        fleet: this process and the others.
        leases: bucket of the leases.
        unfinished: reads from the logs which processes own unfinished builds.
    """

    def __init__(
        self, fleet: Fleet, leases: LeaseBucket, unfinished: Callable[[], Awaitable[Collection[str]]]
    ) -> None:
        self._fleet = fleet
        self._leases = leases
        self._unfinished = unfinished
        self._since: dict[tuple[str, int], float] = {}
        """When each was first seen dead, by instance and term."""
        self._gone: set[tuple[str, int]] = set()
        """Those of them that own no unfinished build any more. They get none without a new term."""
        self._pause = _FIRST
        self._next_scan = float("-inf")
        self._complete_from: float | None = None
        """Time from which a document that is new counts all that there is; None where it is not new."""

    def look_soon(self) -> None:
        """Look at the logs again soon, as builds were taken over."""
        self._pause = _FIRST
        self._next_scan = min(self._next_scan, trio.current_time() + _SOON)

    async def look(self, ledger: ShareLedger) -> Reclaimed:
        """Return what may be freed at the revision of this document, which was just read.

        Raises:
            BusError: the leases or the logs cannot be read.
        """
        now, owners = trio.current_time(), self._fleet.owners()
        dead = {(one, holder.term): holder for one, holder in ledger.holders.items() if one not in owners}
        self._since = {key: self._since.get(key, now) for key in dead}
        self._gone &= dead.keys()
        stopped: dict[tuple[str, int], float] = {}
        for key, holder in dead.items():
            member = self._fleet.find(key[0])
            since = self._since[key] + self._doubt(key[0], holder, member)
            if now >= since and await self._is_still_dead(key[0], holder, member):
                stopped[key] = since
        await self._look_at_logs({key: dead[key] for key in stopped}, now)
        for key, since in stopped.items():
            if now >= since + RESERVED and key not in self._gone:
                log.warning("requests of an instance that has gone count no more", other=key[0])
                self._gone.add(key)
        freed: dict[str, set[str]] = {}
        for key, since in stopped.items():
            kinds = _free(dead[key], now - since, gone=key in self._gone)
            if kinds or key in self._gone:
                freed[key[0]] = kinds
        return Reclaimed(freed, {one for one, _ in self._gone})

    async def is_incomplete(self, ledger: ShareLedger, *, taking: bool) -> bool:
        """Return whether the document is new and may not count all that the dead have in flight.

        Its bucket may have been removed, or the limits may be new. Their requests are counted when their
        builds are taken over: this instance knows when it has done so itself, and gives others the time of a
        lease for it. No longer: nobody may be able to take a build.

        Args:
            ledger: the document.
            taking: whether this instance is about to count requests of others.

        Raises:
            BusError: the logs cannot be read.
        """
        if ledger.holders:
            self._complete_from = None
            return False
        now, owners = trio.current_time(), self._fleet.owners()
        if self._complete_from is None:
            known = owners.issuperset(await self._unfinished())
            self._complete_from = now if known else now + LEASE + RENEW_WITHIN
        elif len(owners) == 1 and not taking and self._next_scan <= now < self._complete_from:
            self._next_scan = now + _FIRST
            if owners.issuperset(await self._unfinished()):
                self._complete_from = now
        return now < self._complete_from

    async def _look_at_logs(self, stopped: Mapping[tuple[str, int], Holder], now: float) -> None:
        """Find out which of these own no unfinished build; those that hold nothing need none."""
        self._gone |= {key for key, holder in stopped.items() if not (holder.taking or _flights(holder))}
        asked = stopped.keys() - self._gone
        if asked and now >= self._next_scan:
            self._next_scan, self._pause = now + self._pause, min(2 * self._pause, _LONGEST)
            owning = await self._unfinished()
            self._gone |= {key for key in asked if key[0] not in owning}

    def _doubt(self, one: str, holder: Holder, member: Member | None) -> float:
        """Return the seconds for which an instance that looks dead may still send."""
        if member is not None:
            # Its lease has run out, or it has ended; or it only seems to be disconnected.
            return RENEW_WITHIN if member.live else 0.0
        replaced = any(
            other.lease.name == holder.name and other.revision > holder.lease and other.lease.instance != one
            for other in self._fleet.members()
        )
        return RENEW_WITHIN if replaced else LEASE + RENEW_WITHIN

    async def _is_still_dead(self, one: str, holder: Holder, member: Member | None) -> bool:
        """Return whether its lease is as it was when it was found dead, now that the document was read.

        One that has come back since renews its lease before it writes itself into the document again.
        """
        found = await self._leases.last(encode_token(holder.name))
        lease = None if found is None else read_lease(found.data)
        if found is None or (lease is not None and lease.instance != one):
            return True
        return member is not None and member.revision == found.sequence


def _flights(holder: Holder) -> set[str]:
    """Return the kinds of which it may have requests in flight."""
    return {kind for kind in _kinds(holder) if not is_rate(kind) and holder.total(kind)}


def _free(holder: Holder, seconds: float, *, gone: bool) -> set[str]:
    """Return the kinds of which a holder that stopped so long ago uses nothing."""
    return {kind for kind in _kinds(holder) if (seconds >= _gap(kind) if is_rate(kind) else gone)}


def _gap(kind: str) -> float:
    """Return the seconds after which a unit of a rate is free."""
    period = rule_of(kind, 1).period
    return 0.0 if period is None else stretched(period)


def _kinds(holder: Holder) -> set[str]:
    return {*holder.limits, *holder.shares, *holder.over}
