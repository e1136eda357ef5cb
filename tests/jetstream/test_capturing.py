"""Replies in streams of their own for each provider: what each takes, how that is changed, what is read."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

import json
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs
from support.durable import Plant, Process, flat, until, wall_clock
from support.fake_bus import FakeBus, FakeListener, Published
from support.fake_jetstream import plug_into
from support.fakes import JSON, Reply, change, document, encode, ignore, open_world, prepare, states
from trio.testing import MockClock, wait_all_tasks_blocked

from scheduler.bus.subjects import matches
from scheduler.config import Settings, parse_providers
from scheduler.definition.subjects import REPLY_SUBJECTS, overlap
from scheduler.dispatch.call import MAYBE_MISSED
from scheduler.dispatch.client import Capture
from scheduler.errors import InvalidSettings, NotPermitted, StoreError
from scheduler.jetstream.api import JetStream
from scheduler.jetstream.capturing import REPLIES, StreamLayout, captures, narrowed, replies_of
from scheduler.jetstream.setup import set_up
from scheduler.jetstream.streams import reply_streams
from scheduler.journal.records import Position, compose, decode_record, earliest
from scheduler.plan import Plan, Request
from scheduler.stores.account_streams import AccountStreams
from scheduler.stores.full_streams import Discards
from scheduler.stores.positions import ReplyPositions

PROVIDERS = ("aws", "gcp", "azure")
LAYOUTS = [
    StreamLayout(providers=providers, capture=capture)
    for number in range(4)
    for providers in combinations(PROVIDERS, number)
    for capture in ((), ("vpc",))
]
layouts = st.sampled_from(LAYOUTS)


# ---- which stream takes what


@given(layouts)
def test_no_subject_is_in_two_streams(layout: StreamLayout) -> None:
    """And a reply of a provider that is named is in its own."""
    taken = captures(layout)
    for one, other in combinations(taken.values(), 2):
        assert not any(overlap(a, b) for a in one for b in other)
    for provider in layout.providers:
        for subject in (f"vpc.create.{provider}.done", f"scheduler.reply.own.{provider}.token"):
            [name] = [
                name for name, subjects in taken.items() if any(matches(one, subject) for one in subjects)
            ]
            assert name == replies_of(provider)
    # What an earlier version has asked for has no provider.
    assert "scheduler.reply.*" in taken[REPLIES]


@given(st.lists(layouts, min_size=2, max_size=5))
def test_whatever_the_change_no_two_streams_ever_want_the_same(changes: list[StreamLayout]) -> None:
    """First what is too much is given up, one stream after another, then what is missing is taken."""
    there: dict[str, list[str]] = {}

    def check() -> None:
        for one, other in combinations(there.values(), 2):
            assert not any(overlap(a, b) for a in one for b in other)

    for layout in changes:
        for name, subjects in narrowed(layout, there).items():
            assert subjects
            there[name] = subjects
            check()
        for name, subjects in captures(layout).items():
            there[name] = subjects
            check()
        assert narrowed(layout, there) == {}


@pytest.mark.parametrize("text", ["done", "a.b", "aws,*", ",".join(f"p{number}" for number in range(33))])
def test_what_is_no_provider_is_refused(text: str) -> None:
    """Its stream would take something else."""
    with pytest.raises(InvalidSettings, match="--capture-providers"):
        parse_providers(text)
    with pytest.raises(InvalidSettings, match="--capture-providers"):
        Settings(capture_providers=tuple(text.split(",")))


def test_providers_are_named_once_each() -> None:
    """Separated by commas, with blanks or not."""
    assert parse_providers(" aws,gcp , aws,") == ("aws", "gcp")


# ---- positions in several streams


def test_a_position_in_several_streams_is_written_and_read() -> None:
    """Where there is one, as it always was."""
    parts: JSON = {"n": 1, "epoch": 1, "instance": "i", "record_id": "r", "at": 5, "events": []}
    several = Position(3, 30).moved("gcp", Position(7, 70)).moved("aws", Position(1, 10))
    data = compose(position=several, **parts)
    assert b'"reply_position":[3,30],"reply_positions":{"aws":[1,10],"gcp":[7,70]},"events":[]' in data
    assert decode_record(data).position == several
    one = compose(position=Position(3, 30), **parts)
    assert b"reply_positions" not in one
    assert decode_record(one).position == Position(3, 30)


def test_places_of_a_position() -> None:
    """Each stream has its own; what is not named stands at its beginning."""
    position = Position(3, 30).moved("aws", Position(1, 10)).moved("", Position(4, 40))
    assert position.of("") == Position(4, 40)
    assert position.of("aws") == Position(1, 10)
    assert position.of("gcp") == Position()
    assert position.moved("aws", Position(2, 20)).of("aws") == Position(2, 20)
    assert position.moved("aws", Position(9, 90)).ahead_of(Position(1, 10)) == 3 + 9


def test_the_earliest_of_positions_is_that_of_each_stream() -> None:
    """Where one does not name a stream, everything in it is to be read."""
    first = Position(3, 30).moved("aws", Position(5, 50))
    second = Position(9, 90).moved("aws", Position(2, 20)).moved("gcp", Position(1, 10))
    assert earliest([first, second]) == Position(3, 30).moved("aws", Position(2, 20)).moved("gcp", Position())
    assert earliest([]) == Position()


# ---- builds


async def abandon(plant: Plant, value: JSON, **settings: Any) -> None:
    """A process accepts a build, sends what is due, and dies."""
    async with plant.run(ignore, **settings) as process:
        assert (await process.submit(value))["status"] == "accepted"
        await trio.sleep(1)


async def ended(process: Process) -> dict[str, str]:
    await until(lambda: process.reports, 60)
    return states(process.report[1])


def two_clouds() -> JSON:
    return document([change("a"), change("b", provider="gcp")])


@pytest.mark.parametrize("via", ["subject", "reply"])
async def test_what_nobody_heard_is_read_from_each_stream(autojump_clock: MockClock, via: str) -> None:
    """Of two providers, and one that has none of its own is not captured."""
    plant = Plant(ignore, lays=True, capture_providers=("aws", "gcp"))
    await abandon(plant, two_clouds())
    for name in "ab":
        plant.answer(name, Reply(via=via))
    streams = plant.broker.jetstream.streams
    assert [len(streams[replies_of(one)].messages) for one in ("", "aws", "gcp")] == [0, 1, 1]
    async with plant.run() as process:
        assert await ended(process) == {"a": "completed", "b": "completed"}
        assert process.requests == []
    last = plant.broker.records()[-1].position
    assert (last.of("aws").sequence, last.of("gcp").sequence) == (1, 1)


async def test_what_a_record_says_was_dealt_with_is_no_reply_again(autojump_clock: MockClock) -> None:
    """Each stream has its own numbers: an attempt that failed once in one is not failed by it again."""
    retrying = [change("a", _retry={"attempts": 3}), change("b", provider="gcp")]
    plant = Plant(ignore, lays=True, capture_providers=("aws", "gcp"))
    async with plant.run() as process:
        await process.submit(document(retrying))
        await trio.sleep(1)
        for _ in range(5):
            plant.broker.publish("other.create.gcp.done", encode({}))
        plant.answer("a", Reply("errored", fields={"error": "busy", "retry_after": 50}))
        await trio.sleep(1)
    async with plant.run() as process:
        await until(lambda: process.requests == ["a"], 300)
        plant.answer("a")
        plant.answer("b")
        assert await ended(process) == {"a": "completed", "b": "completed"}
    assert flat(plant.broker.told()).count("retrying a") == 1


CHANGES = [(), ("aws",), ("aws", "gcp"), ("gcp",), ()]


@pytest.mark.parametrize("before", ["old", "new"])
async def test_a_setting_that_is_changed_between_two_starts_loses_nothing(
    autojump_clock: MockClock, before: str
) -> None:
    """Whatever was captured under the old setting, or comes after the change, counts once."""
    plant = Plant(ignore, lays=True)
    for number, (earlier, later) in enumerate(
        zip(CHANGES, [*CHANGES[1:], ("azure", "aws", "gcp")], strict=True)
    ):
        value = document([change("a"), change("b", provider="gcp")], build=f"b{number}")
        await abandon(plant, value, capture_providers=earlier)
        named = set(earlier) or {"aws", "gcp"}
        sure = {"a"} if "aws" in named else set()
        sure |= {"b"} if "gcp" in named else set()
        if before == "old":
            for name in sure:
                plant.answer(name)
        async with plant.run(capture_providers=later) as process:
            await trio.sleep(3)
            for name in {"a", "b"} - (sure if before == "old" else set()):
                plant.answer(name)
            assert await ended(process) == {"a": "completed", "b": "completed"}, (earlier, later)
            assert process.requests == []
        assert flat(plant.broker.told(f"b{number}")).count("settled a") == 1


async def test_late_successes_are_found_in_each_stream(autojump_clock: MockClock) -> None:
    """Also in one that replies come into no more."""
    plant = Plant(ignore, lays=True, capture_providers=("aws", "gcp"))
    value = document([change("a", _timeout=10), change("b", provider="gcp", _timeout=10)])
    async with plant.run() as process:
        await process.submit(value)
        await until(lambda: process.reports)
    plant.answer("a", Reply(fields={"vpc_id": "vpc-7"}))
    plant.answer("b", Reply(fields={"vpc_id": "vpc-8"}))
    async with plant.run(capture_providers=()) as process:
        process.bus.deliver("scheduler.build.retry", encode({"id": "b1"}), reply=process.bus.new_inbox())
        assert await ended(process) == {"a": "completed", "b": "completed"}
        assert process.requests == []


async def test_a_stream_that_is_not_used_any_more_may_be_removed(autojump_clock: MockClock) -> None:
    """While a process looks at it, and before: nothing waits for it."""
    plant = Plant(ignore, lays=True)
    await abandon(plant, two_clouds(), capture_providers=("aws",))
    plant.answer("a")
    async with plant.run(capture_providers=()) as process:
        await trio.sleep(5)
        plant.broker.jetstream.remove_stream(replies_of("aws"))
        process.service.persistence.orphans.note()
        await trio.sleep(5)
        plant.answer("b")
        assert await ended(process) == {"a": "completed", "b": "completed"}
    async with plant.run(capture_providers=()) as process:
        assert (await process.submit(document("z", build="b2")))["status"] == "accepted"


async def test_what_comes_while_streams_are_changed_counts(autojump_clock: MockClock) -> None:
    """For a moment no stream takes it: it is heard, and dealt with when the build is there."""
    plant = Plant(ignore, lays=True)
    await abandon(plant, two_clouds())
    taps = plant.broker.line

    def take(message: Published) -> bool:
        done = original(message)
        if message.subject == f"$JS.API.STREAM.UPDATE.{REPLIES}":
            for name, via in (("a", "subject"), ("b", "reply")):
                plant.answer(name, Reply(via=via))
        return done

    original, taps.take = taps.take, take  # type: ignore[method-assign]
    async with plant.run(capture_providers=("aws", "gcp")) as process:
        assert await ended(process) == {"a": "completed", "b": "completed"}
    kept = [json.loads(one.data) for one in plant.broker.messages(replies_of("aws"))]
    assert kept == []


def request_for(component: JSON) -> Request:
    step = Plan(prepare(document([component]))).begin(0)
    assert isinstance(step, Request)
    return step


async def test_a_provider_that_is_not_captured_is_told_of_once(autojump_clock: MockClock) -> None:
    """In the log when the first request goes to it; and what is not answered says that after a restart."""
    plant = Plant(ignore, lays=True, capture_providers=("aws",))
    value = document([change("a"), *(change(name, provider="gcp", _timeout=20) for name in "bc")])

    def told(logs: Sequence[Any]) -> list[str]:
        return [line["provider"] for line in logs if "replies of this provider" in line["event"]]

    with capture_logs() as logs:
        async with plant.run() as process:
            await process.submit(value)
            await until(lambda: len(process.requests) == 3)
    assert told(logs) == ["gcp"]
    async with plant.run() as process:
        await trio.sleep(1)
        plant.answer("a")
        assert await ended(process) == {"a": "completed", "b": "errored", "c": "errored"}
        [_, report] = process.report
        assert "while no scheduler ran" in next(one for one in report["changes"] if "error" in one)["error"]


async def test_what_is_not_captured_may_be_missed_where_the_broker_was_away(
    autojump_clock: MockClock,
) -> None:
    """If a single broker came back, a stream has the replies sent meanwhile; the others are lost."""

    class Single(FakeListener):
        def missed(self, *, captured: bool) -> bool:
            return not captured

    layout = StreamLayout(capture=("vpc",), providers=("aws",))
    capture = Capture(layout, ReplyPositions(), lambda call: call.time_out())
    async with open_world(cloud=False, listener=Single(), capture=capture) as world:
        for subject in ("vpc.create.*", "dns.create.*"):
            await world.bus.subscribe(subject, lambda _: None)
        connectors = world.connectors
        calls = [
            connectors.send(request_for(change("x", kind=kind, provider=provider)))
            for kind, provider in (("vpc", "aws"), ("vpc", "gcp"), ("dns", "aws"))
        ]
        await wait_all_tasks_blocked()
        world.bus.disconnect()
        world.bus.reconnect()
        assert [one.maybe_missed for one in calls] == ["", MAYBE_MISSED, MAYBE_MISSED]


# ---- making and changing them


async def test_streams_are_changed_whatever_they_were(fake_bus: FakeBus) -> None:
    """From any setting to any other: each stream takes what it should, and what it held stays."""
    jetstream = plug_into(fake_bus)
    js = JetStream(fake_bus)
    held = 0
    for layout in [*LAYOUTS, *reversed(LAYOUTS), *LAYOUTS[::3]]:
        assert await set_up(js, layout) == []
        for name, subjects in captures(layout).items():
            assert set(jetstream.streams[name].config["subjects"]) == set(subjects)
        others = {name for name in jetstream.streams if name.startswith(REPLIES)} - set(captures(layout))
        for name in others:
            assert not any(
                overlap(one, other)
                for one in jetstream.streams[name].config["subjects"]
                for other in ("scheduler.reply.*.*.*", *REPLY_SUBJECTS)
            )
        fake_bus.deliver("vpc.create.aws.done", b"{}")
        await trio.testing.wait_all_tasks_blocked()
        held += not layout.providers or "aws" in layout.providers
        assert (
            sum(len(one.messages) for name, one in jetstream.streams.items() if name.startswith(REPLIES))
            == held
        )


async def test_the_streams_to_be_read_are_those_that_hold_something(fake_bus: FakeBus) -> None:
    """One that is retired and empty is left alone."""
    plug_into(fake_bus)
    js = JetStream(fake_bus)
    await set_up(js, StreamLayout(providers=("aws", "gcp")))
    fake_bus.deliver("vpc.create.aws.done", b"{}")
    await trio.testing.wait_all_tasks_blocked()
    await set_up(js, StreamLayout(providers=("gcp",)))
    live, retired = await reply_streams(js, StreamLayout(providers=("gcp",)))
    assert live == {"": REPLIES, "gcp": replies_of("gcp")}
    assert retired == {"aws": replies_of("aws")}
    await set_up(js, StreamLayout())
    assert await reply_streams(js, StreamLayout()) == ({"": REPLIES}, {"aws": replies_of("aws")})


async def test_where_a_stream_may_not_be_changed_the_start_ends_with_the_cure(fake_bus: FakeBus) -> None:
    """The missing permission is named, or the alternative."""
    plug_into(fake_bus)
    js = JetStream(fake_bus)
    await set_up(js, StreamLayout())
    call = js.call

    async def forbidden(endpoint: str, body: Any = None) -> dict[str, Any]:
        if endpoint.startswith("STREAM.UPDATE."):
            raise NotPermitted("publish on", f"$JS.API.{endpoint}")
        return await call(endpoint, body)

    js.call = forbidden  # type: ignore[method-assign]
    with pytest.raises(
        StoreError, match=r"takes what another one is to take, and the broker refused .*STREAM.UPDATE"
    ):
        await AccountStreams(js, StreamLayout(providers=("aws",))).make()


# ---- replies that leave early


@pytest.mark.parametrize(("pause", "said"), [(1.0, True), (500.0, False)])
async def test_replies_that_leave_young_are_told(
    autojump_clock: MockClock, fake_bus: FakeBus, pause: float, said: bool
) -> None:
    """At most once a minute and stream, with how many and what to do; old ones leave without a word."""
    jetstream = plug_into(fake_bus)
    js = JetStream(fake_bus)
    layout = StreamLayout(providers=("aws", "gcp"))
    await set_up(js, layout)
    for name in captures(layout):
        jetstream.streams[name].config["max_bytes"] = 20_000
    discards = Discards(js, lambda: list(captures(layout)), wall_clock)
    with capture_logs() as lines:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(discards.run)
            for _ in range(60):
                fake_bus.deliver("vpc.create.aws.done", b"x" * 1_000)
                fake_bus.deliver("vpc.create.gcp.done", b"x")
                await trio.sleep(pause)
            await trio.sleep(120)
            nursery.cancel_scope.cancel()
    told = [one for one in lines if "discarded" in one]
    assert {one["stream"] for one in told} == ({replies_of("aws")} if said else set())
    if said:
        assert len(told) <= 2
        assert sum(one["discarded"] for one in told) > 30
        assert all(one["oldest_seconds"] < 120 and "--reply-bytes" in one["cure"] for one in told)
