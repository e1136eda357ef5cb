"""Timings: when what happened to the components of a build, for watchers and predictions."""

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
"""Most failed attempts of a component that are remembered, the last ones: 24 bytes each."""
_MOST_INTERRUPTIONS: Final = 1_000
"""Most pauses and outages of a build that are remembered, the last ones of each."""


class Failed(NamedTuple):
    """A failed attempt that is followed by another one."""

    sent: float
    failed: float
    again: float
    """Earliest time of the next attempt."""


class Timings:
    """Times of one build, in seconds since 1970: 24 bytes a component, and more for further attempts.

    `feed.Track` notes them live, and `of_history` as a log says; what each event changes stands here, once.
    Only two things differ: live it is known when a request really left, and what becomes due; a log says the
    one later, if at all, and the other follows from what is completed.

    Args:
        count: number of components.
        accepted: time of the build's acceptance.
        clock: function that returns seconds since 1970; it never goes back.
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
        "supplied",
    )

    def __init__(self, count: int, accepted: float, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.accepted = accepted
        """Time of acceptance; in a further run, of its beginning."""
        self.over: float | None = None
        """Time at which the run ended; None until then."""
        self._due = array("d", bytes(8 * count))
        self._sent = array("d", bytes(8 * count))
        self._ended = array("d", bytes(8 * count))
        self._failed: dict[Vertex, array[float]] = {}
        """Times of the failed attempts by vertex: the three of `Failed`, attempt after attempt."""
        # A dict, as it is empty mostly: a set takes three times as much then.
        self.supplied: dict[Vertex, None] = {}
        """Components settled by an operator: their attempts say nothing of how long they take."""
        self._paused_since: float | None = None
        # Lists, since most builds have none of them, and an empty deque takes ten times as much.
        self._pauses: list[tuple[float, float]] = []
        self._outages: list[tuple[float, float]] = []

    @classmethod
    def of_history(
        cls, build: Build, graph: Graph, history: History, clock: Callable[[], float]
    ) -> "Timings":
        """Read the times from a log: those of its events, or of their records where an event has none."""
        timings = cls(len(graph.ids), history.times[0] / 1_000, clock)
        lately = history.outages[-_MOST_INTERRUPTIONS:]
        timings._outages += [(begin / 1_000, end / 1_000) for begin, end in lately]
        memory = _Memory(timings, build, graph)
        for step, at in zip(history.steps, history.times, strict=True):
            memory.take(step, at / 1_000)
        return timings

    def begin_run(self, vertices: Iterable[Vertex], at: float) -> None:
        """Begin a further run, not paused, in which these components are to be done."""
        self.accepted, self.over = at, None
        self.note_paused(at, on=False)
        for vertex in vertices:
            self.forget(vertex)

    def note_waiting(self, vertex: Vertex) -> None:
        """Note that a component waits again: its request did not leave, or it is to be done again."""
        if self._ended[vertex]:
            self.forget(vertex)
        self._sent[vertex] = 0.0

    def note_due(self, vertex: Vertex, at: float) -> None:
        """Note that all dependencies of a component are completed; the first time counts."""
        if not self._due[vertex]:
            self._due[vertex] = at

    def note_sent(self, vertex: Vertex, at: float) -> float | None:
        """Note that a component's request has left; the last attempt counts. Returns `due`."""
        self._sent[vertex] = at
        return self._due[vertex] or None

    def note_failed(self, vertex: Vertex, at: float, pause: float) -> None:
        """Note that an attempt has failed, and that another one follows after at least ``pause`` seconds."""
        times = self._failed.get(vertex)
        if times is None:
            times = self._failed[vertex] = array("d")
        elif len(times) >= 3 * _MOST_ATTEMPTS:
            del times[:3]
        times.extend(Failed(self._sent[vertex] or at, at, at + pause))
        self._sent[vertex] = 0.0

    def note_supplied(self, vertex: Vertex, at: float) -> None:
        """Note that an operator has said what becomes of a component, now or when it is due."""
        self.supplied[vertex] = None
        if self._ended[vertex]:
            self.forget(vertex)
            self.note_due(vertex, at)

    def note_settled(self, vertex: Vertex, at: float, *, completed: bool) -> float | None:
        """Note that a component is settled. Returns `sent`.

        The success may be the late one of an attempt that had failed, before another one had left: then it
        took from there. One that is kept beside an error changes nothing.
        """
        if self._ended[vertex]:
            if not completed:
                return self._sent[vertex] or None
            # An operator has had that success taken, or said so: what its attempts took is told already.
            self.forget(vertex)
            self.note_due(vertex, at)
        if completed and vertex not in self.supplied:
            times = self._failed.get(vertex)
            if times and not self._sent[vertex]:
                self._sent[vertex] = times[-3]
                del times[-3:]
        self._ended[vertex] = at
        return self._sent[vertex] or None

    def note_paused(self, at: float, *, on: bool) -> None:
        """Note that an operator has paused the build, or resumed it. Repeating it changes nothing."""
        if on and self._paused_since is None:
            self._paused_since = at
        elif not on and self._paused_since is not None:
            _append(self._pauses, (self._paused_since, at))
            self._paused_since = None

    def note_outage(self, seconds: float) -> None:
        """Note that an outage of so many seconds, of the broker or of what keeps the log, is over."""
        now = self.clock()
        _append(self._outages, (now - seconds, now))

    def forget(self, vertex: Vertex) -> None:
        """Forget the times of a component that is to be done again."""
        self._due[vertex] = self._sent[vertex] = self._ended[vertex] = 0.0
        self._failed.pop(vertex, None)

    def due(self, vertex: Vertex) -> float | None:
        """Return the time at which all dependencies were completed."""
        return self._due[vertex] or None

    def waited(self, vertex: Vertex) -> float:
        """Return the seconds since all dependencies were completed, without outages; 0 before that."""
        due, now = self._due[vertex], self.clock()
        if not due:
            return 0.0
        away = sum(max(0.0, end - max(due, begin)) for begin, end in self._outages)
        return max(0.0, now - due - away)

    def sent(self, vertex: Vertex) -> float | None:
        """Return the time at which the current attempt left; None also between two attempts."""
        return self._sent[vertex] or None

    def ended(self, vertex: Vertex) -> float | None:
        """Return the time at which a component settled."""
        return self._ended[vertex] or None

    def failed(self, vertex: Vertex) -> Sequence[Failed]:
        """Return the failed attempts that were followed by another one, or will be."""
        times = self._failed.get(vertex, ())
        return [Failed(*times[at : at + 3]) for at in range(0, len(times), 3)]

    @property
    def pauses(self) -> list[tuple[float, float | None]]:
        """Return beginning and end of each pause; the end of the last one may be None."""
        open_ = [] if self._paused_since is None else [(self._paused_since, None)]
        return [*self._pauses, *open_]

    @property
    def outages(self) -> Sequence[tuple[float, float]]:
        """Beginning and end of each outage of the broker, or of what keeps the log."""
        return self._outages


def _append(spans: list[tuple[float, float]], span: tuple[float, float]) -> None:
    """Append a span; of many, the last ones are kept."""
    spans.append(span)
    del spans[:-_MOST_INTERRUPTIONS]


class _Memory:
    """Notes the events of a log in timings, one by one."""

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
        """Attempts that are known to have left: of several copies the first one counts."""
        self._note_all_due(timings.accepted)

    def take(self, step: Event, at: float) -> None:
        """Note the next event of the log, and its time."""
        timings, index = self._timings, self._graph.index
        match step:
            case Started(component=component):
                # Assumed to have left now; a `Sent` would say when.
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
                timings.note_supplied(index[component], at)
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
        if completed or not timings.ended(vertex):
            self._send(step.component, step.sent, at)
        timings.note_settled(vertex, at, completed=completed)
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
