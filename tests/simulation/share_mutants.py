"""Deliberate faults of the limits over the fleet, as in `simulation.mutants`."""

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, cast

import trio

from scheduler.fleet.bucket import LedgerBucket
from scheduler.fleet.ledger import Holder, ShareLedger
from scheduler.fleet.reclaiming import Reclaimer
from scheduler.fleet.shares import Situation, Stake
from scheduler.fleet.sharing import Sharing
from simulation.fleet_mutants import Patch


def _limits_of_each_instance() -> list[Patch]:
    """Each instance uses all of a limit, whatever share of it is its own."""
    return [(Stake, "capacity", lambda stake, kind: stake.limit(kind))]


def _a_share_kept_after_its_lease() -> list[Patch]:
    """An instance whose lease ran out, and whose share was freed, writes itself in again with that share."""
    plan = Stake.plan
    kept: dict[Stake, Holder] = {}

    def stubborn(stake: Stake, seen: Situation) -> ShareLedger | None:
        if stake.holder is not None:
            kept[stake] = stake.holder
        elif stake in kept:
            holders = {**stake.ledger.holders, stake.instance: kept[stake]}
            return ShareLedger(holders=holders)
        return plan(stake, seen)

    return [(Stake, "plan", stubborn), (Stake, "suspend", lambda _: None)]


def _shares_freed_before_builds_are_taken_over() -> list[Patch]:
    """Shares of one that is dead are freed, while its requests are in flight and nobody counts them."""

    async def hasty(reclaimer: Reclaimer, stopped: Any, now: float) -> None:
        del now
        await trio.lowlevel.checkpoint()
        reclaimer._gone |= stopped.keys()

    return [(Reclaimer, "_look_at_logs", hasty)]


def _taking_over_without_a_word() -> list[Patch]:
    """That requests are taken over, and are to be counted, is not announced."""

    @asynccontextmanager
    async def silent(_: Sharing, __: Iterable[str]) -> AsyncIterator[None]:
        await trio.lowlevel.checkpoint()
        yield

    return [(Sharing, "taking_over", silent)]


def _shares_without_compare_and_set() -> list[Patch]:
    """The document of the shares is written, whatever stands there."""
    write = LedgerBucket.write

    async def careless(bucket: LedgerBucket, ledger: ShareLedger, *, expected: int) -> int:
        del expected
        return await write(bucket, ledger, expected=cast("int", None))

    return [(LedgerBucket, "write", careless)]


def _shares_used_before_they_are_stored() -> list[Patch]:
    """What is claimed is used at once, before the answer."""

    def hasty(stake: Stake, kind: str) -> int:
        known = [one for one in (stake.ledger, stake.draft) if one is not None]
        holders = [one.holders[stake.instance] for one in known if stake.instance in one.holders]
        return max((holder.shares.get(kind, 0) for holder in holders), default=0)

    return [(Stake, "capacity", hasty)]


def _units_free_while_in_use() -> list[Patch]:
    """Units that are given up are free at once, although requests use them."""
    return [(Holder, "total", lambda holder, kind: holder.shares.get(kind, 0))]


SHARE_MAKERS: tuple[Callable[[], list[Patch]], ...] = (
    _limits_of_each_instance,
    _a_share_kept_after_its_lease,
    _shares_freed_before_builds_are_taken_over,
    _taking_over_without_a_word,
    _shares_without_compare_and_set,
    _shares_used_before_they_are_stored,
    _units_free_while_in_use,
)
