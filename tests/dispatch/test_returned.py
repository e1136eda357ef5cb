"""Connectors that come back, and the requests that they get again."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

import json
from collections.abc import Sequence
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs
from support.bench import KEY, Bench, open_bench, reply, request
from trio.testing import MockClock, wait_all_tasks_blocked

from scheduler.dispatch import returned
from scheduler.dispatch.call import Call
from scheduler.errors import BusFull


async def come_back(bench: Bench, *attempts: str, provider: str = "aws", **more: Any) -> None:
    """Say as a connector which attempts it has not answered."""
    bench.bus.deliver(
        f"scheduler.returned.{provider}",
        json.dumps({"instance": "c-7", "attempts": attempts, **more}).encode(),
    )
    await wait_all_tasks_blocked()


def ids(bench: Bench) -> list[str]:
    """Attempt ids of the requests that left, in order."""
    return [(one.headers or {})["Nats-Msg-Id"] for one in bench.requests]


async def test_what_is_in_flight_is_sent_again_under_the_same_id(autojump_clock: MockClock) -> None:
    """With the same body and reply subject, to which the one reply is taken."""
    async with open_bench() as bench:
        attempt = await bench.send()
        await come_back(bench, "b1/a/1", "b1/a/1")
        first, second = bench.requests
        assert (first.data, first.reply, first.headers) == (second.data, second.reply, second.headers)
        await bench.say(second.reply, reply(_state="completed"))
        assert attempt.outcome.completed


async def test_what_the_bus_does_not_take_again_is_awaited_as_before(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connector may have the first copy: its reply counts, and nothing fails by our own want of room."""
    async with open_bench() as bench:
        attempt = await bench.send()

        def full(*_: object, **__: object) -> None:
            raise BusFull("no room")

        with monkeypatch.context() as patch:
            patch.setattr(bench.bus, "publish", full)
            await come_back(bench, "b1/a/1")
        assert bench.connectors.returned.counts == {
            "not taken by the bus": 1,
            "not in flight here": 0,
            "beyond a thousand": 0,
        }
        assert attempt.call.answer is None
        await bench.say(bench.requests[0].reply, reply(_state="completed"))
        assert attempt.outcome.completed


@pytest.mark.parametrize(
    ("attempts", "provider"),
    [
        (["b1/a/1"], "gcp"),
        (["b1/a/2"], "aws"),
        (["b1/z/1"], "aws"),
        (["", "b1/a", "b1/a/1/x"], "aws"),
        ([], "aws"),
    ],
)
async def test_nothing_else_is_sent(
    autojump_clock: MockClock, attempts: Sequence[str], provider: str
) -> None:
    """Not to another provider, not for another attempt, and not what nobody knows."""
    async with open_bench() as bench:
        await bench.send()
        await come_back(bench, *attempts, provider=provider)
        assert ids(bench) == ["b1/a/1"]
        assert bench.connectors.returned.counts["not in flight here"] == len(attempts)


async def test_what_was_answered_or_given_up_is_not_sent(autojump_clock: MockClock) -> None:
    """Its end is known, even where a late reply would still be taken."""
    async with open_bench() as bench:
        answered = await bench.send(request("a"))
        await bench.say(answered.call.reply, reply(_state="completed"))
        given_up = await bench.send(request("b", _timeout=1))
        await trio.sleep(1.1)
        given_up.call.close(late=lambda *_: None)
        await come_back(bench, "b1/a/1", "b1/b/1")
        assert ids(bench) == ["b1/a/1", "b1/b/1"]


async def test_the_newest_attempt_alone_is_sent(autojump_clock: MockClock) -> None:
    """An older one that is still open here is not what its component waits for."""
    async with open_bench() as bench:
        older = await bench.send()
        newer = await bench.send()
        assert older.call is not newer.call
        bench.connectors.router.by_component["b1", "a"] = newer.call
        await come_back(bench, "b1/a/1")
        assert [one.reply for one in bench.requests[2:]] == [newer.call.reply]


@pytest.mark.parametrize(
    ("name", "spelled"), [("é", "b1/é/1"), ("é", "b1/%C3%A9/1"), ("1%41", "b1/1%41/1"), ("1%41", "b1/1A/1")]
)
async def test_an_id_is_known_plain_and_as_its_header_has_it(
    autojump_clock: MockClock, name: str, spelled: str
) -> None:
    """A connector says it as it read it, decoded or not."""
    async with open_bench() as bench:
        await bench.send(request(name))
        await come_back(bench, spelled)
        assert len(ids(bench)) == 2


async def test_a_request_that_waits_to_leave_is_not_sent_twice(autojump_clock: MockClock) -> None:
    """It leaves anyway: as soon as the queue moves, or as somebody subscribes."""
    async with open_bench(listening=False) as bench:
        await bench.send()
        sent = len(bench.requests)
        await come_back(bench, "b1/a/1")
        assert len(bench.requests) == sent
        assert bench.connectors.returned.counts["about to be sent"] == 1


async def test_nothing_is_sent_again_by_a_process_that_stops(autojump_clock: MockClock) -> None:
    """Neither for word that comes later, nor for word that waits."""
    async with open_bench() as bench:
        await bench.send()
        await come_back(bench, "b1/x/1")
        await come_back(bench, "b1/a/1")
        bench.connectors.returned.stop()
        await trio.sleep(2)
        await come_back(bench, "b1/a/1")
        await trio.sleep(2)
        assert ids(bench) == ["b1/a/1"]
        assert bench.connectors.returned.counts["this process is stopping"] == 2


async def test_a_flood_sends_nothing_more_than_once_a_second(autojump_clock: MockClock) -> None:
    """A connector that says so again and again gets its request as often as seconds pass."""
    async with open_bench() as bench:
        await bench.send()
        begun = trio.current_time()
        while trio.current_time() < begun + 5:
            await come_back(bench, *["b1/a/1"] * 3)
            await trio.sleep(0.01)
        assert 5 <= len(ids(bench)) - 1 <= 6


async def test_what_an_earlier_process_sent_is_sent_again_once_its_replies_are_known(
    autojump_clock: MockClock,
) -> None:
    """A captured reply may be there: until that is known the word of the connector is kept."""
    async with open_bench() as bench:
        call = bench.connectors.expect(request(), KEY)
        attempt = await bench.watch(call)
        await come_back(bench, "b1/a/1")
        await trio.sleep(10)
        assert ids(bench) == []
        bench.connectors.arm(call)
        await trio.sleep(2)
        assert ids(bench) == ["b1/a/1"]
        await bench.say(bench.requests[0].reply, reply(_state="completed"))
        assert attempt.outcome.completed


@pytest.mark.parametrize("later", [False, True])
async def test_what_was_sent_again_since_it_was_asked_for_is_not_sent_once_more(
    later: bool, autojump_clock: MockClock
) -> None:
    """As its build was taken over, for example; what a connector asks for after that is."""
    async with open_bench() as bench:
        call = bench.connectors.expect(request(), KEY)
        await bench.watch(call)
        bench.connectors.arm(call)
        await come_back(bench)  # Whoever comes now waits for a second.
        if not later:
            await come_back(bench, "b1/a/1")
        await trio.sleep(0.5)
        call.publish()
        await wait_all_tasks_blocked()
        assert ids(bench) == ["b1/a/1"]
        if later:
            await trio.sleep(0.1)
            await come_back(bench, "b1/a/1")
        await trio.sleep(5)
        assert len(ids(bench)) == 1 + later
        assert bench.connectors.returned.counts["sent again since"] == 1 - later


@pytest.mark.parametrize("away", [0.0, 5.0])
async def test_what_was_sent_again_since_and_lost_with_its_connection_is_sent_once_more(
    away: float, autojump_clock: MockClock
) -> None:
    """Whether the new connection is there when its turn comes, or later: the connector still waits for it."""
    async with open_bench() as bench:
        call = bench.connectors.expect(request(), KEY)
        await bench.watch(call)
        bench.connectors.arm(call)
        await come_back(bench)  # Whoever comes now waits for a second.
        await come_back(bench, "b1/a/1")
        await trio.sleep(0.5)
        bench.bus.lose = lambda message: message.subject == call.request.subject
        call.publish()
        await wait_all_tasks_blocked()
        bench.bus.lose = lambda _: False
        bench.bus.disconnect()
        await trio.sleep(away)
        bench.bus.reconnect()
        await trio.sleep(5)
        assert ids(bench) == ["b1/a/1"] * 2


async def test_what_was_taken_back_and_may_be_out_is_sent_again(autojump_clock: MockClock) -> None:
    """A build was halted while a second copy waited for the connection: that one never leaves."""
    async with open_bench() as bench:
        attempt = await bench.send()
        bench.bus.disconnect()
        attempt.call.publish()
        attempt.call.withdraw()
        bench.bus.reconnect()
        await trio.sleep(1)
        assert len(ids(bench)) == 1
        await come_back(bench, "b1/a/1")
        assert ids(bench) == ["b1/a/1"] * 2
        await bench.say(attempt.call.reply, reply(_state="completed"))
        assert attempt.outcome.completed


async def test_what_is_answered_in_the_meantime_is_forgotten(autojump_clock: MockClock) -> None:
    """The word of the connector is kept no longer than the attempt is open."""
    async with open_bench() as bench:
        call = bench.connectors.expect(request(), KEY)
        await bench.watch(call)
        await come_back(bench, "b1/a/1")
        await bench.say(call.reply, reply(_state="completed"))
        call.close()
        await trio.sleep(2)
        assert ids(bench) == []
        assert not bench.connectors.returned._waiting


async def test_a_connector_that_is_back_has_its_whole_time_to_beat(autojump_clock: MockClock) -> None:
    """The time without a heartbeat counts from the last sending."""
    async with open_bench(heartbeat=30) as bench:
        attempt = await bench.send()
        await trio.sleep(25)
        await come_back(bench, "b1/a/1")
        await trio.sleep(25)
        assert attempt.ended == []


async def test_a_connector_that_is_back_just_as_it_was_lost_has_its_time_again(
    autojump_clock: MockClock,
) -> None:
    """Its request is sent again, and not given up while the captured replies are looked at."""
    async with open_bench(heartbeat=30, timeout=100) as bench:
        expired: list[Call] = []
        bench.connectors.sending._on_expired = expired.append
        attempt = await bench.send()
        await trio.sleep(31)
        assert expired == [attempt.call]
        await come_back(bench, "b1/a/1")
        attempt.call.time_out()
        await trio.sleep(25)
        assert attempt.ended == []


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"5",
        b"{}",
        b'{"attempts": 5}',
        b'{"attempts": [5]}',
        b"[" * 5_000,
        b" " * 3 * 1024 * 1024,
        b'{"attempts": ["' + b'","' * 200_000 + b'"]}',
    ],
)
async def test_what_cannot_be_read_is_dropped(autojump_clock: MockClock, data: bytes) -> None:
    """It is counted and logged, and the next one counts."""
    async with open_bench() as bench:
        await bench.send()
        with capture_logs() as lines:
            bench.bus.deliver("scheduler.returned.aws", data)
            await wait_all_tasks_blocked()
        assert bench.connectors.returned.counts == {"malformed": 1}
        assert [one for one in lines if one["log_level"] == "warning"]
        await trio.sleep(1)
        await come_back(bench, "b1/a/1")
        assert len(ids(bench)) == 2


async def test_a_thousand_of_a_message_are_looked_at(autojump_clock: MockClock) -> None:
    """The rest is counted and dropped."""
    async with open_bench() as bench:
        await bench.send()
        await come_back(bench, *(f"b1/x{number}/1" for number in range(1_000)), "b1/a/1")
        assert ids(bench) == ["b1/a/1"]
        assert bench.connectors.returned.counts["beyond a thousand"] == 1


async def test_messages_wait_within_a_bound(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than can be looked at in a second are dropped."""
    monkeypatch.setattr(returned, "_MOST_MESSAGES", 3)
    async with open_bench() as bench:
        await bench.send()
        for _ in range(6):
            bench.bus.deliver("scheduler.returned.aws", b'{"attempts": ["b1/a/1"]}')
        await trio.sleep(3)
        assert len(ids(bench)) == 2
        assert bench.connectors.returned.counts["malformed"] == 3
