"""Following references: from the component that is due to its targets, and through their own references.

A submitted text is a definition: its strings may refer to further components, and are resolved when a
reference meets them, each at most once for one component; once for the whole build if the result is the same
for all. A connector's result is data: its braces are never looked at. The place of a value is carried along
with it (`Place`); data has no place.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from scheduler.definition.places import MAX_PLACE, Owner, Place, fields_work
from scheduler.definition.template import paths, references
from scheduler.definition.template.grammar import Lookup
from scheduler.definition.template.jsonparts import encode, measure
from scheduler.definition.template.paths import MISSING, Elements, Path, PathQuery, Walker, Where, shown
from scheduler.definition.template.patterns import Pattern
from scheduler.definition.template.references import Syntax, Text
from scheduler.definition.template.sandbox import element
from scheduler.definition.template.scopes import Found, Kept, Scope, Spot
from scheduler.definition.template.work import AbortedError, Work
from scheduler.errors import TemplateError, Unresolved

MAX_CHAIN = 40
"""Most definitions that refer to one another in a chain."""

_LOOKING_AT_TEXT = 16
_STEP = 40
"""Units of work for one key of a look-up, if the place is kept."""
_FINDING = 40
_EVALUATING = 160
_FAILING = 300
_PER_ITEM = 48
"""Units of work for an element of a definition that is looked through."""
_SHOWN = 500
"""Characters of a message, or of a key in it, that are shown."""
_PER_PLAIN = 24
"""Units of work for a component that is only put on a list."""
_PER_NODE = 600
"""Bytes that are kept for a node of a string that was read."""


class Resolver(Walker):
    """Answers the references of one component, in one scope, and counts the work."""

    def __init__(self, scope: Scope, owner: Owner, syntax: Syntax, max_digits: int, work: Work) -> None:
        self.scope = scope
        self.owner = owner
        self.syntax = syntax
        self.max_digits = max_digits
        self._work = work
        self._shared = scope.shared
        self._due = owner
        self._owners: dict[int, Owner] = {id(owner.document): owner}
        self._everything: Sequence[paths.Place] | None = None
        # By the identity of a document, which lives as long as the scope does, and the place in it.
        self._values: dict[Spot, Kept] = {}
        self._open: dict[Spot, tuple[Owner, str]] = {}
        self._common = True
        """Whether everything looked at for the string being evaluated is the same for all components."""
        self._deep = False
        """Whether something failed because of a long chain: elsewhere it might not."""

    def written(self, text: Text, place: str) -> bytes:
        """Return the JSON of the string at ``place`` of the component that is due.

        Raises:
            Unresolved: something that it needs is absent or null.
            TemplateError: it refers to itself, cannot be evaluated, or is over a limit.
        """
        try:
            return encode(self.evaluate(text, self.owner, place))
        except RecursionError as error:
            # Definitions that are nested deep, each within the limits, in a chain that is within them, too.
            raise TemplateError("refers to what is nested too deep") from error

    def spend(self, work: int) -> None:
        """Account for work (`sandbox.LookupReader`, `paths.Walker`)."""
        self._work.spend(work)

    def lookup(self, lookup: Lookup, computed: Sequence[object] = ()) -> object:
        """Return the value of an expression's look-up (`sandbox.LookupReader`)."""
        keys: Sequence[object] = lookup.keys
        self.spend(_STEP * (2 + len(keys)))
        if None in keys:
            following = iter(computed)
            keys = [next(following) if key is None else key for key in keys]
        value: Any
        where: Any = None
        match lookup.root:
            case "components":
                name = keys[0]
                if not isinstance(name, str):
                    raise TemplateError("a component is named by its id, which is text")
                value, where = self._component(name)
                keys = keys[1:]
            case "component":
                value, where = self.owner.document, Place.of(self.owner)
            case _:
                name, value = None, self.scope.build
        for key in keys:
            if where is not None and isinstance(value, str):
                value, where = self.settle(value, where), None
            value = element(value, key)
            if value is None:
                raise Unresolved(_nothing(lookup, keys))
            if where is not None and isinstance(key, str | int):
                where = where.child(key)
        return self._measured(self.whole(value, where))

    def follow(self, id: str | None, path: Path) -> object:  # noqa: A002 - the word of the model
        """Return the value of a path (`references.ReferenceReader`)."""
        value: Any
        if id is not None:
            value, where = self._component(id)
            value, place = self.walk(path, value, where)
        elif path[0] == "components":
            value, place = self.walk(path[1:], self._all(), None)
        else:
            value, place = self.walk(path, self.scope.build, None)
            if value is MISSING and isinstance(path[0], Pattern) and path[0].matches("components"):
                # As if the components stood after the other fields of the build.
                value, place = self.walk(path[1:], self._all(), None)
        value = None if value is MISSING else self._measured(self.whole(value, place))
        if value is None:
            subject = f"'{id}'" if id is not None else "the build"
            raise Unresolved(f"{subject} has no '{_cut(shown(path))}'")
        return value

    def _measured(self, value: Any) -> Any:
        """Return ``value``, which is within the limit of what can be rendered."""
        if isinstance(value, dict | list):
            measure(value, self.max_digits, self.spend)
        return value

    def _component(self, id: str) -> tuple[Mapping[str, Any], Place | None]:  # noqa: A002
        self.spend(_FINDING)
        if self._shared is None or not self._shared.common(id):
            self._common = False
        found = self.scope.find(id)
        if found is None:
            raise Unresolved(f"there is no '{id}'")
        return found.document, self._place(found)

    def _place(self, found: Found) -> Place | None:
        if not found.definition:
            return None
        key = id(found.document)
        owner = self._owners.get(key)
        if owner is None:
            self.spend(fields_work(found.document))
            shared = self._shared
            owner = Owner(found.document) if shared is None else shared.owner(found.document)
            self._owners[key] = owner
        return Place.of(owner)

    def _all(self) -> Elements:
        """Return everything that can be seen."""
        self._common = False
        # Not kept: it leads back here, and a cycle lives until the garbage collector comes.
        return Elements(self._pairs)

    def _pairs(self) -> Sequence[paths.Place]:
        if self._everything is None:
            every = self.scope.all()
            self.spend(_PER_PLAIN * len(every))
            self._everything = [(found.document, self._place(found)) for found in every]
        return self._everything

    def chosen(
        self, query: PathQuery, value: list[Any] | Elements, where: Where | None
    ) -> Iterator[paths.Place]:
        """Return the elements for which ``query`` holds, in order; of all components only possible ones."""
        if isinstance(value, Elements) and query.operator == "=":
            candidates = self.scope.candidates(query)
            if candidates is not None:
                return self.select(query, ((found.document, self._place(found)) for found in candidates))
        return super().chosen(query, value, where)

    def settle(self, value: Any, where: Any) -> Any:
        """Return the value of a string that a user wrote at ``where``.

        Raises:
            TemplateError: it refers to itself, or cannot be resolved; the message names the place.
        """
        self.spend(_LOOKING_AT_TEXT + (len(value) >> 4))
        if not references.may_refer(value):
            return value
        place: Place = where
        owner = place.owner
        if owner.fault:
            raise TemplateError(f"{owner.id}: {owner.fault}")
        if place.size > MAX_PLACE:
            raise TemplateError(f"{owner.id}: a reference under keys of more than {MAX_PLACE} characters")
        self.spend(place.size)
        try:
            return self._evaluate(value, owner, place.text)
        except AbortedError:
            raise
        except TemplateError as error:
            self.spend(_FAILING)
            kind = Unresolved if isinstance(error, Unresolved) else TemplateError
            raise kind(_cut(f"{owner.id}.{place.text}: {error}")) from error

    def evaluate(self, text: Text, owner: Owner, place: str) -> Any:
        """Return the value of the string at ``place`` of ``owner``, evaluated at most once.

        Raises:
            Unresolved: something that it needs is absent or null.
            TemplateError: it refers to itself, cannot be evaluated, or is over a limit.
        """
        return self._evaluate(text, owner, place)

    def _evaluate(self, source: str | Text, owner: Owner, place: str) -> Any:
        spot = (id(owner.document), place)
        # Of the component that is due there may be only a copy, which does not live as long as the build.
        shared = None if owner is self._due else self._shared
        kept = self._values.get(spot)
        if kept is None and shared is not None:
            kept = shared.values.get(spot)
        if kept is not None:
            self._common = self._common and kept.common
            if kept.failure is not None:
                kind, message = kept.failure
                raise kind(message)
            return kept.value
        text: Text | None
        if isinstance(source, str):
            text = None if shared is None else shared.texts.get(spot)
            if text is None:
                # It is read once, for the first component that needs it.
                spend = self.spend if shared is None else self._work.spend_shared
                text = references.read(source, self.syntax, spend)
                if text is None:
                    return source
                if shared is not None:
                    shared.texts.keep(spot, text, _PER_NODE * (1 + text.nodes) + 4 * len(source))
        else:
            text = source
        if spot in self._open:
            names = [f"{one.id}.{at}" for one, at in self._open.values()]
            circle = [*names[list(self._open).index(spot) :], f"{owner.id}.{place}"]
            raise AbortedError(_cut(f"refers to itself: {' -> '.join(circle)}"))
        if len(self._open) >= MAX_CHAIN:
            self._deep = True
            raise TemplateError(
                f"refers to definitions that refer to definitions, more than {MAX_CHAIN} deep"
            )
        self.spend(_EVALUATING)
        begun = self._work.left
        before, self.owner = self.owner, owner
        outside, self._common = self._common, shared is not None
        self._open[spot] = (owner, place)
        try:
            value = text.value(self, self.syntax)
        except AbortedError:
            raise
        except TemplateError as error:
            kind = Unresolved if isinstance(error, Unresolved) else TemplateError
            failure = (kind, _cut(str(error)))
            self._keep(spot, Kept(None, failure, common=self._common and not self._deep), len(failure[1]))
            raise
        else:
            size = 4 * len(value) if isinstance(value, str) else begun - self._work.left
            self._keep(spot, Kept(value, None, common=self._common and not self._deep), size)
            return value
        finally:
            del self._open[spot]
            self.owner = before
            self._common = outside and self._common

    def _keep(self, spot: Spot, kept: Kept, size: int) -> None:
        if kept.failure is None or not self._deep:
            self._values[spot] = kept
        if kept.common and self._shared is not None:
            self._shared.values.keep(spot, kept, size)

    def whole(self, value: Any, where: Any) -> Any:
        """Return ``value`` with every string of a user in it resolved."""
        if isinstance(value, Elements):
            self.spend(_PER_ITEM * len(value.pairs))
            return [self.whole(item, place) for item, place in value.pairs]
        if where is None:
            return value
        if isinstance(value, str):
            return self.settle(value, where)
        if isinstance(value, dict):
            self.spend(_PER_ITEM * len(value))
            return {key: self.whole(item, where.child(key)) for key, item in value.items()}
        if isinstance(value, list):
            self.spend(_PER_ITEM * len(value))
            return [self.whole(item, where.child(index)) for index, item in enumerate(value)]
        return value


def _nothing(lookup: Lookup, keys: Sequence[object]) -> str:
    path = ".".join(str(key)[:_SHOWN] for key in keys)
    if lookup.root == "components":
        subject = f"'{lookup.id}'" if lookup.id is not None else "the component"
    else:
        subject = f"the {lookup.root}"
    return _cut(f"{subject} has no '{path}'")


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
