"""Parts of the service that the functions of the verbs work with."""

from collections.abc import Callable
from typing import Final

import trio
from attrs import frozen

from scheduler.control.eta import EtaEstimator
from scheduler.control.finder import BuildFinder
from scheduler.control.orders import OrderBook
from scheduler.control.pages import Pages
from scheduler.control.previews import Previews
from scheduler.control.report_reader import ReportReader
from scheduler.control.report_sources import source_of
from scheduler.control.reports import Reports
from scheduler.control.subscribers import Subscribers
from scheduler.control.verbs import Document
from scheduler.dispatch.slots import Slots
from scheduler.fleet.election import Election
from scheduler.fleet.fleet import Fleet
from scheduler.recovery.reopening import Reopener
from scheduler.recovery.replaying import Replayer
from scheduler.runtime.executor import Executor, ThreadExecutor
from scheduler.stores import Store
from scheduler.stores.jetstream import JetStreamStore
from scheduler.supervision.kept_reports import KeptReports
from scheduler.supervision.reader import BuildReader
from scheduler.supervision.roster import Roster

_MOST_BYTES: Final = 1024 * 1024
"""Bytes of an answer that every broker takes, by default."""


@frozen
class Parts:
    """Parts of the service, handed to each function of a verb."""

    roster: Roster
    store: Store
    slots: Slots
    builds: BuildFinder
    orders: OrderBook
    eta: EtaEstimator
    reader: BuildReader
    pages: Pages
    reports: Reports
    report_reader: ReportReader
    previews: Previews
    most_bytes: Callable[[], int]
    """Returns the most bytes of an answer that the broker takes now."""
    executor: Executor
    usual: Callable[[str], float | None]
    """Returns the seconds that a request of a subject usually takes; None where that is unknown."""
    subscribers: Subscribers | None = None
    """Tells who subscribes to what; None where nobody can be asked."""
    kept: KeptReports | None = None
    """Last reports of builds that have ended, where no store has any."""
    fleet: Fleet | None = None
    """This process and the others that share the builds of the store; None where it shares none."""
    election: Election | None = None
    """Election of the one scheduler that works; None where none is elected by lease."""

    @classmethod
    def of(
        cls,
        roster: Roster,
        store: Store,
        slots: Slots,
        *,
        eta: EtaEstimator,
        reader: BuildReader,
        reopener: Reopener | None = None,
        replayer: Replayer | None = None,
        kept: KeptReports | None = None,
        most_bytes: Callable[[], int] = lambda: _MOST_BYTES,
        executor: Executor | None = None,
        subscribers: Subscribers | None = None,
        fleet: Fleet | None = None,
        election: Election | None = None,
    ) -> "Parts":
        """Make the parts for the builds of a roster."""
        builds = BuildFinder(roster, store.name, reopener, replayer)
        reports = Reports(store)
        executor = executor or ThreadExecutor()
        return cls(
            roster,
            store,
            slots,
            builds,
            OrderBook(builds),
            eta,
            reader,
            Pages(),
            reports,
            ReportReader(builds, roster, source_of(store, reports, kept), executor),
            Previews(eta),
            most_bytes,
            executor,
            eta.usual,
            subscribers,
            kept,
            fleet,
            election,
        )

    def owned(self, build: str) -> Document:
        """Return owner and epoch of a build that runs here, as members of an answer; none without a fleet."""
        epoch = self.store.epoch(build) if isinstance(self.store, JetStreamStore) else 0
        return {"owner": self.fleet.name, "epoch": epoch} if self.fleet is not None and epoch else {}

    async def run(self) -> None:
        """Drop what was kept for operators and is not asked for any more; never returns."""
        async with trio.open_nursery() as nursery:
            for part in (self.builds, self.reports, self.report_reader, self.previews):
                nursery.start_soon(part.run)
