"""Spans of a build: what is told of a run, and of each attempt of a component.

The same functions serve a build that runs, and one that has ended and is exported. Names of attributes are
those of OpenTelemetry's conventions where these have some; the rest begins with ``scheduler.``. Nothing here
may be secret: whoever calls this masks the texts.
"""

from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum
from types import MappingProxyType
from typing import Final, NamedTuple, TypeAlias

from attrs import frozen
from msgspec.structs import replace

from scheduler.runtime.values import Value
from scheduler.tracing.build import BuildTrace

Attributes: TypeAlias = Mapping[str, str | int | float | bool]

MOST_LINKS: Final = 32
"""Links of a span. SDKs keep 128 by default; each is 650 bytes and takes 10 us there."""
MOST_BEATS: Final = 32
"""Heartbeats of an attempt that are told."""
LONGEST_SAID: Final = 200
"""Characters of what a connector says in a heartbeat: they are kept while the attempt is in flight."""
LONGEST_TEXT: Final = 1_000
"""Characters of an error, or of a name."""
_NANOSECONDS: Final = 1_000_000_000


class Kind(IntEnum):
    """Kind of a span; numbers are those of OTLP."""

    INTERNAL = 1
    SERVER = 2
    CLIENT = 3


class SpanEvent(NamedTuple):
    """Event within a span."""

    name: str
    time: float
    """Seconds since 1970."""
    attributes: Attributes = MappingProxyType({})


class Span(Value, frozen=True):
    """A span that has ended."""

    name: str
    kind: Kind
    trace: str
    """Id of the trace: 32 hexadecimal digits."""
    id: str
    """Id of the span: 16 hexadecimal digits."""
    parent: str
    """Id of the span above it; empty where it is the root."""
    remote: bool
    """Whether that one is another system's."""
    flags: int
    state: str
    """Value of ``tracestate``."""
    start: float
    """Beginning, in seconds since 1970."""
    end: float
    attributes: Attributes
    events: tuple[SpanEvent, ...] = ()
    links: tuple[str, ...] = ()
    """Ids of spans of the same trace that came before it."""
    error: str | None = None
    """What went wrong; None where nothing did."""


@frozen
class Run:
    """A run of a build that has ended."""

    build: str
    name: str
    """Name of the build; empty where it has none."""
    action: str
    number: int
    """Number of the run, from 1."""
    began: float
    """Time of its beginning, in seconds since 1970."""
    ended: float
    status: str
    """``done``, ``errored`` or ``cancelled``."""
    counts: Mapping[str, int]
    """Number of components by state."""
    error: str | None = None
    """First cause, masked; None where every change is completed."""


def run_span(trace: BuildTrace, run: Run) -> Span:
    """Return the span of a run: it hangs below what submitted the build."""
    attributes: dict[str, str | int | float | bool] = {
        "scheduler.build.id": run.build,
        "scheduler.build.action": run.action,
        "scheduler.build.run": run.number,
        "scheduler.build.status": run.status,
    }
    if run.name:
        attributes["scheduler.build.name"] = run.name[:LONGEST_TEXT]
    attributes |= {f"scheduler.components.{state}": number for state, number in run.counts.items() if number}
    return Span(
        run.action,
        # Whoever submitted it gets an answer when it is accepted, and not when it has ended.
        Kind.INTERNAL,
        trace.trace,
        trace.run(run.number),
        trace.parent,
        True,
        trace.flags,
        trace.state,
        min(run.began, run.ended),
        run.ended,
        attributes,
        error=None if run.error is None else run.error[:LONGEST_TEXT],
    )


class Beat(NamedTuple):
    """Content of a heartbeat."""

    time: float
    """Seconds since 1970."""
    progress: float | None = None
    message: str = ""
    """Masked."""
    instance: str = ""


@frozen
class Attempt:
    """An attempt of a component that has ended; of one that never was sent, the only one.

    Times are in seconds since 1970; those that are not known are None.
    """

    build: str
    run: int
    """Number of the run, from 1."""
    component: str
    number: int
    """Number of the attempt, from 1."""
    subject: str
    """Subject of its request."""
    ended: float
    due: float | None = None
    """Time from which on it could be sent: its dependencies were completed, or the pause was over."""
    slot: float | None = None
    """Time at which it had its slots, and began."""
    sent: float | None = None
    answered: float | None = None
    beats: Sequence[Beat] = ()
    unseen_beats: int = 0
    """Number of heartbeats that are not told."""
    needs: Sequence[tuple[str, int]] = ()
    """Components that it depends on, each with the number of its last attempt; links lead there."""
    unseen_needs: int = 0
    """Number of components that it depends on and that are left out of ``needs``."""
    gate: bool = False
    """Whether it waits for a person, and not for a connector."""
    error: str | None = None
    """What went wrong, masked; None where it is completed."""
    retries: bool = False
    """Whether another attempt follows."""


def attempt_span(trace: BuildTrace, attempt: Attempt) -> Span:
    """Return the span of an attempt: it hangs below its run, and is linked to what it depended on."""
    subject, component, number = attempt.subject, attempt.component, attempt.number
    attributes: dict[str, str | int | float | bool] = {
        "scheduler.build.id": attempt.build,
        "scheduler.component.id": component,
        "scheduler.component.attempt": number,
    }
    if attempt.gate:
        name, kind = f"approve {subject.partition('.')[0]}", Kind.INTERNAL
    else:
        name, kind = f"request {subject}", Kind.CLIENT
        attributes |= {
            "messaging.system": "nats",
            "messaging.operation.name": "request",
            "messaging.operation.type": "send",
            "messaging.destination.name": subject,
        }
    if attempt.retries:
        attributes["scheduler.component.retries"] = True
    if unseen := attempt.unseen_needs + max(0, len(attempt.needs) - MOST_LINKS):
        attributes["scheduler.links.left_out"] = unseen
    if attempt.unseen_beats:
        attributes["scheduler.heartbeats.left_out"] = attempt.unseen_beats
    times = [time for time in (attempt.due, attempt.slot, attempt.sent) if time is not None]
    return Span(
        name,
        kind,
        trace.trace,
        trace.attempt(component, number),
        trace.run(attempt.run),
        False,
        trace.flags,
        trace.state,
        min([*times, attempt.ended]),
        attempt.ended,
        attributes,
        tuple(_events(attempt)),
        tuple(trace.attempt(name, last) for name, last in attempt.needs[:MOST_LINKS]),
        None if attempt.error is None else attempt.error[:LONGEST_TEXT],
    )


def bare(span: Span) -> Span:
    """Return a span without its links and events, of which it tells the numbers."""
    numbers = {"scheduler.links.left_out": len(span.links), "scheduler.events.left_out": len(span.events)}
    told = {name: number for name, number in numbers.items() if number}
    earlier = span.attributes.get("scheduler.links.left_out", 0)
    if span.links and isinstance(earlier, int):
        told["scheduler.links.left_out"] += earlier
    return replace(span, attributes={**span.attributes, **told}, links=(), events=())


def _events(attempt: Attempt) -> Iterable[SpanEvent]:
    for name, time in (("due", attempt.due), ("slot", attempt.slot), ("sent", attempt.sent)):
        if time is not None:
            yield SpanEvent(name, time)
    for beat in attempt.beats:
        yield SpanEvent("heartbeat", beat.time, _said(beat))
    if attempt.answered is not None:
        yield SpanEvent("answered", attempt.answered)


def _said(beat: Beat) -> Attributes:
    said: dict[str, str | int | float | bool] = {}
    if beat.progress is not None:
        said["scheduler.progress"] = beat.progress
    if beat.message:
        said["scheduler.message"] = beat.message[:LONGEST_SAID]
    if beat.instance:
        said["scheduler.connector.instance"] = beat.instance[:LONGEST_SAID]
    return said


def nanoseconds(time: float) -> int:
    """Return a time in whole nanoseconds since 1970, as OTLP has it; to the microsecond, as we know it."""
    return round(time * 1_000_000) * (_NANOSECONDS // 1_000_000)
