"""Logs of builds for tests: records with as little said as possible, and random events."""

from collections.abc import Iterable, Iterator
from typing import Any

from hypothesis import strategies as st
from msgspec.structs import replace

from scheduler.definition.strictjson import decode, encode
from scheduler.journal.events import (
    Accepted,
    Cancelled,
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
from scheduler.journal.history import History
from scheduler.journal.records import Elsewhere, Position, Record, compose, decode_record, encode_event

NOW = 1_700_000_000_000
"""Milliseconds since 1970."""
ACCEPTED = Accepted({"id": "b-1"})

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**60), 10**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=12) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
OBJECTS = st.dictionaries(st.text(), JSON, max_size=5)
EVENTS: st.SearchStrategy[Event] = st.one_of(
    st.builds(Accepted, OBJECTS, st.text(), st.text(), templates=st.text(), unresolved=st.text()),
    st.builds(Started, st.text(), st.text(), st.just(b"{}")),
    st.builds(Sent, st.text(), st.text()),
    st.builds(Withdrawn, st.text(), st.just(b"{}")),
    st.builds(Settled, st.text(), OBJECTS, st.just(({},)), st.just(({},))),
    st.builds(Suspended),
    st.builds(Resumed, st.floats(0, 1e9)),
    st.builds(Finished, st.none() | st.text()),
    st.builds(Reported, st.integers(1, 2**31)),
    st.builds(Loading),
    st.builds(Released),
    st.builds(Rekeyed, st.text()),
    st.builds(Retrying, st.text(), st.text(), st.text(), st.floats(0, 1e9), st.just(b"{}"), st.just(3)),
    st.builds(Cancelled, st.text()),
    st.builds(Paused),
    st.builds(Unpaused),
    st.builds(Retried, st.lists(st.text(), max_size=3).map(tuple), st.integers(1, 2**31)),
    st.builds(Supplied, st.text(), OBJECTS),
    st.builds(Extended, st.text(), st.floats(0, 1e9)),
    st.builds(Limited, st.dictionaries(st.text(), st.integers(-(2**63), 2**63 - 1) | st.text(), max_size=3)),
)


def record(
    n: int,
    *events: Event | Elsewhere,
    epoch: int = 1,
    at: int = NOW,
    position: Position | None = None,
) -> Record:
    """The ``n``-th record of a log."""
    return Record(n, epoch, "host-1", f"host-1-{epoch}-{n}", at, position or Position(), events)


def written(one: Record) -> bytes:
    """A record as it goes out."""
    return compose(
        n=one.n,
        epoch=one.epoch,
        instance=one.instance,
        record_id=one.record_id,
        at=one.at,
        position=one.position,
        events=[encode_event(event) for event in one.events],
    )


def kept(event: Event | Elsewhere) -> Event | Elsewhere:
    """Return the logged form of an event without JSON text, so that it can be compared."""
    match event:
        case Accepted():
            return replace(event, document=decode(encode(event.document)))
        case Started():
            return replace(event, raw=b"", failed=0)
        case Withdrawn():
            return replace(event, raw=b"", failed=0)
        case Retrying():
            return replace(event, raw=b"", failed=1)
        case Settled():
            return replace(event, upserts=(), deletes=())
    return event


def fold(records: Iterable[Record]) -> History:
    """Return the messages of a log of these records."""
    history = History()
    for one in records:
        history.add(one)
    return history


def fold_events(*events: Event) -> History:
    """Return the messages of a log of these events, each in its own record, after acceptance."""
    return fold(record(n, event) for n, event in enumerate((ACCEPTED, *events), 1))


def reread(records: Iterable[Record]) -> Iterator[Record]:
    """The records as whoever reads them from the wire has them."""
    return (decode_record(written(one)) for one in records)


def started(component: str) -> Started:
    """A request that is about to leave."""
    return Started(component, f"b-1/{component}/1", b"")


def settled(component: str, state: str = "completed", **fields: Any) -> Settled:
    """An outcome."""
    return Settled(component, {"_component_id": component, "_state": state, **fields})
