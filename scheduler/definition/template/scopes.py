"""Scopes: the values that references of a component can see, and what the components of a build share."""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

from msgspec import Struct

from scheduler.definition.places import Owner
from scheduler.definition.template.paths import PathQuery
from scheduler.definition.template.references import Text, may_refer
from scheduler.definition.template.work import Work
from scheduler.runtime.caches import ByteCache

_LEAST_KEPT: Final = 256 * 1024
_KEPT_OF_A_COMPONENT: Final = 1024
"""Bytes of results that a build keeps, and for each of its components."""


class Found(Struct, frozen=True, gc=False):
    """A component that a reference can see."""

    document: Mapping[str, Any]
    definition: bool
    """Whether a user submitted it, so that its strings may be templates. A connector's result is data."""


class Kept:
    """The result of evaluating a string: its value, or the reason why there is none."""

    __slots__ = ("common", "failure", "value")

    def __init__(self, value: Any, failure: tuple[type[Exception], str] | None, *, common: bool) -> None:
        self.value = value
        self.failure = failure
        self.common = common
        """Whether it is the same for every component of the build."""


Spot = tuple[int, str]
"""Identity of a document, which lives as long as its build does, and a place in it."""


class Shared:
    """Results that the components of one build share; threads may use it at the same time.

    Args:
        common: function that says whether the component with an id is the same for all, at any time.
        components: number of components.
    """

    def __init__(self, common: Callable[[str], bool], components: int) -> None:
        self.common = common
        most = _LEAST_KEPT + _KEPT_OF_A_COMPONENT * components
        self.values: ByteCache[Spot, Kept] = ByteCache(most)
        self.texts: ByteCache[Spot, Text] = ByteCache(most)
        """Parsed strings by spot."""
        self._owners: dict[int, Owner] = {}

    def owner(self, document: Mapping[str, Any]) -> Owner:
        """Return a submitted component by its document, which lives as long as its build does."""
        owner = self._owners.get(id(document))
        if owner is None:
            owner = self._owners[id(document)] = Owner(document)
        return owner


UNLIMITED: Final = Work(sys.maxsize)
"""A budget that is never used up."""


class Scope(Protocol):
    """The values that the references of one component can see."""

    build: Mapping[str, Any]
    """Fields of the build, without its components, changes and edges."""
    shared: Shared | None = None
    """Results kept by its build; None if nothing is kept."""
    work: Work = UNLIMITED
    """Budget that looking is charged to; set by the renderer."""

    def find(self, id: str) -> Found | None:  # noqa: A002 - the word of the model
        """Return the component with this id, at once."""
        ...

    def all(self) -> Sequence[Found]:
        """Return everything that can be seen, in the order of submission."""
        ...

    def candidates(self, query: PathQuery) -> Iterable[Found] | None:  # noqa: ARG002
        """Return those of `all`, in its order, for which ``query`` holds, and perhaps some others.

        None if that is no cheaper than looking at all of them.
        """
        return None

    def ids(self) -> Iterable[str]:
        """Return every id that there is, of components and of changes."""
        ...


_SHORT: Final = 4_096
"""Characters up to which text is surely within every limit."""


def plain_text(id: str, keys: Sequence[object], scope: Scope) -> str | None:  # noqa: A002 - as above
    """Return the text under ``keys`` of a component; None if it is not short, plain text."""
    found = scope.find(id)
    if found is None:
        return None
    value: Any = found.document
    for key in keys:
        if type(value) is not dict or type(key) is not str:
            return None
        value = value.get(key)
    if type(value) is not str or len(value) > _SHORT:
        return None
    return None if found.definition and may_refer(value) else value
