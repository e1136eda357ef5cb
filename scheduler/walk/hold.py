"""Holds a build: after a halt it sends nothing more, unless an operator retries; in a pause nothing new."""

from collections.abc import Iterable

import trio

from scheduler.dispatch.call import Call, Signal
from scheduler.plan.outcome import failure
from scheduler.plan.phases import TO_BE_TRIED
from scheduler.runtime.pace import drained, paced
from scheduler.walk.component import ComponentRun
from scheduler.walk.context import Context
from scheduler.walk.lineup import Lineup
from scheduler.walk.slot_queue import SlotQueue

_ENDED_AT_ONCE = 20
"""Waits for another attempt, or for the end of a pause, that end before other builds have a turn: each of
these tasks is woken by an exception, which takes up to a tenth of a millisecond."""
UNKNOWN_AND_HALTED = (
    "outcome unknown: the scheduler was stopped when its request may have left, and the build had failed "
    "already, so it was not sent again. Check whether it was created"
)


class Hold:
    """Halts and pauses one build, and does what follows for its components.

    Args:
        context: context of the walk.
        slots: queue of the components that wait for slots.
        lineup: line-up of the components that are to begin.
    """

    __slots__ = (
        "_awaiting",
        "_connectors",
        "_held_back",
        "_held_runs",
        "_lineup",
        "_observer",
        "_plan",
        "_runs",
        "_slots",
        "_tasks",
        "_unsent",
    )

    def __init__(self, context: Context, slots: SlotQueue, lineup: Lineup) -> None:
        self._plan = context.plan
        self._connectors = context.connectors
        self._slots = slots
        self._observer = context.observer
        self._unsent = context.unsent
        self._runs = context.runs
        self._tasks = context.tasks
        self._lineup = lineup
        self._held_runs: list[ComponentRun] = []
        """Components whose time stands still, as the build is paused."""
        self._held_back: list[Call] = []
        """Requests that an earlier process may have sent, held back while the build is paused."""
        self._awaiting: dict[trio.Event, None] = {}
        """Events of the components that wait for the end of a pause, or of the build."""

    def halt(self, cause: str) -> None:
        """Send nothing more for this build; await what is in flight."""
        self._plan.state.halt(cause)
        self.withdraw_unsent()

    def withdraw_unsent(self) -> None:
        """Take back, after a halt, what has not left, and end every wait for anything but a reply."""
        if self._plan.state.halted:
            for call in list(self._runs.calls):
                call.withdraw()
            self._slots.dismiss()
            self._unsent.clear()
            self.unpause()
            self._end_waits()

    def _end_waits(self) -> None:
        """End the waits of components for anything but slots or a reply: beyond some in later turns."""
        waits = list(self._runs.waiting)
        for wait in waits[:_ENDED_AT_ONCE]:
            wait.cancel()
        rest = waits[_ENDED_AT_ONCE:]
        if rest and self._tasks.under_way:
            self._tasks.run_beside(self._end_rest, rest, name="end waits")
        else:
            for wait in rest:
                wait.cancel()

    async def _end_rest(self, waits: list[trio.CancelScope]) -> None:
        """End these waits in slices; a component that an operator lets go on meanwhile waits again."""
        async for wait in paced(drained(waits), every=_ENDED_AT_ONCE):
            wait.cancel()

    def pause(self) -> int:
        """Take back what nobody has, and stop the time of components that are not in flight.

        What an operator was told of as in flight may be done by a connector; what still waits for the
        connection, for the lease or for anybody to listen is nobody's yet, and would leave in the pause.
        Synchronous.

        Returns:
            Number of requests that were taken back.
        """
        taken_back = 0
        for call in self._runs.calls:
            if not call.answered and not call.maybe_out:
                call.withdraw()
                taken_back += call.answered
        # One that was tried and taken back waits like one that was never tried.
        phases, runs = self._plan.phases, self._runs.values()
        self.stop_time(
            run for run in runs if run.first_sent is not None and phases[run.vertex] in TO_BE_TRIED
        )
        return taken_back

    def stop_time(self, runs: Iterable[ComponentRun]) -> None:
        """Let the time of these components stand still until the pause ends."""
        now = trio.current_time()
        for run in runs:
            if run.held_since is None:
                run.held_since = now
                self._held_runs.append(run)

    def hold_back(self, call: Call) -> None:
        """Keep a request that an earlier process may have sent from being sent again until the pause ends."""
        self._held_back.append(call)

    async def pause_over(self) -> None:
        """Wait for the end of a pause, or of the build."""
        over = trio.Event()
        self._awaiting[over] = None
        try:
            await over.wait()
        finally:
            self._awaiting.pop(over, None)

    def unpause(self) -> None:
        """Wake everything that waits for the end of a pause, or of the build."""
        now = trio.current_time()
        held, self._held_runs = self._held_runs, []
        for run in held:
            if run.first_sent is not None and run.held_since is not None:
                run.first_sent += now - run.held_since
            run.held_since = None
        if self._plan.state.paused:
            # Paused again in the meantime.
            self.stop_time(held)
        elif not self._plan.state.halted:
            for call in self._runs.calls:
                # They have left, and were not to leave again in the pause.
                if not call.wanted:
                    call.wanted = True
                    if call.unheard:
                        # Its task has heard of that in the pause, and repeats nothing until it does again.
                        call.deliver(Signal.NOBODY)
        held_back, self._held_back = self._held_back, []
        for call in held_back:
            self._release(call)
        self._wake()
        self._lineup.unpark()

    def _wake(self) -> None:
        """Wake what waits for the end of a pause: beyond some components in later turns, as thousands may."""
        awaiting, self._awaiting = list(self._awaiting), {}
        for over in awaiting[:_ENDED_AT_ONCE]:
            over.set()
        rest = awaiting[_ENDED_AT_ONCE:]
        if rest and self._tasks.under_way:
            self._tasks.run_beside(self._wake_rest, rest, name="end pause")
        else:
            for over in rest:
                over.set()

    async def _wake_rest(self, rest: list[trio.Event]) -> None:
        """Wake these in slices; where the build is paused again meanwhile, they wait again."""
        async for over in paced(rest, every=_ENDED_AT_ONCE):
            over.set()

    def _release(self, call: Call) -> None:
        plan = self._plan
        if call.outgoing is not None:
            # It was sent again in the meantime, as its connector came back: it is in flight like any other.
            return
        if not plan.state.halted and plan.state.paused:
            # Paused again in the meantime.
            self._held_back.append(call)
        elif plan.state.stopped:
            self._connectors.hand_over(plan.build.id)
            call.abandon()
        elif plan.state.halted:
            call.deliver(failure(UNKNOWN_AND_HALTED, retryable=False))
        elif not call.answered:
            if call.timer is None:
                self._connectors.arm(call)
            self._slots.recall(call.request.subject, trio.current_time())
            call.publish()
            self._observer.departed(call.request.vertex)
