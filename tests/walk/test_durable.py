"""The walk of one build on a store that keeps things in order: what is noted, awaited, sent again, lost."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from support.fake_bus import Published
from support.fakes import (
    JSON,
    Gate,
    Reply,
    Script,
    World,
    change,
    document,
    ignore,
    open_world,
    prepare,
    started,
    states,
    succeed,
)
from support.walks import OrderedStore
from trio.testing import MockClock, wait_all_tasks_blocked

from scheduler.definition.model import Resend
from scheduler.definition.reply_subjects import Tokens
from scheduler.errors import Fenced, StoreError
from scheduler.journal.events import Event, Finished, Sent, Settled, Started
from scheduler.journal.records import Position
from scheduler.plan import Plan
from scheduler.walk import Resending, Resumption, Walk

KEY = "0123456789abcdef0123456789abcdef"
UNKNOWN = "outcome unknown"


class Run:
    """A walk, and its end."""

    def __init__(
        self,
        world: World,
        plan: Plan,
        store: OrderedStore,
        resumption: Resumption | None,
        resending: Resending,
    ) -> None:
        self.world = world
        self.plan = plan
        self.store = store
        self.walk = Walk(
            plan,
            world.connectors,
            store,
            world.slots,
            key=KEY,
            resumption=resumption,
            resending=resending,
            executor=world.executor,
        )
        self.ends = 0
        self.report: JSON | None = None

    async def go(self) -> None:
        report = await self.walk.run()
        self.report = None if report is None else json.loads(b"".join(report.chunks()))
        self.ends += 1

    @property
    def asked(self) -> list[str]:
        return self.world.cloud.asked

    def answer(self, name: str, reply: Reply | None = None) -> None:
        self.world.cloud.answer(name, reply)

    def reply_of(self, name: str) -> str:
        """The reply subject of the first attempt of a component."""
        return f"{self.world.connectors.replies}aws.{Tokens(KEY).of(f'b1/{name}/1')}"

    @property
    def done(self) -> JSON:
        """The one report there is."""
        assert self.ends == 1
        assert self.report is not None
        return self.report

    @property
    def left(self) -> bool:
        """Whether it ended without a report, and nothing of it stays here."""
        assert self.world.slots.taken == 0
        assert self.world.connectors.router.by_component == {}
        return self.ends == 1 and self.report is None


@asynccontextmanager
async def open_run(
    value: JSON,
    *events: Event,
    script: Script = ignore,
    resumption: Resumption | None = None,
    resend: Resend = Resend.UNSENT,
    store: OrderedStore | None = None,
    **options: Any,
) -> AsyncIterator[Run]:
    """A build that runs; where a resumption is given, what an earlier process said of it are the events."""
    store = store or OrderedStore()
    async with open_world(script=script, store=store, **options) as world, trio.open_nursery() as nursery:
        plan = Plan(prepare(value))
        for event in events:
            plan.replay(event)
        run = Run(world, plan, store, resumption, lambda _: resend)
        nursery.start_soon(run.go)
        await wait_all_tasks_blocked()
        yield run
        nursery.cancel_scope.cancel()


def travel(*ages: float, after: Position | None = None) -> Resumption:
    """An earlier process began the build, and its components are in flight for so many seconds."""
    return Resumption(trio.Event(), after or Position(), dict(enumerate(ages)))


async def arrive(resumption: Resumption) -> None:
    """What was captured has been read."""
    resumption.caught_up.set()
    await wait_all_tasks_blocked()


def start(name: str) -> Started:
    return Started(name, f"b1/{name}/1", b"")


def sent(name: str) -> Sent:
    return Sent(name, f"b1/{name}/1")


CHAIN = document("ab", [("a", "b")])


# ---- what is noted, and what is awaited


async def test_an_outcome_is_told_with_the_start_that_follows_from_it() -> None:
    """The dependent's start is told right behind it: together they take one commit."""
    async with open_run(CHAIN) as run:
        assert run.store.committed == ["started a"]
        gate = run.store.hold(started("b"))
        run.answer("a")
        await wait_all_tasks_blocked()
        assert run.store.told == ["started a", "settled a", "started b"]
        assert run.store.committed == ["started a"]
        assert run.asked == ["a"]
        gate.open()
        await wait_all_tasks_blocked()
        assert run.store.committed == ["started a", "settled a", "started b"]
        assert run.asked == ["a", "b"]


async def test_no_request_leaves_before_its_start_is_persisted() -> None:
    """Write-ahead: a process that dies in between has the next one know of it."""
    store = OrderedStore()
    gate = store.hold(started("a"))
    async with open_run(CHAIN, store=store) as run:
        assert run.store.told == ["started a"]
        assert run.asked == []
        gate.open()
        await wait_all_tasks_blocked()
        assert run.asked == ["a"]


async def test_many_dependents_are_told_behind_one_outcome() -> None:
    """In whatever order they come."""
    names = [f"c{number}" for number in range(120)]
    async with open_run(document(["a", *names], [("a", name) for name in names])) as run:
        run.answer("a")
        await wait_all_tasks_blocked()
        assert run.store.told[1] == "settled a"
        assert sorted(run.store.told[2:]) == sorted(f"started {name}" for name in names)
        assert sorted(run.asked[1:]) == sorted(names)


async def test_the_end_is_awaited() -> None:
    """There is no report before it is committed that the build is over."""
    async with open_run(document("a")) as run:
        gate = run.store.hold(lambda event: isinstance(event, Finished))
        run.answer("a")
        await wait_all_tasks_blocked()
        assert run.ends == 0
        gate.open()
        await wait_all_tasks_blocked()
        assert states(run.done) == {"a": "completed"}
        assert run.store.committed == ["started a", "settled a", "finished"]


async def test_each_departure_is_told_with_its_attempt(autojump_clock: MockClock) -> None:
    """Whenever a request is handed to the bus, so that the log can say that it has left."""
    async with open_run(document("a"), cloud=False) as run:
        await trio.sleep(3)
        told = run.store.departures
        assert len(told) == len(run.world.sent) > 1
        assert {event for event, _ in told} == {sent("a")}
        assert len({id(departure) for _, departure in told}) == 1


async def test_reply_subjects_are_made_of_the_builds_key() -> None:
    """The next process, which has the key from the log, knows them again."""
    async with open_run(document("ab")) as run:
        replies = {message.reply for message, _ in run.world.cloud.requests}
        assert replies == {run.reply_of("a"), run.reply_of("b")}
        assert not any(KEY in reply for reply in replies)


async def test_a_late_success_is_noted(autojump_clock: MockClock) -> None:
    """What comes after a timeout is kept beside the error, before the end is told."""
    async with open_run(document([change("a", _timeout=10), "b"]), timeout=100) as run:
        await trio.sleep(20)
        run.answer("a", Reply(fields={"vpc_id": "vpc-7"}))
        await wait_all_tasks_blocked()
        assert run.store.told[-2:] == ["settled a", "settled a"]
        run.answer("b")
        await wait_all_tasks_blocked()
        errored = next(one for one in run.done["changes"] if one["_component_id"] == "a")
        assert errored["adoptable"]["vpc_id"] == "vpc-7"


# ---- what cannot be persisted


async def test_a_fence_ends_the_walk_without_a_word() -> None:
    """Another process has the build: nothing is told, sent or reported here any more."""
    async with open_run(document("abc", [("a", "c")])) as run:
        run.store.lose(Fenced("somebody else has it"))
        run.answer("a")
        await wait_all_tasks_blocked()
        assert run.left
        assert sorted(run.store.told) == ["started a", "started b"]
        assert sorted(run.asked) == ["a", "b"]


async def test_a_fence_that_an_append_finds(autojump_clock: MockClock) -> None:
    """It is the same whoever is told first."""
    async with open_run(CHAIN) as run:
        run.store.failure = Fenced("somebody else has it")
        run.answer("a")
        await trio.sleep(10)
        assert run.left
        assert run.asked == ["a"]


async def test_a_fence_while_a_start_is_being_committed() -> None:
    """What was about to leave does not."""
    store = OrderedStore()
    store.hold(started("a"))
    async with open_run(document("a"), store=store) as run:
        run.store.lose(Fenced("somebody else has it"))
        await wait_all_tasks_blocked()
        assert run.left
        assert run.asked == []


async def test_a_store_that_fails_halts_at_once() -> None:
    """Nobody need append for the build to notice; its end is left to the next process."""
    async with open_run(document("abc", [("a", "c")])) as run:
        run.store.lose(StoreError("a fault"))
        assert run.plan.state.halted
        run.answer("a")
        run.answer("b")
        await wait_all_tasks_blocked()
        assert run.left
        assert sorted(run.asked) == ["a", "b"]


# ---- leaving


async def test_a_stop_leaves_the_build_as_it_stands() -> None:
    """What is in flight is awaited, nothing else is begun, and there is no report."""
    async with open_run(CHAIN) as run:
        run.walk.stop()
        await wait_all_tasks_blocked()
        assert run.ends == 0
        run.answer("a")
        await wait_all_tasks_blocked()
        assert run.left
        assert run.store.told == ["started a", "settled a"]


async def test_what_is_left_is_told_nothing_of(autojump_clock: MockClock) -> None:
    """When the grace is over waiting ends; for the next process it looks as if it had never begun."""
    async with open_run(CHAIN) as run:
        run.walk.stop()
        run.walk.abandon(0.5)
        await trio.sleep(1)
        assert run.left
        assert run.store.told == ["started a"]


async def test_what_has_not_left_is_taken_back_at_a_stop() -> None:
    """A request that nobody took is told to be withdrawn."""
    async with open_run(document("a"), cloud=False) as run:
        run.walk.stop()
        await wait_all_tasks_blocked()
        assert run.left
        assert run.store.told == ["started a", "withdrawn a"]


async def test_a_start_that_is_persisted_too_late_is_withdrawn() -> None:
    """Stopped between the start and the sending, nothing is sent, and that is told."""
    store = OrderedStore()
    gate: Gate = store.hold(started("a"))
    async with open_run(document("a"), store=store) as run:
        run.walk.stop()
        gate.open()
        await wait_all_tasks_blocked()
        assert run.left
        assert run.store.committed == ["started a", "withdrawn a"]
        assert run.asked == []


# ---- going on where another process left off


async def test_nothing_is_done_before_the_captured_replies_are_read(autojump_clock: MockClock) -> None:
    """Neither what is due, nor what may be lost, nor what has run out of time."""
    resumption = travel(0.0, 95.0, 0.0)
    events: list[Event] = [start("a"), start("b"), sent("b")]
    async with open_run(document("abc"), *events, resumption=resumption, timeout=100) as run:
        await trio.sleep(1_000)
        assert (run.store.told, run.asked, run.ends) == ([], [], 0)
        await arrive(resumption)
        assert sorted(run.asked) == ["a", "c"]
        await trio.sleep(6)
        assert run.plan.state.cause == "b: timed out after 100 s"


async def test_what_a_captured_reply_answers_is_not_sent_again() -> None:
    """It had left, although nobody had come to note that."""
    resumption = travel(0.0, 0.0)
    async with open_run(CHAIN, start("a"), resumption=resumption) as run:
        reply = {**change("a"), "service": "b1", "_state": "completed", "vpc_id": "vpc-7"}
        run.world.bus.deliver(run.reply_of("a"), json.dumps(reply).encode())
        await wait_all_tasks_blocked()
        assert run.store.told == []
        await arrive(resumption)
        assert run.store.told == ["settled a", "started b"]
        assert run.asked == ["b"]


async def test_what_may_not_have_left_goes_out_again() -> None:
    """Its start is committed already: it is not told a second time."""
    resumption = travel(0.0, 0.0)
    async with open_run(CHAIN, start("a"), resumption=resumption) as run:
        await arrive(resumption)
        assert (run.asked, run.store.told) == (["a"], [])
        assert [event for event, _ in run.store.departures] == [sent("a")]
        run.answer("a")
        await wait_all_tasks_blocked()
        assert run.asked == ["a", "b"]


@pytest.mark.parametrize(
    ("resend", "left", "again"),
    [
        (Resend.UNSENT, False, True),
        (Resend.UNSENT, True, False),
        (Resend.ALWAYS, False, True),
        (Resend.ALWAYS, True, True),
        (Resend.NEVER, False, False),
        (Resend.NEVER, True, False),
    ],
)
async def test_what_is_sent_again_is_a_policy(resend: Resend, left: bool, again: bool) -> None:
    """Of what is unanswered; what is neither sent again nor known to have left is unknown."""
    resumption = travel(0.0)
    events: list[Event] = [start("a"), sent("a")] if left else [start("a")]
    async with open_run(document("a"), *events, resumption=resumption, resend=resend) as run:
        await arrive(resumption)
        assert run.asked == (["a"] if again else [])
        if not left and not again:
            assert run.done["error"].startswith(f"a: {UNKNOWN}")
        else:
            assert run.ends == 0


async def test_a_build_that_had_failed_sends_nothing_again() -> None:
    """For what may not have left that would be the first time, after an error: it is unknown."""
    resumption = travel(0.0, 0.0)
    errored = Settled("b", {**change("b"), "_state": "errored", "error": "quota"})
    async with open_run(document("ab"), start("a"), start("b"), errored, resumption=resumption) as run:
        await arrive(resumption)
        assert run.asked == []
        assert run.done["error"] == "b: quota"
        assert next(one for one in run.done["changes"])["error"].startswith(UNKNOWN)


async def test_a_stop_before_it_goes_on_leaves_all_as_it_was() -> None:
    """What may not have left is neither sent nor judged."""
    resumption = travel(0.0)
    async with open_run(document("a"), start("a"), resumption=resumption, resend=Resend.NEVER) as run:
        run.walk.stop()
        await arrive(resumption)
        assert run.left
        assert (run.asked, run.store.told) == ([], [])


async def test_what_is_left_of_the_time_counts(autojump_clock: MockClock) -> None:
    """A request that left has what its log leaves it; one that goes out again has all of it."""
    resumption = travel(70.0, 70.0)
    events: list[Event] = [start("a"), sent("a"), start("b")]
    async with open_run(document("ab"), *events, resumption=resumption, timeout=100) as run:
        await arrive(resumption)
        await trio.sleep(29)
        assert not run.plan.state.halted
        await trio.sleep(2)
        assert run.plan.state.cause == "a: timed out after 100 s"
        await trio.sleep(60)
        assert run.ends == 0
        await trio.sleep(10)
        assert states(run.done) == {"a": "errored", "b": "errored"}


async def test_a_build_that_is_finished_already_is_not_finished_again() -> None:
    """All that is left is its report."""
    completed = Settled("a", {**change("a"), "_state": "completed"})
    resumption = travel()
    events: list[Event] = [start("a"), completed, Finished(None)]
    async with open_run(document("a"), *events, resumption=resumption) as run:
        await arrive(resumption)
        assert states(run.done) == {"a": "completed"}
        assert run.store.told == []


async def test_what_was_captured_before_is_no_reply() -> None:
    """Whoever waits is told up to where an earlier process has read."""
    resumption = travel(0.0, after=Position(5, 50))
    async with open_run(document("a"), start("a"), sent("a"), resumption=resumption) as run:
        [call] = run.world.connectors.router.by_token.values()
        assert call.after == Position(5, 50)
        assert call.request.attempt == "b1/a/1"


# ---- a new connection


async def reconnect(run: Run) -> None:
    run.world.bus.disconnect()
    run.world.bus.reconnect()
    await wait_all_tasks_blocked()


@pytest.mark.parametrize(
    ("resend", "reached", "again"),
    [
        (Resend.UNSENT, False, True),
        (Resend.UNSENT, True, False),
        (Resend.ALWAYS, False, True),
        (Resend.ALWAYS, True, True),
        (Resend.NEVER, False, False),
        (Resend.NEVER, True, False),
    ],
)
async def test_what_is_lost_with_a_connection_is_sent_again(
    resend: Resend, reached: bool, again: bool
) -> None:
    """As the policy says; under the same attempt, and noted again."""
    async with open_run(document("a"), resend=resend) as run:
        [(_, departure)] = run.store.departures
        departure.reached = reached
        run.walk.send_again()
        await wait_all_tasks_blocked()
        assert run.asked == ["a"]
        await reconnect(run)
        run.walk.send_again()
        await wait_all_tasks_blocked()
        assert run.asked == (["a", "a"] if again else ["a"])
        assert len(run.store.departures) == len(run.asked)
        assert {(one.headers or {})["Nats-Msg-Id"] for one in run.world.sent} == {"b1/a/1"}


@pytest.mark.parametrize(
    ("resend", "reached", "left"),
    [
        (Resend.UNSENT, False, True),
        (Resend.UNSENT, True, False),
        (Resend.ALWAYS, True, True),
        (Resend.NEVER, False, False),
    ],
)
async def test_what_is_lost_while_the_process_stops_is_left_to_the_next_one(
    resend: Resend, reached: bool, left: bool
) -> None:
    """It sends nothing any more, and must not wait until what nobody has got times out."""
    async with open_run(document("a"), resend=resend) as run:
        [(_, departure)] = run.store.departures
        departure.reached = reached
        run.walk.stop()
        await reconnect(run)
        run.walk.send_again()
        await wait_all_tasks_blocked()
        assert run.asked == ["a"]
        assert run.ends == left
        assert not [step for step in run.store.committed if step.startswith("settled")]


@pytest.mark.parametrize("resumed", [False, True])
async def test_what_is_lost_in_or_after_a_pause_is_repeated_until_somebody_is_there(
    resumed: bool, autojump_clock: MockClock
) -> None:
    """A connector may have had it before the pause; after a new connection the connectors come back later."""
    async with open_run(document("a")) as run, trio.open_nursery() as nursery:
        await run.walk.steer().pause()
        if resumed:
            await run.walk.steer().resume()
        cloud, bus = run.world.cloud, run.world.bus
        bus.interests = {sid: one for sid, one in bus.interests.items() if one.handler != cloud._on_request}
        await reconnect(run)
        run.walk.send_again()
        await trio.sleep(1)
        assert run.asked == ["a"]
        await cloud.open(nursery)
        await trio.sleep(5)
        assert run.asked == ["a", "a"]


async def test_after_a_pause_what_a_connector_asks_for_again_is_repeated_until_it_is_there(
    autojump_clock: MockClock,
) -> None:
    """What was in flight in the pause is sent and repeated as ever."""
    async with open_run(document("a")) as run, trio.open_nursery() as nursery:
        await run.walk.steer().pause()
        await run.walk.steer().resume()
        cloud, bus = run.world.cloud, run.world.bus
        bus.interests = {sid: one for sid, one in bus.interests.items() if one.handler != cloud._on_request}
        [call] = run.world.connectors.router.by_token.values()
        assert run.world.connectors.sending.publish_again(call)
        await trio.sleep(1)
        await cloud.open(nursery)
        await trio.sleep(5)
        assert run.asked == ["a", "a"]


async def test_what_a_connector_may_have_and_waits_to_leave_again_does_so_in_a_pause() -> None:
    """It is in flight, as the operator is told; were it taken back, its reply might never come."""
    async with open_run(document("a")) as run:
        await reconnect(run)
        run.world.bus.disconnect()
        run.walk.send_again()
        assert await run.walk.steer().pause() == "paused: nothing new is sent; 1 component in flight"
        run.world.bus.reconnect()
        await wait_all_tasks_blocked()
        assert run.asked == ["a", "a"]


async def test_what_is_overdue_and_waits_to_be_sent_again_is_left_to_the_next_process() -> None:
    """Its first copy may have been lost, and no second one leaves: that is no reason to fail."""
    async with open_run(document("a"), resend=Resend.UNSENT) as run:
        await reconnect(run)
        run.world.bus.disconnect()
        run.walk.send_again()
        [call] = run.world.connectors.router.by_token.values()
        assert call.is_queued
        assert call.timer is not None
        run.world.connectors.timers.cancel(call.timer)
        run.walk.stop()
        await wait_all_tasks_blocked()
        run.world.bus.reconnect()
        await wait_all_tasks_blocked()
        assert run.asked == ["a"]
        assert run.ends == 1
        assert not [step for step in run.store.committed if step.startswith("settled")]


async def test_what_was_answered_is_not_lost() -> None:
    """Nor is what waits in the queue for the next connection."""
    async with open_run(document("abc", [("a", "b")])) as run:
        run.world.bus.disconnect()
        run.world.bus.dispatch(Published(run.reply_of("c"), b'{"_state":"completed"}', "", None))
        run.world.bus.reconnect()
        run.walk.send_again()
        await wait_all_tasks_blocked()
        assert sorted(run.asked) == ["a", "a", "c"]


async def test_a_build_that_has_failed_sends_nothing_again_unless_it_is_to() -> None:
    """After an error what may be lost is awaited."""
    async with open_run(document("ab")) as run:
        run.answer("b", Reply("errored", fields={"error": "quota"}))
        await wait_all_tasks_blocked()
        await reconnect(run)
        run.walk.send_again()
        await wait_all_tasks_blocked()
        assert sorted(run.asked) == ["a", "b"]
        assert run.ends == 0


async def test_from_end_to_end() -> None:
    """A build with connectors that answer at once: the order of its log is that of the graph."""
    async with open_run(document("abcd", [("a", "b"), ("b", "c"), ("c", "d")]), script=succeed) as run:
        assert states(run.done) == dict.fromkeys("abcd", "completed")
        steps = [step for name in "abcd" for step in (f"started {name}", f"settled {name}")]
        assert run.store.committed == [*steps, "finished"]


async def test_what_was_sent_once_more_in_a_pause_is_repeated_after_it(autojump_clock: MockClock) -> None:
    """A connector asked for it and went at once, so nobody has heard that copy: the next one gets another."""
    async with open_run(document("a")) as run, trio.open_nursery() as nursery:
        await run.walk.steer().pause()
        cloud, bus = run.world.cloud, run.world.bus
        bus.interests = {sid: one for sid, one in bus.interests.items() if one.handler != cloud._on_request}
        [call] = run.world.connectors.router.by_token.values()
        assert run.world.connectors.sending.publish_again(call)
        await trio.sleep(1)
        await run.walk.steer().resume()
        await cloud.open(nursery)
        await trio.sleep(5)
        assert run.asked == ["a", "a"]
