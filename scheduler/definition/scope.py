"""Scopes: the values that references of a component can see, submitted or returned by its dependencies."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from threading import Lock
from typing import Any, Final

from scheduler.definition.catalogue import Catalogue, documents_work
from scheduler.definition.graph import Graph, Vertex
from scheduler.definition.model import Action, Build, Change, State
from scheduler.definition.strictjson import packed_size, unpacked
from scheduler.definition.template import UNLIMITED, Found, Laborious, Shared, Work
from scheduler.definition.template.paths import PathQuery
from scheduler.runtime.yielding import yield_now

_FEW: Final = 16
"""Dependencies that are searched one by one faster than in any other way."""
_PER_EDGE: Final = 16
_PER_SEEN: Final = 40
_PER_FINDER: Final = 40
_BYTES_OF_A_UNIT: Final = 4
"""Bytes of packed JSON that are decoded in the time of a unit of work."""
_SHORTLY: Final = 0.001
"""Seconds to wait for another thread's work before this thread pauses."""


def is_supplied(change: Change) -> bool:
    """Whether the value under a change's id comes from doing the change, and is unknown before."""
    return change.action is not Action.DELETE and change.state is not State.COMPLETED


class Submitted:
    """A build as it was submitted: the `template.Scope` before any work was done."""

    def __init__(self, build: Build) -> None:
        self.build: Mapping[str, Any] = build.fields
        self.existing = {component.id: component for component in build.components}
        self.changes = {change.id: change for change in build.changes}
        # A connector's result from an earlier process stands in the submitted build like a definition, but it
        # is data: it must never be rendered.
        self._decoded: dict[str, Mapping[str, Any]] = {}
        self._all: Sequence[Found] | None = None
        self._ids: Collection[str] | None = None
        self.work: Work = UNLIMITED
        self._returned = {change.id for change in build.changes if change.state is State.COMPLETED}
        finds = any(change.action is Action.FIND for change in build.changes)
        self.shared: Shared | None = Shared(
            partial(_is_common, self.changes, finds), len(self.existing) + len(self.changes)
        )
        for change in build.changes:
            if change.state is State.COMPLETED and change.action is Action.FIND:
                self._returned.update(identity for identity, _ in elements_of(change.fields))

    def find(self, id: str) -> Found | None:  # noqa: A002 - the port's name
        """Return the component with this id as it exists, or a change that speaks for itself.

        A change that is to be deleted, or that is done already, stands as it was submitted: nothing has to
        wait for it.
        """
        existing = self.existing.get(id)
        if existing is not None:
            return Found(existing.fields, definition=id not in self._returned)
        change = self.changes.get(id)
        if change is None or is_supplied(change):
            return None
        return Found(self.fields_of(change), definition=id not in self._returned)

    def fields_of(self, change: Change) -> Mapping[str, Any]:
        """Return the fields of a change that is looked into: decoded once, and always the same object."""
        fields = self._decoded.get(change.id)
        if fields is None:
            fields = self._decoded[change.id] = change.fields
        return fields

    def all(self) -> Sequence[Found]:
        """Return everything that exists, in submission order."""
        if self._all is None:
            self._all = [
                Found(component.fields, definition=name not in self._returned)
                for name, component in self.existing.items()
            ]
        return self._all

    def candidates(self, query: PathQuery) -> Iterable[Found] | None:  # noqa: ARG002 - as in the port
        """Return None: queries are rare here."""
        return None

    def ids(self) -> Iterable[str]:
        """Return every id of the build."""
        if self._ids is None:
            self._ids = tuple({**self.existing, **self.changes})
        return self._ids


def _is_common(changes: Mapping[str, Change], finds: bool, id: str) -> bool:  # noqa: A002
    """Whether a reference to an id finds the same for every component, at any time."""
    change = changes.get(id)
    return not finds and (change is None or change.action is Action.DELETE)


class SeenByItself:
    """A submitted build as one of its changes sees it: its own id stands for its definition."""

    def __init__(self, submitted: Submitted, change: Change) -> None:
        self.build = submitted.build
        self.all = submitted.all
        self.ids = submitted.ids
        self.candidates = submitted.candidates
        self.shared = submitted.shared
        self.work: Work = UNLIMITED
        self._submitted = submitted
        self._change = change

    def find(self, id: str) -> Found | None:  # noqa: A002 - the port's name
        """Return the component with this id, as `Submitted.find` does."""
        found = self._submitted.find(id)
        if found is None and id == self._change.id:
            return Found(self._submitted.fields_of(self._change), definition=True)
        return found


class Returned:
    """Results of the changes of one build so far. The plan writes them; scopes read them, also in threads.

    A thread never looks at a result that another one is just adding: everything that a component can see was
    there before it was due.
    """

    def __init__(self, submitted: Submitted, graph: Graph) -> None:
        self.submitted = submitted
        self.graph = graph
        self.bodies: dict[Vertex, Mapping[str, Any]] = {}
        """Reply by change."""
        self.packed: set[Vertex] = set()
        """Changes whose replies may be packed, until something refers to them."""
        self.found: dict[str, dict[Vertex, Mapping[str, Any]]] = {}
        """Elements that finds returned, by component id, then by the change that found them."""
        self._ancestors: dict[Vertex, int] = {}
        self._arrivals: list[Vertex] = []
        self._booked = 0
        """Number of arrivals that stand in the catalogue."""
        self._catalogue: Catalogue | None = None
        self._lock = Lock()
        self._seen: tuple[int, int, list[Found]] | None = None

    def add(self, vertex: Vertex, body: Mapping[str, Any]) -> None:
        """Add the result of a change; the elements of a ``find`` stand in `found` already."""
        if vertex in self.bodies:
            self._seen = None
        self.bodies[vertex] = body
        self._arrivals.append(vertex)

    def opened(self, vertex: Vertex, body: Mapping[str, Any], work: Work) -> Mapping[str, Any]:
        """Return the result of a change, for a reference to it; it stays unpacked from then on."""
        if vertex not in self.packed:
            return body
        work.spend_shared(packed_size(body) // _BYTES_OF_A_UNIT)
        body = self.bodies[vertex] = unpacked(body)
        self.packed.discard(vertex)
        return body

    def depends(self, vertex: Vertex, on: Vertex, work: Work = UNLIMITED) -> bool:
        """Whether ``on`` is a dependency of ``vertex``, direct or not."""
        dependencies = self.graph.dependencies[vertex]
        if len(dependencies) <= _FEW and on in dependencies:
            return True
        return bool(self.ancestors(vertex, work) >> on & 1)

    def ancestors(self, vertex: Vertex, work: Work) -> int:
        """Return all dependencies of ``vertex``, direct or not: a bit for each."""
        known = self._ancestors
        if vertex in known:
            return known[vertex]
        edges = self.graph.dependencies
        per_edge = _PER_EDGE + len(edges) // 128
        todo = [vertex]
        while todo:
            one = todo[-1]
            if one in known:
                todo.pop()
                continue
            work.spend_shared(per_edge * (1 + len(edges[one])))
            missing = [before for before in edges[one] if before not in known]
            if missing:
                todo += missing
                continue
            bits = 0
            for before in edges[one]:
                bits |= known[before] | 1 << before
            known[one] = bits
        return known[vertex]

    def candidates(self, vertex: Vertex, query: PathQuery, work: Work) -> Iterable[Found] | None:
        """Return what a component can see that may match a query (`template.Scope.candidates`)."""
        size = (len(self.graph.ids) + 7) // 8
        work.spend(size)
        dependencies = self.ancestors(vertex, work).to_bytes(size, "little")
        while not self._lock.acquire(timeout=0 if work.inline else _SHORTLY):
            if work.inline:
                raise Laborious("another thread makes the index")
            # The thread that has it may be waiting for this thread's next pause.
            yield_now()
        try:
            catalogue = self._caught_up(work)
            if not catalogue.complete:
                return None
            positions = catalogue.positions(query, work)
        finally:
            self._lock.release()
        return catalogue.seen(positions, dependencies, work)

    def _caught_up(self, work: Work) -> Catalogue:
        submitted = self.submitted
        catalogue = self._catalogue
        if catalogue is None:
            assert submitted.shared is not None
            work.spend_shared(documents_work(len(submitted.existing) + len(submitted.changes)))
            existing = dict(zip(submitted.existing, submitted.all(), strict=True))
            catalogue = self._catalogue = Catalogue(existing, self._instant(), submitted.shared)
        while self._booked < len(self._arrivals):
            vertex = self._arrivals[self._booked]
            change = submitted.changes[self.graph.ids[vertex]]
            body = self.bodies[vertex]
            if change.action is Action.FIND:
                names = dict.fromkeys(identity for identity, _ in elements_of(body))
                others = sum(map(catalogue.others, names))
                work.spend_shared(documents_work(2 * len(names) + others))
                documents = [(name, Found(self.found[name][vertex], definition=False)) for name in names]
            else:
                work.spend_shared(documents_work(1 + catalogue.others(change.id)))
                documents = [(change.id, Found(self.opened(vertex, body, work), definition=False))]
            catalogue.book(vertex, documents)
            self._booked += 1
        return catalogue

    def _instant(self) -> Iterator[tuple[Vertex, str, Found]]:
        for name, change in self.submitted.changes.items():
            if change.action is Action.NONE:
                found = Found(self.submitted.fields_of(change), definition=True)
                yield self.graph.index[name], name, found

    def seen(self, vertex: Vertex, work: Work) -> Sequence[Found]:
        """Return everything that a component can see, in submission order."""
        ancestors = self.ancestors(vertex, work)
        work.spend(2 * len(self.graph.ids))
        vertices = [one for one, bit in enumerate(reversed(f"{ancestors:b}")) if bit == "1"]
        arrived = sum(one in self.bodies for one in vertices)
        if self._seen is not None and self._seen[:2] == (ancestors, arrived):
            return self._seen[2]
        submitted = self.submitted
        work.spend(_PER_SEEN * (len(vertices) + len(submitted.existing)))
        seen = dict(zip(submitted.existing, submitted.all(), strict=True))
        for one in vertices:
            change = submitted.changes[self.graph.ids[one]]
            body = self.bodies.get(one)
            if change.action is Action.NONE:
                seen.setdefault(change.id, Found(submitted.fields_of(change), definition=True))
            elif body is not None and change.action is Action.FIND:
                for identity, _ in elements_of(body):
                    work.spend(_PER_SEEN)
                    seen[identity] = Found(self.found[identity][one], definition=False)
            elif body is not None:
                seen[change.id] = Found(self.opened(one, body, work), definition=False)
        every = list(seen.values())
        self._seen = (ancestors, arrived, every)
        return every


class Due:
    """The `template.Scope` of one component at the moment it is due."""

    __slots__ = ("_returned", "_vertex", "build", "shared", "work")

    def __init__(self, returned: Returned, vertex: Vertex) -> None:
        self._returned = returned
        self._vertex = vertex
        submitted = returned.submitted
        self.build: Mapping[str, Any] = submitted.build
        self.shared: Shared | None = submitted.shared
        self.work: Work = UNLIMITED

    def find(self, id: str) -> Found | None:  # noqa: A002 - the port's name
        """Return a dependency's result under this id, or else what was submitted."""
        returned = self._returned
        vertex = returned.graph.index.get(id)
        if vertex is not None:
            body = returned.bodies.get(vertex)
            own = returned.graph.dependencies[self._vertex]
            # As `Returned.depends` says it: nearly every reference is to a dependency of its own.
            if body is not None and (
                (len(own) <= _FEW and vertex in own) or returned.depends(self._vertex, vertex, self.work)
            ):
                if returned.packed:
                    body = returned.opened(vertex, body, self.work)
                return Found(body, definition=False)
        finders = returned.found.get(id)
        if finders is not None:
            self.work.spend(_PER_FINDER * len(finders))
            # A copy: another find may add to it meanwhile.
            for finder, element in finders.copy().items():
                if returned.depends(self._vertex, finder, self.work):
                    return Found(element, definition=False)
        submitted = returned.submitted.find(id)
        if submitted is not None or vertex is None:
            return submitted
        change = returned.submitted.changes[id]
        if vertex == self._vertex or (
            change.action is Action.NONE and returned.depends(self._vertex, vertex, self.work)
        ):
            return Found(returned.submitted.fields_of(change), definition=True)
        return None

    def all(self) -> Sequence[Found]:
        """Return everything that can be seen, in submission order."""
        return self._returned.seen(self._vertex, self.work)

    def candidates(self, query: PathQuery) -> Iterable[Found] | None:
        """Return what can be seen that may match a query for equality, in its order."""
        return self._returned.candidates(self._vertex, query, self.work)

    def ids(self) -> Iterable[str]:
        """Return every id of the build."""
        return self._returned.submitted.ids()


def elements_of(reply: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the components that a ``find`` returned, with their ids; one without an id is skipped."""
    elements = reply.get("components")
    for element in elements if isinstance(elements, list) else ():
        if isinstance(element, dict) and isinstance(identity := element.get("_component_id"), str):
            yield identity, element
