"""Parts of the limits that hold over all instances: how much of each this instance may use, and uses.

Only the limits of the settings are shared; those of a build stand where the build runs.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from scheduler.definition.rules import LimitRule
from scheduler.limiter.limiter import Limiter
from scheduler.limiter.limits import FlightLimit, RateLimit

_COUNTED: Final = 500
"""Builds whose waiting requests are counted in a slice."""


class Part(NamedTuple):
    """The part of a limit that is for this instance."""

    size: int
    """Requests that may be in flight here, or begin here within a period."""
    rule: LimitRule
    """The limit over all instances."""
    note: str = ""
    """What `why` says of it; empty where this instance has all."""


class Use(NamedTuple):
    """Need of an instance for a limit."""

    used: int = 0
    """Requests in flight, or begun within the last period."""
    waiting: int = 0
    """Requests that wait, and could begin if this limit and others over all instances let them."""


def adopt(limiter: Limiter, rules: Sequence[LimitRule]) -> None:
    """Replace the limits over all builds; what is in flight stays, and counts. `hand_out` is to follow."""
    if limiter.usages.rules != tuple(rules):
        limiter.usages.adopt(rules)
        limiter.dispenser.renew()


def allot(limiter: Limiter, parts: Mapping[str, Part], now: float) -> None:
    """Set the parts of this instance, by kind of the rule, and let begin what may.

    A part below what is in use takes nothing back: nothing new begins until it fits.
    """
    usages = limiter.usages
    for rule, limit in zip(usages.rules, usages.limits, strict=True):
        part = parts.get(rule.kind)
        if part is None:
            continue
        limit.count, limit.whole = part.size, part.rule.count
        limit.text, limit.note = str(part.rule), part.note
        limiter.dispenser.reopen(limit)
    limiter.hand_out(now)


def use_of(limiter: Limiter, now: float, waiting: Mapping[str, int]) -> dict[str, Use]:
    """Return what is used of each limit over all builds, and waits for it, by kind of the rule.

    Args:
        limiter: the limiter.
        now: time in seconds.
        waiting: what waits, as `wanting` has counted it lately.
    """
    usages = limiter.usages
    used = {rule.kind: limit.used(now) for rule, limit in zip(usages.rules, usages.limits, strict=True)}
    return {kind: Use(count, waiting.get(kind, 0)) for kind, count in used.items()}


def wanting(limiter: Limiter, now: float) -> Iterator[Mapping[str, int]]:
    """Count, as `counting`, the requests that could begin if limits over all instances let them.

    Yields:
        As `counting`; nothing where the instance is full anyway.
    """
    if limiter.waiters and limiter.usages.all.room(now):
        yield from counting(limiter)


def standing(limiter: Limiter, now: float) -> dict[str, tuple[int, int]]:
    """Return size and use of each limit over all builds, by kind of the rule; of this instance's parts."""
    usages = limiter.usages
    return {
        rule.kind: (limit.count, limit.used(now))
        for rule, limit in zip(usages.rules, usages.limits, strict=True)
    }


def counting(limiter: Limiter) -> Iterator[Mapping[str, int]]:
    """Count, by kind of the rule, the requests that wait and fall under a limit over all builds.

    Those that a limit of their own build keeps are left out.

    Yields:
        The numbers so far, after each slice of a millisecond or two; the last ones are complete.
    """
    usages = limiter.usages
    kinds: dict[FlightLimit | RateLimit, str] = {
        limit: rule.kind for rule, limit in zip(usages.rules, usages.limits, strict=True)
    }
    found: dict[str, int] = {}
    for number, usage in enumerate(usages.all_waiting() if kinds else ()):
        if number and number % _COUNTED == 0:
            yield found
        for build_queue in usage.waiting:
            shared = build_queue.sender_queue.fair_queue.gate.limits
            for priority_queue in build_queue.priority_queues:
                # What a limit of its build keeps needs nothing of the others.
                own = min(limit.count - limit.taken for limit in priority_queue.gate.flights)
                count = max(0, min(priority_queue.length, own))
                for limit in shared if count else ():
                    if limit in kinds:
                        found[kinds[limit]] = found.get(kinds[limit], 0) + count
    yield found


def note_of(limiter: Limiter, label: str) -> str:
    """Return a limit as `blocking` names it, with what is to be said of this instance's part of it."""
    limit = next((limit for limit in limiter.usages.limits if limit.label == label), None)
    return label if limit is None or not limit.note else f"{label} ({limit.note})"
