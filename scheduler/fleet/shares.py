"""Shares of one instance in the limits over the fleet: what it may use, and what it writes next; pure.

Each instance lets requests begin within its own shares alone, so nothing is asked for a request. Shares
change hands through one document (`ledger`), which is written by compare-and-set. Why no limit is passed,
whatever is lost, comes twice, or dies:

1. An instance uses no unit before it has read, or has had acknowledged, that it holds it, and stops using
   one before it writes that it does not (`Stake.capacity` counts a write from when it is sent). A write whose
   answer is lost may be carried out later: until the document has moved on, the lower of both shares holds,
   and only the same write is sent again.
2. It claims only what brings the sum of all totals up to the limit. A unit in use stays reserved after its
   share was given up (`Holder.over`): a request until its end, a start of a rate for a period. So a unit of a
   rate may be used at once by its next holder, without comparing clocks: its last start is a period ago.
3. An instance whose lease ran out uses nothing (`Stake.suspend`) until it has written itself in again, with
   no share, and what it has in flight reserved: only then it claims anew.
4. Shares of one that died stay reserved. Whoever takes over its builds first writes that it does (`taking`),
   then appends to their logs, counts their requests, and reserves these beyond its own share in the same
   write that ends the taking. Requests that were taken over give nobody more room when they end: what they
   used is claimed from what is free then. Shares are freed when no unfinished build is owned by the dead
   instance and nobody is taking from it, at the same revision of the document: each of its builds then was
   counted before. It does not matter if the taker dies in between: its own entry, with what it was taking,
   stays until its builds are taken over in the same way.
5. A live instance from which a build was taken (it was paused, or handed it over) does not know what of it
   is still in flight: it does as in 3, and waits until nobody is taking from it any more.
6. Nobody claims a kind that a live instance does not count yet (see `Sharing` for how long).

Nobody starves: units that are wanted are divided equally; where there are fewer than instances that want one,
these take turns. A turn ends when one has a unit of every limit that it waits for, or after `PATIENCE`
seconds: else two that each hold what the other needs would swap them for ever.

One file on purpose: what is claimed, and what is given up for it, is decided on one page.
"""

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from msgspec.structs import replace

from scheduler.fleet.ledger import Demand, Holder, ShareLedger, divide, scarce
from scheduler.limiter import Use

PATIENCE: Final = 10.0
"""Seconds for which a turn lasts at most, where not all that is needed comes together."""


class Situation(NamedTuple):
    """Knowledge of an instance when it decides."""

    now: float
    """Time in seconds."""
    use: Mapping[str, Use]
    """What it has in use of each kind that it counts, and what waits."""
    live: Collection[str]
    """Instances that own builds; any others only keep what they have."""
    awaited: Collection[str] = ()
    """Instances that must count a kind before it is claimed."""
    freed: Mapping[str, Collection[str]] = MappingProxyType({})
    """Kinds that an instance surely does not use any more, by instance."""
    gone: Collection[str] = ()
    """Instances that are dead, and own no unfinished build."""


class Stake:
    """The shares of one instance.

    Args:
        instance: name of the process, as in the records that it writes.
        limits: limits of its settings, by kind.
    """

    def __init__(self, instance: str, limits: Mapping[str, int]) -> None:
        self.instance = instance
        self.limits = dict(limits)
        self.ledger = ShareLedger()
        """The document as it was read last."""
        self.revision = 0
        """Revision of the document."""
        self.draft: ShareLedger | None = None
        """Document that was sent, and may be stored any time."""
        self.taking: dict[str, int] = {}
        """Instances whose builds are being taken over, with the number of those that do so."""
        self._name = ""
        self._lease = 0
        self._suspensions = 1
        """Number of times that what it holds became unknown; ..."""
        self._confirmed = 0
        """... that number when it last wrote itself in; equal where it knows what it holds."""
        self._confirming = 0
        """That number when the draft was made, where it writes itself in; else 0."""
        self._incomplete_since: float | None = None

    def identify(self, name: str, lease: int) -> None:
        """Take note of the key and the revision of its lease."""
        self._name, self._lease = name, lease

    # ---- what it may use

    @property
    def suspended(self) -> bool:
        """Whether it may use nothing."""
        return self._confirmed != self._suspensions

    @property
    def holder(self) -> Holder | None:
        """Its entry in the document."""
        return self.ledger.holders.get(self.instance)

    @property
    def alone(self) -> bool:
        """Whether no other instance holds anything."""
        return self.ledger.holders.keys() <= {self.instance}

    def kinds(self) -> set[str]:
        """Return the kinds that count here: of its own settings, and of anybody's."""
        return self.limits.keys() | self.ledger.kinds()

    def limit(self, kind: str) -> int:
        """Return the lowest number of a kind, its own one included."""
        limits = [holder.limits[kind] for holder in self.ledger.holders.values() if kind in holder.limits]
        return min([*limits, self.limits[kind]] if kind in self.limits else limits)

    def capacity(self, kind: str) -> int:
        """Return how many units it may use."""
        holder = self.holder
        if holder is None or self.suspended:
            return 0
        shares = [holder.shares.get(kind, 0)]
        if self.draft is not None:
            sent = self.draft.holders.get(self.instance)
            shares.append(0 if sent is None else sent.shares.get(kind, 0))
        return min(shares)

    def covers(self, owner: str) -> bool:
        """Return whether the document says that it is taking over from an instance, or that holds nothing."""
        holder = self.holder
        return owner not in self.ledger.holders or (holder is not None and owner in holder.taking)

    # ---- what becomes of the document

    def suspend(self) -> None:
        """Use nothing until it has written itself in again: its lease ran out, or a build was taken away."""
        self._suspensions += 1

    def read(self, ledger: ShareLedger, revision: int) -> bool:
        """Take in the document, read from the bucket; False where it is older than what is known."""
        if revision < self.revision:
            return False
        if self.draft is not None and revision > self.revision:
            mine, sent = ledger.holders.get(self.instance), self.draft.holders.get(self.instance)
            if mine is not None and sent is not None and mine.term == sent.term:
                self._confirmed = max(self._confirmed, self._confirming)
            self.draft = None
        self.ledger, self.revision = ledger, revision
        return True

    def reset(self, ledger: ShareLedger, revision: int) -> None:
        """Take in a document that is not the continuation of the one before: the bucket was made again."""
        self.suspend()
        self.ledger, self.revision, self.draft = ledger, revision, None

    def send(self, draft: ShareLedger) -> None:
        """Take note that a document is being written over the revision that is known."""
        if self.draft is None:
            mine, before = draft.holders.get(self.instance), self.holder
            begins = mine is not None and mine.term > (0 if before is None else before.term)
            self._confirming = self._suspensions if begins else 0
        self.draft = draft

    def stored(self, revision: int) -> None:
        """Take note that the draft was stored."""
        assert self.draft is not None, "it was sent"
        self.ledger, self.revision, self.draft = self.draft, revision, None
        self._confirmed = max(self._confirmed, self._confirming)

    # ---- what to write next

    def plan(self, seen: Situation) -> ShareLedger | None:
        """Return the document to be written next, over `revision`; None where there is nothing to change."""
        if self.draft is not None:
            return self.draft
        holders = _without(self.ledger.holders, seen)
        mine = holders.get(self.instance)
        taking = tuple(sorted(owner for owner in self.taking if owner in holders))
        confirming = mine is None or self.suspended
        if confirming:
            if any(self.instance in holder.taking for holder in holders.values()):
                return self._still_suspended(holders, mine or Holder(), seen, taking)
            mine = Holder(term=1 if mine is None else mine.term + 1, turn=0 if mine is None else mine.turn)
        assert mine is not None, "it is made where it is missing"
        me = replace(mine, name=self._name, lease=self._lease, limits=self.limits, taking=taking)
        holders[self.instance] = me
        draft = ShareLedger(holders=holders)
        decision = _Round(self, draft, seen)
        turn, shares, wants = decision.turn, decision.shares, decision.wants
        over = {kind: seen.use[kind].used - share for kind, share in shares.items()}
        over = {kind: count for kind, count in over.items() if count > 0}
        changed = (
            confirming
            or holders.keys() != self.ledger.holders.keys() | {self.instance}
            or any(holders[one] != self.ledger.holders[one] for one in seen.freed if one in holders)
            or me != mine
            or turn != me.turn
            or shares != me.shares
            or any(count > me.over.get(kind, 0) for kind, count in over.items())
            or any(over.get(kind, 0) < me.over.get(kind, 0) for kind in decision.pressing)
            or (decision.shared and _must_be_told(me.wants, wants, shares))
        )
        if not changed:
            return None
        holders[self.instance] = replace(me, turn=turn, shares=shares, over=over, wants=wants)
        return draft

    def _still_suspended(
        self, holders: dict[str, Holder], mine: Holder, seen: Situation, taking: tuple[str, ...]
    ) -> ShareLedger | None:
        """Return the document in which only what this instance is taking changes.

        Else two that take from each other would wait for each other.
        """
        if taking == mine.taking:
            return None
        over = {
            kind: beyond
            for kind, use in seen.use.items()
            if (beyond := max(mine.over.get(kind, 0), use.used - mine.shares.get(kind, 0))) > 0
        }
        holders[self.instance] = replace(
            mine,
            name=self._name,
            lease=self._lease,
            limits=self.limits,
            over={**mine.over, **over},
            taking=taking,
        )
        return ShareLedger(holders=holders)

    def end(self, use: Mapping[str, Use]) -> ShareLedger | None:
        """Return the document with which this instance leaves, without an unfinished build.

        What it began lately under rates stays reserved. None where it cannot be written: then all that it
        holds stays, until the others find that it has gone.
        """
        if self.draft is not None or self.holder is None or self.suspended or self.taking:
            return None
        holders = dict(self.ledger.holders)
        begun = {kind: one.used for kind, one in use.items() if is_rate(kind) and one.used}
        if begun:
            term = self.holder.term + 1
            holders[self.instance] = Holder(name=self._name, lease=self._lease, term=term, over=begun)
        else:
            del holders[self.instance]
        return ShareLedger(holders=holders)

    def is_patient(self, now: float) -> bool:
        """Return whether its turn lasts, though it does not hold all that it needs yet."""
        if self._incomplete_since is None:
            self._incomplete_since = now
        return now - self._incomplete_since < PATIENCE

    def rest(self) -> None:
        """Take note that nobody waits for what it holds, or that it holds all that it needs."""
        self._incomplete_since = None


class _Round:
    """One decision about what an instance claims and gives up.

    Args:
        stake: its shares until now.
        ledger: the document with its entry.
        seen: what it knows.
    """

    def __init__(self, stake: Stake, ledger: ShareLedger, seen: Situation) -> None:
        self._stake = stake
        self._ledger = ledger
        self._seen = seen
        self._awaited = [one for one in seen.awaited if one != stake.instance]
        self._me = ledger.holders[stake.instance]
        self._others = [one for one in ledger.holders if one != stake.instance]
        self._live = [one for one in self._others if one in seen.live]
        self._kinds = sorted(kind for kind in ledger.kinds() if kind in seen.use)
        self.wants = {kind: min(ledger.limit(kind), sum(seen.use[kind])) for kind in self._kinds}
        """What the instance could use."""
        self.shared = bool(self._live)
        """Whether others share."""
        self.pressing: set[str] = set()
        """Kinds of which there is less than the others need."""
        self.turn = self._find_turn()
        """Place that it is to have among those that wait."""
        self.shares = {kind: self._share(kind) for kind in self._kinds}
        """Shares that it is to have."""

    def _used(self, kind: str) -> int:
        return self._seen.use[kind].used

    def _demands(self, kind: str, turn: int) -> tuple[int, dict[str, Demand]]:
        """Return the units that the living divide, and what each of them wants."""
        ledger, holders = self._ledger, self._ledger.holders
        dead = ledger.total(kind, (one for one in self._others if one not in self._live))
        demands = {
            one: Demand(holders[one].wants.get(kind, 0), holders[one].total(kind), holders[one].turn)
            for one in self._live
        }
        mine = max(self._me.shares.get(kind, 0), self._used(kind))
        demands[self._stake.instance] = Demand(self.wants[kind], mine, turn)
        return max(0, ledger.limit(kind) - dead), demands

    def _find_turn(self) -> int:
        """Return its place among those that wait; the last one where it had its turn, and others have not."""
        me, stake = self._me, self._stake
        if not any(me.shares.get(kind, 0) and self._is_starving(kind) for kind in self._kinds):
            stake.rest()
            return me.turn
        complete = all(me.shares.get(kind, 0) for kind, wanted in self.wants.items() if wanted)
        if not complete and stake.is_patient(self._seen.now):
            return me.turn
        stake.rest()
        return 1 + max(holder.turn for holder in self._ledger.holders.values())

    def _is_starving(self, kind: str) -> bool:
        """Return whether another waits for the only units, and is behind this one."""
        units, demands = self._demands(kind, self._me.turn)
        mine = (self._me.turn, self._stake.instance)
        return scarce(units, demands) and any(
            demands[one].wants and not demands[one].has and mine < (demands[one].turn, one)
            for one in self._live
        )

    def _share(self, kind: str) -> int:
        share, used = self._me.shares.get(kind, 0), self._used(kind)
        units, demands = self._demands(kind, self.turn)
        parts = divide(units, demands)
        part = parts[self._stake.instance] if self._live else units
        room = self._ledger.limit(kind) - self._ledger.total(kind, self._others)
        if share < part and self._is_counted(kind):
            share = max(share, min(part, room))
        missing = sum(max(0, parts[one] - demands[one].has) for one in self._live)
        if missing > room - self._me.total(kind):
            self.pressing.add(kind)
        needed = missing - (room - max(share, used))
        return share - max(0, min(share - part, needed))

    def _is_counted(self, kind: str) -> bool:
        holders = self._ledger.holders
        return all(one in holders and kind in holders[one].shares for one in self._awaited)


def is_rate(kind: str) -> bool:
    """Return whether a kind limits starts within a period."""
    return "/" in kind


def _must_be_told(before: Mapping[str, int], wants: Mapping[str, int], shares: Mapping[str, int]) -> bool:
    """Return whether others have to know: it is short of units and has not said so, or no longer is."""
    return any(
        share < wants[kind] > before.get(kind, 0) or before.get(kind, 0) > share >= wants[kind]
        for kind, share in shares.items()
    )


def _without(holders: Mapping[str, Holder], seen: Situation) -> dict[str, Holder]:
    """Return the holders without what was freed; those that hold nothing any more are left out."""
    counted = _counted(holders, seen.gone)
    kept = dict(holders)
    for one, kinds in seen.freed.items():
        holder = kept.get(one)
        if holder is None:
            continue
        free = {kind for kind in kinds if is_rate(kind) or one in counted}
        left = replace(
            holder,
            limits={kind: count for kind, count in holder.limits.items() if kind not in free},
            shares={kind: count for kind, count in holder.shares.items() if kind not in free},
            over={kind: count for kind, count in holder.over.items() if kind not in free},
            # What it was about to count was counted by those that took its builds over.
            taking=() if one in counted else holder.taking,
        )
        if left.shares or left.over or left.taking:
            kept[one] = left
        else:
            del kept[one]
    return kept


def _counted(holders: Mapping[str, Holder], gone: Collection[str]) -> set[str]:
    """Return those of the dead without a build whose requests all are counted by others.

    None of them is being taken over from, but perhaps by others of them: these count nothing any more.
    """
    counted = {one for one in gone if one in holders}
    while True:
        taken = {
            owner for taker, holder in holders.items() if taker not in counted for owner in holder.taking
        }
        if not taken & counted:
            return counted
        counted -= taken
