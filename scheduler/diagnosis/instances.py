"""Checks by their leases whether the instances at work agree: in versions, limits and clocks."""

import time
from collections.abc import Iterable, Sequence
from typing import Final

from scheduler.diagnosis import Diagnosis
from scheduler.errors import BusError, StreamNotFound
from scheduler.fleet.bucket import ELECTION, STREAM, LeaseBucket
from scheduler.fleet.contested import KEY
from scheduler.fleet.lease import LEASE, Found, Standing, read_lease
from scheduler.jetstream.api import JetStream
from scheduler.text import count, listed, printable, seconds

_APART: Final = 2.0
"""Largest difference between the clocks of two instances without a warning, in seconds."""
_SHOWN: Final = 8
CURE: Final = "see permissions"


async def check_instances(diagnosis: Diagnosis, js: JetStream, replicas: int) -> None:
    """Check what the leases of the instances say, and how many servers keep them; writes none.

    The clock of the broker has been compared with ours before, if that was possible.
    """
    try:
        kept = (await js.info(STREAM)).config.get("num_replicas", 1)
        found = await LeaseBucket(js).read()
    except StreamNotFound:
        diagnosis.ok("instances", "none yet")
        return
    except BusError as error:
        diagnosis.warn("instances", f"their leases cannot be read: {error}", CURE)
        return
    if kept < replicas:
        diagnosis.warn(
            "instances",
            f"only {kept} of {replicas} servers keep the leases: while they are down, nothing is sent",
            f"nats stream edit {STREAM} --replicas={replicas}",
        )
    clock = diagnosis.facts.get("clock", {}).get("difference_ms", 0.0) / 1e3
    judge(diagnosis, at_work(found.values(), time.time() + clock))


async def check_election(diagnosis: Diagnosis, js: JetStream, replicas: int) -> None:
    """Check the lease of the one scheduler with an Ernest store that works; writes none."""
    try:
        kept = (await js.info(STREAM)).config.get("num_replicas", 1)
        stored = await LeaseBucket(js, ELECTION).last(KEY)
    except StreamNotFound:
        diagnosis.ok("lease", "none yet")
        return
    except BusError as error:
        diagnosis.warn("lease", f"it cannot be read: {error}; others stand by while one is present", CURE)
        return
    if kept < replicas:
        diagnosis.warn(
            "lease",
            f"only {kept} of {replicas} servers keep it: while they are down, nothing is sent",
            f"nats stream edit {STREAM} --replicas={replicas}",
        )
    lease = None if stored is None else read_lease(stored.data)
    if stored is None or lease is None:
        diagnosis.ok("lease", "nobody has it" if stored is None else "a scheduler of another version has it")
        return
    clock = diagnosis.facts.get("clock", {}).get("difference_ms", 0.0) / 1e3
    age = max(0.0, time.time() + clock - stored.time / 1e9)
    diagnosis.facts["lease"] = {"name": lease.name, "version": lease.version, "age": round(age, 3)}
    whose = f"{printable(lease.name)} (version {printable(lease.version)})"
    if lease.standing is Standing.GONE:
        diagnosis.ok("lease", f"nobody has it: {whose} has ended")
    elif age >= LEASE:
        diagnosis.ok("lease", f"nobody has it: {whose} has not renewed it for {seconds(age)}")
    else:
        diagnosis.ok("lease", f"{whose} has it, and works")


def at_work(found: Iterable[Found], now: float) -> list[Found]:
    """Return the leases that are being renewed, by name; ``now`` is the time of the broker's clock."""
    kept = [one for one in found if one.lease.standing is not Standing.GONE and abs(now - one.time) < LEASE]
    return sorted(kept, key=lambda one: one.lease.name)


def judge(diagnosis: Diagnosis, found: Sequence[Found]) -> None:
    """Report in what the instances at work differ."""
    diagnosis.facts["instances"] = [
        {
            "name": one.lease.name,
            "instance": one.lease.instance,
            "version": one.lease.version,
            "limits": list(one.lease.limits),
            "clock_ms": round(_ahead(one) * 1e3, 3),
        }
        for one in found
    ]
    before = len(diagnosis.findings)
    versions = _by({one.lease.name: one.lease.version for one in found})
    if len(versions) > 1:
        told = "; ".join(f"{version} at {names}" for version, names in versions.items())
        diagnosis.warn("instances", f"their versions differ: {told}", "upgrade all to the same version")
    limits = _by({one.lease.name: ", ".join(sorted(one.lease.limits)) or "none" for one in found})
    if len(limits) > 1:
        told = "; ".join(f"{rules} at {names}" for rules, names in limits.items())
        cure = "start all with the same --limits; until then the lowest of each holds"
        diagnosis.warn("instances", f"their --limits differ: {told}", cure)
    if found:
        slow, fast = min(found, key=_ahead), max(found, key=_ahead)
        apart = _ahead(fast) - _ahead(slow)
        if apart > _APART:
            text = f"the clock of {fast.lease.name} is {apart:,.1f} s ahead of that of {slow.lease.name}"
            cure = "synchronise the clocks of all hosts (NTP)"
            diagnosis.warn("instances", f"{text}: after a take-over timeouts are off by as much", cure)
    if len(diagnosis.findings) == before:
        agreed = ", which agree in versions, limits and clocks" if len(found) > 1 else ""
        diagnosis.ok(
            "instances", f"{count(len(found), 'instance')} at work{agreed}" if found else "none at work"
        )


def _ahead(one: Found) -> float:
    """Return the clock of an instance minus that of the broker, in seconds; the way there counts as well."""
    return one.lease.renewed - one.time


def _by(values: dict[str, str]) -> dict[str, str]:
    """Return the names that share a value, by value."""
    names: dict[str, list[str]] = {}
    for name, value in values.items():
        names.setdefault(value, []).append(name)
    return {value: listed(some[:_SHOWN], len(some)) for value, some in names.items()}
