"""Persistence where the store keeps each build as a document, and is asked for what is unfinished."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from scheduler.dispatch.router import Stray
from scheduler.recovery.ernest import TakeUp
from scheduler.recovery.persistence import BuildParts, Persistence, Recovery
from scheduler.recovery.strays import Strays
from scheduler.runtime.background import open_background
from scheduler.stores import DocumentStore
from scheduler.supervision.peers import Peers
from scheduler.supervision.reporting import Reporter


class Documents(Persistence):
    """Resumes builds whose documents say that something runs, and those that replies point to.

    Args:
        store: has the documents.
        reporter: where reports go.
        max_builds: as of `Roster`.
    """

    def __init__(self, store: DocumentStore, reporter: Reporter, max_builds: int) -> None:
        super().__init__(store, reporter, max_builds)
        self._documents = store
        self._strays = Strays(self.roster)

    def on_stray(self, stray: Stray) -> bool:
        """As `Persistence.on_stray`: it may be of a build that the store has."""
        return self._strays.take(stray)

    async def stand_by(self, peers: Peers) -> None:
        """As `Persistence.stand_by`: two processes must not have the same builds."""
        await peers.stand_by()

    @asynccontextmanager
    async def recover(self, parts: BuildParts) -> AsyncIterator[Recovery]:
        """As `Persistence.recover`; the store may say later what it has."""
        take_up = TakeUp(
            self._documents,
            self._strays,
            supervisor=parts.supervisor,
            connectors=parts.connectors,
            read=parts.reader.read_back,
            executor=parts.executor,
        )
        async with open_background() as background:
            background.start_soon(take_up.run)
            yield Recovery()
