"""Runs one build: one nursery, and in it one task per component.

Each task waits until the dependencies of its component are settled, takes a slot, asks the plan, persists
that it starts, sends the request and awaits the reply on a memory channel. All decisions are the plan's;
this module only carries them out, in the order that the promises need:

- a request leaves after its start was persisted, and after every outcome it depends on was;
- whether it may still leave is asked in the same breath as it is handed to the bus;
- a component's settled event is set whatever happens, so that nobody waits for ever.
"""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol, TypeAlias

import structlog
import trio
from attrs import evolve, field, frozen

from scheduler.call import Call, Signal
from scheduler.errors import Fenced, Refused, StoreError, Stuck
from scheduler.events import Event, Retrying, Sent, Settled
from scheduler.graph import Vertex
from scheduler.model import Resend
from scheduler.outcome import Outcome, failure
from scheduler.plan import Phase, Plan, Request
from scheduler.records import Position
from scheduler.report import Report
from scheduler.slots import Slots
from scheduler.stores import Store

_log = structlog.get_logger()

_SPAWNED_AT_ONCE = 25
"""Tasks started between two looks at everything else: a millisecond or two, where they begin at once."""
_LARGE = 2_000
"""Changes from which on a report is made beside the loop: it would take milliseconds of it."""
_LEAST_TIME = 0.001
"""Seconds that an attempt has at least."""
_WOKEN_AT_ONCE = 50
"""Dependents that go on between two looks at everything else."""

_UNKNOWN = (
    "outcome unknown: the scheduler was stopped when its request may have left, and it is not to be sent "
    "again. Look whether it exists; then submit what is left to be done as a new build"
)
_UNKNOWN_AND_HALTED = (
    "outcome unknown: the scheduler was stopped when its request may have left, and the build had failed "
    "already, so it was not sent again. Look whether it exists"
)


class Observer:
    """Is told of everything that happens to a build, as it happens; this one does not care.

    Nothing here may block or raise.
    """

    def due(self, vertex: Vertex) -> None:
        """All that a component depends on is completed."""

    def sent(self, vertex: Vertex, attempt: int) -> None:
        """Its request was handed to the bus."""

    def waits(self, vertex: Vertex) -> None:
        """It was to be sent, or was skipped, and waits again."""

    def retries(self, vertex: Vertex, attempt: int, error: str, pause: float) -> None:
        """An attempt has failed; another one follows after so many seconds."""

    def settled(self, vertex: Vertex, attempt: int, error: str | None) -> None:
        """It has its outcome: completed where there is no error."""

    def skipped(self, vertices: Sequence[Vertex]) -> None:
        """These will not be sent, because of something that failed."""

    def happened(self, what: str, vertex: Vertex | None = None) -> None:
        """Something happened to the whole build, or an operator did something."""


class Sender(Protocol):
    """What a walk needs of `connector.Connectors`."""

    def send(
        self, request: Request, token: str = "", departing: Callable[[Call], None] | None = None
    ) -> Call:
        """Publish a request and register the wait for its reply; synchronous."""

    def expect(self, request: Request, token: str = "", after: Position | None = None) -> Call:
        """Register the wait for the reply to a request that was sent before."""

    def leave(self, build: str) -> None:
        """Replies that come from now on are left to the next process."""

    def arm(self, call: Call, seconds: float | None = None) -> None:
        """Start the clock of an attempt that is expected."""

    def seconds(self, request: Request) -> float:
        """How long an attempt may take."""


Resending: TypeAlias = Callable[[str], Resend]
"""What becomes of a request without a reply when it may have been lost, by its subject."""


@frozen
class Journey:
    """How a build that an earlier process began is gone on with, where its log says what was done."""

    caught_up: trio.Event
    """Set when the replies that came in the meantime were read."""
    after: Position
    """Captured replies up to here were dealt with."""
    ages: Mapping[Vertex, float]
    """For each change in flight, how many seconds of its time have passed."""
    pauses: Mapping[Vertex, float] = field(factory=dict)
    """For each change that waits for another attempt, how many seconds from now."""
    begun: Mapping[Vertex, float] = field(factory=dict)
    """For each change that was tried, how many seconds ago that was the first time."""


class Walk:
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
        self.plan = plan
        self.id = plan.build.id
        self._connectors = connectors
        self._store = store
        self._slots = slots
        self._observer = observer or Observer()
        self._priorities = priorities
        self._key = key
        self._journey = journey
        self._resending = resending
        self.fenced = False
        """Whether another process has the build now."""
        self.stuck = False
        """Whether it could not even begin to go on."""
        self._acted = False
        self._scope = trio.CancelScope()
        self.listening = trio.Event()
        """Set once the replies to what an earlier process sent are waited for."""
        self._resumed: dict[Vertex, Call | Settled] = {}
        self._held_back: list[Call] = []
        """Requests that an earlier process may have sent, of a build that is paused."""
        self._settled = bytearray(b"\1" * len(plan.graph.ids))
        """By vertex: whether nobody has to wait for it (any more)."""
        self._awaited: dict[Vertex, list[trio.Event]] = {}
        """The settled events of those that somebody waits for: most are never needed."""
        self._nursery: trio.Nursery | None = None
        self._tasks: list[Vertex] = []
        self._alive: set[Vertex] = set()
        """Whose task runs, or is about to."""
        self._retry_at: dict[Vertex, float] = {}
        """When those that wait for another attempt are due, by Trio's clock."""
        self._first_sent: dict[Vertex, float] = {}
        """When those were sent for the first time that may be sent again."""
        self._stirred: dict[Vertex, trio.Event] = {}
        """Wakes those that wait for another attempt before their time."""
        self._unpaused = trio.Event()
        """Replaced at each pause; wakes those that wait for its end."""
        self._early: dict[Vertex, tuple[Request, Outcome]] = {}
        """Late successes of an attempt that came while the next one was about to be sent."""
        self._rescued: dict[Vertex, Settled] = {}
        """Outcomes by late successes of components that waited for another attempt, to be persisted."""
        self._calls: dict[Call, float] = {}
        self._given_up: list[Call] = []

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
        if not self.plan.over and self.plan.stopped and self._store.resumable:
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
        if not kept and self._store.in_order:
            # The log is the truth: what it does not say to be over is gone on with by the next process.
            _log.error(
                "the end of the build could not be committed: it is left to the next process", build=self.id
            )
            return None
        if len(self._tasks) < _LARGE:
            return self.plan.report()
        return await trio.to_thread.run_sync(self.plan.report)

    def halt(self, cause: str) -> None:
        """Send nothing more for this build; what is in flight is awaited."""
        self.plan.halt(cause)
        self.recall()

    def stop(self) -> None:
        """Send nothing more, because this process is to end; what is in flight is awaited."""
        self.plan.stop()
        self.recall()

    async def persist(self, *events: Event) -> None:
        """Persist what an operator did, before it is acknowledged.

        Raises:
            Refused: it could not be persisted, and the build is halted by that.
        """
        if not await self._persist(*events):
            raise Refused("unavailable", f"it could not be persisted: {self.plan.cause}")

    def tell(self, what: str, vertex: Vertex | None = None) -> None:
        """Let who follows the build know what an operator did."""
        self._observer.happened(what, vertex)

    def told_to_wait(self, vertices: Iterable[Vertex]) -> None:
        """These had an outcome, or would have been left out, and wait again."""
        for vertex in vertices:
            self._observer.waits(vertex)

    def give_up_on_replies(self, why: str) -> None:
        """Await nothing more: what is in flight fails, its outcome unknown."""
        for call in list(self._calls):
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
            _log.error("the store failed", build=self.id, error=cause)
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
        for vertex in self._tasks:
            self._settled[vertex] = False
            if plan.in_flight and plan.is_in_flight(vertex):
                step = plan.resume(vertex)
                if not isinstance(step, Settled):
                    after = None if journey is None else journey.after
                    self._resumed[vertex] = self._connectors.expect(
                        self._in_time(step), self._token(step), after
                    )
                else:
                    self._resumed[vertex] = step
        self.listening.set()

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
        for count, vertex in enumerate(vertices, 1):
            self._nursery.start_soon(self._component, vertex, name=self.plan.graph.ids[vertex])
            if not count % _SPAWNED_AT_ONCE:
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

    def unpause(self) -> None:
        """Let go on who waits for the end of a pause, or of the build."""
        held_back, self._held_back = self._held_back, []
        for call in held_back:
            if self.plan.stopped:
                self._connectors.leave(self.id)
                call.leave()
            elif self.plan.halted:
                call.deliver(failure(_UNKNOWN_AND_HALTED, retryable=False))
            elif not call.answered:
                if call.timer is None:
                    self._connectors.arm(call)
                call.publish()
        self._unpaused.set()
        self._unpaused = trio.Event()

    def stir(self, vertex: Vertex) -> None:
        """Look at a component again: there is news of it, whatever it waits for."""
        stirred = self._stirred.get(vertex)
        if stirred is not None:
            stirred.set()
        for call in [call for call in self._calls if call.request.vertex == vertex]:
            call.leave()

    def end(self, vertex: Vertex) -> None:
        """An operator has said what became of a component."""
        self._observer.settled(vertex, self.plan.attempt(vertex), None)
        self.stir(vertex)

    def call_of(self, vertex: Vertex) -> Call | None:
        """The attempt of a component that is in flight, where one is."""
        return next((call for call in self._calls if call.request.vertex == vertex), None)

    def calls(self) -> Mapping[Call, float]:
        """Everything in flight, the oldest first, and since when (Trio's clock)."""
        return self._calls

    def retry_in(self, vertex: Vertex) -> float | None:
        """Seconds until the next attempt of a component; None where it does not wait for one."""
        at = self._retry_at.get(vertex)
        return None if at is None else max(0.0, at - trio.current_time())

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
            while self.plan.is_due(vertex):
                await self._try(vertex)
            if self.plan.is_to_be_given_up(vertex):
                await self._keep(self.plan.give_up_retrying(vertex))
            elif vertex in self._rescued:
                await self._keep(self._rescued.pop(vertex))
        finally:
            self._alive.discard(vertex)
            self._settle(vertex)

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
            await self._unpaused.wait()
            return
        subject = plan.due_subject(vertex)
        priority = self._priorities[vertex] if self._priorities else 0.0
        if self._slots.try_take(self, subject, priority) or await self._slots.take(self, subject, priority):
            try:
                if plan.is_due(vertex):
                    await self._begin(vertex)
            finally:
                self._slots.release(self, subject)

    async def _back_off(self, vertex: Vertex) -> None:
        stirred = self._stirred[vertex] = trio.Event()
        with trio.move_on_at(self._retry_at[vertex]):
            await stirred.wait()
        del self._stirred[vertex], self._retry_at[vertex]

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

    async def _begin(self, vertex: Vertex) -> None:
        plan = self.plan
        step = plan.begin(vertex)
        if step is None and not plan.held:
            msg = f"{plan.graph.ids[vertex]} is due, nothing holds it up, and it does not begin"
            raise Stuck(msg)
        if step is None:
            return
        if isinstance(step, Settled):
            await self._keep(step)
            return
        kept = await self._persist(step.started)
        if not plan.is_starting(vertex):
            # An operator has said meanwhile what becomes of it.
            return
        if vertex in self._early:
            plan.departed(vertex)
            await self._end_attempt(*self._early.pop(vertex))
        elif not kept:
            plan.withdraw(vertex)
        elif plan.held:
            await self._persist(plan.withdraw(vertex))
        else:
            plan.sent(vertex)
            request = self._in_time(step)
            call = self._connectors.send(request, self._token(request), self._departing())
            self._observer.sent(vertex, plan.attempt(vertex))
            await self._await_reply(call)

    def _in_time(self, request: Request) -> Request:
        """A request with no more time than is left for all attempts of its component together."""
        if request.retry.attempts == 1:
            return request
        now = trio.current_time()
        began = self._first_sent.setdefault(request.vertex, now)
        if request.retry.total is None:
            return request
        left = max(_LEAST_TIME, began + request.retry.total - now)
        return evolve(request, timeout=min(left, self._connectors.seconds(request)))

    def _token(self, request: Request) -> str:
        if not self._key:
            return ""
        failed = request.started.failed
        # Each attempt has its own: only so a late reply to one can be told from that to the next.
        return f"{self._key}-{request.vertex:x}" + (f"-{failed:x}" if failed else "")

    def _departing(self) -> Callable[[Call], None] | None:
        # Not kept: a walk that refers to itself would outlive its build until the next full collection.
        return self._note_departure if self._store.in_order else None

    def _note_departure(self, call: Call) -> None:
        request = call.request
        self._store.note_sent(self.id, Sent(request.component, request.attempt), call)

    async def _resume(self, vertex: Vertex, resumed: Call | Settled) -> None:
        if isinstance(resumed, Settled):
            await self._keep(resumed)
            return
        self._observer.sent(vertex, self.plan.attempt(vertex))
        try:
            if self._journey is None:
                self._connectors.arm(resumed)
            elif not self._go_on(vertex, resumed, self._journey):
                resumed.close()
                return
            await self._await_reply(resumed)
        finally:
            self._slots.release(self, resumed.request.subject)

    def _go_on(self, vertex: Vertex, call: Call, journey: Journey) -> bool:
        """What becomes of a request that an earlier process may have sent, now that we know its replies.

        Returns:
            Whether its end is to be awaited.
        """
        plan, request = self.plan, call.request
        unsent = plan.is_starting(vertex)
        resend = self._resending(request.subject)
        if call.answered:
            if unsent:
                plan.departed(vertex)
            return True
        if unsent and plan.stopped:
            self._connectors.leave(self.id)
            return False
        call.departing = self._departing()
        if unsent and (plan.halted or resend is Resend.NEVER):
            plan.departed(vertex)
            unknown = _UNKNOWN if resend is Resend.NEVER else _UNKNOWN_AND_HALTED
            call.deliver(failure(unknown, retryable=False))
        elif unsent and plan.paused:
            # It may have left: then there will be a reply. If not, it leaves when the pause is over.
            plan.departed(vertex)
            self._held_back.append(call)
        elif unsent:
            plan.sent(vertex)
            self._connectors.arm(call)
            call.publish()
        else:
            self._connectors.arm(call, max(0.0, self._connectors.seconds(request) - journey.ages[vertex]))
            if resend is Resend.ALWAYS:
                call.publish()
        return True

    def send_again(self) -> None:
        """After a loss of the connection: what may have been lost with it goes out again, if it is to.

        What is known to have reached the broker is sent again only where the operator wants that.
        """
        again = []
        for call in [call for call in self._calls if call.lost]:
            resend = self._resending(call.request.subject)
            unsure = resend is Resend.UNSENT and not call.reached and not self.plan.halted
            if resend is Resend.ALWAYS or unsure:
                again.append(call.request.component)
                call.publish()
        if again:
            _log.info("requests sent again", build=self.id, requests=len(again), first=again[0])

    async def _await_reply(self, call: Call) -> None:
        request = call.request
        self._calls[call] = trio.current_time()
        late = False
        try:
            outcome = await call.outcome()
            # Without a reply there may still be one: a late success is worth keeping.
            late = isinstance(outcome, Outcome) and not outcome.completed and outcome.body is None
        finally:
            del self._calls[call]
            if late:
                self._given_up.append(call)
            call.close(self._adopt if late else None)
        if outcome is Signal.LEFT or self.plan.phase(request.vertex) is not Phase.RUNNING:
            return
        if isinstance(outcome, Outcome):
            await self._end_attempt(request, outcome)
        else:
            withdrawn = self.plan.withdraw(request.vertex)
            self._observer.waits(request.vertex)
            await self._persist(withdrawn)

    async def _end_attempt(self, request: Request, outcome: Outcome) -> None:
        """Book how an attempt ended; there may be another one."""
        vertex = request.vertex
        now = trio.current_time()
        elapsed = now - self._first_sent.get(vertex, now)
        step = self.plan.settle(request, outcome, luck=random.random(), elapsed=elapsed)  # noqa: S311
        if isinstance(step, Settled):
            await self._keep(step)
            return
        self._retry_at[vertex] = now + step.pause
        self._observer.retries(vertex, self.plan.attempt(vertex), step.error, step.pause)
        _log.info(
            "component is tried again",
            build=self.id,
            component=step.component,
            attempt=self.plan.attempt(vertex) + 1,
            pause=round(step.pause, 3),
            error=step.error[:1_000],
        )
        await self._record(step)

    def _adopt(self, request: Request, outcome: Outcome) -> None:
        """A reply came to an attempt that had been given up."""
        vertex = request.vertex
        call = self.call_of(vertex)
        if not outcome.completed:
            # Of an attempt that counts as failed already.
            return
        if call is not None:
            # Another attempt is in flight: what the first one has made is there, and that is what counts.
            call.deliver(outcome)
        elif self.plan.is_starting(vertex):
            self._early[vertex] = request, outcome
        elif (settled := self.plan.rescue(request, outcome)) is not None:
            _log.info("late success taken", build=self.id, component=request.component)
            self._rescued[vertex] = settled
            self.stir(vertex)
        elif self.plan.adopt(request, outcome):
            _log.info("late success kept", build=self.id, component=request.component)
            if self._store.in_order:
                self._store.note(self.id, *self.plan.adopted())

    async def _keep(self, settled: Settled) -> None:
        """Persist an outcome; an error may halt the build first."""
        error = settled.body.get("error") if settled.body["_state"] == "errored" else None
        vertex = self.plan.graph.index[settled.component]
        self._observer.settled(vertex, self.plan.attempt(vertex), error)
        if error is not None:
            _log.warning("component failed", build=self.id, component=settled.component, error=error[:1_000])
            self.recall()
            if skips := self.plan.skips():
                self._observer.skipped(skips)
        await self._record(settled)

    async def _record(self, event: Settled | Retrying) -> None:
        """Persist it before anything that follows from it, or together with that."""
        self._acted = True
        if self._store.in_order:
            self._store.note(self.id, event)
        else:
            await self._persist(event)

    async def _persist(self, *events: Event) -> bool:
        self._acted = True
        try:
            await self._store.append(self.id, events)
        except StoreError as error:
            self.lose(error)
            return False
        return True

    async def _persist_at_the_end(self, *events: Event) -> bool:
        """As `_persist`; not even a bug of the store may cost the report now."""
        try:
            return not events or await self._persist(*events)
        except Exception:  # noqa: BLE001 - a bug, as above
            _log.exception("the store failed by a fault of the scheduler", build=self.id)
            self.halt("a fault in the scheduler's store; see its log")
            return False

    def recall(self) -> None:
        """After a halt: take back what has not left, and let go who waits for anything but a reply."""
        if self.plan.halted:
            for call in list(self._calls):
                call.withdraw()
            self._slots.dismiss(self)
            self.unpause()
            for stirred in self._stirred.values():
                stirred.set()

    async def _give_up_on_the_rest(self, why: str) -> None:
        for event in self.plan.abandon(why):
            vertex = self.plan.graph.index[event.component]
            if isinstance(event, Settled):
                self._observer.settled(vertex, self.plan.attempt(vertex), str(event.body["error"]))
            if not await self._persist_at_the_end(event):
                return


def store_failure(error: StoreError) -> str:
    """What is reported where the store failed; some of its errors begin like this by themselves."""
    return f"store: {str(error).removeprefix('store: ')}"
