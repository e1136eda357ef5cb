"""How builds are to be run, and what operators ask of them while they do: the second half of a scenario.

It draws from numbers of its own: what else happens with a seed does not depend on it.
"""

import random
from collections.abc import Mapping
from typing import Any, TypeAlias

from attrs import evolve, field, frozen

from simulation.connectors import Manners

JSON: TypeAlias = dict[str, Any]

_NARROW = 0.15
"""The part of the scenarios without other limits in which everything passes through one slot."""
_VERBS = ("pause", "pause", "cancel", "retry", "retry", "retry", "skip", "skip", "extend", "limit")
_TRIGGERS = ("", "request left", "taken", "answers", "answers", "failed", "failed")
ORDER_MOMENTS = ("order left", "order arrived", "told left", "append left", "kept")
"""Moments at which a crash can be aimed, beside a command."""
_PATTERNS = ("*", "vpc.*.*", "*.create.*", "*.*.aws", "network.create.*", "instance.*.gcp")


@frozen
class Order:
    """An operator asks something of a build."""

    at: float
    verb: str
    build: str
    document: JSON = field(repr=False)
    """The question; without a component where that is chosen when it is asked."""
    state: str = ""
    """In which state the component is to be."""
    after: str = ""
    """Kind of step of the trace that has to happen to the build first, from ``at`` on."""
    times: int = 1
    """Number of times."""
    pause: float = 0.0
    """Seconds from then until it is asked."""


@frozen
class Operating:
    """Operators' part of a scenario."""

    rules: str = ""
    """Limits of every process, as in its setting."""
    retries: str = ""
    """The operator's rules for what fails, as in the setting."""
    orders: tuple[Order, ...] = ()
    strikes: tuple["Strike", ...] = ()
    gates: bool = False
    """Whether any component waits for people."""
    max_bytes: int = 0
    """Of requests in flight, as in the setting; 0 where nothing is said of it."""


@frozen
class Strike:
    """A fault that is aimed at one step of the trace."""

    at: float
    """From when on."""
    kind: str
    moment: str
    """The step."""
    seconds: float


def operate(seed: int, builds: tuple[JSON, ...], begin: Mapping[str, float], heals_at: float) -> Operating:
    """Decide it for a seed, and put into the builds what they say of it themselves.

    Args:
        seed: decides.
        builds: as they are submitted.
        begin: when, by id.
        heals_at: when everything is well again.
    """
    rng = random.Random(f"operating {seed}")
    # Of numbers of its own, too: nothing else of a seed depends on it.
    narrow = "*=1" if random.Random(f"narrow {seed}").random() < _NARROW else ""
    if rng.random() < 0.4:
        return Operating(narrow)
    for build in builds:
        _put_options(rng, build)
    retries = rng.choice(("", "", "*.create.*=3:0.2:2", "*=2:0.5", "vpc.*.*=4:0.1:1"))
    rules = "" if rng.random() < 0.7 else ", ".join(f"{name}={most}" for name, most in _limits(rng).items())
    rules = rules or narrow
    orders: list[Order] = []
    largest = max(builds, key=lambda build: len(build["changes"]))
    for _ in range(rng.choice((0, 1, 1, 2, 3, 5, 7))):
        build = largest if rng.random() < 0.6 else rng.choice(builds)
        orders += _orders(rng, build, min(heals_at, begin[build["id"]] + rng.uniform(0.0, 2.0)))
    orders += _unstick(random.Random(f"unstick {seed}"), builds, begin)
    strikes = [
        Strike(max(0.0, order.at - 0.5), "crash at", rng.choice(ORDER_MOMENTS), rng.uniform(0.01, 3.0))
        for order in orders
        if rng.random() < 0.25
    ]
    if rng.random() < 0.3:
        strikes.append(Strike(min(begin.values()), "cut at", "request left", rng.uniform(0.01, 5.0)))
    if (rules or any("limits" in build.get("options", {}) for build in builds)) and rng.random() < 0.5:
        # What is in flight then counts for the next process.
        at, moment = (
            min(begin.values()) + rng.uniform(0.0, 2.0),
            rng.choice(("request left", "taken", "kept")),
        )
        strikes.append(Strike(at, "crash at", moment, rng.uniform(0.01, 1.0)))
    return Operating(rules, retries, tuple(orders), tuple(strikes))


def _unstick(rng: random.Random, builds: tuple[JSON, ...], begin: Mapping[str, float]) -> list[Order]:
    """Have attempts in flight given up, and other ones sent; of numbers of its own, too."""
    orders: list[Order] = []
    while rng.random() < 0.7 and len(orders) < 4:
        build = rng.choice(builds)["id"]
        after = rng.choice(("request left", "taken", "answers", "failed"))
        state = "retrying" if after == "failed" else "running"
        document: JSON = {"id": build, "now": True, "reason": "it hangs"}
        at, pause = begin[build] + rng.uniform(0.0, 2.0), rng.choice((0.0, 0.01, rng.uniform(0.0, 0.3)))
        orders.append(Order(at, "retry", build, document, state, after, rng.choice((1, 1, 2, 4)), pause))
    return orders


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
    options: JSON = build.get("options", {})
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


def _orders(rng: random.Random, build: JSON, at: float) -> list[Order]:
    verb = rng.choice(_VERBS)
    after, times = rng.choice(_TRIGGERS), rng.choice((1, 1, 2, 3, 5))
    pause = rng.choice((0.0, rng.uniform(0.0, 0.02), rng.uniform(0.0, 3.0)))
    document: JSON = {"id": build["id"]}
    state = ""
    match verb:
        case "cancel":
            document |= {"now": rng.random() < 0.4, "reason": "as the operator says"}
        case "retry":
            after, times = rng.choice(("failed", "failed", "over", "over", "over")), 1
            state = rng.choice(("", "", "errored"))
        case "skip":
            document["output"] = {"serial": f"supplied-{rng.randrange(1 << 32):x}"}
            state = rng.choice(("waiting", "waiting", "skipped", "skipped", "errored", "running", "retrying"))
            if state in {"skipped", "errored", "retrying"}:
                after, times = rng.choice(("failed", "failed", "over")), 1
        case "extend":
            document["seconds"] = rng.uniform(1.0, 10.0)
            after, state = rng.choice(("request left", "taken")), "running"
        case "limit":
            document["limits"] = _limits(rng)
    orders = [Order(at, verb, build["id"], document, state, after, times, pause)]
    if verb == "pause":
        seconds = rng.choice((rng.uniform(0.0, 1.0), rng.uniform(0.0, 8.0)))
        resume = {"id": build["id"]}
        orders.append(Order(at, "resume", build["id"], resume, "", after, times, pause + seconds))
    return orders
