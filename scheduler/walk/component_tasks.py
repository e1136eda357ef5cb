"""The task of each component: it waits for its dependencies and its turn, and sees the attempts through."""

import trio

from scheduler.definition.graph import Vertex
from scheduler.definition.template import INLINE_WORK, Laborious
from scheduler.plan import ending
from scheduler.walk.component import OVER, ComponentRun, Stage
from scheduler.walk.context import Context
from scheduler.walk.gates import Gates
from scheduler.walk.granted import Granted
from scheduler.walk.hold import Hold
from scheduler.walk.lineup import Lineup
from scheduler.walk.outcomes import Outcomes
from scheduler.walk.resumption import Resumer
from scheduler.walk.slot_queue import SlotQueue
from scheduler.walk.starts import Starts


class ComponentTasks:
    """Tasks of the components of one build.

    Args:
        context: what the parts of the walk share.
        granted, slots, lineup: have the components that are to begin.
        hold: holds while the build is paused.
        starts, outcomes: begin attempts, and book their ends.
        resumer: resumes attempts that an earlier process began.
        gates: waits for people.
    """

    def __init__(
        self,
        context: Context,
        *,
        granted: Granted,
        slots: SlotQueue,
        lineup: Lineup,
        hold: Hold,
        starts: Starts,
        outcomes: Outcomes,
        resumer: Resumer,
        gates: Gates,
    ) -> None:
        self._plan = context.plan
        self._runs = context.runs
        self._tasks = context.tasks
        self._news = context.tasks.news
        self._event = context.tasks.event
        self._dependencies = context.plan.graph.dependencies
        self._is_ready = lineup.frontier.is_ready
        self._settled = lineup.frontier.settled
        self._granted = granted
        self._slots = slots
        self._lineup = lineup
        self._hold = hold
        self._unsent = context.unsent
        self._starts = starts
        self._outcomes = outcomes
        self._resumer = resumer
        self._gates = gates
        self._renderer = context.renderer

    async def run(self, vertex: Vertex) -> None:
        """Run one component, from the wait for its dependencies to its end."""
        # Little more than this frame is kept of each of ten thousand components that wait.
        try:
            # An operator may retry one that had settled.
            while not self._is_ready(vertex):
                # The last one mostly settles last, and its event is then the only one that is waited for.
                for dependency in reversed(self._dependencies[vertex]):
                    if not self._settled[dependency]:
                        await self._event(dependency, vertex).wait()
            await self._see_through(vertex)
        finally:
            self._end(vertex)

    async def _see_through(self, vertex: Vertex) -> None:
        """Run one component whose dependencies have settled, to its end."""
        run, phases = self._runs[vertex], self._plan.phases
        resumed, run.resumed = run.resumed, None
        if resumed is not None:
            run.due = True
            await self._resumer.resume(run, resumed)
        elif run.stage is Stage.BEGUN or await self._turn(run):
            run.stage = Stage.NOWHERE
            start, run.start = run.start, None
            if start is not None:
                if start.call is None:
                    await self._starts.let_leave(start)
                if start.call is not None:
                    await self._outcomes.of(start.call)
        if run.subject:
            self._lineup.land(vertex)
        # While its end is being persisted an operator may retry it.
        while phases[vertex] not in OVER or run.rescued is not None:
            if not await self._proceed(run):
                break

    async def _turn(self, run: ComponentRun) -> bool:
        """Wait until a component has begun, in its turn.

        Returns:
            Whether it has; where not, it is not to begin from the line-up: `_proceed` does what is left then.
        """
        granted, vertex = self._granted, run.vertex
        while run.stage is not Stage.BEGUN:
            if run.stage is Stage.LABORIOUS:
                run.stage = Stage.NOWHERE
                await self._renderer.render(run)
                if not self._plan.requests.is_rendered(vertex) and not self._plan.state.held:
                    return False
                granted.grant(run, run.number)
            if run.due:
                if run.stage is Stage.GRANTED:
                    if granted.may_begin:
                        await self._begin_some(run)
                        continue
                elif run.stage is not Stage.QUEUED and run.stage is not Stage.PARKED:
                    return False
            elif not self._lineup.is_new(vertex):
                return False
            elif not self._tasks.entering:
                await self._lineup.enter(vertex)
                continue
            await self._news(vertex)
        return True

    async def _begin_some(self, run: ComponentRun) -> None:
        """Begin granted components in the order of the line-up: this one, and others as well.

        Where each start waits for the store, the task of another one begins what is behind this one: here the
        answer may come meanwhile.
        """
        granted, requests, outcomes = self._granted, self._plan.requests, self._outcomes
        alone = self._starts.wait_for_the_store
        enough, granted.beginning = False, True
        work = requests.work_left
        try:
            while (
                granted.waiting
                and not enough
                and (run.stage is Stage.GRANTED or not (alone or outcomes.arrived))
            ):
                before = work
                await self._begin_granted(granted.pop())
                work = requests.work_left
                enough = granted.count(1, before - work)
        finally:
            granted.beginning = False
            if not enough:
                granted.call_first()
        if not granted.looking:
            # Other builds have a turn; then it goes on.
            granted.looking = True
            await trio.lowlevel.checkpoint()
            granted.look()

    async def _begin_granted(self, run: ComponentRun) -> None:
        plan, vertex = self._plan, run.vertex
        due = plan.is_due(vertex)
        if due and plan.state.paused:
            self._lineup.park(run, run.number)
            self._unsent.let_go(vertex)
            self._slots.give_back(run)
        elif due and self._slots.no_room and run.subject:
            self._slots.queue_again(run)
        else:
            try:
                start = await self._starts.begin(run) if due else None
            except Laborious:
                run.stage = Stage.LABORIOUS
                self._granted.count(0, INLINE_WORK)
                self._tasks.wake(vertex)
            else:
                if start is None and due and vertex in self._unsent.sizes:
                    self._slots.queue_again(run)
                else:
                    run.stage, run.start = Stage.BEGUN, start
                    self._tasks.wake(vertex)
                    if start is not None:
                        # Its rendering was used up.
                        return
        plan.requests.let_go(vertex)

    async def _proceed(self, run: ComponentRun) -> bool:
        """Take one step with a component whose dependencies have settled; returns whether there was one."""
        plan, vertex = self._plan, run.vertex
        if plan.is_due(vertex):
            await self._try(run)
        elif plan.is_to_be_given_up(vertex):
            await self._outcomes.keep(ending.give_up_retrying(plan, vertex))
        elif run.rescued is not None:
            rescued, run.rescued = run.rescued, None
            await self._outcomes.keep(rescued)
        else:
            return False
        return True

    async def _try(self, run: ComponentRun) -> None:
        """Take a step towards the next attempt, if it is to come: wait, take slots, or make the attempt."""
        plan, vertex = self._plan, run.vertex
        if vertex in plan.gates:
            await self._gates.wait(run)
            return
        if plan.is_instant(vertex) and not plan.state.paused:
            await self._begin(run)
            return
        if run.retry_at is not None:
            await self._back_off(run, run.retry_at)
            return
        if plan.state.paused:
            with self._runs.interruptible(run):
                await self._hold.pause_over()
            return
        subject = await self._lineup.subject(run)
        if not self._slots.try_take(run, subject):
            with self._runs.interruptible(run):
                await self._slots.take(run, subject)
        if run.subject:
            try:
                if plan.is_due(vertex):
                    await self._begin(run)
            finally:
                self._lineup.land(vertex)

    async def _back_off(self, run: ComponentRun, until: float) -> None:
        with self._runs.interruptible(run):
            await trio.sleep_until(until)
        if trio.current_time() >= until:
            run.retry_at = None

    async def _begin(self, run: ComponentRun) -> None:
        """Begin a component outside the line-up, and await its end: retries begin like this."""
        plan, vertex = self._plan, run.vertex
        try:
            start = await self._starts.begin(run)
        except Laborious:
            await self._renderer.render(run)
            try:
                proceeds = plan.requests.is_rendered(vertex) and plan.is_due(vertex)
                start = await self._starts.begin(run) if proceeds else None
            finally:
                plan.requests.let_go(vertex)
        if start is not None:
            if start.call is None:
                await self._starts.let_leave(start)
            if start.call is not None:
                await self._outcomes.of(start.call)

    def _end(self, vertex: Vertex) -> None:
        frontier, run = self._lineup.frontier, self._runs.get(vertex)
        if not frontier.settled[vertex] or (run is not None and run.subject):
            self._lineup.land(vertex)
        if run is not None:
            run.due = False
            # What was tried, and may be tried again, keeps the times of its attempts.
            tried = run.first_sent is not None or run.retry_at is not None
            needed = tried and self._plan.phases[vertex] not in OVER
            if run.stage is Stage.NOWHERE and run.rescued is None and not needed:
                self._runs.pop(vertex, None)
        if not frontier.settled[vertex]:
            # Whatever the outcome, no task may wait for it for ever.
            frontier.settle(vertex)
            self._tasks.wake_dependents(vertex)
        self._tasks.end(vertex)
