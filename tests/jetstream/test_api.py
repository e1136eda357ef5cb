"""JetStream's API and publishing, over a real server."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from conftest import ServerFactory
from support.brokers import NatsServer, eventually
from support.fake_bus import FakeBus

from scheduler.bus import Message
from scheduler.bus.nats import open_bus
from scheduler.bus.options import BusOptions
from scheduler.errors import (
    BusError,
    JetStreamError,
    JetStreamUnavailable,
    MessageTooLarge,
    StreamNotFound,
    TooLargeForStream,
    WrongLastSequence,
)
from scheduler.jetstream.answers import Ack, format_time, parse_time, read_answer
from scheduler.jetstream.api import JetStream


@asynccontextmanager
async def open_js(server: NatsServer, *, patience: float = 5.0) -> AsyncIterator[JetStream]:
    async with open_bus(BusOptions((server.url,)), connect_deadline=5) as bus:
        yield JetStream(bus, timeout=patience)


@pytest.fixture
async def js(jetstream_server: NatsServer) -> AsyncIterator[JetStream]:
    async with open_js(jetstream_server) as js:
        yield js


async def create(js: JetStream, name: str = "S", **config: Any) -> None:
    await js.call(f"STREAM.CREATE.{name}", {"name": name, "subjects": ["s.*"], **config})


async def fill(js: JetStream, size: int) -> None:
    for _ in range(20):
        await js.publish("s.a", bytes(size))


# Publishing.


@pytest.mark.integration
async def test_a_publish_is_acknowledged_with_its_place(js: JetStream) -> None:
    """The acknowledgement names the stream and the sequence, and says whether it is a duplicate."""
    await create(js)
    assert await js.publish("s.a", b"1", headers={"Nats-Msg-Id": "x"}) == Ack("S", 1)
    assert await js.publish("s.b", b"2") == Ack("S", 2)
    assert await js.publish("s.a", b"1", headers={"Nats-Msg-Id": "x"}) == Ack("S", 1, duplicate=True)


@pytest.mark.integration
async def test_compare_and_set(js: JetStream) -> None:
    """A publish that expects another last message of its subject is refused and not stored."""
    await create(js)
    assert await js.publish("s.a", b"1", expected=0) == Ack("S", 1)
    assert await js.publish("s.b", b"1", expected=0) == Ack("S", 2)
    assert await js.publish("s.a", b"2", expected=1, headers={"X": "y"}) == Ack("S", 3)
    for wrong in (0, 1, 2, 4):
        with pytest.raises(WrongLastSequence, match="wrong last sequence: 3") as refused:
            await js.publish("s.a", b"3", expected=wrong)
        assert (refused.value.code, refused.value.err_code) == (400, 10071)
    last = await js.last("S", "s.a")
    assert last is not None
    assert (last.sequence, last.data, last.headers["X"]) == (3, b"2", "y")


@pytest.mark.integration
async def test_a_publish_that_no_stream_takes_is_worth_trying_again(js: JetStream) -> None:
    """A stream that a server which has just started does not know yet looks like one that is not there."""
    with pytest.raises(JetStreamUnavailable, match=r"nobody answers s\.a"):
        await js.publish("s.a", b"")


@pytest.mark.integration
async def test_a_stream_without_acknowledgements_stores_in_silence(js: JetStream) -> None:
    """Waiting for it runs into the timeout."""
    await create(js, no_ack=True)
    with pytest.raises(JetStreamUnavailable, match=r"s\.a was not answered within 0\.2 s"):
        await js.publish("s.a", b"stored", timeout=0.2)
    last = await js.last("S", "s.a")
    assert last is not None
    assert last.data == b"stored"


@pytest.mark.integration
async def test_what_did_not_leave_in_time_never_leaves(jetstream_server: NatsServer) -> None:
    """With the broker away a publish ends with its timeout, and is not stored once the broker is back."""
    async with open_js(jetstream_server) as js:
        await create(js)
        jetstream_server.stop()
        await eventually(lambda: not js.bus.connected)
        with trio.fail_after(2), pytest.raises(JetStreamUnavailable):
            await js.publish("s.a", b"", timeout=0.1)
        jetstream_server.start()
        await eventually(lambda: js.bus.connected)
        await js.bus.flush()
        assert (await js.info("S")).messages == 0


@pytest.mark.integration
async def test_a_stalled_server_is_unavailable(jetstream_server: NatsServer) -> None:
    """Every question ends with its timeout."""
    async with open_js(jetstream_server, patience=0.2) as js:
        await create(js)
        jetstream_server.pause()
        with trio.fail_after(3):
            for ask in (
                js.account,
                lambda: js.info("S"),
                lambda: js.last("S", "s.a"),
                lambda: js.publish("s.a", b""),
            ):
                with pytest.raises(JetStreamUnavailable, match=r"within 0\.2 s"):
                    await ask()
        jetstream_server.resume()


@pytest.mark.integration
async def test_what_was_asked_over_a_lost_connection(jetstream_server: NatsServer) -> None:
    """A question is asked again over the next connection; a publish ends with its outcome unknown."""
    async with open_js(jetstream_server, patience=30) as js:
        await create(js)
        answers: list[Any] = []

        async def ask() -> None:
            answers.append(await js.info("S"))

        async def publish() -> None:
            with pytest.raises(JetStreamUnavailable, match=r"s\.a was not answered: the connection was lost"):
                await js.publish("s.a", b"")

        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                jetstream_server.pause()
                nursery.start_soon(ask)
                nursery.start_soon(publish)
                await trio.sleep(0.1)
                jetstream_server.restart()
        assert len(answers) == 1


@pytest.mark.integration
async def test_a_full_stream_is_unavailable(js: JetStream) -> None:
    """There may be room again: nothing is wrong with the message."""
    await create(js, max_bytes=1000, discard="new")
    with pytest.raises(JetStreamUnavailable, match="maximum bytes exceeded"):
        await fill(js, 100)


@pytest.mark.integration
async def test_a_full_store_is_unavailable(start_nats_server: ServerFactory) -> None:
    """The same, where the server's limit is reached."""
    server = start_nats_server({"jetstream": {"store_dir": "store", "max_file_store": 100_000}})
    async with open_js(server) as js:
        await create(js)
        with pytest.raises(JetStreamUnavailable, match="insufficient resources"):
            await fill(js, 10_000)


@pytest.mark.integration
async def test_what_cannot_be_sent_is_said_as_the_bus_says_it(js: JetStream) -> None:
    """Trying again would not help, so it is no JetStreamUnavailable."""
    await create(js)
    with pytest.raises(MessageTooLarge):
        await js.publish("s.a", bytes(js.bus.max_payload + 1))


# Messages.


@pytest.mark.integration
async def test_single_messages_are_read_back_whole(js: JetStream) -> None:
    """By sequence, the last of a subject and the next of a subject: subject, data, headers."""
    await create(js)
    large = bytes(range(256)) * 3_900
    await js.publish("s.a", b"1")
    await js.publish("s.b", large, headers={"One": "1", "Two": "a: b"})
    await js.publish("s.a", b"")
    two = await js.get("S", 2)
    assert two is not None
    assert (two.subject, two.sequence, two.data) == ("s.b", 2, large)
    assert two.headers == {"One": "1", "Two": "a: b"}
    last = await js.last("S", "s.a")
    assert last is not None
    assert (last.sequence, last.data, last.headers) == (3, b"", {})
    for found, sequence in (
        (await js.last("S", "s.*"), 3),
        (await js.last("S", ">"), 3),
        (await js.first("S", "s.a"), 1),
        (await js.first("S", "s.a", from_sequence=2), 3),
        (await js.first("S", "s.*", from_sequence=2), 2),
    ):
        assert found is not None
        assert found.sequence == sequence
    assert await js.get("S", 4) is None
    assert await js.last("S", "s.c") is None
    assert await js.first("S", "s.b", from_sequence=3) is None


@pytest.mark.integration
async def test_the_last_of_everything_is_found_behind_a_purge(js: JetStream) -> None:
    """The server only looks for its last number; we look for the last message that is there."""
    await create(js, subjects=["one", "s.*"])
    await js.publish("one", b"")
    await js.publish("s.a", b"")
    await js.publish("s.b", b"")
    for subject, left in (("s.b", 2), ("s.a", 1), ("one", None)):
        assert await js.purge("S", subject) == 1
        found = await js.last("S", ">")
        assert (found and found.sequence) == left


@pytest.mark.integration
async def test_a_time_is_exact_to_the_nanosecond(js: JetStream) -> None:
    """It is the same number as in what a consumer delivers."""
    await create(js)
    for _ in range(20):
        await js.publish("s.a", b"")
    await js.call("CONSUMER.CREATE.S.c", {"stream_name": "S", "config": {"name": "c", "ack_policy": "none"}})
    got: list[Message] = []
    inbox = js.bus.new_inbox()
    await js.bus.subscribe(inbox, got.append)
    js.bus.publish("$JS.API.CONSUMER.MSG.NEXT.S.c", json.dumps({"batch": 20}).encode(), reply=inbox)
    await eventually(lambda: len(got) == 20)
    for sequence, message in enumerate(got, 1):
        stored = await js.get("S", sequence)
        assert stored is not None
        assert str(stored.time) == message.reply.split(".")[7]


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:01.5Z", 1_500_000_000),
        ("2026-11-23T17:18:07.643385996Z", 1_795_454_287_643_385_996),
        ("2026-11-23T17:18:07.000000001Z", 1_795_454_287_000_000_001),
        ("2026-11-23T17:18:07.64338599Z", 1_795_454_287_643_385_990),
        ("2024-02-29T23:59:59.999999999Z", 1_709_251_199_999_999_999),
    ],
)
def test_times_are_read_and_written(text: str, nanoseconds: int) -> None:
    """The server cuts trailing zeros off; we write all nine digits."""
    assert parse_time(text) == nanoseconds
    assert parse_time(format_time(nanoseconds)) == nanoseconds
    assert len(format_time(nanoseconds)) == 30


# Streams and the account.


@pytest.mark.integration
async def test_what_a_stream_says_of_itself(js: JetStream) -> None:
    """Its settings, and its numbers; after it was emptied its numbers continue."""
    await create(js, max_age=3_600_000_000_000)
    info = await js.info("S")
    assert (info.config["name"], info.config["max_age"]) == ("S", 3_600_000_000_000)
    assert (info.messages, info.first_sequence, info.last_sequence) == (0, 0, 0)
    for subject in ("s.a", "s.a", "s.b"):
        await js.publish(subject, b"x")
    assert await js.purge("S", "s.a") == 2
    info = await js.info("S")
    assert (info.messages, info.first_sequence, info.last_sequence) == (1, 3, 3)
    assert info.bytes > 0
    assert await js.purge("S", "s.*") == 1
    assert await js.purge("S", "s.*") == 0
    info = await js.info("S")
    assert (info.messages, info.first_sequence, info.last_sequence) == (0, 4, 3)


@pytest.mark.integration
async def test_a_stream_that_is_not_there_is_named(js: JetStream) -> None:
    """Whatever is asked of it."""
    for ask in (
        lambda: js.info("NONE"),
        lambda: js.last("NONE", "a"),
        lambda: js.get("NONE", 1),
        lambda: js.first("NONE", "a"),
        lambda: js.purge("NONE", "a"),
    ):
        with pytest.raises(StreamNotFound, match="NONE: stream not found") as missing:
            await ask()
        assert (missing.value.code, missing.value.err_code) == (404, 10059)


@pytest.mark.integration
async def test_the_account_has_limits(js: JetStream) -> None:
    """What the server says of our account is handed on."""
    account = await js.account()
    assert account["streams"] == 0
    assert "max_storage" in account["limits"]


@pytest.mark.integration
async def test_a_server_without_jetstream(nats_server: NatsServer) -> None:
    """It says nothing, at once."""
    async with open_js(nats_server) as js:
        with trio.fail_after(1), pytest.raises(JetStreamUnavailable, match="nobody answers"):
            await js.account()


@pytest.mark.integration
async def test_an_account_without_jetstream(start_nats_server: ServerFactory) -> None:
    """The server's word on it counts as unavailable, too."""
    server = start_nats_server(
        {"accounts": {"A": {"users": [{"user": "a", "password": "b"}]}}, "jetstream": {"store_dir": "store"}}
    )
    server.user_info = "a:b"
    async with open_js(server) as js:
        with pytest.raises(JetStreamUnavailable, match="not enabled for account"):
            await js.account()


@pytest.mark.integration
async def test_subscribing_has_a_deadline(jetstream_server: NatsServer) -> None:
    """With the broker away the bus would wait without limit."""
    async with open_js(jetstream_server, patience=0.1) as js:
        jetstream_server.stop()
        await eventually(lambda: not js.bus.connected)
        with trio.fail_after(2), pytest.raises(JetStreamUnavailable, match="cannot subscribe to x"):
            await js.subscribe("x", lambda _: None)


async def test_a_missing_permission_is_known_at_once(fake_bus: FakeBus) -> None:
    """It may be mended while we run, so it is to be asked again; the text says what is missing."""
    fake_bus.forbidden.add("$JS.API.INFO")
    with trio.fail_after(1), pytest.raises(JetStreamUnavailable, match="allow it in the broker's perm"):
        await JetStream(fake_bus, timeout=30.0).account()


# Errors.


@pytest.mark.parametrize(
    ("code", "err_code", "expected"),
    [
        (404, 10059, StreamNotFound),
        (400, 10071, WrongLastSequence),
        (400, 10054, TooLargeForStream),
        (409, 10158, JetStreamUnavailable),
        (400, 10164, JetStreamUnavailable),
        (503, 10008, JetStreamUnavailable),
        (500, 10009, JetStreamUnavailable),
        (503, 10023, JetStreamUnavailable),
        (503, 10039, JetStreamUnavailable),
        (503, 10077, JetStreamUnavailable),
        (500, 10118, JetStreamUnavailable),
        (429, 10167, JetStreamUnavailable),
        (500, 10002, JetStreamError),
        (503, 99999, JetStreamUnavailable),
        (400, 10065, JetStreamError),
        (500, 10047, JetStreamError),
    ],
)
def test_errors_by_their_number(code: int, err_code: int, expected: type[BusError]) -> None:
    """One map tells what is worth asking again from what is not; the server's words are kept."""
    error = {"code": code, "err_code": err_code, "description": "these words"}
    with pytest.raises(BusError, match=rf"where: these words \({err_code}\)") as raised:
        read_answer("where", json.dumps({"error": error}).encode())
    assert type(raised.value) is expected
    if isinstance(raised.value, JetStreamError):
        assert (raised.value.code, raised.value.err_code) == (code, err_code)


@pytest.mark.parametrize(
    "answer", [b"", b"hello", b"[1]", b'{"stream": 1, "seq": 1}', b"{}", b'{"a": "\xff"}']
)
async def test_an_answer_of_somebody_else(fake_bus: FakeBus, answer: bytes) -> None:
    """Another program that answers on a stream's subject is not taken for a stream."""
    await fake_bus.subscribe("s.a", lambda message: fake_bus.deliver(message.reply, answer))
    await fake_bus.subscribe("$JS.API.>", lambda message: fake_bus.deliver(message.reply, answer))
    js = JetStream(fake_bus)
    with pytest.raises(JetStreamError, match=r"s\.a: the answer is not JetStream's"):
        await js.publish("s.a", b"")
    with pytest.raises(JetStreamError, match="the answer is not JetStream's"):
        await js.info("S")
    with pytest.raises(JetStreamError, match="the answer is not JetStream's"):
        await js.get("S", 1)


async def test_a_full_outbox_is_worth_trying_again() -> None:
    """It empties once the broker is back."""
    bus = FakeBus(max_queued_messages=0)
    with pytest.raises(JetStreamUnavailable, match=r"s\.a was not sent"):
        await JetStream(bus).publish("s.a", b"")
