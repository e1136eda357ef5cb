"""The line-up of the components that are due: they wait for slots, and then begin in order.

The components that one completion makes due enter the line-up in the order of the edges, before the slots of
the completed one are given back; so the most urgent component gets them, new or not. A component that has
its slots is *granted*. Granted components begin in the order in which they entered the line-up.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Final

import trio

from scheduler.definition.graph import Vertex
from scheduler.definition.template import Laborious
from scheduler.plan import Phase
from scheduler.runtime.pace import paced, slices
from scheduler.walk.component import OVER, ComponentRun, Held, Stage
from scheduler.walk.context import Context
from scheduler.walk.frontier import Frontier
from scheduler.walk.granted import Granted
from scheduler.walk.slot_queue import SlotQueue

_SPAWNED_AT_ONCE: Final = 25
"""Tasks started before other builds have a turn: a millisecond or two, where they begin at once."""
_ENTERED_AT_ONCE: Final = 200
"""Components entered into the line-up before other builds have a turn: about a millisecond."""


class Lineup:
    """Line-up of one build.

    Args:
        context: context of the walk.
        granted: gets components that need no slots.
        slots: queue for components that need slots.
    """

    __slots__ = (
        "_all_slots",
        "_backlog",
        "_granted",
        "_observer",
        "_parked",
        "_plan",
        "_renderer",
        "_runs",
        "_slots",
        "_tasks",
        "_unsent",
        "entered",
        "frontier",
    )

    def __init__(self, context: Context, granted: Granted, slots: SlotQueue) -> None:
        self._plan = context.plan
        self._observer = context.observer
        self._unsent = context.unsent
        self._runs = context.runs
        self._tasks = context.tasks
        self._granted = granted
        self._slots = slots
        self._all_slots = context.slots
        self._renderer = context.renderer
        self.frontier = Frontier(context.plan.graph, ())
        """Frontier of the build; `Resumer.prepare` tells it which components have not settled."""
        self.entered = 0
        """Components that `land` has entered in the present turn, as far as that is known."""
        self._backlog: list[tuple[Sequence[Vertex], Held]] = []
        """Landings to be entered in later turns: what is due by them, and the slots to be given back. The
        first may be being entered."""
        self._parked: dict[ComponentRun, None] = {}
        """Components that are ready to begin, but for a pause of the build."""

    # ---- what is due

    def land(self, vertex: Vertex) -> None:
        """After the end of an attempt, enter what that makes due, then give back its slots. Idempotent.

        In this order, a component that has waited long does not overtake a more urgent one that is due now.
        Where many land in one turn, those beyond `_ENTERED_AT_ONCE` components are entered in later turns.
        """
        run, tasks = self._runs.get(vertex), self._tasks
        given_back = None if run is None else run.take_slots()
        due: list[Vertex] = []
        if self._plan.phases[vertex] in OVER and (run is None or run.rescued is None):
            # A late success has to be persisted first. Before the walk has begun nothing is due.
            ready = self.frontier.settle(vertex)
            if ready and tasks.under_way:
                # Of many, those that are not new are left out as they are entered.
                many = len(ready) > _ENTERED_AT_ONCE
                due = ready if many else [one for one in ready if self.is_new(one)]
        if self._backlog:
            # Behind what landed before it.
            self._backlog.append((due, given_back))
        elif self.entered and self.entered + len(due) > _ENTERED_AT_ONCE:
            self._backlog.append((due, given_back))
            tasks.enter(self._catch_up)
        elif len(due) > _ENTERED_AT_ONCE or (
            self._plan.requests.has_open_subjects and any(map(self._is_open, due))
        ):
            self.enter_soon(due, given_back)
        elif due:
            self.entered += len(due)
            self._line_up([run for one in due if (run := self._admit(one)) is not None], given_back)
        elif given_back is not None:
            self._all_slots.release(self._plan, *given_back)
        if self.frontier.settled[vertex]:
            tasks.wake_dependents(vertex)

    async def _catch_up(self) -> None:
        """Enter what landed in turns that were full, in its order; other builds have a turn in between."""
        entered = 0
        while self._backlog:
            due, given_back = self._backlog[0]
            if entered and entered + len(due) > _ENTERED_AT_ONCE:
                entered = 0
                await trio.lowlevel.checkpoint()
            entered += len(due)
            await self._enter(due, given_back, again=False)
            # Only now: what lands meanwhile is behind it.
            del self._backlog[0]

    def is_new(self, vertex: Vertex) -> bool:
        """Return whether a component whose dependencies have settled is to enter the line-up now."""
        run = self._runs.get(vertex)
        if self.frontier.settled[vertex] or (run is not None and run.due):
            return False
        plan = self._plan
        return (
            plan.is_due(vertex)
            or (run is not None and (run.resumed is not None or run.rescued is not None))
            or plan.is_to_be_given_up(vertex)
        )

    def _admit(self, vertex: Vertex, *, again: bool = False) -> ComponentRun | None:
        """Admit a component that is due (``again``: after a pause); returned where it needs slots."""
        plan, run = self._plan, self._runs[vertex]
        run.due = True
        if self._is_unusual(run):
            self._look_at(run)
            return None
        if not again:
            self._observer.due(vertex)
        if vertex in plan.gates:
            self._look_at(run)  # It waits for a person, also in a pause.
        elif plan.state.paused:
            self.park(run, next(self._slots.numbers))
        elif plan.is_instant(vertex):
            self._granted.grant(run, next(self._slots.numbers))
        else:
            return run
        return None

    def _line_up(self, runs: Sequence[ComponentRun], given_back: Held = None) -> None:
        self._slots.line_up(runs, [self._subject(run) for run in runs], given_back)

    def park(self, run: ComponentRun, number: int) -> None:
        """Keep a component that is ready to begin until the pause ends."""
        run.stage, run.number = Stage.PARKED, number
        self._parked[run] = None

    def _is_unusual(self, run: ComponentRun) -> bool:
        """Return whether a component that is due needs more than to wait for its slots."""
        return (
            self._plan.phases[run.vertex] is not Phase.WAITING
            or run.resumed is not None
            or run.retry_at is not None
            or run.rescued is not None
        )

    async def enter(self, vertex: Vertex) -> None:
        """Enter a component that no other task is about to enter, from its own task."""
        if self._is_open(vertex):
            await self._find_subject(vertex)
        else:
            run = self._admit(vertex)
            self._line_up([] if run is None else [run])

    def enter_soon(self, vertices: Iterable[Vertex], given_back: Held = None, *, again: bool = False) -> None:
        """Enter the due ones of these components, in a task of its own, and start missing tasks.

        Args:
            vertices: the components, in the order in which they are to begin.
            given_back: slots to be given back once all of these are queued for slots.
            again: whether they enter again, after a pause.
        """
        self._tasks.enter(partial(self._enter, vertices, given_back, again=again))

    async def _enter(self, vertices: Iterable[Vertex], given_back: Held, *, again: bool) -> None:
        """Admit and queue many components in slices: other builds have a turn in between.

        None gets its slots before all of them are queued.
        """
        vertices = list(vertices)
        every = paced(vertices, every=_ENTERED_AT_ONCE)
        due = [one async for one in every if self.frontier.is_ready(one) and self.is_new(one)]
        unusual = [one for one in due if self._is_unusual(self._runs[one])]
        async for vertex in paced(unusual, every=_SPAWNED_AT_ONCE):
            if self.is_new(vertex):
                self._admit(vertex, again=again)
        for vertex in due:
            if self._is_open(vertex) and self.is_new(vertex):
                await self._find_subject(vertex)
        if len(due) <= _ENTERED_AT_ONCE:
            admitted = [self._admit(one, again=again) for one in due if self.is_new(one)]
            self._line_up([run for run in admitted if run is not None], given_back)
        else:
            async for vertex in paced(due, every=_ENTERED_AT_ONCE):
                if self.is_new(vertex) and (run := self._admit(vertex, again=again)) is not None:
                    self._slots.queue(run, self._subject(run))
            self._slots.serve(given_back)
        async for some in slices(vertices, of=_SPAWNED_AT_ONCE):
            for vertex in some:
                if not self.frontier.settled[vertex] and not self._tasks.start(vertex):
                    self._wake_if_not_due(vertex)

    def _wake_if_not_due(self, vertex: Vertex) -> None:
        """Wake the task of a component that was not entered: it may have waited for that."""
        run = self._runs.get(vertex)
        if run is None or not run.due:
            self._tasks.wake(vertex)

    def _look_at(self, run: ComponentRun) -> None:
        """Wake or start the task of a component that needs more than to wait for its slots."""
        self._tasks.wake(run.vertex)
        self._tasks.start(run.vertex)

    # ---- subjects that references supply

    def _is_open(self, vertex: Vertex) -> bool:
        """Return whether its subject is to be found before it is lined up."""
        plan = self._plan
        if not plan.requests.has_open_subject(vertex) or plan.is_instant(vertex) or vertex in plan.gates:
            return False
        run = self._runs.get(vertex)
        return run is None or not run.supplied_subject

    def _subject(self, run: ComponentRun) -> str:
        """Return the subject of its request; one that references supply was found before."""
        subject, run.supplied_subject = run.supplied_subject, ""
        return subject or self._plan.requests.subject(run.vertex)

    async def subject(self, run: ComponentRun) -> str:
        """Return the subject of its request, found first where references supply it."""
        if self._is_open(run.vertex):
            await self._find_subject(run.vertex)
        return self._subject(run)

    async def _find_subject(self, vertex: Vertex) -> None:
        """Find the subject of a component that is due; a guess where references cannot tell."""
        await trio.lowlevel.checkpoint()
        requests, run = self._plan.requests, self._runs[vertex]
        try:
            run.supplied_subject = requests.due_subject(vertex)
        except Laborious:
            await self._renderer.render(run)
        else:
            return
        try:
            run.supplied_subject = requests.due_subject(vertex)
        except Laborious:
            # Rendering ended early, as there is news of the component or the build is held.
            run.supplied_subject = requests.subject(vertex)
        finally:
            # Rendered again when it begins, as thousands may be waiting for slots.
            requests.let_go(vertex)

    # ---- news

    def stir(self, vertex: Vertex) -> None:
        """Look at a component again, whatever it waits for, as there is news of it."""
        if self._unsent.sizes:
            self._unsent.pop(vertex)
        run = self._runs.get(vertex)
        if run is None:
            return
        for wait in run.waits:
            wait.cancel()
        if (call := self._runs.call_of(vertex)) is not None:
            call.abandon()
        if run.stage is Stage.QUEUED:
            self._slots.leave(run)
            self._look_at(run)
        elif run.stage is Stage.PARKED:
            self._unpark(run)
            self._look_at(run)
        elif run.rescued is not None and not self._tasks.has(vertex):
            # Its task has ended, as the build was halted while it waited for another attempt.
            self.frontier.reopen([vertex])
            run.due = True
            self._tasks.start(vertex)

    def respawn(self) -> None:
        """Enter again every unsettled component that is due: it may have been given up before."""
        unsettled = self._plan.phases.unsettled()
        # Including those that failed and whose own task has not looked at that yet.
        self.frontier.reopen(unsettled)
        missing = [one for one in unsettled if (run := self._runs.get(one)) is None or not run.due]
        if missing and self._tasks.under_way:
            self.enter_soon(missing)

    def _unpark(self, run: ComponentRun) -> None:
        run.stage = Stage.NOWHERE
        self._parked.pop(run, None)

    def unpark(self) -> None:
        """Enter parked components again when the pause has ended; dismiss them if the build is halted."""
        if not self._parked or (self._plan.state.paused and not self._plan.state.halted):
            return
        parked, self._parked = self._parked, {}
        for run in parked:
            run.stage, run.due = Stage.NOWHERE, False
            if self._plan.state.halted:
                self._slots.send_off(run)
        if not self._plan.state.halted and self._tasks.under_way:
            self.enter_soon([run.vertex for run in sorted(parked, key=lambda run: run.number)], again=True)

    def clear(self) -> None:
        """Give back all slots, and forget what waits, as the walk has ended."""
        self._slots.dismiss()
        for run in list(self._runs.values()):
            self._slots.give_back(run)
        for _, given_back in self._backlog:
            if given_back is not None:
                self._all_slots.release(self._plan, *given_back)
        self._backlog.clear()
        self._granted.clear()
        self._parked.clear()
