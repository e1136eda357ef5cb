"""Re-balancing of a fleet: which build a loaded instance gives to an idle one, between steps; or none.

Builds are placed when they come in (`scheduler.fleet.placing`). Later the load may become uneven: an instance
joins, or the builds of the others end first. Then an instance gives builds away, one at a time.

*What is decided here.* Every `lease.PERIOD` seconds an instance compares the components that are active here
with those of the others, as their leases have it. It gives a build away only where

- it has at least `FACTOR` times as many as the idlest one, and `LEAST_GAP` more;
- the other one has no more than this one afterwards. So the sum of the squares of all loads falls with each
  move: builds never go back and forth, and a build that is all the load of an instance stays;
- the build is a good part of the difference, has much left to do, and has been here for a while;
- the lease of the other one is fresh, it takes builds, and it agrees. It compares with its own load of that
  moment, and agrees to one build in `ACCEPT_REST` seconds: it may be the idlest one for several instances.

After each try an instance rests for `REST` seconds; a build that was moved stays for `MOVED_REST`.

*How it is moved* (`scheduler.supervision.giving`). As at an orderly stop, for one build: nothing more is
sent; what has left is persisted as sent; the walk stops waiting for replies. Its last record says, in a
header, that nobody owns the build and which instance is to take it: an earlier version reads there that it
has no owner, as of a build that was released. The named instance is told, and takes it over at once; all
others, this one included, leave it a head start. So where that one dies, its giver takes the build back.
Where both die, others find it when the lease of the giver has run out, with the rest of its builds. The log's
compare-and-set decides among all of them.

*Limits over the fleet.* A build is given away only in a moment in which no request of it that counts for such
a limit is in flight, and while all instances say the same of limits: then nothing that has to be counted
changes hands. A build that always has such a request in flight stays where it is. Starts under a rate are
still counted by the instance that made them.

Everything here is pure.
"""

from collections.abc import Iterable
from typing import Final

from scheduler.runtime.values import Value

FACTOR: Final = 2
"""Times that an instance has to have as many active components as another one, to be loaded beside it."""
LEAST_GAP: Final = 1_000
"""Components that it has to have more."""
LEAST_SIZE: Final = 200
"""Components that a build has to have left: it takes a moment to move it, whatever its size."""
_LEAST_PART: Final = 0.1
"""Part of the difference that it has to have, and part of all its components that it has to have left."""
REST: Final = 30.0
"""Seconds between two tries of an instance to give a build away."""
ACCEPT_REST: Final = 10.0
"""Seconds between two builds that an instance agrees to get: until the others know of the first one."""
MOVED_REST: Final = 300.0
"""Seconds for which a build stays where it was moved to, or from where it was offered in vain."""
SETTLED: Final = 10.0
"""Seconds for which a build has to run here before it may be moved."""
REFUSED_REST: Final = 120.0
"""Seconds for which an instance is offered nothing that has refused, or did not answer."""
FRESH: Final = 5.0
"""Seconds that the lease of another instance may be old."""


class Burden(Value, frozen=True):
    """A build that runs here, and may be moved."""

    build: str
    left: int
    """Components that have not settled."""
    components: int
    """All components."""


class Taker(Value, frozen=True):
    """Another instance, as its lease has it."""

    key: str
    """Its word in subjects."""
    instance: str
    """Name of its process."""
    components: int
    """Components that are active there."""
    age: float
    """Age of its lease, in seconds."""
    takes: bool
    """Whether it takes builds: it neither drains nor is full."""


class Move(Value, frozen=True):
    """A build is to go to another instance."""

    build: str
    left: int
    """Components of it that have not settled."""
    taker: Taker


def choose(ours: int, burdens: Iterable[Burden], takers: Iterable[Taker]) -> list[Move]:
    """Choose what is to be moved.

    Args:
        ours: components that are active here, of all builds.
        burdens: the builds that may be moved.
        takers: the other instances that may get one.

    Returns:
        The moves of which one is to be made, the best one first: about twenty at most. None where all is as
        it should be.
    """
    ready = (one for one in takers if one.takes and one.age <= FRESH)
    taker = min(ready, key=lambda one: (one.components, one.key), default=None)
    if taker is None or not is_loaded(ours, taker.components):
        return []
    fitting = [one for one in burdens if _is_worth_it(one) and fits(ours, taker.components, one.left)]
    fitting.sort(key=lambda one: (-one.left, one.build))
    return [Move(one.build, one.left, taker) for one in fitting]


def is_loaded(ours: int, theirs: int) -> bool:
    """Return whether an instance with ``ours`` active components is loaded beside one with ``theirs``."""
    return ours >= FACTOR * theirs and ours - theirs >= LEAST_GAP


def fits(ours: int, theirs: int, left: int) -> bool:
    """Return whether to move a build with ``left`` components makes the loads of both more alike.

    Args:
        ours: active components of the instance that has it.
        theirs: those of the one that is to get it.
        left: those of the build.
    """
    gap = ours - theirs
    return is_loaded(ours, theirs) and left >= LEAST_SIZE and _LEAST_PART * gap <= left <= gap / 2


def _is_worth_it(burden: Burden) -> bool:
    """Return whether a build has enough left to do."""
    return burden.left >= max(LEAST_SIZE, _LEAST_PART * burden.components)


class Rests:
    """Remembers for how long nothing is to be moved: by this instance, to it, to others, and of builds."""

    def __init__(self) -> None:
        self._gives_from = self._accepts_from = float("-inf")
        self._since: dict[str, float] = {}
        """Time since when each build has run here."""
        self._builds: dict[str, float] = {}
        """Time until which builds stay that were moved."""
        self._takers: dict[str, float] = {}
        """Time until which instances are offered nothing, by key."""
        self._given: dict[str, str] = {}
        """Instance that each build was given to which stays now, by key."""

    def see(self, builds: Iterable[str], now: float) -> None:
        """Take note of the builds that run here now."""
        since = self._since
        self._since = {build: since.get(build, now) for build in builds}
        for build in self._given.keys() & self._since.keys():
            # It was taken back: that instance agrees, and does not take what it gets.
            self.refused(self._given.pop(build), now)
        self._builds = {build: until for build, until in self._builds.items() if until > now}
        self._takers = {key: until for key, until in self._takers.items() if until > now}
        self._given = {build: key for build, key in self._given.items() if build in self._builds}

    def may_give(self, now: float) -> bool:
        """Return whether this instance may give a build away."""
        return now >= self._gives_from

    def may_leave(self, build: str, now: float) -> bool:
        """Return whether a build may leave."""
        since = self._since.get(build)
        return since is not None and now >= since + SETTLED and build not in self._builds

    def may_get(self, key: str) -> bool:
        """Return whether another instance may be offered a build."""
        return key not in self._takers

    def begin(self, now: float) -> None:
        """Note that this instance begins to give a build away."""
        self._gives_from = now + REST

    def moved(self, build: str, now: float) -> None:
        """Note that a build is moved, by this instance or to it."""
        self._builds[build] = now + MOVED_REST

    def given(self, build: str, key: str) -> None:
        """Note that a build was given away, and to which instance."""
        self._given[build] = key

    def refused(self, key: str, now: float) -> None:
        """Note that another instance takes nothing for a while."""
        self._takers[key] = now + REFUSED_REST

    def may_accept(self, now: float) -> bool:
        """Return whether this instance may agree to get a build."""
        return now >= self._accepts_from

    def accept(self, build: str, now: float) -> None:
        """Note that it does."""
        self._accepts_from = now + ACCEPT_REST
        self._gives_from = max(self._gives_from, now + REST)
        self.moved(build, now)
