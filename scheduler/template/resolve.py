"""Following references: from the component that is due to what it names, and through what that names in turn.

What a user submitted is a definition: its strings may refer to further components, and are resolved when a
reference comes by them, each at most once for one component. What a connector returned is data: its braces
are never looked at. Where a value stands is carried along with it (`Place`); data stands nowhere.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from attrs import frozen

from scheduler.errors import TemplateError, Unresolved
from scheduler.template import references
from scheduler.template.grammar import Lookup
from scheduler.template.jsonparts import encode, measure
from scheduler.template.paths import MISSING, Elements, Path, Walker, shown
from scheduler.template.patterns import Pattern
from scheduler.template.references import Syntax, Text
from scheduler.template.sandbox import element
from scheduler.template.work import AbortedError, Work

IDENTITY = frozenset({"_component_id", "_action", "_state", "service", "_raw", "_secret", "adoptable"})
"""Fields that say what a component is. They are never rendered."""

MAX_CHAIN = 40
"""Definitions that refer to one another in turn."""


@frozen
class Found:
    """A component that a reference can see."""

    document: Mapping[str, Any]
    definition: bool
    """Whether a user submitted it: its strings may be templates. What a connector returned is data."""


class Scope(Protocol):
    """What the references of one component can see."""

    @property
    def build(self) -> Mapping[str, Any]:
        """The fields of the build, without its components, changes and edges."""
        ...

    def find(self, id: str) -> Found | None:  # noqa: A002 - the word of the model
        """The component with this id, at once."""
        ...

    def all(self) -> Sequence[Found]:
        """Everything that can be seen, in the order of submission."""
        ...

    def ids(self) -> Iterable[str]:
        """Every id that there is, of components and of changes."""
        ...


Raw = dict[str, Any]
"""Fields that are not rendered, as a tree of keys; an empty tree stands for all that is below."""

_INDEX = re.compile(r"\[([0-9]{1,9})\]")
_KEYS = re.compile(r"(?:[^.\\]++|\\.)++", re.DOTALL)
_NONE_RAW: Raw = {name: {} for name in IDENTITY}


def raw_fields(document: Mapping[str, Any]) -> Raw:
    """What of a component is never rendered: who it is, and what its ``_raw`` names.

    Raises:
        TemplateError: ``_raw`` is not a list of names.
    """
    return {**named_fields(document, "_raw"), **_NONE_RAW} if "_raw" in document else _NONE_RAW


def named_fields(document: Mapping[str, Any], setting: str) -> Raw:
    """The fields that a component names in a ``setting`` of its own, ``_raw`` or ``_secret``.

    Names are paths of keys, as in ``tags.x`` or ``rules[0].script``; a dot within a key follows a backslash.

    Raises:
        TemplateError: it is not a list of such names.
    """
    names = document.get(setting)
    if names is None:
        return {}
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise TemplateError(f'{setting} is a list of names of fields, such as ["user_data", "tags.x"]')
    tree: Raw = {}
    for name in names:
        if name in document:
            tree[name] = {}
            continue
        keys = [re.sub(r"\\(.)", r"\1", key) for key in _KEYS.findall(_INDEX.sub(r".\1", name))]
        below = tree
        for at, key in enumerate(keys):
            inner = below.get(key)
            if inner == {}:
                break
            if at == len(keys) - 1:
                below[key] = {}
            else:
                below = below.setdefault(key, {})
    return tree


class Owner:
    """A submitted component that is being looked at."""

    __slots__ = ("document", "fault", "id", "raw")

    def __init__(self, document: Mapping[str, Any], raw: Raw | None = None) -> None:
        self.document = document
        self.id = str(document.get("_component_id"))
        self.fault = ""
        """Why nothing of it can be rendered. Its plain fields can be read all the same."""
        if raw is None:
            try:
                raw = raw_fields(document)
            except TemplateError as error:
                self.fault = str(error)
                raw = _NONE_RAW
        self.raw = raw


class Place:
    """Where a value of a submitted component stands."""

    __slots__ = ("owner", "raw", "text")

    def __init__(self, owner: Owner, text: str, raw: Raw | None) -> None:
        self.owner = owner
        self.text = text
        self.raw = raw

    def child(self, key: str | int) -> "Place | None":
        """Where the value under ``key`` stands; None if it is never rendered."""
        raw = None if self.raw is None else self.raw.get(str(key))
        if raw is not None and not raw:
            return None
        return Place(self.owner, join_place(self.text, key), raw)


def join_place(place: str, key: str | int) -> str:
    """``tags`` and ``x`` make ``tags.x``; ``rules`` and 0 make ``rules[0]``."""
    if isinstance(key, int):
        return f"{place}[{key}]"
    return f"{place}.{key}" if place else key


class Resolver(Walker):
    """Answers the references of one component, in one scope, and counts the work."""

    def __init__(self, scope: Scope, owner: Owner, syntax: Syntax, max_digits: int, work: Work) -> None:
        self.scope = scope
        self.owner = owner
        self.syntax = syntax
        self.max_digits = max_digits
        self._work = work
        self._owners: dict[int, Owner] = {id(owner.document): owner}
        self._elements: Elements | None = None
        # By the identity of a document, which lives as long as the scope does, and the place in it.
        self._values: dict[tuple[int, str], Any] = {}
        self._open: dict[tuple[int, str], str] = {}

    def written(self, text: Text, place: str) -> bytes:
        """The JSON of the string at ``place`` of the component that is due.

        Raises:
            Unresolved: It needs something that is absent or null.
            TemplateError: It refers to itself, cannot be evaluated, or is over a bound.
        """
        try:
            return encode(self.evaluate(text, self.owner, place))
        except RecursionError as error:
            # Definitions that are nested deep, each within the bounds, in a chain that is.
            raise TemplateError("refers to what is nested too deep") from error

    def spend(self, work: int) -> None:
        """Account for work (`sandbox.Reader`, `paths.Walker`)."""
        self._work.spend(work)

    def lookup(self, lookup: Lookup, computed: Sequence[object] = ()) -> object:
        """What an expression looks up (`sandbox.Reader`)."""
        keys: Sequence[object] = lookup.keys
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
                value, where = self.owner.document, Place(self.owner, "", self.owner.raw)
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
        """What a path leads to (`references.Reader`)."""
        value: Any
        if id is not None:
            value, where = self._component(id)
            value, place = self.walk(path, value, where)
        elif path[0] == "components":
            value, place = self.walk(path[1:], self._everything(), None)
        else:
            value, place = self.walk(path, self.scope.build, None)
            if value is MISSING and isinstance(path[0], Pattern) and path[0].matches("components"):
                # As if the components stood behind the other fields of the build.
                value, place = self.walk(path[1:], self._everything(), None)
        value = None if value is MISSING else self._measured(self.whole(value, place))
        if value is None:
            subject = f"'{id}'" if id is not None else "the build"
            raise Unresolved(f"{subject} has no '{_cut(shown(path))}'")
        return value

    def _measured(self, value: Any) -> Any:
        """``value``, which is not over the bound of what can be rendered."""
        if isinstance(value, dict | list):
            self.spend(measure(value, self.max_digits))
        return value

    def _component(self, id: str) -> tuple[Mapping[str, Any], Place | None]:  # noqa: A002
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
            owner = self._owners[key] = Owner(found.document)
        return Place(owner, "", owner.raw)

    def _everything(self) -> Elements:
        if self._elements is None:
            self._elements = Elements([(found.document, self._place(found)) for found in self.scope.all()])
        return self._elements

    def settle(self, value: Any, where: Any) -> Any:
        """The value of a string that a user wrote at ``where``.

        Raises:
            TemplateError: It refers to itself, or cannot be resolved; the message says where.
        """
        if not references.may_refer(value):
            return value
        place: Place = where
        if place.owner.fault:
            raise TemplateError(f"{place.owner.id}: {place.owner.fault}")
        try:
            text = references.read(value, self.syntax)
            return value if text is None else self.evaluate(text, place.owner, place.text)
        except AbortedError:
            raise
        except TemplateError as error:
            kind = Unresolved if isinstance(error, Unresolved) else TemplateError
            raise kind(_cut(f"{place.owner.id}.{place.text}: {error}")) from error

    def evaluate(self, text: Text, owner: Owner, place: str) -> Any:
        """The value of the string at ``place`` of ``owner``, evaluated once however often it is asked for.

        Raises:
            Unresolved: It needs something that is absent or null.
            TemplateError: It refers to itself, cannot be evaluated, or is over a bound.
        """
        key = (id(owner.document), place)
        if key in self._values:
            return self._values[key]
        if key in self._open:
            names = list(self._open.values())
            circle = [*names[list(self._open).index(key) :], self._open[key]]
            raise AbortedError(_cut(f"refers to itself: {' -> '.join(circle)}"))
        if len(self._open) >= MAX_CHAIN:
            raise TemplateError(
                f"refers to definitions that refer to definitions, more than {MAX_CHAIN} deep"
            )
        self.spend(64)
        before = self.owner
        self.owner = owner
        self._open[key] = f"{owner.id}.{place}"
        try:
            value = self._values[key] = text.value(self, self.syntax)
        finally:
            del self._open[key]
            self.owner = before
        return value

    def whole(self, value: Any, where: Any) -> Any:
        """``value`` with every string in it resolved that a user wrote."""
        if isinstance(value, Elements):
            return [self.whole(item, place) for item, place in value.pairs]
        if where is None:
            return value
        if isinstance(value, str):
            return self.settle(value, where)
        if isinstance(value, dict):
            self.spend(32 * len(value))
            return {key: self.whole(item, where.child(key)) for key, item in value.items()}
        if isinstance(value, list):
            self.spend(32 * len(value))
            return [self.whole(item, where.child(index)) for index, item in enumerate(value)]
        return value


def _nothing(lookup: Lookup, keys: Sequence[object]) -> str:
    path = ".".join(str(key) for key in keys)
    if lookup.root == "components":
        subject = f"'{lookup.id}'" if lookup.id is not None else "the component"
    else:
        subject = f"the {lookup.root}"
    return _cut(f"{subject} has no '{path}'")


def _cut(text: str) -> str:
    return text if len(text) <= 500 else f"{text[:500]}..."
