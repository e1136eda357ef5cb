"""Records of a build's log: what is written comes back, and nothing else is taken."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.logs import EVENTS, NOW, OBJECTS, kept, record, written

from scheduler.definition.strictjson import Raw, decode, encode
from scheduler.errors import InvalidJSON, UnreadableLog
from scheduler.journal.events import (
    Accepted,
    Cancelled,
    Event,
    Extended,
    Finished,
    Limited,
    Loading,
    Paused,
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
from scheduler.journal.records import (
    Elsewhere,
    Headings,
    Position,
    Record,
    Status,
    accepted_chunks,
    compose,
    decode_event,
    decode_record,
    document_chunks,
    encode_event,
    headers_of,
    read_headers,
)

HEAD: dict[str, Any] = {
    "v": 1,
    "n": 7,
    "epoch": 2,
    "instance": "host-1",
    "record_id": "host-1-2-7",
    "at": NOW,
    "reply_position": [815, 4711],
    "events": [],
}
RECORDS = st.builds(
    Record,
    st.integers(1, 2**40),
    st.integers(0, 2**40),
    st.text(),
    st.text(),
    st.integers(0, 2**50),
    st.builds(Position, st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1)),
    st.lists(EVENTS | st.builds(Elsewhere, st.text()), max_size=5).map(tuple),
)


def comparable(one: Record) -> tuple[Any, ...]:
    """A record without JSON text in it."""
    return (*(getattr(one, name) for name in HEAD_NAMES), *map(kept, one.events))


HEAD_NAMES = ("n", "epoch", "instance", "record_id", "at", "position")


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (
            Accepted({"id": "b"}, "d1", "k1", templates="ernest", unresolved="keep"),
            (
                '{"event":"accepted","digest":"d1","key":"k1","templates":"ernest","unresolved":"keep",'
                '"document":{"id":"b"}}'
            ),
        ),
        (
            Started("vpc::ä", "b/vpc::ä/1", b"{}"),
            '{"event":"started","component":"vpc::ä","attempt":"b/vpc::ä/1"}',
        ),
        (Sent("c", "b/c/1"), '{"event":"sent","component":"c","attempt":"b/c/1"}'),
        (Withdrawn("c", b"{}"), '{"event":"withdrawn","component":"c"}'),
        (
            Settled("c", {"_state": "completed", "size": 2**70}, ({"x": 1},), ({"y": 1},)),
            '{"event":"settled","component":"c","body":{"_state":"completed","size":1180591620717411303424}}',
        ),
        (Suspended(), '{"event":"suspended"}'),
        (Resumed(2.5), '{"event":"resumed","seconds":2.5}'),
        (Finished(None), '{"event":"finished","error":null}'),
        (Finished('c: "no"'), '{"event":"finished","error":"c: \\"no\\""}'),
        (Reported(1), '{"event":"reported","run":1}'),
        (Loading(), '{"event":"loading"}'),
        (Released(), '{"event":"released"}'),
        (
            Retrying("c", "b/c/2", "503", 0.5, b'{"_state":"waiting"}', 2),
            '{"event":"retrying","component":"c","attempt":"b/c/2","error":"503","pause":0.5}',
        ),
        (Cancelled("cancelled: enough"), '{"event":"cancelled","cause":"cancelled: enough"}'),
        (Paused(), '{"event":"paused"}'),
        (Unpaused(), '{"event":"unpaused"}'),
        (Retried(("c", "d"), 2), '{"event":"retried","components":["c","d"],"run":2}'),
        (
            Supplied("c", {"ip": 2**70}),
            '{"event":"supplied","component":"c","output":{"ip":1180591620717411303424}}',
        ),
        (Extended("c", 60.5), '{"event":"extended","component":"c","seconds":60.5}'),
        (Limited({"vpc.*.*": 5, "*": "20/s"}), '{"event":"limited","limits":{"vpc.*.*":5,"*":"20/s"}}'),
        (Elsewhere("b/1"), '{"event":"elsewhere","object":"b/1"}'),
    ],
)
def test_how_an_event_is_written(event: Event | Elsewhere, text: str) -> None:
    """Each event has its own JSON, which later versions have to read."""
    assert encode_event(event).decode() == text


def test_how_a_record_is_written() -> None:
    """The members of a record have a fixed order and no white space."""
    events = [encode_event(Loading()), encode_event(Sent("c", "b/c/1"))]
    data = compose(
        n=7, epoch=2, instance="höst", record_id="r", at=NOW, position=Position(815, 4711), events=events
    )
    assert data.decode() == (
        '{"v":1,"n":7,"epoch":2,"instance":"höst","record_id":"r","at":1700000000000,'
        '"reply_position":[815,4711],"events":[{"event":"loading"},'
        '{"event":"sent","component":"c","attempt":"b/c/1"}]}'
    )


@given(EVENTS)
def test_an_event_comes_back(event: Event) -> None:
    """What is written is read again, every digit and letter of it; what a log does not keep is empty."""
    assert kept(decode_event(encode_event(event))) == kept(event)


@given(RECORDS)
def test_a_record_comes_back(one: Record) -> None:
    """A record of any events is read as it was composed, and composed to the same bytes again."""
    again = decode_record(written(one))
    assert comparable(again) == comparable(one)
    assert written(again) == written(one)


def test_the_names_of_a_records_objects() -> None:
    """A record says which objects have its large events."""
    one = record(1, Elsewhere("b/1"), Loading(), Elsewhere("b/2"))
    assert one.objects == ("b/1", "b/2")
    assert record(1, Loading()).objects == ()


def test_the_parts_of_an_accepted_build_are_json_text() -> None:
    """What may be megabytes is not decoded: it comes back as JSON text, which the decoder of builds takes."""
    event = decode_event(encode_event(Accepted({"id": "b", "changes": [Raw(b'{"size":1.50}'), {"a": 1}]})))
    assert isinstance(event, Accepted)
    assert event.document == {"id": Raw(b'"b"'), "changes": Raw(b'[{"size":1.50},{"a":1}]')}
    assert encode(event.document) == b'{"id":"b","changes":[{"size":1.50},{"a":1}]}'


@given(OBJECTS, st.booleans())
def test_the_pieces_of_an_accepted_build(document: dict[str, Any], as_text: bool) -> None:
    """Written in pieces or at once, an accepted build is the same."""
    if as_text:
        document = {key: Raw(encode(value)) for key, value in document.items()}
    event = Accepted(document, "d", "k")
    assert b"".join(accepted_chunks(event)) == encode_event(event)
    assert b"".join(document_chunks(document)) == encode(document)


@pytest.mark.parametrize("form", ["objects", "text", "one text"])
def test_no_piece_is_large(form: str) -> None:
    """However large a build is, none of its pieces holds the loop for long."""
    one = {"_component_id": "c", "data": "x" * 100_000}
    elements: Any = [one if form == "objects" else Raw(encode(one))] * 200
    document = {"id": "b", "changes": Raw(encode(elements)) if form == "one text" else elements}
    pieces = list(accepted_chunks(Accepted(document)))
    assert b"".join(pieces) == encode_event(Accepted(document))
    assert max(map(len, pieces)) <= 1 << 20


def changed(**fields: Any) -> bytes:
    """A record with other members; None takes one out."""
    return encode({key: value for key, value in {**HEAD, **fields}.items() if value != "gone"})


def with_event(**fields: Any) -> bytes:
    """A record with one event."""
    return changed(events=[fields])


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (changed(v=2), "a record: version 2 is not known here"),
        (changed(v=0), "version 0 is not"),
        (changed(v=10**400), "version of many digits is not"),
        (changed(v=2, events=[{"event": "frozen"}], more=1), "version 2 is not"),
        (changed(zone="a"), "a record: the field 'zone' is not known here"),
        (with_event(event="frozen"), r"record 7, events\[0\]: the event 'frozen' is not"),
        (with_event(event="a" * 1_000), "the event 'a{64}' is not"),
        (
            with_event(event="sent", component="c", attempt="a", node="n"),
            "the field 'node' of the event 'sent'",
        ),
        (
            with_event(event="sent", component=1, attempt="a", node="n"),
            "the field 'node' of the event 'sent'",
        ),
        (with_event(event="loading", why="n"), "the field 'why' of the event 'loading'"),
        (with_event(event="paused", until=5), "the field 'until' of the event 'paused'"),
        (
            with_event(event="retrying", component="c", attempt="a", error="e", pause=1.0, failed=2),
            "the field 'failed' of the event 'retrying'",
        ),
        (changed(events=[{"event": "loading"}, {"event": "x"}]), r"events\[1\]: the event 'x'"),
    ],
)
def test_what_a_later_version_may_have_written(data: bytes, says: str) -> None:
    """What is not known is named, and the build is left to a version that knows it."""
    with pytest.raises(UnreadableLog, match=f"{says}.*left as it is for a version that knows it$"):
        decode_record(data)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "truncated"),
        (b"[]", "Expected object, got array"),
        (b"null", "Expected object, got null"),
        (written(record(1))[:-1], "truncated"),
        (written(record(1)) + b"{}", "trailing"),
        (b"\xff", "malformed"),
        (written(record(1)).replace(b"host", b"h\xffst"), "not UTF-8"),
        (b'{"events":' + b"[" * 100_000, "nested too deep"),
        (with_event(event="settled", component="c", body={}).replace(b"{}", b"[" * 5_000), "nested too deep"),
        (changed(v="gone"), "missing required field v"),
        (changed(v=None), "v"),
        (changed(v="1"), "v"),
        (changed(v=True), "v"),
        (changed(v=1.5), "v"),
        (changed(n="gone"), "missing required field n"),
        (changed(n=0), "n"),
        (changed(n="7"), "n"),
        (changed(n=True), "n"),
        (changed(n=7.5), "n"),
        (changed(epoch=-1), "epoch"),
        (changed(instance=None), "instance"),
        (changed(record_id=7), "record_id"),
        (changed(at=-1), "at"),
        (changed(at=None), "at"),
        (changed(reply_position=[1]), "reply_position"),
        (changed(reply_position=[1, 2, 3]), "reply_position"),
        (changed(reply_position=[-1, 2]), "reply_position"),
        (changed(reply_position=[10**30, 2]), "reply_position"),
        (changed(at=10**400), "at"),
        (changed(reply_position="1,2"), "reply_position"),
        (changed(events="gone"), "missing required field events"),
        (changed(events={}), "events"),
        (changed(events=[[]]), r"record 7, events\[0\]: Expected object, got array"),
        (changed(events=[None]), r"events\[0\]"),
        (with_event(), r"events\[0\]: .*missing required field event"),
        (with_event(event=1), r"events\[0\].*event"),
        (with_event(event="sent", component="c"), "missing required field attempt"),
        (with_event(event="sent", component=None, attempt="a"), "component"),
        (with_event(event="settled", component="c", body=[]), "body"),
        (with_event(event="settled", component="c"), "body"),
        (with_event(event="resumed", seconds="1"), "seconds"),
        (with_event(event="resumed", seconds=-1.0), "seconds"),
        (with_event(event="resumed", seconds=None), "seconds"),
        (with_event(event="finished"), "missing required field error"),
        (with_event(event="finished", error=1), "error"),
        (with_event(event="reported", run=0), "run"),
        (with_event(event="retrying", component="c", attempt="a", error="e"), "missing required field pause"),
        (with_event(event="retrying", component="c", attempt="a", error="e", pause=-1.0), "pause"),
        (with_event(event="retrying", component="c", attempt="a", error=None, pause=1.0), "error"),
        (with_event(event="cancelled"), "missing required field cause"),
        (with_event(event="retried", components="c", run=1), "components"),
        (with_event(event="retried", components=[1], run=1), "components"),
        (with_event(event="retried", components=["c"], run=0), "run"),
        (with_event(event="supplied", component="c", output=[]), "output"),
        (with_event(event="extended", component="c", seconds=-1.0), "seconds"),
        (with_event(event="limited", limits=[]), "limits"),
        (with_event(event="limited", limits={"*": 0.5}), "limits"),
        (with_event(event="elsewhere", object=1), "object"),
        (with_event(event="accepted", document={}), "missing required field"),
    ],
)
def test_what_is_no_record(data: bytes, says: str) -> None:
    """What is wrong is said with its place, and that nothing is done with the build."""
    with pytest.raises(UnreadableLog, match=f"{says}.*; the build is left as it is$"):
        decode_record(data)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"events":[', b'"events":[{"event":"released"}],"events":['),
        (b'"n":1,', b'"n":3,"n":1,'),
        (b'{"event":"loading"}]}', b'{"event":"loading"}],"epoch":1}'),
        (b'{"event":"loading"}]}', b'{"event":"loading"}],"events":[]}'),
        (b'"n":1,"epoch":1,', b'"epoch":1,"n":1,'),
        (b'"v":1,', b'"v": 1,'),
        (b"}]}", b"} ]}"),
        (b"}]}", b"}]}\n"),
        (b"host", b"\\u0068ost"),
    ],
)
def test_a_record_consists_of_its_members(old: bytes, new: bytes) -> None:
    """A record in which something is said twice, or otherwise than we say it, is not ours to read."""
    data = written(record(1, Loading()))
    decode_record(data)
    assert data.count(old) == 1 or old == b"host"
    with pytest.raises(UnreadableLog, match="does not consist of its members"):
        decode_record(data.replace(old, new, 1))


def test_an_object_holds_an_event() -> None:
    """What is in an object of its own must be an event, and not point elsewhere again."""
    assert decode_event(b'{"event":"loading"}') == Loading()
    with pytest.raises(UnreadableLog, match="refers to another one, 'b/2'"):
        decode_event(b'{"event":"elsewhere","object":"b/2"}')
    with pytest.raises(UnreadableLog, match="an event in an object: the event 'frozen' is not known here"):
        decode_event(b'{"event":"frozen"}')
    with pytest.raises(UnreadableLog, match=r"an event in an object: .*truncated"):
        decode_event(b'{"event":')


@st.composite
def damaged_records(draw: st.DrawFn) -> bytes:
    """A record with other bytes in some places, or with a piece that is lost or repeated."""
    data = written(draw(RECORDS))
    for _ in range(draw(st.integers(1, 3))):
        start, end = sorted(draw(st.tuples(st.integers(0, len(data)), st.integers(0, len(data)))))
        end = min(end, start + draw(st.sampled_from([0, 1, 1, 2, 8, 1_000])))
        piece = draw(
            st.sampled_from([b"", data[start:end] * 2])
            | st.binary(max_size=3)
            | st.sampled_from([b'"', b",", b"0", b"9" * 30, b"}", b"]", b"1e5", b"null", b"\\u0000"])
        )
        data = data[:start] + piece + data[end:]
    return data


@given(damaged_records())
def test_a_damaged_record_loses_nothing_in_silence(damaged: bytes) -> None:
    """Whatever happens to its bytes, a record is refused, or says all that stands there."""
    try:
        found = decode_record(damaged)
    except UnreadableLog:
        return
    try:
        damaged.decode()
    except UnicodeDecodeError:
        # In a build's document, which is not decoded yet: whoever does so finds it.
        accepted = next(event for event in found.events if isinstance(event, Accepted))
        with pytest.raises(InvalidJSON, match="UTF-8"):
            decode(encode(accepted.document))
        return
    members = json.loads(damaged, object_pairs_hook=lambda pairs: pairs)
    assert [name for name, _ in members] == list(HEAD)
    assert json.loads(written(found)) == json.loads(damaged)


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    """Bytes that no scheduler has written are refused."""
    with pytest.raises(UnreadableLog):
        decode_record(data)


@given(st.text(min_size=1), st.sampled_from(Status), st.integers(0, 10**6))
def test_headers_come_back(record_id: str, status: Status, loads: int) -> None:
    """The headers of a record say again what they were told; others beside them don't matter."""
    headers = {**headers_of(record_id, status, loads), "Nats-Msg-Size": "10"}
    assert read_headers(headers) == Headings(record_id, status, loads)


def test_how_headers_are_written() -> None:
    """The names are part of the format."""
    headers = headers_of("r-1", Status.OPEN, 2)
    assert headers == {"Scheduler-Record": "r-1", "Scheduler-Status": "open", "Scheduler-Loads": "2"}
    assert read_headers({**headers, "Scheduler-Digest": "d"}).digest == "d"
    hung = headers_of("r-1", Status.OPEN, 2, 3)
    assert hung == {**headers, "Scheduler-Hangs": "3"}
    assert (read_headers(headers).hangs, read_headers(hung).hangs) == (0, 3)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"Scheduler-Record": None}, "a record without the header Scheduler-Record; "),
        ({"Scheduler-Record": ""}, "a record without the header Scheduler-Record; "),
        ({"Scheduler-Status": None}, "record 'r-1': it has no header Scheduler-Status; "),
        ({"Scheduler-Loads": None}, "record 'r-1': it has no header Scheduler-Loads; "),
        (
            {"Scheduler-Status": "paused"},
            "Scheduler-Status 'paused' is not known here; .* a version that knows",
        ),
        ({"Scheduler-Status": "OPEN"}, "'OPEN' is not known here"),
        ({"Scheduler-Loads": ""}, "Scheduler-Loads is no count: ''"),
        ({"Scheduler-Hangs": "many"}, "Scheduler-Hangs is no count: 'many'"),
        ({"Scheduler-Loads": "-1"}, "no count: '-1'"),
        ({"Scheduler-Loads": "1.0"}, "no count"),
        ({"Scheduler-Loads": "1\n"}, "no count"),
        ({"Scheduler-Loads": "٣"}, "no count"),
        ({"Scheduler-Loads": "9" * 5_000}, "no count: '9{64}'"),
    ],
)
def test_odd_headers_are_refused(change: dict[str, str | None], says: str) -> None:
    """Headers that are missing or say something odd make the log unreadable."""
    headers = {**headers_of("r-1", Status.OPEN, 0), **change}
    with pytest.raises(UnreadableLog, match=says):
        read_headers({name: value for name, value in headers.items() if value is not None})
