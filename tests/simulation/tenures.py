"""Judges who may act when, by the leases as they were stored, and as each process has seen them.

A process may send while its last stored renewal is fresh, counted from when that renewal left, on its own
clock. A build may be taken over from a process whose lease was seen unchanged for long enough: only time
between two looks counts. Where the broker is a single server, it may also be taken from a process without a
connection; and at any time from one that has ended in order, or whose name another process has now.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from enum import Enum

from attrs import define, field

from scheduler.fleet.lease import LEASE, PERIOD, RENEW_WITHIN, Standing
from simulation.instances import Instances

_FASTEST = 1.05
"""Seconds that pass on a clock in a second, at most."""
_LOOK = 5.0
"""Seconds that a look at the leases may take."""
_LAPSE = LEASE / _FASTEST - _LOOK
"""Seconds for which a lease was seen unchanged that has lapsed, at least."""
_STEP = 2 * PERIOD
"""Seconds between two looks that count, at most."""
_JUST_NOW = 8.0
"""Seconds after an interruption within which a process may be taken for absent."""
_DECIDED = 0.5
"""Seconds after which a process knows of a renewal that it has read, at most: first it reads all leases, and
asks those that may be absent. What it takes over until then is decided by the look before."""
_EXACT = 0.001


class Ground(Enum):
    """Reason for which a build may be taken from a process."""

    LAPSED = "its lease has lapsed"
    GONE = "it has ended in order"
    REPLACED = "another process has its name"
    ABSENT = "it has no connection"
    UNKNOWN = "it has no lease"
    GIVEN = "it has given the build away"


FINAL = {Ground.LAPSED, Ground.GONE, Ground.GIVEN}
"""Grounds after which the process before sends nothing more."""


@define
class _Sight:
    """What a process has seen of a lease."""

    sequence: int
    at: float
    unchanged: float = 0.0
    """Seconds."""

    def note(self, now: float) -> None:
        """It is still like this."""
        self.unchanged += min(now - self.at, _STEP * _FASTEST)
        self.at = now


@define
class _Stored:
    """A lease as it stands in the bucket."""

    who: str
    standing: str


@define(eq=False)
class Tenures:
    """Leases of all processes."""

    instances: Instances
    servers: int
    wrong: Callable[[str], None]
    interruptions: Mapping[str, Sequence[tuple[float, str]]]
    """What happened to the connection of each process, and when."""
    _left: dict[tuple[str, float], float] = field(factory=dict)
    """By process and the time in it: when a renewal left."""
    _stored: dict[str, _Stored] = field(factory=dict)
    _keys: dict[str, str] = field(factory=dict)
    """Key of the lease of each process."""
    _until: dict[str, float] = field(factory=dict)
    """Time until which each process may send."""
    _gone: set[str] = field(factory=set)
    _lapsed: dict[tuple[str, str], float] = field(factory=dict)
    """By process and key: when the lease was seen renewed after all that had lapsed."""
    _sights: dict[tuple[str, str], _Sight] = field(factory=dict)
    _removed: set[str] = field(factory=set)
    """Keys that have gone with their bucket, and were not written again."""

    def left(self, who: str, renewed: float, now: float) -> None:
        """A process writes its lease."""
        self._left[who, renewed] = now

    def kept(self, key: str, instance: str, standing: str, renewed: float) -> None:
        """A lease is stored."""
        who = instance.rpartition("-")[0]
        before = self._stored.get(key)
        removed = key in self._removed
        self._removed.discard(key)
        if before is not None and before.who != who and who in self._keys and not removed:
            self.wrong(f"lease: {who} writes the lease of {key} again, and {before.who} has it")
        self._stored[key] = _Stored(who, standing)
        self._keys[who] = key
        left = self._left[who, renewed]
        self._until[who] = max(self._until.get(who, 0.0), left + RENEW_WITHIN / self._rate(who))
        if standing == Standing.GONE.value:
            self._gone.add(who)

    def seen(self, who: str, lease: tuple[str, int], now: float) -> None:
        """A process has read a lease: its key, and its sequence there."""
        key, sequence = lease
        for other in self._removed:
            if (gone := self._sights.get((who, other))) is not None:
                # A lease that is not there is as one that is not renewed.
                gone.note(now)
        sight = self._sights.get((who, key))
        if sight is None or sight.sequence != sequence:
            if sight is not None and sight.unchanged >= _LAPSE:
                self._lapsed[who, key] = now
            self._sights[who, key] = _Sight(sequence, now)
        else:
            sight.note(now)

    def removed(self) -> None:
        """Note that the bucket was removed, with all leases."""
        self._removed.update(self._stored)

    def sends(self, who: str, what: str, now: float) -> None:
        """A process sends a request, for which its lease has to be fresh."""
        until = self._until.get(who)
        if until is None:
            self.wrong(f"lease: {what} is sent by {who}, which never had a lease")
        elif now > until + _EXACT:
            self.wrong(f"lease: {what} is sent by {who}, whose lease was fresh until {until:.3f}")

    def ground(self, who: str, before: str, now: float) -> Ground | None:
        """Return why ``who`` may take a build from another process; None where it may not."""
        key = self._keys.get(before)
        if key is None:
            return Ground.UNKNOWN
        stored = self._stored[key]
        if stored.who != before:
            return Ground.REPLACED
        if before in self._gone:
            return Ground.GONE
        time, kind = self.interruptions[before][-1]
        there = kind in {"connected", "heard"} and time < now - _JUST_NOW
        if self.servers == 1 and not there:
            return Ground.ABSENT
        sight = self._sights.get((who, key))
        if sight is None and key in self._removed:
            # It was removed with the bucket, before this process has seen it.
            return Ground.UNKNOWN
        lapsed = sight is not None and sight.unchanged >= _LAPSE
        late = now < self._lapsed.get((who, key), -math.inf) + _DECIDED
        return Ground.LAPSED if lapsed or late else None

    def is_holder(self, who: str) -> bool:
        """Tell whether a process has a lease."""
        return who in self._keys and not self.is_replaced(who)

    def is_replaced(self, who: str) -> bool:
        """Tell whether another process has the name of this one."""
        key = self._keys.get(who)
        return key is not None and self._stored[key].who != who

    def _rate(self, who: str) -> float:
        rates = self.instances.rates
        return rates[(int(who[1:]) - 1) % len(rates)]
