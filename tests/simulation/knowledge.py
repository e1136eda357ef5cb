"""What the checker knows of a build and its components at some moment of a trace."""

from collections.abc import Mapping
from typing import Any, TypeAlias

from attrs import define, field, frozen

from scheduler.history import History

JSON: TypeAlias = dict[str, Any]


@frozen
class Reply:
    """An answer of a connector that the stream captured."""

    sequence: int
    time: float
    state: str


@define(eq=False)
class Component:
    """What happened to one component of one build."""

    started: str = ""
    """The attempt, once its start is committed."""
    sent: bool = False
    settled: Mapping[str, Any] | None = None
    attempts: set[str] = field(factory=set)
    """All attempt ids it was sent under."""
    departures: list[tuple[float, str]] = field(factory=list)
    """When it left, and which process sent it."""
    replies: list[Reply] = field(factory=list)
    answers: dict[str, str] = field(factory=dict)
    """Serial and state of whatever connectors said of it."""
    arrived: int = 0
    """How many copies of the request reached the broker, and somebody there."""
    unheard: bool = False
    """Whether the broker said of the last departure that nobody received it."""
    ever_unheard: bool = False
    """Whether it said so of any."""


@define(eq=False)
class Build:
    """What happened to one build."""

    document: JSON
    needed: dict[str, set[str]]
    components: dict[str, Component]
    history: History = field(factory=History)
    instances: list[str] = field(factory=list)
    """Which process wrote each record."""
    loaded: dict[str, int] = field(factory=dict)
    """Of each process that took it up or accepted it: at which record."""
    loaded_at: dict[str, float] = field(factory=dict)
    """The same: when."""
    error_at: int = 0
    """The first record with an error."""
    settled_at: dict[str, int] = field(factory=dict)
    sent_at: dict[str, int] = field(factory=dict)
    reported_at: int = 0
    asked: dict[str, int] = field(factory=dict)
    """Of each process: the number of the record that it wanted to append last."""
    fenced: set[str] = field(factory=set)
    report: bytes | None = None
    report_id: str = ""
    """The message id under which it is published."""
    published: int = 0
    accepted_said: bool = False
