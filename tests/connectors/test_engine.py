"""A connector at work, on a bus in memory."""

# ruff: noqa: ARG001 - a test asks for the clock by naming it

from typing import Any

import attrs
import pytest
import trio
from support.connecting import JSON, open_connector
from support.fake_bus import FakeBus
from trio.testing import MockClock, wait_all_tasks_blocked

from scheduler.connectors import Connectors, Context, MemoryStore, Permanent, Retry
from scheduler.errors import NotPermitted


@attrs.define
class Vpc:
    name: str = ""
    vpc_id: str = ""


@pytest.fixture
def connectors() -> Connectors:
    return Connectors("aws", concurrency=2, instance="host-1")


async def test_a_request_is_answered_with_what_the_handler_returned(
    connectors: Connectors, fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    """The reply is the component with the handler's fields, completed, on the request's reply subject."""

    @connectors.create("vpc")
    async def create(request: Vpc, context: Context) -> Vpc:
        return attrs.evolve(request, vpc_id=f"{context.build} {context.component} {context.key}")

    async with open_connector(connectors, fake_bus) as peer:
        to = peer.ask(body={"name": "a", "unknown": 2**70})
        reply = await peer.reply(to)
    assert reply == {
        "service": "b", "_component_id": "vpc::a", "_component": "vpc", "_action": "create",
        "_provider": "aws", "_state": "completed", "name": "a", "unknown": 2**70, "vpc_id": "b vpc::a b/a",
    }  # fmt: skip


async def test_ids_are_not_the_handlers_to_change(
    connectors: Connectors, fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    """A reply is about the component that was asked for, whatever the handler returns."""

    @connectors.create("vpc")
    async def create() -> JSON:
        return {"service": "x", "_component_id": "x", "_component": "x", "_action": "x", "_state": "errored"}

    async with open_connector(connectors, fake_bus) as peer:
        reply = await peer.reply(peer.ask())
    assert (reply["service"], reply["_component_id"], reply["_state"]) == ("b", "vpc::a", "completed")


@pytest.mark.parametrize("fails", [False, True])
async def test_without_a_reply_subject_the_answer_goes_to_the_shared_one(
    connectors: Connectors, fake_bus: FakeBus, autojump_clock: MockClock, *, fails: bool
) -> None:
    """An Ernest scheduler listens there."""

    @connectors.create("vpc")
    async def create() -> None:
        if fails:
            raise Permanent("quota")

    async with open_connector(connectors, fake_bus) as peer:
        peer.ask(reply=False)
        await peer.reply(f"vpc.create.aws.{'error' if fails else 'done'}")


async def test_a_reply_subject_that_could_be_something_else_is_not_used(
    connectors: Connectors, fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    """Whoever sends requests cannot publish with the rights of the connector."""

    @connectors.create("vpc")
    async def create() -> None: ...

    async with open_connector(connectors, fake_bus) as peer:
        headers = {"Scheduler-Heartbeat": "build.create.done"}
        fake_bus.deliver("vpc.create.aws", b"{}", reply="build.create.done", headers=headers)
        await peer.reply("vpc.create.aws.done")
    assert not [message for message in fake_bus.published if message.subject == "build.create.done"]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (Permanent("quota"), {"error": "quota", "retryable": False}),
        (Retry("throttled", after=30), {"error": "throttled", "retry_after": 30}),
        (Retry(), {"error": "the connector asks for another attempt"}),
        (ValueError("no"), {"error": "ValueError: no"}),
        (KeyError(), {"error": "KeyError"}),
        (SystemExit(3), {"error": "SystemExit: 3"}),
        (ExceptionGroup("one", [Permanent("quota")]), {"error": "quota", "retryable": False}),
        (
            ExceptionGroup("two", [Permanent("quota"), ValueError("no")]),
            {"error": "ExceptionGroup: two (2 sub-exceptions)"},
        ),
    ],
)
async def test_what_a_handler_raises_is_the_error(
    connectors: Connectors,
    fake_bus: FakeBus,
    autojump_clock: MockClock,
    error: BaseException,
    expected: JSON,
) -> None:
    """An exception fails the component with its type and text; some say whether to try again."""

    @connectors.create("vpc")
    async def create() -> None:
        raise error

    async with open_connector(connectors, fake_bus) as peer:
        reply = await peer.reply(peer.ask(body={"name": "a", "error": "old", "retryable": False}))
    assert {key: reply[key] for key in reply if key in ("error", "retryable", "retry_after")} == expected
    assert (reply["_state"], reply["name"]) == ("errored", "a")


async def test_a_long_error_is_cut(
    connectors: Connectors, fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    """An error text takes at most 64 KiB, mark included."""

    @connectors.create("vpc")
    async def create() -> None:
        raise ValueError("é" * 100_000)

    async with open_connector(connectors, fake_bus) as peer:
        error = (await peer.reply(peer.ask()))["error"]
    assert len(error.encode()) <= 64 * 1024
    assert error.endswith(" ... (cut: 200012 bytes)")


async def test_a_request_that_does_not_fit_is_not_tried_again(
    connectors: Connectors, fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    """A mistyped field is an error with its place, before the handler is called."""

    @connectors.create("vpc")
    async def create(request: Vpc) -> None: ...

    async with open_connector(connectors, fake_bus) as peer:
        reply = await peer.reply(peer.ask(body={"name": 5}))
        assert reply["error"] == "name: expected a text, got a number"
        assert reply["retryable"] is False
        broken = await peer.reply(peer.ask(body=b"[1]", attempt="2", key="2"))
        assert broken["error"] == "the request is a list, not a component"
        assert broken["_component"] == "vpc"


async def test_a_reply_that_the_broker_does_not_take_is_an_error(
    connectors: Connectors, autojump_clock: MockClock
) -> None:
    """A component that grew too large fails with words that say so."""
    bus = FakeBus(max_payload=4_096)

    @connectors.create("vpc")
    async def create() -> JSON:
        return {"text": "x" * 10_000}

    async with open_connector(connectors, bus) as peer:
        reply = await peer.reply(peer.ask(body={"name": "y" * 4_000}))
    assert reply["error"].startswith("the reply takes ")
    assert "max_payload of 4,096" in reply["error"]
    assert "name" not in reply


async def test_a_find_returns_a_list_of_components(
    connectors: Connectors, fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    """Each element gets the ids that it lacks, and needs one of its own."""

    @connectors.find("vpc")
    async def find(request: JSON) -> list[JSON]:
        return [{"_component_id": f"vpc::{name}", "name": name} for name in request["names"]] or [{}]

    async with open_connector(connectors, fake_bus) as peer:
        reply = await peer.reply(peer.ask("vpc.find.aws", {"names": ["x"]}))
        (found,) = reply["components"]
        assert found == {
            "service": "b", "_component": "vpc", "_provider": "aws", "_state": "completed",
            "_component_id": "vpc::x", "name": "x",
        }  # fmt: skip
        bad = await peer.reply(peer.ask("vpc.find.aws", {"names": []}, attempt="2", key="2"))
        assert bad["error"] == "the handler's components[0] has no _component_id"


async def test_calls_at_a_time_are_bounded_and_the_rest_waits(
    connectors: Connectors, fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    """Of five requests two run at a time, and all are answered."""
    running, most = 0, 0

    @connectors.create("vpc")
    async def create() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await trio.sleep(5)
        running -= 1

    async with open_connector(connectors, fake_bus) as peer:
        for number in range(5):
            peer.ask(attempt=f"{number}", key=f"{number}")
        await trio.sleep(14)
        assert len(peer.replies()) == 4
        await trio.sleep(2)
        assert len(peer.replies()) == 5
    assert most == 2


async def test_an_attempt_for_what_is_worked_on_joins(
    connectors: Connectors, fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    """The handler runs once for two attempts with one key, and both are answered."""
    calls = 0

    @connectors.create("vpc")
    async def create() -> None:
        nonlocal calls
        calls += 1
        await trio.sleep(1)

    async with open_connector(connectors, fake_bus) as peer:
        first, second = peer.ask(attempt="1"), peer.ask(attempt="2")
        await trio.sleep(2)
        assert calls == len(peer.replies(first)) == len(peer.replies(second)) == 1


async def test_what_was_completed_is_answered_from_the_record(
    connectors: Connectors, fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    """The handler is not called again for a key that was done."""
    calls = 0

    @connectors.create("vpc")
    async def create() -> JSON:
        nonlocal calls
        calls += 1
        return {"call": calls}

    async with open_connector(connectors, fake_bus) as peer:
        await peer.reply(peer.ask(attempt="1"))
        assert (await peer.reply(peer.ask(attempt="2")))["call"] == 1


async def test_what_failed_is_tried_again(
    connectors: Connectors, fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    """Failures are not remembered."""
    calls = 0

    @connectors.create("vpc")
    async def create() -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ValueError

    async with open_connector(connectors, fake_bus) as peer:
        assert (await peer.reply(peer.ask(attempt="1")))["_state"] == "errored"
        assert (await peer.reply(peer.ask(attempt="2")))["_state"] == "completed"


async def test_a_cancelled_handler_is_ended_and_answers_why(
    connectors: Connectors, fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    """The scope around it is cancelled, its clean-up runs, and no retry is wanted."""
    cleaned: list[str] = []

    @connectors.create("vpc")
    async def create(context: Context) -> None:
        try:
            await trio.sleep_forever()
        finally:
            cleaned.append(context.cancelled.reason)

    async with open_connector(connectors, fake_bus) as peer:
        to = peer.ask()
        await wait_all_tasks_blocked()
        peer.cancel(reason="cancel --now")
        reply = await peer.reply(to)
    assert (reply["error"], reply["retryable"]) == ("cancelled: cancel --now", False)
    assert cleaned == ["cancel --now"]


async def test_a_cancelled_handler_whose_clean_up_fails_was_cancelled_all_the_same(
    connectors: Connectors, fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    """Also where one of its tasks fails and another is cancelled."""

    async def fail() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("while it ends")

    @connectors.create("vpc")
    async def create() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            nursery.start_soon(trio.sleep_forever)

    async with open_connector(connectors, fake_bus) as peer:
        to = peer.ask()
        await wait_all_tasks_blocked()
        peer.cancel()
        assert (await peer.reply(to))["error"] == "cancelled: why"


async def test_an_attempt_with_letters_beyond_ascii_can_be_cancelled(
    connectors: Connectors, fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    """The notice has its id as the header of the request has it: percent-encoded."""

    @connectors.create("vpc")
    async def create() -> None:
        await trio.sleep_forever()

    async with open_connector(connectors, fake_bus) as peer:
        to = peer.ask(attempt="b/vpc::k%C3%B6ln/1")
        await wait_all_tasks_blocked()
        peer.cancel("b/vpc::k%C3%B6ln/1")
        with trio.fail_after(60):
            assert (await peer.reply(to))["_state"] == "errored"


async def test_a_handler_that_wants_a_flag_may_finish(
    connectors: Connectors, fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    """With on_cancel="flag" it decides itself, and its result counts."""

    @connectors.create("vpc", on_cancel="flag")
    async def create(context: Context) -> JSON:
        assert not context.cancelled
        reason = await context.cancelled
        return {"flag": bool(context.cancelled), "reason": reason}

    async with open_connector(connectors, fake_bus) as peer:
        to = peer.ask()
        await wait_all_tasks_blocked()
        peer.cancel(reason="why")
        reply = await peer.reply(to)
    assert (reply["_state"], reply["flag"], reply["reason"]) == ("completed", True, "why")


async def test_one_cancelled_attempt_of_two_cancels_nothing(
    connectors: Connectors, fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    """Somebody still waits for the work."""

    @connectors.create("vpc")
    async def create() -> None:
        await trio.sleep(5)

    async with open_connector(connectors, fake_bus) as peer:
        peer.ask(attempt="1")
        to = peer.ask(attempt="2")
        await wait_all_tasks_blocked()
        peer.cancel("1")
        assert (await peer.reply(to))["_state"] == "completed"


async def test_a_retry_after_a_cancellation_begins_when_that_has_ended(
    connectors: Connectors, fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    """The two never act at the same time, and the second does not get the first one's end."""
    running = 0

    @connectors.create("vpc")
    async def create() -> None:
        nonlocal running
        running += 1
        assert running == 1
        try:
            await trio.sleep(1)
            with trio.CancelScope(shield=True):
                await trio.sleep(5)
        finally:
            running -= 1

    async with open_connector(connectors, fake_bus) as peer:
        first = peer.ask(attempt="1")
        await trio.sleep(2)
        peer.cancel("1", "timeout")
        await wait_all_tasks_blocked()
        second = peer.ask(attempt="2")
        assert (await peer.reply(second))["_state"] == "completed"
        assert peer.replies(first)


async def test_a_waiting_request_that_is_cancelled_is_answered_at_once(
    connectors: Connectors, fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    """It never begins."""
    calls = 0

    @connectors.create("vpc", concurrency=1)
    async def create() -> None:
        nonlocal calls
        calls += 1
        await trio.sleep(50)

    async with open_connector(connectors, fake_bus) as peer:
        peer.ask(attempt="1", key="1")
        to = peer.ask(attempt="2", key="2", body={"name": "x"})
        await wait_all_tasks_blocked()
        peer.cancel("2", "cancel --now")
        reply = await peer.reply(to)
        assert (reply["error"], reply["name"]) == ("cancelled: cancel --now", "x")
    assert calls == 1


async def test_a_handler_that_takes_too_long_is_ended(
    connectors: Connectors, fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    """Its timeout is an error that the scheduler's rules judge, and beats do not keep it alive."""

    @connectors.create("vpc", timeout=60)
    async def create() -> None:
        await trio.sleep_forever()

    async with open_connector(connectors, fake_bus) as peer:
        to = peer.ask()
        await trio.sleep(59)
        assert peer.replies() == []
        await trio.sleep(2)
        (reply,) = peer.replies(to)
        beats = len(peer.beats())
        await trio.sleep(60)
        assert len(peer.beats()) == beats
    assert reply["error"] == "create has not returned within 60 s"
    assert "retryable" not in reply


async def test_beats_come_while_a_request_waits_and_while_it_is_worked_on(
    connectors: Connectors, fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    """A request in line is alive; one that begins says so at once, and its progress as well."""

    @connectors.create("vpc", concurrency=1)
    async def create(context: Context) -> None:
        await trio.sleep(25)
        context.progress(0.5, "half")
        await trio.sleep(5)

    async with open_connector(connectors, fake_bus) as peer:
        peer.ask(attempt="1", key="1", token="first")
        peer.ask(attempt="2", key="2", token="second")
        await trio.sleep(29)
        by_token = {
            token: [m for m in fake_bus.published if m.subject == f"scheduler.beat.o.aws.{token}"]
            for token in ("first", "second")
        }
        assert len(by_token["first"]) == 4
        assert len(by_token["second"]) == 2
        assert {"instance": "host-1", "progress": 0.5, "message": "half"} in peer.beats()
        await trio.sleep(60)
        assert len(peer.replies()) == 2


@pytest.mark.parametrize(("within", "beats"), [("", 0), ("30", 1)])
async def test_a_short_call_beats_only_where_the_scheduler_counts_on_it(
    connectors: Connectors, fake_bus: FakeBus, autojump_clock: MockClock, within: str, beats: int
) -> None:
    """Most calls would send a message more for nothing."""

    @connectors.create("vpc")
    async def create() -> None:
        await trio.sleep(0.4)

    async with open_connector(connectors, fake_bus) as peer:
        await peer.reply(peer.ask(headers={"Scheduler-Heartbeat-Within": within}))
        assert len(peer.beats()) == beats


async def test_a_scheduler_that_wants_more_beats_gets_them(
    connectors: Connectors, fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    """The header says within how many seconds one has to come."""

    @connectors.create("vpc")
    async def create() -> None:
        await trio.sleep(10.5)

    async with open_connector(connectors, fake_bus) as peer:
        await peer.reply(peer.ask(headers={"Scheduler-Heartbeat-Within": "3"}))
        assert len(peer.beats()) == 11


async def test_what_waits_is_refused_at_the_end_and_what_is_begun_ends(
    connectors: Connectors, fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    """A stop loses no request: each has a reply that says what became of it."""

    @connectors.create("vpc", concurrency=1)
    async def create() -> None:
        await trio.sleep(20)

    async with open_connector(connectors, fake_bus) as peer:
        first = peer.ask(attempt="1", key="1")
        second = peer.ask(attempt="2", key="2")
        await wait_all_tasks_blocked()
        peer.engine.stopping.set()
        refused = await peer.reply(second)
        assert (refused["error"], refused["retry_after"]) == ("the connector is stopping", 1)
        assert peer.replies(first) == []
    (reply,) = peer.replies(first)
    assert reply["_state"] == "completed"
    assert fake_bus.subjects == []


async def test_what_does_not_end_in_time_is_interrupted(
    connectors: Connectors, fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    """After the drain calls are cancelled, and their requests may come again."""

    @connectors.create("vpc")
    async def create() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(100)

    @connectors.delete("vpc")
    async def delete() -> None:
        await trio.sleep_forever()

    began = trio.current_time()
    async with open_connector(connectors, fake_bus, drain=5) as peer:
        stubborn, obedient = peer.ask(), peer.ask("vpc.delete.aws", attempt="2")
        await wait_all_tasks_blocked()
        peer.engine.stopping.set()
        for to in (obedient, stubborn):
            reply = await peer.reply(to)
            assert (reply["error"], reply["retry_after"]) == ("the connector stopped before it was done", 1)
        assert trio.current_time() - began < 10


async def test_a_cancelled_run_ends_in_order(
    connectors: Connectors, fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    """Cancellation from outside is a stop, not a loss."""

    @connectors.create("vpc")
    async def create() -> None:
        await trio.sleep(5)

    with trio.CancelScope() as scope:
        async with open_connector(connectors, fake_bus) as peer:
            to = peer.ask()
            await wait_all_tasks_blocked()
            scope.cancel()
            await trio.sleep_forever()
    (reply,) = peer.replies(to)
    assert reply["_state"] == "completed"


async def test_a_hurried_stop_waits_for_nothing(
    connectors: Connectors, fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    """The second signal ends it within seconds."""

    @connectors.create("vpc")
    async def create() -> None:
        await trio.sleep_forever()

    began = trio.current_time()
    async with open_connector(connectors, fake_bus, drain=1_000) as peer:
        peer.ask()
        await wait_all_tasks_blocked()
        peer.engine.stopping.set()
        await trio.sleep(1)
        peer.engine.hurry()
    assert trio.current_time() - began < 5


async def test_a_reply_waits_for_the_broker_and_its_reader_to_be_back(
    connectors: Connectors, fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    """A result of an outage is sent three seconds after it is back, and again later."""

    @connectors.create("vpc")
    async def create() -> None:
        await trio.sleep(5)

    async with open_connector(connectors, fake_bus) as peer:
        to = peer.ask()
        await trio.sleep(1)
        fake_bus.disconnect()
        await trio.sleep(10)
        fake_bus.reconnect()
        assert (await peer.reply(to))["_state"] == "completed"
        await trio.sleep(11)
        assert len(peer.replies(to)) == 1
        await trio.sleep(100)
        assert len(peer.replies(to)) == 2


async def test_a_store_that_fails_refuses_requests_for_the_moment(
    fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    """Without its record the connector does not act: it could act twice."""

    class Broken(MemoryStore):
        async def begin(self, key: str, attempt: str) -> Any:
            raise OSError("disk full")

    connectors = Connectors("aws", store=Broken())
    calls = 0

    @connectors.create("vpc")
    async def create() -> None:
        nonlocal calls
        calls += 1

    async with open_connector(connectors, fake_bus) as peer:
        reply = await peer.reply(peer.ask())
        assert reply["error"] == "the connector's record cannot be used: OSError: disk full"
        assert reply["retry_after"] == 5
        assert (await peer.reply(peer.ask(key="", attempt="2")))["_state"] == "completed"
    assert calls == 1


class Spy(MemoryStore):
    """A record that tells what it was asked."""

    durable = True

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    async def begin(self, key: str, attempt: str) -> Any:
        self.asked.append(f"begin {attempt}")
        return await super().begin(key, attempt)

    async def complete(self, key: str, reply: bytes) -> None:
        self.asked.append("complete")
        await super().complete(key, reply)

    async def forget(self, key: str) -> None:
        self.asked.append("forget")
        await super().forget(key)


async def test_the_record_is_told_the_end_of_what_was_begun_and_of_nothing_else(
    fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    """A failure is forgotten, a success completed once, and an answer from the record changes nothing."""
    connectors = Connectors("aws", store=(spy := Spy()))
    calls = 0

    @connectors.create("vpc")
    async def create() -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ValueError

    async with open_connector(connectors, fake_bus) as peer:
        for number in range(1, 4):
            await peer.reply(peer.ask(attempt=f"{number}"))
        await peer.reply(peer.ask(body=b"no JSON", attempt="4"))
    assert spy.asked == ["begin 1", "forget", "begin 2", "complete", "begin 3"]


async def test_a_further_attempt_is_recorded_as_the_one_in_flight(
    fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    """After a crash the scheduler sends the latest attempt again, and no other."""
    connectors = Connectors("aws", store=(spy := Spy()))

    @connectors.create("vpc")
    async def create() -> None:
        await trio.sleep(5)

    async with open_connector(connectors, fake_bus) as peer:
        peer.ask(attempt="1")
        await wait_all_tasks_blocked()
        await peer.reply(peer.ask(attempt="2"))
    assert spy.asked == ["begin 1", "begin 2", "complete"]


async def test_a_stop_while_the_broker_is_away_does_not_wait_for_it(
    connectors: Connectors, fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    """A connector that never came to its subscriptions ends at once."""
    fake_bus.disconnect()

    @connectors.create("vpc")
    async def create() -> None: ...

    with trio.fail_after(10), trio.move_on_after(1):
        await connectors.run(bus=fake_bus, signals=False)


async def test_a_success_that_cannot_be_recorded_is_answered_all_the_same(
    fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    """The answer is worth more than its record; a record that hangs has ten seconds."""

    class Hanging(MemoryStore):
        async def complete(self, key: str, reply: bytes) -> None:
            await trio.sleep_forever()

    connectors = Connectors("aws", store=Hanging())

    @connectors.create("vpc")
    async def create() -> None: ...

    began = trio.current_time()
    async with open_connector(connectors, fake_bus) as peer:
        assert (await peer.reply(peer.ask()))["_state"] == "completed"
        assert 10 <= trio.current_time() - began < 11


async def test_a_forbidden_subscription_ends_the_run(
    connectors: Connectors, fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    """A connector that would hear nothing says so, with the subject."""
    fake_bus.forbidden.add("vpc.create.aws")

    @connectors.create("vpc")
    async def create() -> None: ...

    with pytest.raises(NotPermitted, match=r"vpc\.create\.aws"):
        await connectors.run(bus=fake_bus, signals=False)


async def test_a_connector_that_may_not_hear_cancellations_works(
    connectors: Connectors, fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    """Older permissions do not name that subject."""
    fake_bus.forbidden.add("scheduler.cancel.>")

    @connectors.create("vpc")
    async def create() -> None: ...

    async with open_connector(connectors, fake_bus) as peer:
        assert (await peer.reply(peer.ask()))["_state"] == "completed"


async def test_ids_that_are_not_ascii_arrive_as_they_are(
    connectors: Connectors, fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    """Headers are percent-encoded; the handler, the record and the cancellation know the ids themselves."""
    seen: list[str] = []

    @connectors.create("vpc")
    async def create(context: Context) -> None:
        seen.extend([context.key, context.attempt])
        await trio.sleep_forever()

    async with open_connector(connectors, fake_bus) as peer:
        to = peer.ask(key="b/%C3%A9", attempt="b/%C3%A9/1")
        await wait_all_tasks_blocked()
        peer.cancel("b/é/1")
        assert (await peer.reply(to))["error"] == "cancelled: why"
    assert seen == ["b/é", "b/é/1"]
