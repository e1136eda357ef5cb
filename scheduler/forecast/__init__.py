"""How long a build takes, before it runs or from where it stands: its schedule, simulated.

List scheduling (R. L. Graham, "Bounds on Multiprocessing Timing Anomalies", 1969), as the service does it: a
component starts as soon as what it depends on is completed and every limit has room for it; of those that
wait, the one with the longest way to the end goes first.

Seconds are counted from now on: what began before has a start below zero.
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from heapq import heappop, heappush
from typing import Final, NamedTuple

from attrs import field, frozen

from scheduler.definition.graph import Graph, Vertex
from scheduler.definition.rules import LimitRule
from scheduler.forecast.queues import Pool, Queue, Queues, cap_label
from scheduler.runtime.breath import breathe

__all__ = ["NEVER", "Forecast", "Standing", "Step", "cap_label", "forecast"]

NEVER: Final = math.inf
"""The start and end of what will not start."""
_LATE: Final = 0.1
"""What has taken longer than it should is taken to need another tenth of the time that it has taken."""


@frozen
class Standing:
    """Where a build stands; the default is: at its beginning."""

    done: Collection[Vertex] = ()
    """Completed, or skipped with an output."""
    running: Mapping[Vertex, float] = field(factory=dict)
    """The seconds that each has taken so far."""
    retrying: Mapping[Vertex, float] = field(factory=dict)
    """The seconds until each is sent again."""
    never: Collection[Vertex] = ()
    """Errored or skipped: nothing that depends on them will start."""


class Step(NamedTuple):
    """A link of the chain that decides when a build ends."""

    vertex: Vertex
    seconds: float
    """From now, or from its start where that is later, to its end."""
    waited: float
    """The seconds that it could have begun earlier, had there been no limits."""
    limit: str | None
    """Which of them it waited for, where it waited."""


@frozen
class Forecast:
    """What is to be expected."""

    seconds: float
    """From now to the end of the last."""
    starts: Sequence[float] = field(repr=False)
    """For each vertex; `NEVER` for what will not start, zero for what is done."""
    ends: Sequence[float] = field(repr=False)
    path: Sequence[Step] = field(repr=False)
    """Back from the last to end, each time to the dependency that ended last; in the order of time."""
    chain: float
    """The longest path in seconds: what it would take without limits."""
    bounds: Mapping[str, float]
    """For each limit the seconds that whatever falls under it takes at least."""
    queued: Mapping[str, int]
    """For each limit how many waited for it."""

    @property
    def lower_bound(self) -> float:
        """Seconds below which no order of the components gets."""
        return max(self.chain, *self.bounds.values()) if self.bounds else self.chain

    @property
    def lost(self) -> dict[str, float]:
        """The seconds of waiting on the path, by limit: with its steps' seconds they make up the whole."""
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
    cap: int | None = None,
    standing: Standing | None = None,
) -> Forecast:
    """Simulate a build to its end, as if nothing failed.

    Args:
        graph: without cycles.
        seconds: how long each vertex takes.
        subjects: of the vertices' requests; None for what is not sent, and falls under no limit. May be
            left out where there are no limits.
        rules: the limits.
        cap: how many may be in flight in all; a limit like the rules.
        standing: from where to begin.
    """
    standing = Standing() if standing is None else standing
    simulation = _Simulation(graph, seconds, standing, Queues(subjects, rules, cap, len(graph.ids)))
    simulation.run()
    return simulation.result()


class _Simulation:
    """One run. A queue whose most urgent vertex finds a limit used up is parked there until it has room."""

    def __init__(self, graph: Graph, seconds: Sequence[float], standing: Standing, queues: Queues) -> None:
        self.graph = graph
        self.standing = standing
        self.queues = queues
        size = len(graph.ids)
        self.never = _behind(graph, standing.never)
        self.left = list(seconds)
        for vertex in standing.done:
            self.left[vertex] = 0.0
        for vertex in self.never:
            self.left[vertex] = 0.0
        for vertex, elapsed in standing.running.items():
            self.left[vertex] = max(seconds[vertex] - elapsed, _LATE * elapsed)
        self.ready = [0.0] * size
        self.starts = [NEVER] * size
        self.ends = [NEVER] * size
        self.blame: dict[Vertex, Pool] = {}
        self.remaining = graph.remaining(self.left)
        self.events: list[tuple[float, int, int]] = []
        """When, which rate (-1: none), which vertex: a negative one minus one is to be sent again."""
        self.offers: list[tuple[float, int, int, Pool | None]] = []

    def run(self) -> None:
        """Go from event to event."""
        graph, standing, events = self.graph, self.standing, self.events
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
            heappush(events, (pause, -1, -vertex - 1))
        for vertex, count in enumerate(missing):
            if not count and vertex not in busy:
                self._queue(vertex, 0.0)
        self._dispatch(0.0)
        dependents, queue_of, ends = graph.dependents, self.queues.of, self.ends
        while events:
            now = events[0][0]
            while events and events[0][0] <= now:
                breathe()
                _, rate, vertex = heappop(events)
                if rate >= 0:
                    pool = self.queues.pools[rate]
                    pool.alarmed = False
                    self._wake(pool, now)
                elif vertex < 0:
                    self._queue(-vertex - 1, now)
                else:
                    ends[vertex] = now
                    queue = queue_of[vertex]
                    if queue is not None:
                        for pool in queue.pools:
                            if pool.period is None:
                                pool.taken -= 1
                                if pool.parked:
                                    self._wake(pool, now)
                    for dependent in dependents[vertex]:
                        missing[dependent] -= 1
                        if not missing[dependent] and dependent not in busy:
                            self._queue(dependent, now)
            if self.offers:
                self._dispatch(now)

    def _resume(self, vertex: Vertex, elapsed: float) -> None:
        self.starts[vertex] = -elapsed
        heappush(self.events, (self.left[vertex], -1, vertex))
        queue = self.queues.of[vertex]
        for pool in queue.pools if queue is not None else ():
            if pool.period is None or elapsed < pool.period:
                pool.take(-elapsed)

    def _queue(self, vertex: Vertex, now: float) -> None:
        """Everything that it depends on is completed."""
        self.ready[vertex] = now
        queue = self.queues.of[vertex]
        if queue is None:
            self.starts[vertex] = now
            heappush(self.events, (now + self.left[vertex], -1, vertex))
            return
        entry = (-self.remaining[vertex], vertex)
        heappush(queue.waiting, entry)
        if queue.waiting[0] is entry:
            self._offer(queue, None)

    def _offer(self, queue: Queue, origin: Pool | None) -> None:
        queue.serial += 1
        heappush(self.offers, (queue.waiting[0][0], queue.number, queue.serial, origin))

    def _dispatch(self, now: float) -> None:
        """Begin whatever there is room for, the most urgent of all first."""
        offers, events, queues = self.offers, self.events, self.queues.all
        while offers:
            _, number, serial, origin = heappop(offers)
            queue = queues[number]
            if serial == queue.serial:
                for pool in queue.pools:
                    if not pool.room(now):
                        self._park(queue, pool)
                        break
                else:
                    _, vertex = heappop(queue.waiting)
                    for pool in queue.pools:
                        pool.take(now)
                    self.starts[vertex] = now
                    if now > self.ready[vertex] and queue.blocked is not None:
                        self.blame[vertex] = queue.blocked
                        queue.blocked.queued += 1
                    heappush(events, (now + self.left[vertex], -1, vertex))
                    if queue.waiting:
                        self._offer(queue, None)
            if origin is not None:
                # Whatever became of the one that was woken, there may be room for the next.
                self._wake(origin, now)

    def _park(self, queue: Queue, pool: Pool) -> None:
        queue.serial += 1
        queue.blocked = pool
        heappush(pool.parked, (queue.waiting[0][0], queue.number, queue.serial))
        self._set_alarm(pool)

    def _wake(self, pool: Pool, now: float) -> None:
        """Offer the most urgent of the queues that are parked here, if there is room for it."""
        if not pool.room(now):
            if pool.parked:
                self._set_alarm(pool)
            return
        while pool.parked:
            _, number, serial = heappop(pool.parked)
            queue = self.queues.all[number]
            if serial == queue.serial:
                self._offer(queue, pool)
                return

    def _set_alarm(self, pool: Pool) -> None:
        if pool.period is not None and not pool.alarmed:
            pool.alarmed = True
            heappush(self.events, (pool.due, self.queues.pools.index(pool), 0))

    def result(self) -> Forecast:
        """What came out."""
        return Forecast(
            max((end for end in self.ends if end != NEVER), default=0.0),
            self.starts,
            self.ends,
            self._path(),
            self._chain(),
            dict(self._bounds()),
            {pool.label: pool.queued for pool in self.queues.pools},
        )

    def _path(self) -> list[Step]:
        ends, starts = self.ends, self.starts
        finite = [vertex for vertex, end in enumerate(ends) if 0.0 < end < NEVER]
        last = max(finite, key=ends.__getitem__, default=None)
        path = []
        while last is not None:
            start = max(0.0, starts[last])
            pool = self.blame.get(last)
            waited = 0.0 if pool is None else start - self.ready[last]
            path.append(Step(last, ends[last] - start, waited, None if pool is None else pool.label))
            before = [one for one in self.graph.dependencies[last] if ends[one] > 0.0]
            last = max(before, key=ends.__getitem__, default=None)
        return path[::-1]

    def _chain(self) -> float:
        paused = [pause + self.remaining[vertex] for vertex, pause in self.standing.retrying.items()]
        return max([0.0, *self.remaining, *paused])

    def _bounds(self) -> Iterator[tuple[str, float]]:
        settled = {*self.standing.done, *self.never}
        members: dict[int, list[Vertex]] = {}
        for vertex, queue in enumerate(self.queues.of):
            if queue is not None and vertex not in settled:
                members.setdefault(queue.number, []).append(vertex)
        for pool in self.queues.pools:
            mine = [
                vertex
                for queue in self.queues.all
                if pool in queue.pools
                for vertex in members.get(queue.number, ())
            ]
            running = [self.left[vertex] for vertex in mine if vertex in self.standing.running]
            new = [self.left[vertex] for vertex in mine if vertex not in self.standing.running]
            if pool.period is None:
                # More may run than there is room for, after the limit was lowered: those beyond it are extra.
                running = sorted(running, reverse=True)[: pool.count]
                yield pool.label, (sum(running) + sum(new)) / pool.count
            else:
                bound = (math.ceil(len(new) / pool.count) - 1) * pool.period + min(new) if new else 0.0
                yield pool.label, bound


def _behind(graph: Graph, never: Collection[Vertex]) -> set[Vertex]:
    """These, and what depends on one of them, directly or not."""
    found = set(never)
    todo = list(found)
    while todo:
        for dependent in graph.dependents[todo.pop()]:
            if dependent not in found:
                found.add(dependent)
                todo.append(dependent)
    return found
