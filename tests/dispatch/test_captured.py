"""Replies that a stream captured: which of them count, and how far a build has got with them."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

import pytest
from support.bench import (
    KEY,
    SUBJECT,
    Bench,
    KeptStrays,
    capture,
    dealt_with,
    open_bench,
    place,
    reply,
    request,
)
from support.fakes import JSON, encode
from trio.testing import MockClock, wait_all_tasks_blocked

from scheduler.bus import Message
from scheduler.dispatch.call import Signal
from scheduler.journal.records import Position
from scheduler.plan.outcome import Outcome


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
async def test_what_is_captured_for_nobody_here_is_dealt_with(subject: str, body: JSON) -> None:
    """It ends nothing, is not counted a second time, and holds up no build."""
    strays = KeptStrays()
    async with open_bench(on_stray=strays.keep) as bench:
        attempt = await bench.send()
        capture(bench, subject, body, 1)
        await wait_all_tasks_blocked()
        assert (attempt.ended, strays.kept, bench.connectors.dropped) == ([], [], {})
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
