"""Versions of nats-server, and their known defects that concern us.

A defect is listed if its source names the versions. Sources: the server's release notes (nats.io,
docs.nats.io), its security advisories (GHSA numbers), and the analysis of 2.12.1 by Jepsen (jepsen.io).
"""

import re

from attrs import frozen

from scheduler.diagnosis import Diagnosis, Level

Version = tuple[int, int, int]

OLDEST: Version = (2, 10, 0)
"""First version with several filters for a consumer, and with ``sync_interval``."""
TRACES: Version = (2, 11, 0)
"""First version that can trace a message without delivering it."""
TESTED = (2, 15)
"""Version of our own tests."""


@frozen
class Defect:
    """Defect of a range of versions."""

    since: Version
    fixed: Version
    """First version without it."""
    level: Level
    text: str
    replicated: bool = False
    """Whether it only concerns streams with several replicas."""

    def concerns(self, version: Version) -> bool:
        """Tell whether a version has it."""
        return self.since <= version < self.fixed


DEFECTS = (
    Defect(
        (2, 10, 0),
        (2, 10, 23),
        Level.WARNING,
        "killed servers of a cluster may lose a whole stream (Jepsen, of 2.10.20 to 2.10.22), and replicas"
        " may disagree about records after a compare-and-set (before 2.10.19)",
        replicated=True,
    ),
    Defect(
        (2, 2, 0),
        (2, 10, 27),
        Level.WARNING,
        "who may use one account's JetStream API can delete another account's streams (GHSA-fhg8-qxh5-7q3w)",
    ),
    Defect(
        (2, 11, 0),
        (2, 11, 1),
        Level.WARNING,
        "who may use one account's JetStream API can delete another account's streams (GHSA-fhg8-qxh5-7q3w)",
    ),
    Defect(
        (2, 2, 0),
        (2, 11, 15),
        Level.WARNING,
        "who may restore one stream can restore it over another, the log included (GHSA-9983-vrx2-fg9c)",
    ),
    Defect(
        (2, 12, 0),
        (2, 12, 6),
        Level.WARNING,
        "who may restore one stream can restore it over another, the log included (GHSA-9983-vrx2-fg9c)",
    ),
    Defect(
        (2, 12, 0),
        (2, 12, 3),
        Level.WARNING,
        "removing a server from the cluster can lose acknowledged records (repaired in part by 2.12.3)",
        replicated=True,
    ),
    Defect(
        (2, 2, 0),
        TRACES,
        Level.NOTE,
        "cannot check what we may publish without really publishing it (2.11 can)",
    ),
    Defect(
        (2, 2, 0),
        (2, 12, 0),
        Level.NOTE,
        "has no `persist_mode`: with `sync_interval: always`, replies are captured at the disk's speed, and a"
        " SCHEDULER_REPLIES of a newer server is offline (after a downgrade: nats stream rm)",
    ),
)


def parse(text: str) -> Version | None:
    """Read the three numbers of a version; return None if there are none."""
    found = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
    return (int(found[1]), int(found[2]), int(found[3] or 0)) if found else None


def check_version(diagnosis: Diagnosis, *, replicas: int, jetstream: bool) -> None:
    """Report the known defects of the server's version.

    Args:
        diagnosis: the diagnosis, which has the version.
        replicas: the number of servers that store each build.
        jetstream: whether builds are stored in JetStream.
    """
    version = parse(diagnosis.version)
    name = f"nats-server {diagnosis.version}"
    if version is None:
        diagnosis.note("server", f"{name}: an unknown version")
        return
    upgrade = f"upgrade nats-server: this scheduler is tested with {'.'.join(map(str, TESTED))}"
    if jetstream and version < OLDEST:
        diagnosis.fail("server", f"{name} is too old to store builds: 2.10 or newer is needed", upgrade)
        return
    known = [
        defect
        for defect in DEFECTS
        if defect.concerns(version) and jetstream and (replicas > 1 or not defect.replicated)
    ]
    if not known:
        tested = version[:2] == TESTED
        diagnosis.ok("server", f"{name}: no known defect that concerns us" if tested else name)
    for defect in known:
        if defect.level is Level.WARNING:
            diagnosis.warn("server", f"{name}: {defect.text}", upgrade)
        else:
            diagnosis.note("server", f"{name} {defect.text}", upgrade)
    if version[:2] > TESTED:
        diagnosis.note("server", f"{name} is newer than the tested version ({TESTED[0]}.{TESTED[1]})")
