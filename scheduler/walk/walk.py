"""Runs one build: one nursery, and in it one task per component.

Each task waits for the events of its component's dependencies, and for its turn: until there are slots for
it, and what was lined up before it has begun. Then it begins: the plan is asked, the start is persisted, the
request leaves. The task awaits the reply on a memory channel, has the outcome persisted, and sets its own
event, whatever has happened, so that no task waits for ever. The plan makes all decisions; this package only
carries them out, in the order that the promises need:

- a request leaves after its start was persisted, and after every outcome it depends on was (`recording`);
- no checkpoint lies between asking the plan whether it may leave and handing it to the bus (`starts`);
- the components that one completion makes due are queued for slots, in the order of the edges, before the
  slots of the completed one are given back. So the most urgent component gets them, new or not; where there
  is room for all, they leave in the order of the edges (`lineup`);
- answers are booked in the order in which they came in (`outcomes`).

Trio wakes tasks in any order, and nothing depends on it: the first task to wake also begins, books or
persists whatever comes before its own component.

A slot is held until the outcome is persisted. Where the store keeps order, it is held only until the outcome
is recorded: the start of the component that gets the slot next goes into the same record.

One file on purpose: the parts are made here, and a run from its start to its report stands beside them.

Each part knows only parts above it in this list; the walk makes them all::

    component, tasks      the data of each component's run; its task
    unsent, rendering     rendered requests that wait for room; rendering beside the loop
    frontier              which components have settled, and which that makes due
    granted, slot_queue   components that have their slots; those that wait for them
    lineup                the due components, until they begin
    hold                  halts and pauses
    recording             the build's journal, and what follows when it fails
    outcomes, starts      the ends of attempts; their beginnings
    resumption, gates     attempts of an earlier process; waits for people
    steering              commands of operators
    component_tasks       the task of each component, which uses all of these
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
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
from scheduler.walk.gates import Gates
from scheduler.walk.granted import Granted
from scheduler.walk.hold import Hold
from scheduler.walk.lineup import Lineup
from scheduler.walk.outcomes import Outcomes
from scheduler.walk.ports import Observer, Resending, Sender
from scheduler.walk.recording import Recording
from scheduler.walk.rendered_ahead import RenderedAhead
from scheduler.walk.rendering import Renderer
from scheduler.walk.resumption import Resumer, Resumption
from scheduler.walk.slot_queue import SlotQueue
from scheduler.walk.starts import Starts
from scheduler.walk.steering import Steering
from scheduler.walk.tasks import Tasks

_log = structlog.get_logger()

_LARGE = 2_000
"""Number of changes from which on a report is made beside the loop: it would block it for milliseconds."""


class Walk:
    """The run of one build.

    Args:
        plan: decides. The slots know the build by it.
        connectors: takes requests, gives replies.
        store: persists each step before the next one.
        slots: bounds the requests in flight.
        observer: receives the events of the build.
        priorities: priority by vertex: of components that wait for a slot the highest goes first.
        key: key by which a later process knows the build's reply subjects; empty: only this process does.
        resumption: times from the log that the plan was replayed from; None for a new build, or no log.
        resending: rule, by subject, for sending a request without a reply again.
        executor: renders large components, and makes the report of a large build.
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
        """Whether an internal error kept the build from being resumed; its log is as it was."""
        self.given = False
        """Whether it was left to another process, and its log says so."""
        self._give: Callable[[], Awaitable[None]] | None = None
        """Function that says so in the log, as the last of this process."""
        self._connectors = connectors
        self._executor = executor or ThreadExecutor()
        self._observer = observer or Observer()
        self._end_recorded = False
        """Whether the end of the build was recorded, behind its last outcome."""
        self._runs, self._tasks, self._unsent = Runs(), Tasks(plan.graph), RenderedAhead(slots)
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
        granted = Granted(self._tasks)
        queue = SlotQueue(context, granted, priorities)
        self._lineup = lineup = Lineup(context, granted, queue)
        self._hold = hold = Hold(context, queue, lineup)
        self._recording = recording = Recording(plan, store, hold, lineup.land)
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
        self.gates = Gates(context, resumption, lineup=lineup, outcomes=outcomes, starts=starts)
        """Waits for people."""
        self._component_tasks = ComponentTasks(
            context,
            granted=granted,
            slots=queue,
            lineup=lineup,
            hold=hold,
            starts=starts,
            outcomes=outcomes,
            resumer=resumer,
            gates=self.gates,
        )
        self._steering = Steering(
            context, recording, hold, lineup, starts, outcomes=outcomes, gates=self.gates
        )

    # ---- from the start to the report

    async def run(self) -> Report | None:
        """Run the build to its end, whether it completes or fails.

        Returns:
            The report; or None where another process is to resume the build, or has it already.
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
        except* Exception:  # noqa: BLE001 - a bug in the scheduler: it fails this build, and no other
            if self._resumer.from_log and not self._recording.acted:
                # The log is unchanged, so a later version may be able to resume it.
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
        try:
            await self._resumer.prepare()
        except BaseException:
            self._resumer.close()  # the build may be set aside by that, and never run
            raise

    async def _run_components(self) -> None:
        await self.prepare()
        await self._resumer.take_up()
        try:
            async with trio.open_nursery() as nursery:
                self._tasks.open(nursery, self._component_tasks.run, self._record_the_end)
                # In a task: what the body of a nursery with tasks raises refers to itself (trio 0.35).
                self._lineup.enter_soon(from_the_start(self.plan.graph, self.plan.build.edges))
        finally:
            # An operator's command may still be waiting to be persisted: it begins nothing more.
            self._tasks.close()

    def _record_the_end(self) -> None:
        """Record the end of the build, once nothing is in flight, together with its last outcome."""
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
        """Release everything, however the build has ended: all reference cycles are broken here."""
        self.listening.set()
        self._resumer.close()
        for call in list(self._runs.calls):
            # Sent for a task that was cancelled before it could put the call away.
            self._outcomes.put_away(call)
        self._outcomes.close_given_up()
        self._outcomes.arrived.clear()
        self._unsent.clear()
        self.gates.clear()
        self._lineup.clear()
        self._recording.close()

    async def _end(self) -> Report | None:
        plan, recording = self.plan, self._recording
        if not plan.state.over and plan.state.stopped and recording.resumable and not recording.log_removed:
            adopted = late_replies.take_adopted(plan)
            if recording.in_order:
                # What was recorded must be in the log before anything else moves its position.
                await recording.commit(*adopted)
            elif adopted:
                await recording.commit_at_the_end(*adopted)
            if self._give is not None and not self.fenced:
                self.given = await recording.give(self._give)
            if self._give is None or self.fenced or not recording.log_removed:
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
            # The log is the truth: a build that it does not show as finished is resumed by the next process.
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
        """Event that is set once the replies to an earlier process's requests are awaited."""
        return self._resumer.listening

    @property
    def fenced(self) -> bool:
        """Whether another process has the build now."""
        return self._recording.fenced

    @property
    def steerable(self) -> bool:
        """Whether operators may give commands: the walk has begun, and has not ended."""
        return self._tasks.under_way and not self.fenced

    def steer(self) -> Steering:
        """Return the commands that operators may give for the build.

        Raises:
            Refused: the walk has not begun yet, or has ended.
        """
        self._steering.check()
        return self._steering

    def stop(self) -> None:
        """Send nothing more, because this process is stopping; await what is in flight."""
        self.plan.state.stop()
        self._starts.leave_overdue()
        self._hold.withdraw_unsent()

    def halt(self, cause: str) -> None:
        """Send nothing more for this build; await what is in flight."""
        self._hold.halt(cause)

    def note_outage(self, seconds: float) -> None:
        """Persist that nothing could be done for so many seconds, until now."""
        self._recording.record_outage(seconds)

    def abandon(self, within: float) -> None:
        """Stop waiting for replies; persisting may take ``within`` seconds more."""
        self._recording.scope.deadline = trio.current_time() + within
        if self._recording.in_order:
            self._connectors.hand_over(self.id)
        for call in list(self._runs.calls):
            if self._recording.resumable:
                call.abandon()
            else:
                unknown = "the scheduler was shut down before there was a reply: outcome unknown"
                call.deliver(failure(unknown, retryable=False))

    def give(self, give: Callable[[], Awaitable[None]]) -> None:
        """Send nothing more, because another process is to have the build; `abandon` has to follow soon.

        Args:
            give: function that writes so into the log; called once nothing else is to be written.
        """
        # First, as the walk ends by `stop` where nothing is in flight.
        self._give = give
        if self._recording.in_order:
            # A late reply that comes behind the last event is then read by the next owner.
            self._connectors.hand_over(self.id)
        self.stop()

    def send_again(self) -> None:
        """Send requests again that may have been lost with a connection, where the settings say so."""
        self._starts.send_again()

    def calls(self) -> Mapping[Call, float]:
        """Return the attempts in flight, the oldest first, and since when (Trio's clock, seconds)."""
        return self._runs.calls

    def call_of(self, vertex: Vertex) -> Call | None:
        """Return the attempt of a component that is in flight; None where there is none."""
        return self._runs.call_of(vertex)

    def longest_wait(self) -> tuple[str, float] | None:
        """Return the component of the oldest request in flight, and since when (Trio's clock, seconds)."""
        return next(((call.request.component, since) for call, since in self._runs.calls.items()), None)

    def retry_in(self, vertex: Vertex) -> float | None:
        """Return the seconds until the next attempt of a component; None where it waits for none."""
        run = self._runs.get(vertex)
        if run is None or run.retry_at is None or self.plan.phases[vertex] is not Phase.RETRYING:
            return None
        return max(0.0, run.retry_at - trio.current_time())
