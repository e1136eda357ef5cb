"""Events as JSON: ``{"event": <name>, ...}``, in a record or in an object of their own."""

from collections.abc import Callable, Iterator
from typing import Annotated, Any, TypeAlias

import msgspec
from attrs import frozen
from msgspec.structs import replace

from scheduler.definition.strictjson import Raw, encode, list_chunks
from scheduler.journal.events import (
    Accepted,
    Cancelled,
    Document,
    Event,
    Extended,
    Finished,
    Limited,
    Loading,
    Paused,
    Rekeyed,
    Released,
    Reported,
    Resumed,
    Retried,
    Retrying,
    Sent,
    Settled,
    Started,
    Supplied,
    Suspended,
    Unpaused,
    Withdrawn,
)
from scheduler.journal.records.strict import left, read, shown, strange_field

_PIECE = 128 * 1024
"""Bytes of JSON text that are passed on at a time."""


@frozen
class Elsewhere:
    """Reference to an event that is too large for a record."""

    object: str
    """Name of the object with the event, as `encode_event` wrote it."""


_Moment: TypeAlias = Annotated[float, msgspec.Meta(ge=0)] | None
"""Seconds since 1970; left out where unknown, as in the logs of earlier versions."""


class _Wire(msgspec.Struct, tag_field="event", forbid_unknown_fields=True, omit_defaults=True):
    """An event as it is written: its name as ``event``, then its fields in their order."""


class _Accepted(_Wire, tag="accepted", kw_only=True, omit_defaults=True):
    digest: str
    key: str
    templates: str
    unresolved: str
    mark: str = ""
    # Last, so that it can be written in pieces.
    document: dict[str, Raw]


class _Started(_Wire, tag="started"):
    component: str
    attempt: str


class _Sent(_Wire, tag="sent"):
    component: str
    attempt: str
    time: _Moment = None


class _Withdrawn(_Wire, tag="withdrawn"):
    component: str


class _Settled(_Wire, tag="settled"):
    component: str
    body: dict[str, Any]
    sent: _Moment = None
    time: _Moment = None


class _Suspended(_Wire, tag="suspended"):
    pass


class _Resumed(_Wire, tag="resumed"):
    seconds: Annotated[float, msgspec.Meta(ge=0)]
    time: _Moment = None


class _Finished(_Wire, tag="finished"):
    error: str | None


class _Reported(_Wire, tag="reported"):
    run: Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]


class _Loading(_Wire, tag="loading"):
    pass


class _Released(_Wire, tag="released"):
    pass


class _Rekeyed(_Wire, tag="rekeyed"):
    key: str


class _Retrying(_Wire, tag="retrying"):
    component: str
    attempt: str
    error: str
    pause: Annotated[float, msgspec.Meta(ge=0)]
    sent: _Moment = None
    time: _Moment = None


class _Cancelled(_Wire, tag="cancelled"):
    cause: str


class _Paused(_Wire, tag="paused"):
    time: _Moment = None


class _Unpaused(_Wire, tag="unpaused"):
    time: _Moment = None


class _Retried(_Wire, tag="retried"):
    components: list[str]
    run: Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]


class _Supplied(_Wire, tag="supplied"):
    component: str
    output: dict[str, Any]


class _Extended(_Wire, tag="extended"):
    component: str
    seconds: Annotated[float, msgspec.Meta(ge=0)]


class _Limited(_Wire, tag="limited"):
    limits: dict[str, int | str]


class _Elsewhere(_Wire, tag="elsewhere"):
    object: str


_AnyWire: TypeAlias = (
    _Accepted
    | _Started
    | _Sent
    | _Withdrawn
    | _Settled
    | _Suspended
    | _Resumed
    | _Finished
    | _Reported
    | _Loading
    | _Released
    | _Rekeyed
    | _Retrying
    | _Cancelled
    | _Paused
    | _Unpaused
    | _Retried
    | _Supplied
    | _Extended
    | _Limited
    | _Elsewhere
)

_TO_WIRE: dict[type[Event | Elsewhere], Callable[[Any], _Wire]] = {
    Accepted: lambda event: _Accepted(
        digest=event.digest,
        key=event.key,
        templates=event.templates,
        unresolved=event.unresolved,
        mark=event.mark,
        document=event.document,
    ),
    Started: lambda event: _Started(event.component, event.attempt),
    Sent: lambda event: _Sent(event.component, event.attempt, event.time),
    Withdrawn: lambda event: _Withdrawn(event.component),
    Settled: lambda event: _Settled(event.component, event.body, event.sent, event.time),
    Suspended: lambda _: _Suspended(),
    Resumed: lambda event: _Resumed(event.seconds, event.time),
    Finished: lambda event: _Finished(event.error),
    Reported: lambda event: _Reported(event.run),
    Loading: lambda _: _Loading(),
    Released: lambda _: _Released(),
    Rekeyed: lambda event: _Rekeyed(event.key),
    Retrying: lambda event: _Retrying(
        event.component, event.attempt, event.error, event.pause, event.sent, event.time
    ),
    Cancelled: lambda event: _Cancelled(event.cause),
    Paused: lambda event: _Paused(event.time),
    Unpaused: lambda event: _Unpaused(event.time),
    Retried: lambda event: _Retried(list(event.components), event.run),
    Supplied: lambda event: _Supplied(event.component, dict(event.output)),
    Extended: lambda event: _Extended(event.component, event.seconds),
    Limited: lambda event: _Limited(dict(event.limits)),
    Elsewhere: lambda event: _Elsewhere(event.object),
}
_FROM_WIRE: dict[type[_Wire], Callable[[Any], Event | Elsewhere]] = {
    _Accepted: lambda wire: Accepted(
        wire.document,
        wire.digest,
        wire.key,
        templates=wire.templates,
        unresolved=wire.unresolved,
        mark=wire.mark,
    ),
    _Started: lambda wire: Started(wire.component, wire.attempt, b""),
    _Sent: lambda wire: Sent(wire.component, wire.attempt, wire.time),
    _Withdrawn: lambda wire: Withdrawn(wire.component, b""),
    _Settled: lambda wire: Settled(wire.component, wire.body, sent=wire.sent, time=wire.time),
    _Suspended: lambda _: Suspended(),
    _Resumed: lambda wire: Resumed(wire.seconds, wire.time),
    _Finished: lambda wire: Finished(wire.error),
    _Reported: lambda wire: Reported(wire.run),
    _Loading: lambda _: Loading(),
    _Released: lambda _: Released(),
    _Rekeyed: lambda wire: Rekeyed(wire.key),
    _Retrying: lambda wire: Retrying(
        wire.component, wire.attempt, wire.error, wire.pause, sent=wire.sent, time=wire.time
    ),
    _Cancelled: lambda wire: Cancelled(wire.cause),
    _Paused: lambda wire: Paused(wire.time),
    _Unpaused: lambda wire: Unpaused(wire.time),
    _Retried: lambda wire: Retried(tuple(wire.components), wire.run),
    _Supplied: lambda wire: Supplied(wire.component, wire.output),
    _Extended: lambda wire: Extended(wire.component, wire.seconds),
    _Limited: lambda wire: Limited(wire.limits),
    _Elsewhere: lambda wire: Elsewhere(wire.object),
}
TIMED = frozenset({Sent, Settled, Retrying, Paused, Unpaused, Resumed})
"""Events with a ``time``; for others the time of the record is near enough."""
_FIELDS = {wire.__struct_config__.tag: frozenset({"event", *wire.__struct_fields__}) for wire in _FROM_WIRE}

_decode = msgspec.json.Decoder(_AnyWire).decode


def encode_event(event: Event | Elsewhere, time: float | None = None, sent: float | None = None) -> bytes:
    """Return an event as it stands in a record, or in an object of its own.

    Parts that are meant for other stores are left out: the text of a started or withdrawn component is in the
    accepted build, and the effect of an outcome on ``components`` follows from its body.

    Args:
        event: the event; one of `TIMED` if there is a time.
        time: time of the event, in seconds since 1970.
        sent: time at which the ended attempt left, in seconds since 1970.
    """
    wire: Any = _TO_WIRE[type(event)](event)
    if time is not None:
        wire.time = time
    if sent is not None:
        wire.sent = sent
    return encode(wire)


def event_schema() -> dict[str, Any]:
    """Return the JSON Schema of an event as it stands in a record."""
    schema: dict[str, Any] = msgspec.json.schema(_AnyWire)
    return schema


def accepted_chunks(event: Accepted) -> Iterator[bytes]:
    """Yield the JSON of `encode_event` in pieces, each made within milliseconds for any build."""
    yield encode_event(replace(event, document={})).removesuffix(b"{}}")
    yield from document_chunks(event.document)
    yield b"}"


def document_chunks(document: Document) -> Iterator[bytes]:
    """Yield a build's document as JSON text, in pieces like those of `accepted_chunks`."""
    mark = b"{"
    for key, member in document.items():
        yield mark + encode(key) + b":"
        mark = b","
        if isinstance(member, Raw):
            view = memoryview(member)
            yield from (bytes(view[start : start + _PIECE]) for start in range(0, len(view), _PIECE))
        elif isinstance(member, list | tuple):
            yield b"["
            yield from list_chunks(member)
            yield b"]"
        else:
            yield encode(member)
    yield b"}" if document else b"{}"


def decode_event(data: bytes) -> Event:
    """Read an event that was too large for a record.

    Some of what `encode_event` was given does not come back: a started or withdrawn component has no ``raw``,
    and an outcome no ``upserts`` and ``deletes``. The members of a build's document are JSON text
    (`msgspec.Raw`); the body of an outcome is a dict, whose integers have all their digits.

    Raises:
        UnreadableLog: this version does not know the event, or `encode_event` does not make such JSON.
    """
    event = read_event(data, "an event in an object")
    if isinstance(event, Elsewhere):
        raise left(f"an event in an object refers to another one, {shown(event.object)}")
    return event


def read_event(data: bytes | Raw, place: str) -> Event | Elsewhere:
    """Read an event of a record, as `decode_event` does; ``place`` is its place for an error."""
    wire = read(_decode, data, place, _unknown)
    return _FROM_WIRE[type(wire)](wire)


def _unknown(value: Any) -> str:
    name = value.get("event") if isinstance(value, dict) else None
    if not isinstance(name, str):
        return ""
    fields = _FIELDS.get(name)
    if fields is None:
        return f"the event {shown(name)}"
    strange = strange_field(value, fields)
    return strange and f"{strange} of the event {name!r}"
