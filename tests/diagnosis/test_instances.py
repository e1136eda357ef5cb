"""What the doctor makes of the leases of the instances at work."""

import time
from typing import Any

import pytest
from support.fake_bus import FakeBus
from support.fake_jetstream import plug_into

from scheduler.diagnosis import Diagnosis, Level
from scheduler.diagnosis.instances import at_work, check_election, check_instances, judge
from scheduler.fleet.bucket import ELECTION, LeaseBucket
from scheduler.fleet.contested import KEY
from scheduler.fleet.lease import Found, Lease, Standing
from scheduler.jetstream.api import JetStream

NOW = 1_700_000_000.0


def found(name: str, *, ahead: float = 0.0, stored: float = NOW, **fields: Any) -> Found:
    """A lease whose holder's clock is ahead of the broker's."""
    lease = Lease(
        **{"instance": f"{name}-1", "name": name, "version": "1", "renewed": stored + ahead, **fields}
    )
    return Found(lease, 1, stored)


def judged(*leases: Found) -> Diagnosis:
    diagnosis = Diagnosis()
    judge(diagnosis, leases)
    return diagnosis


def test_instances_that_agree_are_well() -> None:
    """With their number; small differences of clocks are the way to the broker."""
    [one] = judged(found("a", ahead=-0.9), found("b", ahead=1.0)).findings
    assert (one.check, one.level) == ("instances", Level.OK)
    assert one.text == "2 instances at work, which agree in versions, limits and clocks"
    assert [one.text for one in judged(found("a")).findings] == ["1 instance at work"]
    assert [one.text for one in judged().findings] == ["none at work"]


def test_different_versions_are_a_warning() -> None:
    """With who has which."""
    [one] = judged(found("a"), found("b", version="2"), found("c", version="2")).findings
    assert (one.level, one.text) == (Level.WARNING, "their versions differ: 1 at a; 2 at b, c")


def test_different_limits_are_a_warning() -> None:
    """Their order means nothing; none at all is a difference, too."""
    same = found("a", limits=("x=1", "y=2")), found("b", limits=("y=2", "x=1"))
    assert [one.level for one in judged(*same).findings] == [Level.OK]
    [one] = judged(*same, found("c")).findings
    assert (one.level, one.text) == (Level.WARNING, "their --limits differ: x=1, y=2 at a, b; none at c")


@pytest.mark.parametrize(("ahead", "level"), [(1.9, Level.OK), (2.1, Level.WARNING)])
def test_clocks_that_are_two_seconds_apart_are_a_warning(ahead: float, level: Level) -> None:
    """Compared by the broker's, which stamps each renewal, whenever each was."""
    diagnosis = judged(found("slow"), found("b", ahead=0.5), found("fast", ahead=ahead, stored=NOW - 9))
    [one] = diagnosis.findings
    assert one.level is level
    assert level is Level.OK or one.text.startswith("the clock of fast is 2.1 s ahead of that of slow: ")
    assert [one["clock_ms"] for one in diagnosis.facts["instances"]] == [0, 500, round(ahead * 1_000)]


def test_only_leases_that_are_renewed_count() -> None:
    """Neither one of an instance that died, nor of one that ended; by the broker's clock."""
    dead, gone = found("dead", stored=NOW - 16), found("gone", standing=Standing.GONE)
    lives = found("b", stored=NOW - 14), found("a", standing=Standing.DRAINING)
    assert [one.lease.name for one in at_work([dead, gone, *lives], NOW)] == ["a", "b"]


async def test_the_leases_in_the_bucket_are_looked_at(fake_bus: FakeBus) -> None:
    """With the difference between the broker's clock and ours, which was measured before."""
    jetstream, js = plug_into(fake_bus), JetStream(fake_bus)
    diagnosis = Diagnosis()
    await check_instances(diagnosis, js, 1)
    assert [one.text for one in diagnosis.findings] == ["none yet"]
    bucket = LeaseBucket(js)
    await bucket.make(1)
    for name, version in (("a", "1"), ("b", "2")):
        await bucket.write(name, found(name, version=version).lease, expected=0)
    broker = jetstream.now() / 1e9
    diagnosis = Diagnosis(facts={"clock": {"difference_ms": (broker - time.time()) * 1e3}})
    await check_instances(diagnosis, js, 1)
    assert "their versions differ: 1 at a; 2 at b" in [one.text for one in diagnosis.findings]


async def test_leases_that_fewer_servers_keep_than_builds_are_a_warning(fake_bus: FakeBus) -> None:
    """While such a server is down, no instance can renew its lease."""
    plug_into(fake_bus)
    js = JetStream(fake_bus)
    await LeaseBucket(js).make(1)
    diagnosis = Diagnosis()
    await check_instances(diagnosis, js, 3)
    [one, _] = diagnosis.findings
    assert (one.level, one.cure) == (Level.WARNING, "nats stream edit KV_SCHEDULER --replicas=3")
    assert one.text.startswith("only 1 of 3 servers keep the leases")


async def test_leases_that_cannot_be_read_are_a_warning(fake_bus: FakeBus) -> None:
    """The doctor goes on."""
    fake_bus.forbidden = {"$JS.API.STREAM.INFO.KV_SCHEDULER"}
    diagnosis = Diagnosis()
    await check_instances(diagnosis, JetStream(fake_bus), 1)
    [one] = diagnosis.findings
    assert one.level is Level.WARNING
    assert one.text.startswith("their leases cannot be read: ")


@pytest.mark.parametrize(
    ("standing", "late", "text"),
    [
        (Standing.ACTIVE, 0.0, "a (version 1) has it, and works"),
        (Standing.ACTIVE, 60.0, "nobody has it: a (version 1) has not renewed it for 1m"),
        (Standing.GONE, 0.0, "nobody has it: a (version 1) has ended"),
    ],
)
async def test_the_lease_of_the_one_that_works_is_told(
    fake_bus: FakeBus, standing: Standing, late: float, text: str
) -> None:
    """With an Ernest store; by the broker's clock."""
    jetstream, js = plug_into(fake_bus), JetStream(fake_bus)
    bucket = LeaseBucket(js, ELECTION)
    for expected in ("none yet", "nobody has it"):
        diagnosis = Diagnosis()
        await check_election(diagnosis, js, 1)
        assert [one.text for one in diagnosis.findings] == [expected]
        await bucket.make(1)
    await bucket.write(KEY, found("a", standing=standing).lease, expected=0)
    broker = jetstream.now() / 1e9
    diagnosis = Diagnosis(facts={"clock": {"difference_ms": (broker + late - time.time()) * 1e3}})
    await check_election(diagnosis, js, 1)
    assert [one.level for one in diagnosis.findings] == [Level.OK]
    assert diagnosis.findings[0].text.startswith(text)


async def test_a_lease_of_the_one_that_works_that_cannot_be_used_is_a_warning(fake_bus: FakeBus) -> None:
    """It is not readable, or fewer servers keep it than there should be."""
    plug_into(fake_bus)
    js = JetStream(fake_bus)
    await LeaseBucket(js, ELECTION).make(1)
    diagnosis = Diagnosis()
    await check_election(diagnosis, js, 3)
    assert [one.level for one in diagnosis.findings] == [Level.WARNING, Level.OK]
    fake_bus.forbidden = {"$JS.API.STREAM.MSG.GET.KV_SCHEDULER"}
    diagnosis = Diagnosis()
    await check_election(diagnosis, js, 1)
    assert [one.level for one in diagnosis.findings] == [Level.WARNING]
