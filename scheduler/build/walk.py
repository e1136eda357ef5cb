"""Runs one build: one nursery, and in it a task for each component that is in flight.

When a component settles, what that makes due is entered into the queue for slots. What has its slots is begun
by the walk itself, one after another: the plan is asked, the start is persisted, the request leaves. From
there on a task awaits the reply on a memory channel, and has the outcome persisted. All decisions are the
plan's; this package only carries them out, in the order that the promises need:

- a request leaves after its start was persisted, and after every outcome it depends on was;
- whether it may still leave is asked in the same breath as it is handed to the bus;
- what one completion makes due is in the queue, in the order of the edges, before the slots of what has
  completed are given back. So the most urgent has them, be it new or not; where there is room for all, they
  leave in the order of the edges. Trio wakes tasks in any order: nothing rests on that;
- what has been answered is booked in the order in which the answers came in.

A slot is held until the outcome is persisted where the store is told step by step. Where it keeps things in
order, until the outcome is noted: what has the slot next begins in the same record.

What is unusual (another attempt, a component that an earlier process sent, news from an operator) has a task
from the moment in which it is due: `_component`.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count
from typing import Final

import structlog
import trio

from scheduler.build.attempts import Attempts, Departure, store_failure
from scheduler.build.frontier import Frontier, from_the_start
from scheduler.build.ports import Journey, Observer, Resending, Sender
from scheduler.call import Call
from scheduler.errors import Fenced, LogRemoved, Refused, StoreError
from scheduler.events import Event, Settled
from scheduler.graph import Vertex
from scheduler.model import Resend
from scheduler.outcome import failure
from scheduler.plan import Phase, Plan, Request
from scheduler.report import Report
from scheduler.slots import Slots, Waiter
from scheduler.stores import Store

_log = structlog.get_logger()

_BEGUN_AT_ONCE = 25
"""Components begun between two looks at everything else: a millisecond or two."""
_ENTERED_AT_ONCE = 200
"""Components entered into the queue for slots between two looks at everything else: about a millisecond."""
_OVER: Final = frozenset({Phase.COMPLETED, Phase.ERRORED, Phase.SKIPPED})
_LARGE = 2_000
"""Changes from which on a report is made beside the loop: it would take milliseconds of it."""


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
        self._frontier = Frontier(plan.graph, ())
        self._nursery: trio.Nursery | None = None
        self._alive: set[Vertex] = set()
        """What is due and has not settled: each queued, granted or held back, or with a task."""
        self._entering = 0
        """Tasks that are about to enter others into the queue for slots."""
        self._numbers = count()
        self._queued: dict[Vertex, tuple[int, Waiter]] = {}
        """What waits for its slots: the number under which it was entered, and its place in the queue."""
        self._granted: list[tuple[int, Vertex]] = []
        """What may begin, with the number under which it was entered."""
        self._parked: dict[Vertex, int] = {}
        """What could begin, were the build not paused."""
        self._slots_of: dict[Vertex, str] = {}
        """The subjects of those that have slots."""
        self._end_noted = False
        """Whether the store was told that the build is over; it may not be persisted yet."""
        self._news = trio.Event()
        """Set when something may begin, or nothing is alive any more."""

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
            self._close_given_up()
            self._arrived.clear()
            self._slots.dismiss(self)
            for vertex in list(self._slots_of):
                self._give_back(vertex)
        return None if self.fenced or self.stuck else await self._end()

    async def _end(self) -> Report | None:
        if not self.plan.over and self.plan.stopped and self._store.resumable and not self.log_removed:
            adopted = self.plan.adopted()
            if self._store.in_order:
                # What was noted has to be in the log before anything else makes its position move.
                await self._persist(*adopted)
            elif adopted:
                await self._persist_at_the_end(*adopted)
            return None
        if not self.plan.over:
            await self._give_up_on_the_rest("the scheduler was shut down before there was a reply")
        if self._end_noted:
            kept = await self._persist_at_the_end()
        else:
            kept = self.plan.finished or await self._persist_at_the_end(
                *self.plan.adopted(), self.plan.finish()
            )
        if not kept and self._store.in_order and not self.log_removed:
            # The log is the truth: what it does not say to be over is gone on with by the next process.
            _log.error(
                "the end of the build could not be committed: it is left to the next process", build=self.id
            )
            return None
        if len(self.plan.phases) < _LARGE:
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
        unsettled = plan.unsettled()
        self._frontier = Frontier(plan.graph, unsettled)
        now = trio.current_time()
        if journey is not None:
            self._first_sent = {vertex: now - seconds for vertex, seconds in journey.begun.items()}
            self._retry_at = {vertex: now + seconds for vertex, seconds in journey.pauses.items()}
            if plan.paused:
                self.pause()
        for vertex in unsettled:
            if plan.in_flight and plan.is_in_flight(vertex):
                step = plan.resume(vertex)
                self._resumed[vertex] = step if isinstance(step, Settled) else self._expect(step)
        self.listening.set()

    def _expect(self, request: Request) -> Call:
        vertex, journey = request.vertex, self._journey
        if journey is None:
            call = self._connectors.expect(self._in_time(request), self._token(request))
            call.tell(self._arrived)
            return call
        # What is not known to have left has all its time before it.
        passed = 0.0 if self.plan.is_starting(vertex) else journey.ages[vertex]
        request = self._in_time(request, passed)
        call = self._connectors.expect(request, self._token(request), journey.after)
        call.tell(self._arrived)
        call.extended = journey.extended.get(vertex, 0.0)
        return call

    async def _components(self) -> None:
        self.prepare()
        for vertex, resumed in self._resumed.items():
            if isinstance(resumed, Call):
                # It is in flight, whether or not there would be a slot for it now; and before anything new.
                subject = self._slots_of[vertex] = resumed.request.subject
                self._slots.occupy(self, subject)
        if self._journey is not None:
            # What was answered while nobody listened counts before anything that we do.
            await self._journey.caught_up.wait()
            await self._settle_what_is_answered()
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            # As a task: what is raised in the body of a nursery with tasks refers to itself (trio 0.35).
            nursery.start_soon(self._begin_all, name="begin")

    async def _begin_all(self) -> None:
        """Begin what may begin, until nothing is in flight and nothing will ever be."""
        self._entering += 1
        await self._enter(from_the_start(self.plan.graph, self.plan.build.edges))
        while self._alive or self._entering:
            if self._granted:
                await self._begin_what_is_granted()
            else:
                self._news = trio.Event()
                await self._news.wait()
        self._note_the_end()

    def _note_the_end(self) -> None:
        """Nothing is in flight any more: have the end of the build ride in the record of its last outcome."""
        if self._store.in_order and self.plan.over and not self.plan.finished:
            self._close_given_up()
            self._end_noted = True
            self._store.note(self.id, *self.plan.adopted(), self.plan.finish())

    def _close_given_up(self) -> None:
        """What comes late now is too late."""
        for call in self._given_up:
            call.close()

    async def _settle_what_is_answered(self) -> None:
        """Book the answers that came before we did: after an error among them nothing else starts."""
        self._book()
        await self._write_all()
        for vertex, outcome in list(self._resumed.items()):
            if isinstance(outcome, Settled):
                del self._resumed[vertex]
                await self._keep(outcome)

    # ---- what is due

    def _land(self, vertex: Vertex) -> None:
        """Its attempt is over: enter what that makes due, then give back its slots. Idempotent.

        That is how what has waited for long does not overtake something more urgent that is due only now.
        """
        given_back = self._slots_of.pop(vertex, None)
        due: list[Vertex] = []
        if self.plan.phase(vertex) in _OVER:
            # Before the walk has begun nothing is due: it will see.
            due = [one for one in self._frontier.settle(vertex) if self._nursery and self._is_new(one)]
        if len(due) > _ENTERED_AT_ONCE:
            self._enter_soon(due, given_back)
        elif due:
            self._line_up([one for one in due if self._admit(one)], given_back)
        elif given_back is not None:
            self._slots.release(self, given_back)

    def _is_new(self, vertex: Vertex) -> bool:
        """Whether something whose dependencies have settled is to begin, and nobody has seen to it."""
        if vertex in self._alive or self._frontier.settled[vertex]:
            return False
        plan = self.plan
        return (
            plan.is_due(vertex)
            or vertex in self._resumed
            or vertex in self._rescued
            or plan.is_to_be_given_up(vertex)
        )

    def _admit(self, vertex: Vertex, *, again: bool = False) -> bool:
        """See to something that is due (``again``: after a pause); whether it is to be lined up for slots."""
        plan = self.plan
        self._alive.add(vertex)
        if (
            plan.phase(vertex) is not Phase.WAITING
            or vertex in self._resumed
            or vertex in self._retry_at
            or vertex in self._rescued
        ):
            self._start_task(vertex)
            return False
        if not again:
            self._observer.due(vertex)
        if plan.paused:
            self._parked[vertex] = next(self._numbers)
            return False
        if plan.is_instant(vertex):
            self._granted.append((next(self._numbers), vertex))
            self._news.set()
            return False
        return True

    def _line_up(self, vertices: Sequence[Vertex], given_back: str | None = None) -> None:
        """Have these begin as soon as there are slots for them; then those of ``given_back`` are free."""
        slots = self._slots
        if given_back is not None and not slots.waiters:
            # Nobody else could have them.
            slots.release(self, given_back)
            given_back = None
        subjects = [self.plan.due_subject(vertex) for vertex in vertices]
        if slots.take_all(self, subjects):
            for vertex, subject in zip(vertices, subjects, strict=True):
                self._slots_of[vertex] = subject
                self._granted.append((next(self._numbers), vertex))
            self._news.set()
        else:
            for vertex, subject in zip(vertices, subjects, strict=True):
                self._queue(vertex, subject)
        if given_back is not None:
            slots.release(self, given_back)
        if self._queued:
            slots.serve(self)

    def _queue(self, vertex: Vertex, subject: str) -> None:
        priority = self._priorities[vertex] if self._priorities else 0.0
        waiter = self._slots.queue(self, subject, priority, partial(self._waited, vertex))
        self._queued[vertex] = next(self._numbers), waiter

    def _waited(self, vertex: Vertex, served: bool) -> None:
        number, waiter = self._queued.pop(vertex)
        if served:
            self._slots_of[vertex] = waiter.subject
            self._granted.append((number, vertex))
        else:
            self._alive.discard(vertex)
        self._news.set()

    def _enter_soon(
        self, vertices: Iterable[Vertex], given_back: str | None = None, *, again: bool = False
    ) -> None:
        assert self._nursery is not None, "the walk has begun"
        self._entering += 1
        self._nursery.start_soon(partial(self._enter, vertices, given_back, again=again), name="enter")

    async def _enter(
        self, vertices: Iterable[Vertex], given_back: str | None = None, *, again: bool = False
    ) -> None:
        """As `_admit` and `_line_up`, of many: other builds have their turn between them.

        Of these, those that are due; nobody is served before all of them stand in the queue.
        """
        try:
            due: list[Vertex] = []
            for looked, vertex in enumerate(vertices, 1):
                if self._is_new(vertex) and self._frontier.is_ready(vertex):
                    due.append(vertex)
                if not looked % _ENTERED_AT_ONCE:
                    await trio.lowlevel.checkpoint()
            if len(due) <= _ENTERED_AT_ONCE:
                new = [one for one in due if self._is_new(one) and self._admit(one, again=again)]
                self._line_up(new, given_back)
                return
            for entered, vertex in enumerate(due, 1):
                if self._is_new(vertex) and self._admit(vertex, again=again):
                    self._queue(vertex, self.plan.due_subject(vertex))
                if not entered % _ENTERED_AT_ONCE:
                    await trio.lowlevel.checkpoint()
            if given_back is not None:
                self._slots.release(self, given_back)
            self._slots.serve(self)
        finally:
            self._entering -= 1
            self._news.set()

    # ---- beginning

    async def _begin_what_is_granted(self) -> None:
        """Begin what has its slots: of what has them at the same time, who was entered first."""
        granted, self._granted = sorted(self._granted), []
        for begun, (number, vertex) in enumerate(granted, 1):
            await self._begin_one(vertex, number)
            if not begun % _BEGUN_AT_ONCE:
                await trio.lowlevel.checkpoint()

    async def _begin_one(self, vertex: Vertex, number: int) -> None:
        assert self._nursery is not None, "the walk has begun"
        plan = self.plan
        if plan.paused and plan.is_due(vertex):
            self._parked[vertex] = number
            self._give_back(vertex)
            return
        departure = await self._start(vertex) if plan.is_due(vertex) else None
        if departure is not None:
            self._nursery.start_soon(self._in_flight, vertex, departure, name=self.plan.graph.ids[vertex])
        elif plan.is_due(vertex):
            # While its end was persisted an operator has had it done again.
            self._land(vertex)
            self._start_task(vertex)
        else:
            self._end_task(vertex)

    def _give_back(self, vertex: Vertex) -> None:
        subject = self._slots_of.pop(vertex, None)
        if subject is not None:
            self._slots.release(self, subject)

    async def _in_flight(self, vertex: Vertex, departure: Departure) -> None:
        """See to a component from its start on; with all that follows, if it is tried again."""
        try:
            await self._see_through(departure)
            self._land(vertex)
            while await self._go_further(vertex):
                pass
        finally:
            self._end_task(vertex)

    def _start_task(self, vertex: Vertex) -> None:
        assert self._nursery is not None, "the walk has begun"
        self._nursery.start_soon(self._component, vertex, name=self.plan.graph.ids[vertex])

    async def _component(self, vertex: Vertex) -> None:
        """See to a component that does not simply wait for its slots."""
        try:
            resumed = self._resumed.pop(vertex, None)
            if resumed is not None:
                await self._resume(vertex, resumed)
                self._land(vertex)
            # While its end is persisted an operator may have it done again.
            while await self._go_further(vertex):
                pass
        finally:
            self._end_task(vertex)

    def _end_task(self, vertex: Vertex) -> None:
        self._land(vertex)
        self._alive.discard(vertex)
        if not self._alive:
            self._news.set()

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
            self._slots_of[vertex] = subject
            try:
                if plan.is_due(vertex):
                    await self._begin(vertex)
            finally:
                self._land(vertex)

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

    # ---- news of operators

    @property
    def steerable(self) -> bool:
        """Whether the walk is under way: it has begun, and has not come to its end."""
        return bool(self._alive or self._entering) and self._nursery is not None and not self.fenced

    def stir(self, vertex: Vertex) -> None:
        """Look at a component again: there is news of it, whatever it waits for."""
        super().stir(vertex)
        queued = self._queued.pop(vertex, None)
        if queued is not None:
            self._slots.leave(queued[1])
            self._start_task(vertex)
        elif self._parked.pop(vertex, None) is not None:
            self._start_task(vertex)

    def respawn(self) -> None:
        """See to it that whatever is to be done and is due begins: it may have been given up."""
        missing = [vertex for vertex in self.plan.unsettled() if vertex not in self._alive]
        self._frontier.reopen(missing)
        if missing and self._nursery is not None:
            self._enter_soon(missing)

    def end(self, vertex: Vertex) -> None:
        """An operator has said what became of a component."""
        self._observer.settled(vertex, self.plan.attempt(vertex), None)
        self.stir(vertex)
        if vertex not in self._alive:
            self._land(vertex)

    def unpause(self) -> None:
        """Let go on who waits for the end of a pause, or of the build."""
        super().unpause()
        if self._parked and (self.plan.halted or not self.plan.paused):
            parked, self._parked = self._parked, {}
            self._alive.difference_update(parked)
            self._news.set()
            if not self.plan.halted:
                self._enter_soon(sorted(parked, key=parked.__getitem__), again=True)

    async def _give_up_on_the_rest(self, why: str) -> None:
        for event in self.plan.abandon(why):
            vertex = self.plan.graph.index[event.component]
            if isinstance(event, Settled):
                self._observer.settled(vertex, self.plan.attempt(vertex), str(event.body["error"]))
            if not await self._persist_at_the_end(event):
                return
