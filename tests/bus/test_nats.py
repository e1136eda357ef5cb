"""The bus over a real broker: how it connects, loses connections, and leaves."""

import asyncio
import contextlib
import json
import logging
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio
import trio_asyncio  # type: ignore[import-untyped]
from conftest import ServerFactory
from structlog.testing import capture_logs
from support.brokers import NatsServer, eventually
from support.certificates import write_certificates
from support.scripted import INFO, scripted_server

from scheduler.bus import Message
from scheduler.bus.nats import open_bus
from scheduler.bus.options import BusOptions
from scheduler.errors import BusError, UnsupportedServer

pytestmark = pytest.mark.integration


def options(server: NatsServer, **more: Any) -> BusOptions:
    return BusOptions((server.url,), **more)


@pytest.fixture
def tls(tmp_path: Path) -> Path:
    return write_certificates(tmp_path)


# Connecting.


async def test_a_broker_that_is_not_there_is_waited_for(nats_server: NatsServer) -> None:
    """Each failure is logged and told; as soon as it is there, we are connected."""
    nats_server.stop()
    told: list[str] = []

    def tell(status: str) -> None:
        told.append(status)
        if len(told) == 2:
            nats_server.start()

    with capture_logs() as logs, trio.fail_after(10):
        async with open_bus(options(nats_server), on_status=tell) as bus:
            assert bus.connected
            assert bus.generation == 1
            assert bus.url == f"nats://127.0.0.1:{nats_server.port}"
            assert bus.server_version.startswith("2.")
    assert told[0].startswith(f"cannot connect to nats://127.0.0.1:{nats_server.port}: ConnectionRefused")
    assert told[-1] == f"connected to nats://127.0.0.1:{nats_server.port}"
    warnings = [entry for entry in logs if entry["log_level"] == "warning"]
    assert [entry["event"] for entry in warnings] == ["cannot connect to the broker"] * 2
    assert [entry["retry_in"] for entry in warnings] == [0.25, 0.4]


async def test_the_first_connection_may_have_a_deadline(nats_server: NatsServer) -> None:
    """Past it, the error says what went wrong."""
    nats_server.stop()
    with pytest.raises(BusError, match=r"within 0\.3 s: nats://127.0.0.1:\d+: ConnectionRefusedError"):
        async with open_bus(options(nats_server), connect_deadline=0.3):
            pass


@pytest.mark.alone
async def test_silence_counts_as_no_broker(nats_server: NatsServer) -> None:
    """A server that accepts and says nothing does not hold us for ever, nor does leaving wait for it."""
    nats_server.pause()
    started = trio.current_time()
    with pytest.raises(BusError, match=r"no connection to a broker within 0\.5 s"):
        async with open_bus(options(nats_server), connect_deadline=0.5):
            pass
    assert trio.current_time() - started < 1.5


_LOGIN = {"authorization": {"users": [{"user": "u", "password": "right"}]}}


@pytest.mark.parametrize("login", [{}, {"user": "u", "password": "wrong"}, {"token": "other"}])
async def test_refused_credentials_end_the_start(
    start_nats_server: ServerFactory, login: dict[str, Any]
) -> None:
    """At once, clearly, and without telling the secret."""
    server = start_nats_server(_LOGIN)
    refused = pytest.raises(UnsupportedServer, match="refuses our credentials")
    with capture_logs() as logs, trio.fail_after(5), refused as caught:
        async with open_bus(options(server, **login)):
            pass
    for secret in ("wrong", "other"):
        assert secret not in str(caught.value)
        assert secret not in str(logs)


@pytest.mark.parametrize("config", [_LOGIN, {"authorization": {"token": "right"}}])
async def test_accepted_credentials(start_nats_server: ServerFactory, config: dict[str, Any]) -> None:
    """In the options or in the URL, which is masked wherever it is shown."""
    server = start_nats_server(config)
    login = {"user": "u", "password": "right"} if config is _LOGIN else {"token": "right"}
    async with open_bus(options(server, **login)) as bus:
        await bus.flush()
    server.user_info = "u:right" if config is _LOGIN else "right"
    assert "right" not in repr(options(server))
    with capture_logs() as logs:
        async with open_bus(options(server)) as bus:
            await bus.flush()
            assert bus.url == f"nats://***@127.0.0.1:{server.port}"
    assert "right" not in str(logs)


async def test_an_nkey(start_nats_server: ServerFactory, tmp_path: Path) -> None:
    """A seed in a file logs in."""
    seed = "SUAMLK2ZNL35WSMW37E7UD4VZ7ELPKW7DHC3BWBSD2GCZ7IUQQXZIORRBU"
    public = "UCK5N7N66OBOINFXAYC2ACJQYFSOD4VYNU6APEJTAVFZB2SVHLKGEW7L"
    server = start_nats_server({"authorization": {"users": [{"nkey": public}]}})
    path = tmp_path / "seed"
    path.write_text(seed + "\n")
    async with open_bus(options(server, nkey=path)) as bus:
        await bus.flush()
    with pytest.raises(UnsupportedServer, match="refuses our credentials"):
        async with open_bus(options(server, token="x")):
            pass


@pytest.mark.parametrize(
    ("info", "words"),
    [
        ({"version": "2.1.9"}, "nats-server 2.1.9 is too old: 2.2 or newer"),
        ({"version": "1.4.1", "headers": None}, "too old"),
        ({"version": "who knows"}, "too old"),
        ({"headers": False}, "headers switched off"),
    ],
)
async def test_an_unfit_server_ends_the_start(info: dict[str, Any], words: str) -> None:
    """Headers are needed; nothing is sent to a server without them."""
    with scripted_server(**info) as server:
        with pytest.raises(UnsupportedServer, match=words):
            async with open_bus(BusOptions((server.url,), token="secret")):
                pass
        assert server.connects == []


async def test_no_answers_allowed_ends_the_start(start_nats_server: ServerFactory) -> None:
    """Without the permission to subscribe to our inbox every request would hang."""
    user = {"user": "u", "password": "p", "permissions": {"subscribe": {"deny": ["_INBOX.>"]}}}
    server = start_nats_server({"authorization": {"users": [user]}})
    with pytest.raises(UnsupportedServer, match=r"does not let us receive answers.*_INBOX"):
        async with open_bus(options(server, user="u", password="p")):
            pass
    async with open_bus(options(server, user="u", password="p", inbox_prefix="_INBOX_mine")) as bus:
        await bus.flush()


# TLS.


def _tls_config(tls: Path, **more: Any) -> dict[str, Any]:
    return {"tls": {"cert_file": str(tls / "server.pem"), "key_file": str(tls / "server.key"), **more}}


@pytest.mark.parametrize("first", [False, True])
async def test_tls(start_nats_server: ServerFactory, tls: Path, first: bool) -> None:
    """With the right CA it connects, encrypted, and large messages pass both ways."""
    server = start_nats_server(_tls_config(tls, handshake_first=first))
    got: list[Message] = []
    async with open_bus(options(server, tls_ca=tls / "ca.pem", tls_first=first)) as bus:
        await bus.subscribe("s", got.append)
        for _ in range(20):
            bus.publish("s", b"x" * 500_000)
        with trio.fail_after(10):
            await bus.flush()
        server.restart()
        with trio.fail_after(10):
            await eventually(lambda: bus.generation == 2)
            bus.publish("s", b"again")
            await bus.flush()
    assert [len(message.data) for message in got] == [500_000] * 20 + [5]


async def test_an_unknown_ca_ends_the_start(start_nats_server: ServerFactory, tls: Path) -> None:
    """The message names what to check."""
    server = start_nats_server(_tls_config(tls))
    with pytest.raises(UnsupportedServer, match=r"TLS failed.*certificate verify failed.*check.*tls_ca"):
        async with open_bus(BusOptions((server.url.replace("nats:", "tls:"),))):
            pass


async def test_a_wrong_name_ends_the_start(start_nats_server: ServerFactory, tls: Path) -> None:
    """The certificate must be for the host we asked for, or for ``tls_hostname``."""
    server = start_nats_server(_tls_config(tls))
    async with open_bus(options(server, tls_ca=tls / "ca.pem", tls_hostname="localhost")) as bus:
        await bus.flush()
    with pytest.raises(UnsupportedServer, match=r"TLS failed.*tls_hostname"):
        async with open_bus(options(server, tls_ca=tls / "ca.pem", tls_hostname="elsewhere")):
            pass


async def test_a_client_certificate(start_nats_server: ServerFactory, tls: Path) -> None:
    """Where the server asks for one."""
    server = start_nats_server(_tls_config(tls, ca_file=str(tls / "ca.pem"), verify=True))
    mine = {"tls_certificate": tls / "client.pem", "tls_key": tls / "client.key"}
    async with open_bus(options(server, tls_ca=tls / "ca.pem", **mine)) as bus:
        await bus.flush()
    with pytest.raises(BusError):
        async with open_bus(options(server, tls_ca=tls / "ca.pem"), connect_deadline=1):
            pass


@pytest.mark.parametrize("mine", [False, True])
async def test_a_server_that_hangs_up_over_tls_may_want_a_certificate(tls: Path, *, mine: bool) -> None:
    """Its alert may be lost with what is written meanwhile; the message names what may be missing."""
    ours: dict[str, Any] = {"tls_certificate": tls / "client.pem", "tls_key": tls / "client.key"}
    with capture_logs() as logs, _hanging_up(tls) as port:
        wanted = BusOptions((f"nats://127.0.0.1:{port}",), tls_ca=tls / "ca.pem", **(ours if mine else {}))
        with pytest.raises(BusError):
            async with open_bus(wanted, connect_deadline=1):
                pass
    reasons = [entry["reason"] for entry in logs if entry["event"] == "cannot connect to the broker"]
    assert any(reason.endswith("it may ask for a certificate: tls_certificate") for reason in reasons) != mine


@contextlib.contextmanager
def _hanging_up(tls: Path) -> Iterator[int]:
    """A server that resets each connection right behind the handshake."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tls / "server.pem", tls / "server.key")
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                info = json.dumps({**INFO, "tls_required": True})
                client.sendall(f"INFO {info}\r\n".encode())
                with contextlib.suppress(OSError), context.wrap_socket(client, server_side=True) as secure:
                    secure.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


# Losing the connection.


@pytest.mark.alone
async def test_restarts_under_load_send_nothing_twice(nats_server: NatsServer) -> None:
    """Through five restarts: no duplicate, order kept, and what was queued while it was away all arrives."""
    got: list[int] = []
    total = 0
    async with open_bus(options(nats_server)) as bus:
        await bus.subscribe("s", lambda message: got.append(int(message.data)))

        def publish(count: int) -> list[int]:
            nonlocal total
            numbers = list(range(total, total + count))
            for number in numbers:
                bus.publish("s", b"%d" % number)
            total += count
            return numbers

        for restart in range(5):
            publish(2000)
            await trio.sleep(0.001 * restart)
            nats_server.kill()
            await eventually(lambda: not bus.connected)
            safe = publish(500)
            nats_server.start()
            with trio.fail_after(10):
                await bus.flush()
            assert got[-500:] == safe
        assert bus.generation == 6
    assert len(set(got)) == len(got)
    assert got == sorted(got)


async def test_a_server_that_hangs_up_at_once_is_not_hammered() -> None:
    """The pause between attempts grows although each of them succeeds."""
    with scripted_server() as server:
        async with open_bus(BusOptions((server.url,))) as bus:
            for generation in range(1, 4):
                await eventually(lambda wanted=generation: bus.generation == wanted)  # type: ignore[misc]
                server.hang_up()
            started = trio.current_time()
            await eventually(lambda: bus.generation == 4)
            assert trio.current_time() - started > 0.5


async def test_refused_credentials_later_are_waited_out(start_nats_server: ServerFactory) -> None:
    """While it runs, a refusal may be a broker that is being configured."""
    server = start_nats_server(_LOGIN)
    async with open_bus(options(server, user="u", password="right")) as bus:
        server.kill()
        server.config = {"authorization": {"users": [{"user": "u", "password": "new"}]}}
        server.start()
        with capture_logs() as logs:
            await eventually(lambda: any("Authorization" in str(entry.get("reason")) for entry in logs))
        server.kill()
        server.config = dict(_LOGIN)
        server.start()
        with trio.fail_after(10):
            await bus.flush()
        assert bus.generation == 2


async def test_a_smaller_limit_after_a_restart(nats_server: NatsServer) -> None:
    """What was queued and is too large now is refused, aloud; the rest leaves."""
    got: list[int] = []
    refused: list[str] = []
    async with open_bus(options(nats_server)) as bus:
        bus.on_refused(refused.append)
        await bus.subscribe("s.*", lambda message: got.append(len(message.data)))
        nats_server.kill()
        await eventually(lambda: not bus.connected)
        bus.publish("s.large", b"x" * 5000)
        bus.publish("s.small", b"x" * 10)
        nats_server.config["max_payload"] = 1000
        nats_server.start()
        with trio.fail_after(5):
            await bus.flush()
        assert bus.max_payload == 1000
        assert bus.generation == 2
    assert got == [10]
    assert refused == ["s.large"]


async def test_being_too_slow_is_counted() -> None:
    """The server's error is logged, and a new connection is made."""
    with scripted_server() as server, capture_logs() as logs:
        async with open_bus(BusOptions((server.url,))) as bus:
            server.send(b"-ERR 'Slow Consumer'\r\n")
            await eventually(lambda: bus.generation == 2)
            assert bus.dropped == 1
    assert any(entry["log_level"] == "error" and "more slowly" in entry["event"] for entry in logs)


async def test_a_stalled_broker_is_noticed(nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unanswered pings end the connection; what was queued leaves when the broker answers again."""
    monkeypatch.setattr("scheduler.bus.guards.PING_INTERVAL", 0.1)
    got: list[bytes] = []
    async with open_bus(options(nats_server)) as bus:
        await bus.subscribe("s", lambda message: got.append(message.data))
        nats_server.pause()
        try:
            await eventually(lambda: not bus.connected)
            bus.publish("s", b"1")
        finally:
            nats_server.resume()
        with trio.fail_after(10):
            await bus.flush()
        assert bus.generation == 2
    assert got == [b"1"]


async def test_a_cluster_takes_over(start_nats_server: ServerFactory) -> None:
    """Servers the first one told of are used when it is gone, and configured ones as well."""
    one = start_nats_server({"cluster": {"name": "c", "listen": "127.0.0.1:-1"}})
    route = next(line for line in one.log.splitlines() if "Listening for route connections" in line).split()[
        -1
    ]
    two = start_nats_server(
        {"cluster": {"name": "c", "listen": "127.0.0.1:-1", "routes": [f"nats://{route}"]}}
    )
    await eventually(lambda: "Route connection created" in one.log)
    heard: list[str] = []
    async with open_bus(options(one)) as bus:
        await bus.subscribe("s", lambda message: heard.append(message.subject))
        await eventually(lambda: bool(bus._connection and bus._connection.discovered))
        one.kill()
        await eventually(lambda: bus.generation == 2)
        assert str(two.port) in bus.url
        bus.publish("s", b"")
        with trio.fail_after(5):
            await bus.flush()
        two.kill()
        one.start()
        await eventually(lambda: bus.generation == 3)
        assert str(one.port) in bus.url
    assert heard == ["s"]


# The asyncio underneath.


async def test_an_asyncio_accident_is_logged_only(nats_server: NatsServer) -> None:
    """An exception in a callback or a forgotten task takes nothing down."""

    async def accident() -> None:
        def fail() -> None:
            raise RuntimeError("boom")

        asyncio.get_running_loop().call_soon(fail)
        await asyncio.sleep(0)

    with capture_logs() as logs:
        async with open_bus(options(nats_server)) as bus:
            await trio_asyncio.aio_as_trio(accident)()
            await bus.flush()
    assert any(entry["event"] == "an asyncio task failed" for entry in logs)


async def test_a_pump_that_fails_is_replaced(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If that ever happens, a new connection is made, and later messages leave."""
    got: list[bytes] = []
    async with open_bus(options(nats_server)) as bus:
        await bus.subscribe("s", lambda message: got.append(message.data))
        with monkeypatch.context() as patch:
            patch.setattr(bus.outbox, "take", lambda: 1 / 0)
            with capture_logs() as logs:
                bus.publish("s", b"1")
                await eventually(lambda: not bus.connected)
        with trio.fail_after(5):
            await bus.flush()
    assert got == [b"1"]
    assert any("pump" in entry["event"] for entry in logs)


async def test_a_bug_at_start_is_not_retried_for_ever(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What no connection fails with comes out of the start as it is."""
    monkeypatch.setattr("scheduler.bus.guards.Connection.start", lambda *_: 1 / 0)
    with trio.fail_after(5), pytest.raises(ZeroDivisionError):
        async with open_bus(options(nats_server)):
            pass


# Leaving.


class Mine(Exception):
    """Raised by the body."""


async def test_the_bodys_exception_comes_out_as_it_is(nats_server: NatsServer) -> None:
    """Not wrapped in groups; a group stays the group it was."""
    mine = Mine()
    with pytest.raises(Mine) as caught:
        async with open_bus(options(nats_server)):
            raise mine
    assert caught.value is mine
    with pytest.raises(ExceptionGroup) as group:
        async with open_bus(options(nats_server)), trio.open_nursery():
            raise mine
    assert group.value.exceptions == (mine,)


async def test_cancelling_the_body(nats_server: NatsServer) -> None:
    """A deadline around the bus is its caller's; what was published before it still leaves."""
    got = trio.Event()
    async with open_bus(options(nats_server)) as other:
        await other.subscribe("last.words", lambda _: got.set())
        with trio.CancelScope() as scope:
            async with open_bus(options(nats_server)) as bus:
                bus.publish("last.words", b"")
                scope.cancel()
                await trio.sleep_forever()
        assert scope.cancelled_caught
        with trio.fail_after(5):
            await got.wait()


async def test_cancelled_while_connecting(nats_server: NatsServer) -> None:
    """Nothing is left behind, whether there is no server or it does not answer."""
    for prepare in (nats_server.pause, nats_server.kill):
        prepare()
        with trio.move_on_after(0.2) as scope:
            async with open_bus(options(nats_server)):
                pass
        assert scope.cancelled_caught


async def test_messages_queued_at_the_end_leave(nats_server: NatsServer) -> None:
    """Leaving waits, for half a second at most, until they have."""
    got: list[bytes] = []
    async with open_bus(options(nats_server)) as other:
        await other.subscribe("s", lambda message: got.append(message.data))
        async with open_bus(options(nats_server)) as bus:
            for number in range(10_000):
                bus.publish("s", b"%d" % number)
        await other.flush()
    assert got == [b"%d" % number for number in range(10_000)]


async def test_what_cannot_leave_is_told(nats_server: NatsServer) -> None:
    """Messages that are still queued when the bus closes are counted in the log."""
    with capture_logs() as logs:
        async with open_bus(options(nats_server)) as bus:
            nats_server.kill()
            await eventually(lambda: not bus.connected)
            bus.publish("s", b"")
    assert [entry["messages"] for entry in logs if "never left" in entry["event"]] == [1]


@pytest.fixture
def noise(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.WARNING):
        yield caplog


async def test_cancellation_at_any_moment(nats_server: NatsServer, noise: pytest.LogCaptureFixture) -> None:
    """Whatever is cancelled when, the bus keeps working, and asyncio does not complain."""

    def echo(message: Message) -> None:
        bus.publish(message.reply, message.data)

    async def everything() -> None:
        subscription = await bus.subscribe("s", lambda _: None)
        await bus.request("echo", b"x")
        await bus.flush()
        await subscription.unsubscribe()

    async with open_bus(options(nats_server)) as bus:
        await bus.subscribe("echo", echo)
        before = len(bus.interests)
        for step in range(60):
            with trio.move_on_after(step * 0.0001):
                await everything()
        with trio.fail_after(5):
            await everything()
        await bus.flush()
        assert bus.generation == 1
        assert len(bus.inbox) == 0
        # One that was cancelled between subscribing and unsubscribing stays, as with any resource.
        assert len(bus.interests) - before < 60
    assert noise.records == []


async def test_nothing_is_left_behind(nats_server: NatsServer, noise: pytest.LogCaptureFixture) -> None:
    """No thread, no task, no open socket, no complaint."""
    before = threading.active_count()
    for _ in range(20):
        async with open_bus(options(nats_server)) as bus:
            await bus.flush()
    assert threading.active_count() <= before + 2
    assert noise.records == []
    with contextlib.suppress(AttributeError):
        assert trio_asyncio.current_loop.get() is None
    structlog.get_logger().debug("done")
