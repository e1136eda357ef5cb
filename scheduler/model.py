"""The words of the domain as frozen data: a build, its components, its changes, its edges.

The typed attributes are what the scheduler itself looks at. Everything else a user or connector put
into a build or component stays in ``fields``, untouched and in its order, and is passed on.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from attrs import field, frozen

PSEUDO_IDS = frozenset({"start", "end"})
"""Ids that occur in edges only, and stand for no component."""


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


@frozen
class Component:
    """A vertex of the graph: something that exists, or is to exist.

    ``fields`` is the whole object as submitted, the underscored fields included, so that writing a
    component back costs nothing and loses nothing.
    """

    id: str
    fields: Mapping[str, Any] = field(repr=False)


@frozen
class Change(Component):
    """A component as it is to become: a piece of this build's work."""

    type: str
    action: Action
    provider: str
    state: State
    timeout: float | None = None
    """Seconds that one attempt may take, from the component's ``_timeout``."""


@frozen
class Edge:
    """``source`` completes before ``destination`` starts: the source is the dependency."""

    source: str
    destination: str
    length: int | None = None


@frozen
class Build:
    """One run of one graph, as it was submitted."""

    id: str
    action: str
    """Becomes the subject of the report: ``build.create`` is reported on ``build.create.done``."""
    components: tuple[Component, ...] = field(repr=False)
    """What exists."""
    changes: tuple[Change, ...] = field(repr=False)
    """What this build does; each is sent once."""
    edges: tuple[Edge, ...] = field(repr=False)
    fields: Mapping[str, Any] = field(repr=False)
    """Every top-level field as submitted, without ``components``, ``changes`` and ``edges``."""
