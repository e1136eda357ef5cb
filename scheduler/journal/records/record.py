"""A record: composed of events that are JSON already, and read again."""

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

import msgspec
from attrs import evolve, frozen

from scheduler.definition.strictjson import Raw, encode
from scheduler.journal.events import Event
from scheduler.journal.records.strict import left, read, strange_field
from scheduler.journal.records.wire import Elsewhere, event_schema, read_event
from scheduler.runtime.values import Value

VERSION = 1
"""Version of the format that is written here."""


class Position(Value, frozen=True):
    """Place in the streams of replies up to which everything was seen."""

    sequence: int = 0
    time: int = 0
    """Server's stamp of the message at this place, in nanoseconds since 1970; 0 where there is none."""
    others: tuple[tuple[str, int, int], ...] = ()
    """Places in the streams that hold single providers' replies: provider, sequence and time, sorted. A
    stream that is missing here stands at its beginning."""

    def of(self, provider: str) -> "Position":
        """Return the place in one provider's stream; in the common one for an empty name."""
        if provider:
            found = (Position(sequence, time) for name, sequence, time in self.others if name == provider)
            return next(found, Position())
        return Position(self.sequence, self.time) if self.others else self

    def moved(self, provider: str, place: "Position") -> "Position":
        """Return a copy that is moved in one of the streams."""
        if not provider:
            return Position(place.sequence, place.time, self.others) if self.others else place
        kept = [one for one in self.others if one[0] != provider]
        others = tuple(sorted([*kept, (provider, place.sequence, place.time)]))
        return Position(self.sequence, self.time, others)

    @property
    def providers(self) -> tuple[str, ...]:
        """Providers with a stream of their own."""
        return tuple(name for name, _, _ in self.others)

    def ahead_of(self, other: "Position") -> int:
        """Return the number of replies between two positions, over all streams."""
        ahead = self.sequence - other.sequence
        return ahead + sum(sequence - other.of(name).sequence for name, sequence, _ in self.others)


def earliest(positions: Iterable[Position]) -> Position:
    """Return the earliest place of each stream among positions; the beginning if there are none."""
    places = list(positions)
    first = min(places, key=lambda place: place.sequence, default=Position()).of("")
    for provider in dict.fromkeys(name for place in places for name in place.providers):
        first = first.moved(
            provider, min((place.of(provider) for place in places), key=lambda one: one.sequence)
        )
    return first


@frozen
class Record:
    """A record: one message of a build's log."""

    n: int
    """Number of the record in the build's log, from 1."""
    epoch: int
    """Number of the process that has the build, among all that had it."""
    instance: str
    """Name of the writer, for people."""
    record_id: str
    """Id by which the writer recognises its record."""
    at: int
    """Time of writing by the writer's clock, in milliseconds since 1970."""
    position: Position
    """Position up to which every reply is in this record or an earlier one, or belongs to other builds."""
    events: tuple[Event | Elsewhere, ...]

    @property
    def objects(self) -> tuple[str, ...]:
        """Names of the objects that hold events of this record."""
        return tuple(event.object for event in self.events if isinstance(event, Elsewhere))


_Natural = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class _Record(msgspec.Struct, forbid_unknown_fields=True):
    v: Literal[1]
    n: Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
    epoch: _Natural
    instance: str
    record_id: str
    at: _Natural
    reply_position: tuple[_Natural, _Natural]
    events: list[Raw]
    reply_positions: dict[str, tuple[_Natural, _Natural]] = {}


_decode = msgspec.json.Decoder(_Record).decode
_FIELDS = frozenset(_Record.__struct_fields__)


def record_schema() -> dict[str, Any]:
    """Return the JSON Schema of a record, with its events."""
    record, event = msgspec.json.schema(_Record), event_schema()
    definitions = {**record["$defs"], **event.pop("$defs")}
    definitions[_Record.__name__]["properties"]["events"]["items"] = event
    return {**record, "$defs": definitions}


def compose(
    *,
    n: int,
    epoch: int,
    instance: str,
    record_id: str,
    at: int,
    position: Position,
    events: Sequence[bytes],
) -> bytes:
    """Return a record of events written by `encode_event`; the other fields are those of `Record`."""
    head = Record(n, epoch, instance, record_id, at, position, ())
    return b"".join((_beginning(head), b",".join(events), b"]}"))


def decode_record(data: bytes) -> Record:
    """Read a record; its events are as `decode_event` returns them.

    Raises:
        UnreadableLog: the record has another version, contains what this version does not know, or is not
            what `compose` makes.
    """
    wire = read(_decode, data, "a record", _unknown)
    place = f"record {wire.n}"
    others = tuple((name, *place) for name, place in wire.reply_positions.items())
    position = Position(*wire.reply_position, others)
    head = Record(wire.n, wire.epoch, wire.instance, wire.record_id, wire.at, position, ())
    beginning = _beginning(head)
    events = wire.events
    size = len(beginning) + sum(len(memoryview(raw)) for raw in events) + max(0, len(events) - 1) + 2
    # Of two members with the same name the decoder keeps the last one only.
    if size != len(data) or not data.startswith(beginning):
        raise left(f"{place}: it does not consist of its members, each once and in their order")
    return evolve(
        head, events=tuple(read_event(raw, f"{place}, events[{index}]") for index, raw in enumerate(events))
    )


def _beginning(head: Record) -> bytes:
    version_to_at = b'{"v":%d,"n":%d,"epoch":%d,"instance":%b,"record_id":%b,"at":%d' % (
        VERSION,
        head.n,
        head.epoch,
        encode(head.instance),
        encode(head.record_id),
        head.at,
    )
    position = head.position
    others = b""
    if position.others:
        # Left out where there is one stream, as in the logs of earlier versions.
        places = {name: (sequence, time) for name, sequence, time in position.others}
        others = b'"reply_positions":%b,' % encode(places)
    return b'%b,"reply_position":[%d,%d],%b"events":[' % (
        version_to_at,
        position.sequence,
        position.time,
        others,
    )


def _unknown(value: Any) -> str:
    if not isinstance(value, dict):
        return ""
    version = value.get("v")
    if type(version) is int and version != VERSION:
        return f"version {version if abs(version) < 2**63 else 'of many digits'}"
    return strange_field(value, _FIELDS)
