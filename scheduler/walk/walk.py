"""Runs one build: one nursery, and in it one task per component.

Each task waits for the events of its component's dependencies, one after another, then for its turn: until
there are slots for it, and what was lined up before it has begun. Then the component begins: the plan is
asked, the start is persisted, the request leaves. The task awaits the reply on a memory channel, has the
outcome persisted, and sets its own event, whatever has happened, so that nobody waits for ever. All decisions
are the plan's; this package only carries them out, in the order that the promises need:

- a request leaves after its start was persisted, and after every outcome it depends on was;
- whether it may still leave is asked in the same breath as it is handed to the bus;
- what one completion makes due is in the queue for slots, in the order of the edges, before the slots of what
  has completed are given back. So the most urgent has them, be it new or not; where there is room for all,
  they leave in the order of the edges;
- what has been answered is booked in the order in which the answers came in.

Trio wakes tasks in any order, and nothing rests on that: whichever of them comes first begins, books or
writes what is before it as well.

A slot is held until the outcome is persisted where the store is told step by step. Where it keeps things in
order, until the outcome is noted: what has the slot next begins in the same record.
"""

from collections.abc import Iterable, Sequence

import structlog
import trio

from scheduler.definition.graph import Vertex
from scheduler.definition.model import Resend
from scheduler.definition.reply_subjects import old_token
from scheduler.definition.template import Laborious
from scheduler.dispatch.call import Call, Inherited
from scheduler.dispatch.slots import Slots
from scheduler.errors import Fenced, Hung, LogRemoved, Refused, StoreError
from scheduler.journal.events import Event, Settled
from scheduler.plan import Plan, Request
from scheduler.plan.outcome import failure
from scheduler.plan.report import Report
from scheduler.runtime.executor import Executor, ThreadExecutor
from scheduler.runtime.interruptible import interruptible
from scheduler.runtime.pace import Pace
from scheduler.stores import Store
from scheduler.walk.attempts import store_failure
from scheduler.walk.beginning import Beginning
from scheduler.walk.frontier import Frontier, from_the_start
from scheduler.walk.ports import Observer, Resending, Resumption, Sender
from scheduler.walk.unsent import size_of

_log = structlog.get_logger()

_RESUMING = 2_000
"""Units of work for awaiting a reply again."""
_LARGE = 2_000
"""Changes from which on a report is made beside the loop: it would take milliseconds of it."""


class Walk(Beginning):
    """The run of one build.

    Args:
        plan: decides.
        connectors: takes requests, gives replies.
        store: is told of every step before the next one.
        slots: how many requests may be in flight.
        observer: is told of everything.
        priorities: by vertex: of those that wait for a slot the highest goes first.
        key: what the reply subjects of this build are made with, so that a later process knows them; where it
            is empty, they are known to this process only.
        resumption: an earlier process began the build, and the plan was replayed from its log.
        resending: when a request without a reply is sent again.
        executor: renders what takes long, and makes the report of a large build.
    """

    __slots__ = (
        "_end_noted",
        "_scope",
        "fenced",
        "listening",
        "log_removed",
        "stuck",
    )

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
        resumption: Resumption | None = None,
        resending: Resending = lambda _: Resend.UNSENT,
        executor: Executor | None = None,
    ) -> None:
        super().__init__(
            plan,
            connectors,
            store,
            slots,
            observer,
            priorities=priorities,
            key=key,
            resumption=resumption,
            resending=resending,
            executor=executor or ThreadExecutor(),
        )
        self.fenced = False
        """Whether another process has the build now."""
        self.log_removed = False
        """Whether its log is gone, and no other process has ended it: this one reports what it holds."""
        self.stuck = False
        """Whether it could not even begin to go on."""
        self._scope = trio.CancelScope()
        self.listening = trio.Event()
        """Set once the replies to what an earlier process sent are waited for."""
        self._end_noted = False
        """Whether the end of the build was given to the store, behind its last outcome."""

    async def run(self) -> Report | None:
        """Walk the graph to its end, whatever that is.

        Returns:
            The report; or None where the process is to end and the store can resume the build: it then
            stands in the store as it is.
        """
        try:
            with self._scope:
                await self._components()
            if not self.plan.over and not self.plan.halted:
                self.plan.finish()  # raises, and says what is stuck
        except* Hung as hung:
            why = str(hung.exceptions[0])
            _log.error("the build failed: it held the scheduler up", build=self.id, why=why)
            await self._give_up_on_the_rest(f"{why}. The outcome is unknown")
        except* Exception:  # noqa: BLE001 - a bug of ours: it costs this build, and no other
            if self._resumption is not None and not self._acted:
                # As the next version may do better: the log has it as it was.
                _log.exception("internal error: the build could not be resumed", build=self.id)
                self.stuck = True
            else:
                stranded = list(self.plan.in_flight_ids())
                _log.exception("internal error: the build failed", build=self.id, in_flight=stranded[:20])
                await self._give_up_on_the_rest(
                    "internal error in the scheduler; see its log. The outcome is unknown"
                )
        finally:
            self.listening.set()
            for step in self._resumed.values():
                if isinstance(step, Call):
                    step.close()
            for call in list(self._calls):
                # Sent for a task that was cancelled before it came to that.
                self._put_away(call)
            self._close_given_up()
            self._arrived.clear()
            self._slots.dismiss(self)
            self._unsent.clear()
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
            # The log is the truth: what it does not say to be over is resumed by the next process.
            _log.error(
                "the end of the build could not be committed: it is left to the next process", build=self.id
            )
            return None
        if len(self.plan.phases) < _LARGE:
            return self.plan.report()
        return await self._executor.run(self.id, self.plan.report, long=True)

    def stop(self) -> None:
        """Send nothing more, because this process is to end; what is in flight is awaited."""
        self.plan.stop()
        self.withdraw_unsent()

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

    def abandon(self, within: float) -> None:
        """Stop waiting for replies; what is being persisted has ``within`` seconds to be done."""
        self._scope.deadline = trio.current_time() + within
        if self._store.in_order:
            self._connectors.hand_over(self.id)
        for call in list(self._calls):
            if self._store.resumable:
                call.abandon()
            else:
                unknown = "the scheduler was shut down before there was a reply: outcome unknown"
                call.deliver(failure(unknown, retryable=False))

    def fence(self, error: StoreError) -> None:
        """Nothing more can be persisted: send nothing more, and where another process has the build, stop."""
        if not isinstance(error, Fenced):
            cause = store_failure(error)
            if not self.log_removed:
                _log.error("the store failed", build=self.id, error=self.plan.masked(cause, 1_000))
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

    async def prepare(self) -> None:
        """Register who waits for replies to what an earlier process sent. Idempotent.

        Raises:
            PlanError: the plan does not know how to go on.
        """
        if self.listening.is_set():
            return
        plan, resumption = self.plan, self._resumption
        unsettled = plan.unsettled()
        self._frontier = Frontier(plan.graph, unsettled)
        now = trio.current_time()
        if resumption is not None:
            self._first_sent = {vertex: now - seconds for vertex, seconds in resumption.begun.items()}
            self._retry_at = {vertex: now + seconds for vertex, seconds in resumption.pauses.items()}
            if plan.paused:
                self.pause()
        pace = Pace(_RESUMING)
        for vertex in unsettled if plan.in_flight else ():
            if not plan.is_in_flight(vertex):
                continue
            work = plan.requests.work_left
            try:
                with interruptible(self.id):
                    step = plan.resume(vertex)
            except Laborious:
                await self.render_now(vertex)
                if not plan.is_in_flight(vertex):
                    # An operator has said meanwhile what becomes of it.
                    plan.requests.let_go(vertex)
                    continue
                with interruptible(self.id):
                    step = plan.resume(vertex)
            self._resumed[vertex] = step if isinstance(step, Settled) else self._expect(step)
            await pace.turn(work - plan.requests.work_left)
        self.listening.set()

    def _expect(self, request: Request) -> Call:
        vertex, resumption = request.vertex, self._resumption
        if resumption is None:
            call = self._connectors.expect(self._in_time(request), self._token(request))
            call.tell(self._arrived, self.plan.requests.look_through)
            return call
        # What is not known to have left has all its time before it.
        passed = 0.0 if self.plan.is_starting(vertex) else resumption.ages[vertex]
        request = self._in_time(request, passed)
        key = resumption.old.get(vertex)
        old = old_token(key, vertex, request.started.failed) if key else ""
        inherited = Inherited(old, resumption.heard) if old or resumption.heard else None
        call = self._connectors.expect(request, self._token(request), resumption.after, inherited)
        call.tell(self._arrived, self.plan.requests.look_through)
        call.extended = resumption.extended.get(vertex, 0.0)
        return call

    async def _components(self) -> None:
        await self.prepare()
        for vertex, resumed in self._resumed.items():
            if isinstance(resumed, Call):
                # It is in flight, whether or not there would be a slot for it now; and before anything new.
                subject = self._slots_of[vertex] = resumed.request.subject
                size = self._bytes_of[vertex] = size_of(resumed.request)
                self._slots.occupy(self, subject, size)
        if self._resumption is not None:
            # What was answered while nobody listened counts before anything that we do.
            await self._resumption.caught_up.wait()
            await self._settle_what_is_answered()
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                # As a task: what is raised in the body of a nursery with tasks refers to itself (trio 0.35).
                self._enter_soon(from_the_start(self.plan.graph, self.plan.build.edges))
        finally:
            # What an operator did may still be being persisted: nothing more begins because of it.
            self._nursery = None

    def _note_the_end(self) -> None:
        """Nothing is in flight any more: have the end of the build ride in the record of its last outcome."""
        self._close_given_up()
        if self._store.in_order and self.plan.over and not self.plan.finished and not self.fenced:
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

    @property
    def steerable(self) -> bool:
        """Whether the walk is under way: it has begun, and has not come to its end."""
        return self.under_way and not self.fenced

    async def _give_up_on_the_rest(self, why: str) -> None:
        for event in self.plan.abandon(why):
            vertex = self.plan.graph.index[event.component]
            if isinstance(event, Settled):
                self._observer.settled(vertex, self.plan.attempt(vertex), str(event.body["error"]))
            if not await self._persist_at_the_end(event):
                return
