"""Parts of the service that the functions of the verbs work with."""

import trio
from attrs import frozen

from scheduler.control.eta import EtaEstimator
from scheduler.control.finder import BuildFinder
from scheduler.control.pages import Pages
from scheduler.control.previews import Previews
from scheduler.control.reports import Reports
from scheduler.dispatch.slots import Slots
from scheduler.recovery.reopening import Reopener
from scheduler.recovery.replaying import Replayer
from scheduler.stores import Store
from scheduler.supervision.reader import BuildReader
from scheduler.supervision.roster import Roster


@frozen
class Parts:
    """Parts of the service, handed to each function of a verb."""

    roster: Roster
    store: Store
    slots: Slots
    builds: BuildFinder
    eta: EtaEstimator
    reader: BuildReader
    pages: Pages
    reports: Reports
    previews: Previews

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
    ) -> "Parts":
        """Make the parts for the builds of a roster."""
        return cls(
            roster,
            store,
            slots,
            BuildFinder(roster, store.name, reopener, replayer),
            eta,
            reader,
            Pages(),
            Reports(store),
            Previews(eta),
        )

    async def run(self) -> None:
        """Drop what was kept for operators and is not asked for any more; never returns."""
        async with trio.open_nursery() as nursery:
            for part in (self.builds, self.reports, self.previews):
                nursery.start_soon(part.run)
