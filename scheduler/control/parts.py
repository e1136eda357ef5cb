"""Parts of the service that the functions of the verbs work with."""

import trio
from attrs import frozen

from scheduler.control.eta import EtaEstimator
from scheduler.control.finder import BuildFinder
from scheduler.control.pages import Pages
from scheduler.control.previews import Previews
from scheduler.control.reports import Reports
from scheduler.recovery.reopening import Reopener
from scheduler.supervision.reader import BuildReader
from scheduler.supervision.supervisor import Supervisor


@frozen
class Parts:
    """Parts of the service, handed to each function of a verb."""

    supervisor: Supervisor
    builds: BuildFinder
    eta: EtaEstimator
    reader: BuildReader
    pages: Pages
    reports: Reports
    previews: Previews

    @classmethod
    def of(
        cls, supervisor: Supervisor, eta: EtaEstimator, reader: BuildReader, reopener: Reopener | None
    ) -> "Parts":
        """Make the parts for the builds of a supervisor."""
        return cls(
            supervisor,
            BuildFinder(supervisor, reopener),
            eta,
            reader,
            Pages(),
            Reports(supervisor.store),
            Previews(eta),
        )

    async def run(self) -> None:
        """Drop what was kept for operators and is not asked for any more; never returns."""
        async with trio.open_nursery() as nursery:
            for part in (self.builds, self.reports, self.previews):
                nursery.start_soon(part.run)
