"""Makes plans as this process runs them: with its limits and rules, and with what it knows of durations."""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from attrs import evolve

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
from scheduler.walk import render

_T = TypeVar("_T")

_LARGE = 3_000
"""Changes, edges and components of a build about which all at once takes longer than a few milliseconds."""


class Planner:
    """Makes plans, and their times; those of large builds beside the loop.

    Args:
        limits: on texts that come in on the way.
        templates, unresolved: what builds are read with, to be kept with them.
        retries: the operator's rules for what fails.
        durations: how long requests take, as far as is known.
        clock: the clock of a build that is about to begin here, or to be looked at.
        executor: does what takes long beside the loop.
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

    def make(self, prepared: Prepared, *, resumed: bool = False, mark: str = "") -> Plan:
        """The plan of a build as this process would run it, made on the spot.

        Args:
            prepared: the build.
            resumed: whether an earlier process began it.
            mark: of its acceptance, as it is kept with it.
        """
        plan = Plan(prepared, resumed=resumed, limits=self.limits, retries=self._retries, mark=mark)
        expected = expectation(self.durations)
        seconds = [expected(plan.requests.subject(vertex)) for vertex in range(len(plan.phases))]
        plan.priorities = plan.graph.remaining(seconds)
        return plan

    async def plan(self, prepared: Prepared, mark: str = "") -> Plan:
        """The plan of a build, as `make`; a large one is made beside the loop."""
        return await self._beside(prepared, partial(self.make, prepared, mark=mark))

    async def accept(self, prepared: Prepared, key: str, mark: str) -> tuple[Plan, Accepted]:
        """The plan of a build that was submitted, and the event that it begins with.

        Args:
            prepared: the build.
            key: what the tokens of its reply subjects are made with.
            mark: of its acceptance.
        """
        return await self._beside(prepared, partial(self._accepted, prepared, key, mark))

    def _accepted(self, prepared: Prepared, key: str, mark: str) -> tuple[Plan, Accepted]:
        plan = self.make(prepared, mark=mark)
        accepted = accepted_of(plan)
        return plan, evolve(accepted, key=key, templates=self._templates, unresolved=self._unresolved)

    async def render(self, plan: Plan, vertex: Vertex) -> None:
        """Render a component beside the loop, which takes long (`scheduler.walk.rendering`)."""
        await render(plan, vertex, self._executor)

    def timings(self, plan: Plan) -> Timings:
        """The times of a build that begins now."""
        clock = self._clock(plan.build.id)
        timings = Timings(len(plan.build.changes), clock.began, clock)
        for vertex, dependencies in enumerate(plan.graph.dependencies):
            if not dependencies and plan.phases[vertex] is Phase.WAITING:
                timings.note_due(vertex, clock.began)
        return timings

    def timings_of(self, plan: Plan, history: History) -> Timings:
        """The times of a build as its log has them."""
        return Timings.of_history(plan.build, plan.graph, history, self._clock_after(plan, history))

    async def recalled(self, plan: Plan, history: History) -> Seen:
        """A build as its log says that it stood; the times of a large one are read beside the loop."""
        fold = partial(Timings.of_history, plan.build, plan.graph, history, self._clock_after(plan, history))
        return Seen(plan, await self._beside(plan.prepared, fold), None, 2 * len(history.steps))

    def _clock_after(self, plan: Plan, history: History) -> BuildClock:
        clock = self._clock(plan.build.id)
        clock.go_on_after((history.latest + 1) / 1_000)
        return clock

    async def _beside(self, prepared: Prepared, job: Callable[[], _T]) -> _T:
        """Do something with a whole build: a large one beside the loop, where it keeps nobody waiting."""
        build = prepared.build
        if len(build.changes) + len(build.edges) + len(build.components) < _LARGE:
            with interruptible(build.id):
                return job()
        return await self._executor.run(build.id, job, long=True)
