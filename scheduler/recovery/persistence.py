"""Persistence: all that the service does for its store, which depends on the kind of that.

Here stands that of a store which ends with the process. Others resume builds, from documents
(`scheduler.recovery.documents`) or from logs (`scheduler.recovery.durable`).
"""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from attrs import frozen

from scheduler.dispatch.connectors import Capture, Connectors
from scheduler.dispatch.router import Stray
from scheduler.jetstream.objects import Objects
from scheduler.recovery.orphans import Orphans
from scheduler.recovery.reopening import Reopener
from scheduler.recovery.replaying import Replayer
from scheduler.runtime.clock import BuildClock
from scheduler.runtime.executor import Executor
from scheduler.stores import Store
from scheduler.supervision.peers import Peers
from scheduler.supervision.planner import Planner
from scheduler.supervision.reader import BuildReader
from scheduler.supervision.reporting import Reporter
from scheduler.supervision.roster import Roster
from scheduler.supervision.runner import Runner
from scheduler.supervision.supervisor import Supervisor

_log = structlog.get_logger()


@frozen
class BuildParts:
    """The parts that run builds: with them builds can be resumed."""

    planner: Planner
    runner: Runner
    supervisor: Supervisor
    connectors: Connectors
    reader: BuildReader
    peers: Peers
    executor: Executor


class Recovery:
    """A recovery that is under way, as the rest of the service needs it; here nothing is recovered."""

    reopener: Reopener | None = None
    """Begins further runs of finished builds, where the store keeps them."""
    replayer: Replayer | None = None
    """Reads finished builds, where the store keeps them."""

    async def mark_stable(self) -> None:
        """Note that this process did not die of the builds that it resumed."""

    async def keep_experience(self) -> None:
        """Keep what was learnt, for the next process."""


class Persistence:
    """All that follows from the store; this base class is for one that ends with the process.

    Args:
        store: where builds are persisted.
        reporter: where reports go.
        max_builds: as of `Roster`.
    """

    instance = ""
    """The name of this process in what is kept; empty where it needs none."""
    capture: Capture | None = None
    """How replies are captured; None where they are not."""
    objects: Objects | None = None
    """Where definitions may be that are too large for a message; None where there is no such place."""

    def __init__(self, store: Store, reporter: Reporter, max_builds: int) -> None:
        self.store = store
        self.reporter = reporter
        self.roster = Roster(max_builds, reporter.waits)
        self.orphans = Orphans()
        self.id = secrets.token_hex(11)
        """This process in service discovery, and among those that stand by."""

    def clock(self, _build: str) -> BuildClock:
        """The clock of a build that is about to begin here, or to be looked at."""
        return BuildClock()

    def on_stray(self, _stray: Stray) -> bool:
        """Keep a reply for a build that is not held here; returns whether it is kept. Synchronous."""
        return False

    async def written(self) -> int:
        """A number that grows while any process works; raises BusError where it cannot be told."""
        return 0

    async def stand_by(self, peers: Peers) -> None:  # noqa: ARG002 - others ask them
        """Wait until this process is to work. Nothing is made meanwhile."""
        _log.warning("builds live in this process only and end with it", store=self.store.name)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Let the store work."""
        yield

    @asynccontextmanager
    async def recover(self, parts: BuildParts) -> AsyncIterator[Recovery]:  # noqa: ARG002 - others use them
        """Resume what earlier processes left; returns once new builds may be taken beside that."""
        yield Recovery()
