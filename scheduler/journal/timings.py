"""When what happened to the components of a build: for whoever asks, and for predictions."""

from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from scheduler.definition.graph import Graph, Vertex
from scheduler.definition.model import Build, State
from scheduler.journal.events import (
    Cancelled,
    Event,
    Finished,
    Paused,
    Retried,
    Retrying,
    Sent,
    Settled,
    Started,
    Supplied,
    Unpaused,
    Withdrawn,
)
from scheduler.journal.history import History

_MOST_ATTEMPTS: Final = 100
"""Failed attempts of a component that are remembered, the last ones: 24 bytes each."""
_MOST_INTERRUPTIONS: Final = 1_000
"""Pauses and outages of a build that are remembered, the last ones of each."""


class Failed(NamedTuple):
    """An attempt that was followed by another one, or is to be."""

    sent: float
    failed: float
    again: float
    """When the next one might begin."""


class Timings:
    """The times of one build, in seconds since 1970: 24 bytes a component, more for one that is tried again.

    Told live by `feed.Track`, or made from its log: both say the same.

    Args:
        count: how many components there are.
        accepted: when the build was.
        clock: seconds since 1970; it never goes back.
    """

    __slots__ = (
        "__weakref__",
        "_due",
        "_ended",
        "_failed",
        "_outages",
        "_paused_since",
        "_pauses",
        "_sent",
        "accepted",
        "clock",
        "over",
    )

    def __init__(self, count: int, accepted: float, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.accepted = accepted
        """When the build was accepted; of a further run, when that began."""
        self.over: float | None = None
        """When it had come to its end."""
        self._due = array("d", bytes(8 * count))
        self._sent = array("d", bytes(8 * count))
        self._ended = array("d", bytes(8 * count))
        self._failed: dict[Vertex, array[float]] = {}
        """Of each failed attempt the three times of `Failed`, one after another."""
        self._paused_since: float | None = None
        # Lists, as most builds have none of them: an empty deque takes ten times as much.
        self._pauses: list[tuple[float, float]] = []
        self._outages: list[tuple[float, float]] = []

    @classmethod
    def of_history(
        cls, build: Build, graph: Graph, history: History, clock: Callable[[], float]
    ) -> "Timings":
        """What a log says: when its events happened, where it has that, otherwise when they were written."""
        timings = cls(len(graph.ids), history.times[0] / 1_000, clock)
        lately = history.outages[-_MOST_INTERRUPTIONS:]
        timings._outages += [(begin / 1_000, end / 1_000) for begin, end in lately]
        memory = _Memory(timings, build, graph)
        for step, at in zip(history.steps, history.times, strict=True):
            memory.take(step, at / 1_000)
        return timings

    def begin_run(self, vertices: Iterable[Vertex], at: float) -> None:
        """A further run begins, in which these are to be done; it is not paused."""
        self.accepted, self.over = at, None
        self.note_paused(at, on=False)
        for vertex in vertices:
            self.forget(vertex)

    def note_waiting(self, vertex: Vertex) -> None:
        """Its request did not leave after all; or, where it had its outcome, it is to be done again."""
        if self._ended[vertex]:
            self.forget(vertex)
        self._sent[vertex] = 0.0

    def note_due(self, vertex: Vertex, at: float) -> None:
        """All that a component depends on is completed; the first time counts."""
        if not self._due[vertex]:
            self._due[vertex] = at

    def note_sent(self, vertex: Vertex, at: float) -> None:
        """Its request left; the last attempt counts."""
        self._sent[vertex] = at

    def note_failed(self, vertex: Vertex, at: float, pause: float) -> None:
        """Its attempt has failed, and another one follows after so many seconds at the earliest."""
        times = self._failed.get(vertex)
        if times is None:
            times = self._failed[vertex] = array("d")
        elif len(times) >= 3 * _MOST_ATTEMPTS:
            del times[:3]
        times.extend(Failed(self._sent[vertex] or at, at, at + pause))
        self._sent[vertex] = 0.0

    def note_late_success(self, vertex: Vertex) -> None:
        """The attempt that had failed last did not: its success has come, before another one had left."""
        times = self._failed.get(vertex)
        if times and not self._sent[vertex]:
            self._sent[vertex] = times[-3]
            del times[-3:]

    def note_ended(self, vertex: Vertex, at: float) -> None:
        """It has its outcome."""
        self._ended[vertex] = at

    def note_paused(self, at: float, *, on: bool) -> None:
        """Nothing new is sent from now on, as an operator wants it; or it is again. Idempotent."""
        if on and self._paused_since is None:
            self._paused_since = at
        elif not on and self._paused_since is not None:
            _append(self._pauses, (self._paused_since, at))
            self._paused_since = None

    def note_outage(self, seconds: float) -> None:
        """The broker, or what keeps the log, was away for so long and is back."""
        now = self.clock()
        _append(self._outages, (now - seconds, now))

    def forget(self, vertex: Vertex) -> None:
        """It is to be done again."""
        self._due[vertex] = self._sent[vertex] = self._ended[vertex] = 0.0
        self._failed.pop(vertex, None)

    def due(self, vertex: Vertex) -> float | None:
        """When all that it depends on was completed."""
        return self._due[vertex] or None

    def sent(self, vertex: Vertex) -> float | None:
        """When its attempt left; None also between two attempts."""
        return self._sent[vertex] or None

    def ended(self, vertex: Vertex) -> float | None:
        """When it had its outcome."""
        return self._ended[vertex] or None

    def failed(self, vertex: Vertex) -> Sequence[Failed]:
        """The attempts that were followed by another one, or are to be."""
        times = self._failed.get(vertex, ())
        return [Failed(*times[at : at + 3]) for at in range(0, len(times), 3)]

    @property
    def pauses(self) -> list[tuple[float, float | None]]:
        """From when to when the build was paused; the last one may go on."""
        open_ = [] if self._paused_since is None else [(self._paused_since, None)]
        return [*self._pauses, *open_]

    @property
    def outages(self) -> Sequence[tuple[float, float]]:
        """From when to when the broker, or what keeps the log, was away."""
        return self._outages


def _append(spans: list[tuple[float, float]], span: tuple[float, float]) -> None:
    """One more; of many the last ones are kept."""
    spans.append(span)
    del spans[:-_MOST_INTERRUPTIONS]


class _Memory:
    """Tells a timings what a log says, event by event."""

    def __init__(self, timings: Timings, build: Build, graph: Graph) -> None:
        self._timings = timings
        self._graph = graph
        self._completed = [change.state is State.COMPLETED for change in build.changes]
        self._missing = [
            sum(not self._completed[dependency] for dependency in dependencies)
            for dependencies in graph.dependencies
        ]
        self._run = 1
        self._departed: set[str] = set()
        """The attempts that are known to have left: of several copies the first one counts."""
        self._supplied: set[Vertex] = set()
        self._note_all_due(timings.accepted)

    def take(self, step: Event, at: float) -> None:
        """The next event of the log, and when it happened."""
        timings, index = self._timings, self._graph.index
        match step:
            case Started(component=component):
                # As far as is known; it leaves when that is written.
                timings.note_sent(index[component], at)
                self._departed.discard(component)
            case Sent(component=component):
                self._send(component, at)
            case Withdrawn(component=component):
                timings.note_waiting(index[component])
            case Retrying(component=component, pause=pause):
                self._send(component, step.sent, at)
                timings.note_failed(index[component], at, pause)
            case Settled():
                self._settle(step, at)
            case Supplied(component=component):
                vertex = index[component]
                self._supplied.add(vertex)
                if timings.ended(vertex):
                    timings.forget(vertex)
                    timings.note_due(vertex, at)
            case Retried():
                self._reopen(step, at)
            case Paused():
                timings.note_paused(at, on=True)
            case Unpaused() | Cancelled():
                timings.note_paused(at, on=False)
            case Finished():
                timings.over = at
            case _:
                pass

    def _send(self, component: str, sent: float | None, latest: float | None = None) -> None:
        if sent is not None and component not in self._departed:
            self._departed.add(component)
            self._timings.note_sent(
                self._graph.index[component], sent if latest is None else min(sent, latest)
            )

    def _settle(self, step: Settled, at: float) -> None:
        timings, vertex = self._timings, self._graph.index[step.component]
        completed = step.body["_state"] == State.COMPLETED
        if not completed and timings.ended(vertex):
            # A late success, kept beside the error: it had ended before.
            return
        self._send(step.component, step.sent, at)
        if completed and vertex not in self._supplied:
            timings.note_late_success(vertex)
        timings.note_ended(vertex, at)
        if completed and not self._completed[vertex]:
            self._completed[vertex] = True
            for dependent in self._graph.dependents[vertex]:
                self._missing[dependent] -= 1
                if not self._missing[dependent]:
                    timings.note_due(dependent, at)

    def _reopen(self, step: Retried, at: float) -> None:
        timings = self._timings
        for component in step.components:
            timings.forget(self._graph.index[component])
        if step.run != self._run:
            self._run = step.run
            timings.begin_run(
                (
                    vertex
                    for vertex, done in enumerate(self._completed)
                    if not done and not timings.ended(vertex)
                ),
                at,
            )
        self._note_all_due(at)

    def _note_all_due(self, at: float) -> None:
        for vertex, number in enumerate(self._missing):
            if not number and not self._completed[vertex]:
                self._timings.note_due(vertex, at)
