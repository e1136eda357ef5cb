"""Persistence for a store that keeps each build as a document, and is asked for unfinished ones.

Such a store has no compare-and-set, so one scheduler works at a time. Where the broker has JetStream it is
elected by lease (`scheduler.fleet.election`); otherwise the others stand by while one is present.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import trio
from attrs import frozen

from scheduler import __version__
from scheduler.bus import Bus
from scheduler.bus.server import server_info
from scheduler.dispatch.router import Stray
from scheduler.errors import NotPermitted
from scheduler.fleet.absences import INSTANCE
from scheduler.fleet.bucket import BUCKET
from scheduler.fleet.election import Election
from scheduler.jetstream.api import JetStream
from scheduler.plan.report import Report
from scheduler.recovery.durable import load_of
from scheduler.recovery.ernest import TakeUp
from scheduler.recovery.persistence import BuildParts, Persistence, Recovery
from scheduler.recovery.strays import Strays
from scheduler.runtime.background import open_background
from scheduler.runtime.logger import Logger
from scheduler.stores import DocumentStore
from scheduler.stores.absence import NONE, Absence, find_absence
from scheduler.supervision.draining import drain, hand_over
from scheduler.supervision.peers import Peers
from scheduler.supervision.reporting import Reporter

log = Logger()

BY_PRESENCE: Final = "no scheduler is elected by lease: others stand by while one is present"
_READY: Final = 5.0
"""Seconds for JetStream to become ready, at the start."""
_SURELY_READY: Final = 60.0
"""Seconds for that where the server has it. Not for ever: the account may have none, and where somebody
subscribes to everything, that is silence as well."""
_AGAIN: Final = 1.0
_SETTLE: Final = 0.5
"""Seconds for what is being persisted, before the lease is given up."""
_HEARD: Final = 0.1
"""Seconds for which a process persists what it has heard, after another one has taken its lease: that one
may not have listened yet when it came."""
_APPLIED: Final = 0.4
"""Seconds for the store to carry out what the last holder of the lease has sent, up to `_HEARD` later."""
_LEASES: Final = (f"$KV.{BUCKET}.", "$JS.API.", "$SRV.", "$SYS.", "scheduler.fleet.", INSTANCE)
"""Beginnings of the subjects on which a process publishes whose lease ran out."""


def _stays(subject: str) -> bool:
    """Return whether a message on a subject is to wait until this process has its lease again."""
    return not subject.startswith(_LEASES)


class Documents(Persistence):
    """Persistence in documents: resumes builds with something running, and those that replies point to.

    Args:
        store: store with the documents.
        reporter: sends the reports.
        max_builds: bound on builds, as in `Roster`.
        bus: the connection.
        name: name of this instance, kept over restarts; the id of the process where it is empty.
        limits: rules of ``--limits``, normalised.
        replicas: number of servers that keep the lease.
    """

    def __init__(
        self,
        store: DocumentStore,
        reporter: Reporter,
        max_builds: int,
        *,
        bus: Bus,
        name: str = "",
        limits: Iterable[str] = (),
        replicas: int = 1,
    ) -> None:
        super().__init__(store, reporter, max_builds)
        self._documents = store
        self._strays = Strays(self.roster)
        self._bus = bus
        self._election = Election(
            JetStream(bus),
            instance=self.id,
            name=name,
            version=__version__,
            load=partial(load_of, self.roster),
            limits=limits,
            replicas=replicas,
            on_lapse=self._on_lapse,
            on_regain=partial(bus.withhold, None),
            on_passed_over=self._strays.forget,
        )
        self._by_lease = False
        """Whether the scheduler that works is elected by lease."""
        self._offering = False
        """Whether the lease is offered to others: what comes in is persisted, and nothing else is done."""
        self.tenure = tenure = _Tenure(self._election)
        self.reporter = _Reporter(reporter, tenure)
        store.may_ask = lambda: self._offering or tenure.check()
        bus.before_sending(tenure.check)

    @property
    def election(self) -> Election | None:
        """The lease of the scheduler that works; None where it is found by presence."""
        return self._election if self._by_lease else None

    @property
    def description(self) -> Mapping[str, str]:
        """Facts about this process for service discovery, with its name and how it came to work."""
        way = "lease" if self._by_lease else "presence"
        return {**super().description, "name": self._election.name, "elected": way}

    def on_stray(self, stray: Stray) -> bool:
        """Implement `Persistence.on_stray`: the store may have the build of the reply."""
        return self._strays.take(stray)

    def shares(self) -> bool:
        """Implement `Persistence.shares`: while another process has the lease, that one hears all.

        One that gives it up persists what it heard before. So nothing is lost where this one keeps what comes
        from when it is about to be elected.
        """
        election = self._election
        return self._by_lease and not election.elected and not election.vacant

    def _on_lapse(self) -> None:
        """Let nothing leave any more but what the lease needs. Synchronous."""
        self.on_lapse()
        self._bus.withhold(_stays)
        if not self._election.keeper.tenure.holds(trio.current_time()):
            self._bus.drop_buffered("the lease of this scheduler ran out")

    # ---- who works

    async def stand_by(self, peers: Peers) -> None:
        """Implement `Persistence.stand_by`: two processes must not have the same builds."""
        self._by_lease = await self._has_lease()
        if self._by_lease:
            await self._election.await_vacancy(peers.is_absent)
        else:
            await peers.stand_by()

    async def _has_lease(self) -> bool:
        """Return whether there is a lease to be elected by; if not, that is said."""
        # The server is asked first: where somebody subscribes to everything, JetStream's absence is silence.
        server = await server_info(self._bus)
        absence: Absence | None = NONE
        if server is None or server.jetstream or server.cluster:
            # Where the server has it, somebody may have the lease already, and be silent as JetStream is.
            sure = server is not None and server.jetstream
            absence = await find_absence(self._bus)
            if sure and absence is not None and absence.passing:
                log.warning("waiting for JetStream", reason=absence.text, cure=absence.cure)
            with trio.move_on_after(_SURELY_READY if sure else _READY if server is not None else 0):
                while absence is not None and absence.passing:
                    await trio.sleep(_AGAIN)
                    absence = await find_absence(self._bus)
        if absence == NONE:
            log.info(BY_PRESENCE, reason="the broker has no JetStream")
            return False
        reason = absence.text if absence is not None else await self._election.open()
        if reason:
            _warn(reason)
        return not reason

    async def _be_elected(self, peers: Peers, start_soon: Callable[..., object]) -> None:
        """Wait until this process works, and keep its lease from then on; replies are heard meanwhile."""
        try:
            await self._election.take(peers.is_absent)
        except NotPermitted as error:
            _warn(str(error))
            self._by_lease = False
            await peers.stand_by()
            return
        start_soon(self._election.run)
        await peers.stand_elected(
            self._leased, inherited=self._election.inherited, alone=self._election.alone
        )
        if self._election.inherited:
            await trio.sleep(_APPLIED)

    async def _leased(self) -> frozenset[str]:
        """Return the ids of the processes that had the lease."""
        return self._election.seen

    # ---- working, and ending

    @asynccontextmanager
    async def recover(self, parts: BuildParts) -> AsyncIterator[Recovery]:
        """Implement `Persistence.recover`; the store may name its builds later.

        Where there is a lease it is taken here, as replies are heard by now: the last holder may have ended.
        """
        take_up = TakeUp(
            self._documents,
            self._strays,
            supervisor=parts.supervisor,
            connectors=parts.connectors,
            read=parts.reader.read_back,
            executor=parts.executor,
        )
        async with open_background() as background:
            if self._by_lease:
                await self._be_elected(parts.peers, background.start_soon)
            background.start_soon(take_up.run)
            yield Recovery()

    async def drain(self, grace: float) -> None:
        """Implement `Persistence.drain`: hands everything over where another scheduler takes the lease."""
        if self._by_lease and self.roster.walks() and await self._hand_over():
            await hand_over(self.roster, self.store)
        else:
            await drain(self.roster, self.store, grace)

    async def _hand_over(self) -> bool:
        """Offer the lease to others; returns whether this process is not to do anything more."""
        with trio.move_on_after(_SETTLE):
            await self.store.settle()
        self._offering = True
        try:
            taken = await self._election.hand_over()
            if taken:
                await trio.sleep(_HEARD)
            return taken
        finally:
            self._offering = False

    async def leave(self) -> None:
        """Implement `Persistence.leave`."""
        if self._by_lease:
            await self._election.leave()


def _warn(reason: str) -> None:
    cure = "let this user use the bucket of the lease (`scheduler permissions` prints all that it takes)"
    log.warning(BY_PRESENCE, reason=reason, cure=cure)


@frozen
class _Tenure:
    """Right to send, by the lease where there is one; see `dispatch.tenure.Tenure`."""

    _election: Election

    def check(self) -> bool:
        """Return whether requests may be sent."""
        return not self._election.elected or self._election.keeper.check()

    async def renewed(self) -> None:
        """Wait until they may."""
        if self._election.elected:
            await self._election.keeper.renewed()

    async def confirm(self, build: str) -> None:
        """Return at once: a renewal shows that nobody else had the lease, and with it the builds."""


@frozen
class _Reporter:
    """Reporter that waits while this process may send nothing: another one may have the build."""

    _reporter: Reporter
    _tenure: _Tenure

    def waits(self, build: str) -> str:
        """Return why the report of a build is not out yet; empty where none is under way."""
        return self._reporter.waits(build)

    async def report(self, build: str, report: Report) -> None:
        """Publish a report, as soon as this process may."""
        while not self._tenure.check():
            await self._tenure.renewed()
        await self._reporter.report(build, report)
