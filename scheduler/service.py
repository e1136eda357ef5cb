"""The service: takes builds in, runs each beside the others, and ends in order.

Its phases are nested. While it is open it takes builds; when it is stopped it refuses them and awaits
what is in flight; when its grace is over it stops waiting, and closes.
"""

import secrets

import structlog
import trio

from scheduler import __version__
from scheduler.bus import Bus, Listener, Message, Presence, Subscription
from scheduler.config import Settings
from scheduler.control.endpoint import Control
from scheduler.control.eta import EtaEstimator
from scheduler.control.parts import Parts
from scheduler.definition.tokens import encode_token
from scheduler.definition.validation import Prepared
from scheduler.dispatch.connectors import Connectors
from scheduler.dispatch.slots import Slots
from scheduler.dispatch.timers import Timers
from scheduler.errors import Hung, InvalidBuild, Problem
from scheduler.recovery.ernest import TakeUp
from scheduler.recovery.experience import Experience
from scheduler.recovery.loader import Loader
from scheduler.recovery.reopening import Reopener
from scheduler.recovery.replaying import Replayer
from scheduler.recovery.restart import Restart
from scheduler.runtime.clock import BuildClock
from scheduler.runtime.collector import Collector, Load
from scheduler.runtime.executor import Executor, ThreadExecutor
from scheduler.runtime.ratelimit import RateLimitedLog
from scheduler.stores import DocumentStore, Store
from scheduler.stores.discards import Discards
from scheduler.stores.jetstream import JetStreamStore
from scheduler.supervision import intake
from scheduler.supervision.admission import Admission, shutting_down
from scheduler.supervision.discovery import Discovery, Identity, ServiceEndpoint
from scheduler.supervision.feed import Feed
from scheduler.supervision.peers import Peers
from scheduler.supervision.reader import BuildReader
from scheduler.supervision.reporting import Publisher, Recorder
from scheduler.supervision.retention import Retention
from scheduler.supervision.supervisor import Supervisor

_log = structlog.get_logger()

NAME = "scheduler"
_SLOW = 60.0
"""Seconds after which a wait is worth a line in the log, and between two looks for such waits."""
_GOODBYE = 0.3
"""Seconds for the server to say that it has all that we sent."""
_SILENT = 0.7
"""Seconds without a word of the server, nor a build, after which builds are not waited for: this process may
get little of the processor."""
_LONGEST_GOODBYE = 3.0
"""Seconds, at most, while builds come: in a flood the server's word comes behind what it had sent."""
_LAST_ANSWERS = 1.0
"""Seconds to answer whatever build came in by then; three times as many where the server is not silent."""


class Service:
    """Everything one process does with builds.

    Args:
        settings: bounds and timeouts.
        bus: connected.
        store: where builds are persisted.
        listener: a second connection that replies come in on, too.
        presence: answers PING in the loop's place, where it can.
        asked: what operators' questions come in on, and are answered on; ``bus`` where it is None.
        submitted: what builds come in on; ``bus`` where it is None.
        shared: as of `Connectors`.
        collects: whether the garbage collector is this service's to run; it is the whole process's.
        executor: does what takes long beside the loop.
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
    ) -> None:
        self._settings = settings
        self._executor = executor or ThreadExecutor()
        self._bus = bus
        self._asked = bus if asked is None else asked
        self._submitted = bus if submitted is None else submitted
        self._store = store
        self._timers = Timers(bus, lambda: store.available)
        self._feed = Feed(bus)
        durable = self._durable = store if isinstance(store, JetStreamStore) else None
        self._connectors = Connectors(
            bus,
            self._timers,
            timeouts=settings.timeout_for,
            start_timeout=settings.start_timeout,
            limits=settings.limits,
            listener=listener,
            instance="" if durable is None else durable.instance,
            shared=shared,
            executor=self._executor,
            positions=None if durable is None else durable.positions,
        )
        self._slots = Slots(
            settings.rules,
            per_instance=settings.max_in_flight,
            per_build=settings.max_in_flight_per_build,
            max_bytes=settings.max_bytes_in_flight,
        )
        self._recorder = None if durable is None else Recorder(bus, durable)
        self._supervisor = Supervisor(
            store,
            self._connectors,
            self._slots,
            self._feed,
            self._recorder or Publisher(bus),
            limits=settings.limits,
            max_builds=settings.max_builds,
            templates=settings.templates.value,
            unresolved=settings.unresolved.value,
            resending=settings.resend_for,
            retries=settings.retries,
            clock=(lambda _: BuildClock()) if self._durable is None else self._durable.clock,
            executor=self._executor,
        )
        self._id = secrets.token_hex(11) if self._durable is None else encode_token(self._durable.instance)
        written = () if self._durable is None else (self._durable.logs.written,)
        self._peers = Peers(bus, NAME, self._id, *written)
        self._timers.on_resumed = self._supervisor.note_outage
        self._endpoints = {
            subject: ServiceEndpoint(subject.replace(".", "-"), subject, intake.QUEUE_GROUP)
            for subject in intake.SUBJECTS
        }
        self._restart: Restart | None = None
        self._reopener: Reopener | None = None
        self._stopping = trio.Event()
        self._answered = trio.Event()
        """Set when every build that came in has its answer, and no more are taken in."""
        self.ready = False
        """Whether builds are taken; before that there is nothing that would have to be ended in order."""
        self._interests: list[Subscription] = []
        self._reads: set[trio.CancelScope] = set()
        objects = None if self._durable is None else self._durable.objects
        self._reader = BuildReader(settings, objects, self._executor)
        self._connectors.dispatcher.sender_of = self._supervisor.sender_of
        self._receipts = intake.Receipts(bus, self._supervisor.holds)
        self._admission = Admission(self._receipts, self._take, self._reader.is_small)
        self._limited_log = RateLimitedLog(_log)
        self._presence = presence
        self._collects = collects

    def stop(self) -> None:
        """Take no more builds, let what is in flight finish, and return from `run`."""
        self._stopping.set()
        # Large builds take seconds to be read, and would only be refused then.
        for scope in self._reads:
            scope.cancel()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until stopped; ``started`` when builds are taken.

        Raises:
            BusError: a subscription could not be made.
        """
        if not self._store.resumable:
            _log.warning("builds live in this process only and end with it", store=self._store.name)
        elif not await self._stand_by():
            task_status.started()
            return
        ground = None if self._durable is None else self._durable.ground
        if self._durable is not None and ground is not None:
            await ground.lay()
            await self._durable.sentinel.place()
        experience: Experience | None = None
        async with trio.open_nursery() as background:
            await background.start(self._timers.run)
            background.start_soon(self._connectors.dispatcher.run)
            background.start_soon(self._connectors.hearing.run)
            background.start_soon(self._feed.run)
            background.start_soon(self._slots.run)
            background.start_soon(self._watch)
            if self._durable is not None:
                await background.start(self._durable.run)
            if ground is not None:
                background.start_soon(ground.watch)
            await background.start(self._supervisor.run)
            # Before anything is sent, and so before anything is taken up: a reply must find us listening.
            await self._connectors.listen()
            if self._durable is not None and self._recorder is not None:
                replayer = Replayer(self._durable, self._supervisor, self._reader.read_accepted)
                self._reopener = Reopener(
                    self._durable, replayer, self._supervisor, self._connectors.positions
                )
                loader = Loader(
                    self._durable,
                    supervisor=self._supervisor,
                    connectors=self._connectors,
                    recorder=self._recorder,
                    replayer=replayer,
                )
                restart = self._restart = Restart(
                    self._bus,
                    self._durable,
                    loader,
                    supervisor=self._supervisor,
                    connectors=self._connectors,
                    live=self._peers.look,
                )
                if ground is not None:
                    restart.heard = ground.caught.messages
                await restart.prepare()
                background.start_soon(restart.run)
                background.start_soon(self._peers.watch, restart.look_again)
                self._supervisor.on_orphan = restart.look_again
                background.start_soon(Retention(self._durable, self._settings.keep).run)
                store = self._durable
                discards = Discards(store.js, store.replies.values, store.wall_clock)
                background.start_soon(discards.run)
                experience = Experience(self._durable, self._supervisor.durations)
                background.start_soon(experience.run)
            elif isinstance(self._store, DocumentStore) and self._store.resumable:
                take_up = TakeUp(self._store, self._supervisor, self._connectors, self._reader.read_back)
                self._connectors.router.on_stray = take_up.on_stray
                background.start_soon(take_up.run)
            eta = EtaEstimator(
                self._supervisor.durations,
                self._settings.rules,
                self._settings.max_in_flight_per_build,
                self._executor,
            )
            parts = Parts.of(self._supervisor, eta, self._reader, self._reopener)
            control = Control(self._asked, parts)
            await background.start(control.run)
            if self._collects:
                await background.start(Collector(self._load).run)
            await background.start(self._take_in, control)
            _log.info("ready", store=self._store.name, version=__version__)
            self.ready = True
            task_status.started()
            await self._stopping.wait()
            self._supervisor.refuse_new()
            if self._restart is not None:
                await self._restart.mark_stable()
            await self._supervisor.drain(self._settings.grace)
            if experience is not None:
                with trio.move_on_after(_GOODBYE):
                    await experience.keep()
            await self._say_goodbye()
            background.cancel_scope.cancel()
        _log.info("stopped")

    def _load(self) -> Load:
        return Load(*self._supervisor.size(), self._admission.bytes + self._supervisor.bytes)

    async def _take_in(self, control: Control, *, task_status: trio.TaskStatus[None]) -> None:
        """Take builds in; while the service stops they are refused, until the intake is closed."""
        for subject in intake.SUBJECTS:
            interest = await self._submitted.subscribe(
                subject, self._admission.on_build, queue=intake.QUEUE_GROUP
            )
            self._interests.append(interest)
        identity = Identity(NAME, self._id, __version__, "Runs builds of infrastructure")
        endpoints = [*self._endpoints.values(), *control.endpoints.values()]
        await Discovery(self._asked, identity, endpoints, self._presence).open()
        task_status.started()
        await self._admission.run()
        self._answered.set()

    async def _say_goodbye(self) -> None:
        """Have every build that reached us answered, and every message of ours reach the server."""
        silent = await self._unsubscribe()
        self._admission.close()
        with trio.move_on_after(_LAST_ANSWERS if silent else 3 * _LAST_ANSWERS):
            await self._answered.wait()
        if not silent:
            with trio.move_on_after(_GOODBYE):
                await self._asked.flush()
                await self._bus.flush()

    async def _unsubscribe(self) -> bool:
        """Have no more builds sent to us; returns whether the server was silent."""
        longest = trio.current_time() + _LONGEST_GOODBYE
        with trio.move_on_after(_SILENT) as patience:
            async with trio.open_nursery() as watching:
                watching.start_soon(self._be_patient, patience, longest)
                async with trio.open_nursery() as nursery:
                    for interest in self._interests:
                        nursery.start_soon(interest.unsubscribe)
                watching.cancel_scope.cancel()
        return patience.cancelled_caught

    async def _be_patient(self, patience: trio.CancelScope, longest: float) -> None:
        """Move a deadline for as long as builds come, up to ``longest`` by Trio's clock; never returns."""
        came = self._admission.came
        while True:
            await trio.sleep(_SILENT / 10)
            if self._admission.came > came:
                came = self._admission.came
                patience.deadline = min(trio.current_time() + _SILENT, longest)

    async def _take(self, message: Message, sender: str) -> None:
        began = trio.current_time()
        error = ""
        try:
            prepared = await self._read_unless_stopped(message)
            over = await self._supervisor.submit(prepared, sender)
            self._receipts.accept(message, prepared.build.id, finished=over)
        except InvalidBuild as refusal:
            error = str(refusal)
            self._receipts.reject(message, refusal)
        except Hung as hung:
            error = f"it cannot be taken: {hung}"
            self._receipts.reject(message, InvalidBuild("invalid", [Problem("", error)]))
        except Exception as fault:  # noqa: BLE001 - a bug of ours, set off by this message, must cost no other
            self._limited_log.exception("internal error: a build was not accepted", subject=message.subject)
            error = f"internal error in the scheduler ({type(fault).__name__}); see its log"
            internal = InvalidBuild("internal", [Problem("", error)])
            self._receipts.reject(message, internal)
        finally:
            self._endpoints[message.subject].served(trio.current_time() - began, error)

    async def _read_unless_stopped(self, message: Message) -> Prepared:
        with trio.CancelScope() as scope:
            self._reads.add(scope)
            try:
                if not self._stopping.is_set():
                    return await self._reader.read_submitted(message.data, message.subject)
            finally:
                self._reads.discard(scope)
        raise shutting_down()

    async def _watch(self) -> None:
        """Say in the log which builds wait long, and for what."""
        while True:
            await trio.sleep(_SLOW)
            for build, component, wait in self._supervisor.long_waits(_SLOW)[:20]:
                _log.info("still waiting for a reply", build=build, component=component, seconds=round(wait))

    async def _stand_by(self) -> bool:
        """Wait until this process is to work; False where we are stopped first. Nothing is made meanwhile."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_when, self._stopping, nursery.cancel_scope)
            if self._durable is not None and self._durable.ground is not None:
                await self._durable.ground.look()
            await self._peers.stand_by()
            nursery.cancel_scope.cancel()
        return not self._stopping.is_set()


async def _cancel_when(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()


async def serve(
    settings: Settings,
    bus: Bus,
    store: Store,
    *,
    task_status: trio.TaskStatus[Service] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run a `Service` until it is stopped; ``started`` with it when builds are taken."""
    service = Service(settings, bus, store)
    async with trio.open_nursery() as nursery:
        await nursery.start(service.run)
        task_status.started(service)
