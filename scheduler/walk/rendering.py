"""Renders a component that takes long, beside the loop."""

import time
from typing import Final

from scheduler.definition.graph import Vertex
from scheduler.plan import Plan, Rendering
from scheduler.runtime.executor import Executor

_TIME: Final = 2.0
"""Seconds for a component, however slow the machine is: what its work takes is 50 ms."""
_LONG: Final = 128 * 1024
"""Bytes of a component that may take a tenth of a second to be searched for secrets."""


async def render(plan: Plan, vertex: Vertex, executor: Executor) -> None:
    """Have a component rendered and searched for secrets in a thread, for its plan to take in.

    It costs at most what one component may, of what is left of its build's work, and some seconds: past that
    it is told like a reference that cannot be resolved.

    Args:
        plan: of the build. The dependencies of the component are completed.
        vertex: the component.
        executor: has the thread.
    """
    job = plan.requests.rendering(vertex)

    def timed() -> Rendering:
        # From now on: it may have waited long for its thread.
        until = time.monotonic() + _TIME
        return job(lambda: time.monotonic() > until)

    rendering = await executor.run(plan.build.id, timed)
    learn = plan.requests.learning(vertex, rendering)
    if learn is not None:
        long = not isinstance(rendering, str) and len(rendering.body) > _LONG
        await executor.run(plan.build.id, learn, long=long)
    plan.requests.take_in(vertex, rendering)
