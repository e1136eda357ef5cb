"""Crowds: many builds that want the same few requests of several instances, while something befalls these.

In other scenarios there is seldom a limit, and seldom more than one instance that comes up to it: nobody
would notice if it were passed. It is drawn from separate random numbers.
"""

import random
from typing import Any, TypeAlias

from attrs import field, frozen

from simulation.connectors import TYPES, Manners
from simulation.instances import Instances, Trouble

JSON: TypeAlias = dict[str, Any]

_WORD = "crowd54"
"""Begins the numbers; one by which the seeds that catch faults are no crowds (`simulation.catching`)."""
_SHARE = 0.06
"""Of the scenarios, so many are crowds."""
_SETTLED = 2.5
"""Seconds after which instances have found each other, and divided what there is."""
_LEASE = 15.0
"""Seconds after which others see that a lease has run out."""
_MUCH = 20
"""Components beside which an instance leaves what comes to the others."""
_KINDS = (
    *("pause", "pause before sending", "pause before sending", "partition", "pulled out"),
    *("crash", "crash of two", "stop", "leases leaderless", "leases removed", ""),
)


@frozen
class Crowd:
    """A scenario in place of the one that its seed would have; nothing else goes wrong in it."""

    builds: tuple[JSON, ...] = field(repr=False)
    times: tuple[float, ...]
    """When each of them is handed in."""
    rules: str
    instances: Instances
    manners: tuple[Manners, ...]
    servers: int
    grace: float


def crowd(seed: int) -> Crowd | None:
    """Decide it for a seed; None where it is none."""
    rng = random.Random(f"{_WORD} {seed}")
    if rng.random() > _SHARE:
        return None
    kind = rng.choice(TYPES)
    most = rng.choice((1, 2, 3, 4))
    number = rng.choice((2, 2, 3, 3))
    servers = rng.choice((1, 1, 3))
    rolling = rng.random() < 0.25
    first = _SETTLED + rng.uniform(0.0, 0.5)
    troubles = (
        [Trouble(first + 3.0, "rolling", rng.uniform(4.1, 4.5), 0)] if rolling else _trouble(rng, first)
    )
    until = max((one.at + one.seconds for one in troubles), default=first)
    if rolling:
        # Some just when the first one stops, the others until the last one has.
        times = [first + rng.uniform(2.9, 3.3) for _ in range(6)]
        times += [first + rng.uniform(1.5, 1.5 + 6.0 * number) for _ in range(3 * number)]
    else:
        times = [first + rng.uniform(0.0, 0.3) for _ in range(number)]
        # What is handed in just before that may wait at an instance that stands still.
        times += [until + rng.uniform(-1.5, 0.7) for _ in range(number)]
    slow = 0.0 if rolling else rng.choice((0.0, 0.2, 0.4))
    manners = Manners(failing=0.0, mute=0.0, slow=slow, again=0.0, foreign=0.0)
    sizes = [1 if rolling else 2 * most for _ in times]
    if rolling:
        # Whoever has it passes the others on.
        times.append(first)
        sizes.append(_MUCH)
    return Crowd(
        builds=tuple(_build(f"b{place}", kind, size) for place, size in enumerate(sizes)),
        times=tuple(times),
        rules="" if rolling and rng.random() < 0.5 else f"{kind}.*.*={most}",
        instances=Instances(number, rng.random() < 0.5, (1.0,), tuple(troubles), alone=True),
        manners=(manners,) * len(TYPES),
        servers=servers,
        grace=rng.choice((1.0, 10.0)),
    )


def _trouble(rng: random.Random, begin: float) -> list[Trouble]:
    at = begin + rng.uniform(0.3, 1.0)
    number = rng.randrange(10_000)
    kind = rng.choice(_KINDS)
    match kind:
        case "pause" | "partition" | "pause before sending":
            seconds = rng.choice((rng.uniform(_LEASE, _LEASE + 4.0), rng.uniform(_LEASE, 24.0)))
            if kind == "pause before sending":
                # Others stand behind it that have not left; the connection stays.
                which = 9 * (4 * number + rng.randrange(4)) + 1
                which += 3 * (which % 4 == 0)
                return [Trouble(begin, "pause", seconds, which, "request left")]
            # Another number would cut it off from one server only.
            return [Trouble(at, kind, seconds, 3 * number + 1)]
        case "pulled out":
            return [Trouble(at, kind, rng.uniform(4.0, 12.0), number)]
        case "crash":
            return [Trouble(at, kind, rng.uniform(0.1, 5.0), number)]
        case "crash of two":
            # Whoever takes the builds over stands still before it has counted their requests.
            again = Trouble(at + 0.1, "pause", rng.uniform(11.5, 14.5), 9 * 4 * number + 1, "taking over")
            return [Trouble(at, "crash", 5.0, 3 * number), again]
        case "stop":
            return [Trouble(at, kind, rng.uniform(0.1, 5.0), number, "request left")]
        case "leases leaderless":
            return [Trouble(at, kind, rng.uniform(9.0, 16.0), number)]
        case "leases removed":
            return [Trouble(at, kind, 0.5, number)]
        case _:
            return []


def _build(name: str, kind: str, size: int) -> JSON:
    return {
        "id": name,
        "name": f"build {name}",
        "action": "build.create",
        "components": [],
        "changes": [
            {
                "_component_id": f"c{number}",
                "_component": kind,
                "_action": "create",
                "_provider": "aws",
                "_state": "waiting",
                "note": f"{name} {number}",
            }
            for number in range(size)
        ],
        "edges": [],
    }
