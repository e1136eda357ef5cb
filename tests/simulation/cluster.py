"""A broker of three servers, of which one goes away; it is drawn from numbers of its own."""

import random

from attrs import frozen

SERVERS = 3
HARMLESS = {"connector dies", "cut connector", "cut client", "clock"}
"""Faults beside which no reply is missed that reached a server which stays."""
_MOMENTS = ("taken", "taken", "taken", "request arrived", "answers", "request left")


@frozen
class Loss:
    """A server goes away: the one that a process is connected to, or that it listens on."""

    at: float
    """From when on."""
    moment: str
    """The step of the trace after which it goes."""
    seconds: float
    """Until it is back."""
    number: int
    """Chooses the process, which of its servers, how it goes, and what that one led."""


@frozen
class Cluster:
    """Number of servers, and their faults."""

    servers: int = 1
    losses: tuple[Loss, ...] = ()
    alone: bool = False
    """Whether nothing else happens that could cost a reply."""


def cluster(seed: int, begin: float) -> Cluster:
    """Decide it for a seed, whose first build is handed in at ``begin``."""
    rng = random.Random(f"cluster {seed}")
    if rng.random() < 0.65:
        return Cluster()
    loss = Loss(
        max(1.5, begin + rng.uniform(0.0, 2.0)),
        rng.choice(_MOMENTS),
        rng.choice((rng.uniform(0.5, 5.0), rng.uniform(5.0, 30.0))),
        rng.randrange(10_000),
    )
    return Cluster(SERVERS, (loss,), alone=rng.random() < 0.7)
