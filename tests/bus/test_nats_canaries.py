"""The defects of nats-py 2.16 that can reach us: each is shown on the raw client, and absent from our bus.

A test of the raw client that fails after an upgrade is good news: the workaround in `scheduler.bus.guards`
may go. The numbers P1 to P14 are our own count of them; P9 and P12 (key-value buckets, ordered consumers)
are not here: the bus uses neither.
"""

import asyncio
import contextlib
from asyncio.selector_events import _SelectorSocketTransport  # type: ignore[attr-defined]
from collections.abc import Awaitable, Callable
from typing import Any

import nats
import pytest
import trio
from nats.aio.client import Client
from nats.errors import BadSubjectError, FlushTimeoutError, SlowConsumerError
from support.brokers import NatsServer, eventually, nats_server
from support.scripted import ScriptedServer, scripted_server

from scheduler.bus import Message
from scheduler.bus.guards import TURN, Connection
from scheduler.bus.nats import open_bus
from scheduler.bus.options import BusOptions
from scheduler.errors import InvalidSubject, MessageTooLarge, UnsupportedServer

pytestmark = pytest.mark.integration


def raw(url: str, run: Callable[[Client, list[Exception]], Awaitable[None]], **options: Any) -> None:
    """Connect nats-py as its users do, and clean up after it whatever happened."""

    async def main() -> None:
        errors: list[Exception] = []

        async def note(error: Exception) -> None:
            errors.append(error)

        client = await nats.connect(url, error_cb=note, **options)
        try:
            async with asyncio.timeout(20):
                await run(client, errors)
        finally:
            transport: Any = client._transport
            if transport is not None and transport._io_writer is not None:
                transport._io_writer.transport.abort()
            with contextlib.suppress(Exception):
                await asyncio.wait_for(client.close(), 1)  # noqa: ASYNC102 - asyncio, with a deadline

    asyncio.run(main())


async def soon(predicate: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while True:
            if predicate():
                return
            await asyncio.sleep(0.001)


def options(server: NatsServer | ScriptedServer, **more: Any) -> BusOptions:
    return BusOptions((server.url,), **more)


# P1: flush is no barrier.


def test_p1_raw_flush_overtakes_what_was_published() -> None:
    """nats-py writes the PING of a flush before the PUBs in its buffer."""
    with scripted_server() as server:

        async def run(client: Client, __: list[Exception]) -> None:
            await client.publish("a", b"x")
            await client.flush()
            await soon(lambda: b"PUB" in server.received)

        raw(server.url, run)
        assert server.received.index(b"PING") < server.received.index(b"PUB a")


async def test_p1_our_flush_comes_last() -> None:
    """Ours follows everything that was published."""
    with scripted_server() as server:
        async with open_bus(options(server)) as bus:
            for _ in range(3):
                bus.publish("a", b"x")
            await bus.flush()
            assert server.received.endswith(b"PUB a 1\r\nx\r\n" * 3 + b"PING\r\n")


# P2: a late PONG makes it deaf.


def test_p2_raw_late_pong_ends_the_reading(caplog: pytest.LogCaptureFixture) -> None:
    """After a timed-out flush its PONG ends nats-py's read loop, while it says it is connected."""
    with scripted_server() as server:

        async def run(client: Client, __: list[Exception]) -> None:
            server.answer_pings.clear()
            with pytest.raises(FlushTimeoutError):
                await client.flush(timeout=0.05)  # type: ignore[arg-type]
            server.pay_pongs()
            reading = client._reading_task
            assert reading is not None
            await soon(reading.done)
            assert client.is_connected

        raw(server.url, run)
    assert "InvalidStateError" in caplog.text


async def test_p2_we_hear_after_a_late_pong() -> None:
    """A flush that was given up leaves nothing behind that hurts."""
    heard = trio.Event()
    with scripted_server() as server:
        async with open_bus(options(server)) as bus:
            await bus.subscribe("s", lambda _: heard.set())
            server.answer_pings.clear()
            with trio.move_on_after(0.05) as scope:
                await bus.flush()
            assert scope.cancelled_caught
            server.pay_pongs()
            with trio.fail_after(5):
                await bus.flush()
                server.send(b"MSG s 2 0\r\n\r\n")
                await heard.wait()
            assert bus.generation == 1


# P3 and P4: one message closes the connection for good.


def test_p3_raw_headers_are_not_counted() -> None:
    """Payload and headers over the limit: nats-py sends them, and is closed for good."""
    with nats_server({"max_payload": 1000}) as server:

        async def run(client: Client, __: list[Exception]) -> None:
            await client.publish("a", b"x" * 990, headers={"K": "v" * 20})
            await soon(lambda: client.is_closed)

        raw(server.url, run, max_reconnect_attempts=-1)


async def test_p3_our_headers_are_counted(nats_server: NatsServer) -> None:
    """Ours refuses such a message."""
    async with open_bus(options(nats_server)) as bus:
        with pytest.raises(MessageTooLarge, match="with its headers takes 1048603 bytes"):
            bus.publish("a", b"x" * bus.max_payload, headers={"K": "v" * 10})


def test_p4_raw_long_subject(nats_server: NatsServer) -> None:
    """A subject over 4 KiB: the same."""

    async def run(client: Client, __: list[Exception]) -> None:
        await client.publish("a" * 5000, b"")
        await soon(lambda: client.is_closed)

    raw(nats_server.url, run, max_reconnect_attempts=-1)


async def test_p4_our_subjects_are_short(nats_server: NatsServer) -> None:
    """Ours refuses it; the longest control line we can make passes."""
    async with open_bus(options(nats_server)) as bus:
        with pytest.raises(InvalidSubject, match="at most 512"):
            bus.publish("a" * 5000, b"")
        bus.publish("a" * 512, b"", reply="b" * 512)
        await bus.flush()
        assert bus.generation == 1


# P5: an unexpected -ERR closes it for good.


def test_p5_raw_error_closes_for_good() -> None:
    """Whatever the server complains of, nats-py never comes back."""
    with scripted_server() as server:

        async def run(client: Client, __: list[Exception]) -> None:
            server.send(b"-ERR 'Something New'\r\n")
            await soon(lambda: client.is_closed)
            await asyncio.sleep(0.1)

        raw(server.url, run, max_reconnect_attempts=-1, reconnect_time_wait=0.01)
        assert server.connections == 1


@pytest.mark.parametrize("words", ["-ERR 'Something New'", "-ERR ", "-ERR 'Stale Connection'", "BOO"])
async def test_p5_we_connect_again(words: str) -> None:
    """Whatever it is, the bus opens another connection and subscribes again; what is queued leaves once."""
    heard = trio.Event()
    with scripted_server() as server:
        async with open_bus(options(server)) as bus:
            await bus.subscribe("s", lambda _: heard.set(), queue="q")
            server.send(words.encode() + b"\r\n")
            await eventually(lambda: bus.generation == 2)
            bus.publish("a", b"x")
            with trio.fail_after(5):
                await bus.flush()
                server.send(b"MSG s 2 0\r\n\r\n")
                await heard.wait()
    assert server.received.count(b"SUB s q 2\r\n") == 2
    assert server.received.count(b"PUB a ") == 1


# P6: publishing into a stalled server cannot be cancelled.


def test_p6_raw_cancellation_is_swallowed(nats_server: NatsServer) -> None:
    """A task that publishes to a stalled server continues after being cancelled."""
    enough = False

    async def run(client: Client, __: list[Exception]) -> None:
        async def publish() -> None:
            while not enough:
                await client.publish("a", b"x" * 100_000)

        nats_server.pause()
        task = asyncio.create_task(publish())
        try:
            await asyncio.sleep(0.3)
            task.cancel()
            await asyncio.sleep(0.1)
            assert not task.done()
        finally:
            nonlocal enough
            enough = True
            task.cancel()
            nats_server.resume()
            await asyncio.wait([task], timeout=5)  # noqa: ASYNC102 - asyncio, with a deadline

    raw(nats_server.url, run, pending_size=500_000)


@pytest.mark.alone
async def test_p6_ours_is_cancelled_at_once(nats_server: NatsServer) -> None:
    """With a stalled server, waiting tasks can be cancelled, and the rest can be withdrawn."""
    async with open_bus(options(nats_server)) as bus:
        await bus.flush()
        nats_server.pause()
        try:
            outgoing = [bus.publish("a", b"x" * 100_000) for _ in range(300)]
            started = trio.current_time()
            with trio.move_on_after(0.1) as scope:
                await bus.flush()
            assert scope.cancelled_caught
            assert trio.current_time() - started < 0.6
            # What fits into the buffers of two sockets has left, not more.
            assert sum(one.withdraw() for one in outgoing) > 200
        finally:
            nats_server.resume()
        with trio.fail_after(5):
            await bus.flush()
        assert bus.generation == 1


# P7: closing waits for a stalled peer.


def test_p7_raw_close_hangs(nats_server: NatsServer) -> None:
    """nats-py cannot close while the server reads nothing."""

    async def run(client: Client, __: list[Exception]) -> None:
        nats_server.pause()
        try:
            for _ in range(200):
                await client.publish("a", b"x" * 100_000)
            await asyncio.sleep(0.05)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.close(), 1)  # noqa: ASYNC102 - asyncio, with a deadline
        finally:
            nats_server.resume()

    raw(nats_server.url, run, flush_timeout=0.01)


@pytest.mark.alone
@pytest.mark.parametrize("how", ["stalled", "stalled and full", "killed", "well"])
async def test_p7_we_leave_within_a_second(nats_server: NatsServer, how: str) -> None:
    """Whatever the server does, with nothing left behind."""
    async with open_bus(options(nats_server)) as bus:
        await bus.subscribe("s", lambda _: None)
        if how == "killed":
            nats_server.kill()
        elif how.startswith("stalled"):
            nats_server.pause()
            if how.endswith("full"):
                for _ in range(300):
                    bus.publish("a", b"x" * 100_000)
                await trio.sleep(0.05)
        started = trio.current_time()
    assert trio.current_time() - started < 1


# P8: cancelling a receive loses messages.


def test_p8_raw_cancelled_receive_loses_a_message(nats_server: NatsServer) -> None:
    """A message that was taken for a receive which is cancelled in that moment is gone."""
    lost = 0

    async def run(client: Client, __: list[Exception]) -> None:
        nonlocal lost
        for turns in range(8):
            subscription = await client.subscribe("s")
            receive = asyncio.create_task(subscription.next_msg(timeout=5))
            await asyncio.sleep(0.01)
            subscription._pending_queue.put_nowait(client._build_message(1, b"s", b"", b"x", None))
            for _ in range(turns):
                await asyncio.sleep(0)
            receive.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await receive
                continue
            lost += subscription.pending_msgs == 0
            await subscription.unsubscribe()

    raw(nats_server.url, run)
    assert lost


async def test_p8_ours_loses_none(nats_server: NatsServer) -> None:
    """A cancelled wait for a message leaves it in the channel."""
    total = 3000
    send, receive = trio.open_memory_channel[Message](total)
    got: list[bytes] = []
    async with open_bus(options(nats_server)) as bus:
        await bus.subscribe("s", send.send_nowait)
        for i in range(total):
            bus.publish("s", b"%d" % i)
        with trio.fail_after(30):
            while len(got) < total:
                with trio.move_on_after(0.0002):
                    while True:
                        got.append((await receive.receive()).data)
    assert got == [b"%d" % i for i in range(total)]


# P10: a slow consumer loses messages.


def test_p10_raw_slow_consumer_drops(nats_server: NatsServer) -> None:
    """Beyond its pending limit nats-py throws messages away, and tells only ``error_cb``."""
    got = 0

    async def run(client: Client, errors: list[Exception]) -> None:
        go = asyncio.Event()

        async def slow(_: Any) -> None:
            nonlocal got
            await go.wait()
            got += 1

        await client.subscribe("s", cb=slow, pending_msgs_limit=10)
        for _ in range(100):
            await client.publish("s", b"")
        await client.flush()
        await soon(lambda: len(errors) > 80)
        go.set()
        await asyncio.sleep(0.1)
        assert all(isinstance(error, SlowConsumerError) for error in errors)

    raw(nats_server.url, run)
    assert got < 20


async def test_p10_ours_drops_none(nats_server: NatsServer) -> None:
    """There is no queue between the socket and a handler: a burst arrives whole, others get their turn."""
    got = 0

    def handle(_: Message) -> None:
        nonlocal got
        got += 1

    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with open_bus(options(nats_server)) as bus:
        await bus.subscribe("s", handle)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            for _ in range(50_000):
                bus.publish("s", b"x")
            with trio.fail_after(30):
                await bus.flush()
            nursery.cancel_scope.cancel()
        assert bus.dropped == 0
    assert got == 50_000
    assert turns > 50_000 / TURN


# P11: unsubscribe(limit=n) with a callback.


def test_p11_raw_limit_with_a_callback_delivers_one(nats_server: NatsServer) -> None:
    """Not used by us; it would deliver one message of three."""
    got = 0

    async def run(client: Client, __: list[Exception]) -> None:
        async def handle(_: Any) -> None:
            nonlocal got
            await asyncio.sleep(0)
            await soon(lambda: subscription.delivered == 3)
            got += 1

        subscription = await client.subscribe("s", cb=handle)
        await subscription.unsubscribe(limit=3)
        for _ in range(3):
            await client.publish("s", b"")
        await soon(lambda: subscription.delivered == 3)
        await asyncio.sleep(0.1)

    raw(nats_server.url, run)
    assert got == 1


# P13: a forbidden publish.

_DENIED = {
    "authorization": {
        "users": [{"user": "u", "password": "p", "permissions": {"publish": {"deny": ["vpc.create.AWS"]}}}]
    }
}


def test_p13_raw_forbidden_publish_raises_nothing() -> None:
    """Only ``error_cb`` hears of it, with the subject in lower case."""
    with nats_server(_DENIED) as server:

        async def run(client: Client, errors: list[Exception]) -> None:
            await client.publish("vpc.create.AWS", b"")
            await client.flush()
            await soon(lambda: bool(errors))
            assert 'permissions violation for publish to "vpc.create.aws"' in str(errors[0])

        raw(server.url, run, user="u", password="p")


async def test_p13_our_refusals_carry_the_subject() -> None:
    """Ours calls the handlers, one of which may fail, with the subject as it was."""
    refused: list[str] = []

    def bad(_: str) -> None:
        raise RuntimeError

    with nats_server(_DENIED) as server:
        async with open_bus(options(server, user="u", password="p")) as bus:
            bus.on_refused(bad)
            bus.on_refused(refused.append)
            bus.publish("vpc.create.AWS", b"", reply="scheduler.reply.1")
            await bus.flush()
    assert refused == ["vpc.create.AWS"]


# P14: validation.


def test_p14_raw_validates_white_space_only(nats_server: NatsServer) -> None:
    """Since 2.16 a CR LF in a subject is refused; an empty token is not, on publishing."""

    async def run(client: Client, __: list[Exception]) -> None:
        with pytest.raises(BadSubjectError):
            await client.publish("a\r\nPUB b 0\r\n", b"")
        await client.publish("a..b", b"")
        await client.publish("a\x00b", b"")

    raw(nats_server.url, run)


# And what we found besides.


def test_raw_tls_url_is_no_promise(nats_server: NatsServer) -> None:
    """nats-py takes a ``tls://`` URL and speaks in clear text where the server offers no TLS."""

    async def run(client: Client, __: list[Exception]) -> None:
        assert client.is_connected
        await client.flush()

    raw(nats_server.url.replace("nats:", "tls:"), run)


async def test_our_tls_url_is_one() -> None:
    """Ours refuses to, before it has sent its credentials."""
    with scripted_server(auth_required=True) as server:
        with pytest.raises(UnsupportedServer, match="offers no TLS"):
            async with open_bus(BusOptions((server.url.replace("nats:", "tls:"),), token="secret")):
                pass
        assert server.connects == []


def test_raw_bare_error_ends_the_reading(caplog: pytest.LogCaptureFixture) -> None:
    """An ``-ERR`` without words ends nats-py's reading, while it says it is connected."""
    with scripted_server() as server:

        async def run(client: Client, __: list[Exception]) -> None:
            server.send(b"-ERR \r\n")
            reading = client._reading_task
            assert reading is not None
            await soon(reading.done)
            assert client.is_connected

        raw(server.url, run)
    assert "encountered error" in caplog.text


def test_raw_reconnect_keeps_the_buffer_and_loses_the_socket(nats_server: NatsServer) -> None:
    """What nats-py has not written yet survives a reconnect, and is sent once; what it wrote last is lost."""
    got: list[bytes] = []

    async def run(client: Client, __: list[Exception]) -> None:
        async def handle(message: Any) -> None:
            got.append(message.data)

        await client.subscribe("s", cb=handle)
        await client.flush()
        nats_server.pause()
        await client.publish("s", b"written")
        await soon(lambda: client.pending_data_size == 0)
        nats_server.kill()
        await soon(lambda: not client.is_connected)
        await client.publish("s", b"buffered")
        nats_server.start()
        await soon(lambda: bool(got))
        await client.flush()

    raw(nats_server.url, run, max_reconnect_attempts=-1, reconnect_time_wait=0.1)
    assert got == [b"buffered"]


def test_what_we_override_exists() -> None:
    """The private members of nats-py that our connection relies on are there, and take what we give."""
    for name in (
        "_select_next_server",
        "_process_info",
        "_process_msg",
        "_process_pong",
        "_process_err",
        "_process_op_err",
        "_read_loop",
    ):
        theirs = getattr(Client, name).__code__
        ours = getattr(Connection, name).__code__
        assert theirs.co_varnames[: theirs.co_argcount] == ours.co_varnames[: ours.co_argcount], name
    client = Client()
    counters = ("_pongs", "_pongs_received", "_pings_outstanding", "_max_payload")
    tasks = ("_reading_task", "_ping_interval_task", "_flusher_task")
    for name in (*counters, *tasks, "_transport", "_status", "_ps", "_server_pool", "_server_info"):
        assert hasattr(client, name), name
    assert _SelectorSocketTransport.max_size == 256 * 1024
