"""Persistence in logs: each says all about its build, and unfinished builds are resumed from theirs."""

from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager
from functools import partial

import trio
from attrs import frozen

from scheduler import __version__
from scheduler.bus import Bus
from scheduler.definition.rules import LimitRule
from scheduler.definition.tokens import encode_token
from scheduler.dispatch.client import Capture
from scheduler.errors import UnreadableLog
from scheduler.fleet.fleet import Fleet
from scheduler.fleet.lease import Load, Standing
from scheduler.fleet.sharing import Quotas, Sharing
from scheduler.jetstream.streams import log_subject
from scheduler.journal.records import Status, read_headers
from scheduler.recovery.captured import find_captured
from scheduler.recovery.experience import Experience
from scheduler.recovery.expired import ExpiredCalls
from scheduler.recovery.loader import Loader
from scheduler.recovery.persistence import BuildParts, Persistence, Recovery
from scheduler.recovery.reopening import Reopener
from scheduler.recovery.replaying import Replayer
from scheduler.recovery.restart import Restart, is_over
from scheduler.recovery.reviewing import review
from scheduler.runtime.background import open_background
from scheduler.runtime.clock import BuildClock
from scheduler.stores.full_streams import Discards
from scheduler.stores.jetstream import JetStreamStore
from scheduler.supervision.draining import drain, hand_over
from scheduler.supervision.giving import Rebalancer
from scheduler.supervision.peers import Peers
from scheduler.supervision.reporting import Recorder
from scheduler.supervision.retention import Retention
from scheduler.supervision.roster import Roster

_GOODBYE = 0.3
"""Seconds to say that this process takes no more builds."""


class Durable(Persistence):
    """Persistence in logs: resumes builds from them.

    Args:
        bus: the connection.
        store: store with the logs.
        max_builds: bound on builds, as in `Roster`.
        keep: seconds for which a finished build is kept.
        name: name of this instance in the fleet; that of the process where it is empty.
        limits: rules of ``--limits``, normalised.
    """

    fleet: Fleet

    def __init__(
        self,
        bus: Bus,
        store: JetStreamStore,
        *,
        max_builds: int,
        keep: float,
        name: str = "",
        limits: Iterable[str] = (),
    ) -> None:
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
        self.fleet = Fleet(
            store.js,
            instance=store.instance,
            name=name,
            version=__version__,
            load=partial(load_of, self.roster),
            limits=limits,
            replicas=store.layout.replicas,
            on_lapse=self._on_lapse,
            on_change=self.orphans.note,
            wall_clock=store.wall_clock,
        )
        self.sharing: Sharing
        self._idle = False
        """Whether nothing was in flight when its builds were left."""
        self.tenure = _Tenure(self.fleet, store)
        bus.before_sending(self.fleet.check)

    def clock(self, build: str) -> BuildClock:
        """Implement `Persistence.clock`: the clock of the build's log."""
        return self._store.clock(build)

    async def is_unfinished(self, build: str) -> bool:
        """Implement `Persistence.is_unfinished`, by the last record of its log."""
        last = await self._store.logs.last(log_subject(build))
        try:
            return last is not None and read_headers(last.headers).status is not Status.REPORTED
        except UnreadableLog:
            return True

    async def written(self) -> int:
        """Implement `Persistence.written`: the last sequence of the logs."""
        return await self._store.logs.written()

    def _on_lapse(self) -> None:
        """Let nothing leave that was begun while this process was sure of its builds. Synchronous."""
        self.sharing.suspend()
        self.on_lapse()
        self._bus.drop_buffered("the lease of this instance ran out")

    async def stand_by(self, peers: Peers) -> None:
        """Implement `Persistence.stand_by`: waits only for schedulers that keep no lease.

        Meanwhile it is checked whether another JetStream answers appends.
        """
        if self._store.account_streams is not None:
            await self._store.account_streams.look()
        await peers.stand_behind(self._leased)

    async def _leased(self) -> frozenset[str]:
        """Return the ids of the schedulers that keep a lease."""
        return frozenset(map(encode_token, await self.fleet.leased()))

    async def begin_to_end(self) -> None:
        """Implement `Persistence.begin_to_end`: no other instance passes builds on to this one any more."""
        with trio.move_on_after(_GOODBYE):
            await self.fleet.drain()
            # Another one may have been told to end in the same moment.
            await self.fleet.look()

    async def drain(self, grace: float) -> None:
        """Implement `Persistence.drain`: hands everything over where another instance is there to take it."""
        if any(one.lease.standing is Standing.ACTIVE for one in self.fleet.others()):
            self._idle = not load_of(self.roster).in_flight
            self.sharing.keep()
            await hand_over(self.roster, self._store)
        else:
            self._idle = await drain(self.roster, self._store, grace, self.sharing.keep)

    def note_orphan(self, owner: str) -> None:
        """Implement `Persistence.note_orphan`: what a live instance has is no orphan."""
        if owner == self.fleet.instance or owner not in self.fleet.owners():
            self.orphans.note()

    async def leave(self) -> None:
        """Implement `Persistence.leave`."""
        with trio.move_on_after(_GOODBYE):
            await self.sharing.leave(idle=self._idle)
        await self.fleet.leave()

    def share_limits(self, quotas: Quotas, rules: Sequence[LimitRule]) -> None:
        """Implement `Persistence.share_limits`: each instance has its part of them."""
        self.sharing = Sharing(self._store.js, self.fleet, quotas, rules, unfinished=self._owning)
        self._store.on_fenced(self.sharing.suspend)

    async def _owning(self) -> frozenset[str]:
        """Return the processes that own unfinished builds, or count their requests, as the logs say now."""
        async with aclosing(self._store.logs.entries()) as batches:
            return frozenset(
                [entry.counted_by async for entries in batches for entry in entries if not is_over(entry)]
            )

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
        await self.fleet.join()
        await self.sharing.join()
        async with open_background() as background:
            await background.start(self._store.run)
            background.start_soon(self.fleet.run)
            background.start_soon(self.sharing.run)
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
            other_owners=self._other_owners,
            on_left=self.fleet.tell_of_orphans,
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
            owners=partial(self._owners, parts.peers),
            may_work=self.fleet.renewed,
            is_first=self.fleet.is_first_for,
            taking_over=self.sharing.taking_over,
            heard=() if store.account_streams is None else store.account_streams.caught.messages,
        )
        rebalancer = Rebalancer(
            self.fleet, self._bus, roster, store, limits=self.sharing, on_orphan=self.orphans.note
        )
        experience = Experience(store, parts.planner.durations)
        async with open_background() as background:
            background.start_soon(restart.run)
            background.start_soon(rebalancer.run)
            background.start_soon(parts.peers.watch, self._leased, self.orphans.note)
            background.start_soon(Retention(store, self._keep).run)
            background.start_soon(Discards(store.js, store.replies.values, store.wall_clock).run)
            background.start_soon(experience.run)
            background.start_soon(review, roster, store.logs, self._other_owners)
            yield _UnderWay(restart, experience, reopener, replayer)

    def _other_owners(self) -> frozenset[str]:
        """Return the names of the other processes that own builds now."""
        return self.fleet.owners() - {self.fleet.instance}

    async def _owners(self, peers: Peers, writers: Collection[str]) -> frozenset[str]:
        """Return the ids of the processes that own builds, this one included, as of now.

        Args:
            peers: tell of schedulers that keep no lease.
            writers: processes that have written to the logs which are to be judged.
        """
        await self.fleet.look_until_seen()
        owners = frozenset(map(encode_token, self.fleet.owners()))
        if all(map(self.fleet.had_lease, writers)):
            return owners
        return owners | await peers.find_elders(self._leased)


@frozen
class _Tenure:
    """Right to send, by the lease of this instance; see `dispatch.tenure.Tenure`."""

    _fleet: Fleet
    _store: JetStreamStore

    def check(self) -> bool:
        """Return whether the lease is fresh."""
        return self._fleet.check()

    async def renewed(self) -> None:
        """Wait until it is."""
        await self._fleet.renewed()

    async def confirm(self, build: str) -> None:
        """Write a record into the log of the build."""
        await self._store.confirm(build)


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


def load_of(roster: Roster) -> Load:
    """Return what a process works at, by its roster."""
    walks = roster.walks()
    return Load(
        builds=len(walks),
        components=roster.components - sum(walk.plan.phases.settled for walk in walks),
        in_flight=sum(walk.plan.phases.in_flight for walk in walks),
        full=roster.full,
    )
