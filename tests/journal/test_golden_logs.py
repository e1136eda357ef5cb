"""Logs as earlier versions wrote them: every later version has to read them, and to go on from them.

The files in `golden/` are never changed. A version that writes another format adds its own beside them, and
goes on passing these tests.
"""

from pathlib import Path

import pytest
from attrs import evolve
from support.builds import prepare, report_document
from support.logs import fold, kept, written

from scheduler.definition.strictjson import decode, encode
from scheduler.errors import UnreadableLog
from scheduler.journal.events import Accepted, Event
from scheduler.journal.history import History
from scheduler.journal.records import (
    Elsewhere,
    Position,
    Record,
    Status,
    decode_event,
    decode_record,
    encode_event,
)
from scheduler.journal.timings import Timings
from scheduler.plan import Plan, steering

GOLDEN = Path(__file__).parents[1] / "golden"
EVERY_EVENT = {one.__name__ for one in Event.__args__} | {"Elsewhere"}
OPERATED = "log-v1-operated.jsonl"
"""A build that was retried, operated, and resumed in a second run."""
TIMED = "log-v1-timed.jsonl"
"""A build whose events say when they happened, each before it was written down."""
REKEYED = "log-v1-rekeyed.jsonl"
"""A build of an earlier version whose key stood in reply subjects: it was given another one."""
APART = "log-v1-apart.jsonl"
"""A build whose replies were captured in streams of their own by provider."""
OF_OPERATIONS = {
    "Retrying",
    "Cancelled",
    "Paused",
    "Unpaused",
    "Retried",
    "Supplied",
    "Extended",
    "Limited",
}


def lines(name: str = "log-v1.jsonl") -> list[bytes]:
    """The records of a build, each as it stood on the wire."""
    # Not `splitlines` of the text: there are other ends of lines in it.
    return (GOLDEN / name).read_bytes().removesuffix(b"\n").split(b"\n")


def whole(record: Record) -> Record:
    """The record with the event that was too large for it, as a reader puts it in its place."""
    large = decode_event((GOLDEN / "log-v1-elsewhere.json").read_bytes())
    return evolve(record, events=tuple(large if isinstance(one, Elsewhere) else one for one in record.events))


def records() -> list[Record]:
    return [whole(decode_record(line)) for line in lines()]


def operated() -> list[Record]:
    return list(map(decode_record, lines(OPERATED)))


def replay(history: History) -> Plan:
    assert history.accepted is not None
    plan = Plan(prepare(decode(encode(history.accepted.document))))
    for step in history.steps:
        plan.replay(step)
    return plan


def test_it_has_everything_in_it() -> None:
    """There is an event of every kind in the logs: in each, of those that its version had."""
    events = [event for line in lines() for event in decode_record(line).events]
    assert {type(event).__name__ for event in events} == EVERY_EVENT - OF_OPERATIONS - {"Rekeyed"}
    later = {type(event).__name__ for one in operated() for event in one.events}
    assert later >= OF_OPERATIONS
    rekeyed = {type(event).__name__ for one in map(decode_record, lines(REKEYED)) for event in one.events}
    assert "Rekeyed" in rekeyed
    assert [one.objects for one in map(decode_record, lines()) if one.objects] == [
        ("scheduler.log.prod=2Feu-1=3A42/1-4-0",)
    ]


def test_each_event_is_written_as_it_was() -> None:
    """What is read of it and written again is the same, to the byte."""
    for line in [*lines(), *lines(OPERATED), *lines(TIMED), *lines(REKEYED), *lines(APART)]:
        assert written(decode_record(line)) == line
    large = (GOLDEN / "log-v1-elsewhere.json").read_bytes()
    assert encode_event(decode_event(large)) == large


def test_what_its_head_says() -> None:
    """A record has its writer and time, and the position up to which replies were seen."""
    one = decode_record(lines()[12])
    assert (one.n, one.epoch, one.instance, one.record_id) == (13, 3, "höst-2", "höst-2-3-13")
    assert (one.at, one.position) == (1_700_000_321_000, Position(31, 1_700_000_320_990_123_456))


def test_how_the_build_was_accepted() -> None:
    """The build and how it was read stand at the beginning."""
    accepted = records()[0].events[0]
    assert isinstance(accepted, Accepted)
    assert accepted.digest == "9a82d5998fa6d2a1e43ed4ca76b4e254"
    assert (accepted.key, accepted.templates, accepted.unresolved) == ("k3q8d0zv7m1x", "all", "error")
    document = decode(encode(accepted.document))
    assert document["name"] == 'Straße 日本 \u2028 "1"'
    assert document["user_id"] == 2**63 + 11
    assert document["options"]["big"] == 12345678901234567890123456789


def test_what_it_says_in_the_end() -> None:
    """Folded, it is a build that failed and was reported, with nothing in flight."""
    history = fold(records())
    assert (history.n, history.epoch, history.run, history.loads) == (16, 3, 1, 0)
    assert history.position == Position(32, 1_700_001_230_900_123_456)
    assert history.status is Status.REPORTED
    assert history.finished is not None
    assert history.finished.error == "instance::web-2: timed out after 600 s"
    assert history.in_flight == {}
    report = report_document(replay(history))
    assert {one["_component_id"]: one["_state"] for one in report["changes"]} == {
        "vpc::main": "completed",
        "network::dmz": "completed",
        "image::debian": "completed",
        "instance::web-1": "completed",
        "instance::web-2": "errored",
        "instance::web-3": "waiting",
        "dns::web": "waiting",
        "network::old": "completed",
        "marker::begun": "completed",
    }
    assert report["error"] == "instance::web-2: timed out after 600 s"
    existing = {one["_component_id"]: one for one in report["components"]}
    assert set(existing) == {
        "ami::debian-12",
        "ami::debian-11",
        "vpc::main",
        "network::dmz",
        "instance::web-1",
    }
    assert existing["vpc::main"]["quota"] == 10**40
    assert existing["ami::debian-11"]["size"] == 2**70
    assert existing["network::dmz"]["tags"] == {"Größe": "klein", "場所": "東京"}
    assert existing["instance::web-1"]["nested"] == {"a": [1, {"b": None, "c": True}], "d": -5e-8}
    failed = next(one for one in report["changes"] if one["_component_id"] == "instance::web-2")
    assert failed["adoptable"]["instance_aws_id"] == "i-2"


def test_what_it_says_on_the_way() -> None:
    """Where it breaks off after the outage, two components are known to have left, and one may have."""
    history = fold(records()[:12])
    assert history.status is Status.OPEN
    flights = history.in_flight
    assert {name: flight.sent for name, flight in flights.items()} == {
        "instance::web-1": True,
        "instance::web-2": True,
        "instance::web-3": False,
    }
    assert flights["instance::web-1"].attempt == "prod/eu-1:42/instance::web-1/1"
    assert flights["instance::web-1"].since == 1_700_000_002_600 + 300_250
    assert flights["instance::web-3"].since == 1_700_000_002_500 + 300_250
    plan = replay(history)
    assert set(plan.phases.in_flight_ids()) == set(flights)
    assert not plan.state.halted
    request = plan.resume(plan.graph.index["instance::web-1"])
    assert b'"image":"ami-1"' in getattr(request, "body", b"")
    assert fold(records()[:11]).loads == 1


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (b'"v":1', b'"v":2', "a record: version 2 is not known here"),
        (
            b'"event":"suspended"',
            b'"event":"frozen"',
            r"record 12, events\[0\]: the event 'frozen' is not known",
        ),
        (
            b'"seconds":',
            b'"minutes":5,"seconds":',
            r"record 12, .* the field 'minutes' of the event 'resumed'",
        ),
        (b'"n":12', b'"n":12,"lane":1', "a record: the field 'lane' is not known here"),
    ],
)
def test_what_a_later_version_wrote_into_it(old: bytes, new: bytes, says: str) -> None:
    """A log with anything in it that this version does not know is not read at all."""
    line = lines()[11]
    assert line.count(old) == 1
    with pytest.raises(
        UnreadableLog, match=f"^{says}.*; the build is left as it is for a version that knows it$"
    ):
        decode_record(line.replace(old, new))


def test_what_an_operated_build_says_in_the_end() -> None:
    """Folded, it is a build that was cancelled, resumed in a second run, and is done."""
    history = fold(operated())
    assert (history.n, history.epoch, history.run, history.status) == (31, 2, 2, Status.REPORTED)
    assert (history.in_flight, history.pauses, history.began) == ({}, {}, {})
    assert history.finished is not None
    assert history.finished.error is None
    plan = replay(history)
    assert (
        plan.state.cause,
        plan.state.run,
        plan.state.finished,
        plan.state.cancelled,
        plan.state.paused,
    ) == (None, 2, True, False, False)
    assert list(map(str, plan.state.rules)) == ["vpc.create.*=2", "*.*.aws=20/s"]
    report = report_document(plan)
    assert {one["_state"] for one in report["changes"]} == {"completed"}
    existing = {one["_component_id"]: one for one in report["components"]}
    assert existing["network::b"]["network_id"] == "n-late"
    assert existing["instance::b"]["network"] == "n-late"
    assert (existing["instance::a"]["instance_id"], existing["instance::a"]["größe"]) == ("i-by-hand", 2**70)
    assert "error" not in report


def test_what_an_operated_build_says_at_the_end_of_its_first_run() -> None:
    """It was cancelled, after two components had failed and one that had been skipped was supplied."""
    history = fold(operated()[:24])
    assert (history.run, history.status) == (1, Status.REPORTED)
    plan = replay(history)
    assert plan.state.cause == "network::a: quota exceeded (after 2 attempts)"
    assert plan.state.cancelled
    assert {name: plan.phases[vertex].value for name, vertex in plan.graph.index.items()} == {
        "vpc::main": "completed",
        "network::a": "errored",
        "network::b": "errored",
        "instance::a": "completed",
        "instance::b": "skipped",
        "dns::zone": "completed",
    }
    failed = next(one for one in report_document(plan)["changes"] if one["_component_id"] == "network::b")
    assert failed["adoptable"]["network_id"] == "n-late"
    assert plan.attempt(plan.graph.index["network::a"]) == 2


@pytest.mark.parametrize(
    ("records", "retrying", "paused", "since"),
    [(4, {"vpc::main": 1_800_000_003_005}, False, {"dns::zone": 1_800_000_001_005}), (9, {}, True, None)],
)
def test_what_an_operated_build_says_on_the_way(
    records: int, retrying: dict[str, float], paused: bool, since: dict[str, float] | None
) -> None:
    """Where it breaks off, a component waits for its second attempt, or the build was paused."""
    history = fold(operated()[:records])
    assert history.pauses == retrying
    plan = replay(history)
    assert plan.state.paused is paused
    if since is not None:
        assert {name: flight.since for name, flight in history.in_flight.items()} == since
        assert plan.phases.shown()["retrying"] == 1
    else:
        # More time was given to it, and its first attempt counts for all of them.
        assert history.in_flight["dns::zone"].since == 1_800_000_001_005
        assert history.in_flight["dns::zone"].extended == 300_500
        assert history.in_flight["vpc::main"].attempt == "prod:77/vpc::main/2"
        assert history.began["vpc::main"] == 1_800_000_001_000


def test_when_it_happened() -> None:
    """A log with times says them; where a word came first that a request had left, that one counts."""
    history = fold(map(decode_record, lines(TIMED)))
    assert history.latest == 1_900_000_099_010
    plan = replay(history)
    timings = Timings.of_history(plan.build, plan.graph, history, lambda: 0.0)

    def since(*times: float | None) -> list[float | None]:
        return [None if time is None else round(time - 1_900_000_000, 4) for time in times]

    assert [since(timings.due(one), timings.sent(one), timings.ended(one)) for one in (0, 1)] == [
        [0, 65.0125, 90.25],
        [90.25, 96.0042, 98.75],
    ]
    assert [since(*failed) for failed in timings.failed(0)] == [[0.0031, 4.0995, 14.0995]]
    assert [since(*pause) for pause in timings.pauses] == [[4.9999, 64.999]]
    assert [since(*outage) for outage in timings.outages] == [[74.5, 95]]
    on_the_way = fold(map(decode_record, lines(TIMED)[:7]))
    assert on_the_way.in_flight["vpc::a"].since == 1_900_000_065_010
    # Of the pause nothing counts after the attempt had failed.
    assert on_the_way.began["vpc::a"] == pytest.approx(1_900_000_000_002 + 59_999.1, abs=0.1)


def test_an_operated_build_goes_on_after_its_first_run() -> None:
    """The second run takes the late success, and sends what failed under its next number."""
    plan = replay(fold(operated()[:24]))
    events = steering.retry(plan)
    assert list(map(kept, events)) == list(operated()[24].events)
    request = plan.begin(plan.graph.index["network::a"])
    assert getattr(request, "attempt", "") == "prod:77/network::a/3"


def test_whose_replies_an_upgraded_build_waits_for() -> None:
    """What the old version sent may be answered on the old subject; what came later has the new key alone."""
    upgraded = list(map(decode_record, lines(REKEYED)))
    assert fold(upgraded[:4]).senders == ("scheduler-5e6f7a8b", "scheduler-1a2b3c4d")
    assert fold(upgraded[:5]).loads == 1
    history = fold(upgraded)
    assert history.key == "3c5e9a7f1b2d4c6e8f0a1b3c5d7e9f02"
    assert {name: flight.key for name, flight in history.in_flight.items()} == {
        "vpc::b": "8d1f0a3bc2e94576",
        "vpc::c": "3c5e9a7f1b2d4c6e8f0a1b3c5d7e9f02",
    }
    assert [getattr(step, "component", "") for step in history.steps[: history.old_steps]] == [
        "",
        "vpc::a",
        "vpc::b",
        "vpc::a",
    ]
    del history.in_flight["vpc::b"]
    assert history.senders == ("scheduler-5e6f7a8b",)


def test_where_each_stream_of_replies_stood() -> None:
    """Each has its own numbers; one that nothing was read from stands at its beginning."""
    history = fold(list(map(decode_record, lines(APART))))
    assert history.position.of("") == Position(12, 1_920_000_000_000_000_001)
    assert history.position.of("aws") == Position(5, 1_920_000_000_310_000_000)
    assert history.position.of("gcp") == Position()
    assert history.position.providers == ("aws", "gcp")
