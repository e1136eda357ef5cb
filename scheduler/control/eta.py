"""When builds that run will be over: the rest of each simulated, beside the loop, for whoever asks."""

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
"""Of the time that may go into predicting one build: a large one is looked at less often."""
_LATE: Final = 1.0
"""Seconds by which an attempt has to be late before that is worth a word ..."""
_LATE_SHARE: Final = 0.1
"""... and the share of what is left then."""
_TRIED: Final = 3
"""Late attempts that are looked at, the latest ones: whether the end waits for one takes a simulation."""
_SLICE: Final = 1_000
"""Components that are looked at between two looks at everything else: a millisecond."""
_ON_THE_SPOT: Final = 100
"""Components up to which it is quicker to do it here than to have a thread do it."""

_ASKERS: Final = "questions"
"""Who has the threads: all who ask share one turn, so that no build waits behind many of them."""

_Found: TypeAlias = tuple[float, Vertex | None, float]
"""Seconds until the end; the attempt that it waits for and that is late, and by how many seconds."""


@frozen
class _Prospect:
    at: float
    until: float
    seconds: float
    late: Vertex | None
    """The attempt that makes it overdue."""
    overdue: float

    def is_overdue(self, plan: Plan) -> bool:
        """Whether that attempt is still in flight."""
        return self.late is not None and plan.phases.is_in_flight(self.late)


class EtaEstimator:
    """Predicts the ends of builds.

    Args:
        durations: how long requests take.
        rules: limits over all builds; other builds' use of them is not foreseen.
        cap: requests in flight of one build.
        executor: looks at large builds.
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
        """The results of `eta` and `overdue`, the same for all who ask at the same time."""
        async with self._turn:
            return await self.eta(seen), await self.overdue(seen)

    async def eta(self, seen: Seen) -> float | None:
        """Seconds until a build is over, if nothing fails.

        None where nobody can say: it is paused, starts nothing more, is over, or is overdue.
        """
        prospect = await self._look(seen)
        if prospect is None or prospect.is_overdue(seen.plan):
            return None
        return max(0.0, prospect.seconds - (trio.current_time() - prospect.at))

    async def overdue(self, seen: Seen) -> float | None:
        """Seconds by which an attempt has taken longer than was expected, where the end waits for that one.

        None where there is no such attempt, or no end is foreseen anyhow.
        """
        prospect = await self._look(seen)
        if prospect is None or not prospect.is_overdue(seen.plan):
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

    async def preview(self, prepared: Prepared) -> dict[str, Any]:
        """What a build will do, from its beginning, as `planning.Preview.document` says it."""
        job = partial(preview, prepared, self._durations, self._rules, cap=self._cap)
        build, templates = prepared.build, prepared.templates
        size = len(build.changes) + len(build.components) + len(build.edges)
        if size <= _ON_THE_SPOT and all(template.constant for template in templates):
            return job().document()
        return await self._executor.run(_ASKERS, lambda: job().document(), long=True)

    async def _job(self, seen: Seen) -> Callable[[], _Found]:
        """The prediction, to be made anywhere: nothing that it looks at changes any more.

        A large build is looked at in slices, and may go on between two of them: then some components are seen
        a moment later than others, which no prediction is the worse for.
        """
        plan, timings = seen.plan, seen.timings
        now = timings.clock()
        done, never, running, retrying = set(), set(), {}, {}
        expect = expectation(self._durations)
        expected: list[float] = []
        subjects: list[str | None] = []
        async for vertex in paced(range(len(plan.phases)), every=_SLICE, pause=give_way):
            subject = None if plan.is_instant(vertex) else plan.requests.subject(vertex)
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
    """The seconds until the end; and by how many seconds the attempt is late that the end waits for.

    Those are told where they are a second at least, and a tenth of what is left: less is only chance.
    """
    running = standing.running
    seconds = round(simulate(expected, standing), 3)
    late = sorted(
        (vertex for vertex, elapsed in running.items() if elapsed - expected[vertex] >= _LATE),
        key=lambda vertex: expected[vertex] - running[vertex],
    )
    if not late:
        return seconds, None, 0.0
    # As if all of them ended now: and then as if only one of them went on.
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
