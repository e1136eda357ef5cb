"""Leases of the instances of a fleet: what they say, and how long they hold.

Each instance keeps one lease, and renews it every `PERIOD` seconds by compare-and-set. Nobody compares
clocks: a lease has lapsed for an observer that saw it unchanged for `LEASE` seconds on its own clock. Only
time in which the leases could be read counts, as an observer that is cut off knows nothing of the others.
The holder stops `RENEW_WITHIN` seconds after it *began* its last renewal that went through. So it has stopped
before anybody takes its builds over, unless one of the two clocks runs a third faster than the other.

Safety does not rest on that: what is written to the log of a build is fenced by that log's own
compare-and-set. A lease only keeps two instances from working at the same build in the meantime.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Any, Final

import msgspec

from scheduler.runtime.values import Value

PERIOD: Final = 2.0
"""Seconds between two renewals, and between two looks at the leases of others."""
LEASE: Final = 15.0
"""Seconds without a change after which a lease has lapsed."""
RENEW_WITHIN: Final = 10.0
"""Seconds since its last renewal after which an instance sends nothing more."""
_LONGEST_STEP: Final = 2 * PERIOD
"""Seconds that count between two reads, at most: a process that stood still has observed nothing."""


class Standing(Enum):
    """Role of an instance at the moment."""

    ACTIVE = "active"
    """It takes builds."""
    DRAINING = "draining"
    """It takes no more builds, and hands over those that it has."""
    STANDBY = "standby"
    """It waits to be elected, where one works at a time; no lease says so."""
    GONE = "gone"
    """It has ended in order, and owns nothing any more."""


class Load(Value, frozen=True):
    """Work that an instance has."""

    builds: int = 0
    """Builds that run there."""
    components: int = 0
    """Components of these that have not settled."""
    in_flight: int = 0
    """Requests that await their reply."""
    full: bool = False
    """Whether it takes no more builds for now."""


class Lease(Value, frozen=True):
    """Lease of one instance, as it stands in the bucket; what later versions add is ignored."""

    instance: str
    """Name of the process, as in the records that it writes: unlike any other's."""
    name: str
    """Key of the lease: ``--instance``, or the name of the process where that is not set."""
    standing: Standing = Standing.ACTIVE
    version: str = ""
    began: float = 0.0
    """Time at which the process began, in seconds since 1970."""
    renewed: float = 0.0
    """Time of this renewal by its own clock, in seconds since 1970; for people, and to compare clocks."""
    count: int = 0
    """Number of renewals."""
    load: Load = Load()
    limits: tuple[str, ...] = ()
    """Rules of ``--limits``, normalised."""


_decode: Final = msgspec.json.Decoder(Lease).decode
encode_lease: Final = msgspec.json.Encoder().encode


def read_lease(data: bytes) -> Lease | None:
    """Return a lease; None where this version cannot read it."""
    try:
        return _decode(data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None


class Found(Value, frozen=True):
    """A lease as it was read."""

    lease: Lease
    revision: int
    """Sequence of its key in the bucket."""
    time: float = 0.0
    """Time of storage by the server's clock, in seconds since 1970."""


class Member(Value, frozen=True):
    """An instance of the fleet, as this process sees it."""

    lease: Lease
    revision: int
    age: float
    """Seconds for which its lease was seen unchanged; only time in which leases could be read."""

    @property
    def lapsed(self) -> bool:
        """Whether its lease has run out."""
        return self.age >= LEASE

    @property
    def live(self) -> bool:
        """Whether it owns builds: its lease has not run out, and it has not ended."""
        return not self.lapsed and self.lease.standing is not Standing.GONE

    @property
    def takes(self) -> bool:
        """Whether it says that it takes builds."""
        return self.lease.standing is Standing.ACTIVE and not self.lease.load.full


class Judge:
    """Judges leases by the time for which this process saw them unchanged; pure."""

    def __init__(self) -> None:
        self._members: dict[str, tuple[Found, float]] = {}
        """Leases by key, with the reading of `_watched` when each was first seen like this."""
        self._watched = 0.0
        """Seconds for which leases could be read."""
        self._last: float | None = None
        """Time of the last look, where it succeeded."""

    def look(self, now: float, found: Mapping[str, Found]) -> None:
        """Take in all leases, read completely; ``now`` is when the read began, on this process's clock.

        A read that began before the last one says nothing new. A live lease that is not there any more was
        not removed by its holder: it holds until it lapses.
        """
        if self._last is not None:
            if now < self._last:
                return
            self._watched += min(max(0.0, now - self._last), _LONGEST_STEP)
        self._last = now
        kept = self._members
        gone = {key: one for key, one in kept.items() if key not in found and self._member(*one).live}
        self._members = gone | {
            key: old if (old := kept.get(key)) and old[0].revision == one.revision else (one, self._watched)
            for key, one in found.items()
        }

    def miss(self) -> None:
        """Take note that the leases cannot be read: the time until the next look does not count."""
        self._last = None

    def members(self) -> list[Member]:
        """Return all instances that have a lease, by name."""
        return [self._member(*one) for _, one in sorted(self._members.items())]

    def _member(self, found: Found, since: float) -> Member:
        return Member(found.lease, found.revision, self._watched - since)


class Tenure:
    """Time for which this process may act, by its own renewals; pure."""

    def __init__(self) -> None:
        self.until = float("-inf")
        """Time until which requests may be sent, on this process's clock."""
        self.lapses = 0
        """Number of times that it could not renew in time."""

    def renew(self, began: float) -> None:
        """Take note of a renewal that went through and began at ``began``, on this process's clock."""
        self.until = max(self.until, began + RENEW_WITHIN)

    def end(self) -> None:
        """Send nothing more, from now on."""
        self.until = float("-inf")

    def holds(self, now: float) -> bool:
        """Return whether requests may be sent at ``now``."""
        return now < self.until


def document(member: Member, *, holds: bool = True) -> dict[str, Any]:
    """Return a member as JSON for operators.

    Args:
        member: the member.
        holds: False for this process itself, if it could not renew its lease in time.
    """
    lease = member.lease
    lapsed = member.lapsed or not (holds or lease.standing is Standing.GONE)
    return {
        "instance": lease.instance,
        "name": lease.name,
        "standing": "lapsed" if lapsed else lease.standing.value,
        "version": lease.version,
        "began": lease.began,
        "renewed": lease.renewed,
        "age": round(member.age, 3),
        "builds": lease.load.builds,
        "components": lease.load.components,
        "in_flight": lease.load.in_flight,
        "full": lease.load.full,
        "limits": list(lease.limits),
    }
