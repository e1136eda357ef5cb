"""Persistence: all that the service does for its store, by the store's kind.

This module has the one for a store that ends with the process. Others resume builds, from documents
(`scheduler.recovery.documents`) or from logs (`scheduler.recovery.durable`).
"""

import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

import structlog
from attrs import frozen

from scheduler.definition.rules import LimitRule
from scheduler.dispatch.client import Capture, ConnectorClient
from scheduler.dispatch.router import Stray
from scheduler.dispatch.tenure import Tenure
from scheduler.fleet.election import Election
from scheduler.fleet.fleet import Fleet
from scheduler.fleet.sharing import Quotas
from scheduler.jetstream.objects import Objects
from scheduler.recovery.orphans import Orphans
from scheduler.recovery.reopening import Reopener
from scheduler.recovery.replaying import Replayer
from scheduler.runtime.clock import BuildClock
from scheduler.runtime.executor import Executor
from scheduler.stores import Store
from scheduler.supervision.draining import drain
from scheduler.supervision.kept_reports import KeptReports
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
    """Parts of the service that a recovery resumes builds with."""

    planner: Planner
    runner: Runner
    supervisor: Supervisor
    connectors: ConnectorClient
    reader: BuildReader
    peers: Peers
    executor: Executor


class Recovery:
    """Recovery that is under way, as the rest of the service sees it; this base class recovers nothing."""

    reopener: Reopener | None = None
    """Reopener of finished builds; None where the store keeps none."""
    replayer: Replayer | None = None
    """Replayer of finished builds; None where the store keeps none."""

    async def mark_stable(self) -> None:
        """Note that this process did not die of the builds that it resumed."""

    async def keep_experience(self) -> None:
        """Keep the recorded durations for the next process."""


class Persistence:
    """Work of the service for its store; this base class is for a store that ends with the process.

    Args:
        store: store of the builds.
        reporter: sends the reports.
        max_builds: bound on builds, as in `Roster`.
        kept: last reports, in memory; None where the store has reports.
    """

    instance = ""
    """Name of this process in the store; empty where it needs none."""
    capture: Capture | None = None
    """Capture of replies; None where they are not captured."""
    fleet: Fleet | None = None
    """This process and the others that share the builds of its store; None where builds are not shared."""
    tenure: Tenure | None = None
    """Right of this process to send requests; None where nothing takes it away."""
    objects: Objects | None = None
    """Object store for definitions that are too large for a message; None where there is none."""

    def __init__(
        self, store: Store, reporter: Reporter, max_builds: int, kept: KeptReports | None = None
    ) -> None:
        self.store = store
        self.reporter = reporter
        self.kept = kept
        self.roster = Roster(max_builds, reporter.waits)
        self.on_lapse: Callable[[], None] = lambda: None
        """Callback for when the right to send is lost: what has not left is to be held back."""
        self.orphans = Orphans()
        self.id = secrets.token_hex(11)
        """Id of this process in service discovery, and among candidates."""

    @property
    def election(self) -> Election | None:
        """Election of the one scheduler that works; None where none is elected by lease."""
        return None

    @property
    def description(self) -> Mapping[str, str]:
        """Facts about this process for service discovery: its store, and its names in the fleet."""
        fleet = self.fleet
        names = {} if fleet is None else {"name": fleet.name, "key": fleet.key}
        return {"store": self.store.name} | ({"instance": self.instance} if self.instance else {}) | names

    def clock(self, _build: str) -> BuildClock:
        """Return the clock of a build that is about to begin here, or to be looked at."""
        return BuildClock()

    def on_stray(self, _stray: Stray) -> bool:
        """Keep a reply for a build that is not held here; returns whether it is kept. Synchronous."""
        return False

    def shares(self) -> bool:
        """Return whether other instances hear the same replies on shared subjects. Synchronous, and quick."""
        return self.fleet is not None and len(self.fleet.owners()) > 1

    async def is_unfinished(self, _build: str) -> bool:
        """Return whether any instance has a build of this id that is not reported; raises BusError."""
        return False

    @property
    def may_send(self) -> bool:
        """Whether this process may send the requests of its builds now."""
        return self.tenure is None or self.tenure.check()

    async def written(self) -> int:
        """Return a number that grows while any process works; raises BusError where it cannot be read."""
        return 0

    def share_limits(self, quotas: Quotas, rules: Sequence[LimitRule]) -> None:
        """Let the limits of the settings hold over all schedulers that share builds; called before `open`."""

    def note_orphan(self, _owner: str) -> None:
        """Note that a build whose last writer is ``_owner``, or unknown, may have no owner any more."""
        self.orphans.note()

    async def begin_to_end(self) -> None:
        """Say to others that this process takes no more builds, before it takes none."""

    async def drain(self, grace: float) -> None:
        """End the builds of this process, after `Roster.send_nothing`; in ``grace`` seconds."""
        await drain(self.roster, self.store, grace)

    async def leave(self) -> None:
        """Say to others, at the very end, that this process has ended; the caller sets the deadline."""

    async def stand_by(self, peers: Peers) -> None:  # noqa: ARG002 - others ask them
        """Wait until this process is to work. It creates nothing meanwhile."""
        _log.warning("builds live in this process only and end with it", store=self.store.name)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Open the store."""
        yield

    @asynccontextmanager
    async def recover(self, parts: BuildParts) -> AsyncIterator[Recovery]:  # noqa: ARG002 - others use them
        """Resume the builds of earlier processes; returns once new builds may be taken beside that."""
        yield Recovery()
