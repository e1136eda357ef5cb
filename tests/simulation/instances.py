"""Instances that share the builds of a scenario, and what goes wrong with them and between them.

It is drawn from separate random numbers: what else happens with a seed does not change.
"""

import random

from attrs import frozen

_SINGLE = 0.45
"""Of the scenarios, so many have one instance."""
_TROUBLED = 0.65
"""Of those with several, so many have something happen to them; of the others, a quarter of that."""
_ALONE = 0.5
"""Of those with several to which something happens, so many see one kind of it, and nothing else."""
_DELAY = 9.5
"""Seconds from a renewal until builds are handed in that begin when it is about to run out."""
_LEASE = 15.0
"""Seconds after which a lease has run out; what is longer is seen by the others."""
KINDS = (
    "pause",
    "pause",
    "pause",
    "partition",
    "partition",
    "leases leaderless",
    "leases late",
    "cut at",
    "stop",
    "stop",
    "rolling",
    "replace",
    "twin",
    "crash at",
    "crash at",
)
_MOMENTS = (
    "append arrived",
    "append arrived",
    "append left",
    "request left",
    "taken",
    "lease left",
    "lease arrived",
)


@frozen
class Trouble:
    """A fault of instances; the fields are those of `scenario.Fault`."""

    at: float
    kind: str
    seconds: float
    number: int
    moment: str = ""


@frozen
class Instances:
    """Instances of one scenario."""

    number: int = 1
    """How many there are from the beginning."""
    named: bool = False
    """Whether each has a name that the process after it has, too."""
    rates: tuple[float, ...] = (1.0,)
    """Seconds that pass on the clock of each process in a second, in turn."""
    troubles: tuple[Trouble, ...] = ()
    delay: float = 0.0
    """Seconds by which builds are handed in later."""
    alone: bool = False
    """Whether nothing else goes wrong."""

    @property
    def until(self) -> float:
        """Time by which all of it has happened."""
        return max((one.at + one.seconds for one in self.troubles), default=0.0)


def instances(seed: int, begin: float, servers: int, *, calm: bool) -> Instances:
    """Decide it for a seed.

    Args:
        seed: decides.
        begin: time at which the first build is handed in.
        servers: number of servers of the broker.
        calm: whether nothing may happen to them.
    """
    rng = random.Random(f"instances {seed}")
    number = 1 if rng.random() < _SINGLE else rng.choice((2, 2, 3, 4))
    named = rng.random() < 0.4
    rates = tuple(1.0 if rng.random() < 0.5 else rng.uniform(0.97, 1.03) for _ in range(5))
    if rng.random() > (_TROUBLED if number > 1 else _TROUBLED / 4) or calm:
        return Instances(number, named, rates)
    if number > 1 and rng.random() < _ALONE:
        aim = rng.choice(_AIMS)
        delay = _DELAY if aim is _late_renewals else 0.0
        return Instances(number, named, rates, tuple(aim(rng, begin)), delay, alone=True)
    kinds = KINDS if servers < 2 else (*KINDS, "server apart", "server apart", "server apart")
    troubles: list[Trouble] = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        troubles += _trouble(rng, rng.choice(kinds), max(0.8, begin + rng.uniform(0.0, 4.0)))
    return Instances(number, named, rates, tuple(troubles))


def _stops(rng: random.Random, begin: float) -> list[Trouble]:
    """Orderly stops, when others have been at work for a while."""
    return _trouble(rng, rng.choice(("stop", "stop", "rolling")), max(5.1, begin + rng.uniform(0.0, 3.0)))


def _pause_before_sending(rng: random.Random, begin: float) -> list[Trouble]:
    """A process stands still between a commit and what follows from it, until others have its builds."""
    # At the second, third or fourth append, mostly of whoever makes it; see `Faults`.
    number = 9 * (4 * rng.randrange(100) + rng.choice((1, 1, 2, 3))) + rng.randrange(9)
    # At a request there are others behind it, mostly, that have not left.
    moment = rng.choice(("append arrived", "request left"))
    return [Trouble(begin, "pause", rng.uniform(20.0, 27.0), number, moment)]


def _late_renewals(rng: random.Random, begin: float) -> list[Trouble]:
    """Renewals come late, and then none goes through for long: the lease runs out when builds are young."""
    number = 3 * rng.randrange(1_000) + 1
    until = begin + rng.uniform(1.0, 2.0)
    late = Trouble(max(0.8, begin - 1.0), "leases late", until - max(0.8, begin - 1.0), number)
    return [late, Trouble(until, "leases leaderless", rng.uniform(12.0, 16.0), number)]


_AIMS = (_stops, _stops, _pause_before_sending, _pause_before_sending, _late_renewals, _late_renewals)


def _trouble(rng: random.Random, kind: str, at: float) -> list[Trouble]:
    seconds = rng.choice((rng.uniform(0.2, 4.0), rng.uniform(8.0, 14.0), rng.uniform(16.0, 24.0)))
    number = rng.randrange(10_000)
    match kind:
        case "pause":
            moment = rng.choice(_MOMENTS) if rng.random() < 0.7 else ""
            found = [Trouble(at, kind, seconds, number, moment)]
            if seconds > _LEASE and rng.random() < 0.3:
                # Somebody starts another one in its place.
                found.append(Trouble(at + rng.uniform(0.5, seconds), "twin", 0.1, number))
            return found
        case "leases leaderless":
            found = [Trouble(at, kind, seconds, number)]
            if rng.random() < 0.5:
                # The last renewal before comes in late.
                late = Trouble(max(0.5, at - rng.uniform(1.0, 5.0)), "leases late", 6.0, number)
                found.append(late)
            return found
        case "leases late":
            return [Trouble(at, kind, rng.uniform(4.0, 12.0), number)]
        case "cut at":
            return [Trouble(at, kind, rng.uniform(0.5, 8.0), number, "lease left")]
        case "stop" | "crash at":
            return [Trouble(at, kind, rng.uniform(0.1, 5.0), number, rng.choice(_MOMENTS))]
        case "rolling" | "replace" | "twin":
            return [Trouble(at, kind, rng.uniform(0.1, 2.0), number)]
        case _:
            return [Trouble(at, kind, seconds, number)]
