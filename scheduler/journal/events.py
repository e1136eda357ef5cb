"""Events: what happens to a build, as it is given to the store.

A store takes several events at a time, in order, and persists them before it returns. Events are plain data;
the objects inside are shared with the plan and must not be changed.

``time`` is the time of an event in seconds since 1970, where the store has recorded it. An event on its way
to the store has none.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

import msgspec

from scheduler.definition.model import ATTEMPTS
from scheduler.runtime.values import Value
from scheduler.tracing.context import TraceContext

Document: TypeAlias = Mapping[str, Any]
"""A JSON object, as a Python mapping."""


class Accepted(Value, frozen=True):
    """Acceptance of the validated build: the scheduler is responsible for it from now on."""

    UNSHOWN = frozenset({"document", "key"})
    UNCOMPARED = frozenset({"trace"})

    document: Document
    """Build to be kept, whole; parts of it may be JSON text (`msgspec.Raw`)."""
    digest: str = ""
    """Digest of the content: tells whether a build that comes again under the same id is the same."""
    key: str = ""
    """Random text by which the next process recognises the tokens of reply subjects, and nobody else can; a
    secret. In the logs of earlier versions it is shorter, and stood in the subjects themselves."""
    templates: str = "all"
    """Forms of references that were valid when the build was accepted."""
    unresolved: str = "error"
    """Treatment of references to nothing when the build was accepted."""
    mark: str = ""
    """Random text, drawn for each acceptance: the end of attempt ids, so that they differ even where a
    build's id is used again. Empty in the logs of versions that drew none."""
    trace: TraceContext | None = None
    """Trace of the build (`BuildTrace.context`); None where it has none. It stands beside the record, in
    headers, and not in the event: versions that do not know it read the log all the same."""


class Started(Value, frozen=True):
    """Start of a component: its request is about to leave. This is persisted first (write-ahead)."""

    UNSHOWN = frozenset({"raw"})

    component: str
    attempt: str
    raw: bytes
    """Change as submitted, as JSON, with its templates and its old ``_state``."""
    failed: int = 0
    """Number of attempts that failed before this one."""

    @property
    def body(self) -> Document:
        """Change as it is to be kept: running."""
        return _kept(self.raw, "running", self.failed)


class Sent(Value, frozen=True):
    """Arrival of a started component's request at the broker: it is known to have left."""

    UNCOMPARED = frozenset({"time"})

    component: str
    attempt: str
    time: float | None = None
    """Time at which it left."""


class Withdrawn(Value, frozen=True):
    """Withdrawal of a started component's request: it has not left, and never will."""

    UNSHOWN = frozenset({"raw"})

    component: str
    raw: bytes
    """Change as submitted, as JSON."""
    failed: int = 0
    """Number of failed attempts."""

    @property
    def body(self) -> Document:
        """Change as it is to be kept: waiting again."""
        return _kept(self.raw, "waiting", self.failed)


class Retrying(Value, frozen=True):
    """Failure of an attempt that is followed by another one."""

    UNSHOWN = frozenset({"raw"})
    UNCOMPARED = frozenset({"sent", "time"})

    component: str
    attempt: str
    """Id of the failed attempt."""
    error: str
    pause: float
    """Seconds until the next attempt."""
    raw: bytes = b""
    """Change as submitted, as JSON."""
    failed: int = 1
    """Number of failed attempts."""
    sent: float | None = None
    """Time at which the failed attempt left, where no earlier `Sent` told it."""
    time: float | None = None

    @property
    def body(self) -> Document:
        """Change as it is to be kept: waiting again."""
        return _kept(self.raw, "waiting", self.failed)


class Settled(Value, frozen=True):
    """Final outcome of a component.

    ``upserts`` and ``deletes`` are its effect on the build's ``components``. They are to be persisted after
    the change itself, and before anything that depends on it starts.
    """

    UNSHOWN = frozenset({"body", "upserts", "deletes"})
    UNCOMPARED = frozenset({"sent", "time"})

    component: str
    body: Document
    """Change as it is to be kept, with its final ``_state``."""
    upserts: tuple[Document, ...] = ()
    deletes: tuple[Document, ...] = ()
    sent: float | None = None
    """Time at which its last attempt left, where no earlier `Sent` told it."""
    time: float | None = None


class Suspended(Value, frozen=True):
    """Outage of the broker, or of what keeps the log; recorded after it, together with `Resumed`."""


class Resumed(Value, frozen=True):
    """End of an outage: the deadlines of what is in flight move by its length."""

    UNCOMPARED = frozenset({"time"})

    seconds: float
    time: float | None = None


class Finished(Value, frozen=True):
    """End of the run: nothing is in flight, and nothing more will start."""

    error: str | None
    """First cause; None where every change is completed."""


class Reported(Value, frozen=True):
    """Publication of the report: nothing is left to be done."""

    run: int


class Loading(Value, frozen=True):
    """Intention of a process to take the build up. If the process dies of that, this is its last event."""


class Rekeyed(Value, frozen=True):
    """Change of the key of reply subjects: the previous one was not secret."""

    UNSHOWN = frozenset({"key"})

    key: str


class Released(Value, frozen=True):
    """Discharge of all earlier loadings: they did no harm, or an operator wants another one."""


class Cancelled(Value, frozen=True):
    """Cancellation by an operator: nothing new is sent."""

    cause: str
    """Error that is reported for the build."""


class Paused(Value, frozen=True):
    """Pause by an operator: nothing new is sent for now."""

    UNCOMPARED = frozenset({"time"})

    time: float | None = None


class Unpaused(Value, frozen=True):
    """End of a pause."""

    UNCOMPARED = frozenset({"time"})

    time: float | None = None


class Retried(Value, frozen=True):
    """Retry of failed components by an operator; after the end of the build, in a new run."""

    components: tuple[str, ...]
    run: int


class Supplied(Value, frozen=True):
    """Output that an operator supplies: the component completes with it, and is not sent (again)."""

    UNSHOWN = frozenset({"output"})

    component: str
    output: Document


class Extended(Value, frozen=True):
    """Extension by an operator of the deadline of a component in flight."""

    component: str
    seconds: float


class Limited(Value, frozen=True):
    """Replacement of the build's own limits."""

    limits: Mapping[str, int | str]


Event: TypeAlias = (
    Accepted
    | Started
    | Sent
    | Withdrawn
    | Settled
    | Suspended
    | Resumed
    | Finished
    | Reported
    | Loading
    | Released
    | Rekeyed
    | Retrying
    | Cancelled
    | Paused
    | Unpaused
    | Retried
    | Supplied
    | Extended
    | Limited
)


def _kept(raw: bytes, state: str, failed: int) -> Document:
    """Return a change as it is kept in a store that records its failed attempts nowhere else."""
    document = {**msgspec.json.decode(raw), "_state": state}
    return {**document, ATTEMPTS: failed} if failed else document
