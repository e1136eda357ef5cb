"""The references of a build that may lead to nothing, as far as that can be told before it runs."""

from collections.abc import Iterator
from functools import partial
from typing import Final

from attrs import frozen

from scheduler.definition.graph import Vertex
from scheduler.definition.model import APPROVAL, Action, Change, State
from scheduler.definition.scope import SeenByItself, Submitted, is_supplied
from scheduler.definition.secrets.names import MASK
from scheduler.definition.secrets.places import is_secret_place
from scheduler.definition.template import Found, Template, Work
from scheduler.definition.validation import Prepared
from scheduler.errors import Problem
from scheduler.runtime.yielding import yield_now

_MOST_WORK: Final = 4 * 1024 * 1024
"""Bytes that evaluating references may amount to here."""
_SHOWN: Final = 200
"""Characters of a reference."""


@frozen
class Question:
    """Reference that may lead to nothing; that shows only when its component is due."""

    component: str
    place: str
    text: str
    """The reference as written, without secrets, cut."""
    why: str


@frozen
class Unreachable:
    """Component that is certain to fail, or depends on one that is."""

    component: str
    why: str
    behind: str | None
    """Component that will fail before it; None where it fails itself."""


class _Definitions(Submitted):
    """Build as submitted, where a change of action ``none`` stands for its definition.

    It gets no reply, so references to it will find what its definition has now.
    """

    def find(self, id: str) -> Found | None:  # noqa: A002 - the port's name
        found = super().find(id)
        change = self.changes.get(id)
        if found is None and change is not None and change.action is Action.NONE:
            return Found(self.fields_of(change), definition=True)
        return found


class References:
    """Looks at the references of a build that intake let pass."""

    def __init__(self, prepared: Prepared) -> None:
        self.prepared = prepared
        self.graph = prepared.graph
        self.changes = prepared.build.changes
        self.scope = _Definitions(prepared.build)
        self.secrets = prepared.secrets
        self._open: set[Vertex] | None = None
        self._keys: dict[str, frozenset[str]] = {}

    def questions(self) -> Iterator[Question]:
        """Yield the references that may lead to nothing, and have no default."""
        for change, template in self._to_be_done():
            spots = template.spots
            if spots is not None and all(self._doubt(None, name, keys) is None for name, keys in spots):
                continue
            for place, target in template.targets():
                if target.guarded or target.root == "component":
                    continue
                why = self._doubt(target.root, target.id, target.keys)
                if why is not None:
                    yield self._question(change, place, target.text, why)

    def _question(self, change: Change, place: str, text: str, why: str) -> Question:
        if is_secret_place(place, change):
            # The text there is secret, also within a reference.
            return Question(change.id, place, MASK, "what it refers to may not be there when it is due")
        masked = self.secrets.mask_problem(Problem(place, why))
        return Question(change.id, masked.place, self.secrets.mask(text, _SHOWN), masked.message)

    def _doubt(self, root: str | None, name: str | None, keys: tuple[str | int, ...]) -> str | None:
        """Return why a reference may lead to nothing; ``root`` only counts where no id is named."""
        if name is None:
            if root == "build" or (root == "path" and keys[:1] not in {("components",), ("changes",), ()}):
                return None
            return "which component it means is known only when it is due"
        if name in self.scope.existing:
            return None
        change = self.scope.changes.get(name)
        if change is None:
            return "only a find can supply this component"
        if change.action is Action.FIND and is_supplied(change):
            return "what a find returns is known only when it is due"
        if not is_supplied(change) or change.action is Action.NONE or not keys:
            return None
        key = str(keys[0])
        if key in self._keys_of(change):
            return None
        if change.action is Action.APPROVE:
            return f"it has no {key!r}, and its approval brings only {', '.join(APPROVAL)}"
        return f"its definition has no {key!r}: a reply must bring it"

    def _keys_of(self, change: Change) -> frozenset[str]:
        found = self._keys.get(change.id)
        if found is None:
            gained = APPROVAL if change.action is Action.APPROVE else ()
            found = self._keys[change.id] = frozenset((*change.fields, *gained))
        return found

    def unreachable(self) -> Iterator[Unreachable]:
        """Yield the components that are certain to fail when they are due, and all that depend on them."""
        instant = {
            change.id
            for change in self.changes
            if change.action is Action.NONE and change.state is not State.COMPLETED
        }
        seen: set[Vertex] = set()
        work = Work(_MOST_WORK)
        for change, template in self._to_be_done() if instant else ():
            vertex = self.graph.index[change.id]
            ids = template.named
            if ids is None:
                ids = [target.id for _, target in template.targets() if target.id is not None]
            if vertex in seen or instant.isdisjoint({*ids} - {change.id}) or vertex in self._behind_a_find():
                continue
            problems = template.check(
                SeenByItself(self.scope, change) if template.names(change.id) else self.scope,
                partial(self._supplied, change.id),
                suggest=False,
                work=work,
            )
            if problems:
                seen.add(vertex)
                yield Unreachable(change.id, self._said(problems[0], change), None)
                yield from self._behind(vertex, seen)

    def _said(self, problem: Problem, change: Change) -> str:
        place = problem.place.removeprefix(f"{change.id}.")
        secret = is_secret_place(place, change)
        message = "what it refers to will not be there" if secret else problem.message
        return str(self.secrets.mask_problem(Problem(place, message)))

    def _behind(self, vertex: Vertex, seen: set[Vertex]) -> Iterator[Unreachable]:
        name, todo = self.graph.ids[vertex], [vertex]
        while todo:
            for dependent in self.graph.dependents[todo.pop()]:
                if dependent not in seen:
                    seen.add(dependent)
                    todo.append(dependent)
                    yield Unreachable(self.graph.ids[dependent], f"{name} will fail before it", name)

    def _supplied(self, own: str, name: str) -> bool:
        change = self.scope.changes.get(name)
        return change is not None and name != own and change.action is not Action.NONE and is_supplied(change)

    def _behind_a_find(self) -> set[Vertex]:
        """Return the components that a find may supply with components of any id."""
        if self._open is None:
            todo = [vertex for vertex, change in enumerate(self.changes) if change.action is Action.FIND]
            self._open = set()
            while todo:
                for dependent in self.graph.dependents[todo.pop()]:
                    if dependent not in self._open:
                        self._open.add(dependent)
                        todo.append(dependent)
        return self._open

    def _to_be_done(self) -> Iterator[tuple[Change, Template]]:
        for change, template in zip(self.changes, self.prepared.templates, strict=True):
            yield_now()
            done = change.state is State.COMPLETED or change.action is Action.NONE
            if not done and not template.constant:
                yield change, template
