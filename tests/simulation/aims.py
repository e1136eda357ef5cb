"""Aims faults and builds at what chance alone seldom hits. It is drawn from separate random numbers."""

import random
from typing import Any, TypeAlias

from attrs import frozen

from simulation.connectors import TYPES
from simulation.operating import Operating, Order

JSON: TypeAlias = dict[str, Any]


@frozen
class Aim:
    """A fault at a step of the trace, as in `scenario.Fault`."""

    at: float
    kind: str
    seconds: float
    number: int
    moment: str = ""


def widen(seed: int, build: JSON) -> bool:
    """Sometimes have a build be one of many equal components, few of which may be in flight at a time."""
    rng = random.Random(f"wide {seed}")
    if rng.random() > 0.1:
        return False
    kind = rng.choice(TYPES)
    build["changes"] = [
        {
            "_component_id": f"c{number}",
            "_component": kind,
            "_action": "create",
            "_provider": "aws",
            "_state": "waiting",
            "note": f"{build['id']} {number}",
        }
        for number in range(12)
    ]
    build["components"], build["edges"] = [], []
    most = rng.choice((1, 2, 2, 3))
    if rng.random() < 0.4:
        # A chain and many single ones, one after another: the chain goes first, link by link.
        most = 1
        build["edges"] = [
            {"source": f"c{number}", "destination": f"c{number + 1}", "length": 1} for number in range(5)
        ]
    build["options"] = {"limits": {f"{kind}.*.*": most}, "on_error": "continue"}
    return True


def burden(seed: int, builds: tuple[JSON, ...]) -> int:
    """Sometimes have components be so large that not all of them may be in flight at a time.

    Returns:
        The bytes that may be; 0 where nothing is said of it.
    """
    rng = random.Random(f"freight {seed}")
    if rng.random() > 0.1:
        return 0
    sizes = rng.choice(((9_000,), (9_000, 20_000), (10, 9_000, 9_000, 20_000)))
    for build in builds:
        for change in build["changes"]:
            change["pad"] = "x" * rng.choice(sizes)
    return 65_536


def paused(seed: int, builds: tuple[JSON, ...]) -> tuple[Order, ...]:
    """Sometimes have the largest build be paused when it has just begun, and for a while."""
    if random.Random(f"paused {seed}").random() > 0.1:
        return ()
    document = {"id": max(builds, key=lambda build: len(build["changes"]))["id"]}
    return (
        Order(0.0, "pause", document["id"], document, after="request left"),
        Order(0.0, "resume", document["id"], document, after="request left", pause=6.0),
    )


def cancelled(seed: int, builds: tuple[JSON, ...]) -> tuple[Order, ...]:
    """Sometimes have the largest build be cancelled while its first request is in flight."""
    if random.Random(f"cancelled {seed}").random() > 0.05:
        return ()
    document = {"id": max(builds, key=lambda build: len(build["changes"]))["id"]}
    return (Order(0.0, "cancel", document["id"], document, after="request left"),)


def aims(seed: int, begin: float, operating: Operating, *, wide: bool, cancels: bool = False) -> list[Aim]:
    """The faults of a seed.

    Args:
        seed: decides.
        begin: when the first build is handed in.
        operating: what operators ask for.
        wide: whether a build has many components in flight.
        cancels: whether a build is cancelled as `cancelled` has it.
    """
    rng = random.Random(f"aims {seed}")
    found: list[Aim] = []
    chance = rng.random()
    if chance < 0.1:
        # Even numbers: what was written last never arrives. Below 9: at the first such step.
        found.append(Aim(begin, "cut at", 1.0, rng.choice((0, 2, 4, 6)), "report left"))
    elif chance < 0.15:
        found.append(Aim(begin - 0.2, "connector dies", 30.0, rng.randrange(len(TYPES))))
    elif chance < 0.23:
        # Away for longer than many an attempt may take.
        found.append(Aim(begin + rng.uniform(0.2, 1.2), "broker", 12.0, 2 * rng.randrange(100)))
    elif chance < 0.31:
        # Between the storing of a report and the note that it is published.
        found.append(Aim(begin, "crash at", 0.05, rng.randrange(9), "report left"))
    elif chance < 0.36:
        # Another one takes over what the first, which is only silent, goes on with.
        found.append(Aim(begin + rng.uniform(0.1, 0.8), "second", rng.uniform(0.0, 4.0), 2))
    pause = next((order for order in operating.orders if order.verb == "pause"), None)
    if pause is not None and rng.random() < 0.5:
        found.append(Aim(pause.at, "crash at", 0.05, 0, "told left"))
    if cancels:
        # What is in flight is awaited by the next process.
        found.append(Aim(begin, "crash at", 0.05, 0, "told left"))
    if wide and rng.random() < 0.6:
        found.append(Aim(begin, "crash at", 0.05, rng.randrange(36), "taken"))
    return found
