"""Requests that go out: what they carry, how often, for how long, and what becomes of those that cannot."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

import json
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import trio
from support.bench import KEY, SUBJECT, Bench, capture, open_bench, reply, request
from support.fake_bus import FakeBus
from support.fakes import JSON, World, encode
from trio.testing import MockClock, wait_all_tasks_blocked

from scheduler.bus import Message
from scheduler.config import Settings
from scheduler.dispatch import fairness
from scheduler.dispatch.call import Call, Signal
from scheduler.dispatch.client import Capture, ConnectorClient
from scheduler.dispatch.sending import FIRST_PAUSE
from scheduler.jetstream.capturing import StreamLayout
from scheduler.plan.outcome import Outcome, failure
from scheduler.stores.positions import ReplyPositions


async def test_a_request_carries_the_component_the_attempt_and_a_reply_subject(bench: Bench) -> None:
    """A request is what the plan made of it, with the attempt id as header and a subject to answer on."""
    await bench.send(request(cidr="10.0.0.0/16"))
    [sent] = bench.requests
    assert sent.subject == SUBJECT
    assert json.loads(sent.data) == reply(cidr="10.0.0.0/16")
    assert sent.headers == {
        "Nats-Msg-Id": "b1/a/1",
        "Scheduler-Component-Key": "b1/a",
        "Scheduler-Heartbeat": sent.reply.replace("reply", "beat"),
    }
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
    assert sent.headers is not None
    assert (sent.headers["Nats-Msg-Id"], sent.headers["Scheduler-Component-Key"]) == (header, key)


async def test_no_two_requests_share_a_reply_subject(bench: Bench) -> None:
    """Each request is answered on a subject of its own."""
    for number in range(20):
        await bench.send(request(f"c{number}"))
    assert len({sent.reply for sent in bench.requests}) == 20


async def test_a_request_with_a_token_is_answered_under_it(bench: Bench) -> None:
    """What the reply subject ends with is the caller's to say."""
    bench.connectors.send(request(), KEY)
    await wait_all_tasks_blocked()
    assert bench.requests[0].reply == f"{bench.connectors.replies}aws.{KEY}"


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
    """ConnectorClient come back after a restart of the broker as we do: they get the whole time again."""
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


async def test_a_reply_right_behind_the_word_that_nobody_listens_counts(bench: Bench) -> None:
    """A repetition that nobody heard does not cost the answer to the first copy, in one breath with it."""
    attempt = await bench.send()
    to = bench.requests[0].reply
    bench.bus.deliver(to, b"", headers={"Status": "503"})
    bench.bus.deliver(f"{SUBJECT}.done", encode(reply()))
    await wait_all_tasks_blocked()
    assert attempt.outcome.completed


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
    connectors = ConnectorClient(fake_bus, World(bus=fake_bus).timers, timeouts=settings.timeout_for)
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


async def test_somebody_else_may_decide_what_has_timed_out(autojump_clock: MockClock) -> None:
    """Where replies are captured whoever reads them is asked first: one may be under way."""
    expired: list[Call] = []
    read_elsewhere = Capture(StreamLayout(), ReplyPositions(), expired.append)
    async with open_bench(timeout=100, capture=read_elsewhere) as bench:
        attempt = await bench.send()
        await trio.sleep(200)
        assert attempt.ended == []
        assert expired == [attempt.call]
        expired[0].time_out()
        await wait_all_tasks_blocked()
        assert attempt.failed == "timed out after 100 s"


async def test_a_reply_before_the_decision_wins_over_the_deadline(autojump_clock: MockClock) -> None:
    """What is found in the stream counts, and the attempt is not timed out any more."""
    expired: list[Call] = []
    read_elsewhere = Capture(StreamLayout(), ReplyPositions(), expired.append)
    async with open_bench(timeout=100, capture=read_elsewhere) as bench:
        attempt = await bench.send()
        await trio.sleep(200)
        capture(bench, f"{SUBJECT}.done", reply(), 1)
        expired[0].time_out()
        await wait_all_tasks_blocked()
        assert attempt.outcome.completed
        assert bench.connectors.dropped == {}


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


def _fail(call: Call) -> None:
    call.deliver(failure("late"))


def _fail_and_close(call: Call) -> None:
    """As another task does it that books all ends before the one that waits has run."""
    _fail(call)
    call.close()


@pytest.mark.parametrize("end", [Call.withdraw, Call.abandon, _fail, _fail_and_close])
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


async def test_an_answer_that_is_there_already_is_not_left(bench: Bench) -> None:
    """To stop waiting takes back nothing that has come."""
    call = bench.connectors.send(request())
    await bench.say(f"{SUBJECT}.done", reply())
    call.abandon()
    outcome = await call.outcome()
    assert isinstance(outcome, Outcome)
    assert outcome.completed


# ---- what has left, and what may be lost


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
