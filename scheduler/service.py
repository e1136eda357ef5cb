"""The service: takes builds in, runs them beside each other, and ends in order.

Its phases are nested, and begin and end as `Service.run` says. While it is open it takes builds; once stopped
it refuses them and awaits what is in flight; when its grace ends it stops waiting, and closes.

One file on purpose: the phases, in their order, beside the parts that they open.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import structlog
import trio
from attrs import define, field

from scheduler import __version__
from scheduler.bus import Bus, Listener, Presence
from scheduler.bus.discovery import Discovery, Identity
from scheduler.config import Settings
from scheduler.control.endpoint import Control
from scheduler.control.eta import EtaEstimator
from scheduler.control.parts import Parts
from scheduler.control.subscribers import Subscribers
from scheduler.dispatch.client import ConnectorClient
from scheduler.dispatch.slots import Slots
from scheduler.dispatch.timers import Timers
from scheduler.fleet.fleet import Superseded
from scheduler.metrics.tally import Tally
from scheduler.notifying import Notifier
from scheduler.notifying.poster import Poster
from scheduler.recovery.documents import Documents
from scheduler.recovery.durable import Durable
from scheduler.recovery.persistence import BuildParts, Persistence, Recovery
from scheduler.runtime.background import open_background
from scheduler.runtime.collector import Collector, Load
from scheduler.runtime.executor import Executor, ThreadExecutor
from scheduler.stores import DocumentStore, Store
from scheduler.stores.jetstream import JetStreamStore
from scheduler.supervision.feed import Feed
from scheduler.supervision.intake import Receipts
from scheduler.supervision.kept_reports import KeptReports
from scheduler.supervision.notices import counters_of, notices_of, open_notifier
from scheduler.supervision.passing import Passing
from scheduler.supervision.peers import Peers
from scheduler.supervision.planner import Planner
from scheduler.supervision.reader import BuildReader
from scheduler.supervision.reception import Reception
from scheduler.supervision.reporting import Publisher
from scheduler.supervision.roster import Roster
from scheduler.supervision.runner import Runner
from scheduler.supervision.supervisor import Supervisor
from scheduler.tracing.tracer import Tracer
from scheduler.web.console import Console
from scheduler.web.figures import Figures
from scheduler.web.health import Health

_log = structlog.get_logger()

NAME = "scheduler"
_SLOW = 60.0
"""Seconds after which a wait is logged, and between two looks for such waits."""
_GOODBYE = 0.3
"""Seconds for the server to confirm that it has all that we sent."""
_LAST_NOTICES = 1.0
"""Seconds to send, at the end, the notifications that wait."""
_LAST_SPANS = 1.0
"""Seconds to send, at the end, the spans that wait."""


@define
class Stopping:
    """Request to stop a service, which may be made before the service exists."""

    asked: trio.Event = field(factory=trio.Event)
    """Event to be set to stop the service in order."""
    ready: bool = False
    """Whether builds are taken; before that there is nothing to end in order."""
    give_up: Callable[[], Awaitable[None]] | None = None
    """Function that lets others have what this process holds, where it is to end before it is ready; None
    while it holds nothing."""


class Service:
    """Service of one process.

    Its parts do nothing until `run` is called.

    Args:
        settings: bounds and timeouts.
        bus: connection, already connected.
        store: store of the builds.
        listener: second connection that replies come in on, too.
        presence: answers PING in the loop's place, where it can.
        asked: connection for operators' questions and the answers; ``bus`` where it is None.
        submitted: connection on which builds come in; ``bus`` where it is None.
        shared: connection for shared subjects, as in `ConnectorClient`.
        collects: whether this service runs the garbage collector, which serves the whole process.
        executor: does long work beside the loop.
        stopping: request to stop, other than by `stop`.
        poster: posts notifications; where it is None, one is made if the settings ask for notifications.
        tracer: begins the traces of builds, and takes their spans.
    """

    def __init__(
        self,
        settings: Settings,
        bus: Bus,
        store: Store,
        *,
        listener: Listener | None = None,
        presence: Presence | None = None,
        asked: Bus | None = None,
        submitted: Bus | None = None,
        shared: Bus | None = None,
        collects: bool = False,
        executor: Executor | None = None,
        stopping: Stopping | None = None,
        poster: Poster | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self._settings = settings
        self._tracer = tracer or Tracer()
        self._poster = poster
        self._bus = bus
        self._asked = bus if asked is None else asked
        self._submitted = bus if submitted is None else submitted
        self._presence = presence
        self._collects = collects
        self._executor = executor or ThreadExecutor()
        self.persistence = persistence_of(store, bus, settings)
        self.roster = self.persistence.roster
        self.connectors = ConnectorClient(
            bus,
            # What is held back has its time yet.
            Timers(bus, lambda: store.available and self.persistence.may_send, self.roster.note_outage),
            timeouts=settings.timeout_for,
            heartbeats=settings.heartbeat_for if settings.heartbeats else None,
            start_timeout=settings.start_timeout,
            limits=settings.limits,
            listener=listener,
            instance=self.persistence.instance,
            shared=shared,
            executor=self._executor,
            capture=self.persistence.capture,
            on_stray=self.persistence.on_stray,
            shares=self.persistence.shares,
            sender_of=self.roster.sender_of,
            on_beat=self.roster.note_beat,
            tenure=self.persistence.tenure,
        )
        self.persistence.on_lapse = self.connectors.hold_back
        self.slots = Slots(
            settings.rules,
            per_instance=settings.max_in_flight,
            per_build=settings.max_in_flight_per_build,
            max_bytes=settings.max_bytes_in_flight,
        )
        self.persistence.share_limits(self.slots, settings.rules)
        self.planner = Planner(
            limits=settings.limits,
            templates=settings.templates.value,
            unresolved=settings.unresolved.value,
            retries=settings.retries,
            clock=self.persistence.clock,
            executor=self._executor,
        )
        self.reader = BuildReader(settings, self.persistence.objects, self._executor)
        self._stopping = stopping or Stopping()
        self._tally = None if settings.metrics is None else Tally()
        connections = {
            "requests": bus,
            "listener": listener,
            "questions": asked,
            "builds": submitted,
            "shared": shared,
        }
        self.figures = Figures(
            persistence=self.persistence,
            connectors=self.connectors,
            slots=self.slots,
            health=Health(bus, self.persistence, lambda: self._stopping.ready, self._stopping.asked.is_set),
            connections={name: one for name, one in connections.items() if one is not None},
            tally=self._tally,
            name=settings.name,
        )
        """Figures for operators."""
        self.console = Console(self._asked, settings.name, self._stopping.asked)
        """Access for the page."""

    @property
    def ready(self) -> bool:
        """Whether builds are taken."""
        return self._stopping.ready

    def stop(self) -> None:
        """Take no more builds, let what is in flight finish, and return from `run`."""
        self._stopping.asked.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until stopped; ``started`` when builds are taken.

        Raises:
            BusError: a subscription could not be made.
        """
        persistence, roster = self.persistence, self.roster
        peers = Peers(self._bus, NAME, persistence.id, persistence.written)
        if not await self._stand_by(peers):
            task_status.started()
            return
        self._stopping.give_up = self._give_up
        async with (
            open_notifier(self._settings, self._poster) as notifier,
            persistence.open(),
            # Before anything is sent or taken up, so that no reply comes before we listen.
            self._open_dispatch(),
            self._open_builds(peers, notifier) as parts,
            persistence.recover(parts) as recovery,
            self._open_control(recovery) as control,
        ):
            passing = None
            if persistence.fleet is not None:
                passing = Passing(persistence.fleet, self._bus, persistence.is_unfinished)
            load = dict if passing is None else passing.load
            receipts = Receipts(self._bus, roster.holds, load, self.figures.submissions)
            submit = parts.supervisor.submit
            reception = Reception(self._submitted, receipts, self.reader, submit, passing)
            async with self._open_collector(reception), reception.open():
                endpoints = [*reception.endpoints.values(), *control.endpoints.values()]
                identity = Identity(
                    NAME,
                    persistence.id,
                    __version__,
                    "Runs builds of infrastructure",
                    self.console.described(persistence.description),
                )
                counters = partial(self._counters, notifier)
                await Discovery(self._asked, identity, endpoints, self._presence, counters).open()
                _log.info("ready", version=__version__, **persistence.description)
                self._stopping.ready = True
                task_status.started()
                await self._stopping.asked.wait()
                # Whatever the broker does: from the signal on nothing leaves.
                roster.send_nothing()
                self.connectors.returned.stop()
                await persistence.begin_to_end()
                reception.stop_reading()
                roster.refuse_new()
                await recovery.mark_stable()
                await persistence.drain(self._settings.grace)
                async with trio.open_nursery() as last:
                    last.start_soon(self._tracer.finish, _LAST_SPANS)
                    if notifier is not None:
                        last.start_soon(notifier.finish, _LAST_NOTICES)
                    await self._close(recovery, reception)
        _log.info("stopped")

    async def _give_up(self) -> None:
        """Send nothing more, and let others have what this process holds; it is cancelled next.

        Without that its lease would keep them waiting until it has run out.
        """
        self.roster.send_nothing()
        self.connectors.returned.stop()
        self.roster.refuse_new()
        with trio.move_on_after(2 * _GOODBYE):
            try:
                await self.persistence.leave()
            except Superseded as error:
                _log.info("another process has what this one held", reason=str(error))

    def _counters(self, notifier: Notifier | None) -> Mapping[str, Any]:
        """Return what the answer to STATS says of this service."""
        return {**self.figures.brief(), **counters_of(notifier)}

    async def _close(self, recovery: Recovery, reception: Reception) -> None:
        """Keep what was learnt, take no more builds, and flush the answers."""
        with trio.move_on_after(_GOODBYE):
            await recovery.keep_experience()
        with trio.move_on_after(2 * _GOODBYE):
            await self.persistence.leave()
        # A silent server would not answer a flush either.
        if not await reception.close():
            with trio.move_on_after(_GOODBYE):
                await self._asked.flush()
                await self._bus.flush()

    async def _stand_by(self, peers: Peers) -> bool:
        """Wait until this process is to work; False where it is stopped first."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_when, self._stopping.asked, nursery.cancel_scope)
            await self.persistence.stand_by(peers)
            nursery.cancel_scope.cancel()
        return not self._stopping.asked.is_set()

    @asynccontextmanager
    async def _open_dispatch(self) -> AsyncIterator[None]:
        """Run the deadlines, the turns of replies and the slots, and listen for replies."""
        async with open_background() as background:
            await background.start(self.connectors.timers.run)
            background.start_soon(self.connectors.dispatcher.run)
            background.start_soon(self.connectors.hearing.run)
            background.start_soon(self.connectors.beats.run)
            background.start_soon(self.connectors.cancelling.run)
            background.start_soon(self.connectors.returned.run)
            if self.connectors.sending.held is not None:
                background.start_soon(self.connectors.sending.held.run)
            background.start_soon(self.slots.run)
            await self.connectors.listen()
            yield

    @asynccontextmanager
    async def _open_builds(self, peers: Peers, notifier: Notifier | None) -> AsyncIterator[BuildParts]:
        """Open the nursery that builds run in."""
        persistence, roster, store = self.persistence, self.roster, self.persistence.store
        feed = Feed(self._bus)
        async with open_background() as background:
            background.start_soon(feed.run)
            background.start_soon(feed.beats.run)
            background.start_soon(_log_long_waits, roster)
            runner = Runner(
                background,
                roster,
                store,
                connectors=self.connectors,
                slots=self.slots,
                feed=feed,
                reporter=persistence.reporter,
                completed=self.planner.durations.record,
                resending=self._settings.resend_for,
                on_orphan=persistence.orphans.note,
                executor=self._executor,
                notices=notices_of(self._settings, notifier),
                tally=self._tally,
                tracer=self._tracer,
            )
            name = "" if persistence.fleet is None else persistence.fleet.name
            supervisor = Supervisor(
                roster, self.planner, runner, store, persistence.note_orphan, name=name, tracer=self._tracer
            )
            yield BuildParts(
                self.planner, runner, supervisor, self.connectors, self.reader, peers, self._executor
            )

    @asynccontextmanager
    async def _open_control(self, recovery: Recovery) -> AsyncIterator[Control]:
        """Answer operators' questions and commands."""
        eta = EtaEstimator(
            self.planner.durations,
            self._settings.rules,
            self._settings.max_in_flight_per_build,
            self._executor,
        )
        parts = Parts.of(
            self.roster,
            self.persistence.store,
            self.slots,
            eta=eta,
            reader=self.reader,
            reopener=recovery.reopener,
            replayer=recovery.replayer,
            kept=self.persistence.kept,
            most_bytes=lambda: self._asked.max_payload,
            executor=self._executor,
            subscribers=Subscribers(self._asked),
            fleet=self.persistence.fleet,
            election=self.persistence.election,
        )
        control = Control(self._asked, parts)
        async with open_background() as background:
            await background.start(control.run)
            with self.console.answering(control):
                yield control

    @asynccontextmanager
    async def _open_collector(self, reception: Reception) -> AsyncIterator[None]:
        """Run the garbage collector, where this service is to do that."""
        async with open_background() as background:
            if self._collects:
                load = partial(load_of, self.roster, self.connectors, lambda: reception.bytes)
                await background.start(Collector(load).run)
            yield


def persistence_of(store: Store, bus: Bus, settings: Settings) -> Persistence:
    """Return the persistence for a store, by its kind."""
    if isinstance(store, JetStreamStore):
        return Durable(
            bus,
            store,
            max_builds=settings.max_builds,
            keep=settings.keep,
            name=settings.instance,
            limits=map(str, settings.rules),
        )
    if isinstance(store, DocumentStore) and store.resumable:
        return Documents(
            store,
            Publisher(bus),
            settings.max_builds,
            bus=bus,
            name=settings.instance,
            limits=map(str, settings.rules),
            replicas=settings.replicas,
        )
    kept = KeptReports()
    return Persistence(store, Publisher(bus, kept), settings.max_builds, kept)


def load_of(roster: Roster, connectors: ConnectorClient, waiting: Callable[[], int] = lambda: 0) -> Load:
    """Return the load of a service, by which garbage is collected.

    Args:
        roster: roster of the builds that are held.
        connectors: have the replies to them.
        waiting: returns the size of the builds that are not held yet, in bytes.
    """
    return Load(len(roster), roster.components, waiting() + roster.submitted_bytes + connectors.reader.bytes)


async def _log_long_waits(roster: Roster) -> None:
    """Log builds with long waits, and what they wait for; never returns."""
    while True:
        await trio.sleep(_SLOW)
        for build, component, wait in roster.long_waits(_SLOW)[:20]:
            _log.info("still waiting for a reply", build=build, component=component, seconds=round(wait))


async def _cancel_when(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()
