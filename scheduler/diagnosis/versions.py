"""Versions of nats-server, and what is known of them that concerns us.

A hole is in the table if its source names the versions. Sources: the server's release notes (nats.io,
docs.nats.io), its security advisories (GHSA numbers), and the analysis of 2.12.1 by Jepsen (jepsen.io).
"""

import re

from attrs import frozen

from scheduler.diagnosis import Diagnosis, Level

Version = tuple[int, int, int]

OLDEST: Version = (2, 10, 0)
"""The first with consumers of several filters, and with ``sync_interval``."""
TRACES: Version = (2, 11, 0)
"""The first where a message can be traced without being delivered."""
TESTED = (2, 15)
"""What our own tests run with."""


@frozen
class Hole:
    """Something wrong in a range of versions."""

    since: Version
    fixed: Version
    """The first version without it."""
    level: Level
    text: str
    replicated: bool = False
    """Whether only those with several replicas are concerned."""

    def concerns(self, version: Version) -> bool:
        """Whether a version has it."""
        return self.since <= version < self.fixed


HOLES = (
    Hole(
        (2, 10, 0),
        (2, 10, 23),
        Level.WARNING,
        "servers of a cluster that are killed may lose a whole stream (Jepsen, of 2.10.20 to 2.10.22), and"
        " replicas may disagree on what compare-and-set let in (before 2.10.19)",
        replicated=True,
    ),
    Hole(
        (2, 2, 0),
        (2, 10, 27),
        Level.WARNING,
        "who may use one account's JetStream API can delete another account's streams (GHSA-fhg8-qxh5-7q3w)",
    ),
    Hole(
        (2, 11, 0),
        (2, 11, 1),
        Level.WARNING,
        "who may use one account's JetStream API can delete another account's streams (GHSA-fhg8-qxh5-7q3w)",
    ),
    Hole(
        (2, 2, 0),
        (2, 11, 15),
        Level.WARNING,
        "who may restore one stream can restore it over another, the log included (GHSA-9983-vrx2-fg9c)",
    ),
    Hole(
        (2, 12, 0),
        (2, 12, 6),
        Level.WARNING,
        "who may restore one stream can restore it over another, the log included (GHSA-9983-vrx2-fg9c)",
    ),
    Hole(
        (2, 12, 0),
        (2, 12, 3),
        Level.WARNING,
        "removing a server from the cluster can lose what was acknowledged (repaired in part by 2.12.3)",
        replicated=True,
    ),
    Hole(
        (2, 2, 0),
        TRACES,
        Level.NOTE,
        "cannot say what we may publish without really publishing it (2.11 can)",
    ),
    Hole(
        (2, 2, 0),
        (2, 12, 0),
        Level.NOTE,
        "knows no `persist_mode`: with `sync_interval: always`, replies are captured at the disk's speed, and"
        " SCHEDULER_REPLIES, where a newer server made it, is offline (after a downgrade: nats stream rm)",
    ),
)


def parse(text: str) -> Version | None:
    """The three numbers of a version; None where there are none."""
    found = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
    return (int(found[1]), int(found[2]), int(found[3] or 0)) if found else None


def check_version(diagnosis: Diagnosis, *, replicas: int, jetstream: bool) -> None:
    """Say what is known of the server's version.

    Args:
        diagnosis: has the version, and gets the findings.
        replicas: how many servers are to keep what is stored.
        jetstream: whether builds are to be kept in JetStream.
    """
    version = parse(diagnosis.version)
    name = f"nats-server {diagnosis.version}"
    if version is None:
        diagnosis.note("server", f"{name}: a version that nothing is known of")
        return
    upgrade = "upgrade nats-server: " + ".".join(map(str, TESTED)) + " is what this scheduler is tested with"
    if jetstream and version < OLDEST:
        diagnosis.fail("server", f"{name} is too old to keep builds: it takes 2.10 or newer", upgrade)
        return
    known = [
        hole
        for hole in HOLES
        if hole.concerns(version) and jetstream and (replicas > 1 or not hole.replicated)
    ]
    if not known:
        tested = version[:2] == TESTED
        diagnosis.ok("server", f"{name}: no hole is known that concerns us" if tested else name)
    for hole in known:
        if hole.level is Level.WARNING:
            diagnosis.warn("server", f"{name}: {hole.text}", upgrade)
        else:
            diagnosis.note("server", f"{name} {hole.text}", upgrade)
    if version[:2] > TESTED:
        diagnosis.note(
            "server", f"{name} is newer than what this scheduler was tested with ({TESTED[0]}.{TESTED[1]})"
        )
