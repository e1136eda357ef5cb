"""How builds are to be run, and what operators ask of them while they do: the second half of a scenario.

It draws from numbers of its own: what else happens with a seed does not depend on it.
"""

import random
from typing import Any, TypeAlias

from attrs import evolve, field, frozen

from simulation.connectors import Manners

JSON: TypeAlias = dict[str, Any]

_VERBS = ("pause", "pause", "cancel", "retry", "retry", "retry", "skip", "skip", "extend", "limit")
_TRIGGERS = ("", "", "request left", "taken", "answers", "failed", "failed", "over", "over")
ORDER_MOMENTS = ("order left", "order arrived", "told left", "append left", "kept")
"""What a crash can be aimed at beside an order."""
_PATTERNS = ("*", "vpc.*.*", "*.create.*", "*.*.aws", "network.create.*", "instance.*.gcp")


@frozen
class Order:
    """An operator asks something of a build."""

    at: float
    verb: str
    build: str
    document: JSON = field(repr=False)
    """The whole question."""
    after: str = ""
    """What has to happen to the build first, from ``at`` on: a kind of step of the trace."""
    pause: float = 0.0
    """Seconds from then until it is asked."""


@frozen
class Operating:
    """How a scenario is operated."""

    rules: str = ""
    """Limits of every process, as in its setting."""
    retries: str = ""
    """The operator's rules for what fails, as in the setting."""
    orders: tuple[Order, ...] = ()
    crashes: tuple[tuple[float, str, float, int], ...] = ()
    """Aimed at orders: from when, at which step, how many seconds until the next process, a number."""


def operate(seed: int, builds: tuple[JSON, ...], heals_at: float) -> Operating:
    """Decide it for a seed, and put into the builds what they say of it themselves."""
    rng = random.Random(f"operating {seed}")
    if rng.random() < 0.4:
        return Operating()
    for build in builds:
        _put_options(rng, build)
    retries = rng.choice(("", "", "*.create.*=3:0.2:2", "*=2:0.5", "vpc.*.*=4:0.1:1"))
    rules = "" if rng.random() < 0.7 else ", ".join(f"{name}={most}" for name, most in _limits(rng).items())
    orders: list[Order] = []
    for _ in range(rng.choice((0, 1, 1, 2, 3, 5))):
        orders += _orders(rng, rng.choice(builds), heals_at)
    crashes = tuple(
        (max(0.0, order.at - 0.5), rng.choice(ORDER_MOMENTS), rng.uniform(0.01, 3.0), rng.randrange(1000))
        for order in orders
        if rng.random() < 0.25
    )
    return Operating(rules, retries, tuple(orders), crashes)


def spoil(seed: int, manners: Manners) -> Manners:
    """The manners of a connector whose failures are worth another attempt."""
    rng = random.Random(f"spoil {seed} {manners}")
    if rng.random() < 0.3:
        return manners
    return evolve(
        manners,
        failing=rng.choice((0.1, 0.3, 0.6)),
        final=rng.choice((0.0, 0.2)),
        later=rng.choice((0.0, 0.3)),
    )


def _put_options(rng: random.Random, build: JSON) -> None:
    options: JSON = {}
    if rng.random() < 0.5:
        options["retry"] = _retry(rng)
    if rng.random() < 0.5:
        options["on_error"] = "continue"
    if rng.random() < 0.25:
        options["max_failures"] = rng.choice((1, 2, "30%", "50%"))
        options.pop("on_error", None)
    if rng.random() < 0.3:
        options["limits"] = _limits(rng)
    if options:
        build["options"] = options
    for change in build["changes"]:
        if rng.random() < 0.3:
            change["_retry"] = _retry(rng)


def _retry(rng: random.Random) -> JSON:
    retry: JSON = {"attempts": rng.choice((1, 2, 2, 3, 5)), "backoff": rng.choice((0.0, 0.2, 1.0))}
    if rng.random() < 0.3:
        retry["max_backoff"] = 2
    if rng.random() < 0.15:
        retry["total_timeout"] = rng.choice((5, 20))
    return retry


def _limits(rng: random.Random) -> JSON:
    return {
        pattern: rng.choice((1, 1, 2, 3, "4/m", "10/s"))
        for pattern in rng.sample(_PATTERNS, rng.choice((1, 1, 2)))
    }


def _orders(rng: random.Random, build: JSON, heals_at: float) -> list[Order]:
    verb = rng.choice(_VERBS)
    at = min(heals_at, rng.choice((rng.uniform(0.3, 5.0), rng.uniform(0.3, heals_at))))
    after = rng.choice(_TRIGGERS)
    pause = rng.choice((0.0, rng.uniform(0.0, 0.02), rng.uniform(0.0, 3.0)))
    document: JSON = {"id": build["id"]}
    component = rng.choice(build["changes"])["_component_id"]
    match verb:
        case "cancel":
            document |= {"now": rng.random() < 0.4, "reason": "as the operator says"}
        case "retry":
            after = rng.choice(("failed", "failed", "over", "over", "over"))
            if rng.random() < 0.3:
                document["component"] = component
        case "skip":
            document |= {"component": component, "output": {"serial": f"supplied-{rng.randrange(1 << 32):x}"}}
        case "extend":
            document |= {"component": component, "seconds": rng.uniform(1.0, 10.0)}
            after = rng.choice(("request left", "taken"))
        case "limit":
            document["limits"] = _limits(rng)
        case _:
            after = "" if after == "over" else after
    orders = [Order(at, verb, build["id"], document, after, pause)]
    if verb == "pause":
        later = at + pause + rng.choice((rng.uniform(0.0, 1.0), rng.uniform(0.0, 8.0)))
        orders.append(Order(later, "resume", build["id"], {"id": build["id"]}))
    return orders


