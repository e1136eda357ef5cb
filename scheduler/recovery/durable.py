"""Persistence in logs: each says all about its build, and unfinished builds are resumed from theirs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from scheduler.bus import Bus
from scheduler.definition.tokens import encode_token
from scheduler.dispatch.client import Capture
from scheduler.recovery.captured import find_captured
from scheduler.recovery.experience import Experience
from scheduler.recovery.expired import ExpiredCalls
from scheduler.recovery.loader import Loader
from scheduler.recovery.persistence import BuildParts, Persistence, Recovery
from scheduler.recovery.reopening import Reopener
from scheduler.recovery.replaying import Replayer
from scheduler.recovery.restart import Restart
from scheduler.runtime.background import open_background
from scheduler.runtime.clock import BuildClock
from scheduler.stores.full_streams import Discards
from scheduler.stores.jetstream import JetStreamStore
from scheduler.supervision.peers import Peers
from scheduler.supervision.reporting import Recorder
from scheduler.supervision.retention import Retention


class Durable(Persistence):
    """Persistence in logs: resumes builds from them.

    Args:
        bus: the connection.
        store: store with the logs.
        max_builds: bound on builds, as in `Roster`.
        keep: seconds for which a finished build is kept.
    """

    def __init__(self, bus: Bus, store: JetStreamStore, *, max_builds: int, keep: float) -> None:
        recorder = Recorder(bus, store)
        super().__init__(store, recorder, max_builds)
        self._bus = bus
        self._store = store
        self._recorder = recorder
        self._keep = keep
        self._expired = ExpiredCalls()
        self.id = encode_token(store.instance)
        self.instance = store.instance
        self.capture = Capture(store.layout, store.positions, self._expired.add)
        self.objects = store.objects

    def clock(self, build: str) -> BuildClock:
        """Implement `Persistence.clock`: the clock of the build's log."""
        return self._store.clock(build)

    async def written(self) -> int:
        """Implement `Persistence.written`: the last sequence of the logs."""
        return await self._store.logs.written()

    async def stand_by(self, peers: Peers) -> None:
        """Implement `Persistence.stand_by`; checks meanwhile whether another JetStream answers appends."""
        if self._store.account_streams is not None:
            await self._store.account_streams.look()
        await peers.stand_by()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Make the streams, and write the logs from then on.

        Raises:
            StoreError: it cannot work as it is; the message has the cure.
            LogMissing: the stream of all logs is gone, or was purged.
            BusError: JetStream could not be asked.
        """
        streams = self._store.account_streams
        if streams is not None:
            await streams.make()
            await self._store.sentinel.place()
        async with open_background() as background:
            await background.start(self._store.run)
            if streams is not None:
                background.start_soon(streams.watch)
            yield

    @asynccontextmanager
    async def recover(self, parts: BuildParts) -> AsyncIterator[Recovery]:
        """Implement `Persistence.recover`: the end of the captured replies is known then.

        Raises:
            BusError: JetStream could not be asked.
        """
        store, roster = self._store, self.roster
        replayer = Replayer(store, parts.planner, parts.reader.read_accepted)
        reopener = Reopener(
            store,
            replayer,
            planner=parts.planner,
            roster=roster,
            supervisor=parts.supervisor,
            runner=parts.runner,
            orphans=self.orphans,
        )
        loader = Loader(
            store,
            roster=roster,
            supervisor=parts.supervisor,
            runner=parts.runner,
            connectors=parts.connectors,
            recorder=self._recorder,
            replayer=replayer,
        )
        restart = Restart(
            self._bus,
            store,
            loader,
            await find_captured(store, parts.connectors, roster.holds),
            roster=roster,
            connectors=parts.connectors,
            orphans=self.orphans,
            expired=self._expired,
            live=parts.peers.look,
            heard=() if store.account_streams is None else store.account_streams.caught.messages,
        )
        experience = Experience(store, parts.planner.durations)
        async with open_background() as background:
            background.start_soon(restart.run)
            background.start_soon(parts.peers.watch, self.orphans.note)
            background.start_soon(Retention(store, self._keep).run)
            background.start_soon(Discards(store.js, store.replies.values, store.wall_clock).run)
            background.start_soon(experience.run)
            yield _UnderWay(restart, experience, reopener, replayer)


class _UnderWay(Recovery):
    """The recovery from logs."""

    def __init__(
        self, restart: Restart, experience: Experience, reopener: Reopener, replayer: Replayer
    ) -> None:
        self._restart = restart
        self._experience = experience
        self.reopener = reopener
        self.replayer = replayer

    async def mark_stable(self) -> None:
        """Implement `Recovery.mark_stable`."""
        await self._restart.mark_stable()

    async def keep_experience(self) -> None:
        """Implement `Recovery.keep_experience`."""
        await self._experience.keep()
