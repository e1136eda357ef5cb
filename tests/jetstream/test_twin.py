"""What JetStream does as this package uses it: a real server, and its twin in memory."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeAlias

import pytest
import trio
from support.brokers import NatsServer, eventually, nats_server
from support.fake_bus import FakeBus
from support.fake_jetstream import FakeJetStream, Later, plug_into
from trio.testing import MockClock

from scheduler.bus import Bus, Message
from scheduler.bus.nats import open_bus
from scheduler.bus.options import BusOptions
from scheduler.errors import JetStreamError, JetStreamUnavailable, StreamNotFound, WrongLastSequence
from scheduler.jetstream.answers import Ack
from scheduler.jetstream.api import JetStream
from scheduler.jetstream.reading import Delivered, StreamFollower, read
from scheduler.journal.records import Position

SECOND = 10**9
ROLLUP = {"Nats-Rollup": "sub"}


class World:
    """A JetStream, and the means to restart its server."""

    def __init__(self, js: JetStream, server: NatsServer | None, twin: FakeJetStream | None) -> None:
        self.js = js
        self.server = server
        self.twin = twin

    @property
    def bus(self) -> Bus:
        return self.js.bus

    async def restart(self) -> None:
        generation = self.bus.generation
        if self.server is not None:
            self.server.restart()
            await eventually(lambda: self.bus.generation > generation)
            return
        assert self.twin is not None
        assert isinstance(self.bus, FakeBus)
        self.bus.disconnect()
        self.twin.restart()
        self.bus.reconnect()

    async def create(self, name: str = "S", **config: Any) -> dict[str, Any]:
        """Create a stream."""
        answer = await self.js.call(f"STREAM.CREATE.{name}", {"name": name, "subjects": ["s.*"], **config})
        created: dict[str, Any] = answer["config"]
        return created

    async def pull(self, consumer: str, count: int, stream: str = "S", **body: Any) -> list[Message]:
        """Ask a consumer for messages, and give the first so many that come, words of the server included."""
        inbox = self.bus.new_inbox()
        send, receive = trio.open_memory_channel[Message](100)
        subscription = await self.bus.subscribe(inbox, send.send_nowait)
        endpoint = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self.bus.publish(endpoint, _encode(body), reply=inbox)
        got: list[Message] = []
        with trio.fail_after(5):
            while len(got) < count:
                got.append(await receive.receive())
        await subscription.unsubscribe()
        return got

    async def consume(self, name: str, stream: str = "S", **config: Any) -> dict[str, Any]:
        """Create a consumer."""
        config = {"name": name, "ack_policy": "none", "mem_storage": True, **config}
        body = {"stream_name": stream, "action": "create", "config": config}
        return await self.js.call(f"CONSUMER.CREATE.{stream}.{name}", body)


OpenWorld: TypeAlias = Callable[[], AbstractAsyncContextManager[World]]


@asynccontextmanager
async def twin_world() -> AsyncIterator[World]:
    bus = FakeBus()
    twin = plug_into(bus)
    yield World(JetStream(bus), None, twin)
    bus.close()


@asynccontextmanager
async def real_world() -> AsyncIterator[World]:
    with nats_server(jetstream=True) as server:
        async with open_bus(BusOptions((server.url,))) as bus:
            yield World(JetStream(bus), server, None)


@pytest.fixture(params=[twin_world, pytest.param(real_world, marks=pytest.mark.integration)])
def open_world(request: pytest.FixtureRequest) -> OpenWorld:
    result: OpenWorld = request.param
    return result


def _encode(body: dict[str, Any]) -> bytes:
    return json.dumps(body).encode()


def words(message: Message) -> str:
    """What the server says, where it is no message of the stream."""
    headers = message.headers or {}
    return f"{headers.get('Status', '')} {headers.get('Description', '')}".strip()


def place(message: Message) -> list[int]:
    """The stream and consumer sequences of a delivered message, and what is pending behind it."""
    tokens = message.reply.split(".")
    assert tokens[:2] == ["$JS", "ACK"]
    return [int(tokens[5]), int(tokens[6]), int(tokens[8])]


async def collect(js: JetStream, **options: Any) -> list[tuple[int, str, bytes]]:
    return [
        (one.sequence, one.subject, one.data) async for batch in read(js, "S", **options) for one in batch
    ]


async def test_a_stream_says_what_it_is(open_world: OpenWorld) -> None:
    """What was asked for comes back, with the server's defaults, and once more changes nothing."""
    async with open_world() as world:
        first = await world.create(discard="new", max_age=5 * SECOND, no_ack=True, persist_mode="async")
        again = await world.create(discard="new", max_age=5 * SECOND, no_ack=True, persist_mode="async")
        info = await world.js.info("S")
        with pytest.raises(JetStreamError, match="different configuration") as other:
            await world.create(discard="old")
        with pytest.raises(StreamNotFound):
            await world.js.info("T")
    assert first == again == info.config
    expected = {
        "name": "S",
        "subjects": ["s.*"],
        "discard": "new",
        "max_age": 5 * SECOND,
        "max_bytes": -1,
        "num_replicas": 1,
        "storage": "file",
        "retention": "limits",
        "no_ack": True,
        "persist_mode": "async",
        "allow_direct": False,
        "deny_delete": False,
        "allow_rollup_hdrs": False,
    }
    assert {key: first[key] for key in expected} == expected
    assert (info.messages, info.first_sequence, info.last_sequence, info.bytes) == (0, 0, 0, 0)
    assert other.value.err_code == 10058


@pytest.mark.parametrize(
    ("config", "err_code"),
    [
        ({"subjects": ["s.1"]}, 10065),
        ({"subjects": ["*.create.*.done"]}, 10052),
        ({"subjects": ["t.>"], "num_replicas": 3}, 10074),
        ({"subjects": ["*.1"], "no_ack": True}, 10065),
        ({"subjects": ["s.1.2"]}, None),
        ({"subjects": ["s"]}, None),
        ({"subjects": ["*.create.*.done"], "no_ack": True}, None),
    ],
)
async def test_what_streams_may_be(
    open_world: OpenWorld, config: dict[str, Any], err_code: int | None
) -> None:
    """Overlaps, wildcards in front, and replicas without a cluster are refused."""
    async with open_world() as world:
        await world.create()
        if err_code is None:
            await world.create("T", **config)
        else:
            with pytest.raises(JetStreamError) as refused:
                await world.create("T", **config)
            assert refused.value.err_code == err_code


async def test_the_streams_of_a_subject(open_world: OpenWorld) -> None:
    """One can ask which streams take a subject or a pattern."""
    async with open_world() as world:
        await world.create()
        await world.create("T", subjects=["t.>"])
        answers = [
            (await world.js.call("STREAM.NAMES", {"subject": subject}))["streams"] or []
            for subject in ("s.1", "t.*.3", "*.1", "u")
        ]
    assert [sorted(one) for one in answers] == [["S"], ["T"], ["S", "T"], []]


async def test_an_append_is_acknowledged_with_its_sequence(open_world: OpenWorld) -> None:
    """Sequences count from 1 over all subjects of a stream; a subject may belong to no stream."""
    async with open_world() as world:
        await world.create()
        acks = [await world.js.publish(subject, b"x") for subject in ("s.1", "s.2", "s.1")]
        with pytest.raises(JetStreamUnavailable):
            await world.js.publish("t.1", b"x", timeout=0.5)
        info = await world.js.info("S")
    assert acks == [Ack("S", number, duplicate=False) for number in (1, 2, 3)]
    assert (info.messages, info.first_sequence, info.last_sequence) == (3, 1, 3)


async def test_an_append_on_a_condition(open_world: OpenWorld) -> None:
    """The last sequence of the subject has to be as expected, 0 where there is none; a repeat is refused."""
    async with open_world() as world:
        await world.create()
        await world.js.publish("s.other", b"")
        first = await world.js.publish("s.1", b"a", expected=0)
        with pytest.raises(WrongLastSequence, match="wrong last sequence: 2"):
            await world.js.publish("s.1", b"a", expected=0)
        second = await world.js.publish("s.1", b"b", expected=2)
        with pytest.raises(WrongLastSequence):
            await world.js.publish("s.1", b"b", expected=2, headers={"Nats-Msg-Id": "x"})
        assert await world.js.purge("S", "s.1") == 2
        third = await world.js.publish("s.1", b"c", expected=0)
    assert [first.sequence, second.sequence, third.sequence] == [2, 3, 4]


async def test_the_same_message_id_is_kept_once(open_world: OpenWorld) -> None:
    """A second message with a known id is acknowledged as a duplicate; the condition is looked at first."""
    async with open_world() as world:
        await world.create()
        one = {"Nats-Msg-Id": "one"}
        acks = [await world.js.publish("s.1", b"a", headers=one) for _ in range(2)]
        with pytest.raises(WrongLastSequence):
            await world.js.publish("s.1", b"a", headers=one, expected=0)
        info = await world.js.info("S")
    assert acks == [Ack("S", 1, duplicate=False), Ack("S", 1, duplicate=True)]
    assert info.messages == 1


async def test_a_stream_without_acknowledgements_keeps_silently(open_world: OpenWorld) -> None:
    """There is no answer, not even that nobody listens."""
    async with open_world() as world:
        await world.create(subjects=["*.create.*.done"], no_ack=True)
        with trio.move_on_after(0.3):
            await world.bus.request("vpc.create.aws.done", b"x")
            raise AssertionError
        kept = await world.js.last("S", "vpc.create.aws.done")
    assert kept is not None
    assert kept.data == b"x"


async def test_single_messages(open_world: OpenWorld) -> None:
    """The last one of a subject or pattern, the next one from somewhere, the one with a number."""
    async with open_world() as world:
        await world.create()
        for number in range(4):
            headers = {"H": str(number)} if number else None
            await world.js.publish(f"s.{number % 2}", b"%d" % number if number else b"", headers=headers)
        js = world.js
        last, any_last = await js.last("S", "s.0"), await js.last("S", ">")
        after, any_after = await js.first("S", "s.1", from_sequence=3), await js.first("S", "s.*")
        assert not any(
            [await js.last("S", "s.9"), await js.get("S", 9), await js.first("S", "s.0", from_sequence=4)]
        )
        first = await js.get("S", 1)
    assert last is not None
    assert any_last is not None
    assert after is not None
    assert first is not None
    assert first == any_after
    assert (last.subject, last.sequence, last.data, dict(last.headers)) == ("s.0", 3, b"2", {"H": "2"})
    assert (any_last.sequence, after.sequence) == (4, 4)
    assert (first.data, dict(first.headers)) == (b"", {})
    assert first.time < last.time < any_last.time


async def test_a_purge_takes_one_subject(open_world: OpenWorld) -> None:
    """Only matching messages go, numbers continue, and the stream begins with the first that is left."""
    async with open_world() as world:
        await world.create()
        for subject in ("s.1", "s.2", "s.1", "s.3"):
            await world.js.publish(subject, b"")
        purged = [await world.js.purge("S", subject) for subject in ("s.1", "s.1", "s.9")]
        info = await world.js.info("S")
        rest = [await world.js.purge("S", "s.>")]
        empty = await world.js.info("S")
        again = await world.js.publish("s.1", b"")
    assert (purged, rest, again.sequence) == ([2, 0, 0], [2], 5)
    assert (info.messages, info.first_sequence, info.last_sequence) == (2, 2, 4)
    assert (empty.messages, empty.first_sequence, empty.last_sequence) == (0, 5, 4)


async def test_the_last_of_everything_is_the_last_number(open_world: OpenWorld) -> None:
    """Of all subjects the last message is the one with the last number, and none where that was deleted."""

    async def last(pattern: str) -> int:
        answer = await world.js.call("STREAM.MSG.GET.S", {"last_by_subj": pattern})
        sequence: int = answer["message"]["seq"]
        return sequence

    async with open_world() as world:
        await world.create()
        await world.js.publish("s.1", b"")
        await world.js.publish("s.2", b"")
        assert await last(">") == 2
        await world.js.purge("S", "s.2")
        assert await last("s.*") == 1
        with pytest.raises(JetStreamError, match="no message found"):
            await last(">")


async def test_a_rollup_replaces_its_subject(open_world: OpenWorld) -> None:
    """Where the stream allows it, only the new message stays on its subject."""
    async with open_world() as world:
        await world.create(allow_rollup_hdrs=True)
        await world.create("T", subjects=["t.*"])
        for subject in ("s.1", "s.2", "s.1"):
            await world.js.publish(subject, b"", headers=ROLLUP if subject == "s.1" else None)
        info = await world.js.info("S")
        with pytest.raises(JetStreamError, match="rollup not permitted"):
            await world.js.publish("t.1", b"", headers=ROLLUP)
    assert (info.messages, info.first_sequence, info.last_sequence) == (2, 2, 3)


async def test_a_full_stream_refuses_or_forgets(open_world: OpenWorld) -> None:
    """With ``discard: new`` what is too much is refused, to be tried again; otherwise the old goes."""
    async with open_world() as world:
        await world.create(discard="new", max_bytes=100)
        await world.create("T", subjects=["t.*"], max_bytes=100)
        for subject in ("s.1", "t.1", "t.1"):
            await world.js.publish(subject, b"x" * 30)
        with pytest.raises(JetStreamUnavailable, match="maximum bytes exceeded"):
            await world.js.publish("s.1", b"x" * 60)
        full, rolling = await world.js.info("S"), await world.js.info("T")
    assert (full.messages, full.bytes) == (1, 63)
    assert (rolling.messages, rolling.bytes, rolling.first_sequence) == (1, 63, 2)


async def test_a_stream_may_keep_the_last_of_each_subject_alone(open_world: OpenWorld) -> None:
    """As buckets do: what stood there before is gone, and the numbers go on."""
    async with open_world() as world:
        await world.create(max_msgs_per_subject=1, discard="new")
        for number in range(3):
            await world.js.publish("s.a", b"%d" % number)
        await world.js.publish("s.b", b"other")
        first = await world.js.first("S", "s.*", from_sequence=1)
        assert first is not None
        assert (first.subject, first.sequence, first.data) == ("s.a", 3, b"2")


async def test_pulling_what_is_there(open_world: OpenWorld) -> None:
    """Messages come with their place, and the server says when it has no more."""
    async with open_world() as world:
        await world.create()
        for number in range(5):
            await world.js.publish(f"s.{number % 2}", b"%d" % number, headers={"H": "v"} if number else None)
        created = await world.consume("c", filter_subjects=["s.0"])
        got = await world.pull("c", 4, batch=10, no_wait=True)
        nothing = await world.pull("c", 1, batch=10, no_wait=True)
        await world.consume("all")
        two = await world.pull("all", 2, batch=2, no_wait=True)
        [rest] = await world.pull("all", 1, batch=1, no_wait=True)
        [nobody] = await world.pull("other", 1, batch=1, no_wait=True)
    assert created["num_pending"] == 3
    assert [(one.subject, one.data) for one in got[:3]] == [("s.0", b"0"), ("s.0", b"2"), ("s.0", b"4")]
    assert [place(one) for one in got[:3]] == [[1, 1, 2], [3, 2, 1], [5, 3, 0]]
    assert [dict(one.headers or {}) for one in got[:2]] == [{}, {"H": "v"}]
    assert [words(one) for one in (got[3], nothing[0])] == ["404 No Messages"] * 2
    assert [place(one) for one in (*two, rest)] == [[1, 1, 4], [2, 2, 3], [3, 3, 2]]
    assert nobody.no_responders


async def test_a_pull_of_so_many_bytes(open_world: OpenWorld) -> None:
    """A request ends where the next message has no room in it; what counts is all that is sent."""
    async with open_world() as world:
        await world.create()
        for _ in range(3):
            await world.js.publish("s.1", b"x" * 100)
        await world.consume("c")
        got = await world.pull("c", 3, batch=10, max_bytes=300, expires=2 * SECOND)
        [none] = await world.pull("c", 1, batch=10, max_bytes=10, expires=2 * SECOND)
    size = len("s.1") + len(got[0].reply) + 100
    assert [place(one)[0] for one in got[:2]] == [1, 2]
    assert words(got[2]) == words(none) == "409 Message Size Exceeds MaxBytes"
    assert got[2].headers is not None
    assert none.headers is not None
    assert (got[2].headers["Nats-Pending-Messages"], got[2].headers["Nats-Pending-Bytes"]) == (
        "8",
        str(300 - 2 * size),
    )
    assert (none.headers["Nats-Pending-Messages"], none.headers["Nats-Pending-Bytes"]) == ("10", "10")


async def test_headers_only_and_the_last_of_each(open_world: OpenWorld) -> None:
    """A consumer may give the last message of each subject, without its body; then what comes after."""
    async with open_world() as world:
        await world.create()
        for number, subject in enumerate(("s.1", "s.2", "s.1")):
            await world.js.publish(subject, b"body", headers={"H": str(number)})
        with pytest.raises(JetStreamError, match="optional filter subject is not set"):
            await world.consume("c", deliver_policy="last_per_subject")
        chosen: dict[str, Any] = {"deliver_policy": "last_per_subject", "filter_subjects": [">"]}
        await world.consume("c", **chosen, headers_only=True)
        got = await world.pull("c", 3, batch=10, no_wait=True)
        await world.js.publish("s.1", b"longer body")
        got += await world.pull("c", 2, batch=10, no_wait=True)
    shown = [(one.subject, one.data, dict(one.headers or {})) for one in (*got[:2], got[3])]
    assert shown == [
        ("s.2", b"", {"H": "1", "Nats-Msg-Size": "4"}),
        ("s.1", b"", {"H": "2", "Nats-Msg-Size": "4"}),
        ("s.1", b"", {"Nats-Msg-Size": "11"}),
    ]
    assert [place(one) for one in (*got[:2], got[3])] == [[2, 1, 1], [3, 2, 0], [4, 3, 0]]


async def test_where_a_consumer_begins(open_world: OpenWorld) -> None:
    """It begins at a sequence or at a time; beyond the end it awaits what is to come."""
    async with open_world() as world:
        await world.create()
        for _ in range(3):
            await world.js.publish("s.1", b"")
        await world.consume("c2", deliver_policy="by_start_sequence", opt_start_seq=2)
        await world.consume("c9", deliver_policy="by_start_sequence", opt_start_seq=9)
        stamp = (await world.js.call("STREAM.MSG.GET.S", {"seq": 2}))["message"]["time"]
        await world.consume("ct", deliver_policy="by_start_time", opt_start_time=stamp)
        got = [(await world.pull(name, 1, batch=1, no_wait=True))[0] for name in ("c2", "ct", "c9")]
        for _ in range(6):
            await world.js.publish("s.1", b"")
        got += await world.pull("c9", 1, batch=1, no_wait=True)
    assert [place(one)[0] for one in (got[0], got[1], got[3])] == [2, 2, 9]
    assert words(got[2]) == "404 No Messages"


async def test_a_waiting_pull_shows_signs_of_life(open_world: OpenWorld) -> None:
    """Heartbeats come while nothing does, then what comes in, and the word that the time is over."""
    async with open_world() as world:
        await world.create()
        await world.consume("c")
        await world.js.publish("s.1", b"x")
        body: dict[str, Any] = {"batch": 5, "expires": SECOND, "idle_heartbeat": 3 * SECOND // 10}
        got = await world.pull("c", 5, **body)
        [late] = await world.pull("c", 1, **{**body, "idle_heartbeat": SECOND})
    assert place(got[0]) == [1, 1, 0]
    assert [words(one) for one in got[1:]] == ["100 Idle Heartbeat"] * 3 + ["408 Request Timeout"]
    beat, end = got[1].headers, got[-1].headers
    assert beat is not None
    assert end is not None
    assert (beat["Nats-Last-Consumer"], beat["Nats-Last-Stream"]) == ("1", "1")
    assert end["Nats-Pending-Messages"] == "4"
    assert words(late) == "400 Bad Request - heartbeat value too large"


async def test_a_pull_gets_what_comes_later(open_world: OpenWorld) -> None:
    """A request that waits is given messages as they come, and is over without a word when it has enough."""
    async with open_world() as world:
        await world.create()
        await world.consume("c")
        got: list[Message] = []
        inbox = world.bus.new_inbox()
        await world.bus.subscribe(inbox, got.append)
        for batch in (1, 2):
            body = {"batch": batch, "expires": 5 * SECOND}
            world.bus.publish("$JS.API.CONSUMER.MSG.NEXT.S.c", _encode(body), reply=inbox)
        await world.bus.flush()
        for number in range(4):
            await world.js.publish("s.1", b"%d" % number)
        await eventually(lambda: len(got) >= 3)
        await world.bus.flush()
        assert [place(one)[0] for one in got] == [1, 2, 3]
        body = {"batch": 9, "expires": 5 * SECOND}
        world.bus.publish("$JS.API.CONSUMER.MSG.NEXT.S.c", _encode(body), reply=inbox)
        await eventually(lambda: len(got) == 4)
        await world.js.call("CONSUMER.DELETE.S.c")
        await eventually(lambda: len(got) == 5)
        with pytest.raises(JetStreamError, match="consumer not found"):
            await world.js.call("CONSUMER.DELETE.S.c")
    assert place(got[3])[0] == 4
    assert words(got[4]) == "409 Consumer Deleted"


async def test_a_restart_ends_consumers_in_memory(open_world: OpenWorld) -> None:
    """What was acknowledged is still there afterwards; consumers and their requests are not."""
    async with open_world() as world:
        await world.create()
        await world.js.publish("s.1", b"x", headers={"H": "v"})
        await world.consume("c", inactive_threshold=60 * SECOND)
        await world.restart()
        [nobody] = await world.pull("c", 1, batch=1, no_wait=True)
        kept = await world.js.get("S", 1)
    assert nobody.no_responders
    assert kept is not None
    assert (kept.data, dict(kept.headers)) == (b"x", {"H": "v"})


async def test_reading_all_that_matches(open_world: OpenWorld) -> None:
    """Everything as of the call, from where one wants it, or the last of each subject only."""
    async with open_world() as world:
        await world.create()
        for number in range(300):
            await world.js.publish(f"s.{number % 3}", b"%d" % number)
        await world.js.purge("S", "s.2")
        everything = await collect(world.js)
        some = await collect(world.js, subjects=["s.1"], start=200)
        last = await collect(world.js, last_per_subject=True, headers_only=True)
        nothing = await collect(world.js, subjects=["s.2"])
    expected = [(n + 1, f"s.{n % 3}", b"%d" % n) for n in range(300) if n % 3 != 2]
    assert everything == expected
    assert some == [one for one in expected if one[1] == "s.1" and one[0] >= 200]
    assert last == [(298, "s.0", b""), (299, "s.1", b"")]
    assert nothing == []


async def test_following_a_stream(open_world: OpenWorld) -> None:
    """A follower sees what was there and what comes, in order, over a restart of the server."""
    got: list[Delivered] = []
    async with open_world() as world, trio.open_nursery() as nursery:
        await world.create()
        for number in range(5):
            await world.js.publish("s.1", b"%d" % number)
        second = await world.js.get("S", 2)
        assert second is not None
        follower = StreamFollower(world.js, "S", got.append)
        with trio.fail_after(10):
            await nursery.start(follower.run, Position(2, second.time))
            await follower.caught_up()
            assert [one.sequence for one in got] == [3, 4, 5]
            await world.js.publish("s.2", b"x", headers={"H": "v"})
            await follower.caught_up()
            await world.restart()
            await world.js.publish("s.3", b"y")
            await follower.caught_up()
        nursery.cancel_scope.cancel()
    assert [(one.sequence, one.subject, one.data) for one in got[3:]] == [(6, "s.2", b"x"), (7, "s.3", b"y")]
    assert dict(got[3].headers or {}) == {"H": "v"}
    assert follower.seen == Position(7, got[-1].time)


async def test_the_twin_without_a_quorum(mock_clock: MockClock) -> None:
    """While it is silent nothing is stored or answered; refused or without room, that is said."""
    mock_clock.autojump_threshold = 0
    async with twin_world() as world:
        twin = world.twin
        assert twin is not None
        await world.create()
        twin.silent = True
        with pytest.raises(JetStreamUnavailable):
            await world.js.publish("s.1", b"")
        with pytest.raises(JetStreamUnavailable):
            await world.js.info("S")
        twin.silent, twin.no_room = False, True
        with pytest.raises(JetStreamUnavailable):
            await world.js.publish("s.1", b"")
        twin.no_room = False
        assert (await world.js.publish("s.1", b"")).sequence == 1


async def test_the_twin_forgets_a_tail(autojump_clock: MockClock) -> None:
    """Messages that an asynchronous stream lost give their numbers back, and what is old goes by itself."""
    async with twin_world() as world:
        assert world.twin is not None
        await world.create(max_age=SECOND)
        for number in range(4):
            await world.js.publish("s.1", b"%d" % number, headers={"Nats-Msg-Id": str(number)})
        assert [kept.sequence for kept in world.twin.streams["S"].lose_tail(2)] == [3, 4]
        again = await world.js.publish("s.1", b"3", headers={"Nats-Msg-Id": "3"})
        await trio.sleep(1.5)
        info = await world.js.info("S")
    assert again == Ack("S", 3, duplicate=False)
    assert (info.messages, info.first_sequence, info.last_sequence) == (0, 4, 3)


async def test_the_twin_ends_idle_consumers(autojump_clock: MockClock) -> None:
    """A consumer without pulls for its time ends; a waiting request keeps it."""
    async with twin_world() as world:
        assert world.twin is not None
        await world.create()
        await world.consume("c", inactive_threshold=10 * SECOND)
        await trio.sleep(9)
        await world.pull("c", 1, batch=1, expires=4 * SECOND, idle_heartbeat=2 * SECOND)
        await trio.sleep(9)
        assert "c" in world.twin.streams["S"].consumers
        await trio.sleep(5)
        assert "c" not in world.twin.streams["S"].consumers


async def test_later_is_in_order(autojump_clock: MockClock) -> None:
    """Jobs run at their times, in order, whatever the order of asking."""
    later = Later()
    done: list[str] = []
    later.after(2, lambda: done.append("second"))
    later.after(1, lambda: later.after(2, lambda: done.append("third")))
    later.after(0.5, lambda: done.append("first"))
    await trio.sleep(10)
    assert done == ["first", "second", "third"]
