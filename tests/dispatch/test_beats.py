"""Heartbeats on their way in, and the attempts that fail without any."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

import json
from collections.abc import Sequence
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs
from support.bench import KEY, Attempt, Bench, open_bench, reply, request
from support.fake_bus import FakeBus, FakeListener, Published
from trio.testing import MockClock, wait_all_tasks_blocked

from scheduler.bus.outbox import Queued
from scheduler.definition.reply_subjects import beat_subject, interest, owner_of
from scheduler.dispatch.call import Call
from scheduler.dispatch.inherited import Inherited
from scheduler.dispatch.pulse import Pulse
from scheduler.errors import BusClosed
from scheduler.plan.outcome import failure


async def beat(bench: Bench, call: Call, data: bytes = b"", **said: Any) -> None:
    """Send a heartbeat for an attempt, as its connector does."""
    bench.bus.deliver(beat_subject(call.reply), json.dumps(said).encode() if said else data)
    await wait_all_tasks_blocked()


def pulse_of(call: Call) -> Pulse:
    assert call.pulse is not None
    return call.pulse


async def silence(bench: Bench, seconds: float) -> None:
    await trio.sleep(seconds)
    await wait_all_tasks_blocked()


async def beat_for(bench: Bench, call: Call, seconds: int) -> None:
    """Send a heartbeat each second."""
    for _ in range(seconds):
        await trio.sleep(1)
        await beat(bench, call)


# ---- what a heartbeat says


async def test_a_heartbeat_says_how_far_a_connector_is(bench: Bench) -> None:
    """Name, progress and message are kept beside the attempt, which goes on."""
    attempt = await bench.send()
    assert attempt.call.pulse is None
    await beat(bench, attempt.call, instance="c-7", progress=0.4, message="attaching")
    pulse = pulse_of(attempt.call)
    assert (pulse.instance, pulse.progress, pulse.message) == ("c-7", 0.4, "attaching")
    assert attempt.ended == []


@pytest.mark.parametrize(
    "body",
    [
        b'{"progress": 1}',
        b'{"_state": "completed", "service": "b1", "_component_id": "a"}',
        b'{"_state": "errored", "error": "x"}',
        b"",
    ],
)
async def test_no_heartbeat_ends_an_attempt(bench: Bench, body: bytes) -> None:
    """Whatever it says, it completes and fails nothing; the reply does."""
    attempt = await bench.send()
    await beat(bench, attempt.call, body)
    assert attempt.ended == []
    await bench.say(attempt.call.reply, reply(_state="completed"))
    assert attempt.outcome.completed


async def test_only_what_is_new_is_told(autojump_clock: MockClock) -> None:
    """A heartbeat that repeats the last one costs a watcher nothing."""
    told: list[Call] = []
    async with open_bench(on_beat=told.append) as bench:
        attempt = await bench.send()
        for progress in (0.1, 0.1, 0.2):
            await beat(bench, attempt.call, progress=progress)
        await beat(bench, attempt.call)
        assert told == [attempt.call] * 2


async def test_a_malformed_heartbeat_is_dropped_and_logged_without_its_token(bench: Bench) -> None:
    """It is counted, and not taken for a sign of life; who reads the log cannot answer for the connector."""
    attempt = await bench.send()
    with capture_logs() as lines:
        for _ in range(5):
            await beat(bench, attempt.call, b'{"progress": 7}')
    assert pulse_of(attempt.call).heard is None
    assert bench.connectors.beats.dropped == {"malformed": 5}
    [line] = [one for one in lines if one["event"].startswith("heartbeat dropped")]
    assert line["component"] == "a"
    assert attempt.call.token not in repr(lines)


async def test_a_heartbeat_for_no_attempt_in_flight_is_counted(bench: Bench) -> None:
    """One that comes after the reply, or with a token of nobody, changes nothing."""
    attempt = await bench.send()
    await bench.say(attempt.call.reply, reply(_state="completed"))
    await beat(bench, attempt.call)
    attempt.call.close()
    await beat(bench, attempt.call)
    assert bench.connectors.beats.dropped == {"for no attempt in flight": 2}
    assert bench.connectors.sending.pulses == {}


async def test_a_heartbeat_of_another_provider_is_none(bench: Bench) -> None:
    """The permissions of a connector end with its provider, and so does what it can say."""
    attempt = await bench.send()
    bench.bus.deliver(beat_subject(attempt.call.reply).replace(".aws.", ".gcp."), b"")
    await wait_all_tasks_blocked()
    assert attempt.call.pulse is None


async def test_a_second_connection_brings_heartbeats_too(autojump_clock: MockClock) -> None:
    """Where the first server does not hear the connector, the other one may."""
    listener = FakeListener()
    async with open_bench(listener=listener) as bench:
        attempt = await bench.send()
        listener.connect()
        listener.hear(beat_subject(attempt.call.reply), b'{"progress": 0.5}')
        assert pulse_of(attempt.call).progress == 0.5


# ---- their absence


@pytest.mark.parametrize("fields", [{"_heartbeat": 30}, {}])
async def test_a_request_says_within_what_time_a_heartbeat_has_to_come(
    autojump_clock: MockClock, fields: dict[str, Any]
) -> None:
    """By the component's own field, which goes before the setting; as short as it can be written."""
    async with open_bench(heartbeat=0.5) as bench:
        await bench.send(request(**fields))
        headers = bench.requests[0].headers
        assert headers is not None
        assert headers["Scheduler-Heartbeat-Within"] == ("30" if fields else "0.5")


async def test_nothing_changes_where_no_heartbeats_are_asked_for(autojump_clock: MockClock) -> None:
    """A connector that knows nothing of heartbeats has all of its time; one that stops, too."""
    async with open_bench() as bench:
        attempt = await bench.send()
        assert "Scheduler-Heartbeat-Within" not in (bench.requests[0].headers or {})
        await beat(bench, attempt.call)
        await silence(bench, 3_599)
        assert attempt.ended == []


@pytest.mark.parametrize("beats", [0, 100])
async def test_a_connector_without_a_heartbeat_is_lost(autojump_clock: MockClock, beats: int) -> None:
    """Its attempt fails when the time since the sending, or the last one, is over; it may be retried."""
    async with open_bench(heartbeat=30) as bench:
        attempt = await bench.send()
        await beat_for(bench, attempt.call, beats)
        await silence(bench, 29.9)
        assert attempt.ended == []
        await silence(bench, 0.2)
        assert attempt.failed.startswith("connector lost: no heartbeat for 30 s")
        assert attempt.outcome.retryable
        assert bench.connectors.dropped == {"connector_lost": 1}


async def test_a_reply_in_time_is_all_that_counts(autojump_clock: MockClock) -> None:
    """A component that is done before a heartbeat was due needs none."""
    async with open_bench(heartbeat=30) as bench:
        attempt = await bench.send()
        await silence(bench, 29)
        await bench.say(attempt.call.reply, reply(_state="completed"))
        attempt.call.close()
        await silence(bench, 100)
        assert attempt.outcome.completed
        assert bench.connectors.sending.pulses == {}


async def test_an_attempt_with_heartbeats_still_has_a_timeout(autojump_clock: MockClock) -> None:
    """A connector that only says that it works is not waited for without end."""
    async with open_bench(heartbeat=5, timeout=60) as bench:
        attempt = await bench.send()
        await beat_for(bench, attempt.call, 61)
        assert attempt.failed == "timed out after 60 s"


async def test_an_outage_does_not_count(autojump_clock: MockClock) -> None:
    """All of the time begins again with each connection: heartbeats of the outage are gone."""
    async with open_bench(heartbeat=30) as bench:
        attempt = await bench.send()
        await silence(bench, 25)
        bench.bus.disconnect()
        await silence(bench, 1_000)
        bench.bus.reconnect()
        await silence(bench, 28)
        assert attempt.ended == []
        await silence(bench, 5)
        assert attempt.failed.startswith("connector lost")


async def test_a_short_break_of_the_connection_counts_as_an_outage(autojump_clock: MockClock) -> None:
    """However short it is, a heartbeat may have been lost in it."""
    async with open_bench(heartbeat=30) as bench:
        attempt = await bench.send()
        await silence(bench, 29)
        bench.bus.disconnect()
        bench.bus.reconnect()
        await silence(bench, 29)
        assert attempt.ended == []


class SlowBus(FakeBus):
    """Answers questions late, or not at all, and shows when one was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = trio.Event()
        self.answers = trio.Event()
        self.error: BusClosed | None = None

    async def flush(self) -> None:
        self.asked.set()
        await self.answers.wait()
        if self.error is not None:
            raise self.error


async def test_a_heartbeat_that_we_have_not_read_yet_counts(autojump_clock: MockClock) -> None:
    """We may be late, not the connector: it is lost only when the broker has nothing more of it."""
    bus = SlowBus()
    async with open_bench(heartbeat=30, bus=bus) as bench:
        attempt = await bench.send()
        await bus.asked.wait()
        await beat(bench, attempt.call)
        bus.answers.set()
        await silence(bench, 29)
        assert attempt.ended == []
        await silence(bench, 2)
        assert attempt.failed.startswith("connector lost")


@pytest.mark.parametrize("error", [None, BusClosed("closed")])
async def test_a_broker_that_does_not_answer_is_no_fault_of_a_connector(
    autojump_clock: MockClock, error: BusClosed | None
) -> None:
    """A connection that hangs looks like silence: then the time begins again."""
    bus = SlowBus()
    async with open_bench(heartbeat=30, bus=bus) as bench:
        attempt = await bench.send()
        await bus.asked.wait()
        if error is not None:
            bus.error = error
            bus.answers.set()
        await silence(bench, 25)
        assert attempt.ended == []


async def test_a_heartbeat_while_the_captured_replies_are_looked_at_saves_the_attempt(
    autojump_clock: MockClock,
) -> None:
    """Between the end of the time and the failure a reply is looked for; a heartbeat in between counts."""
    async with open_bench(heartbeat=30, timeout=100) as bench:
        expired: list[Call] = []
        bench.connectors.sending._on_expired = expired.append
        attempt = await bench.send()
        await silence(bench, 31)
        assert expired == [attempt.call]
        await beat(bench, attempt.call)
        attempt.call.time_out()
        await silence(bench, 20)
        assert attempt.ended == []
        await silence(bench, 12)
        assert expired == [attempt.call] * 2
        attempt.call.time_out()
        await wait_all_tasks_blocked()
        assert attempt.failed.startswith("connector lost")


async def test_an_extension_gives_a_lost_connector_its_time_again(autojump_clock: MockClock) -> None:
    """An operator who gives more time in the last moment means this, too."""
    async with open_bench(heartbeat=30) as bench:
        expired: list[Call] = []
        bench.connectors.sending._on_expired = expired.append
        attempt = await bench.send()
        await silence(bench, 31)
        bench.connectors.extend(attempt.call, 10)
        attempt.call.time_out()
        await silence(bench, 29)
        assert attempt.ended == []
        assert len(expired) == 1


async def test_a_request_that_nobody_has_needs_no_heartbeat(autojump_clock: MockClock) -> None:
    """While no connector subscribes, none is lost: the request is repeated, and then that is the error."""
    async with open_bench(listening=False, heartbeat=0.5, start_timeout=10) as bench:
        attempt = await bench.send()
        await silence(bench, 9)
        assert attempt.ended == []
        await silence(bench, 2)
        assert attempt.failed == "no connector is subscribed to vpc.create.aws"


async def test_without_permission_to_hear_heartbeats_their_absence_fails_nothing(
    autojump_clock: MockClock,
) -> None:
    """Permissions of an earlier version keep nobody from working; the log names the cure."""
    bus = FakeBus()
    bus.forbidden = {"scheduler.beat.*.*.*", "scheduler.returned.*"}
    with capture_logs() as lines:
        async with open_bench(heartbeat=5, bus=bus) as bench:
            attempt = await bench.send()
            await silence(bench, 1_000)
            assert attempt.ended == []
            assert "Scheduler-Heartbeat-Within" not in (bench.requests[0].headers or {})
    cures = [one["cure"] for one in lines if one["log_level"] == "warning"]
    assert [cure for cure in cures if '"scheduler.beat.*.*.*"' in cure]
    assert [cure for cure in cures if '"scheduler.returned.*"' in cure]


async def test_a_thousand_connectors_are_judged_in_turns(autojump_clock: MockClock) -> None:
    """However many are lost at a time: each fails, and once."""
    async with open_bench(heartbeat=30) as bench:
        attempts = [Attempt(bench.connectors.send(request(f"c{number}"))) for number in range(1_000)]
        for attempt in attempts:
            bench.nursery.start_soon(attempt.run)
        await silence(bench, 40)
        assert [len(attempt.ended) for attempt in attempts] == [1] * 1_000


# ---- requests of an earlier process


async def resumed(bench: Bench, heard: Sequence[str]) -> Attempt:
    inherited = Inherited(heard=tuple(heard))
    call = bench.connectors.expect(request(), KEY, inherited=inherited)
    bench.connectors.arm(call)
    return await bench.watch(call)


async def test_a_heartbeat_for_an_earlier_process_counts(autojump_clock: MockClock) -> None:
    """The connector was told that process's subject; all of the time begins when it is taken over."""
    async with open_bench(heartbeat=30) as bench:
        bench.nursery.start_soon(bench.connectors.hearing.run)
        attempt = await resumed(bench, await bench.connectors.hear(["before"]))
        old = f"scheduler.beat.{owner_of('before')}.aws.{KEY}"
        await silence(bench, 29)
        bench.bus.deliver(old, b'{"instance": "c-7"}')
        await silence(bench, 29)
        assert attempt.ended == []
        await silence(bench, 2)
        assert attempt.failed.endswith("(the last one from c-7)")


async def test_where_an_earlier_process_s_heartbeats_are_not_heard_none_is_needed(
    autojump_clock: MockClock,
) -> None:
    """What cannot be heard says nothing by its absence: better late than made twice."""
    async with open_bench(heartbeat=30) as bench:
        bench.nursery.start_soon(bench.connectors.hearing.run)
        bench.bus.forbidden = {f"scheduler.beat.{owner_of('first')}.*.*"}
        heard = await bench.connectors.hear(["last", "first"])
        assert heard == (interest(owner_of("last")), interest(owner_of("first")))
        assert bench.connectors.hearing._holders.keys() == set(heard)
        attempt = await resumed(bench, heard)
        await silence(bench, 1_000)
        assert attempt.ended == []


async def test_where_the_earlier_subject_is_not_known_no_heartbeat_is_needed(
    autojump_clock: MockClock,
) -> None:
    """A store without a log knows no reply subject, and so none for heartbeats, until we send it again."""
    async with open_bench(heartbeat=30) as bench:
        call = bench.connectors.expect(request())
        bench.connectors.arm(call)
        attempt = await bench.watch(call)
        await silence(bench, 1_000)
        assert attempt.ended == []


async def test_who_gives_up_forgets_the_heartbeats(bench: Bench) -> None:
    """Nothing is kept of an attempt that is closed, however it ended."""
    attempt = await bench.send(request(_heartbeat=30))
    await beat(bench, attempt.call)
    attempt.call.deliver(failure("given up"))
    attempt.call.close(late=lambda *_: None)
    assert bench.connectors.sending.pulses == {}
    assert isinstance(bench.requests[0], Published)


async def test_an_extension_while_an_attempt_is_judged_leaves_it_one_timer(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise one of them would keep the call, and its build, after its end."""
    async with open_bench(heartbeat=5) as bench:
        attempt = await bench.send()
        flush = bench.bus.flush

        async def slow() -> None:
            await trio.sleep(1)
            await flush()

        monkeypatch.setattr(bench.bus, "flush", slow)
        await silence(bench, 5.5)
        bench.connectors.extend(attempt.call, 10)
        await silence(bench, 2)
        heap = bench.connectors.timers._heap
        looks = [timer for *_, timer in heap if not timer.cancelled and attempt.call in timer.args]
        assert len(looks) == 2  # that of the attempt, and that of its heartbeats


async def test_a_request_that_left_late_has_its_whole_time(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waited in our queue, behind others: its connector has only just received it."""
    async with open_bench(heartbeat=5) as bench:
        attempt = await bench.send()
        outgoing = attempt.call.outgoing
        assert isinstance(outgoing, Queued)
        flush, generation = bench.bus.flush, outgoing.generation

        async def leave() -> None:
            await trio.sleep(1)
            outgoing.generation = generation
            await flush()

        outgoing.generation = 0
        monkeypatch.setattr(bench.bus, "flush", leave)
        await silence(bench, 8)
        assert attempt.ended == []
        await silence(bench, 5)
        assert attempt.failed.startswith("connector lost")
