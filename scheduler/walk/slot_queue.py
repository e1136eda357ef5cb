"""The slots of one build's components: taken, waited for in the queue, given back."""

from collections.abc import Sequence
from functools import partial
from itertools import count
from typing import Final

import trio

from scheduler.definition.graph import Vertex
from scheduler.runtime.pace import drained, paced
from scheduler.walk.component import ComponentRun, Held, Stage
from scheduler.walk.context import Context
from scheduler.walk.granted import Granted

_DISMISSED_AT_ONCE: Final = 1_000
"""Components that are taken out of the queue before other builds have a turn: a millisecond or two."""
_TOLD_AT_ONCE: Final = 50
"""Tasks told that their component will not begin, before other builds have a turn."""


class SlotQueue:
    """Queue for the slots of one build.

    Args:
        context: context of the walk.
        granted: gets components that have their slots.
        priorities: priority by vertex: of components that wait for a slot the highest goes first; empty: all
            are equal.
    """

    __slots__ = (
        "_dismissing",
        "_granted",
        "_plan",
        "_queued",
        "_sent_off",
        "_slots",
        "_tasks",
        "_unsent",
        "no_room",
        "numbers",
        "priorities",
    )

    def __init__(self, context: Context, granted: Granted, priorities: Sequence[float]) -> None:
        self._plan = context.plan
        self._slots = context.slots
        self._unsent = context.unsent
        self._tasks = context.tasks
        self._granted = granted
        self.priorities = priorities
        self.numbers = count()
        """Places in the line-up, in the order in which components enter it."""
        self._queued = 0
        """Number of components that wait for slots."""
        self.no_room = False
        """Whether a request found no room, and no component got slots since. Granted components give theirs
        back meanwhile."""
        self._dismissing = False
        """Whether a task takes components out of the queue, as the build was halted."""
        self._sent_off: list[ComponentRun] = []
        """Components that will not begin, and whose tasks are still to be told."""

    def line_up(self, runs: Sequence[ComponentRun], subjects: Sequence[str], given_back: Held = None) -> None:
        """Let components begin as soon as there are slots for them; give ``given_back`` back after that.

        Args:
            runs: components that are due, in the order in which they are to begin.
            subjects: subjects of their requests.
            given_back: slots to be given back once all of these are queued for slots.
        """
        slots, plan = self._slots, self._plan
        if given_back is not None and not slots.waiters:
            # No waiter competes for them.
            slots.release(plan, *given_back)
            given_back = None
        if slots.take_all(plan, subjects):
            for run, subject in zip(runs, subjects, strict=True):
                run.subject = subject
                self._granted.grant(run, next(self.numbers))
        else:
            for run, subject in zip(runs, subjects, strict=True):
                self.queue(run, subject)
        if given_back is not None:
            slots.release(plan, *given_back)
        if self._queued:
            slots.serve(plan)

    def give_back(self, run: ComponentRun) -> None:
        """Give back the slots of a component, where it has any."""
        given_back = run.take_slots()
        if given_back is not None:
            self._slots.release(self._plan, *given_back)

    def serve(self, given_back: Held) -> None:
        """Give slots back, where there are any, and then serve the components that wait."""
        if given_back is not None:
            self._slots.release(self._plan, *given_back)
        self._slots.serve(self._plan)

    def dismiss(self) -> None:
        """End every wait of this build for slots, as it is halted or has ended; the tasks are told soon.

        Thousands may wait: beyond some, waits end in later turns. Until then one of them may get slots, with
        which nothing begins.
        """
        if self._dismissing or not self._slots.dismiss(self._plan, _DISMISSED_AT_ONCE):
            return
        if self._tasks.under_way:
            self._dismissing = True
            self._tasks.run_beside(self._dismiss_the_rest, name="dismiss")
        else:
            self._slots.dismiss(self._plan)

    async def _dismiss_the_rest(self) -> None:
        """End the waits for slots in slices, unless an operator has ended the halt meanwhile."""
        try:
            while True:
                await trio.lowlevel.checkpoint()
                if not self._plan.state.halted or not self._slots.dismiss(self._plan, _DISMISSED_AT_ONCE):
                    break
        finally:
            self._dismissing = False

    def occupy(self, run: ComponentRun, subject: str, size: int) -> None:
        """Account for a request already in flight, and its ``size`` in bytes, even over the limits."""
        run.subject, run.bytes = subject, size
        self._slots.occupy(self._plan, subject, size)

    def recall(self, subject: str, begun: float) -> None:
        """Count a request that an earlier process began at ``begun`` (Trio's clock) under the build's rates.

        The subject is empty where it is not known any more.
        """
        self._slots.recall(self._plan, subject, begun)

    def try_take(self, run: ComponentRun, subject: str) -> bool:
        """Take slots for a component outside the line-up; returns whether there were any."""
        size = self._unsent.sizes.get(run.vertex, 0)
        taken = self._slots.try_take(self._plan, subject, self._priority(run.vertex), size)
        if taken:
            run.subject, run.bytes = subject, size
        return taken

    async def take(self, run: ComponentRun, subject: str) -> None:
        """Wait for slots for a component outside the line-up; it gets none where the build was halted."""
        size = self._unsent.sizes.get(run.vertex, 0)
        if await self._slots.take(self._plan, subject, self._priority(run.vertex), size):
            run.subject, run.bytes = subject, size

    def _priority(self, vertex: Vertex) -> float:
        """Return how urgent a component is: the highest goes first."""
        return self.priorities[vertex] if self.priorities else 0.0

    def queue(self, run: ComponentRun, subject: str, again: int | None = None) -> None:
        """Queue a component for its slots; ``again``: at the place that it had."""
        vertex = run.vertex
        run.waiter = self._slots.queue(
            self._plan,
            subject,
            self._priority(vertex),
            partial(self._on_served, run),
            size=self._unsent.sizes.get(vertex, 0),
            again=again,
        )
        run.stage, run.number = Stage.QUEUED, next(self.numbers) if again is None else again
        self._queued += 1

    def queue_again(self, run: ComponentRun) -> None:
        """Queue a granted component again, as there is no room for its bytes, or for one before it."""
        given_back = run.take_slots()
        assert given_back is not None, "it is about to begin"
        self.no_room = True
        # Queued at the place that it had before another build can get the slots.
        self.queue(run, given_back[0], run.number)
        self._slots.release(self._plan, *given_back)
        self._slots.serve(self._plan)

    def _on_served(self, run: ComponentRun, served: bool) -> None:
        waiter = run.waiter
        assert waiter is not None, "it was queued"
        run.stage, run.waiter = Stage.NOWHERE, None
        self._queued -= 1
        if served:
            self.no_room = False
            run.subject = waiter.subject
            if waiter.size:
                run.bytes = waiter.size
            self._granted.grant(run, run.number)
        else:
            self.send_off(run)

    def leave(self, run: ComponentRun) -> None:
        """Take a queued component out of the queue, without telling its task."""
        assert run.waiter is not None, "it is queued"
        self._slots.leave(run.waiter)
        run.stage, run.waiter = Stage.NOWHERE, None
        self._queued -= 1

    def send_off(self, run: ComponentRun) -> None:
        """Dismiss a component that is not to begin any more; its task is told soon."""
        run.due = False
        if self._sent_off:
            # The task that tells them is there; of ten thousand that are sent off at once this is asked.
            self._sent_off.append(run)
        elif self._tasks.under_way:
            # Otherwise no task is left to be told.
            self._sent_off.append(run)
            self._tasks.run_beside(self._tell_the_sent_off, name="send off")

    async def _tell_the_sent_off(self) -> None:
        """Tell the tasks in slices: thousands may have waited, and other builds have a turn in between."""
        async for run in paced(drained(self._sent_off), every=_TOLD_AT_ONCE):
            self._tasks.wake(run.vertex)
