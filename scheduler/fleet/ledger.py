"""Ledger of the limits over the fleet: who may use how much of each; one document, and its arithmetic.

A *kind* is a limit without its number (`LimitRule.kind`). Of each kind the lowest number that any holder has
in its settings is in force. A holder's *total* of a kind is its share and what it has in use beyond that;
the totals of all holders never exceed the limit but where somebody has just taken requests over, or lowered
the limit: then nobody claims anything before they fit again.
"""

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

import msgspec
from msgspec import field

from scheduler.definition.rules import LimitRule, parse_limits
from scheduler.runtime.values import Value

VERSION: Final = 1


class Holder(Value, frozen=True):
    """Shares of one process; all mappings by kind."""

    name: str = ""
    """Key of its lease."""
    lease: int = 0
    """Revision of its lease when it came; a later one of another process has replaced it."""
    term: int = 0
    """Number of times that it has begun to hold shares: raised after each time in which it lost them."""
    limits: dict[str, int] = field(default_factory=dict)
    """Limits of its settings."""
    shares: dict[str, int] = field(default_factory=dict)
    """Units that it may use. A kind without an entry is not counted by it yet."""
    over: dict[str, int] = field(default_factory=dict)
    """Units in use beyond the share: requests that it took over, or that ran when it gave units up."""
    wants: dict[str, int] = field(default_factory=dict)
    """Units that it could use, as far as others had to know."""
    turn: int = 0
    """Place in the order of those that wait for the only unit: the lowest is next."""
    taking: tuple[str, ...] = ()
    """Instances whose requests it is about to count; nothing of theirs may be freed meanwhile."""

    def total(self, kind: str) -> int:
        """Return the units that nobody else may use."""
        return self.shares.get(kind, 0) + self.over.get(kind, 0)


class ShareLedger(Value, frozen=True):
    """The document; what later versions add is refused."""

    version: int = VERSION
    holders: dict[str, Holder] = field(default_factory=dict)
    """By instance, as the records of logs name it."""

    def kinds(self) -> set[str]:
        """Return the kinds that anybody limits."""
        return {kind for holder in self.holders.values() for kind in holder.limits}

    def limit(self, kind: str) -> int:
        """Return the lowest limit of a kind."""
        return min(holder.limits[kind] for holder in self.holders.values() if kind in holder.limits)

    def total(self, kind: str, instances: Iterable[str]) -> int:
        """Return the units that these instances hold."""
        return sum(self.holders[one].total(kind) for one in instances)


_decode: Final = msgspec.json.Decoder(ShareLedger).decode
encode_ledger: Final = msgspec.json.Encoder().encode


def read_ledger(data: bytes) -> ShareLedger | None:
    """Return the ledger; None where this version cannot read it, and so must not write it either."""
    try:
        ledger = _decode(data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    return ledger if ledger.version == VERSION else None


def rule_of(kind: str, count: int) -> LimitRule:
    """Return a rule of this kind."""
    pattern, slash, unit = kind.partition("/")
    (rule,) = parse_limits(f"{pattern}={count}{slash}{unit}")
    return rule


def limits_of(rules: Iterable[LimitRule]) -> dict[str, int]:
    """Return the number of each kind, the lowest where there are several."""
    found: dict[str, int] = {}
    for rule in rules:
        found[rule.kind] = min(rule.count, found.get(rule.kind, rule.count))
    return found


class Demand(NamedTuple):
    """Needs of one of those that divide a limit."""

    wants: int
    has: int
    """Units that it holds."""
    turn: int


def divide(units: int, demands: Mapping[str, Demand]) -> dict[str, int]:
    """Divide units: nobody gets more than it wants, and those that want more get equal parts.

    What is left over of equal parts stays with those that have most; where there are fewer units than takers,
    those whose turn it is get one.
    """
    parts = dict.fromkeys(demands, 0)
    takers = {name: demand for name, demand in demands.items() if demand.wants > 0}
    while takers:
        level = units // len(takers)
        content = [name for name, demand in takers.items() if demand.wants <= level]
        if not content:
            break
        for name in content:
            parts[name] = takers.pop(name).wants
            units -= parts[name]
    if takers:
        level, rest = divmod(units, len(takers))
        first = sorted(
            takers,
            key=lambda name: (-takers[name].has if level else 0, takers[name].turn, name),
        )
        for number, name in enumerate(first):
            parts[name] = level + (number < rest)
    return parts


def scarce(units: int, demands: Mapping[str, Demand]) -> bool:
    """Return whether there are fewer units than takers, so that these take turns."""
    return 0 <= units < sum(demand.wants > 0 for demand in demands.values())
