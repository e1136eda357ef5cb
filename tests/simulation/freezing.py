"""Processes that stand still, as after SIGSTOP: their tasks do not run, and time passes all the same.

What a task is woken for meanwhile, deadlines included, waits for it. Messages wait in the connection, see
`simulation.network`. Nothing here decides when a process stands still.
"""

from typing import TYPE_CHECKING

import trio
import trio._core._run as trio_run
from attrs import define, field

from simulation.who import WHO

if TYPE_CHECKING:
    from simulation.processes import Process


@define(eq=False)
class Freezer(trio.abc.Instrument):
    """Keeps the tasks of processes that stand still from running."""

    _held: dict["Process", list[trio.lowlevel.Task]] = field(factory=dict)
    """Tasks that are to run, in the order in which they were woken."""

    def freeze(self, process: "Process") -> None:
        """Stop a process; what runs at this very moment still gets to its next checkpoint."""
        queue = trio_run.GLOBAL_RUN_CONTEXT.runner.runq
        if not self._held:
            trio.lowlevel.add_instrument(self)
        held = self._held[process] = [task for task in queue if task.context.get(WHO) is process]
        for task in held:
            queue.remove(task)

    def thaw(self, process: "Process") -> None:
        """Let a process go on."""
        held = self._held.pop(process, None)
        if held is None:
            return
        trio_run.GLOBAL_RUN_CONTEXT.runner.runq.extend(held)
        if not self._held:
            trio.lowlevel.remove_instrument(self)

    def task_scheduled(self, task: trio.lowlevel.Task) -> None:
        held = self._held.get(task.context.get(WHO))  # type: ignore[arg-type]
        if held is not None:
            last = trio_run.GLOBAL_RUN_CONTEXT.runner.runq.pop()
            assert last is task, "it was put at the end"
            held.append(task)
