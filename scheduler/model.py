"""The words of the domain as frozen data: a build, its components, its edges.

The typed attributes are what the scheduler itself looks at. Everything else a user or connector put
into a build or component stays in ``fields``, untouched and in its order, and is passed on.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from attrs import field, frozen

START = "start"
END = "end"
PSEUDO_IDS = frozenset({START, END})
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
    """A vertex of the graph.

    ``fields`` is the whole object as submitted, the underscored fields included, so that writing a
    component back costs nothing and loses nothing.
    """

    id: str
    type: str
    action: Action
    provider: str
    state: State
    fields: Mapping[str, Any] = field(repr=False)


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
    changes: tuple[Component, ...] = field(repr=False)
    """What this build does; each is sent once."""
    edges: tuple[Edge, ...] = field(repr=False)
    fields: Mapping[str, Any] = field(repr=False)
    """Every top-level field as submitted, without ``components``, ``changes`` and ``edges``."""
