"""One component after another: begun, sent, awaited, booked, and perhaps tried again."""

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager

import structlog
import trio
from attrs import evolve

from scheduler.definition.graph import Vertex
from scheduler.definition.model import Resend
from scheduler.definition.reply_subjects import Tokens
from scheduler.definition.template import Laborious
from scheduler.dispatch.call import Call, Signal
from scheduler.dispatch.slots import Slots
from scheduler.errors import Hung, StoreError, StoreUnavailable, Stuck
from scheduler.journal.events import Event, Retrying, Sent, Settled, Withdrawn
from scheduler.plan import Phase, Plan, Request
from scheduler.plan.outcome import Outcome, failure
from scheduler.runtime.executor import Executor
from scheduler.runtime.interruptible import interruptible
from scheduler.runtime.ratelimit import RateLimitedLog
from scheduler.stores import Store
from scheduler.walk.ports import Observer, Resending, Resumption, Sender
from scheduler.walk.rendering import render
from scheduler.walk.unsent import Unsent, size_of

_log = structlog.get_logger()

_MOST_LINES = 50
"""In the log, of a kind and a build, at once: a build may have thousands of components that fail."""
_TRIED_AGAIN = "component is tried again"
_FAILED = "component failed"
_LEAST_TIME = 0.001
"""Seconds that an attempt has at least."""
_LEFT_AT_ONCE = 50
"""Requests that leave between two looks at everything else: a millisecond or two."""
_MOST_GIVEN_UP = 1_000
_GIVEN_UP_OF_EACH = 2
"""Attempts that timed out and are kept for a late success: of a build, and of each component more."""
_UNKNOWN = (
    "outcome unknown: the scheduler was stopped when its request may have left, and it is not to be sent "
    "again. Check whether it was created, then submit the remaining changes as a new build"
)
_UNKNOWN_AND_HALTED = (
    "outcome unknown: the scheduler was stopped when its request may have left, and the build had failed "
    "already, so it was not sent again. Check whether it was created"
)


class Departure:
    """A request between its start and its leaving."""

    __slots__ = ("call", "left", "number", "order", "step")

    def __init__(self, step: Request) -> None:
        self.step = step
        self.number = 0
        """By which the store knows its start."""
        self.order: trio.Event | None = None
        """Set once what an operator did is persisted that may have made it begin."""
        self.left = False
        """Whether it was decided: it has left then, or never will."""
        self.call: Call | None = None
        """Where it has left."""


class Attempts(ABC):
    """The attempts of one build's components: each begun, sent, awaited and booked.

    Args:
        plan: decides.
        connectors: takes requests, gives replies.
        store: is told of every step before the next one.
        slots: how many requests may be in flight.
        observer: is told of everything.
        key: what the reply subjects of this build are made with, so that a later process knows them; where it
            is empty, they are known to this process only.
        resumption: an earlier process began the build, and the plan was replayed from its log.
        resending: when a request without a reply is sent again.
        executor: renders what takes long.
    """

    __slots__ = (
        "__weakref__",
        "_acted",
        "_arrived",
        "_booked",
        "_bytes_of",
        "_calls",
        "_connectors",
        "_departures",
        "_early",
        "_executor",
        "_first_sent",
        "_given_up",
        "_held_back",
        "_held_since",
        "_log",
        "_most_given_up",
        "_observer",
        "_order",
        "_rendering",
        "_rescued",
        "_resending",
        "_resumed",
        "_resumption",
        "_retry_at",
        "_slots",
        "_store",
        "_tokens",
        "_unpaused",
        "_unsent",
        "_unwritten",
        "_waits",
        "_writing",
        "_written",
        "id",
        "plan",
    )

    def __init__(
        self,
        plan: Plan,
        connectors: Sender,
        store: Store,
        slots: Slots,
        observer: Observer | None,
        *,
        key: str,
        resumption: Resumption | None,
        resending: Resending,
        executor: Executor,
    ) -> None:
        self.plan = plan
        self.id = plan.build.id
        self._connectors = connectors
        self._store = store
        self._slots = slots
        self._observer = observer or Observer()
        self._tokens = Tokens(key) if key else None
        self._resumption = resumption
        self._resending = resending
        self._executor = executor
        self._rendering: trio.Lock | None = None
        """Held while a component is rendered elsewhere: one of a build at a time. Made for the first one."""
        self._acted = False
        self._log = RateLimitedLog(_log, burst=_MOST_LINES)
        """Whether anything was done that is worth persisting."""
        self._retry_at: dict[Vertex, float] = {}
        """When those that wait for another attempt are due, by Trio's clock."""
        self._first_sent: dict[Vertex, float] = {}
        """When those were first sent that may be sent again, by Trio's clock; later by the pauses
        of the build in which they waited for another attempt: those count for no ``total_timeout``."""
        self._held_since: dict[Vertex, float] = {}
        """Since when time stands still for those that wait for another attempt, as the build is paused."""
        self._waits: dict[Vertex, trio.CancelScope] = {}
        """Of those that wait before they begin: for another attempt, the end of a pause, or a slot."""
        self._unpaused: trio.Event | None = None
        """Wakes those that wait for the end of a pause; there where somebody does."""
        self._early: dict[Vertex, tuple[Request, Outcome]] = {}
        """Late successes of an attempt that came while the next one was about to be sent."""
        self._rescued: dict[Vertex, Settled] = {}
        """Outcomes by late successes of components that waited for another attempt, to be persisted."""
        self._order: trio.Event | None = None
        """Set once what an operator did last is persisted: before that nothing leaves because of it."""
        self._held_back: list[Call] = []
        """Requests that an earlier process may have sent, of a build that is paused."""
        self._calls: dict[Call, float] = {}
        """Everything in flight, and since when, by Trio's clock."""
        self._resumed: dict[Vertex, Call | Settled] = {}
        """What an earlier process sent, until the task of its component looks at it."""
        # Lists, although they are taken from at the front: they are no longer than there is in flight, and in
        # most builds that is one or none, of which a deque takes ten times as much.
        self._given_up: list[Call] = []
        """Attempts whose late success would count, the oldest first: `_most_given_up` of them."""
        self._most_given_up = _MOST_GIVEN_UP + _GIVEN_UP_OF_EACH * len(plan.graph.ids)
        self._arrived: list[Call] = []
        """Attempts whose end is known and not booked, in the order in which it became known."""
        self._unsent = Unsent(slots)
        """What was rendered, and waits for room in flight."""
        self._bytes_of: dict[Vertex, int] = {}
        """What is taken of that room."""
        self._departures: list[Departure] = []
        """Requests whose start is being persisted, in the order in which they began and are to leave."""
        self._unwritten: list[Settled | Retrying | Withdrawn] = []
        """What is booked and not persisted, where the store is told step by step."""
        self._booked = 0
        """How many of those there have been so far."""
        self._written = 0
        """How many of those have been persisted, or have failed to be."""
        self._writing: trio.Lock | None = None
        """Held by whoever writes. Made for the first one."""

    @abstractmethod
    def _land(self, vertex: Vertex) -> None:
        """The attempt of a component is over and persisted, or as good as that: see what follows from it."""

    @abstractmethod
    def fence(self, error: StoreError) -> None:
        """Nothing more can be persisted: send nothing more."""

    def halt(self, cause: str) -> None:
        """Send nothing more for this build; what is in flight is awaited."""
        self.plan.halt(cause)
        self.withdraw_unsent()

    def pause(self) -> None:
        """The build is paused: for what waits for another attempt time stands still. Synchronous."""
        self._hold(self.plan.phases.within(Phase.RETRYING))

    def _hold(self, vertices: Iterable[Vertex]) -> None:
        now = trio.current_time()
        for vertex in vertices:
            self._held_since.setdefault(vertex, now)

    def unpause(self) -> None:
        """Let go on who waits for the end of a pause, or of the build."""
        now = trio.current_time()
        held_since, self._held_since = self._held_since, {}
        for vertex, since in held_since.items():
            if vertex in self._first_sent:
                self._first_sent[vertex] += now - since
        if self.plan.paused:
            # Paused again in the meantime.
            self._hold(held_since)
        held_back, self._held_back = self._held_back, []
        for call in held_back:
            if not self.plan.halted and self.plan.paused:
                # Paused again in the meantime.
                self._held_back.append(call)
            elif self.plan.stopped:
                self._connectors.hand_over(self.id)
                call.abandon()
            elif self.plan.halted:
                call.deliver(failure(_UNKNOWN_AND_HALTED, retryable=False))
            elif not call.answered:
                if call.timer is None:
                    self._connectors.arm(call)
                call.publish()
                self._observer.departed(call.request.vertex)
        if self._unpaused is not None:
            self._unpaused.set()
            self._unpaused = None

    def stir(self, vertex: Vertex) -> None:
        """Look at a component again: there is news of it, whatever it waits for."""
        wait = self._waits.get(vertex)
        if wait is not None:
            wait.cancel()
        call = self.call_of(vertex)
        if call is not None:
            call.abandon()

    def call_of(self, vertex: Vertex) -> Call | None:
        """The attempt of a component that is in flight, where one is."""
        resumed = self._resumed.get(vertex)
        if isinstance(resumed, Call):
            return resumed
        return next((call for call in self._calls if call.request.vertex == vertex), None)

    def calls(self) -> Mapping[Call, float]:
        """Everything in flight, the oldest first, and since when (Trio's clock)."""
        return self._calls

    def retry_in(self, vertex: Vertex) -> float | None:
        """Seconds until the next attempt of a component; None where it does not wait for one."""
        at = self._retry_at.get(vertex)
        if at is None or self.plan.phase(vertex) is not Phase.RETRYING:
            return None
        return max(0.0, at - trio.current_time())

    async def render(self, vertex: Vertex) -> None:
        """Have a component rendered that takes long, for the plan to take it in; others begin meanwhile.

        It is not, if there is news of the component before, or nothing is to be sent for now.
        """
        with self._wait(vertex):
            self._rendering = self._rendering or trio.Lock()
            async with self._rendering:
                if not self.plan.held:
                    await self.render_now(vertex)

    async def render_now(self, vertex: Vertex) -> None:
        """The same, whatever happens."""
        await render(self.plan, vertex, self._executor)

    @abstractmethod
    def _wait(self, vertex: Vertex) -> AbstractContextManager[None]:
        """What is awaited in here ends when there is news of the component."""

    async def _begin(self, vertex: Vertex) -> None:
        """Begin one that has its slots, and await its end: what is done again begins like this."""
        try:
            departure = await self._start(vertex)
        except Laborious:
            await self.render(vertex)
            try:
                goes_on = self.plan.requests.is_rendered(vertex) and self.plan.is_due(vertex)
                departure = await self._start(vertex) if goes_on else None
            finally:
                self.plan.requests.let_go(vertex)
        if departure is not None:
            await self._see_through(departure)

    async def _start(self, vertex: Vertex) -> Departure | None:
        """Have one that has its slots begin.

        Where the store keeps what it is told in order, this does not wait: the start is noted, and the
        request leaves when that is persisted (`_see_through`). Otherwise the start is persisted here, and the
        request leaves. In both cases what is begun first leaves first.

        Returns:
            What is to be seen through; None where it ended without being sent, or may not begin, or is
            `_unsent`: there is no room for its request.

        Raises:
            Laborious: it is to be rendered first (`render`).
        """
        plan = self.plan
        rendered = self._unsent.pop(vertex) if self._unsent else None
        try:
            with interruptible(self.id):
                step = plan.begin(vertex, rendered)
        except Hung as hung:
            _log.error("the build failed: it held the scheduler up", build=self.id, why=str(hung))
            self.halt(f"{plan.graph.ids[vertex]}: {hung}")
            return None
        if step is None and not plan.held:
            msg = f"{plan.graph.ids[vertex]} is due, nothing holds it up, and it does not begin"
            raise Stuck(msg)
        if step is None:
            return None
        if isinstance(step, Settled):
            await self._keep(step)
            return None
        if vertex not in self._bytes_of:
            size = size_of(step)
            if not self._slots.weigh(self, size):
                plan.unbegin(vertex)
                self._unsent.put(vertex, step)
                return None
            self._bytes_of[vertex] = size
        departure = Departure(step)
        if self._store.in_order:
            self._acted = True
            departure.number = self._store.note(self.id, step.started)
            # What made it begin was noted before; it is persisted when an operator is told so.
            departure.order = self._order
            self._departures.append(departure)
        else:
            kept = await self._persist(step.started)
            if self._order is not None:
                await self._order.wait()
            booked = self._booked
            self._leave(departure, kept)
            if self._booked != booked:
                await self._write_all()
        return departure

    async def _see_through(self, departure: Departure) -> None:
        """Let a request leave as soon as it may, and await the end of the attempt."""
        try:
            if not departure.left:
                kept = await self._is_persisted(departure.number)
                if departure.order is not None and not departure.order.is_set():
                    await departure.order.wait()
                await self._let_leave(departure, kept)
            if departure.call is not None:
                await self._await_reply(departure.call)
        finally:
            if departure.call is not None:
                self._put_away(departure.call)

    async def _let_leave(self, departure: Departure, kept: bool) -> None:
        """What began before it has been persisted as well: all that leaves now, in that order.

        Others have their turn meanwhile: one record may let hundreds leave.
        """
        left = 0
        while not departure.left:
            if left == _LEFT_AT_ONCE:
                left = 0
                await trio.lowlevel.checkpoint()
                continue
            self._leave(self._departures.pop(0), kept)
            left += 1

    async def _is_persisted(self, number: int) -> bool:
        try:
            await self._store.persisted(self.id, number)
        except StoreError as error:
            self.fence(error)
            return False
        return True

    def _leave(self, departure: Departure, kept: bool) -> None:
        """Its start was persisted, if ``kept``: it leaves, unless something has happened meanwhile."""
        plan, step = self.plan, departure.step
        vertex = step.vertex
        departure.left = True
        if self._arrived:
            # An error among the answers that nobody has looked at yet is one all the same.
            self._book()
        if not plan.is_starting(vertex):
            # An operator has said meanwhile what becomes of it.
            return
        if vertex in self._early:
            plan.departed(vertex)
            self._write(self._end_attempt(*self._early.pop(vertex)))
        elif not kept:
            plan.withdraw(vertex)
        elif plan.held:
            self._write(plan.withdraw(vertex))
        else:
            plan.sent(vertex)
            request = self._in_time(step)
            call = self._connectors.send(request, self._token(request), self._departing())
            call.tell(self._arrived, self.plan.requests.look_through)
            departure.call = call
            self._calls[call] = trio.current_time()
            self._observer.sent(vertex, plan.attempt(vertex))

    def _in_time(self, request: Request, passed: float = 0.0) -> Request:
        """A request with no more time than is left for all attempts of its component together.

        Of its own time so many seconds have ``passed``.
        """
        if request.retry.attempts == 1:
            return request
        now = trio.current_time()
        began = self._first_sent.setdefault(request.vertex, now)
        if request.retry.total is None:
            return request
        left = passed + max(_LEAST_TIME, began + request.retry.total - now)
        return evolve(request, timeout=min(left, self._connectors.seconds(request)))

    def _token(self, request: Request) -> str:
        # Each attempt has its own: only so a late reply to one can be told from that to the next.
        return "" if self._tokens is None else self._tokens.of(request.attempt)

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
        if self.plan.is_in_flight(vertex):
            # Or an operator has said meanwhile what becomes of it.
            self._observer.resumed(vertex, self.plan.attempt(vertex))
        if self._resumption is None:
            self._connectors.arm(resumed)
        elif not self._go_on(vertex, resumed, self._resumption):
            resumed.close()
            return
        self._calls[resumed] = trio.current_time()
        try:
            await self._await_reply(resumed)
        finally:
            self._put_away(resumed)

    def _go_on(self, vertex: Vertex, call: Call, resumption: Resumption) -> bool:
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
            self._connectors.hand_over(self.id)
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
            self._observer.departed(vertex)
        else:
            seconds = self._connectors.seconds(request) + call.extended
            self._connectors.arm(call, max(0.0, seconds - resumption.ages[vertex]))
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
                if call.expired:
                    self._connectors.arm(call)
                call.publish()
        if again:
            _log.info("requests sent again", build=self.id, requests=len(again), first=again[0])

    async def _await_reply(self, call: Call) -> None:
        """Await the end of an attempt that is in flight, and have it persisted."""
        if not call.closed:
            # Closed by somebody who came first, and booked all that had ended by then.
            await call.outcome()
            self._book()
        await self._write_all()

    def _book(self) -> None:
        """Book all attempts that have ended, in the order in which that became known."""
        while self._arrived:
            call = self._arrived.pop(0)
            vertex, answer = call.request.vertex, call.answer
            if self._resumed.get(vertex) is call:
                # Nobody has looked at it yet: its answer came before we did.
                del self._resumed[vertex]
                if self.plan.is_in_flight(vertex):
                    # Or an operator has said meanwhile what becomes of it.
                    self._observer.resumed(vertex, self.plan.attempt(vertex))
                if isinstance(answer, Outcome) and self.plan.is_starting(vertex):
                    self.plan.departed(vertex)
            # Without a reply there may still be one: a late success is worth keeping.
            late = isinstance(answer, Outcome) and not answer.completed and answer.body is None
            self._put_away(call, late=late)
            if answer is Signal.LEFT or self.plan.phase(vertex) is not Phase.RUNNING:
                continue
            if isinstance(answer, Outcome):
                self._write(self._end_attempt(call.request, answer))
            else:
                withdrawn = self.plan.withdraw(vertex)
                self._observer.waits(vertex)
                self._write(withdrawn)

    def _put_away(self, call: Call, *, late: bool = False) -> None:
        """Nobody awaits it any more; with ``late``, what comes afterwards is looked at. Idempotent."""
        if call.closed:
            return
        self._calls.pop(call, None)
        call.close(self._adopt if late else None)
        if late:
            call.forget_the_request()
            self._given_up.append(call)
            if len(self._given_up) > self._most_given_up:
                self._given_up.pop(0).close()

    def _end_attempt(self, request: Request, outcome: Outcome) -> Settled | Retrying:
        """How an attempt ended; there may be another one. Returns what is to be persisted."""
        vertex, plan = request.vertex, self.plan
        now = trio.current_time()
        elapsed = now - self._first_sent.get(vertex, now)
        with interruptible(self.id):
            step = plan.settle(request, outcome, luck=random.random(), elapsed=elapsed)  # noqa: S311
        if isinstance(step, Settled):
            self._tell(vertex, step)
            return step
        self._retry_at[vertex] = now + step.pause
        if plan.paused:
            self._hold([vertex])
        self._observer.retries(vertex, plan.attempt(vertex), step.error, step.pause)
        if not self._log.leaves_out(_TRIED_AGAIN):
            self._log.info(
                _TRIED_AGAIN,
                build=self.id,
                component=step.component,
                attempt=plan.attempt(vertex) + 1,
                pause=round(step.pause, 3),
                error=self.plan.masked(step.error, 1_000),
            )
        return step

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
            self._log.info("late success taken", build=self.id, component=request.component)
            self._rescued[vertex] = settled
            self.stir(vertex)
        elif self.plan.adopt(request, outcome):
            self._log.info("late success kept", build=self.id, component=request.component)
            if self._store.in_order:
                self._store.note(self.id, *self.plan.adopted())

    async def _keep(self, settled: Settled) -> None:
        """Book and persist an outcome; an error may halt the build first."""
        self._tell(self.plan.graph.index[settled.component], settled)
        self._write(settled)
        await self._write_all()

    def _tell(self, vertex: Vertex, settled: Settled) -> None:
        """Tell of an outcome, and let follow what does at once from an error."""
        error = settled.body.get("error") if settled.body["_state"] == "errored" else None
        self._observer.settled(vertex, self.plan.attempt(vertex), error)
        if error is not None:
            if not self._log.leaves_out(_FAILED):
                shown = self.plan.masked(error, 1_000)
                self._log.warning(_FAILED, build=self.id, component=settled.component, error=shown)
            self.withdraw_unsent()
            if skips := self.plan.skips():
                self._observer.skipped(skips)

    def _write(self, event: Settled | Retrying | Withdrawn) -> None:
        """Have what became of an attempt persisted: before what follows from it, or together with that.

        Where the store is told step by step, it is told by `_write_all`.
        """
        self._acted = True
        if self._store.in_order:
            self._store.note(self.id, event)
            self._land(self.plan.graph.index[event.component])
        else:
            self._booked += 1
            self._unwritten.append(event)

    async def _write_all(self) -> None:
        """Have all that `_write` was given so far persisted, in this order; returns when it is.

        Whoever is first writes for those behind it; they wait for that.
        """
        if self._written == self._booked:
            return
        mine = self._booked
        writing = self._writing = self._writing or trio.Lock()
        try:
            writing.acquire_nowait()
        except trio.WouldBlock:
            await writing.acquire()
        try:
            while self._written < mine:
                event = self._unwritten.pop(0)
                await self._write_one(event)
                self._written += 1
        finally:
            writing.release()

    async def _write_one(self, event: Settled | Retrying | Withdrawn) -> None:
        landing = [event]
        try:
            await self._store.append(self.id, [event])
        except StoreUnavailable as error:
            self.fence(error)
            # Nor will it answer for those that have waited meanwhile: each would take its time again.
            landing += self._unwritten
            self._written += len(self._unwritten)
            self._unwritten.clear()
        except StoreError as error:
            self.fence(error)
        for one in landing:
            self._land(self.plan.graph.index[one.component])

    async def _persist(self, *events: Event) -> bool:
        self._acted = True
        try:
            await self._store.append(self.id, events)
        except StoreError as error:
            self.fence(error)
            return False
        return True

    async def _persist_at_the_end(self, *events: Event) -> bool:
        """As `_persist`; not even a bug of the store may cost the report now."""
        try:
            return await self._persist(*events)
        except Exception:  # noqa: BLE001 - a bug, as above
            _log.exception("internal error: the store failed", build=self.id)
            self.halt("internal error in the scheduler's store; see its log")
            return False

    def withdraw_unsent(self) -> None:
        """After a halt: take back what has not left, and let go who waits for anything but a reply."""
        if self.plan.halted:
            for call in list(self._calls):
                call.withdraw()
            self._slots.dismiss(self)
            self._unsent.clear()
            self.unpause()
            for wait in self._waits.values():
                wait.cancel()


def store_failure(error: StoreError) -> str:
    """What is reported where the store failed; some of its errors begin like this by themselves."""
    return f"store: {str(error).removeprefix('store: ')}"
