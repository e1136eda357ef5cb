"""Predicts how long a build takes, before it runs or from where it stands, by simulating its schedule.

List scheduling (R. L. Graham, "Bounds on Multiprocessing Timing Anomalies", 1969), as the service does it: a
component starts as soon as what it depends on is completed and every limit has room for it; of those that
wait, the one with the longest way to the end goes first. It is the service's own limiter that decides
(`scheduler.limiter`), by a clock that jumps from one completion to the next.

Seconds are counted from now on: a component that began before has a start below zero.
"""

import math
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from heapq import heappop, heappush
from typing import Final, NamedTuple

from attrs import field, frozen

from scheduler.definition.graph import Graph, Vertex
from scheduler.definition.rules import LimitRule
from scheduler.limiter import FlightLimit, Limit, Limiter
from scheduler.runtime.yielding import yield_now

NEVER: Final = math.inf
"""Start and end of a vertex that will not start."""
_BUILD: Final = "build"
"""The key of the build in a limiter of its own."""
_UNLIMITED: Final = sys.maxsize
"""Number of requests in flight that stands for no limit."""
_LATE: Final = 0.1
"""Part of the time that a late vertex has taken, which it is assumed to need on top."""


@frozen
class Standing:
    """State of a build; the default is its beginning."""

    done: Collection[Vertex] = ()
    """Completed, or skipped with an output."""
    running: Mapping[Vertex, float] = field(factory=dict)
    """Seconds that each has taken so far."""
    retrying: Mapping[Vertex, float] = field(factory=dict)
    """Seconds until each is sent again."""
    never: Collection[Vertex] = ()
    """Errored or skipped vertices: nothing that depends on them will start."""


class Step(NamedTuple):
    """A link of the chain that decides when a build ends."""

    vertex: Vertex
    seconds: float
    """From now, or from its start where that is later, to its end."""
    waited: float
    """Seconds that it could have begun earlier, had there been no limits."""
    limit: str | None
    """Limit that it waited for last, where it waited."""


@frozen
class Forecast:
    """Schedule that is to be expected."""

    seconds: float
    """Seconds from now to the end of the last vertex."""
    starts: Sequence[float] = field(repr=False)
    """For each vertex; `NEVER` for what will not start, zero for what is done."""
    ends: Sequence[float] = field(repr=False)
    path: Sequence[Step] = field(repr=False)
    """Back from the last to end, each time to the dependency that ended last; in the order of time."""
    chain: float
    """Seconds of the longest path: the duration without limits."""
    bounds: Mapping[str, float]
    """For each limit the seconds that all under it take at least."""
    queued: Mapping[str, int]
    """For each limit the number of vertices that waited for it."""

    @property
    def lower_bound(self) -> float:
        """Seconds below which no order of the components gets."""
        return max(self.chain, *self.bounds.values()) if self.bounds else self.chain

    @property
    def lost(self) -> dict[str, float]:
        """Seconds of waiting on the path, by limit: with its steps' seconds they make up the whole."""
        found: dict[str, float] = {}
        for step in self.path:
            if step.limit is not None:
                found[step.limit] = found.get(step.limit, 0.0) + step.waited
        return found


def forecast(
    graph: Graph,
    seconds: Sequence[float],
    subjects: Sequence[str | None] = (),
    rules: Sequence[LimitRule] = (),
    *,
    own: Sequence[LimitRule] = (),
    cap: int | None = None,
    standing: Standing | None = None,
) -> Forecast:
    """Simulate a build to its end, as if nothing failed and no other build ran.

    Args:
        graph: without cycles.
        seconds: duration of each vertex.
        subjects: subjects of the vertices' requests; None for a vertex without a request, which falls under
            no limit. May be left out where there are no limits.
        rules: the limits of the service.
        own: the build's own limits.
        cap: number that may be in flight in all; a limit like the rules.
        standing: state of the build to begin from.
    """
    standing = Standing() if standing is None else standing
    limiter = Limiter(rules, per_instance=_UNLIMITED, per_build=_UNLIMITED if cap is None else cap)
    limiter.open(_BUILD, own)
    limits = limiter.limits(_BUILD)
    if cap is None:
        limits.pop()
    simulation = _Simulation(graph, seconds, subjects if limits else (), limiter, standing)
    simulation.run()
    return simulation.result(limits)


class _Simulation:
    """One run of a build in a limiter of its own."""

    def __init__(
        self,
        graph: Graph,
        seconds: Sequence[float],
        subjects: Sequence[str | None],
        limiter: Limiter,
        standing: Standing,
    ) -> None:
        self.graph = graph
        self.standing = standing
        self.limiter = limiter
        size = len(graph.ids)
        self.subjects = subjects or [None] * size
        self.never = _behind(graph, standing.never)
        self.left = list(seconds)
        for vertex in standing.done:
            self.left[vertex] = 0.0
        for vertex in self.never:
            self.left[vertex] = 0.0
        for vertex, elapsed in standing.running.items():
            self.left[vertex] = max(seconds[vertex] - elapsed, _LATE * elapsed)
        self.now = 0.0
        self.starts = [NEVER] * size
        self.ends = [NEVER] * size
        self.ready = [0.0] * size
        """Time from which each vertex could have started, but for limits, in seconds."""
        self.kept_by: dict[Vertex, Limit] = {}
        """Limit that each vertex waited for last, where it waited."""
        self.remaining = graph.remaining(self.left)
        self.events: list[tuple[float, Vertex]] = []
        """Times of completions, with the vertex; of further attempts, with minus the vertex minus one."""

    def run(self) -> None:
        """Go from event to event."""
        graph, standing, events, limiter = self.graph, self.standing, self.events, self.limiter
        missing = [len(dependencies) for dependencies in graph.dependencies]
        for vertex in standing.done:
            self.starts[vertex] = self.ends[vertex] = 0.0
            for dependent in graph.dependents[vertex]:
                missing[dependent] -= 1
        busy = {*standing.done, *self.never, *standing.running, *standing.retrying}
        # A rate keeps its newest starts: in the order of time.
        for vertex, elapsed in sorted(standing.running.items(), key=lambda one: -one[1]):
            self._resume(vertex, elapsed)
        for vertex, pause in standing.retrying.items():
            heappush(events, (pause, -vertex - 1))
        self._line_up([vertex for vertex, count in enumerate(missing) if not count and vertex not in busy])
        dependents, subjects, ends = graph.dependents, self.subjects, self.ends
        while True:
            yield_now()
            if limiter.due < (events[0][0] if events else NEVER):
                self.now = limiter.due
                limiter.follow_alarms(self.now)
                continue
            if not events:
                return
            self.now, vertex = heappop(events)
            due: list[Vertex] = []
            freed = False
            if vertex < 0:
                due.append(-vertex - 1)
            else:
                ends[vertex] = self.now
                subject = subjects[vertex]
                freed = subject is not None and limiter.give_back(_BUILD, subject)
                for dependent in dependents[vertex]:
                    missing[dependent] -= 1
                    if not missing[dependent] and dependent not in busy:
                        due.append(dependent)
            if freed or due:
                self._line_up(due, freed=freed)

    def _resume(self, vertex: Vertex, elapsed: float) -> None:
        self.starts[vertex] = -elapsed
        heappush(self.events, (self.left[vertex], vertex))
        subject = self.subjects[vertex]
        if subject is not None:
            self.limiter.occupy(_BUILD, subject, begun=-elapsed)

    def _line_up(self, due: Sequence[Vertex], *, freed: bool = False) -> None:
        """Begin these as soon as there are slots for them.

        Args:
            due: vertices whose dependencies are all completed.
            freed: whether others wait for the slots just given back: then all are compared.
        """
        limiter, now = self.limiter, self.now
        requests = []
        for vertex in due:
            subject = self.subjects[vertex]
            if subject is None:
                self._start(vertex)
            else:
                requests.append((vertex, subject))
        if not freed:
            taken = limiter.take_all(_BUILD, [subject for _, subject in requests])
            if taken is None:
                taken = limiter.try_take(_BUILD, requests[0][1], 0, now)
            if taken:
                for vertex, _ in requests:
                    self._start(vertex)
                return
        for vertex, subject in requests:
            yield_now()
            self.ready[vertex] = now
            served = partial(self._served, vertex, subject)
            limiter.call(limiter.queue(_BUILD, subject, self.remaining[vertex], served))
        limiter.hand_out(now)

    def _served(self, vertex: Vertex, subject: str, _: bool) -> None:
        yield_now()
        if self.now > self.ready[vertex]:
            limit = self.limiter.priority_queue(_BUILD, subject).kept_by
            assert limit is not None, "it was looked at when it was ready"
            self.kept_by[vertex] = limit
        self._start(vertex)

    def _start(self, vertex: Vertex) -> None:
        self.starts[vertex] = self.now
        heappush(self.events, (self.now + self.left[vertex], vertex))

    def result(self, limits: Sequence[Limit]) -> Forecast:
        """Return the forecast, under these limits."""
        queued = dict.fromkeys((limit.text for limit in limits), 0)
        for limit in self.kept_by.values():
            queued[limit.text] += 1
        return Forecast(
            max((end for end in self.ends if end != NEVER), default=0.0),
            self.starts,
            self.ends,
            self._path(),
            self._chain(),
            dict(self._bounds(limits)),
            queued,
        )

    def _path(self) -> list[Step]:
        ends, starts = self.ends, self.starts
        finite = [vertex for vertex, end in enumerate(ends) if 0.0 < end < NEVER]
        last = max(finite, key=ends.__getitem__, default=None)
        path = []
        while last is not None:
            start = max(0.0, starts[last])
            limit = self.kept_by.get(last)
            waited, text = (0.0, None) if limit is None else (start - self.ready[last], limit.text)
            path.append(Step(last, ends[last] - start, waited, text))
            before = [one for one in self.graph.dependencies[last] if ends[one] > 0.0]
            last = max(before, key=ends.__getitem__, default=None)
        return path[::-1]

    def _chain(self) -> float:
        paused = [pause + self.remaining[vertex] for vertex, pause in self.standing.retrying.items()]
        return max([0.0, *self.remaining, *paused])

    def _bounds(self, limits: Sequence[Limit]) -> Iterator[tuple[str, float]]:
        settled = {*self.standing.done, *self.never}
        members: dict[Limit, list[Vertex]] = {limit: [] for limit in limits}
        vertices: dict[str, list[Vertex]] = {}
        for vertex, subject in enumerate(self.subjects):
            if subject is not None and vertex not in settled:
                vertices.setdefault(subject, []).append(vertex)
        for subject, some in vertices.items():
            for limit in self.limiter.priority_queue(_BUILD, subject).limits:
                if limit in members:
                    members[limit] += some
        for limit, under in members.items():
            running = [self.left[vertex] for vertex in under if vertex in self.standing.running]
            new = [self.left[vertex] for vertex in under if vertex not in self.standing.running]
            if isinstance(limit, FlightLimit):
                # More may run than there is room for, after the limit was lowered: those beyond it are extra.
                running = sorted(running, reverse=True)[: limit.count]
                yield limit.text, (sum(running) + sum(new)) / limit.count
            else:
                bound = (math.ceil(len(new) / limit.count) - 1) * limit.gap + min(new) if new else 0.0
                yield limit.text, bound


def _behind(graph: Graph, never: Collection[Vertex]) -> set[Vertex]:
    """Return these vertices, and those that depend on one of them, directly or not."""
    found = set(never)
    todo = list(found)
    while todo:
        for dependent in graph.dependents[todo.pop()]:
            if dependent not in found:
                found.add(dependent)
                todo.append(dependent)
    return found
