"""Limits, and who waits for them, in a simulated schedule."""

from collections import deque
from collections.abc import Sequence

from scheduler.definition.graph import Vertex
from scheduler.definition.rules import LimitRule


def cap_label(cap: int) -> str:
    """How the limit on what is in flight of one build is called."""
    return f"max_in_flight_per_build={cap}"


class Pool:
    """A limit, and the queues that found it used up. ``starts`` only where it is a rate."""

    __slots__ = ("alarmed", "count", "label", "parked", "period", "queued", "starts", "taken")

    def __init__(self, label: str, count: int, period: float | None) -> None:
        self.label = label
        self.count = count
        self.period = period
        self.taken = 0
        self.starts: deque[float] = deque(maxlen=count)
        self.parked: list[tuple[float, int, int]] = []
        self.alarmed = False
        self.queued = 0

    def room(self, now: float) -> bool:
        """Whether one more may begin."""
        if self.period is None:
            return self.taken < self.count
        return len(self.starts) < self.count or self.due <= now

    @property
    def due(self) -> float:
        """When a rate that is used up lets one more begin."""
        assert self.period is not None
        return self.starts[0] + self.period

    def take(self, now: float) -> None:
        """One more begins."""
        if self.period is None:
            self.taken += 1
        else:
            self.starts.append(now)


class Queue:
    """The vertices that fall under the same limits and wait, the most urgent first."""

    __slots__ = ("blocked", "number", "pools", "serial", "waiting")

    def __init__(self, number: int, pools: tuple[Pool, ...]) -> None:
        self.number = number
        self.pools = pools
        self.waiting: list[tuple[float, Vertex]] = []
        self.serial = 0
        """Counts its moves: what a heap says of it holds if it is of the last."""
        self.blocked: Pool | None = None
        """What it found used up last."""


class Queues:
    """Which vertices fall under which limits."""

    def __init__(
        self, subjects: Sequence[str | None], rules: Sequence[LimitRule], cap: int | None, vertices: int
    ) -> None:
        self.pools = [Pool(str(rule), rule.count, rule.period) for rule in rules]
        if cap is not None:
            self.pools.append(Pool(cap_label(cap), cap, None))
        self.all: list[Queue] = []
        self.of: list[Queue | None] = [None] * vertices
        if not self.pools:
            return
        by_pools: dict[tuple[int, ...], Queue | None] = {(): None}
        by_subject: dict[str | None, Queue | None] = {None: None}
        for vertex, subject in enumerate(subjects):
            if subject not in by_subject:
                assert subject is not None
                key = tuple(index for index, rule in enumerate(rules) if rule.matches(subject))
                if cap is not None:
                    key += (len(rules),)
                if key not in by_pools:
                    queue = Queue(len(self.all), tuple(self.pools[index] for index in key))
                    self.all.append(queue)
                    by_pools[key] = queue
                by_subject[subject] = by_pools[key]
            self.of[vertex] = by_subject[subject]
