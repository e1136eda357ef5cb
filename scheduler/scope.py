"""What the references of a component can see: what was submitted, and what its dependencies returned."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from scheduler.graph import Graph, Vertex
from scheduler.model import Action, Build, Change, State
from scheduler.template import Found


def is_supplied(change: Change) -> bool:
    """Whether what stands under a change's id comes from doing it, and is unknown before."""
    return change.action is not Action.DELETE and change.state is not State.COMPLETED


class Submitted:
    """A build as it was submitted: the `template.Scope` before anything of it was done."""

    def __init__(self, build: Build) -> None:
        self.build: Mapping[str, Any] = build.fields
        self.existing = {component.id: component for component in build.components}
        self.changes = {change.id: change for change in build.changes}
        # What a connector returned in an earlier process stands in the submitted build like a definition,
        # but it is data: it must never be rendered.
        self._decoded: dict[str, Mapping[str, Any]] = {}
        self._returned = {change.id for change in build.changes if change.state is State.COMPLETED}
        for change in build.changes:
            if change.state is State.COMPLETED and change.action is Action.FIND:
                self._returned.update(identity for identity, _ in elements_of(change.fields))

    def find(self, id: str) -> Found | None:  # noqa: A002 - the port's name
        """The component with this id as it exists, or the change where it speaks for itself.

        A change that is to be deleted, or that is done already, answers with what was submitted: nobody
        has to wait for it.
        """
        existing = self.existing.get(id)
        if existing is not None:
            return Found(existing.fields, definition=id not in self._returned)
        change = self.changes.get(id)
        if change is None or is_supplied(change):
            return None
        return Found(self.fields_of(change), definition=id not in self._returned)

    def fields_of(self, change: Change) -> Mapping[str, Any]:
        """The fields of a change that is looked into: decoded once, and always the same object."""
        fields = self._decoded.get(change.id)
        if fields is None:
            fields = self._decoded[change.id] = change.fields
        return fields

    def all(self) -> Sequence[Found]:
        """Everything that exists, in submission order."""
        return [
            Found(component.fields, definition=name not in self._returned)
            for name, component in self.existing.items()
        ]

    def ids(self) -> Iterable[str]:
        """Every id of the build."""
        return {**self.existing, **self.changes}


class SeenByItself:
    """A build as it was submitted, as one of its changes sees it: its own id is its definition."""

    def __init__(self, submitted: Submitted, change: Change) -> None:
        self.build = submitted.build
        self.all = submitted.all
        self.ids = submitted.ids
        self._submitted = submitted
        self._change = change

    def find(self, id: str) -> Found | None:  # noqa: A002 - the port's name
        """As `Submitted.find`."""
        found = self._submitted.find(id)
        if found is None and id == self._change.id:
            return Found(self._submitted.fields_of(self._change), definition=True)
        return found


class Returned:
    """What the changes of one build returned so far. The plan writes it; scopes read it."""

    def __init__(self, submitted: Submitted, graph: Graph) -> None:
        self.submitted = submitted
        self.graph = graph
        self.bodies: dict[Vertex, Mapping[str, Any]] = {}
        """By change: the reply."""
        self.found: dict[str, dict[Vertex, Mapping[str, Any]]] = {}
        """By component id: what a ``find`` returned, by the change that found it."""
        self._depths: list[int] | None = None

    def depends(self, vertex: Vertex, on: Vertex) -> bool:
        """Whether ``on`` is a dependency of ``vertex``, direct or not."""
        dependencies = self.graph.dependencies
        if on in dependencies[vertex]:
            return True
        depths = self._depths
        if depths is None:
            depths = self._depths = [0] * len(dependencies)
            for depth, layer in enumerate(self.graph.layers()):
                for member in layer:
                    depths[member] = depth
        # Whoever stands no deeper than `on` cannot depend on it, so the search stays between the two.
        least = depths[on]
        seen: set[Vertex] = set()
        todo = [vertex]
        while todo:
            for one in dependencies[todo.pop()]:
                if one == on:
                    return True
                if depths[one] > least and one not in seen:
                    seen.add(one)
                    todo.append(one)
        return False


class Due:
    """The `template.Scope` of one component at the moment it is due."""

    __slots__ = ("_returned", "_vertex", "build")

    def __init__(self, returned: Returned, vertex: Vertex) -> None:
        self._returned = returned
        self._vertex = vertex
        self.build: Mapping[str, Any] = returned.submitted.build

    def find(self, id: str) -> Found | None:  # noqa: A002 - the port's name
        """What a dependency returned under this id, or else what was submitted."""
        returned = self._returned
        vertex = returned.graph.index.get(id)
        if vertex is not None:
            body = returned.bodies.get(vertex)
            if body is not None and returned.depends(self._vertex, vertex):
                return Found(body, definition=False)
        for finder, element in returned.found.get(id, {}).items():
            if returned.depends(self._vertex, finder):
                return Found(element, definition=False)
        submitted = returned.submitted.find(id)
        if submitted is not None or vertex is None:
            return submitted
        change = returned.submitted.changes[id]
        if vertex == self._vertex or (
            change.action is Action.NONE and returned.depends(self._vertex, vertex)
        ):
            return Found(returned.submitted.fields_of(change), definition=True)
        return None

    def all(self) -> Sequence[Found]:
        """Everything that can be seen, in submission order: slow, and seldom asked."""
        returned = self._returned
        seen = dict(zip(returned.submitted.existing, returned.submitted.all(), strict=True))
        for vertex in sorted(returned.graph.ancestors(self._vertex)):
            change = returned.submitted.changes[returned.graph.ids[vertex]]
            body = returned.bodies.get(vertex)
            if change.action is Action.NONE:
                fields = returned.submitted.fields_of(change)
                seen.setdefault(change.id, Found(fields, definition=True))
            elif body is not None and change.action is Action.FIND:
                for identity, _ in elements_of(body):
                    seen[identity] = Found(returned.found[identity][vertex], definition=False)
            elif body is not None:
                seen[change.id] = Found(body, definition=False)
        return list(seen.values())

    def ids(self) -> Iterable[str]:
        """Every id of the build."""
        return self._returned.submitted.ids()


def elements_of(reply: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The components that a ``find`` returned, with their ids; what has none is passed over."""
    elements = reply.get("components")
    for element in elements if isinstance(elements, list) else ():
        if isinstance(element, dict) and isinstance(identity := element.get("_component_id"), str):
            yield identity, element
