"""Knowledge of the checker about a build and its components at a moment of a trace."""

from collections.abc import Mapping
from typing import Any, TypeAlias

from attrs import define, field, frozen

from scheduler.journal.history import History
from scheduler.journal.records import Status
from simulation.tenures import Ground

JSON: TypeAlias = dict[str, Any]


@frozen
class Reply:
    """An answer of a connector that the stream captured."""

    sequence: int
    time: float
    state: str


@define(eq=False)
class Attempt:
    """Knowledge about one attempt of a component."""

    id: str
    started_at: int = 0
    """The record with its start, once that is committed and as long as it is not withdrawn."""
    began: float = 0.0
    """When that was committed."""
    sent_at: int = 0
    """The first record that says that it has left."""
    ended_at: int = 0
    """The record that says how it ended."""
    departures: list[tuple[float, str]] = field(factory=list)
    """When it left, and which process sent it."""
    replies: list[Reply] = field(factory=list)
    arrived: int = 0
    """Number of copies of the request that reached the broker, and a subscriber there."""
    answered: float | None = None
    """When a connector answered it first."""
    unheard: bool = False
    """Whether the broker answered the last copy that there was no subscriber."""


@define(eq=False)
class Component:
    """Knowledge about one component of one build."""

    change: JSON
    """As submitted."""
    attempts: dict[str, Attempt] = field(factory=dict)
    current: Attempt | None = None
    """The one that was started and has not ended."""
    tries: int = 0
    """Attempts that were started, since an operator had it sent again where one did."""
    pause: tuple[float, float] | None = None
    """When another attempt was decided on, and the seconds until it may begin."""
    settled: Mapping[str, Any] | None = None
    answers: dict[str, str] = field(factory=dict)
    """Serial and state of whatever connectors said of it."""
    supplied: Mapping[str, Any] | None = None
    """Output that an operator supplied."""
    supplied_at: int = 0
    ever_unheard: bool = False
    """Whether the broker answered any copy that there was no subscriber."""

    def attempt(self, identity: str) -> Attempt:
        """Return the knowledge about an attempt; a new one has none."""
        return self.attempts.setdefault(identity, Attempt(identity))


@define(eq=False)
class Run:
    """Knowledge about the report of one run of a build."""

    report: bytes | None = None
    report_id: str = ""
    """The message id under which it is published."""
    published: int = 0
    reported_at: int = 0


@define(eq=False)
class Build:
    """Knowledge about one build."""

    document: JSON
    needed: dict[str, set[str]]
    components: dict[str, Component]
    history: History = field(factory=History)
    instances: list[str] = field(factory=list)
    """Which process wrote each record."""
    loaded: dict[str, int] = field(factory=dict)
    """Of each process that took it up or accepted it: at which record."""
    loadings: int = 0
    """Number of times that it was taken up: perhaps by the process that had given it away."""
    loaded_at: dict[str, float] = field(factory=dict)
    """The same: when."""
    most_failures: float = 0
    """Failed components with which it continues."""
    forgiven: int = 0
    """Failures that an operator went on with."""
    halted_at: int = 0
    """The record after which nothing new is sent."""
    ever_halted: bool = False
    cancelled: bool = False
    last_run: int = 1
    paused_at: int = 0
    """The record after which nothing new is sent for now; 0 while it is not paused."""
    resuming: bool = False
    """Whether an operator has asked for the end of the pause without a refusal."""
    settled_at: dict[str, int] = field(factory=dict)
    deeds: list[tuple[float, str, str]] = field(factory=list)
    """Commands of operators by the log: time, command and component."""
    asked: dict[str, int] = field(factory=dict)
    """Of each process: the number of the record that it wanted to append last."""
    left: dict[str, float] = field(factory=dict)
    """When each record left first, by its id; from then on its process holds it for true."""
    asked_at: float = 0.0
    """That time of the last record."""
    fenced: set[str] = field(factory=set)
    runs: dict[int, Run] = field(factory=dict)
    epoch: int = 0
    """Epoch of its last record."""
    owner: str = ""
    """Process that accepted it, or took it up last."""
    given_by: str = ""
    """Process that has left it to others with its last record; empty where that record is no such one."""
    taken_from: str = ""
    """Process that had it before."""
    ground: Ground | None = None
    """Why it was taken from that one."""
    stray: set[str] = field(factory=set)
    """Attempts that this one has sent since."""
    holder: str = ""
    """Which process wrote the last record that says more than that it is about to take it up."""
    purged_at: float | None = None
    """When its log was purged by hand, if it was: from then on only a report is expected of it."""
    reported_since: int = 0
    """Number of its reports after that."""

    @property
    def changed_hands(self) -> bool:
        """Whether it was resumed from its log."""
        return len(self.loaded) > 1 or self.loadings > 0

    def run(self, number: int) -> Run:
        """Return the knowledge about a run."""
        return self.runs.setdefault(number, Run())

    @property
    def is_reported(self) -> bool:
        """Whether its run is over, and its report is out."""
        return self.history.status is Status.REPORTED

    def knows(self, who: str, n: int) -> bool:
        """Tell whether a process must know a record: it wrote it, or took the build up after it."""
        return n > 0 and (self.instances[n - 1] == who or self.loaded.get(who, 0) > n)
