"""When what happened to the components of a build: for whoever asks, and for predictions."""

from array import array
from collections.abc import Callable, Iterable

from scheduler.events import Finished, Retried, Sent, Settled, Started, Supplied, Withdrawn
from scheduler.graph import Graph, Vertex
from scheduler.history import History
from scheduler.model import Build, State


class Chronicle:
    """The times of one build, in seconds since 1970: 24 bytes a component.

    Args:
        count: how many components there are.
        accepted: when the build was.
        clock: seconds since 1970.
    """

    def __init__(self, count: int, accepted: float, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.accepted = accepted
        """When the build was accepted; of a further run, when that began."""
        self.over: float | None = None
        """When it had come to its end."""
        self._due = array("d", bytes(8 * count))
        self._sent = array("d", bytes(8 * count))
        self._ended = array("d", bytes(8 * count))

    @classmethod
    def recall(cls, build: Build, graph: Graph, history: History, clock: Callable[[], float]) -> "Chronicle":
        """What a log says: to the millisecond, and as late as things were written down."""
        chronicle = cls(len(graph.ids), history.times[0] / 1_000, clock)
        completed = [change.state is State.COMPLETED for change in build.changes]
        missing = [
            sum(not completed[dependency] for dependency in dependencies)
            for dependencies in graph.dependencies
        ]
        run = 1

        def note_all_due(at: float) -> None:
            for vertex, number in enumerate(missing):
                if not number and not completed[vertex]:
                    chronicle.note_due(vertex, at)

        note_all_due(chronicle.accepted)
        for step, time_ in zip(history.steps, history.times, strict=True):
            at = time_ / 1_000
            match step:
                case Started(component=component) | Sent(component=component):
                    chronicle.note_sent(graph.index[component], at)
                case Withdrawn(component=component):
                    chronicle.note_waiting(graph.index[component])
                case Settled(component=component, body=body):
                    vertex = graph.index[component]
                    chronicle.note_ended(vertex, at)
                    if body["_state"] == State.COMPLETED and not completed[vertex]:
                        completed[vertex] = True
                        for dependent in graph.dependents[vertex]:
                            missing[dependent] -= 1
                            if not missing[dependent]:
                                chronicle.note_due(dependent, at)
                case Supplied(component=component):
                    vertex = graph.index[component]
                    if chronicle.ended(vertex):
                        chronicle.forget(vertex)
                        chronicle.note_due(vertex, at)
                case Retried(components=components):
                    for component in components:
                        chronicle.forget(graph.index[component])
                    if step.run != run:
                        run = step.run
                        chronicle.begin_anew(
                            vertex
                            for vertex, done in enumerate(completed)
                            if not done and not chronicle.ended(vertex)
                        )
                        chronicle.accepted = at
                    note_all_due(at)
                case Finished():
                    chronicle.over = at
                case _:
                    pass
        return chronicle

    def begin_anew(self, vertices: Iterable[Vertex]) -> None:
        """A further run begins now, in which these are to be done."""
        self.accepted, self.over = self.clock(), None
        for vertex in vertices:
            self.forget(vertex)

    def note_waiting(self, vertex: Vertex) -> None:
        """Its request did not leave after all; or, where it had its outcome, it is to be done anew."""
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

    def note_ended(self, vertex: Vertex, at: float) -> None:
        """It has its outcome."""
        self._ended[vertex] = at

    def forget(self, vertex: Vertex) -> None:
        """It is to be done anew."""
        self._due[vertex] = self._sent[vertex] = self._ended[vertex] = 0.0

    def due(self, vertex: Vertex) -> float | None:
        """When all that it depends on was completed."""
        return self._due[vertex] or None

    def sent(self, vertex: Vertex) -> float | None:
        """When its last attempt left."""
        return self._sent[vertex] or None

    def ended(self, vertex: Vertex) -> float | None:
        """When it had its outcome."""
        return self._ended[vertex] or None
