"""Replies (WIRE: "Requests and replies"): what ends an attempt, how, and what is dropped."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

from typing import Any

import pytest
import trio
from support.bench import SUBJECT, Bench, KeptStrays, capture, open_bench, reply, request
from support.fakes import encode
from trio.testing import MockClock, wait_all_tasks_blocked

from scheduler.plan.outcome import UNEXPLAINED, Outcome, read_reply


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
    assert not bench.connectors.router.waiting


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
async def test_a_message_of_the_system_is_never_a_reply(subject: str) -> None:
    """A report of a build, even one that names a running component, ends no attempt."""
    strays = KeptStrays()
    async with open_bench(on_stray=strays.keep) as bench:
        attempt = await bench.send()
        await bench.say(subject, reply(_state="completed"))
        await bench.say(subject, reply(_state="completed", service="other"))
        assert attempt.ended == []
        assert strays.kept == []


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


async def test_a_reply_for_a_build_that_nobody_holds_is_a_stray() -> None:
    """Where somebody wants to know of strays they are told, and can have them looked at again."""
    strays = KeptStrays()
    async with open_bench(on_stray=strays.keep) as bench:
        await bench.say(f"{SUBJECT}.done", reply())
        [stray] = strays.kept
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
