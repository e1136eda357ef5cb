"""Makes plans as this process runs them: with its limits, rules and known durations."""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from msgspec.structs import replace

from scheduler.definition.graph import Vertex
from scheduler.definition.limits import DEFAULT_LIMITS, Limits
from scheduler.definition.rules import Retries
from scheduler.definition.validation import Prepared
from scheduler.forecast.durations import Durations, expectation
from scheduler.journal.events import Accepted
from scheduler.journal.history import History
from scheduler.journal.timings import Timings
from scheduler.plan import Phase, Plan
from scheduler.plan.summary import accepted_of
from scheduler.runtime.clock import BuildClock
from scheduler.runtime.executor import Executor, ThreadExecutor
from scheduler.runtime.interruptible import interruptible
from scheduler.supervision.explainer import Seen
from scheduler.tracing.build import BuildTrace
from scheduler.walk import render

_T = TypeVar("_T")

_LARGE = 3_000
"""Changes, edges and components from which on planning a build at once takes more than some milliseconds."""


class Planner:
    """Makes plans and timings; those of large builds beside the loop.

    Args:
        limits: limits on texts that come in while a build runs.
        templates, unresolved: settings that builds are read with, to be kept with them.
        retries: the operator's rules for failures.
        durations: known durations of requests.
        clock: returns the clock of a build that is about to begin here, or to be looked at.
        executor: does long work beside the loop.
    """

    def __init__(
        self,
        *,
        limits: Limits = DEFAULT_LIMITS,
        templates: str = "all",
        unresolved: str = "error",
        retries: Retries = (),
        durations: Durations | None = None,
        clock: Callable[[str], BuildClock] = lambda _: BuildClock(),
        executor: Executor | None = None,
    ) -> None:
        self.limits = limits
        self.durations = durations or Durations()
        self._templates = templates
        self._unresolved = unresolved
        self._retries = retries
        self._clock = clock
        self._executor = executor or ThreadExecutor()

    def make(
        self, prepared: Prepared, *, resumed: bool = False, mark: str = "", trace: BuildTrace | None = None
    ) -> Plan:
        """Make the plan of a build as this process would run it, on the spot.

        Args:
            prepared: the build.
            resumed: whether an earlier process began it.
            mark: mark of its acceptance, which is kept with it.
            trace: its trace; None where it has none.
        """
        plan = Plan(
            prepared,
            resumed=resumed,
            limits=self.limits,
            retries=self._retries,
            mark=mark,
        )
        plan.requests.trace = trace
        expected = expectation(self.durations)
        seconds = [expected(plan.requests.subject(vertex)) for vertex in range(len(plan.phases))]
        plan.priorities = plan.graph.remaining(seconds)
        return plan

    async def plan(self, prepared: Prepared, mark: str = "", trace: BuildTrace | None = None) -> Plan:
        """Make the plan of a build as `make` does; that of a large one beside the loop."""
        return await self._beside(prepared, partial(self.make, prepared, mark=mark, trace=trace))

    async def accept(
        self, prepared: Prepared, key: str, mark: str, trace: BuildTrace | None = None
    ) -> tuple[Plan, Accepted]:
        """Make the plan of a build that was submitted, and the event that its log begins with.

        Args:
            prepared: the build.
            key: key of the tokens of its reply subjects.
            mark: mark of its acceptance.
            trace: its trace; None where it has none.
        """
        return await self._beside(prepared, partial(self._accepted, prepared, key, mark, trace))

    def _accepted(
        self, prepared: Prepared, key: str, mark: str, trace: BuildTrace | None
    ) -> tuple[Plan, Accepted]:
        plan = self.make(prepared, mark=mark, trace=trace)
        accepted = accepted_of(plan)
        return plan, replace(accepted, key=key, templates=self._templates, unresolved=self._unresolved)

    async def render(self, plan: Plan, vertex: Vertex) -> None:
        """Render a component that takes long, beside the loop (`scheduler.walk.rendering`)."""
        await render(plan, vertex, self._executor)

    def timings(self, plan: Plan) -> Timings:
        """Return the timings of a build that begins now."""
        clock = self._clock(plan.build.id)
        timings = Timings(len(plan.build.changes), clock.began, clock)
        for vertex, dependencies in enumerate(plan.graph.dependencies):
            if not dependencies and plan.phases[vertex] is Phase.WAITING:
                timings.note_due(vertex, clock.began)
        return timings

    def timings_of(self, plan: Plan, history: History) -> Timings:
        """Return the timings of a build from its log."""
        return Timings.of_history(plan.build, plan.graph, history, self._clock_after(plan, history))

    async def recalled(self, plan: Plan, history: History) -> Seen:
        """Return a build as its log says; the timings of a large one are read beside the loop."""
        fold = partial(Timings.of_history, plan.build, plan.graph, history, self._clock_after(plan, history))
        timings = await self._beside(plan.prepared, fold)
        return Seen(plan, timings, None, 2 * len(history.steps), orders=history.orders)

    def _clock_after(self, plan: Plan, history: History) -> BuildClock:
        clock = self._clock(plan.build.id)
        clock.go_on_after((history.latest + 1) / 1_000)
        return clock

    async def _beside(self, prepared: Prepared, job: Callable[[], _T]) -> _T:
        """Do a job with a whole build: a large one beside the loop, where no other build waits for it."""
        build = prepared.build
        if len(build.changes) + len(build.edges) + len(build.components) < _LARGE:
            with interruptible(build.id):
                return job()
        return await self._executor.run(build.id, job, long=True)
