"""Checks of connectors that keep the contract, and of such as break one clause of it."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from attrs import define, field
from support.fake_bus import FakeBus
from trio.testing import MockClock

from scheduler.bus import Message
from scheduler.contract import Check, Result, Verdict
from scheduler.contract.checks import Checks
from scheduler.contract.plan import Plan
from scheduler.contract.probe import open_probe
from scheduler.contract.request import Requests, Target
from scheduler.errors import NotPermitted

SUBJECT = "vpc.create.aws"
JSON = dict[str, Any]


@define
class Connector:
    """A connector that keeps the contract, but for what a test says."""

    bus: FakeBus
    nursery: trio.Nursery
    seconds: float = 0.01
    """Time that its work takes."""
    every: float = 1.0
    """Time between two heartbeats."""
    beats: bool = True
    hears_cancels: bool = True
    remembers: bool = True
    one_at_a_time: bool = False
    refuses: bool = True
    """Whether it answers to what it cannot read."""
    shared: bool = False
    """Whether it replies on the shared subject."""
    change: Callable[[JSON], JSON] = lambda body: body
    """Changes its replies."""
    made: dict[str, JSON] = field(factory=dict)
    scopes: dict[str, trio.CancelScope] = field(factory=dict)
    turn: trio.Lock = field(factory=trio.Lock)
    number: int = 0

    async def open(self) -> None:
        await self.bus.subscribe(SUBJECT, lambda message: self.nursery.start_soon(self.work, message))
        if self.hears_cancels:
            await self.bus.subscribe(f"scheduler.cancel.{SUBJECT}", self.cancel)

    def cancel(self, message: Message) -> None:
        self.scopes[json.loads(message.data)["attempt"]].cancel()

    async def work(self, message: Message) -> None:
        try:
            body = json.loads(message.data)
            body["_component_id"]
        except (ValueError, TypeError):
            if self.refuses:
                self.bus.deliver(message.reply, b'{"_state": "errored", "error": "no component"}')
            return
        assert message.headers is not None
        key = message.headers["Scheduler-Component-Key"]
        if self.remembers and key in self.made:
            self.reply(message, self.made[key])
            return
        with trio.CancelScope() as scope:
            self.scopes[message.headers["Nats-Msg-Id"]] = scope
            async with trio.open_nursery() as nursery:
                if self.beats:
                    nursery.start_soon(self.beat, message.headers["Scheduler-Heartbeat"])
                if self.one_at_a_time:
                    async with self.turn:
                        await trio.sleep(self.seconds)
                else:
                    await trio.sleep(body.get("seconds", self.seconds))
                nursery.cancel_scope.cancel()
        if scope.cancelled_caught:
            self.reply(message, {**body, "_state": "errored", "error": "cancelled"})
            return
        self.number += 1
        done = self.change({**body, "_state": "completed", "vpc_aws_id": f"vpc-{self.number}"})
        self.made[key] = done
        self.reply(message, done)

    async def beat(self, subject: str) -> None:
        while True:
            self.bus.deliver(subject, b'{"progress": 0.5}')
            await trio.sleep(self.every)

    def reply(self, message: Message, body: JSON) -> None:
        self.bus.deliver(f"{SUBJECT}.done" if self.shared else message.reply, json.dumps(body).encode())


Run = Callable[..., Awaitable[Verdict]]


@pytest.fixture
def run(fake_bus: FakeBus, nursery: trio.Nursery) -> Run:
    """Puts a connector through all checks; ``plan`` is what it is asked, the rest is what it is like."""

    async def run(plan: Plan | None = None, **conduct: Any) -> Verdict:
        await Connector(fake_bus, nursery, **conduct).open()
        asked = plan or Plan({"cidr": "10.0.0.0/16"}, {"seconds": 100}, hostile=True)
        async with open_probe(fake_bus, Requests(Target.of(SUBJECT))) as probe:
            return await Checks(probe, asked).run()

    return run


def of(verdict: Verdict, name: str) -> Check:
    (found,) = [check for check in verdict.checks if check.name == name]
    return found


async def test_a_connector_that_keeps_the_contract_passes_every_check(
    run: Run, autojump_clock: MockClock
) -> None:
    """None is left out, and all is said in the order in which it was asked."""
    verdict = await run()
    assert [(check.name, check.result) for check in verdict.checks] == [
        ("answer", Result.PASSED),
        ("reply", Result.PASSED),
        ("ids", Result.PASSED),
        ("fields", Result.PASSED),
        ("same attempt", Result.PASSED),
        ("same key", Result.PASSED),
        ("heartbeats", Result.PASSED),
        ("cancel", Result.PASSED),
        ("together", Result.PASSED),
        ("nonsense", Result.PASSED),
    ]
    assert verdict.sound


async def test_replies_on_the_shared_subject_are_known_by_their_ids(
    run: Run, autojump_clock: MockClock
) -> None:
    """As connectors of Ernest reply."""
    verdict = await run(shared=True)
    assert verdict.sound
    assert "on vpc.create.aws.done" in of(verdict, "reply").seen
    assert of(verdict, "same key").result is Result.PASSED


async def test_where_nobody_subscribes_nothing_else_is_asked(
    fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    """The broker says so at once."""
    async with open_probe(fake_bus, Requests(Target.of(SUBJECT))) as probe:
        verdict = await Checks(probe, Plan({})).run()
    (check,) = verdict.checks
    assert (check.name, check.result) == ("answer", Result.FAILED)
    assert "nobody subscribes to vpc.create.aws" in check.seen
    assert len(fake_bus.published) == 1


async def test_a_silent_connector_fails_after_the_timeout(run: Run, autojump_clock: MockClock) -> None:
    """Nothing else is asked."""
    verdict = await run(Plan({}, timeout=30), seconds=1_000)
    (check,) = verdict.checks
    assert (check.name, check.result, check.seen) == ("answer", Result.FAILED, "none within 30.0s")


def without(*names: str) -> Callable[[JSON], JSON]:
    return lambda body: {name: value for name, value in body.items() if name not in names}


@pytest.mark.parametrize(
    ("conduct", "name", "result", "words"),
    [
        ({"change": lambda body: {**body, "_state": "running"}}, "reply", Result.FAILED, "'running'"),
        (
            {"change": lambda body: {**body, "_state": "errored", "error": "quota"}},
            "reply",
            Result.WARNING,
            "errored: quota",
        ),
        ({"change": lambda body: {**body, "retry_after": "later"}}, "reply", Result.WARNING, "retry_after"),
        ({"change": without("_provider")}, "ids", Result.WARNING, "missing: _provider"),
        ({"change": lambda body: {**body, "service": "x"}}, "ids", Result.FAILED, "changed: service"),
        ({"change": without("cidr")}, "fields", Result.WARNING, "lacks cidr"),
        ({"remembers": False}, "same key", Result.FAILED, "vpc_aws_id"),
        ({"remembers": False}, "same attempt", Result.FAILED, "vpc_aws_id"),
        ({"every": 7.0}, "heartbeats", Result.FAILED, "7.0s passed without one, in place of 5 s"),
        ({"beats": False}, "heartbeats", Result.WARNING, "none in 15.0s"),
        ({"hears_cancels": False}, "cancel", Result.FAILED, "it still works on it after 15.0s"),
        ({"hears_cancels": False, "beats": False}, "cancel", Result.WARNING, "may still be at work"),
        ({"one_at_a_time": True, "seconds": 1.0}, "together", Result.WARNING, "one after the other"),
        ({"refuses": False}, "nonsense", Result.FAILED, "no answer to no JSON, no object, an empty body"),
    ],
)
async def test_a_clause_that_is_broken_is_found(
    run: Run, conduct: JSON, name: str, result: Result, words: str, *, autojump_clock: MockClock
) -> None:
    """By the check that is about it, with what was seen and a cure."""
    check = of(await run(**conduct), name)
    assert check.result == result
    assert words in check.seen
    assert check.cure


async def test_a_second_reply_to_the_first_request_is_noticed(
    run: Run, fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    """On the same subject: on both subjects it may answer once each."""
    copies: list[Message] = []

    def copy(message: Message) -> None:
        if not copies:
            copies.append(message)
            fake_bus.deliver(message.subject, message.data)

    await fake_bus.subscribe("scheduler.reply.*.*.*", copy)
    check = of(await run(), "reply")
    assert (check.result, check.seen) == (Result.WARNING, "2 of them, on its reply subject")


async def test_one_that_is_done_in_time_all_the_same_has_not_shown_that_it_stops(
    run: Run, autojump_clock: MockClock
) -> None:
    """Its work ends by chance soon after it was to be stopped."""
    check = of(await run(Plan({}, {"seconds": 16}), hears_cancels=False), "cancel")
    assert (check.result, check.seen) == (
        Result.WARNING,
        "completed after 1.0s, as if nothing had been said",
    )
    assert "--slow-body" in check.cure


async def test_one_that_stops_beating_once_it_is_cancelled_has_stopped(
    run: Run, fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    """It need not answer: the attempt is given up."""
    lost = fake_bus.dispatch

    def without_cancelled(message: Any, to: str = "") -> bool:
        return b'"cancelled"' in message.data or lost(message, to)

    fake_bus.dispatch = without_cancelled  # type: ignore[method-assign]
    check = of(await run(), "cancel")
    assert check.result is Result.PASSED
    assert "no heartbeat since" in check.seen


async def test_without_a_slow_component_a_quick_one_leaves_checks_out(
    run: Run, autojump_clock: MockClock
) -> None:
    """Each says what it would take."""
    verdict = await run(Plan({}, together=0))
    skipped = {check.name: check for check in verdict.checks if check.result is Result.SKIPPED}
    assert list(skipped) == ["heartbeats", "cancel", "together", "nonsense"]
    assert "answered after 10ms" in skipped["heartbeats"].seen
    assert "--slow-body" in skipped["heartbeats"].cure
    assert skipped["cancel"].cure == "--slow-body FILE"


async def test_a_slow_component_that_is_quick_cannot_be_cancelled(
    run: Run, autojump_clock: MockClock
) -> None:
    """What was seen of it is said."""
    check = of(await run(Plan({}, {"seconds": 6})), "cancel")
    assert (check.result, check.seen) == (Result.SKIPPED, "not tested: answered after 6.0s")


async def test_a_connector_that_ends_amid_the_check_is_told_once(
    run: Run, fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    """Nothing that was not tested is called so, or failed, for another reason."""
    lost = fake_bus.dispatch

    def until_the_slow_one(message: Any, to: str = "") -> bool:
        if message.subject == SUBJECT and b'"vpc::slow"' in message.data:
            fake_bus.deliver(message.reply, b"", headers={"Status": "503"})
            return True
        return lost(message, to)

    fake_bus.dispatch = until_the_slow_one  # type: ignore[method-assign]
    verdict = await run()
    last = verdict.checks[-1]
    assert (last.name, last.result) == ("answer", Result.FAILED)
    assert last.seen == f"nobody subscribes to {SUBJECT} any more"
    assert {check.name for check in verdict.checks}.isdisjoint({"heartbeats", "cancel", "together"})


async def test_a_subscription_that_is_refused_is_told(fake_bus: FakeBus, autojump_clock: MockClock) -> None:
    """Nothing was sent."""
    fake_bus.forbidden.add("scheduler.beat.*.*.*")
    with pytest.raises(NotPermitted):
        async with open_probe(fake_bus, Requests(Target.of(SUBJECT))):
            pass
    assert not fake_bus.published
    assert not fake_bus.subjects
