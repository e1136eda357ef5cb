"""Parts of this instance in the limits over the fleet, as its own limiter has them."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from scheduler.definition.rules import LimitRule
from scheduler.fleet.ledger import rule_of
from scheduler.fleet.shares import Stake
from scheduler.limiter import Part, Use
from scheduler.runtime.logger import Logger

log = Logger()


class Quotas(Protocol):
    """The limits of this process, such as `dispatch.slots.Slots`."""

    def use(self, waiting: Mapping[str, int]) -> Mapping[str, Use]:
        """Return what is used of each limit, and waits for it (as `wanting` says), by kind."""

    async def wanting(self) -> Mapping[str, int]:
        """Count what waits for each limit, by kind; others have turns meanwhile."""

    def adopt(self, rules: Sequence[LimitRule]) -> None:
        """Replace the limits."""

    def allot(self, parts: Mapping[str, Part]) -> None:
        """Set this instance's parts of the limits, by kind."""


class Parts:
    """Keeps the limits of this process as its shares are.

    Args:
        stake: shares of this instance.
        quotas: limits of this process.
        rules: limits of its settings.
    """

    def __init__(self, stake: Stake, quotas: Quotas, rules: Sequence[LimitRule]) -> None:
        self._stake = stake
        self._quotas = quotas
        self._rules = rules
        self._foreign: frozenset[str] = frozenset()
        """Kinds that only others limit."""
        self._set: dict[str, Part] = {}
        """Parts as they were set last."""

    def adopt(self) -> None:
        """Count what only others limit, too."""
        foreign = frozenset(self._stake.kinds() - self._stake.limits.keys())
        if foreign != self._foreign:
            self._foreign = foreign
            self._set = {}
            rules = [rule_of(kind, self._stake.limit(kind)) for kind in sorted(foreign)]
            self._quotas.adopt([*self._rules, *rules])
            log.info("limits of other instances hold here, too", limits=[str(rule) for rule in rules])

    def apply(self, *, left: bool) -> None:
        """Set the parts where they have changed; ``left``: nothing may begin any more."""
        parts = {kind: self._part(kind, left) for kind in self._stake.kinds()}
        if parts != self._set:
            self._set = parts
            self._quotas.allot(parts)

    def _part(self, kind: str, left: bool) -> Part:
        stake, whole = self._stake, self._stake.limit(kind)
        size = 0 if left else stake.capacity(kind)
        if size == whole:
            note = ""
        elif stake.suspended:
            note = "this instance does not know its part of them now"
        else:
            others = stake.ledger.total(kind, stake.ledger.holders.keys() - {stake.instance})
            note = f"{size} of them for this instance, the others have {others}"
        return Part(size, rule_of(kind, whole), note)
