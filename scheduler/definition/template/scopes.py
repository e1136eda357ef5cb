"""What the references of a component can see, and what the components of one build keep in common."""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

from scheduler.definition.template.paths import Query
from scheduler.definition.template.places import Owner
from scheduler.definition.template.references import Text
from scheduler.definition.template.work import Work
from scheduler.runtime.caches import ByteCache

_LEAST_KEPT: Final = 256 * 1024
_KEPT_OF_A_COMPONENT: Final = 1024
"""Bytes of results that a build keeps, and for each of its components."""


class Found(NamedTuple):
    """A component that a reference can see."""

    document: Mapping[str, Any]
    definition: bool
    """Whether a user submitted it: its strings may be templates. What a connector returned is data."""


class Kept:
    """What became of a string that was evaluated: its value, or why it has none."""

    __slots__ = ("common", "failure", "value")

    def __init__(self, value: Any, failure: tuple[type[Exception], str] | None, *, common: bool) -> None:
        self.value = value
        self.failure = failure
        self.common = common
        """Whether it is the same for every component of the build."""


Spot = tuple[int, str]
"""The identity of a document, which lives as long as its build does, and a place in it."""


class Shared:
    """What the components of one build need not find out again: threads may use it at once.

    Args:
        common: Whether the component with an id is the same for all that look at it, whenever they do.
        components: How many there are.
    """

    def __init__(self, common: Callable[[str], bool], components: int) -> None:
        self.common = common
        most = _LEAST_KEPT + _KEPT_OF_A_COMPONENT * components
        self.values: ByteCache[Spot, Kept] = ByteCache(most)
        self.texts: ByteCache[Spot, Text] = ByteCache(most)
        """What the strings were read as."""
        self._owners: dict[int, Owner] = {}

    def owner(self, document: Mapping[str, Any]) -> Owner:
        """A submitted component by its document, which lives as long as its build does."""
        owner = self._owners.get(id(document))
        if owner is None:
            owner = self._owners[id(document)] = Owner(document)
        return owner


UNLIMITED: Final = Work(sys.maxsize)
"""Where nobody counts."""


class Scope(Protocol):
    """What the references of one component can see."""

    build: Mapping[str, Any]
    """The fields of the build, without its components, changes and edges."""
    shared: Shared | None = None
    """What its build keeps; None if nothing is kept."""
    work: Work = UNLIMITED
    """Is told of the work that looking takes. Whoever renders sets it."""

    def find(self, id: str) -> Found | None:  # noqa: A002 - the word of the model
        """The component with this id, at once."""
        ...

    def all(self) -> Sequence[Found]:
        """Everything that can be seen, in the order of submission."""
        ...

    def candidates(self, query: Query) -> Iterable[Found] | None:  # noqa: ARG002
        """Those of `all`, in its order, for which ``query`` holds, and perhaps some others beside.

        None if that cannot be had for less than looking at all of them.
        """
        return None

    def ids(self) -> Iterable[str]:
        """Every id that there is, of components and of changes."""
        ...
