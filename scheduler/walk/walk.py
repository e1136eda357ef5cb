"""Runs one build: one nursery, and in it one task per component.

Each task waits for the events of its component's dependencies, one after another, then for its turn: until
there are slots for it, and what was lined up before it has begun. Then the component begins: the plan is
asked, the start is persisted, the request leaves. The task awaits the reply on a memory channel, has the
outcome persisted, and sets its own event, whatever has happened, so that no task waits for ever. All
decisions are the plan's; this package only carries them out, in the order that the promises need:

- a request leaves after its start was persisted, and after every outcome it depends on was (`recording`);
- whether it may still leave is asked in the same breath as it is handed to the bus (`starts`);
- what one completion makes due is in the queue for slots, in the order of the edges, before the slots of what
  has completed are given back. So the most urgent has them, be it new or not; where there is room for all,
  they leave in the order of the edges (`lineup`);
- what has been answered is booked in the order in which the answers came in (`outcomes`).

Trio wakes tasks in any order, and nothing rests on that: whichever of them comes first begins, books or
writes what is before it as well.

A slot is held until the outcome is persisted where the store is told step by step. Where it keeps things in
order, until the outcome is noted: what has the slot next begins in the same record.

The parts know one another in one direction only, in this order; the walk makes and knows them all::

    component, tasks      data and tasks, by component
    slot_queue, granted   slots, and what has them and is to begin
    lineup                what is due, until it begins
    hold                  what keeps the build from sending: a halt, a pause
    recording             what the store is told
    outcomes, starts      the ends of attempts; their beginnings
    resumption, steering  what an earlier process began; what an operator wants
    component_tasks       what the task of a component does with all these
"""

from collections.abc import Mapping, Sequence
from functools import partial

import structlog
import trio

from scheduler.definition.graph import Vertex
from scheduler.definition.model import Resend
from scheduler.definition.reply_subjects import Tokens
from scheduler.dispatch.call import Call
from scheduler.dispatch.slots import Slots
from scheduler.errors import Hung
from scheduler.journal.events import Settled
from scheduler.plan import Phase, Plan, ending, late_replies
from scheduler.plan.outcome import failure
from scheduler.plan.report import Report
from scheduler.plan.summary import report_of
from scheduler.runtime.executor import Executor, ThreadExecutor
from scheduler.stores import Store
from scheduler.walk.component import Runs
from scheduler.walk.component_tasks import ComponentTasks
from scheduler.walk.context import Context
from scheduler.walk.frontier import from_the_start
from scheduler.walk.granted import Granted
from scheduler.walk.hold import Hold
from scheduler.walk.lineup import Lineup
from scheduler.walk.outcomes import Outcomes
from scheduler.walk.ports import Observer, Resending, Sender
from scheduler.walk.recording import Recording
from scheduler.walk.rendering import Renderer
from scheduler.walk.resumption import Resumer, Resumption
from scheduler.walk.slot_queue import SlotQueue
from scheduler.walk.starts import Starts
from scheduler.walk.steering import Steering
from scheduler.walk.tasks import Tasks
from scheduler.walk.unsent import Unsent

_log = structlog.get_logger()

_LARGE = 2_000
"""Changes from which on a report is made beside the loop: it would take milliseconds of it."""


class Walk:
    """The run of one build.

    Args:
        plan: decides. The slots know the build by it.
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
        self.plan = plan
        self.id = plan.build.id
        self.stuck = False
        """Whether the build could not even be resumed."""
        self._connectors = connectors
        self._executor = executor or ThreadExecutor()
        self._observer = observer or Observer()
        self._end_recorded = False
        """Whether the store was told of the end of the build, behind its last outcome."""
        self._runs, self._tasks, self._unsent = Runs(), Tasks(plan.graph), Unsent(slots)
        context = Context(
            plan=plan,
            connectors=connectors,
            slots=slots,
            observer=self._observer,
            resending=resending,
            tokens=Tokens(key) if key else None,
            runs=self._runs,
            tasks=self._tasks,
            unsent=self._unsent,
            renderer=Renderer(plan, self._runs, self._executor),
        )
        granted = Granted()
        queue = SlotQueue(context, granted, priorities)
        self._lineup = lineup = Lineup(context, granted, queue)
        self._hold = hold = Hold(context, queue, lineup)
        self._recording = recording = Recording(plan, store, hold)
        self._outcomes = outcomes = Outcomes(context, recording, hold, lineup)
        self._starts = starts = Starts(context, recording, hold, outcomes)
        self._resumer = resumer = Resumer(
            context,
            resumption,
            frontier=lineup.frontier,
            slots=queue,
            recording=recording,
            hold=hold,
            outcomes=outcomes,
            starts=starts,
        )
        self._component_tasks = ComponentTasks(
            context,
            granted=granted,
            slots=queue,
            lineup=lineup,
            hold=hold,
            starts=starts,
            outcomes=outcomes,
            resumer=resumer,
        )
        self._steering = Steering(context, recording, hold, lineup, starts)

    # ---- from the start to the report

    async def run(self) -> Report | None:
        """Walk the graph to its end, whatever that is.

        Returns:
            The report; or None where the process is to end and the store can resume the build: it then
            stands in the store as it is.
        """
        plan = self.plan
        try:
            with self._recording.scope:
                await self._run_components()
            if not plan.state.over and not plan.state.halted:
                ending.finish(plan)  # raises, and says what is stuck
        except* Hung as hung:
            why = str(hung.exceptions[0])
            _log.error("the build failed: it held the scheduler up", build=self.id, why=why)
            await self._give_up_on_the_rest(f"{why}. The outcome is unknown")
        except* Exception:  # noqa: BLE001 - a bug of ours: it costs this build, and no other
            if self._resumer.from_log and not self._recording.acted:
                # As the next version may do better: the log has it as it was.
                _log.exception("internal error: the build could not be resumed", build=self.id)
                self.stuck = True
            else:
                stranded = list(plan.phases.in_flight_ids())
                _log.exception("internal error: the build failed", build=self.id, in_flight=stranded[:20])
                await self._give_up_on_the_rest(
                    "internal error in the scheduler; see its log. The outcome is unknown"
                )
        finally:
            self._clear()
        return None if self.fenced or self.stuck else await self._end()

    async def prepare(self) -> None:
        """Register the waits for replies to what an earlier process sent. Idempotent.

        Raises:
            PlanError: the plan cannot be resumed.
        """
        await self._resumer.prepare()

    async def _run_components(self) -> None:
        await self.prepare()
        await self._resumer.take_up()
        try:
            async with trio.open_nursery() as nursery:
                self._tasks.open(nursery, self._component_tasks.run, self._record_the_end)
                # As a task: what is raised in the body of a nursery with tasks refers to itself (trio 0.35).
                self._lineup.enter_soon(from_the_start(self.plan.graph, self.plan.build.edges))
        finally:
            # An operator's command may still be being persisted: nothing more begins because of it.
            self._tasks.close()

    def _record_the_end(self) -> None:
        """Nothing is in flight any more: have the end of the build ride in the record of its last outcome."""
        self._outcomes.close_given_up()
        if (
            self._recording.in_order
            and self.plan.state.over
            and not self.plan.state.finished
            and not self.fenced
        ):
            self._end_recorded = True
            self._recording.record_soon(*late_replies.take_adopted(self.plan), ending.finish(self.plan))

    def _clear(self) -> None:
        """Let go of everything, however the build has ended: all cycles of references end here."""
        self.listening.set()
        for run in list(self._runs.values()):
            if isinstance(run.resumed, Call):
                run.resumed.close()
                run.resumed = None
        for call in list(self._runs.calls):
            # Sent for a task that was cancelled before it came to that.
            self._outcomes.put_away(call)
        self._outcomes.close_given_up()
        self._outcomes.arrived.clear()
        self._unsent.clear()
        self._lineup.clear()
        self._recording.close()

    async def _end(self) -> Report | None:
        plan, recording = self.plan, self._recording
        if not plan.state.over and plan.state.stopped and recording.resumable and not recording.log_removed:
            adopted = late_replies.take_adopted(plan)
            if recording.in_order:
                # What was recorded has to be in the log before anything else makes its position move.
                await recording.commit(*adopted)
            elif adopted:
                await recording.commit_at_the_end(*adopted)
            return None
        if not plan.state.over:
            await self._give_up_on_the_rest("the scheduler was shut down before there was a reply")
        if self._end_recorded:
            kept = await recording.commit_at_the_end()
        else:
            kept = plan.state.finished or await recording.commit_at_the_end(
                *late_replies.take_adopted(plan), ending.finish(plan)
            )
        if not kept and recording.in_order and not recording.log_removed:
            # The log is the truth: what it does not say to be over is resumed by the next process.
            _log.error(
                "the end of the build could not be committed: it is left to the next process", build=self.id
            )
            return None
        if len(plan.phases) < _LARGE:
            return report_of(plan)
        return await self._executor.run(self.id, partial(report_of, plan), long=True)

    async def _give_up_on_the_rest(self, why: str) -> None:
        for event in ending.abandon(self.plan, why):
            vertex = self.plan.graph.index[event.component]
            if isinstance(event, Settled):
                self._observer.settled(vertex, self.plan.attempt(vertex), str(event.body["error"]))
            if not await self._recording.commit_at_the_end(event):
                return

    # ---- from outside

    @property
    def listening(self) -> trio.Event:
        """Set once the replies to what an earlier process sent are waited for."""
        return self._resumer.listening

    @property
    def fenced(self) -> bool:
        """Whether another process has the build now."""
        return self._recording.fenced

    @property
    def steerable(self) -> bool:
        """Whether the walk is under way: it has begun, and has not come to its end."""
        return self._tasks.under_way and not self.fenced

    def steer(self) -> Steering:
        """Return the commands that operators may give for it.

        Raises:
            Refused: it has not begun yet, or has come to its end.
        """
        self._steering.check()
        return self._steering

    def stop(self) -> None:
        """Send nothing more, because this process is to end; what is in flight is awaited."""
        self.plan.state.stop()
        self._hold.withdraw_unsent()

    def halt(self, cause: str) -> None:
        """Send nothing more for this build; what is in flight is awaited."""
        self._hold.halt(cause)

    def note_outage(self, seconds: float) -> None:
        """Persist that nothing could be done for so many seconds, and now it can."""
        self._recording.record_outage(seconds)

    def abandon(self, within: float) -> None:
        """Stop waiting for replies; what is being persisted has ``within`` seconds to be done."""
        self._recording.scope.deadline = trio.current_time() + within
        if self._recording.in_order:
            self._connectors.hand_over(self.id)
        for call in list(self._runs.calls):
            if self._recording.resumable:
                call.abandon()
            else:
                unknown = "the scheduler was shut down before there was a reply: outcome unknown"
                call.deliver(failure(unknown, retryable=False))

    def send_again(self) -> None:
        """After a loss of the connection: send what may have been lost with it again, if that is wanted."""
        self._starts.send_again()

    def calls(self) -> Mapping[Call, float]:
        """Return everything in flight, the oldest first, and since when (Trio's clock, seconds)."""
        return self._runs.calls

    def call_of(self, vertex: Vertex) -> Call | None:
        """Return the attempt of a component that is in flight, where one is."""
        return self._runs.call_of(vertex)

    def longest_wait(self) -> tuple[str, float] | None:
        """Return the request that is in flight for longest: its component, and since when (Trio's clock)."""
        return next(((call.request.component, since) for call, since in self._runs.calls.items()), None)

    def retry_in(self, vertex: Vertex) -> float | None:
        """Return the seconds until the next attempt of a component; None where it does not wait for one."""
        run = self._runs.get(vertex)
        if run is None or run.retry_at is None or self.plan.phases[vertex] is not Phase.RETRYING:
            return None
        return max(0.0, run.retry_at - trio.current_time())
