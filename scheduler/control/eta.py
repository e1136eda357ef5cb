"""Predicts the end of running builds: simulates the rest of each, large ones in a thread."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, TypeAlias
from weakref import WeakKeyDictionary

import trio
from attrs import evolve, frozen

from scheduler.definition.graph import Vertex
from scheduler.definition.rules import LimitRule
from scheduler.definition.validation import Prepared
from scheduler.forecast import Standing, forecast
from scheduler.forecast.durations import Durations, expectation
from scheduler.forecast.preview import preview
from scheduler.plan import Phase, Plan
from scheduler.runtime.courtesy import give_way
from scheduler.runtime.executor import Executor, ThreadExecutor
from scheduler.runtime.pace import paced
from scheduler.supervision.explainer import Seen

_FRESH: Final = 1.0
"""Seconds for which a prediction is good at least."""
_SHARE: Final = 0.02
"""Share of the time that predicting one build may take: a large one is predicted less often."""
_LATE: Final = 1.0
"""Seconds by which an attempt has to be late to be reported ..."""
_LATE_SHARE: Final = 0.1
"""... and the share of the time left by which it has to be."""
_TRIED: Final = 3
"""Late attempts that are examined, the latest ones: each takes a simulation."""
_SLICE: Final = 1_000
"""Components between two turns of other work: a millisecond."""
_ON_THE_SPOT: Final = 100
"""Components up to which the loop is quicker than a thread."""

_ASKERS: Final = "questions"
"""Owner of the threads' work: all askers share one turn, so that no build waits behind many of them."""

_Found: TypeAlias = tuple[float, Vertex | None, float]
"""Seconds until the end; the late attempt that it waits for, and by how many seconds that is late."""


@frozen
class _Prospect:
    at: float
    until: float
    seconds: float
    late: Vertex | None
    """Attempt that makes the build overdue."""
    overdue: float

    def is_overdue(self, plan: Plan) -> bool:
        """Return whether that attempt is still in flight."""
        return self.late is not None and plan.phases.is_in_flight(self.late)


class EtaEstimator:
    """Predicts the ends of builds.

    Args:
        durations: the expected durations of requests.
        rules: limits over all builds; what other builds take of them is not foreseen.
        cap: most requests in flight of one build.
        executor: runs the prediction of large builds.
    """

    def __init__(
        self,
        durations: Durations,
        rules: Sequence[LimitRule],
        cap: int,
        executor: Executor | None = None,
    ) -> None:
        self._executor = executor or ThreadExecutor()
        self._durations = durations
        self._rules = tuple(rules)
        self._cap = cap
        self._known: WeakKeyDictionary[Plan, _Prospect] = WeakKeyDictionary()
        self._turn = trio.Lock()

    async def end(self, seen: Seen) -> tuple[float | None, float | None]:
        """Return `eta` and `overdue`, the same for all who ask at the same time."""
        async with self._turn:
            return await self.eta(seen), await self.overdue(seen)

    async def eta(self, seen: Seen) -> float | None:
        """Return the seconds until a build ends, if nothing fails.

        None if that cannot be said: the build is paused, halted, finished or overdue.
        """
        prospect = await self._look(seen)
        if prospect is None or prospect.is_overdue(seen.plan):
            return None
        return max(0.0, prospect.seconds - (trio.current_time() - prospect.at))

    async def overdue(self, seen: Seen) -> float | None:
        """Return the seconds by which the attempt that the end waits for has taken longer than expected.

        None if there is no such attempt, no end is foreseen, or its time was only guessed.
        """
        prospect = await self._look(seen)
        if prospect is None or prospect.late is None or not prospect.is_overdue(seen.plan):
            return None
        if self._durations.known(seen.plan.requests.subject(prospect.late)) is None:
            return None
        return prospect.overdue + trio.current_time() - prospect.at

    async def _look(self, seen: Seen) -> _Prospect | None:
        plan = seen.plan
        if seen.walk is None or seen.over or plan.state.held:
            return None
        now = trio.current_time()
        known = self._known.get(plan)
        if known is None or now >= known.until:
            job = await self._job(seen)
            began = time.thread_time()
            if len(plan.phases) <= _ON_THE_SPOT:
                found, cost = job(), time.thread_time() - began
            else:
                found, cost = await self._executor.run(_ASKERS, partial(_timed, job), long=True)
            known = _Prospect(now, now + max(_FRESH, cost / _SHARE), *found)
            self._known[plan] = known
        return known

    def usual(self, subject: str) -> float | None:
        """Return the seconds that a request usually takes; None where that is unknown."""
        known = self._durations.known(subject)
        return None if known is None else known[0]

    async def preview(self, prepared: Prepared) -> dict[str, Any]:
        """Return the document of `scheduler.forecast.preview.Preview` for a build, from its beginning."""
        job = partial(preview, prepared, self._durations, self._rules, cap=self._cap)
        build, templates = prepared.build, prepared.templates
        size = len(build.changes) + len(build.components) + len(build.edges)
        if size <= _ON_THE_SPOT and all(template.constant for template in templates):
            return job().document()
        return await self._executor.run(_ASKERS, lambda: job().document(), long=True)

    async def _job(self, seen: Seen) -> Callable[[], _Found]:
        """Prepare a prediction that may run in any thread: nothing that it reads changes any more.

        A large build is read in slices, and may change between two of them. Then some components are seen a
        moment later than others, which does a prediction no harm.
        """
        plan, timings = seen.plan, seen.timings
        now = timings.clock()
        done, never, running, retrying = set(), set(), {}, {}
        expect = expectation(self._durations)
        expected: list[float] = []
        subjects: list[str | None] = []
        async for vertex in paced(range(len(plan.phases)), every=_SLICE, pause=give_way):
            unsent = plan.is_instant(vertex) or vertex in plan.gates
            subject = None if unsent else plan.requests.subject(vertex)
            subjects.append(subject)
            expected.append(0.0 if subject is None else expect(subject))
            match plan.phases[vertex]:
                case Phase.COMPLETED:
                    done.add(vertex)
                case Phase.ERRORED | Phase.SKIPPED:
                    never.add(vertex)
                case Phase.RUNNING | Phase.STARTING:
                    running[vertex] = now - (timings.sent(vertex) or now)
                case Phase.RETRYING:
                    retrying[vertex] = 0.0 if seen.walk is None else seen.walk.retry_in(vertex) or 0.0
                case _:
                    pass
        standing = Standing(done, running, retrying, never)
        rules, own = self._rules, tuple(plan.state.rules)

        def predict() -> _Found:
            def simulate(seconds: Sequence[float], standing: Standing) -> float:
                return forecast(
                    plan.graph, seconds, subjects, rules, own=own, cap=self._cap, standing=standing
                ).seconds

            return _predict(simulate, expected, standing)

        return predict


def _predict(
    simulate: Callable[[Sequence[float], Standing], float], expected: Sequence[float], standing: Standing
) -> _Found:
    """Return the seconds until the end, and by how many seconds the attempt is late that it waits for.

    An attempt counts as late from a second and a tenth of the time left on: less is chance.
    """
    running = standing.running
    seconds = round(simulate(expected, standing), 3)
    late = sorted(
        (vertex for vertex, elapsed in running.items() if elapsed - expected[vertex] >= _LATE),
        key=lambda vertex: expected[vertex] - running[vertex],
    )
    if not late:
        return seconds, None, 0.0
    # As if all of them ended now; and then as if all but one did.
    least = simulate(*_ended_now(expected, standing, late))
    for vertex in late[:_TRIED]:
        overdue = running[vertex] - expected[vertex]
        others = [other for other in late if other != vertex]
        if overdue >= _LATE_SHARE * least and simulate(*_ended_now(expected, standing, others)) > least:
            return seconds, vertex, round(overdue, 3)
    return seconds, None, 0.0


def _ended_now(
    expected: Sequence[float], standing: Standing, vertices: Sequence[Vertex]
) -> tuple[Sequence[float], Standing]:
    none = dict.fromkeys(vertices, 0.0)
    changed = [none.get(vertex, seconds) for vertex, seconds in enumerate(expected)]
    return changed, evolve(standing, running={**standing.running, **none})


def _timed(job: Callable[[], _Found]) -> tuple[_Found, float]:
    began = time.thread_time()
    return job(), time.thread_time() - began
