"""Large replies: read beside the loop, one at a time, within a bound."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

import pytest
from support.bench import SUBJECT, Bench, capture, open_bench, reply, request
from support.fakes import FakeExecutor, Gate, encode
from trio.testing import MockClock, wait_all_tasks_blocked

from scheduler.bus import Message


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
    assert (bench.connectors.reader._unread, bench.connectors.reader.bytes) == (size, size)
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
