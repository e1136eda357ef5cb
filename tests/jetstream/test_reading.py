"""Reading streams to their end and following them, over a real server."""

import shutil
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs
from support.brokers import NatsServer, eventually
from support.fake_bus import FakeBus

from scheduler.bus import Handler, Message, Subscription
from scheduler.bus.beside import BesideBus, open_beside
from scheduler.bus.nats import NatsBus, open_bus
from scheduler.bus.options import BusOptions
from scheduler.errors import JetStreamUnavailable, StreamNotFound
from scheduler.jetstream import reading
from scheduler.jetstream.api import JetStream
from scheduler.jetstream.consumers import BATCH, BATCH_BYTES, Consumer
from scheduler.jetstream.reading import Delivered, StreamFollower, read
from scheduler.journal.records import Position

integration = pytest.mark.integration


@asynccontextmanager
async def open_js(server: NatsServer, *, patience: float = 5.0) -> AsyncIterator[JetStream]:
    with trio.fail_after(60):
        async with open_bus(BusOptions((server.url,)), connect_deadline=5) as bus:
            yield JetStream(bus, timeout=patience)


@pytest.fixture
async def js(jetstream_server: NatsServer) -> AsyncIterator[JetStream]:
    async with open_js(jetstream_server) as js:
        await create(js)
        yield js


async def create(js: JetStream, *, synced: bool = False) -> None:
    """Make the stream; where it is not ``synced``, a server that is killed may lose its end."""
    # Not a sync to disk for each of some thousand messages.
    mode = "default" if synced else "async"
    await js.call("STREAM.CREATE.S", {"name": "S", "subjects": ["s.*"], "persist_mode": mode})


async def fill(js: JetStream, first: int, last: int) -> None:
    """Store messages whose payloads are their numbers, on three subjects in turn."""
    await store(js, [(f"s.{'abc'[number % 3]}", b"%d" % number) for number in range(first, last + 1)])


async def store(js: JetStream, messages: Sequence[tuple[str, bytes]]) -> None:
    """Store messages; a PONG would not do: the server stores them a little later than it takes them."""
    for subject, data in messages[:-1]:
        js.bus.publish(subject, data)
    for subject, data in messages[-1:]:
        await js.publish(subject, data)


def numbers(messages: list[Delivered]) -> list[int]:
    return [int(one.data) for one in messages]


async def read_all(js: JetStream, **options: Any) -> list[Delivered]:
    return [one async for batch in read(js, "S", **options) for one in batch]


async def consumers(js: JetStream) -> int:
    count: int = (await js.call("STREAM.INFO.S"))["state"]["consumer_count"]
    return count


async def all_removed(js: JetStream) -> None:
    """Wait until no consumer is left: the server answers questions beside its orders, maybe before them."""
    with trio.fail_after(10):
        while await consumers(js):
            await js.bus.flush()


class Meddler:
    """Loses what a test says of what comes in, and notes what goes out."""

    def __init__(self, js: JetStream) -> None:
        assert isinstance(js.bus, NatsBus)
        self.lose: Callable[[Message], bool] = lambda _: False
        self.published: list[str] = []
        self._subscribe, self._publish = js.bus.subscribe, js.bus.publish
        js.bus.subscribe = self.subscribe  # type: ignore[method-assign]
        js.bus.publish = self.publish  # type: ignore[method-assign]

    async def subscribe(self, subject: str, handler: Handler, *, queue: str = "") -> Subscription:
        def pass_on(message: Message) -> None:
            if not self.lose(message):
                handler(message)

        return await self._subscribe(subject, pass_on, queue=queue)

    def publish(self, subject: str, data: bytes, **more: Any) -> Any:
        self.published.append(subject)
        return self._publish(subject, data, **more)

    def lose_once(self, data: bytes) -> None:
        """Lose the next message with this payload."""

        def lose(message: Message) -> bool:
            if message.data != data:
                return False
            self.lose = lambda _: False
            return True

        self.lose = lose


@asynccontextmanager
async def following(
    js: JetStream, got: list[Delivered], start: Position | None = None
) -> AsyncIterator[StreamFollower]:
    follower = StreamFollower(js, "S", got.append)
    async with trio.open_nursery() as nursery:
        await nursery.start(follower.run, start or Position())
        yield follower
        nursery.cancel_scope.cancel()


async def position_of(js: JetStream, sequence: int) -> Position:
    stored = await js.get("S", sequence)
    assert stored is not None
    return Position(stored.sequence, stored.time)


# Reading.


@integration
async def test_a_stream_is_read_in_order_and_whole(js: JetStream) -> None:
    """Over several batches; with subject, headers, sequence and time of each message."""
    js.bus.publish("s.x", b"0", headers={"One": "1"})
    await fill(js, 1, 2 * BATCH + 500)
    batches = [batch async for batch in read(js, "S")]
    assert [len(batch) for batch in batches] == [BATCH, BATCH, 501]
    messages = [one for batch in batches for one in batch]
    assert numbers(messages) == list(range(2 * BATCH + 501))
    assert [one.sequence for one in messages] == list(range(1, 2 * BATCH + 502))
    assert (messages[0].subject, messages[0].headers) == ("s.x", {"One": "1"})
    assert messages[1].headers == {}
    assert Position(messages[7].sequence, messages[7].time) == await position_of(js, 8)


@integration
async def test_a_part_of_a_stream(js: JetStream) -> None:
    """Subjects, with and without wildcards, and where to begin."""
    await fill(js, 1, 12)
    assert numbers(await read_all(js, subjects=["s.a"])) == [3, 6, 9, 12]
    assert numbers(await read_all(js, subjects=["s.a", "s.b"])) == [1, 3, 4, 6, 7, 9, 10, 12]
    assert numbers(await read_all(js, subjects=["s.*"], start=10)) == [10, 11, 12]
    assert numbers(await read_all(js, subjects=["s.a"], start=10)) == [12]
    assert numbers(await read_all(js, start=13)) == []
    assert numbers(await read_all(js, subjects=["s.d"])) == []


@integration
async def test_the_last_of_each_subject_by_its_headers(js: JetStream) -> None:
    """Over several batches, in the stream's order, without payloads."""
    for number in range(2 * BATCH):
        js.bus.publish(f"s.{number % 1500}", b"%d" % number, headers={"N": str(number)})
    await js.publish("s.last", b"", headers={"N": "2000"})
    messages = await read_all(js, last_per_subject=True, headers_only=True)
    assert [one.headers["N"] for one in messages] == [str(number) for number in range(500, 2001)]
    assert {one.data for one in messages} == {b""}
    assert messages[0].headers["Nats-Msg-Size"] == "3"


@integration
async def test_an_empty_stream_has_nothing_and_a_missing_one_is_said(js: JetStream) -> None:
    """An end is not the same as no stream."""
    assert await read_all(js) == []
    with pytest.raises(StreamNotFound):
        await anext(read(js, "NONE"))


@integration
async def test_what_is_left_behind_a_purge_is_read(js: JetStream) -> None:
    """The message with the stream's last number need not be there."""
    await fill(js, 1, 12)
    await js.purge("S", "s.a")
    assert numbers(await read_all(js)) == [1, 2, 4, 5, 7, 8, 10, 11]


@integration
async def test_reading_ends_although_more_comes(js: JetStream) -> None:
    """It reads what there was at the call; a stream that grows faster than it is read does not hold it."""
    await fill(js, 1, 10)
    messages = []
    async for batch in read(js, "S"):
        messages += batch
        await fill(js, len(messages) + 1, len(messages) + 2 * BATCH)
    assert numbers(messages) == list(range(1, 11))


@integration
async def test_a_purge_while_it_is_read(js: JetStream) -> None:
    """What it was to read up to may vanish: it ends with what is there."""
    await fill(js, 1, BATCH + 2)
    messages = []
    async for batch in read(js, "S"):
        messages += batch
        await js.purge("S", "s.*")
    assert numbers(messages) == list(range(1, BATCH + 1))


@integration
async def test_bytes_in_flight_are_bounded(js: JetStream) -> None:
    """Large messages come a few at a time, and one of the size of a message's limit comes as well."""
    payload = bytes(js.bus.max_payload - 100)
    await store(js, [("s.a", payload)] * 20)
    with capture_logs() as logs:
        sizes = [sum(len(one.data) for one in batch) async for batch in read(js, "S")]
    assert logs == []
    assert sum(sizes) == 20 * len(payload)
    assert max(sizes) <= BATCH_BYTES


@integration
async def test_nothing_is_left_on_the_server(js: JetStream) -> None:
    """Its consumer is removed in the end, also where the end is not waited for."""
    await fill(js, 1, 2 * BATCH)
    assert len(await read_all(js)) == 2 * BATCH
    await all_removed(js)
    async with aclosing(read(js, "S")) as batches:
        await anext(batches)
        assert await consumers(js) == 1
    await all_removed(js)


@integration
@pytest.mark.parametrize("last_per_subject", [False, True])
@pytest.mark.parametrize(
    ("lost", "reason"), [(1500, "its message 1501 did not come"), (1799, "it ends before message 1800")]
)
async def test_a_lost_message_is_read_again(
    js: JetStream, *, last_per_subject: bool, lost: int, reason: str
) -> None:
    """The gap is seen, and reading resumes in front of it; nothing comes twice."""
    meddler = Meddler(js)
    await store(js, [(f"s.{number}", b"%d" % number) for number in range(1800)])
    meddler.lose_once(b"%d" % lost)
    with capture_logs() as logs:
        messages = await read_all(js, last_per_subject=last_per_subject)
    assert numbers(messages) == list(range(1800))
    assert [entry["reason"] for entry in logs] == [reason]


@integration
async def test_reading_outlives_the_server(jetstream_server: NatsServer) -> None:
    """Consumers in memory are gone with it, and a new one resumes behind the last message."""
    async with open_js(jetstream_server) as js:
        await create(js, synced=True)
        await fill(js, 1, 3 * BATCH)
        messages = []
        async for batch in read(js, "S"):
            messages += batch
            if len(messages) == BATCH:
                jetstream_server.restart()
                await eventually(lambda: js.bus.generation == 2)
        assert numbers(messages) == list(range(1, 3 * BATCH + 1))


@integration
async def test_reading_outlives_its_consumer(js: JetStream) -> None:
    """Somebody removed it, or it was not used for too long: the same, however often that happens.

    Each message comes once, and none that was stored since the call.
    """
    meddler = Meddler(js)
    came: list[str] = []

    def note(message: Message) -> bool:
        came.append(message.subject)
        return False

    await fill(js, 1, 5 * BATCH)
    meddler.lose = note
    messages = []
    async for batch in read(js, "S"):
        messages += batch
        names = (await js.call("CONSUMER.NAMES.S"))["consumers"]
        await js.call(f"CONSUMER.DELETE.S.{names[0]}")
        await fill(js, 1, BATCH)
    assert numbers(messages) == list(range(1, 5 * BATCH + 1))
    assert len([subject for subject in came if subject.startswith("s.")]) == 5 * BATCH


@integration
@pytest.mark.parametrize("failures", [2, 3])
async def test_reading_outlives_questions_without_answer(js: JetStream, failures: int) -> None:
    """A few in a row: it gives up in the end, with the reason."""
    await fill(js, 1, 10)
    call, left = js.call, failures

    async def fail(endpoint: str, body: Any = None) -> dict[str, Any]:
        nonlocal left
        if left and endpoint.startswith("CONSUMER.CREATE."):
            left -= 1
            raise JetStreamUnavailable("not now")
        return await call(endpoint, body)

    js.call = fail  # type: ignore[method-assign]
    if failures == 3:
        with pytest.raises(JetStreamUnavailable, match="S cannot be read after 0: not now"):
            await read_all(js)
    else:
        assert numbers(await read_all(js)) == list(range(1, 11))


@integration
async def test_reading_gives_up_after_a_while(jetstream_server: NatsServer) -> None:
    """Where nothing comes for several timeouts it raises: what it has given is no whole."""
    async with open_js(jetstream_server, patience=0.2) as js:
        await create(js)
        await fill(js, 1, 10)
        meddler = Meddler(js)
        meddler.lose = lambda message: message.subject.startswith("s.")
        with (
            trio.fail_after(8),
            pytest.raises(JetStreamUnavailable, match=r"S cannot be read after 0: it ends before"),
        ):
            await read_all(js)
        meddler.lose = lambda message: not message.subject.startswith("s.x")
        with trio.fail_after(8), pytest.raises(JetStreamUnavailable, match="nothing was heard of it"):
            await read_all(js)
        jetstream_server.stop()
        with trio.fail_after(8), pytest.raises(JetStreamUnavailable, match=r"within 0\.2 s"):
            await read_all(js)


# Following.


@integration
async def test_a_stream_is_followed(js: JetStream) -> None:
    """From its beginning, and then as messages come, in order and each once."""
    got: list[Delivered] = []
    await fill(js, 1, 5 * BATCH)
    async with following(js, got) as follower:
        await follower.caught_up()
        assert numbers(got) == list(range(1, 5 * BATCH + 1))
        await fill(js, 5 * BATCH + 1, 8 * BATCH)
        await follower.caught_up()
        assert numbers(got) == list(range(1, 8 * BATCH + 1))
        assert follower.seen == await position_of(js, 8 * BATCH)
        assert got[-1] == (await read_all(js, start=8 * BATCH))[0]


@integration
async def test_the_next_question_is_asked_before_the_last_is_used_up(js: JetStream) -> None:
    """While messages come there is always room for half a batch."""
    meddler = Meddler(js)
    async with following(js, []) as follower:
        for last in (BATCH // 2, BATCH // 2 + 1):
            await fill(js, (await js.info("S")).messages + 1, last)
            await follower.caught_up()
            questions = [one for one in meddler.published if ".MSG.NEXT." in one]
            assert len(questions) == (1 if last == BATCH // 2 else 2)


@integration
async def test_large_messages_are_followed(js: JetStream) -> None:
    """Questions end early when they have no room for more bytes; others take their place."""
    got: list[int] = []
    payload = bytes(js.bus.max_payload - 100)
    await store(js, [("s.a", payload)] * 40)
    follower = StreamFollower(js, "S", lambda message: got.append(len(message.data)))
    with capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            await nursery.start(follower.run, Position())
            await follower.caught_up()
            nursery.cancel_scope.cancel()
    assert logs == []
    assert got == [len(payload)] * 40


@integration
async def test_a_stream_is_followed_over_a_connection_of_its_own(
    js: JetStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While that one is away the first one does, and nothing is missed or comes twice."""
    bus = js.bus
    assert isinstance(bus, NatsBus)
    async with open_beside(bus, BusOptions((bus.url,)), "replies") as connection:
        beside = JetStream(connection)
        got: list[Delivered] = []
        follower = StreamFollower(js, "S", got.append, beside=beside)

        def over() -> JetStream | None:
            consumer = follower._consumer
            return next((one for one in (js, beside) if consumer is not None and consumer.is_over(one)), None)

        async with trio.open_nursery() as nursery:
            await nursery.start(follower.run, Position())
            await fill(js, 1, 100)
            await follower.caught_up()
            assert over() is beside
            back, connect = trio.Event(), connection.connect

            async def later(**options: float) -> None:
                await back.wait()
                await connect(delay=options["delay"])

            monkeypatch.setattr(connection, "connect", later)
            assert connection._connection is not None
            connection._connection.lose("a test")
            await fill(js, 101, 200)
            await eventually(lambda: over() is js, 20)
            await follower.caught_up()
            assert numbers(got) == [*range(1, 201)]
            back.set()
            await eventually(lambda: over() is beside, 20)
            await fill(js, 201, 300)
            await follower.caught_up()
            nursery.cancel_scope.cancel()
    assert numbers(got) == [*range(1, 301)]
    assert await consumers(js) <= 2


@integration
async def test_a_connection_that_comes_while_another_one_is_tried_is_used(
    js: JetStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not left alone until something else changes."""
    bus = js.bus
    assert isinstance(bus, NatsBus)
    async with open_beside(bus, BusOptions((bus.url,)), "replies") as connection:
        beside = JetStream(connection)
        follower = StreamFollower(js, "S", lambda _: None, beside=beside)
        back, connect, open_consumer = trio.Event(), connection.connect, Consumer.open

        async def later(**options: float) -> None:
            await back.wait()
            await connect(delay=options["delay"])

        async def slow(consumer: Consumer, config: Mapping[str, Any]) -> None:
            await open_consumer(consumer, config)
            if consumer.is_over(js):
                back.set()
                await eventually(lambda: connection.connected)

        async with trio.open_nursery() as nursery:
            await nursery.start(follower.run, Position())
            monkeypatch.setattr(connection, "connect", later)
            monkeypatch.setattr(Consumer, "open", slow)
            assert connection._connection is not None
            connection._connection.lose("a test")
            await back.wait()
            await eventually(
                lambda: follower._consumer is not None and follower._consumer.is_over(beside), 20
            )
            nursery.cancel_scope.cancel()


@integration
async def test_where_the_other_connection_has_no_jetstream_the_first_one_is_used(
    js: JetStream, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two connections may be to two servers, of which one is cut off from the others."""
    bus = js.bus
    assert isinstance(bus, NatsBus)
    monkeypatch.setattr(BesideBus, "_candidates", lambda _: [(nats_server.url, None)])
    async with open_beside(bus, BusOptions((nats_server.url,)), "replies") as connection:
        assert connection.connected
        got: list[Delivered] = []
        follower = StreamFollower(js, "S", got.append, beside=JetStream(connection))
        async with trio.open_nursery() as nursery:
            await nursery.start(follower.run, Position())
            await fill(js, 1, 100)
            await follower.caught_up()
            nursery.cancel_scope.cancel()
    assert numbers(got) == [*range(1, 101)]


@integration
async def test_a_connection_that_failed_is_tried_again_later(
    js: JetStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not for ever, and not at once: meanwhile the first one is used."""
    bus = js.bus
    assert isinstance(bus, NatsBus)
    # Twice a heartbeat, or the broker refuses each pull.
    monkeypatch.setattr(reading, "_EXPIRES", 4)
    monkeypatch.setattr(reading, "_AVOIDED", 2.0)
    async with open_beside(bus, BusOptions((bus.url,)), "replies") as connection:
        beside = JetStream(connection)
        follower = StreamFollower(js, "S", lambda _: None, beside=beside)

        def is_over(one: JetStream) -> bool:
            return follower._consumer is not None and follower._consumer.is_over(one)

        async with trio.open_nursery() as nursery:
            await nursery.start(follower.run, Position())
            assert is_over(beside)
            assert follower._consumer is not None
            follower._consumer.lose("a test")
            await eventually(lambda: is_over(js), 20)
            await eventually(lambda: is_over(beside), 20)
            nursery.cancel_scope.cancel()


@integration
async def test_following_begins_behind_a_position(js: JetStream) -> None:
    """The position is the last message that is known already."""
    await fill(js, 1, 10)
    got: list[Delivered] = []
    start = await position_of(js, 7)
    async with following(js, got, start) as follower:
        assert follower.seen in {start, await position_of(js, 10)}
        await follower.caught_up()
    assert numbers(got) == [8, 9, 10]


@integration
async def test_following_begins_with_a_time(js: JetStream) -> None:
    """A position without a sequence: everything that was stored then or later."""
    await fill(js, 1, 5)
    known = await position_of(js, 4)
    got: list[Delivered] = []
    async with following(js, got, Position(0, known.time)) as follower:
        await follower.caught_up()
    assert numbers(got) == [4, 5]
    got.clear()
    async with following(js, got, Position(0, known.time + 10**15)) as follower:
        await follower.caught_up()
    assert numbers(got) == []


@integration
async def test_catching_up_with_nothing(js: JetStream) -> None:
    """An empty stream, or one that was emptied, is caught up with at once."""
    got: list[Delivered] = []
    async with following(js, got) as follower:
        await follower.caught_up()
    await fill(js, 1, 10)
    await js.purge("S", "s.*")
    async with following(js, got) as follower:
        await follower.caught_up()
    assert got == []


@integration
async def test_catching_up_waits_for_what_was_there_at_the_call(js: JetStream) -> None:
    """Not less, although the messages come late."""
    got: list[Delivered] = []
    meddler = Meddler(js)
    await fill(js, 1, 10)
    meddler.lose = lambda message: message.subject.startswith("s.")
    async with following(js, got) as follower:
        with trio.move_on_after(0.5) as early:
            await follower.caught_up()
        assert early.cancelled_caught
        meddler.lose = lambda _: False
        await follower.caught_up()
        assert numbers(got) == list(range(1, 11))


@integration
async def test_catching_up_does_not_wait_for_what_has_gone_meanwhile(js: JetStream) -> None:
    """The message that it waits for may leave the stream before it comes."""
    meddler = Meddler(js)
    await fill(js, 1, 10)
    meddler.lose = lambda message: message.subject.startswith("s.")
    async with following(js, []) as follower, trio.open_nursery() as nursery:
        nursery.start_soon(follower.caught_up)
        await trio.sleep(0.2)
        await js.purge("S", "s.*")


@integration
async def test_messages_that_aged_are_told_and_passed_over(js: JetStream) -> None:
    """Messages that the stream has removed are lost: reading resumes with the first that is left."""
    await fill(js, 1, 10)
    start = await position_of(js, 3)
    await js.call("STREAM.PURGE.S", {"seq": 6})
    got: list[Delivered] = []
    with capture_logs() as logs:
        async with following(js, got, start) as follower:
            await follower.caught_up()
    assert numbers(got) == [6, 7, 8, 9, 10]
    assert [(entry["event"], entry["messages"]) for entry in logs if "messages" in entry] == [
        ("messages had left the stream before they were read", 2)
    ]


@integration
async def test_all_messages_have_aged(js: JetStream) -> None:
    """Numbers continue where they were, and so does reading, without a report of loss."""
    await fill(js, 1, 10)
    start = await position_of(js, 10)
    await js.purge("S", "s.*")
    got: list[Delivered] = []
    with capture_logs() as logs:
        async with following(js, got, start) as follower:
            await follower.caught_up()
            await fill(js, 11, 12)
            await follower.caught_up()
    assert numbers(got) == [11, 12]
    assert [entry for entry in logs if entry["log_level"] == "warning"] == []


@integration
@pytest.mark.parametrize("since", [0, 3, 30])
async def test_a_stream_that_was_made_anew_is_followed_from_its_beginning(js: JetStream, since: int) -> None:
    """Whether it is still empty, has not come to the position's number, or is past it."""
    await fill(js, 1, 10)
    start = await position_of(js, 10)
    await js.call("STREAM.DELETE.S")
    await create(js)
    await fill(js, 101, 100 + since)
    got: list[Delivered] = []
    with capture_logs() as logs:
        async with following(js, got, start) as follower:
            await follower.caught_up()
            assert numbers(got) == list(range(101, 101 + since))
            await fill(js, 101 + since, 140)
            await follower.caught_up()
    assert numbers(got) == list(range(101, 141))
    assert [entry["known_until"] for entry in logs if "known_until" in entry] == [10]


@integration
async def test_clocks_that_differ(js: JetStream) -> None:
    """Where a stream lost its end, another server's clock may have been ahead by half a second."""
    await fill(js, 1, 10)
    known = await position_of(js, 10)
    got: list[Delivered] = []
    async with following(js, got, Position(10, known.time + 500_000_000)) as follower:
        await follower.caught_up()
    assert numbers(got) == list(range(1, 11))


@integration
async def test_a_stream_is_made_anew_while_it_is_followed(js: JetStream) -> None:
    """It waits while there is none, saying so, and misses nothing of the new one."""
    got: list[Delivered] = []
    await fill(js, 1, 10)
    async with following(js, got) as follower:
        await follower.caught_up()
        with capture_logs() as logs:
            await js.call("STREAM.DELETE.S")
            await eventually(lambda: any(entry["event"].startswith("a stream is not") for entry in logs))
            await create(js)
            await fill(js, 101, 105)
            await follower.caught_up()
        assert numbers(got)[10:] == [101, 102, 103, 104, 105]


@integration
@pytest.mark.parametrize("since", [2, 30])
async def test_a_stream_that_lost_its_end_is_followed_by_time(
    jetstream_server: NatsServer, since: int
) -> None:
    """Numbers are given out again: those behind the position's are not all that is new."""
    async with open_js(jetstream_server) as js:
        await create(js)
        await fill(js, 1, 100)
        # What is written next is lost, as it may be where the server is killed.
        store, kept = jetstream_server.folder / "store", jetstream_server.folder / "kept"
        jetstream_server.stop()
        shutil.copytree(store, kept)
        jetstream_server.start()
        await eventually(lambda: js.bus.generation == 2)
        got: list[Delivered] = []
        async with following(js, got, await position_of(js, 100)) as follower:
            # What survives, and what is lost, are further apart than the margin.
            time.sleep(1.1)  # noqa: ASYNC251 - of the server's time, and everybody's
            await fill(js, 101, 110)
            await follower.caught_up()
            assert numbers(got) == list(range(101, 111))
            time.sleep(1.1)  # noqa: ASYNC251 - the same
            jetstream_server.kill()
            shutil.rmtree(store)
            kept.rename(store)
            jetstream_server.start()
            await eventually(lambda: js.bus.generation == 3)
            await fill(js, 201, 200 + since)
            await follower.caught_up()
            assert numbers(got)[10:] == list(range(201, 201 + since))
            assert follower.seen == await position_of(js, 100 + since)


@integration
async def test_a_server_that_is_killed_while_it_stores(jetstream_server: NatsServer) -> None:
    """Whatever it has in the end was handed over, once or (where it lost its end) more often."""
    async with open_js(jetstream_server) as js:
        await create(js)
        got: list[Delivered] = []
        async with following(js, got) as follower:
            for round_ in range(3):
                for number in range(3_000):
                    js.bus.publish("s.a", b"%d" % (round_ * 3_000 + number))
                await trio.sleep(0.02)
                generation = js.bus.generation
                jetstream_server.restart()
                await eventually(lambda before=generation: js.bus.generation > before)  # type: ignore[misc]
            await fill(js, 10_000, 10_010)
            await follower.caught_up()
            kept = [(one.sequence, one.data) for one in await read_all(js)]
            assert len(kept) > 11
            assert set(kept) <= {(one.sequence, one.data) for one in got}


@integration
async def test_following_outlives_the_server(
    jetstream_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its consumer is gone; a new one begins behind the last message, as soon as there is a connection."""
    # Not because it looks whether there is one.
    monkeypatch.setattr("scheduler.jetstream.consumers._LOOK", 30)
    async with open_js(jetstream_server) as js:
        await create(js, synced=True)
        got: list[Delivered] = []
        await fill(js, 1, 10)
        async with following(js, got) as follower:
            await follower.caught_up()
            for round_ in range(1, 4):
                jetstream_server.kill()
                await eventually(lambda: not js.bus.connected)
                jetstream_server.start()
                await eventually(lambda: js.bus.connected)
                with trio.fail_after(3):
                    await fill(js, 10 * round_ + 1, 10 * round_ + 10)
                    await follower.caught_up()
                assert numbers(got) == list(range(1, 10 * round_ + 11))


@integration
async def test_following_waits_for_a_connection(jetstream_server: NatsServer) -> None:
    """It starts once there is one, however long that takes."""
    async with open_js(jetstream_server, patience=0.1) as js:
        await create(js)
        await fill(js, 1, 10)
        jetstream_server.stop()
        await eventually(lambda: not js.bus.connected)
        got: list[Delivered] = []
        follower = StreamFollower(js, "S", got.append)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follower.run, Position())
            nursery.start_soon(follower.caught_up)
            await trio.sleep(1)
            jetstream_server.start()
            await follower.caught_up()
            assert numbers(got) == list(range(1, 11))
            nursery.cancel_scope.cancel()


@integration
async def test_following_waits_for_the_stream(js: JetStream) -> None:
    """One that is not there is said loudly; it may just not be known yet to a server that has started."""
    await js.call("STREAM.DELETE.S")
    got: list[Delivered] = []
    follower = StreamFollower(js, "S", got.append)
    async with trio.open_nursery() as nursery:
        with capture_logs() as logs:
            nursery.start_soon(follower.run, Position())
            await eventually(lambda: any(entry["log_level"] == "error" for entry in logs))
            await create(js)
            await fill(js, 1, 3)
            await follower.caught_up()
        nursery.cancel_scope.cancel()
    assert numbers(got) == [1, 2, 3]
    assert [entry["event"] for entry in logs] == [
        "a stream is not followed for the moment",
        "a stream is followed again",
    ]


@integration
async def test_a_message_lost_on_the_way_is_fetched_again(js: JetStream) -> None:
    """The next one shows the gap; order is kept and nothing comes twice."""
    got: list[Delivered] = []
    meddler = Meddler(js)
    meddler.lose_once(b"700")
    await fill(js, 1, 2 * BATCH)
    with capture_logs() as logs:
        async with following(js, got) as follower:
            await follower.caught_up()
    assert numbers(got) == list(range(1, 2 * BATCH + 1))
    assert [entry["reason"] for entry in logs if "reason" in entry] == ["its message 700 did not come"]


@integration
async def test_the_last_message_lost_on_the_way_is_fetched_again(js: JetStream) -> None:
    """No message shows the gap, but the next sign of life does."""
    got: list[Delivered] = []
    meddler = Meddler(js)
    meddler.lose_once(b"10")
    await fill(js, 1, 10)
    async with following(js, got) as follower:
        with trio.fail_after(4):
            await follower.caught_up()
    assert numbers(got) == list(range(1, 11))


@integration
async def test_a_dead_consumer_is_noticed_by_its_silence(js: JetStream) -> None:
    """Within a few seconds, although there is no sign of it."""
    got: list[Delivered] = []
    meddler = Meddler(js)
    async with following(js, got) as follower:
        await fill(js, 1, 10)
        await follower.caught_up()
        # The server's word on it is lost.
        meddler.lose = lambda message: not message.reply
        names = (await js.call("CONSUMER.NAMES.S"))["consumers"]
        await js.call(f"CONSUMER.DELETE.S.{names[0]}")
        await fill(js, 11, 20)
        with trio.fail_after(8):
            await follower.caught_up()
    assert numbers(got) == list(range(1, 21))


@integration
async def test_a_consumer_that_is_removed_is_replaced(js: JetStream) -> None:
    """At once, where the server says so."""
    got: list[Delivered] = []
    async with following(js, got) as follower:
        await follower.caught_up()
        names = (await js.call("CONSUMER.NAMES.S"))["consumers"]
        await js.call(f"CONSUMER.DELETE.S.{names[0]}")
        await fill(js, 1, 10)
        with trio.fail_after(2):
            await follower.caught_up()
    assert numbers(got) == list(range(1, 11))
    await all_removed(js)


@integration
async def test_following_what_is_quiet_costs_nothing(js: JetStream) -> None:
    """Nothing is sent while nothing comes; a question stands for half a minute."""
    meddler = Meddler(js)
    async with following(js, []) as follower:
        await follower.caught_up()
        meddler.published.clear()
        await trio.sleep(3)
    assert meddler.published[:-1] == []
    assert meddler.published[-1].startswith("$JS.API.CONSUMER.DELETE.S.")


# Consumers.


@pytest.mark.parametrize(
    "reply",
    [
        "$JS.ACK.S.name.1.42.1.1795454287642830982.7",
        "$JS.ACK.hub.ACCOUNT.S.name.1.42.1.1795454287642830982.7",
        "$JS.ACK.hub.ACCOUNT.S.name.1.42.1.1795454287642830982.7.random",
    ],
)
def test_the_place_of_a_message_in_either_form(fake_bus: FakeBus, reply: str) -> None:
    """Newer servers say the domain and the account as well."""
    got: list[Delivered] = []
    consumer = Consumer(JetStream(fake_bus), "S", got.append)
    consumer._receive(Message("s.a", b"1", reply))
    assert got == [Delivered("s.a", b"1", {}, 42, 1795454287642830982)]
    assert not consumer.lost


@integration
async def test_a_message_without_room_in_flight_is_no_endless_loop(
    js: JetStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is lost with a word, where otherwise the server would be asked again and again."""
    await js.publish("s.a", bytes(300_000))
    monkeypatch.setattr(js.bus, "max_payload", 1_000)
    monkeypatch.setattr("scheduler.jetstream.consumers.BATCH_BYTES", 100_000)
    with pytest.raises(JetStreamUnavailable, match="the next message is larger"):
        await read_all(js)


async def test_a_consumer_unknown_at_first_is_asked_again(fake_bus: FakeBus) -> None:
    """In a cluster another server has made it, and ours may not have heard of it yet when it is asked."""
    asked: list[Message] = []

    def answer(message: Message) -> None:
        asked.append(message)
        if len(asked) == 3:
            fake_bus.deliver(message.reply, b"1", reply="$JS.ACK.S.name.1.42.1.1795454287642830982.0")
            fake_bus.deliver(message.reply, b"", headers={"Status": "404"})
        else:
            fake_bus.deliver(message.reply, b"", headers={"Status": "503"})

    await fake_bus.subscribe(
        "$JS.API.CONSUMER.CREATE.>", lambda message: fake_bus.deliver(message.reply, b"{}")
    )
    await fake_bus.subscribe("$JS.API.CONSUMER.MSG.NEXT.>", answer)
    got: list[Delivered] = []
    consumer = Consumer(JetStream(fake_bus), "S", got.append)
    await consumer.open({})
    consumer.pull()
    assert not await consumer.settle(5)
    assert len(asked) == 3
    assert [one.sequence for one in got] == [42]
    # Once it has delivered something it is known.
    consumer.pull()
    assert await consumer.settle(5) == "it does not exist any more"
    assert len(asked) == 4
    await consumer.close()


# Following some subjects.


@integration
async def test_of_a_stream_some_subjects_can_be_followed(js: JetStream) -> None:
    """What lies between is not missed, and nobody waits for it."""
    got: list[Delivered] = []
    follower = StreamFollower(js, "S", got.append, subjects=["s.b", "t.b"])
    await fill(js, 1, 10)
    with capture_logs() as logs, trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            await nursery.start(follower.run, Position())
            await follower.caught_up()
            assert numbers(got) == [1, 4, 7, 10]
            await store(js, [("s.a", b"11")])
            await follower.caught_up()
            nursery.cancel_scope.cancel()
    assert logs == []
    assert follower.seen.sequence == 10


@integration
async def test_other_subjects_can_be_followed_instead(js: JetStream) -> None:
    """From where it stands on: what came before under a new one does not come; nothing comes twice."""
    got: list[Delivered] = []
    follower = StreamFollower(js, "S", got.append, subjects=["s.b"])
    await fill(js, 1, 11)
    with capture_logs() as logs, trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            await nursery.start(follower.run, Position())
            await follower.caught_up()
            await follower.select(["s.b", "s.c"])
            await store(js, [("s.a", b"12"), ("s.b", b"13"), ("s.c", b"14")])
            await follower.caught_up()
            nursery.cancel_scope.cancel()
    # The last one of s.c came after the last one of s.b.
    assert numbers(got) == [1, 4, 7, 10, 11, 13, 14]
    assert logs == []


@integration
async def test_subjects_that_are_followed_already_cost_nothing(js: JetStream) -> None:
    """The consumer stays."""
    follower = StreamFollower(js, "S", lambda _: None, subjects=["s.b"])
    meddler = Meddler(js)
    async with trio.open_nursery() as nursery:
        await nursery.start(follower.run, Position())
        made = len(meddler.published)
        with trio.fail_after(1):
            await follower.select(["s.b"])
        assert not any("CONSUMER" in one and "NEXT" not in one for one in meddler.published[made:])
        nursery.cancel_scope.cancel()
