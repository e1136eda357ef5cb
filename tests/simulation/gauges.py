"""Compares the requests in flight and started, as the world sees them, with the limits.

A request counts from when it leaves until it is answered, or may have been given up: never longer than the
service counts it, so that what is wrong here is wrong.
"""

import math
from collections import deque
from collections.abc import Callable

from attrs import define

from scheduler.config import Settings
from scheduler.definition.rules import LimitRule, read_limits
from simulation.knowledge import Attempt, Build
from simulation.operating import JSON
from simulation.rulebook import Rulebook
from simulation.scenario import Scenario

_QUIET = {"connector dies", "cut connector", "cut client", "consumers", "clock"}
"""Faults that keep no request from leaving soon after it has its slot."""
_UNDER_WAY = 3.0
"""Seconds that may lie between the slot of a request and its departure, where all is well."""
_UNWRITTEN = 0.1
"""Seconds that may lie between the end of a request for its process and the record which shows that end."""
_RECORDS = 2
"""Records after new limits in which components may be started that had their slots before."""


@define(eq=False)
class _Flight:
    build: str
    component: str
    subject: str
    size: int
    who: str
    until: float
    """When it may have been given up."""
    ended: float = math.inf
    """When its process had no more of it."""


@define(eq=False)
class _Weight:
    """Requests in flight from a process at a time, to be weighed once it is known which had ended by then."""

    at: float
    name: str
    size: int
    flying: list[_Flight]


@define(eq=False)
class _Own:
    """The limits of a build."""

    rules: tuple[LimitRule, ...]
    since: int = 0
    """The record that set them."""


class Gauges:
    """Counts over all processes, those that have ended included; bytes for each of them.

    Args:
        scenario: has the bound on bytes.
        rulebook: has the limits.
        wrong: is told of what is wrong.
        clock: returns the time of the world.
    """

    def __init__(
        self,
        scenario: Scenario,
        rulebook: Rulebook,
        wrong: Callable[[str], None],
        clock: Callable[[], float],
    ) -> None:
        self._rulebook = rulebook
        self._wrong = wrong
        self._clock = clock
        self._weights: deque[_Weight] = deque()
        self._most = scenario.operating.max_bytes or Settings().max_bytes_in_flight
        self._flights: dict[str, _Flight] = {}
        """By attempt."""
        self._own = {build["id"]: _Own(rulebook.own_limits(build)) for build in scenario.builds}
        self._quiet = all(fault.kind in _QUIET for fault in scenario.faults)
        self._starts: dict[tuple[str, LimitRule], list[float]] = {}
        """Times of requests by build (for its own limits; new in each run) and rate."""

    def sent(
        self,
        build: Build,
        who: str,
        attempt: Attempt,
        change: JSON,
        subject: str,
        *,
        size: int,
        counts: bool,
        now: float,
    ) -> None:
        """An attempt leaves for the first time; it must have had slots, and room, where it ``counts``."""
        name = build.document["id"]
        until = now + self._rulebook.shortest(build.document, change)
        self._flights[attempt.id] = _Flight(name, change["_component_id"], subject, size, who, until)
        if not counts:
            return
        flying = [one for one in self._flights.values() if one.who == who and one.until > now]
        self._weights.append(_Weight(now, name, size, flying))
        while self._weights[0].at + _UNWRITTEN < now:
            self._weigh(self._weights.popleft())
        for rule in self._rulebook.limits:
            self._check(rule, "", who, subject, now)
        own = self._own[name]
        if own.since and attempt.started_at < own.since + _RECORDS:
            return
        for rule in own.rules:
            self._check(rule, name, who, subject, now)

    def end(self) -> None:
        """Weigh what is left, at the end of the run."""
        while self._weights:
            self._weigh(self._weights.popleft())

    def _weigh(self, weight: _Weight) -> None:
        """No more bytes than may be, but for one large request; and a share of them for each build."""
        flying = [one for one in weight.flying if one.ended > weight.at + _UNWRITTEN]
        large = [one for one in flying if one.size > self._most // 4]
        total = sum(one.size for one in flying) - sum(one.size for one in large)
        own = sum(one.size for one in flying if one.build == weight.name and one not in large)
        what = f"G8 {weight.name}: at {weight.at:.4f} there are {total} bytes in flight"
        if total > self._most or len(large) > 1:
            self._wrong(f"{what}, and {len(large)} large requests")
        if weight.size <= self._most // 4 and own > self._most - total:
            self._wrong(f"{what}, {own} of them its own, and {self._most - total} are left")

    def _check(self, rule: LimitRule, name: str, who: str, subject: str, now: float) -> None:
        if not rule.matches(subject):
            return
        if rule.period is None:
            flying = sum(
                rule.matches(one.subject) and one.until > now and name in {"", one.build}
                for one in self._flights.values()
            )
            if flying > rule.count:
                self._wrong(f"limits {name}: {who} has {flying} in flight, and {rule} is a limit")
            return
        starts = self._starts.setdefault((name, rule), [])
        starts.append(now)
        window = rule.period - _UNDER_WAY
        if self._quiet and sum(start > now - window for start in starts) > rule.count:
            self._wrong(f"limits {name}: {who} begins more than {rule}")

    def limited(self, name: str, n: int, limits: JSON) -> None:
        """A build has other limits of its own from a record on."""
        self._own[name] = _Own(read_limits(limits), n)

    def reopened(self, name: str) -> None:
        """A new run of a build begins: it does not know what was begun in the one before."""
        for key in [key for key in self._starts if key[0] == name]:
            del self._starts[key]

    def given(self, name: str) -> None:
        """A process leaves a build to another one: it has no room for its requests any more."""
        for one in self._flights.values():
            if one.build == name:
                one.who, one.ended = "", min(one.ended, self._clock())

    def answered(self, attempt: str) -> None:
        """It has its answer, or nobody received it."""
        if (one := self._flights.pop(attempt, None)) is not None:
            one.ended = min(one.ended, self._clock())

    def ended(self, name: str, component: str) -> None:
        """Note that the attempt of a component has ended by the log."""
        self._drop(lambda one: one.build == name and one.component == component)

    def dropped(self, name: str) -> None:
        """An operator wants what is in flight of a build to be given up."""
        self._drop(lambda one: one.build == name)

    def _drop(self, which: Callable[[_Flight], bool]) -> None:
        for attempt in [attempt for attempt, one in self._flights.items() if which(one)]:
            self.answered(attempt)
