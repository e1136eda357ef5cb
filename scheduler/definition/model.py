"""The words of the domain as frozen data: a build, its components, its changes, its edges.

The typed attributes are what the scheduler itself looks at. Everything else a user or connector put
into a build or component stays in ``fields``, untouched and in its order, and is passed on.

A change keeps its fields as JSON text: a build of thousands waits for most of its life, and as Python
objects its changes would take five times the memory, and be looked at in every garbage collection.
"""

from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from typing import Any

import msgspec
from attrs import field, frozen

from scheduler.definition.rules import Retry

SETTINGS = ("_raw", "_retry", "_secret", "_timeout")
"""Fields of a change that speak to the scheduler."""
ATTEMPTS = "_attempts"
"""The field in which a store without a log keeps how many attempts have failed."""
START = "start"
PSEUDO_IDS = frozenset({START, "end"})
"""Ids that occur in edges only, and stand for no component."""
BUILD_ACTIONS = tuple(
    f"{kind}.{verb}"
    for kind in ("build", "service")
    for verb in ("create", "delete", "import", "patch", "sync")
)
"""What a build can be: the subjects that builds come in on, and that reports go out on."""
DEFAULT_BUILD_ACTION = "build.create"
"""What a build is where neither a subject nor it itself says so."""


class Action(StrEnum):
    """What a connector is asked to do with a component."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"
    GET = "get"
    FIND = "find"
    NONE = "none"


class State(StrEnum):
    """Where a component stands, as on the wire."""

    WAITING = "waiting"
    RUNNING = "running"
    COMPLETED = "completed"
    ERRORED = "errored"


class Resend(StrEnum):
    """What becomes of a request that may have left, when a process or the broker comes back."""

    UNSENT = "unsent"
    """It goes out again unless it is known to have reached the broker; then its reply is awaited."""
    ALWAYS = "always"
    """It goes out again, under the same attempt id, until it is answered."""
    NEVER = "never"
    """It is not sent again: unless it is known to have reached the broker, its outcome is unknown."""


@frozen
class Component:
    """Something that exists."""

    id: str
    fields: Mapping[str, Any] = field(repr=False)
    """The whole object as submitted, the underscored fields included."""


@frozen
class Change:
    """A vertex of the graph: a component as it is to become, a piece of this build's work."""

    id: str
    type: str
    action: Action
    provider: str
    state: State
    raw: bytes = field(repr=False)
    """The whole object as submitted, as compact JSON; its ``_state`` says what ``state`` does."""
    timeout: float | None = None
    """Seconds that one attempt may take, from the component's ``_timeout``."""
    retry: Retry | None = None
    """How often it is sent again when it fails, from the component's ``_retry``."""
    attempts: int = 0
    """How many attempts have failed, from ``_attempts``, where a store keeps them that has no log."""
    settings: Mapping[str, Any] = field(factory=dict, repr=False)
    """Its fields that speak to the scheduler (`SETTINGS`); a connector has no say in them."""
    sensitive: bool = True
    """Whether a field of it may be secret; False is certain."""

    @property
    def fields(self) -> dict[str, Any]:
        """The whole object as submitted; decoded again each time."""
        decoded: dict[str, Any] = msgspec.json.decode(self.raw)
        return decoded


@frozen
class Edge:
    """``source`` completes before ``destination`` starts: the source is the dependency."""

    source: str
    destination: str
    length: int | None = None
    extra: Mapping[str, Any] | None = field(default=None, repr=False)
    """Its other fields, where it has any."""


@frozen
class Build:
    """One run of one graph, as it was submitted."""

    id: str
    action: str
    """One of `BUILD_ACTIONS`, and the subject of the report: ``build.create`` is reported on
    ``build.create.done``. ``fields`` say the same."""
    components: tuple[Component, ...] = field(repr=False)
    """What exists."""
    changes: tuple[Change, ...] = field(repr=False)
    """What this build does; each is sent once."""
    edges: tuple[Edge, ...] = field(repr=False)
    fields: Mapping[str, Any] = field(repr=False)
    """Every top-level field as submitted, without ``components``, ``changes`` and ``edges``, unless null."""
    absent: frozenset[str] = frozenset()
    """Those of the three lists that it did not have at all: while they are empty they are not added."""


def written(
    lists: Mapping[str, Sequence[Any]], fields: Mapping[str, Any], absent: Collection[str]
) -> dict[str, Sequence[Any]]:
    """Those of a build's lists that are to be written: no empty one where it had none, or null.

    Args:
        lists: by name.
        fields: those of the build; a list that was null stands there.
        absent: the names of those that it did not have.
    """
    return {name: items for name, items in lists.items() if items or not (name in fields or name in absent)}
