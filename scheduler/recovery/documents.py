"""Persistence for a store that keeps each build as a document, and is asked for unfinished ones."""

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
    """Persistence in documents: resumes builds with something running, and those that replies point to.

    Args:
        store: store with the documents.
        reporter: sends the reports.
        max_builds: bound on builds, as in `Roster`.
    """

    def __init__(self, store: DocumentStore, reporter: Reporter, max_builds: int) -> None:
        super().__init__(store, reporter, max_builds)
        self._documents = store
        self._strays = Strays(self.roster)

    def on_stray(self, stray: Stray) -> bool:
        """Implement `Persistence.on_stray`: the store may have the build of the reply."""
        return self._strays.take(stray)

    async def stand_by(self, peers: Peers) -> None:
        """Implement `Persistence.stand_by`: two processes must not have the same builds."""
        await peers.stand_by()

    @asynccontextmanager
    async def recover(self, parts: BuildParts) -> AsyncIterator[Recovery]:
        """Implement `Persistence.recover`; the store may name its builds later."""
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
