"""Renders components that take long beside the loop, for their plan to take in."""

import time
from typing import Final

import trio

from scheduler.definition.graph import Vertex
from scheduler.plan import Plan, Rendering
from scheduler.runtime.executor import Executor
from scheduler.walk.component import ComponentRun, Runs

_TIME: Final = 2.0
"""Longest time for one component, in seconds; 50 ms of work, on a machine however slow."""
_LONG: Final = 128 * 1024
"""Size from which on the search for secrets may take a tenth of a second, in bytes."""


async def render(plan: Plan, vertex: Vertex, executor: Executor) -> None:
    """Render a component and search it for secrets in a thread, for its plan to take in.

    It is bounded in work, by what one component may take of what is left for its build, and in seconds.
    Beyond either it fails like a reference that cannot be resolved.

    Args:
        plan: plan of the build. The dependencies of the component are completed.
        vertex: the component.
        executor: runs the work in a thread.
    """
    job = plan.requests.rendering(vertex)

    def timed() -> Rendering:
        # Counted from now on, as it may have waited long for its thread.
        until = time.monotonic() + _TIME
        return job(lambda: time.monotonic() > until)

    rendering = await executor.run(plan.build.id, timed)
    learn = plan.requests.learning(vertex, rendering)
    if learn is not None:
        long = not isinstance(rendering, str) and len(rendering.body) > _LONG
        await executor.run(plan.build.id, learn, long=long)
    plan.requests.take_in(vertex, rendering)


class Renderer:
    """Renders the components of one build beside the loop, one at a time.

    Args:
        plan: plan that takes in what was rendered.
        runs: runs of its components.
        executor: runs the work in threads.
    """

    __slots__ = ("_executor", "_lock", "_plan", "_runs")

    def __init__(self, plan: Plan, runs: Runs, executor: Executor) -> None:
        self._plan = plan
        self._runs = runs
        self._executor = executor
        self._lock: trio.Lock | None = None
        """Lock that is made for the first such component: most builds have none."""

    async def render(self, run: ComponentRun) -> None:
        """Render a component, while others begin.

        Renders nothing where there is news of the component before, or the build is held.
        """
        with self._runs.interruptible(run):
            self._lock = self._lock or trio.Lock()
            async with self._lock:
                if not self._plan.state.held:
                    await self.render_now(run.vertex)

    async def render_now(self, vertex: Vertex) -> None:
        """Render a component, whatever happens meanwhile."""
        await render(self._plan, vertex, self._executor)
