"""Renders a component that takes long, beside the loop."""

import time
from typing import Final

from scheduler.executor import Executor
from scheduler.graph import Vertex
from scheduler.plan import Plan, Rendering

_TIME: Final = 2.0
"""Seconds for a component, however slow the machine is: what its work takes is 50 ms."""


async def render(plan: Plan, vertex: Vertex, executor: Executor) -> None:
    """Have a component rendered in a thread, for its plan to take in.

    It costs at most what one component may, of what is left of its build's work, and some seconds: past that
    it is told like a reference that cannot be resolved.

    Args:
        plan: of the build. The dependencies of the component are completed.
        vertex: the component.
        executor: has the thread.
    """
    job = plan.rendering(vertex)

    def timed() -> Rendering:
        # From now on: it may have waited long for its thread.
        until = time.monotonic() + _TIME
        return job(lambda: time.monotonic() > until)

    plan.take_in(vertex, await executor.run(plan.build.id, timed))
