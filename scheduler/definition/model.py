"""The model: a build, its components, changes and edges, as frozen data.

The typed attributes are those that the scheduler itself looks at. Everything else in a build or component
stays in ``fields``, untouched and in its order, and is passed on.

A change keeps its fields as JSON text: a build of thousands waits for most of its life, and as Python objects
its changes would take five times the memory, and be visited in every garbage collection.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any

import msgspec
from attrs import field, frozen

from scheduler.definition.rules import Retry

SETTINGS = ("_heartbeat", "_raw", "_retry", "_secret", "_timeout")
"""Fields of a change that are meant for the scheduler."""
ATTEMPTS = "_attempts"
"""Field in which a store without a log keeps the number of failed attempts."""
START = "start"
PSEUDO_IDS = frozenset({START, "end"})
"""Ids that occur only in edges, and stand for no component."""
BUILD_ACTIONS = tuple(
    f"{kind}.{verb}"
    for kind in ("build", "service")
    for verb in ("create", "delete", "import", "patch", "sync")
)
"""Actions of a build: the subjects that builds come in on, and that reports go out on."""
DEFAULT_BUILD_ACTION = "build.create"
"""Action of a build if neither its subject nor the build itself names one."""


class Action(StrEnum):
    """Work of a connector on a component; or `NONE` and `APPROVE`, where no connector is asked."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"
    GET = "get"
    FIND = "find"
    NONE = "none"
    APPROVE = "approve"
    """A *gate*: the component waits until a person approves or rejects it."""


UNSENT = frozenset({Action.NONE, Action.APPROVE})
"""Actions of components that are never sent."""
APPROVAL = ("approved_by", "approved_at", "approval_reason")
"""Fields that a gate gains by its approval."""


class State(StrEnum):
    """State of a component, as on the wire."""

    WAITING = "waiting"
    RUNNING = "running"
    COMPLETED = "completed"
    ERRORED = "errored"


class Resend(StrEnum):
    """Rule for a request that may have left, when a process or the broker comes back."""

    UNSENT = "unsent"
    """Send it again unless it is known to have reached the broker; then await its reply."""
    ALWAYS = "always"
    """Send it again, under the same attempt id, until it is answered."""
    NEVER = "never"
    """Never send it again: unless it is known to have reached the broker, its outcome is unknown."""


@frozen
class Component:
    """A component that exists."""

    id: str
    fields: Mapping[str, Any] = field(repr=False)
    """Object as submitted, whole, including the underscored fields."""


class Change(msgspec.Struct, frozen=True, gc=False):
    """A vertex of the graph: a component as it is to become, a piece of this build's work."""

    id: str
    type: str
    action: Action
    provider: str
    state: State
    raw: bytes
    """Object as submitted, whole, as compact JSON; its ``_state`` equals ``state``."""
    timeout: float | None = None
    """Seconds that one attempt may take, or that a gate waits, from the component's ``_timeout``."""
    retry: Retry | None = None
    """Retry rule, from the component's ``_retry``."""
    attempts: int = 0
    """Number of failed attempts, from ``_attempts``, where a store without a log keeps it."""
    settings: Mapping[str, Any] = msgspec.field(default_factory=dict)
    """Fields that are meant for the scheduler (`SETTINGS`); a connector cannot change them."""
    sensitive: bool = True
    """Whether a field of it may be secret; False is certain."""

    def __repr__(self) -> str:
        # Its fields may be secret.
        return f"<Change {self.id}: {self.action} {self.type}, {self.state}>"

    @property
    def heartbeat(self) -> float | None:
        """Seconds within which a connector has to beat again, from the component's ``_heartbeat``."""
        # Few have one, and there are thousands of changes: so without a place in each.
        return self.settings.get("_heartbeat")

    @property
    def fields(self) -> dict[str, Any]:
        """Fields of the object as submitted; decoded again each time."""
        decoded: dict[str, Any] = msgspec.json.decode(self.raw)
        return decoded


class Edge(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """An edge: ``source`` completes before ``destination`` starts, so the source is the dependency.

    A build has more edges than components. One without other fields is its own JSON; `edge_document` tells
    how any is written.
    """

    source: str
    destination: str
    length: int | None = None
    extra: Mapping[str, Any] | None = None
    """Other fields of the edge, if it has any."""

    def __repr__(self) -> str:
        return f"<Edge {self.source} -> {self.destination}, {self.length}>"


@frozen
class Build:
    """One run of one graph, as it was submitted."""

    id: str
    action: str
    """One of `BUILD_ACTIONS`, and the subject of the report: ``build.create`` is reported on
    ``build.create.done``. It also stands in ``fields``."""
    components: tuple[Component, ...] = field(repr=False)
    """Components that exist."""
    changes: tuple[Change, ...] = field(repr=False)
    """Work of this build; each change is sent once."""
    edges: tuple[Edge, ...] = field(repr=False)
    fields: Mapping[str, Any] = field(repr=False)
    """Top-level fields as submitted, without ``components``, ``changes`` and ``edges`` unless null."""
    absent: frozenset[str] = frozenset()
    """Those of the three lists that the build did not have at all: they are not added while they are
    empty."""


def gates_of(build: Build) -> Iterator[int]:
    """Yield the positions of the changes that wait for a person."""
    return (place for place, change in enumerate(build.changes) if change.action is Action.APPROVE)


def written(
    lists: Mapping[str, Sequence[Any]], fields: Mapping[str, Any], absent: Collection[str]
) -> dict[str, Sequence[Any]]:
    """Return those of a build's lists that are written: not an empty one that was missing or null.

    Args:
        lists: the lists by name.
        fields: fields of the build; a list that was null stands there.
        absent: names of lists that the build did not have.
    """
    return {name: items for name, items in lists.items() if items or not (name in fields or name in absent)}
