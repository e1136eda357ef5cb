"""Runs one build: one nursery, and in it one task per component.

Each task waits until the dependencies of its component are settled, takes a slot, asks the plan, persists
that it starts, sends the request and awaits the reply on a memory channel. All decisions are the plan's;
this module only carries them out, in the order that the promises need:

- a request leaves after its start was persisted, and after every outcome it depends on was;
- whether it may still leave is asked in the same breath as it is handed to the bus;
- a component's settled event is set whatever happens, so that nobody waits for ever.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import structlog
import trio

from scheduler.build.attempts import Attempts, store_failure
from scheduler.build.ports import Journey, Observer, Resending, Sender
from scheduler.call import Call
from scheduler.errors import Fenced, LogRemoved, Refused, StoreError
from scheduler.events import Event, Settled
from scheduler.graph import Vertex
from scheduler.model import Resend
from scheduler.outcome import failure
from scheduler.plan import Phase, Plan, Request
from scheduler.report import Report
from scheduler.slots import Slots
from scheduler.stores import Store

_log = structlog.get_logger()

_SPAWNED_AT_ONCE = 25
"""Tasks started between two looks at everything else: a millisecond or two, where they begin at once."""
_IN_ORDER = 100
"""Tasks that begin one after another where there are limits: the first ones may take all there is."""
_LARGE = 2_000
"""Changes from which on a report is made beside the loop: it would take milliseconds of it."""
_WOKEN_AT_ONCE = 50
"""Dependents that go on between two looks at everything else."""


class Walk(Attempts):
    """The run of one build.

    Args:
        plan: decides.
        connectors: takes requests, gives replies.
        store: is told of every step before the next one.
        slots: how many requests may be in flight.
        observer: is told of everything.
        priorities: by vertex: of those that wait for a slot the highest goes first.
        key: what the reply subjects of this build begin with, so that a later process knows them; where it
            is empty, they are known to this process only.
        journey: an earlier process began the build, and the plan was replayed from its log.
        resending: when a request without a reply is sent again.
    """

    def __init__(
        self,
        plan: Plan,
        connectors: Sender,
        store: Store,
        slots: Slots,
        observer: Observer | None = None,
        *,
        priorities: Sequence[float] = (),
        key: str = "",
        journey: Journey | None = None,
        resending: Resending = lambda _: Resend.UNSENT,
    ) -> None:
        super().__init__(
            plan, connectors, store, slots, observer, key=key, journey=journey, resending=resending
        )
        self._priorities = priorities
        self.fenced = False
        """Whether another process has the build now."""
        self.log_removed = False
        """Whether its log is gone, and no other process has ended it: this one reports what it holds."""
        self.stuck = False
        """Whether it could not even begin to go on."""
        self._scope = trio.CancelScope()
        self.listening = trio.Event()
        """Set once the replies to what an earlier process sent are waited for."""
        self._settled = bytearray(b"\1" * len(plan.graph.ids))
        """By vertex: whether nobody has to wait for it (any more)."""
        self._awaited: dict[Vertex, list[trio.Event]] = {}
        """The settled events of those that somebody waits for: most are never needed."""
        self._nursery: trio.Nursery | None = None
        self._tasks: list[Vertex] = []
        self._alive: set[Vertex] = set()
        """Whose task runs, or is about to."""

    async def run(self) -> Report | None:
        """Walk the graph to its end, whatever that is.

        Returns:
            The report; or None where the process is to end and the store can resume the build: it then
            stands in the store as it is.
        """
        log = _log.bind(build=self.id)
        try:
            with self._scope:
                await self._components()
            if not self.plan.over and not self.plan.halted:
                self.plan.finish()  # raises, and says what is stuck
        except* Exception:  # a bug of ours: it costs this build, and no other
            if self._journey is not None and not self._acted:
                # As the next version may do better: the log has it as it was.
                log.exception("the build cannot be gone on with by a fault of the scheduler")
                self.stuck = True
            else:
                stranded = list(self.plan.in_flight_ids())
                log.exception("the build failed by a fault of the scheduler", in_flight=stranded[:20])
                await self._give_up_on_the_rest(
                    "a fault in the scheduler; see its log. The outcome is unknown"
                )
        finally:
            self.listening.set()
            for step in self._resumed.values():
                if isinstance(step, Call):
                    step.close()
            for call in self._given_up:
                call.close()
        return None if self.fenced or self.stuck else await self._end()

    async def _end(self) -> Report | None:
        if not self.plan.over and self.plan.stopped and self._store.resumable and not self.log_removed:
            adopted = self.plan.adopted()
            if self._store.in_order:
                # What was noted has to be in the log before anything else makes its position move.
                await self._persist(*adopted)
            else:
                await self._persist_at_the_end(*adopted)
            return None
        if not self.plan.over:
            await self._give_up_on_the_rest("the scheduler was shut down before there was a reply")
        kept = self.plan.finished or await self._persist_at_the_end(*self.plan.adopted(), self.plan.finish())
        if not kept and self._store.in_order and not self.log_removed:
            # The log is the truth: what it does not say to be over is gone on with by the next process.
            _log.error(
                "the end of the build could not be committed: it is left to the next process", build=self.id
            )
            return None
        if len(self._tasks) < _LARGE:
            return self.plan.report()
        return await trio.to_thread.run_sync(self.plan.report)

    def stop(self) -> None:
        """Send nothing more, because this process is to end; what is in flight is awaited."""
        self.plan.stop()
        self.recall()

    async def persist(self, *events: Event) -> None:
        """Persist what an operator did, before it is acknowledged.

        Raises:
            Refused: it could not be persisted, and the build is halted by that.
        """
        order = self._order = trio.Event()
        try:
            kept = await self._persist(*events)
        finally:
            order.set()
        if not kept:
            raise Refused("unavailable", f"it could not be persisted: {self.plan.shown_cause}")

    def tell(self, what: str, vertex: Vertex | None = None) -> None:
        """Let who follows the build know what an operator did."""
        self._observer.happened(what, vertex)

    def told_to_wait(self, vertices: Iterable[Vertex]) -> None:
        """These had an outcome, or would have been left out, and wait again."""
        for vertex in vertices:
            # Neither a pause nor the time of its attempts so far is of any meaning now.
            self._retry_at.pop(vertex, None)
            self._first_sent.pop(vertex, None)
            self._observer.waits(vertex)

    def give_up_on_replies(self, why: str) -> None:
        """Await nothing more: what is in flight fails, its outcome unknown."""
        resumed = [call for call in self._resumed.values() if isinstance(call, Call)]
        for call in [*self._calls, *resumed]:
            call.deliver(failure(f"outcome unknown: {why}", retryable=False))

    def give_up(self, within: float) -> None:
        """Stop waiting for replies; what is being persisted has ``within`` seconds to be done."""
        self._scope.deadline = trio.current_time() + within
        if self._store.in_order:
            self._connectors.leave(self.id)
        for call in list(self._calls):
            if self._store.resumable:
                call.leave()
            else:
                unknown = "the scheduler was shut down before there was a reply: outcome unknown"
                call.deliver(failure(unknown, retryable=False))

    def lose(self, error: StoreError) -> None:
        """Nothing more can be persisted: send nothing more, and where another process has the build, stop."""
        if not isinstance(error, Fenced):
            cause = store_failure(error)
            if not self.log_removed:
                _log.error("the store failed", build=self.id, error=self.plan.masked(cause))
            # No other process can know of the build any more: it is to be reported by this one.
            self.log_removed = isinstance(error, LogRemoved)
            self.halt(cause)
        elif not self.fenced:
            _log.error(
                "another process has the build: nothing more is done here", build=self.id, why=str(error)
            )
            self.fenced = True
            self.plan.stop()
            self._scope.cancel()

    def longest_wait(self) -> tuple[str, float] | None:
        """The request that is in flight for longest: its component, and since when (Trio's clock)."""
        for call, since in self._calls.items():
            return call.request.component, since
        return None

    def prepare(self) -> None:
        """Register who waits for replies to what an earlier process sent. Synchronous; idempotent.

        Raises:
            PlanError: the plan does not know how to go on.
        """
        if self.listening.is_set():
            return
        plan, journey = self.plan, self._journey
        self._tasks = plan.unsettled()
        now = trio.current_time()
        if journey is not None:
            self._first_sent = {vertex: now - seconds for vertex, seconds in journey.begun.items()}
            self._retry_at = {vertex: now + seconds for vertex, seconds in journey.pauses.items()}
            if plan.paused:
                self.pause()
        for vertex in self._tasks:
            self._settled[vertex] = False
            if plan.in_flight and plan.is_in_flight(vertex):
                step = plan.resume(vertex)
                self._resumed[vertex] = step if isinstance(step, Settled) else self._expect(step)
        self.listening.set()

    def _expect(self, request: Request) -> Call:
        vertex, journey = request.vertex, self._journey
        if journey is None:
            return self._connectors.expect(self._in_time(request), self._token(request))
        # What is not known to have left has all its time before it.
        passed = 0.0 if self.plan.is_starting(vertex) else journey.ages[vertex]
        request = self._in_time(request, passed)
        call = self._connectors.expect(request, self._token(request), journey.after)
        call.extended = journey.extended.get(vertex, 0.0)
        return call

    async def _components(self) -> None:
        self.prepare()
        for resumed in self._resumed.values():
            if isinstance(resumed, Call):
                # It is in flight, whether or not there would be a slot for it now; and before anything new.
                self._slots.occupy(self, resumed.request.subject)
        if self._journey is not None:
            # What was answered while nobody listened counts before anything that we do.
            await self._journey.caught_up.wait()
            await self._settle_what_is_answered()
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            self._alive.update(self._tasks)
            if self._priorities:
                # Of those that can begin at once, who begins first has what the limits allow.
                self._tasks.sort(key=self._priorities.__getitem__, reverse=True)
            await self._spawn(self._tasks)

    async def _spawn(self, vertices: Iterable[Vertex]) -> None:
        assert self._nursery is not None, "the walk has begun"
        in_order = _IN_ORDER if self._slots.ruled(self) else 0
        for count, vertex in enumerate(vertices, 1):
            self._nursery.start_soon(self._component, vertex, name=self.plan.graph.ids[vertex])
            if not count % _SPAWNED_AT_ONCE:
                await trio.lowlevel.checkpoint()
            elif count <= in_order:
                # Of two tasks that are spawned together Trio may run the second one first.
                await trio.lowlevel.checkpoint()
                await trio.lowlevel.checkpoint()

    @property
    def steerable(self) -> bool:
        """Whether the walk is under way: it has begun, and has not come to its end."""
        return bool(self._alive) and self._nursery is not None and not self.fenced

    def respawn(self) -> None:
        """See to it that whatever is to be done has a task: some may have none any more."""
        missing = [vertex for vertex in self.plan.unsettled() if vertex not in self._alive]
        for vertex in missing:
            self._settled[vertex] = False
        if missing and self._nursery is not None:
            self._alive.update(missing)
            self._nursery.start_soon(self._spawn, missing, name="spawn")

    def end(self, vertex: Vertex) -> None:
        """An operator has said what became of a component."""
        self._observer.settled(vertex, self.plan.attempt(vertex), None)
        self.stir(vertex)

    async def _settle_what_is_answered(self) -> None:
        """Book the answers that came before we did: after an error among them nothing else starts."""
        for vertex, call in list(self._resumed.items()):
            if isinstance(call, Settled) or call.answered:
                del self._resumed[vertex]
                await self._resume(vertex, call)
                if self.plan.phase(vertex) is not Phase.RETRYING:
                    self._settle(vertex)
        self._tasks = [vertex for vertex in self._tasks if not self._settled[vertex]]

    async def _component(self, vertex: Vertex) -> None:
        try:
            await self._dependencies(vertex)
            resumed = self._resumed.pop(vertex, None)
            if resumed is not None:
                await self._resume(vertex, resumed)
            elif self.plan.phase(vertex) is Phase.WAITING and not self.plan.halted:
                self._observer.due(vertex)
            # While its end is persisted an operator may have it done again.
            while await self._go_further(vertex):
                pass
        finally:
            self._alive.discard(vertex)
            self._settle(vertex)

    async def _go_further(self, vertex: Vertex) -> bool:
        """One step of a component whose dependencies are settled; whether there was one to be made."""
        if self.plan.is_due(vertex):
            await self._try(vertex)
        elif self.plan.is_to_be_given_up(vertex):
            await self._keep(self.plan.give_up_retrying(vertex))
        elif vertex in self._rescued:
            await self._keep(self._rescued.pop(vertex))
        else:
            return False
        return True

    async def _dependencies(self, vertex: Vertex) -> None:
        """Wait until all are settled at once: an operator may have had one of them done again."""
        waited = True
        while waited:
            waited = False
            for dependency in self.plan.graph.dependencies[vertex]:
                if not self._settled[dependency]:
                    waited = True
                    await self._settled_event(dependency, vertex).wait()

    async def _try(self, vertex: Vertex) -> None:
        """One attempt, if it comes to that; whether there is to be another one is the plan's to say."""
        plan = self.plan
        if plan.is_instant(vertex) and not plan.paused:
            await self._begin(vertex)
            return
        if vertex in self._retry_at:
            await self._back_off(vertex)
            return
        if plan.paused:
            with self._wait(vertex):
                await self._unpaused.wait()
            return
        subject = plan.due_subject(vertex)
        priority = self._priorities[vertex] if self._priorities else 0.0
        taken = self._slots.try_take(self, subject, priority)
        if not taken:
            with self._wait(vertex):
                taken = await self._slots.take(self, subject, priority)
        if taken:
            try:
                if plan.is_due(vertex):
                    await self._begin(vertex)
            finally:
                self._slots.release(self, subject)

    async def _back_off(self, vertex: Vertex) -> None:
        at = self._retry_at[vertex]
        with self._wait(vertex):
            await trio.sleep_until(at)
        if trio.current_time() >= at:
            self._retry_at.pop(vertex, None)

    @contextmanager
    def _wait(self, vertex: Vertex) -> Iterator[None]:
        """What is awaited in here ends when there is news of the component."""
        wait = self._waits[vertex] = trio.CancelScope()
        try:
            with wait:
                yield
        finally:
            del self._waits[vertex]

    def _settled_event(self, dependency: Vertex, dependent: Vertex) -> trio.Event:
        """What ``dependent`` waits for: one event for about `_WOKEN_AT_ONCE` of those that wait."""
        events = self._awaited.get(dependency)
        if events is None:
            turns = -(-len(self.plan.graph.dependents[dependency]) // _WOKEN_AT_ONCE)
            events = self._awaited[dependency] = [trio.Event() for _ in range(turns)]
        return events[dependent % len(events)]

    def _settle(self, vertex: Vertex) -> None:
        self._settled[vertex] = True
        events = self._awaited.pop(vertex, None)
        if events:
            events.pop().set()
        if events:
            assert self._nursery is not None, "whoever waits does so in it"
            self._nursery.start_soon(self._wake, events, name="wake")

    async def _wake(self, events: list[trio.Event]) -> None:
        """Let thousands of dependents go on little by little: other builds have their turn between them."""
        try:
            for event in events:
                await trio.lowlevel.checkpoint()
                event.set()
        finally:
            for event in events:
                event.set()

    async def _give_up_on_the_rest(self, why: str) -> None:
        for event in self.plan.abandon(why):
            vertex = self.plan.graph.index[event.component]
            if isinstance(event, Settled):
                self._observer.settled(vertex, self.plan.attempt(vertex), str(event.body["error"]))
            if not await self._persist_at_the_end(event):
                return
