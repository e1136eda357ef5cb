"""Removals of stored data: a stream that is removed, a build's log that is purged.

Its own module: `scenario` only asks for these faults, `faults` only has them happen.
"""

import random
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import trio
from attrs import frozen

from scheduler.fleet.bucket import STREAM
from scheduler.jetstream.streams import LOG, OBJECTS, REPLIES, REPORTS

if TYPE_CHECKING:
    from simulation.driver import Driver

_SHARE = 0.25
"""Of the scenarios, so many have something vanish."""
_LEASES = 0.06
"""Of the scenarios, in so many it is the bucket of the leases and limits."""


@frozen
class Vanishing:
    """Something vanishes; the fields are those of `scenario.Fault`."""

    at: float
    kind: str
    seconds: float
    number: int


def vanish(seed: int, heals_at: float) -> Iterator[Vanishing]:
    """Removals in the scenario of a seed; they have separate random numbers, so that others do not change."""
    rng = random.Random(f"vanishing {seed}")
    if rng.random() < _SHARE:
        for _ in range(rng.choice((1, 1, 2))):
            at = min(heals_at, rng.uniform(0.5, 8.0))
            yield Vanishing(at, rng.choice(_OF_BUILDS), rng.uniform(0.5, 12.0), rng.randrange(1000))
    rng = random.Random(f"leases vanishing {seed}")
    if rng.random() < _LEASES:
        yield Vanishing(min(heals_at, rng.uniform(0.5, 12.0)), "leases removed", 0.0, 0)


async def _reports_removed(driver: "Driver", _: Any, __: float) -> None:
    """The stream of reports is removed: it is made again, and what is to be reported is."""
    await _removed(driver, REPORTS)


async def _replies_removed(driver: "Driver", _: Any, __: float) -> None:
    """The stream of replies is removed: what was captured is lost, and what comes later is not."""
    replies = driver.world.broker.jetstream.streams.get(REPLIES)
    lost = [] if replies is None else list(replies.messages)
    await _removed(driver, REPLIES)
    driver.trace.add("replies lost", detail=lost)


async def _objects_removed(driver: "Driver", _: Any, __: float) -> None:
    """The object store is removed: nothing of these small builds is in it."""
    await _removed(driver, OBJECTS)


async def _leases_removed(driver: "Driver", _: Any, __: float) -> None:
    """The bucket of the leases and of the limits is removed: it is made again, and all stays as it was."""
    await _removed(driver, STREAM)


async def _removed(driver: "Driver", stream: str) -> None:
    jetstream = driver.world.broker.jetstream
    if stream in jetstream.streams:
        jetstream.remove_stream(stream)
        driver.trace.add("stream removed", stream)
    await trio.lowlevel.checkpoint()


async def _log_missing(driver: "Driver", _: Any, until: float) -> None:
    """The stream of all logs is removed, and restored from a backup that has all of it."""
    jetstream = driver.world.broker.jetstream
    log = jetstream.streams.get(LOG)
    if log is None or not log.messages:
        return
    jetstream.remove_stream(LOG)
    driver.trace.add("log removed")

    def restore() -> None:
        if LOG not in jetstream.streams:
            jetstream.streams[LOG] = log
            driver.trace.add("log restored")

    driver.on_heal.append(restore)
    await trio.sleep(until)
    restore()


async def _log_purged(driver: "Driver", fault: Any, _: float) -> None:
    """The log of one build is purged by hand: whoever has the build reports it as failed."""
    log = driver.world.broker.jetstream.streams.get(LOG)
    names = [build["id"] for build in driver.scenario.builds]
    purgeable = [name for name in names if log is not None and _is_purgeable(driver, log, name)]
    if log is not None and purgeable:
        name = purgeable[fault.number % len(purgeable)]
        log.remove(list(log.of(f"scheduler.log.{name}")))
        driver.purged.add(name)
        driver.trace.add("log purged", build=name)
    await trio.lowlevel.checkpoint()


def _is_purgeable(driver: "Driver", log: Any, name: str) -> bool:
    """Tell whether the build has begun, is not finished, and will not be submitted again."""
    handed_in = driver.handing_in[name]
    begun = len(log.of(f"scheduler.log.{name}")) > 1
    return begun and not handed_in and name not in driver.over and name not in driver.purged


VANISHING: Mapping[str, Callable[["Driver", Any, float], Awaitable[None]]] = {
    "reports removed": _reports_removed,
    "replies removed": _replies_removed,
    "objects removed": _objects_removed,
    "log missing": _log_missing,
    "log purged": _log_purged,
    "leases removed": _leases_removed,
}
_OF_BUILDS = ("reports removed", "replies removed", "objects removed", "log missing", "log purged")
"""What holds builds, and what is said of them."""
