"""What happens to a build, as the store is told of it.

A store takes several of these at a time, in order, and persists them before it returns.
They are plain data; the objects inside are shared with the plan and must not be changed.

``time`` is when an event happened, in seconds since 1970, where the store has written that down; an event
that is on its way to the store has none.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

import msgspec
from attrs import field, frozen

from scheduler.definition.model import ATTEMPTS
from scheduler.runtime.values import value

Document: TypeAlias = Mapping[str, Any]
"""A JSON object, as a Python mapping."""


@frozen
class Accepted:
    """The build was validated; it is now ours."""

    document: Document = field(repr=False)
    """The whole build, as it is to be kept; parts of it may be JSON text (`msgspec.Raw`)."""
    digest: str = ""
    """Equal for equal content: tells whether what comes under the same id again is the same."""
    key: str = field(default="", repr=False)
    """A random text by which the next process knows the tokens of reply subjects, and nobody else; a secret.
    In the logs of earlier versions it is shorter, and stood in the subjects themselves."""
    templates: str = "all"
    """Which forms of references it was accepted with."""
    unresolved: str = "error"
    """What a reference to nothing was when it was accepted."""
    mark: str = ""
    """A random text, another for each acceptance: what attempt ids end with, so that they are unequal also
    where a build's id is used again. Empty in the logs of versions that drew none."""


@value
class Started:
    """A component's request is about to leave (write-ahead: this is persisted first)."""

    component: str
    attempt: str
    raw: bytes = field(repr=False)
    """The change as submitted, as JSON: its templates stay in it. Its ``_state`` is still the old one."""
    failed: int = 0
    """How many attempts have failed before this one."""

    @property
    def body(self) -> Document:
        """The change as it is to be kept: running."""
        return _kept(self.raw, "running", self.failed)


@value
class Sent:
    """A started component's request has reached the broker: it is known to have left."""

    component: str
    attempt: str
    time: float | None = field(default=None, eq=False)
    """When it left."""


@value
class Withdrawn:
    """A started component's request never left, and will not leave."""

    component: str
    raw: bytes = field(repr=False)
    """The change as submitted, as JSON."""
    failed: int = 0
    """How many attempts have failed."""

    @property
    def body(self) -> Document:
        """The change as it is to be kept: waiting again."""
        return _kept(self.raw, "waiting", self.failed)


@value
class Retrying:
    """An attempt has failed, and there will be another one."""

    component: str
    attempt: str
    """The one that failed."""
    error: str
    pause: float
    """Seconds until the next one."""
    raw: bytes = field(default=b"", repr=False)
    """The change as submitted, as JSON."""
    failed: int = 1
    """How many attempts have failed."""
    sent: float | None = field(default=None, eq=False)
    """When that attempt had left, where no `Sent` said so before."""
    time: float | None = field(default=None, eq=False)

    @property
    def body(self) -> Document:
        """The change as it is to be kept: waiting again."""
        return _kept(self.raw, "waiting", self.failed)


@value
class Settled:
    """A component has its terminal outcome.

    ``upserts`` and ``deletes`` say what the outcome does to the build's ``components``; they are
    to be persisted after the change itself and before anything that depends on it starts.
    """

    component: str
    body: Document = field(repr=False)
    """The change as it is to be kept, with its final ``_state``."""
    upserts: tuple[Document, ...] = field(default=(), repr=False)
    deletes: tuple[Document, ...] = field(default=(), repr=False)
    sent: float | None = field(default=None, eq=False)
    """When its last attempt had left, where no `Sent` said so before."""
    time: float | None = field(default=None, eq=False)


@frozen
class Suspended:
    """The broker, or what keeps the log, was away; told when it is back, together with `Resumed`."""


@frozen
class Resumed:
    """It is back: the deadlines of what is in flight move by as much."""

    seconds: float
    time: float | None = field(default=None, eq=False)


@frozen
class Finished:
    """Nothing is in flight any more and nothing will start: the build is over."""

    error: str | None
    """The first cause, or None where every change is completed."""


@frozen
class Reported:
    """The report is out: nothing is left to be done."""

    run: int


@frozen
class Loading:
    """A process is about to take the build up. One that dies of it leaves this as its last word."""


@frozen
class Rekeyed:
    """Reply subjects are made with another key from now on: the one before it was no secret."""

    key: str = field(repr=False)


@frozen
class Released:
    """The loadings before it are not counted any more: they did no harm, or a person wants another one."""


@frozen
class Cancelled:
    """An operator has ended the build: nothing new is sent."""

    cause: str
    """What is reported as its error."""


@frozen
class Paused:
    """An operator wants nothing new to be sent, for now."""

    time: float | None = field(default=None, eq=False)


@frozen
class Unpaused:
    """What was paused goes on."""

    time: float | None = field(default=None, eq=False)


@frozen
class Retried:
    """An operator has components sent again that had failed; after the end of the build, in a new run."""

    components: tuple[str, ...]
    run: int


@frozen
class Supplied:
    """An operator says what became of a component: it completes with this output, and is not sent (again)."""

    component: str
    output: Document = field(repr=False)


@frozen
class Extended:
    """An operator gives a component that is in flight more time."""

    component: str
    seconds: float


@frozen
class Limited:
    """The build's own limits are others from now on."""

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
    """A change as it is to be kept in a store that has nothing else to say how often it has failed."""
    document = {**msgspec.json.decode(raw), "_state": state}
    return {**document, ATTEMPTS: failed} if failed else document
