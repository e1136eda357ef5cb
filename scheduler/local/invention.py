"""Invents the fields that the references of a build ask for, so that it runs with simulated connectors. Pure.

What a connector returns cannot be known, but what others expect of it can: each reference names a component
and a path in its result. First every path gets a text, or the list or object that it leads through. Then the
build is rehearsed: its components are rendered one after the other, each from the results of those before.
Where that fails, other values are tried for what the failing text refers to: a number, a list, an object.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice, product
from typing import Any, Final, NamedTuple

from attrs import define, field

from scheduler.definition.graph import Vertex
from scheduler.definition.model import APPROVAL, UNSENT, Action, Change, State
from scheduler.definition.scope import Due, Returned, Submitted, elements_of
from scheduler.definition.strictjson import decode
from scheduler.definition.subjects import request_subject
from scheduler.definition.template import Rendered, references
from scheduler.definition.template.paths import PathQuery
from scheduler.definition.template.references import ExpressionText, PathText, Syntax, Text
from scheduler.definition.validation import Prepared
from scheduler.errors import TemplateError
from scheduler.local.invented import KINDS, Exactly, New, Path, fulfilling, grown, holds
from scheduler.local.results import NO_OUTPUTS, Invention, completed

_MOST_TRIALS: Final = 300
"""Combinations of values that are tried for the references of one text."""
_MOST_TRIALS_OF_ALL: Final = 20_000
"""Such trials in one build."""
_REPAIRS: Final = 20
"""Texts of one component whose values are changed, one after the other."""
_PASSES: Final = 3
"""Rehearsals: a value that was changed for one component may be wrong for another one."""


class Wish(NamedTuple):
    """Value that a reference asks for."""

    id: str | None
    """Component that is to return it; None if the reference does not name one by a constant."""
    path: Path
    guarded: bool


def _no_outputs(_subject: str) -> Mapping[str, Any]:
    return NO_OUTPUTS


def invent(prepared: Prepared, outputs: Callable[[str], Mapping[str, Any]] = _no_outputs) -> Invention:
    """Return the fields that connectors have to return so that every reference of a build finds something.

    A reference that needs one particular value may still fail: nobody can guess that.

    Args:
        prepared: the build.
        outputs: function that returns the fields that connectors return anyway, by subject.
    """
    return _Rehearsal(prepared, outputs).run()


@define(eq=False)
class _Rehearsal:
    _prepared: Prepared
    _outputs: Callable[[str], Mapping[str, Any]]
    _fields: dict[str, dict[str, Any]] = field(factory=dict)
    _found: dict[str, dict[str, dict[str, Any]]] = field(factory=dict)
    """Components that searches are to find, by the search's id, then by their own."""
    _behind: dict[str, list[Wish]] = field(factory=dict)
    """What the texts of each definition ask for."""
    _left: int = field(init=False)
    """Trials that are left."""
    _submitted: Submitted = field(init=False)
    _rendered: dict[Vertex, Rendered] = field(factory=dict)
    _subjects: dict[Vertex, str] = field(factory=dict)
    _returned: Returned = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._submitted = Submitted(self._prepared.build)
        self._left = _MOST_TRIALS_OF_ALL

    def run(self) -> Invention:
        for wishes in self._wishes():
            self._grant(*wishes, guarded=False)
        if self._fields or self._found or not all(one.constant for one in self._prepared.templates):
            for _ in range(_PASSES):
                if self._rehearse():
                    break
        return self._invention()

    def _invention(self) -> Invention:
        return Invention(self._fields, {name: [*found.values()] for name, found in self._found.items()})

    def _wishes(self) -> Iterator[tuple[Vertex, Iterable[Wish]]]:
        """Yield what each change asks for, itself and by the definitions that it refers to."""
        syntax = next((template.syntax for template in self._prepared.templates), Syntax())
        for component in self._prepared.build.components:
            self._behind[component.id] = list(_wishes_in(component.fields, syntax))
        for change in self._prepared.build.changes:
            if change.action is Action.NONE or change.action is Action.DELETE:
                self._behind[change.id] = list(_wishes_in(change.fields, syntax))
        for vertex, template in enumerate(self._prepared.templates):
            if template.spots is not None:
                # Nearly every template: quicker, as it need not be cut again.
                wishes = [Wish(name, keys, guarded=False) for name, keys in template.spots]
            else:
                wishes = [wish for _, text in template.texts() for wish in _wishes_of(text)]
            yield vertex, self._closure(wishes)

    def _closure(self, wishes: Iterable[Wish]) -> list[Wish]:
        """Return these wishes, and those of the definitions behind them."""
        every, todo, seen = [], list(wishes), set()
        while todo:
            wish = todo.pop()
            every.append(wish)
            if wish.id is not None and wish.id not in seen:
                seen.add(wish.id)
                todo += self._behind.get(wish.id, ())
        return every

    def _grant(self, vertex: Vertex, wishes: Iterable[Wish], *, guarded: bool) -> None:
        """Invent values for what a change asks for; for optional ones only if ``guarded``."""
        for wish in wishes:
            if wish.guarded and not guarded:
                continue
            for id_, path in self._suppliers(vertex, wish):
                self._put(vertex, id_, path)

    def _suppliers(self, vertex: Vertex, wish: Wish) -> Iterator[tuple[str, Path]]:
        """Yield the components that are to return what is wished for, and the path in their result."""
        if wish.id is not None:
            yield wish.id, wish.path
            return
        query, path = wish.path[0], wish.path[1:]
        before = [self._prepared.build.changes[one] for one in self._prepared.graph.dependencies[vertex]]
        if not isinstance(query, PathQuery):
            yield from ((change.id, path) for change in before)
            return
        matching = [change for change in before if holds(change.fields, query)]
        for change in matching or before[:1]:
            if not matching:
                yield change.id, (*query.path, Exactly(fulfilling(query)))
            yield change.id, path

    def _put(self, vertex: Vertex, id_: str, path: Path) -> None:
        change = self._submitted.changes.get(id_)
        if change is not None and _is_sent(change):
            fields = self._fields.setdefault(id_, {})
            self._fields[id_] = grown(fields, path, New(f"{id_}\0{path!r}"))
        elif change is None and id_ not in self._submitted.existing:
            self._let_find(vertex, id_, path)

    def _let_find(self, vertex: Vertex, id_: str, path: Path) -> None:
        """Add a component to the results of a search before ``vertex``."""
        for before in sorted(self._prepared.graph.ancestors(vertex)):
            change = self._prepared.build.changes[before]
            if change.action is Action.FIND and _is_sent(change):
                found = self._found.setdefault(change.id, {})
                one = found.get(id_) or {"_component_id": id_, "_action": "none", "_state": "completed"}
                found[id_] = grown(one, path, New(f"{id_}\0{path!r}"))
                return

    # The rehearsal.

    def _rehearse(self) -> bool:
        """Render all components in order, and repair what fails; return whether nothing had to be."""
        self._returned = Returned(self._submitted, self._prepared.graph)
        self._rendered.clear()
        fine = True
        for vertex in _in_order(self._prepared):
            change = self._prepared.build.changes[vertex]
            if change.state is State.COMPLETED:
                self._arrive(vertex, change, change.fields)
            elif change.action is Action.APPROVE:
                fine = self._approve(vertex, change) and fine
            elif change.action is not Action.NONE:
                fine = self._mend(vertex) and fine
                self._answer(vertex)
        return fine

    def _approve(self, vertex: Vertex, change: Change) -> bool:
        """Complete a gate as its approval would; return whether nothing had to be changed for that."""
        fine = self._mend(vertex)
        rendered = self._rendered.get(vertex)
        if rendered is not None:
            self._arrive(vertex, change, {**decode(rendered.body), **dict.fromkeys(APPROVAL, "simulated")})
        return fine

    def _render(self, vertex: Vertex) -> TemplateError | None:
        change, template = self._prepared.build.changes[vertex], self._prepared.templates[vertex]
        try:
            rendered = template.render(Due(self._returned, vertex))
            if change.action is not Action.APPROVE:
                self._subjects[vertex] = _subject(change, rendered)
            self._rendered[vertex] = rendered
        except TemplateError as error:
            return error
        return None

    def _answer(self, vertex: Vertex) -> None:
        rendered, change = self._rendered.get(vertex), self._prepared.build.changes[vertex]
        if rendered is not None:
            subject = self._subjects[vertex]
            reply = completed(subject, decode(rendered.body), self._outputs(subject), self._invention())
            self._arrive(vertex, change, reply)

    def _arrive(self, vertex: Vertex, change: Change, reply: Mapping[str, Any]) -> None:
        self._returned.add(vertex, reply)
        if change.action is Action.FIND:
            for name, element in elements_of(reply):
                self._returned.found.setdefault(name, {})[vertex] = element

    def _mend(self, vertex: Vertex) -> bool:
        """Change values until a component can be rendered; return whether nothing had to be changed."""
        error = self._render(vertex)
        if error is None:
            return True
        for _ in range(_REPAIRS):
            after = self._repair(vertex, error)
            if after is None or str(after) == str(error):
                break
            error = after
        return False

    def _repair(self, vertex: Vertex, error: TemplateError) -> TemplateError | None:
        """Change values until the text that failed can be rendered; return what fails then.

        If no value will do, they stay as they are.
        """
        change, template = self._prepared.build.changes[vertex], self._prepared.templates[vertex]
        failing = {
            start: text
            for place, text in template.texts()
            if str(error).startswith(start := f"{change.id}.{place}: ")
        }
        wishes = self._closure(wish for text in failing.values() for wish in _wishes_of(text))
        self._grant(vertex, wishes, guarded=True)
        wanted = (spot for wish in wishes for spot in self._suppliers(vertex, wish))
        spots = list(dict.fromkeys(spot for spot in wanted if self._is_ours(spot[0])))
        before = {id_: self._fields.get(id_, {}) for id_, _ in spots}
        # The first trial is the text by default, which may have been missing so far.
        for kinds in islice(product(KINDS, repeat=len(spots)), min(_MOST_TRIALS, self._left)):
            self._left -= 1
            self._fields |= before
            for (id_, path), kind in zip(spots, kinds, strict=True):
                self._fields[id_] = grown(self._fields[id_], path, New(f"{id_}\0{path!r}", kind))
            trouble = self._render_after(before, vertex)
            if trouble is None or not any(str(trouble).startswith(start) for start in failing):
                return trouble
        self._fields |= before
        return error

    def _render_after(self, changed: Iterable[str], vertex: Vertex) -> TemplateError | None:
        """Render a component again, after others were changed."""
        for id_ in changed:
            supplier = self._prepared.graph.index[id_]
            if supplier in self._returned.bodies:
                self._answer(supplier)
        return self._render(vertex)

    def _is_ours(self, id_: str) -> bool:
        change = self._submitted.changes.get(id_)
        return change is not None and _is_sent(change)


def _subject(change: Change, rendered: Rendered) -> str:
    """Return the subject of a request; raise TemplateError, with the place, if there can be none."""
    try:
        return request_subject(rendered.type, change.action.value, rendered.provider)
    except TemplateError as error:
        raise TemplateError(f"{change.id}.{error}") from error


def _is_sent(change: Change) -> bool:
    return change.state is not State.COMPLETED and change.action not in UNSENT


def _in_order(prepared: Prepared) -> Iterator[Vertex]:
    """Yield every change after its dependencies."""
    for layer in prepared.graph.layers():
        yield from layer


def _wishes_in(fields: Mapping[str, Any], syntax: Syntax) -> Iterator[Wish]:
    """Yield what the texts of a definition ask for."""
    todo: list[Any] = [fields]
    while todo:
        value = todo.pop()
        if isinstance(value, dict):
            todo += value.values()
        elif isinstance(value, list):
            todo += value
        elif isinstance(value, str) and references.may_refer(value):
            try:
                text = references.read(value, syntax)
            except TemplateError:
                # Told where it is rendered.
                continue
            if text is not None:
                yield from _wishes_of(text)


def _wishes_of(text: Text) -> Iterator[Wish]:
    """Yield what a text asks components for."""
    if isinstance(text, PathText):
        if text.id is not None:
            yield Wish(text.id, text.path, guarded=False)
        elif len(text.path) > 1 and text.path[0] == "components" and isinstance(text.path[1], PathQuery):
            yield Wish(None, text.path[1:], guarded=False)
        return
    assert isinstance(text, ExpressionText)
    for part in text.parts:
        if not isinstance(part, str):
            for lookup, guarded in zip(part.lookups, part.guarded, strict=True):
                if lookup.root == "components" and lookup.keys:
                    keys = lookup.keys if lookup.id is None else lookup.keys[1:]
                    yield Wish(lookup.id, keys, guarded)
