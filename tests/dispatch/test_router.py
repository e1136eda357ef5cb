"""Requests and replies (WIRE: "Requests and replies"): what ends an attempt, how, and what is dropped."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
from support.bench import SUBJECT, Bench, request
from support.fake_bus import FakeBus
from support.fakes import JSON, FakeExecutor, Gate, World, change, encode, open_world
from trio.testing import MockClock, wait_all_tasks_blocked

from scheduler.bus import Message
from scheduler.config import Settings
from scheduler.definition.reply_subjects import interest, owner_of
from scheduler.definition.subjects import REPLY_SUBJECTS
from scheduler.dispatch import fairness
from scheduler.dispatch.call import Call, Inherited, Signal
from scheduler.dispatch.connectors import Connectors
from scheduler.dispatch.router import Stray
from scheduler.dispatch.sending import FIRST_PAUSE
from scheduler.journal.records import Position
from scheduler.plan.outcome import UNEXPLAINED, Outcome, failure, read_reply


@asynccontextmanager
async def open_bench(*, listening: bool = True, **options: Any) -> AsyncIterator[Bench]:
    async with open_world(cloud=False, **options) as world, trio.open_nursery() as nursery:
        bench = Bench(world, nursery)
        if listening:
            await bench.take_requests()
        yield bench
        nursery.cancel_scope.cancel()


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with open_bench() as bench:
        yield bench


def reply(**fields: Any) -> JSON:
    """A reply to the request for component a of build b1."""
    return {**change("a"), "service": "b1", "_state": "running", **fields}


async def test_replies_are_listened_to_by_verb(bench: Bench) -> None:
    """Nothing is subscribed to that would keep the server from saying that nobody listens."""
    ours = set(bench.bus.subjects) - {SUBJECT}
    assert ours == {f"{bench.connectors.replies}*.*", *REPLY_SUBJECTS}
    verbs = {subject.split(".")[1] for subject in REPLY_SUBJECTS}
    assert verbs == {"create", "update", "delete", "get", "find"}


async def test_a_request_carries_the_component_the_attempt_and_a_reply_subject(bench: Bench) -> None:
    """A request is what the plan made of it, with the attempt id as header and a subject to answer on."""
    await bench.send(request(cidr="10.0.0.0/16"))
    [sent] = bench.requests
    assert sent.subject == SUBJECT
    assert json.loads(sent.data) == reply(cidr="10.0.0.0/16")
    assert sent.headers == {"Nats-Msg-Id": "b1/a/1", "Scheduler-Component-Key": "b1/a"}
    assert re.fullmatch(r"scheduler\.reply\.[A-Za-z0-9_-]{8}\.aws\.[0-9a-f]{32}", sent.reply)


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("vpc::test-vpc", "b1/vpc::test-vpc/1"),
        ("a b", "b1/a b/1"),
        ("é\r\nX: y", "b1/%C3%A9%0D%0AX: y/1"),
        ("100%", "b1/100%/1"),
    ],
)
async def test_an_attempt_id_is_percent_encoded_where_a_header_cannot_hold_it(
    bench: Bench, name: str, header: str
) -> None:
    """The attempt id is a header value of printable ASCII, whatever the component is called."""
    await bench.send(request(name))
    [sent] = bench.requests
    key = header.removesuffix("/1")
    assert sent.headers == {"Nats-Msg-Id": header, "Scheduler-Component-Key": key}


async def test_no_two_requests_share_a_reply_subject(bench: Bench) -> None:
    """Each request is answered on a subject of its own."""
    for number in range(20):
        await bench.send(request(f"c{number}"))
    assert len({sent.reply for sent in bench.requests}) == 20


@pytest.mark.parametrize(
    ("suffix", "state", "completed"),
    [
        ("done", "completed", True),
        ("done", "running", True),
        ("done", "", True),
        ("done", None, True),
        ("done", "errored", False),
        ("error", "errored", False),
        ("error", "running", False),
        ("error", "completed", False),
        (None, "completed", True),
        (None, "errored", False),
    ],
)
async def test_suffix_and_state_tell_the_outcome(
    bench: Bench, suffix: str | None, state: str | None, completed: bool
) -> None:
    """Errored by suffix or state counts first, then done by suffix or state, on either way of replying."""
    attempt = await bench.send()
    subject = f"{SUBJECT}.{suffix}" if suffix else bench.requests[0].reply
    body = reply(_state=state, error="no", vpc_aws_id="vpc-1")
    await bench.say(subject, body)
    assert attempt.outcome.completed is completed
    assert attempt.outcome.error == (None if completed else "no")
    assert attempt.outcome.body == body


async def test_an_error_without_a_text_says_that_there_is_none(bench: Bench) -> None:
    """A connector that does not say why it failed leaves a clear text all the same."""
    attempt = await bench.send()
    await bench.say(f"{SUBJECT}.error", reply())
    assert attempt.failed == UNEXPLAINED


async def test_on_the_reply_subject_ids_may_be_missing(bench: Bench) -> None:
    """What comes on the request's own reply subject is matched by that alone."""
    attempt = await bench.send()
    await bench.say(bench.requests[0].reply, {"_state": "completed", "vpc_aws_id": "vpc-1"})
    assert attempt.outcome.completed


@pytest.mark.parametrize(("field", "value"), [("service", "b2"), ("_component_id", "z")])
async def test_on_the_reply_subject_another_id_fails_the_component(
    bench: Bench, field: str, value: str
) -> None:
    """A connector that answers with another component's reply fails this one, and says which it was."""
    attempt = await bench.send()
    await bench.say(bench.requests[0].reply, reply(_state="completed", **{field: value}))
    assert attempt.failed == f"the reply is about another component: its {field} is '{value}'"


async def test_the_first_reply_counts_and_the_others_are_dropped(bench: Bench) -> None:
    """Answering both ways, twice, and contradicting oneself changes nothing after the first reply."""
    attempt = await bench.send()
    to = bench.requests[0].reply
    for subject, state in ((to, "completed"), (to, "errored"), (f"{SUBJECT}.error", "errored")):
        bench.bus.deliver(subject, encode(reply(_state=state)))
    await wait_all_tasks_blocked()
    assert attempt.outcome.completed
    assert bench.connectors.dropped == {"duplicate": 2}


@pytest.mark.parametrize("way", ["subject of its own", "shared subject"])
async def test_a_reply_that_comes_a_hundred_times_has_one_turn(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """While the first of them waits for its turn, and afterwards, the others are not even read."""
    read: list[bytes] = []
    real = read_reply

    def counting(data: bytes, *args: Any, **options: Any) -> Any:
        read.append(data)
        return real(data, *args, **options)

    monkeypatch.setattr("scheduler.dispatch.reply_reader.read_reply", counting)
    calls = [bench.connectors.send(request(f"c{number}")) for number in range(40)]
    await wait_all_tasks_blocked()
    for _ in range(100):
        for number, sent in enumerate(bench.requests):
            subject = sent.reply if way == "subject of its own" else f"{SUBJECT}.done"
            bench.bus.deliver(subject, encode(reply(_component_id=f"c{number}", _state="completed")))
    await wait_all_tasks_blocked()
    assert [call.answered for call in calls] == [True] * 40
    assert len(read) == 40
    assert bench.connectors.dropped == {"duplicate": 99 * 40}
    assert not bench.connectors.router._waiting


async def test_another_reply_behind_one_that_waits_and_is_no_good_counts(bench: Bench) -> None:
    """Only the same one again is no better."""
    calls = [bench.connectors.send(request(f"c{number}")) for number in range(40)]
    await wait_all_tasks_blocked()
    for number in range(40):
        good = encode(reply(_component_id=f"c{number}"))
        bad = good[:-1] + b',"x":NaN}'
        for body in (bad, bad, good):
            bench.bus.deliver(f"{SUBJECT}.done", body)
    await wait_all_tasks_blocked()
    assert [isinstance(call.answer, Outcome) and call.answer.completed for call in calls] == [True] * 40


async def test_what_comes_after_the_end_is_counted_and_dropped(bench: Bench) -> None:
    """A reply to what nobody awaits any more goes nowhere, whichever way it comes."""
    attempt = await bench.send()
    await bench.say(f"{SUBJECT}.done", reply())
    attempt.call.close()
    await bench.say(bench.requests[0].reply, reply(_state="completed"))
    await bench.say(f"{SUBJECT}.done", reply())
    assert len(attempt.ended) == 1
    assert bench.connectors.dropped == {"to no request that waits": 1, "for no running component": 1}


DEEP = b'{"service":"b1","_component_id":"a","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"


@pytest.mark.parametrize(
    ("reason", "subject", "body"),
    [
        ("for no running component", f"{SUBJECT}.done", reply(service="b2")),
        ("for no running component", f"{SUBJECT}.done", reply(_component_id="z")),
        ("of another type, provider or action", "network.create.aws.done", reply()),
        ("of another type, provider or action", "vpc.create.gcp.done", reply()),
        ("of another type, provider or action", "vpc.delete.aws.done", reply()),
        ("without service or _component_id", f"{SUBJECT}.done", {}),
        ("without service or _component_id", f"{SUBJECT}.done", reply(service=None)),
        ("without service or _component_id", f"{SUBJECT}.done", reply(service=["b1"])),
        ("without service or _component_id", f"{SUBJECT}.done", reply(_component_id=7)),
        ("without service or _component_id", f"{SUBJECT}.done", {"_component_id": "a"}),
        ("not a component", f"{SUBJECT}.done", [reply()]),
        ("not a component", f"{SUBJECT}.done", None),
        ("not a component", f"{SUBJECT}.done", b""),
        ("not a component", f"{SUBJECT}.done", b"no JSON"),
        ("not a component", f"{SUBJECT}.done", b'{"service":"b1","_component_id":"a"'),
        ("not a component", f"{SUBJECT}.done", b'{"service":"b1","_component_id":"\xff"}'),
        ("not a component", f"{SUBJECT}.done", b'{"service":"b1","_component_id":"a","x":"\xff"}'),
        ("not a component", f"{SUBJECT}.done", b'{"service":"b1","_component_id":"a","x":NaN}'),
        ("not a component", f"{SUBJECT}.done", DEEP),
    ],
)
async def test_what_is_foreign_or_unreadable_on_a_shared_subject_is_dropped(
    bench: Bench, reason: str, subject: str, body: Any
) -> None:
    """What comes by and is no reply to us is counted, and the component goes on waiting for its own."""
    attempt = await bench.send()
    await bench.say(subject, body)
    assert attempt.ended == []
    assert bench.connectors.dropped == {reason: 1}
    await bench.say(f"{SUBJECT}.done", reply())
    assert attempt.outcome.completed


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (b"[" * 64 + b"]" * 64, "nested deeper than max_depth 64"),
        (b"9" * 301, "more digits than max_digits 300"),
        (b"1e400", "a number beyond what a double holds"),
    ],
)
async def test_a_reply_that_is_over_a_limit_fails_at_once(bench: Bench, value: bytes, why: str) -> None:
    """A reply to a running component that we may not take is no noise: it fails, and nobody waits on."""
    attempt = await bench.send()
    await bench.say(f"{SUBJECT}.done", encode(reply())[:-1] + b',"n":' + value + b"}")
    assert why in attempt.failed


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "the reply cannot be read: the body is empty"),
        (b"no JSON", "the reply cannot be read: JSON is malformed"),
        (b'"\xff"', "the reply cannot be read: not UTF-8"),
        (b"[]", "the reply cannot be read: expected a component, got a list"),
        (b"null", "the reply cannot be read: expected a component, got null"),
        (DEEP, "the reply cannot be read: nested deeper than max_depth 64"),
        (b'{"_state":"completed","n":%b}' % (b"9" * 301), "more digits than max_digits 300"),
        (b"{}", "the reply does not say how it ended"),
        (encode(reply()), "the reply does not say how it ended"),
        (b'{"_state":["completed"]}', "the reply does not say how it ended"),
    ],
)
async def test_an_unreadable_or_stateless_body_on_the_reply_subject_fails_at_once(
    bench: Bench, body: bytes, why: str
) -> None:
    """What comes on the reply subject is meant for this component: saying nothing is a failure."""
    attempt = await bench.send()
    await bench.say(bench.requests[0].reply, body)
    assert why in attempt.failed


@pytest.mark.parametrize("body", [b"", encode(reply(_state="completed"))])
async def test_an_error_header_fails_at_once(bench: Bench, body: bytes) -> None:
    """A NATS service that answers with an error header has failed, whatever its body says."""
    attempt = await bench.send()
    headers = {"Nats-Service-Error": "quota exceeded", "Nats-Service-Error-Code": "429"}
    await bench.say(bench.requests[0].reply, body, headers)
    assert attempt.failed == "quota exceeded 429"


@pytest.mark.parametrize(
    "subject",
    ["build.create.done", "service.delete.error", "build.create.aws.done", "service.delete.x.error"],
)
async def test_a_message_of_the_system_is_never_a_reply(bench: Bench, subject: str) -> None:
    """A report of a build, even one that names a running component, ends no attempt."""
    strays: list[Stray] = []
    bench.connectors.router.on_stray = strays.append
    attempt = await bench.send()
    await bench.say(subject, reply(_state="completed"))
    await bench.say(subject, reply(_state="completed", service="other"))
    assert attempt.ended == []
    assert strays == []


async def test_replies_of_another_instance_are_none_of_our_business(bench: Bench) -> None:
    """A reply subject that another scheduler made up is passed over without a count."""
    await bench.send()
    call = bench.connectors.router.by_component["b1", "a"]
    await bench.say(f"scheduler.reply.other123.aws.{call.token}", reply(_state="completed"))
    assert bench.connectors.dropped == {}
    assert not call.answered


async def test_what_another_provider_may_publish_on_is_no_reply_subject(bench: Bench) -> None:
    """A token under another provider's name ends nothing, directly or captured; it is counted."""
    attempt = await bench.send()
    token = bench.requests[0].reply.rpartition(".")[2]
    forged = f"{bench.connectors.replies}gcp.{token}"
    await bench.say(forged, reply(_state="completed"))
    capture(bench, forged, reply(_state="completed"), 1)
    capture(bench, f"scheduler.reply.{token}", reply(_state="completed"), 2)
    await wait_all_tasks_blocked()
    assert attempt.ended == []
    assert bench.connectors.dropped == {"to no request that waits": 1}


async def test_what_was_seen_of_tokens_helps_nobody_to_the_next_one(bench: Bench) -> None:
    """Neither the same, nor its neighbours, nor a cut or an old form of it."""
    attempt = await bench.send(request("a"))
    await bench.send(request("z"))
    [mine, seen] = [one.reply for one in bench.requests]
    base, _, token = seen.rpartition(".")
    number = int(token, 16)
    guesses = {f"{base}.{(number + delta) % 2**128:032x}" for delta in range(-500, 500)}
    guesses |= {f"{base}.{token[:cut]}" for cut in range(1, 33)}
    guesses |= {f"{base}.{token.upper()}", f"scheduler.reply.{token}", f"{base}.0", f"{base}.1", f"{base}.2"}
    for guess in guesses - {mine, seen}:
        await bench.say(guess, {"_state": "completed"})
    assert attempt.ended == []


async def test_a_reply_that_names_nothing_counts_and_is_counted(bench: Bench) -> None:
    """Its subject tells whose it is; how many came so can be seen."""
    attempts = [await bench.send(request(name)) for name in "abc"]
    replies = [one.reply for one in bench.requests]
    await bench.say(replies[0], {"_state": "completed"})
    await bench.say(replies[1], {"_state": "completed", "_component_id": "b"})
    await bench.say(replies[2], {"_state": "completed", "service": "", "_component_id": None})
    assert [attempt.outcome.completed for attempt in attempts] == [True] * 3
    assert bench.connectors.reader.unnamed == 2
    assert bench.connectors.dropped == {}


async def test_of_a_captured_reply_to_a_subject_of_its_own_the_other_copy_is_no_duplicate(
    bench: Bench,
) -> None:
    """It comes directly when the attempt is over already, and is not counted."""
    attempt = await bench.send()
    to = bench.requests[0].reply
    capture(bench, to, reply(_state="completed"), 1)
    await wait_all_tasks_blocked()
    attempt.call.close()
    await bench.say(to, reply(_state="completed"))
    assert bench.connectors.dropped == {}
    await bench.say(to, reply(_state="completed"))
    assert bench.connectors.dropped == {"to no request that waits": 1}


@pytest.mark.parametrize("captured", [False, True])
@pytest.mark.parametrize("to", ["scheduler.reply.k-0", f"{{other}}aws.{'5' * 32}", f"{{own}}aws.{'5' * 32}"])
async def test_what_an_earlier_process_sent_is_answered_under_each_of_its_names(
    bench: Bench, to: str, captured: bool
) -> None:
    """An old reply subject, that of the process before, and our own; afterwards none is heard any more."""
    bench.nursery.start_soon(bench.connectors.hearing.run)
    heard = await bench.connectors.hear(["before"], old=True)
    assert heard == ("scheduler.reply.*", interest(owner_of("before")))
    call = bench.connectors.expect(request(), "5" * 32, Position(), Inherited("k-0", heard))
    bench.connectors.hearing.release(heard)
    attempt = await bench.watch(call)
    assert set(heard) < set(bench.bus.subjects)
    subject = to.format(own=bench.connectors.replies, other=f"scheduler.reply.{owner_of('before')}.")
    if captured:
        capture(bench, subject, reply(_state="completed"), 1)
        await wait_all_tasks_blocked()
    else:
        await bench.say(subject, reply(_state="completed"))
    assert attempt.outcome.completed
    assert set(heard) < set(bench.bus.subjects)
    call.close()
    await wait_all_tasks_blocked()
    assert set(heard).isdisjoint(bench.bus.subjects)
    assert bench.connectors.router._by_old_token == {}


async def test_a_reply_for_a_build_that_nobody_holds_is_a_stray(bench: Bench) -> None:
    """Where somebody wants to know of strays they are told, and can have them looked at again."""
    strays: list[Stray] = []
    bench.connectors.router.on_stray = strays.append
    await bench.say(f"{SUBJECT}.done", reply())
    [stray] = strays
    assert (stray.build, stray.component) == ("b1", "a")
    assert not bench.connectors.redeliver(stray)
    attempt = await bench.watch(bench.connectors.expect(request()))
    assert bench.connectors.redeliver(stray)
    await wait_all_tasks_blocked()
    assert attempt.outcome.completed
    assert bench.requests == []


async def test_many_bad_replies_are_logged_once_a_second(
    bench: Bench, autojump_clock: MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    """A flood of rubbish is counted in full and logged a line a second."""
    await trio.sleep(10)
    for _ in range(500):
        bench.bus.deliver(f"{SUBJECT}.done", b"rubbish")
    await trio.sleep(2)
    await bench.say(f"{SUBJECT}.done", b"rubbish")
    assert bench.connectors.dropped["not a component"] == 501
    captured = capsys.readouterr()
    assert (captured.out + captured.err).count("reply dropped") == 2


# ---- nobody listens


async def test_without_a_connector_the_request_is_repeated_and_then_fails(
    autojump_clock: MockClock,
) -> None:
    """A request that nobody takes is sent again under the same attempt id until `start_timeout` is over."""
    async with open_bench(listening=False) as bench:
        attempt = await bench.send()
        await trio.sleep(9.99)
        assert attempt.ended == []
        await trio.sleep(0.02)
        assert attempt.failed == "no connector is subscribed to vpc.create.aws"
        assert {(sent.headers or {})["Nats-Msg-Id"] for sent in bench.requests} == {"b1/a/1"}
        assert len({sent.data for sent in bench.requests}) == 1
        assert 7 <= len(bench.requests) <= 15


async def test_a_connector_that_comes_up_in_time_gets_the_request_once(autojump_clock: MockClock) -> None:
    """A connector that subscribes before `start_timeout` is over gets what waits for it."""
    got: list[Message] = []
    async with open_bench(listening=False) as bench:
        attempt = await bench.send()
        await trio.sleep(5)
        await bench.bus.subscribe(SUBJECT, got.append)
        await trio.sleep(60)
        assert attempt.ended == []
        [message] = got
        await bench.say(message.reply, reply(_state="completed"))
        assert attempt.outcome.completed


async def test_after_a_reconnect_the_time_to_find_a_connector_begins_again(autojump_clock: MockClock) -> None:
    """Connectors come back after a restart of the broker as we do: they get the whole time again."""
    async with open_bench(listening=False) as bench:
        attempt = await bench.send()
        await trio.sleep(8)
        bench.bus.disconnect()
        bench.bus.reconnect()
        await trio.sleep(8)
        assert attempt.ended == []
        await trio.sleep(5)
        assert attempt.failed == "no connector is subscribed to vpc.create.aws"


async def test_the_time_to_find_a_connector_stands_still_while_the_broker_is_away(
    autojump_clock: MockClock,
) -> None:
    """An outage longer than `start_timeout` fails nothing, and the request leaves once it is over."""
    async with open_bench(listening=False) as bench:
        attempt = await bench.send()
        await trio.sleep(3)
        bench.bus.disconnect()
        await trio.sleep(1_000)
        assert attempt.ended == []
        bench.nursery.start_soon(bench.take_requests)
        await wait_all_tasks_blocked()
        before = len(bench.requests)
        bench.bus.reconnect()
        await trio.sleep(100)
        assert len(bench.requests) == before + 1
        assert attempt.ended == []


# ---- time


async def test_an_attempt_without_a_reply_times_out(autojump_clock: MockClock) -> None:
    """After `attempt_timeout` the component fails, and the text says after how long."""
    async with open_bench(timeout=3_600.0) as bench:
        attempt = await bench.send()
        await trio.sleep(3_599)
        assert attempt.ended == []
        await trio.sleep(2)
        assert attempt.failed == "timed out after 3600 s"
        assert bench.connectors.dropped == {"timed_out": 1}
        assert len(bench.requests) == 1


async def test_a_component_names_its_own_timeout(autojump_clock: MockClock) -> None:
    """A component's `_timeout` wins over the setting, shorter or longer."""
    async with open_bench(timeout=100.0) as bench:
        short = await bench.send(request("a", _timeout=1.5))
        long = await bench.send(request("z", _timeout=200))
        await trio.sleep(2)
        assert short.failed == "timed out after 1.5 s"
        await trio.sleep(150)
        assert long.ended == []
        await trio.sleep(100)
        assert long.failed == "timed out after 200 s"


async def test_timeouts_go_by_subject_pattern(fake_bus: FakeBus) -> None:
    """The first pattern that matches a request's subject says how long it may take."""
    settings = Settings(
        timeouts=(("vpc.create.aws", 5.0), ("vpc.*.*", 6.0), ("*.create.*", 7.0)), attempt_timeout=8.0
    )
    connectors = Connectors(fake_bus, World(bus=fake_bus).timers, timeouts=settings.timeout_for)
    seconds = [
        connectors.seconds(request(kind=kind, action=action, provider=provider))
        for kind, action, provider in (
            ("vpc", "create", "aws"),
            ("vpc", "create", "gcp"),
            ("network", "create", "aws"),
            ("network", "delete", "aws"),
        )
    ]
    assert seconds == [5.0, 6.0, 7.0, 8.0]


async def test_time_does_not_pass_while_the_broker_is_away(autojump_clock: MockClock) -> None:
    """An outage does not count towards an attempt's timeout."""
    async with open_bench(timeout=10.0) as bench:
        attempt = await bench.send()
        await trio.sleep(5)
        bench.bus.disconnect()
        await trio.sleep(1_000)
        bench.bus.reconnect()
        await trio.sleep(3)
        assert attempt.ended == []
        await trio.sleep(10)
        assert attempt.failed == "timed out after 10 s"


async def test_a_request_that_never_left_has_its_time_yet_to_come(autojump_clock: MockClock) -> None:
    """What stood in the queue for a whole timeout is queued anew, once, and does not fail."""
    async with open_bench(timeout=10.0) as bench:
        bench.bus.disconnect()
        attempt = await bench.send()
        bench.connectors.sending.expire(attempt.call)
        assert attempt.ended == []
        assert bench.bus.queued == 1
        bench.bus.reconnect()
        await trio.sleep(8)
        assert attempt.ended == []
        assert len(bench.requests) == 1
        await trio.sleep(5)
        assert attempt.failed == "timed out after 10 s"


async def test_a_late_success_is_told_to_whoever_asked_for_it(autojump_clock: MockClock) -> None:
    """After a timeout the table remembers the attempt: what comes late is handed over, and counted."""
    late: list[tuple[str, bool]] = []
    async with open_bench(timeout=10.0) as bench:
        attempt = await bench.send()
        await trio.sleep(20)
        attempt.call.close(lambda one, outcome: late.append((one.component, outcome.completed)))
        await bench.say(f"{SUBJECT}.done", reply())
        await bench.say(bench.requests[0].reply, reply(_state="errored"))
        assert late == [("a", True), ("a", False)]
        assert bench.connectors.dropped["late"] == 2
        attempt.call.close()
        await bench.say(f"{SUBJECT}.done", reply())
        assert len(late) == 2
        assert bench.connectors.router.by_token == {}
        assert bench.connectors.router.by_component == {}


# ---- what the bus refuses


@pytest.mark.parametrize(
    ("bus", "fields", "why"),
    [
        (
            lambda: FakeBus(max_payload=400),
            {"x": "y" * 400},
            "the request cannot be sent: a message on 'vpc.create.aws' with its headers takes ",
        ),
        (lambda: FakeBus(max_queued_messages=0), {}, "the request cannot be sent: no room for a message"),
    ],
)
async def test_what_the_bus_refuses_fails_that_component(
    bus: Callable[[], FakeBus], fields: JSON, why: str
) -> None:
    """A request that is too large, or that has no room, fails its component and says why."""
    async with open_bench(bus=bus()) as bench:
        attempt = await bench.send(request(**fields))
        assert attempt.failed.startswith(why)
        assert bench.requests == []
        attempt.call.close()
        assert bench.connectors.router.by_token == {}


async def test_a_closed_bus_fails_the_component(bench: Bench) -> None:
    """A bus that was closed fails the request, and raises nothing."""
    bench.bus.close()
    attempt = await bench.send()
    assert attempt.failed.startswith("the request cannot be sent: ")


async def test_an_id_that_no_header_holds_fails_only_its_component() -> None:
    """An attempt id that is too long for the message fails its component with the limit."""
    async with open_bench(bus=FakeBus(max_payload=1_500)) as small:
        long = await small.send(request("ü" * 250))
        assert "over the server's max_payload of 1500 bytes" in long.failed
        other = await small.send(request())
        assert other.ended == []


async def test_a_forbidden_subject_fails_its_components_now(bench: Bench) -> None:
    """Where the broker forbids a subject, what was sent on it fails at once, and nothing else does."""
    bench.bus.forbidden.add("network.create.aws")
    resumed = await bench.watch(bench.connectors.expect(request("r", kind="network")))
    other = await bench.send()
    attempt = await bench.send(request("n", kind="network"))
    assert attempt.failed == "the broker does not permit us to publish on network.create.aws"
    assert other.ended == []
    assert resumed.ended == [], "an earlier process sent it, who was permitted to"


# ---- taking it back


async def test_a_request_that_stands_in_the_queue_can_be_withdrawn(bench: Bench) -> None:
    """While the broker is away a request can be taken back, and then never leaves."""
    bench.bus.disconnect()
    attempt = await bench.send()
    attempt.call.withdraw()
    await wait_all_tasks_blocked()
    assert attempt.ended == [Signal.WITHDRAWN]
    bench.bus.reconnect()
    await wait_all_tasks_blocked()
    assert bench.requests == []


async def test_a_request_that_left_cannot_be_withdrawn(bench: Bench) -> None:
    """A request that somebody has is awaited all the same."""
    attempt = await bench.send()
    attempt.call.withdraw()
    await wait_all_tasks_blocked()
    assert attempt.ended == []
    await bench.say(f"{SUBJECT}.done", reply())
    assert attempt.outcome.completed


async def test_a_request_that_nobody_takes_can_be_withdrawn_between_two_tries(
    autojump_clock: MockClock,
) -> None:
    """While a request waits to be repeated it can be taken back, and is not repeated."""
    async with open_bench(listening=False) as bench:
        attempt = await bench.send()
        count = len(bench.requests)
        attempt.call.withdraw()
        await wait_all_tasks_blocked()
        assert attempt.ended == [Signal.WITHDRAWN]
        await trio.sleep(100)
        assert len(bench.requests) == count


async def test_withdrawn_before_nobody_is_heard_of_it_is_not_repeated(autojump_clock: MockClock) -> None:
    """A request that left is not repeated when it then turns out that nobody took it."""
    async with open_bench(listening=False) as bench:
        call = bench.connectors.send(request())
        call.outgoing.left(1)  # type: ignore[union-attr]
        call.withdraw()
        attempt = await bench.watch(call)
        assert attempt.ended == [Signal.WITHDRAWN]


@pytest.mark.parametrize("end", [Call.withdraw, Call.abandon, lambda call: call.deliver(failure("late"))])
async def test_ended_in_the_very_moment_of_its_next_try_it_is_not_repeated(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, end: Callable[[Call], None]
) -> None:
    """An end that comes in the same moment as the end of a pause between two tries wins: nothing is sent."""
    monkeypatch.setattr("random.uniform", lambda _low, _high: 1.0)

    async def end_when_the_pause_ends(call: Call) -> None:
        await trio.sleep(FIRST_PAUSE)
        end(call)

    # Which of the two tasks runs first is left to chance.
    for _ in range(20):
        async with open_bench(listening=False) as bench:
            attempt = await bench.send()
            bench.nursery.start_soon(end_when_the_pause_ends, attempt.call)
            await trio.sleep(FIRST_PAUSE)
            await wait_all_tasks_blocked()
            before = len(bench.requests)
            await trio.sleep(100)
            assert len(attempt.ended) == 1
            assert len(bench.requests) == before
            if end is Call.withdraw and attempt.ended == [Signal.WITHDRAWN]:
                assert before == 1


# ---- replies that a stream captured


KEY = "0123456789abcdef0123456789abcdef"


def place(sequence: int) -> Position:
    return Position(sequence, sequence * 10)


def capture(bench: Bench, subject: str, body: JSON, sequence: int) -> None:
    """Have the stream's next message be this reply."""
    bench.connectors.on_captured(Message(subject, encode(body)), place(sequence))


def dealt_with(bench: Bench, build: str = "b1") -> int:
    """Up to which captured reply a record of a build may say that all were dealt with."""
    return bench.connectors.positions.position(build).sequence


@pytest.mark.parametrize("way", ["subject", "reply"])
async def test_a_captured_reply_ends_an_attempt_as_a_direct_one_does(bench: Bench, way: str) -> None:
    """Whichever way the connector answered."""
    attempt = await bench.send()
    subject = f"{SUBJECT}.done" if way == "subject" else bench.requests[0].reply
    capture(bench, subject, reply(_state="completed", vpc_aws_id="vpc-1"), 1)
    await wait_all_tasks_blocked()
    assert attempt.outcome.completed
    assert (attempt.outcome.body or {})["vpc_aws_id"] == "vpc-1"


@pytest.mark.parametrize("captured_first", [True, False])
async def test_of_a_reply_that_comes_both_ways_one_counts(bench: Bench, captured_first: bool) -> None:
    """The other one is no duplicate of a connector's, and is not counted as one."""
    attempt = await bench.send()
    if captured_first:
        capture(bench, f"{SUBJECT}.done", reply(), 1)
        await wait_all_tasks_blocked()
        attempt.call.close()
        await bench.say(f"{SUBJECT}.done", reply())
    else:
        await bench.say(f"{SUBJECT}.done", reply())
        attempt.call.close()
        capture(bench, f"{SUBJECT}.done", reply(), 1)
        await wait_all_tasks_blocked()
    assert len(attempt.ended) == 1
    assert bench.connectors.dropped == {}
    assert dealt_with(bench) == 1


@pytest.mark.parametrize(
    ("subject", "body"),
    [
        ("network.create.aws.done", reply()),
        (f"{SUBJECT}.done", reply(service="b2")),
        (f"{SUBJECT}.done", reply(_component_id="z")),
        (f"{SUBJECT}.done", {}),
        ("scheduler.reply.of-somebody-else", reply(_state="completed")),
        ("scheduler.reply.some.body.else", reply(_state="completed")),
        ("scheduler.reply.some.where.much.deeper", reply(_state="completed")),
        ("build.create.done", reply(_state="completed")),
    ],
)
async def test_what_is_captured_for_nobody_here_is_dealt_with(bench: Bench, subject: str, body: JSON) -> None:
    """It ends nothing, is not counted a second time, and holds up no build."""
    strays: list[Stray] = []
    bench.connectors.router.on_stray = strays.append
    attempt = await bench.send()
    capture(bench, subject, body, 1)
    await wait_all_tasks_blocked()
    assert (attempt.ended, strays, bench.connectors.dropped) == ([], [], {})
    assert dealt_with(bench) == 1


async def test_captured_rubbish_is_passed_over(bench: Bench) -> None:
    """What is no JSON is none of our replies, and holds up no build."""
    attempt = await bench.send()
    bench.connectors.on_captured(Message(f"{SUBJECT}.done", b"\xff rubbish"), place(1))
    await wait_all_tasks_blocked()
    assert attempt.ended == []
    assert dealt_with(bench) == 1


async def test_what_an_earlier_process_dealt_with_is_no_reply(bench: Bench) -> None:
    """A request that was sent before has its own time in the stream, and what is older is none to it."""
    attempt = await bench.watch(bench.connectors.expect(request(), KEY, after=place(5)))
    capture(bench, f"{SUBJECT}.error", reply(_state="errored"), 5)
    await wait_all_tasks_blocked()
    assert attempt.ended == []
    capture(bench, f"scheduler.reply.elsewher.aws.{KEY}", {"_state": "completed"}, 6)
    await wait_all_tasks_blocked()
    assert attempt.outcome.completed


async def test_what_was_dealt_with_is_told_by_the_stream_that_it_is_in(bench: Bench) -> None:
    """However far another stream is: each has its own numbers."""
    after = place(900).moved("aws", place(5))
    attempt = await bench.watch(bench.connectors.expect(request(), KEY, after=after))
    bench.connectors.positions.seen = after
    captured = bench.connectors.on_captured
    captured(Message(f"{SUBJECT}.error", encode(reply(_state="errored"))), place(5), "aws")
    captured(Message(f"{SUBJECT}.error", encode(reply(_state="errored"))), place(900))
    await wait_all_tasks_blocked()
    assert attempt.ended == []
    captured(Message(f"{SUBJECT}.done", encode(reply())), place(6), "aws")
    await wait_all_tasks_blocked()
    assert attempt.outcome.completed
    assert bench.connectors.positions.position("b1") == after
    attempt.call.close()
    assert bench.connectors.positions.position("b1") == place(900).moved("aws", place(6))


async def test_numbers_that_are_given_out_again_are_told_apart_by_time(bench: Bench) -> None:
    """A stream that lost its end counts anew: a later reply counts although its number is lower."""
    attempt = await bench.watch(bench.connectors.expect(request(), KEY, after=Position(9, 1_000)))
    bench.connectors.on_captured(Message(f"{SUBJECT}.done", encode(reply())), Position(3, 1_001))
    await wait_all_tasks_blocked()
    assert attempt.outcome.completed


@pytest.mark.parametrize("direct", [True, False])
async def test_a_reply_that_is_not_dealt_with_holds_the_position(bench: Bench, direct: bool) -> None:
    """Until its attempt is closed, which is when its outcome is told, whichever copy counted."""
    call = bench.connectors.send(request())
    other = bench.connectors.send(request("z", build="b2"))
    await wait_all_tasks_blocked()
    if direct:
        await bench.say(f"{SUBJECT}.done", reply())
    capture(bench, f"{SUBJECT}.done", reply(), 1)
    capture(bench, "nobody.create.aws.done", reply(service="b9"), 2)
    await wait_all_tasks_blocked()
    assert call.answered
    assert (dealt_with(bench), dealt_with(bench, "b2")) == (0, 2)
    assert isinstance(await call.outcome(), Outcome)
    assert dealt_with(bench) == 0
    call.close()
    assert dealt_with(bench) == 2
    other.close()


async def test_replies_that_wait_for_their_turn_hold_the_position(
    bench: Bench, autojump_clock: MockClock
) -> None:
    """Of hundreds that are captured at once not one is claimed before it was looked at."""
    calls = [bench.connectors.send(request(f"c{number}")) for number in range(100)]
    await wait_all_tasks_blocked()
    for number in range(100):
        capture(bench, f"{SUBJECT}.done", reply(_component_id=f"c{number}"), number + 1)
    answered = [number for number, call in enumerate(calls) if call.answered]
    assert 0 < len(answered) < 100
    for number in answered:
        calls[number].close()
    assert dealt_with(bench) == min(set(range(100)) - set(answered))
    await wait_all_tasks_blocked()
    for call in calls:
        assert call.answered
        call.close()
    assert dealt_with(bench) == 100


async def test_a_captured_reply_that_comes_late_is_told_first_and_claimed_then(bench: Bench) -> None:
    """A success after the attempt was given up is kept before the position passes it."""
    told: list[tuple[bool, int]] = []
    call = bench.connectors.send(request())
    await wait_all_tasks_blocked()
    call.close(late=lambda _, outcome: told.append((outcome.completed, dealt_with(bench))))
    capture(bench, f"{SUBJECT}.done", reply(), 1)
    await wait_all_tasks_blocked()
    assert told == [(True, 0)]
    assert dealt_with(bench) == 1


async def test_a_reply_that_is_read_again_holds_the_position_before_it(bench: Bench) -> None:
    """For a build that is adopted the stream is read again from further back, however far it was read."""
    capture(bench, "nobody.create.aws.done", reply(service="b9"), 1_000)
    bench.connectors.positions.keep_behind("b1", place(40))
    calls = [bench.connectors.expect(request(f"c{number}"), f"k-{number:x}") for number in range(50)]
    for number in range(50):
        message = Message(f"{SUBJECT}.done", encode(reply(_component_id=f"c{number}")))
        bench.connectors.look_at_captured(message, place(50 + number), place(49 + number))
    bench.connectors.positions.catch_up(["b1"])
    assert dealt_with(bench) < 50
    await wait_all_tasks_blocked()
    for call in calls:
        call.close()
    assert dealt_with(bench) == 1_000


async def test_a_build_that_is_left_claims_nothing_more(bench: Bench) -> None:
    """Whoever stops waiting has not dealt with what comes then: it is for another process to read."""
    attempt = await bench.send()
    capture(bench, "nobody.create.aws.done", reply(service="b9"), 1)
    bench.connectors.hand_over("b1")
    attempt.call.abandon()
    capture(bench, f"{SUBJECT}.done", reply(), 2)
    await wait_all_tasks_blocked()
    assert attempt.ended == [Signal.LEFT]
    attempt.call.close()
    capture(bench, f"{SUBJECT}.done", reply(), 3)
    await wait_all_tasks_blocked()
    assert (dealt_with(bench), dealt_with(bench, "b9")) == (1, 3)


async def test_an_answer_that_is_there_already_is_not_left(bench: Bench) -> None:
    """To stop waiting takes back nothing that has come."""
    call = bench.connectors.send(request())
    await bench.say(f"{SUBJECT}.done", reply())
    call.abandon()
    outcome = await call.outcome()
    assert isinstance(outcome, Outcome)
    assert outcome.completed


# ---- what an earlier process sent, and what may be lost


async def test_what_is_expected_is_known_by_the_subject_that_it_was_sent_with(bench: Bench) -> None:
    """The next process makes the same reply subject of the build's key, and sends nothing for that."""
    attempt = await bench.watch(bench.connectors.expect(request(), KEY))
    await bench.say(f"{bench.connectors.replies}aws.{KEY}", {"_state": "completed"})
    assert attempt.outcome.completed
    assert bench.requests == []


async def test_what_is_expected_has_the_time_that_it_is_given(autojump_clock: MockClock) -> None:
    """Its clock starts when it is told to, with what is left."""
    async with open_bench(timeout=100) as bench:
        call = bench.connectors.expect(request(), KEY)
        attempt = await bench.watch(call)
        await trio.sleep(500)
        assert attempt.ended == []
        bench.connectors.arm(call, 30)
        await trio.sleep(29.5)
        assert attempt.ended == []
        await trio.sleep(1)
        assert attempt.failed == "timed out after 100 s"


async def test_a_request_with_a_token_is_answered_under_it(bench: Bench) -> None:
    """What the reply subject ends with is the caller's to say."""
    bench.connectors.send(request(), KEY)
    await wait_all_tasks_blocked()
    assert bench.requests[0].reply == f"{bench.connectors.replies}aws.{KEY}"


async def test_each_departure_is_told(autojump_clock: MockClock) -> None:
    """Whoever wants to know is told each time that the request is handed to the bus, and by what."""
    told: list[Any] = []
    async with open_bench(listening=False) as bench:
        call = bench.connectors.send(request(), departing=lambda call: told.append(call.outgoing))
        await bench.watch(call)
        await trio.sleep(5)
        assert len(told) == len(bench.requests) > 1
        assert len(set(map(id, told))) == len(told)
        assert call.outgoing is told[-1]


async def test_what_the_bus_refuses_does_not_depart(bench: Bench) -> None:
    """A request that never stood in the queue is not told of."""
    told: list[Call] = []
    bench.bus.max_payload = 10
    attempt = await bench.watch(bench.connectors.send(request(), departing=told.append))
    assert "max_payload" in attempt.failed
    assert told == []


async def test_a_request_that_nobody_heard_says_so_until_it_goes_out_again(autojump_clock: MockClock) -> None:
    """That is how whoever notes what has left knows that this one has not."""
    async with open_bench(listening=False) as bench:
        heard: list[bool] = []
        call = bench.connectors.send(request(), departing=lambda call: heard.append(call.unheard))
        await bench.watch(call)
        assert call.unheard
        await trio.sleep(5)
        assert not any(heard)
        assert call.unheard


async def test_a_request_is_lost_with_the_connection_that_it_left_over(bench: Bench) -> None:
    """As long as there is no answer to it."""
    call = bench.connectors.send(request())
    answered = bench.connectors.send(request("z"))
    assert not call.lost
    await bench.say(f"{SUBJECT}.done", reply(_component_id="z"))
    bench.bus.disconnect()
    waiting = bench.connectors.send(request("y"))
    assert not call.lost
    bench.bus.reconnect()
    await wait_all_tasks_blocked()
    assert [one.lost for one in (call, answered, waiting)] == [True, False, False]
    call.publish()
    await wait_all_tasks_blocked()
    assert not call.lost


async def test_what_another_process_sent_is_not_lost_with_our_connection(bench: Bench) -> None:
    """We never gave it to one."""
    call = bench.connectors.expect(request(), KEY)
    bench.bus.disconnect()
    bench.bus.reconnect()
    await wait_all_tasks_blocked()
    assert not call.lost


async def test_a_request_between_two_tries_is_not_lost(autojump_clock: MockClock) -> None:
    """It goes out again by itself."""
    async with open_bench(listening=False) as bench:
        call = bench.connectors.send(request())
        await bench.watch(call)
        bench.bus.disconnect()
        bench.bus.reconnect()
        assert not call.lost


async def test_a_reply_right_behind_the_word_that_nobody_listens_counts(bench: Bench) -> None:
    """A repetition that nobody heard does not cost the answer to the first copy, in one breath with it."""
    attempt = await bench.send()
    to = bench.requests[0].reply
    bench.bus.deliver(to, b"", headers={"Status": "503"})
    bench.bus.deliver(f"{SUBJECT}.done", encode(reply()))
    await wait_all_tasks_blocked()
    assert attempt.outcome.completed


async def test_somebody_else_may_decide_what_has_timed_out(autojump_clock: MockClock) -> None:
    """Where replies are captured whoever reads them is asked first: one may be under way."""
    async with open_bench(timeout=100) as bench:
        expired: list[Call] = []
        bench.connectors.sending.on_expired = expired.append
        attempt = await bench.send()
        await trio.sleep(200)
        assert attempt.ended == []
        assert expired == [attempt.call]
        expired[0].time_out()
        await wait_all_tasks_blocked()
        assert attempt.failed == "timed out after 100 s"


async def test_a_reply_before_the_decision_wins_over_the_deadline(autojump_clock: MockClock) -> None:
    """What is found in the stream counts, and the attempt is not timed out any more."""
    async with open_bench(timeout=100) as bench:
        expired: list[Call] = []
        bench.connectors.sending.on_expired = expired.append
        attempt = await bench.send()
        await trio.sleep(200)
        capture(bench, f"{SUBJECT}.done", reply(), 1)
        expired[0].time_out()
        await wait_all_tasks_blocked()
        assert attempt.outcome.completed
        assert bench.connectors.dropped == {}


@pytest.mark.parametrize("broken", [False, True])
async def test_a_large_reply_is_read_beside_the_loop(bench: Bench, broken: bool) -> None:
    """What comes behind it for its build waits for that; a broken one is what a small one would be."""
    executor = FakeExecutor()
    gate = executor.gate = Gate()
    bench.connectors.reader._executor = executor
    first, second = await bench.send(request("a")), await bench.send(request("b"))
    bench.bus.deliver(
        f"{SUBJECT}.done", encode(reply(numbers=[10**400] if broken else [], text="x" * 70_000))
    )
    bench.bus.deliver(f"{SUBJECT}.done", encode(reply(_component_id="b")))
    await wait_all_tasks_blocked()
    assert executor.owners == ["b1"]
    assert not first.ended
    assert not second.ended
    gate.open()
    await wait_all_tasks_blocked()
    assert second.outcome.completed
    if broken:
        assert "max_digits" in first.failed
    else:
        assert first.outcome.body is not None
        assert len(first.outcome.body["text"]) == 70_000


async def test_a_large_reply_that_comes_both_ways_is_kept_once(bench: Bench) -> None:
    """While both wait to be read they are one text; another reply to the same request is not."""
    executor = FakeExecutor()
    gate = executor.gate = Gate()
    bench.connectors.reader._executor = executor
    attempt = await bench.send()
    body = reply(text="x" * 100_000)
    size = len(encode(body))
    bench.bus.deliver(f"{SUBJECT}.done", encode(body))
    await wait_all_tasks_blocked()
    capture(bench, f"{SUBJECT}.done", body, 1)
    assert (bench.connectors.reader._unread, bench.connectors.reader.bytes_of["b1"]) == (size, size)
    capture(bench, f"{SUBJECT}.done", body | {"text": "y" * 100_000}, 2)
    assert bench.connectors.reader._unread == 2 * size
    gate.open()
    await wait_all_tasks_blocked()
    assert (attempt.outcome.body or {})["text"] == "x" * 100_000
    assert bench.connectors.reader._unread == 0
    assert bench.connectors.reader._large == {}


async def test_replies_of_many_bytes_are_dealt_with_one_at_a_time(bench: Bench) -> None:
    """Of what takes milliseconds each there are not as many between two looks at everything else."""
    attempts = [await bench.send(request(str(number))) for number in range(8)]
    for number in range(8):
        body = encode(reply(_component_id=str(number), text="x" * 60_000))
        bench.connectors.take(Message(f"{SUBJECT}.done", body))
    assert sum(attempt.call.answered for attempt in attempts) <= 2
    await wait_all_tasks_blocked()
    assert all(attempt.ended for attempt in attempts)


async def test_attempts_that_time_out_together_do_so_in_turns(autojump_clock: MockClock) -> None:
    """A few between two looks at everything else, and those of another build are not behind all of them."""
    async with open_bench() as bench:
        ended: list[str] = []
        together: list[int] = []
        due = trio.Event()

        async def wait(call: Call) -> None:
            await call.outcome()
            ended.append(call.request.build)

        bench.connectors.timers.start(5.0, due.set)
        for number in range(300):
            bench.nursery.start_soon(
                wait, bench.connectors.send(request(f"c{number}", build="large", _timeout=5))
            )
        bench.nursery.start_soon(wait, bench.connectors.send(request(build="small", _timeout=5)))
        await wait_all_tasks_blocked()
        await due.wait()
        while len(ended) < 301:
            before = len(ended)
            await trio.lowlevel.checkpoint()
            together.append(len(ended) - before)
        assert max(together) <= 2 * fairness._AT_ONCE
        assert ended.index("small") <= 3 * fairness._AT_ONCE


async def test_an_attempt_that_is_given_time_while_it_waits_to_time_out_does_not(
    autojump_clock: MockClock,
) -> None:
    """Nor does one whose reply comes in that moment."""

    def answer(call: Call) -> None:
        call.deliver(Outcome(completed=True, body={}))

    async with open_bench() as bench:
        for number in range(40):
            bench.connectors.send(request(f"c{number}", _timeout=5))
        extended = await bench.send(request("a", _timeout=5))
        answered = bench.connectors.send(request("b", _timeout=5))
        bench.connectors.timers.start(5.0, lambda: bench.connectors.extend(extended.call, 100))
        bench.connectors.timers.start(5.0, partial(answer, answered))
        await trio.sleep(5.5)
        assert not extended.ended
        assert answered.answer == Outcome(completed=True, body={})
        assert bench.connectors.dropped["timed_out"] == 40
        await trio.sleep(100)
        assert extended.failed == "timed out after 105 s"


async def test_replies_on_shared_subjects_come_in_on_a_connection_of_their_own(
    autojump_clock: MockClock,
) -> None:
    """However many somebody publishes there, and how large: those on reply subjects come in elsewhere."""
    shared = FakeBus()
    async with open_world(cloud=False, shared=shared) as world, trio.open_nursery() as nursery:
        bench = Bench(world, nursery)
        await bench.take_requests()
        assert not {*shared.subjects} & {*world.bus.subjects}
        assert [one for one in world.bus.subjects if one.startswith("scheduler.reply.")] == [
            f"{world.connectors.replies}*.*"
        ]
        assert {one.queue for one in shared.interests.values()} - {""} == {
            f"scheduler.{world.connectors.replies.split('.')[2]}"
        }
        by_verb, by_subject = await bench.send(request("a")), await bench.send(request("b"))
        shared.deliver("vpc.create.aws.done", encode(reply(_component_id="a")))
        world.bus.deliver(by_subject.call.reply, encode(reply(_component_id="b")))
        await wait_all_tasks_blocked()
        assert by_verb.call.answered
        assert by_subject.call.answered
        nursery.cancel_scope.cancel()


async def test_what_came_on_shared_subjects_while_their_connection_was_away_may_have_been_missed(
    autojump_clock: MockClock,
) -> None:
    """A timeout says so of what had been sent by then."""
    shared = FakeBus()
    async with open_world(cloud=False, shared=shared) as world, trio.open_nursery() as nursery:
        bench = Bench(world, nursery)
        await bench.take_requests()
        sent = await bench.send(request("a"))
        found = [bool(sent.call.maybe_missed)]
        shared.disconnect()
        shared.reconnect()
        await wait_all_tasks_blocked()
        found.append(bool(sent.call.maybe_missed))
        assert found == [False, True]
        nursery.cancel_scope.cancel()


async def test_large_replies_that_wait_have_a_bound_in_bytes(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One beyond it is read on the spot, so that what follows waits in the broker; none is lost."""
    large = {"text": "x" * 100_000}
    monkeypatch.setattr("scheduler.dispatch.reply_reader._MOST_UNREAD", 150_000)
    async with open_bench() as bench:
        first, second = await bench.send(request("a")), await bench.send(request("b"))
        for one, name in ((first, "a"), (second, "b")):
            body = encode(reply(_component_id=name, _state="completed", **large))
            bench.connectors.take(Message(one.call.reply, body))
        found = [(one.call.answered, bench.connectors.reader._unread > 0) for one in (first, second)]
        assert found == [(False, True), (True, True)]
        await wait_all_tasks_blocked()
        assert first.call.answered
        assert bench.connectors.reader._unread == 0
