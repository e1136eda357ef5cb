"""When builds that run will be over: the rest of each simulated, beside the loop, for whoever asks."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final
from weakref import WeakKeyDictionary

import trio
from attrs import frozen

from scheduler.durations import Durations, expectation
from scheduler.forecast import Standing, forecast
from scheduler.plan import Phase, Plan
from scheduler.planning import preview
from scheduler.rules import LimitRule
from scheduler.survey import Seen
from scheduler.validation import Prepared

_FRESH: Final = 1.0
"""Seconds for which a prediction is good at least."""
_SHARE: Final = 0.02
"""Of the time that may go into predicting one build: a large one is looked at less often."""
_ON_THE_SPOT: Final = 100
"""Components up to which it is quicker to do it here than to have a thread do it."""


@frozen
class _Prospect:
    at: float
    until: float
    seconds: float | None


class Prospects:
    """Predicts the ends of builds.

    Args:
        durations: how long requests take.
        rules: limits over all builds; other builds' use of them is not foreseen.
        cap: requests in flight of one build.
    """

    def __init__(self, durations: Durations, rules: Sequence[LimitRule], cap: int) -> None:
        self._durations = durations
        self._rules = tuple(rules)
        self._cap = cap
        self._known: WeakKeyDictionary[Plan, _Prospect] = WeakKeyDictionary()

    async def eta(self, seen: Seen) -> float | None:
        """Seconds until a build is over, if nothing fails; None where nobody can say: paused, or over."""
        plan = seen.plan
        if seen.walk is None or seen.over or (plan.paused and not plan.halted):
            return None
        now = trio.current_time()
        known = self._known.get(plan)
        if known is None or now >= known.until:
            job = self._job(seen)
            began = time.thread_time()
            if len(plan.phases) <= _ON_THE_SPOT:
                seconds, cost = job(), time.thread_time() - began
            else:
                seconds, cost = await trio.to_thread.run_sync(partial(_timed, job))
            known = _Prospect(now, now + max(_FRESH, cost / _SHARE), seconds)
            self._known[plan] = known
        return None if known.seconds is None else max(0.0, known.seconds - (now - known.at))

    async def preview(self, prepared: Prepared) -> dict[str, Any]:
        """What a build will do, from its beginning, as `planning.Preview.document` says it."""
        job = partial(preview, prepared, self._durations, self._rules, cap=self._cap)
        if len(prepared.build.changes) <= _ON_THE_SPOT:
            return job().document()
        return await trio.to_thread.run_sync(lambda: job().document())

    def _job(self, seen: Seen) -> Callable[[], float | None]:
        """The prediction, to be made anywhere: nothing that it looks at changes any more."""
        plan, chronicle = seen.plan, seen.chronicle
        now = chronicle.clock()
        done, never, running, retrying = set(), set(), {}, {}
        for vertex in range(len(plan.phases)):
            match plan.phases[vertex]:
                case Phase.COMPLETED:
                    done.add(vertex)
                case Phase.ERRORED | Phase.SKIPPED:
                    never.add(vertex)
                case Phase.RUNNING | Phase.STARTING:
                    running[vertex] = max(0.0, now - (chronicle.sent(vertex) or now))
                case Phase.RETRYING:
                    retrying[vertex] = 0.0 if seen.walk is None else seen.walk.retry_in(vertex) or 0.0
                case _ if plan.halted:
                    never.add(vertex)
                case _:
                    pass
        standing = Standing(done, running, retrying, never)
        vertices = range(len(plan.phases))
        subjects = [None if plan.is_instant(vertex) else plan.subject(vertex) for vertex in vertices]
        expected = expectation(self._durations)
        seconds = [0.0 if subject is None else expected(subject) for subject in subjects]
        rules = (*self._rules, *plan.rules)

        def predict() -> float | None:
            found = forecast(plan.graph, seconds, subjects, rules, cap=self._cap, standing=standing)
            return round(found.seconds, 3)

        return predict


def _timed(job: Callable[[], float | None]) -> tuple[float | None, float]:
    began = time.thread_time()
    return job(), time.thread_time() - began
