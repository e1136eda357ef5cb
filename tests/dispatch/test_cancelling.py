"""Word to connectors that an attempt was given up."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

import json
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs
from support.bench import Bench, open_bench, reply, request
from trio.testing import MockClock, wait_all_tasks_blocked

from scheduler.dispatch import cancelling
from scheduler.plan.outcome import failure


def told(bench: Bench) -> list[tuple[str, dict[str, Any]]]:
    """What connectors were told, by subject."""
    published = [one for one in bench.bus.published if one.subject.startswith("scheduler.cancel.")]
    assert not [one for one in published if one.reply]
    return [(one.subject, json.loads(one.data)) for one in published]


async def test_a_timeout_is_told_to_connectors(autojump_clock: MockClock) -> None:
    """The message says which attempt of which component was given up, and why; a reply still counts."""
    async with open_bench() as bench:
        late: list[bool] = []
        attempt = await bench.send(request("a é", _timeout=5))
        await trio.sleep(5.1)
        attempt.call.close(late=lambda _, outcome: late.append(outcome.completed))
        assert told(bench) == [
            (
                "scheduler.cancel.vpc.create.aws",
                {
                    "attempt": "b1/a é/1",
                    "key": "b1/a é",
                    "build": "b1",
                    "component": "a é",
                    "reason": "timed out after 5 s",
                },
            )
        ]
        await bench.say(attempt.call.reply, reply(_component_id="a é", _state="completed"))
        assert late == [True]


async def test_the_loss_of_a_connector_is_told_to_all_of_them(autojump_clock: MockClock) -> None:
    """It may have been cut off from us only, and still work."""
    async with open_bench(heartbeat=5) as bench:
        await bench.send()
        await trio.sleep(6)
        [(_, said)] = told(bench)
        assert said["reason"] == "connector lost: no heartbeat for 5 s (it never sent one)"


async def test_what_nobody_can_have_is_not_cancelled(autojump_clock: MockClock) -> None:
    """Of a request that never left, or that nobody received, there is nothing to say."""
    async with open_bench(listening=False) as bench:
        unheard = await bench.send(request("a"))
        bench.bus.disconnect()
        queued = await bench.send(request("b"))
        for attempt in (unheard, queued):
            bench.connectors.give_up(attempt.call, "x")
        bench.bus.reconnect()
        await wait_all_tasks_blocked()
        assert told(bench) == []


async def test_what_an_earlier_process_sent_is_cancelled(bench: Bench) -> None:
    """It may have left: that is enough."""
    bench.connectors.give_up(bench.connectors.expect(request()), "x")
    await wait_all_tasks_blocked()
    assert [said["reason"] for _, said in told(bench)] == ["x"]


async def test_a_message_that_cannot_leave_is_logged_and_no_more(bench: Bench) -> None:
    """Nothing depends on it: here the message is larger than the broker takes."""
    attempt = await bench.send()
    bench.bus.max_payload = 50
    with capture_logs() as lines:
        bench.connectors.give_up(attempt.call, "x")
        await wait_all_tasks_blocked()
    assert [one["component"] for one in lines if one["log_level"] == "warning"] == ["a"]
    assert told(bench) == []


async def test_thousands_are_told_in_turns(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others have a turn after each hundred; beyond a bound the rest is left out, and logged."""
    monkeypatch.setattr(cancelling, "_MOST", 950)
    calls = [bench.connectors.send(request(f"c{number}")) for number in range(1_000)]
    await wait_all_tasks_blocked()
    with capture_logs() as lines:
        for call in calls:
            assert call.deliver(failure("given up"))
            bench.connectors.give_up(call, "x" * 2_000)
    most = 0
    with trio.move_on_after(5):
        while len(told(bench)) < 950:
            before = len(told(bench))
            await trio.lowlevel.checkpoint()
            most = max(most, len(told(bench)) - before)
    assert len(told(bench)) == 950
    # Up to three turns between two looks: tasks run in any order, and so does what brings messages on.
    assert most <= 300
    assert len(told(bench)[0][1]["reason"].encode()) <= 1_024
    assert [one for one in lines if "too many" in one["event"]]
