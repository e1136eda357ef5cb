"""The HTTP server: what it answers to whom, and what it does not wait for."""

import socket
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

import httpx2
import pytest
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from starlette.responses import StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from support.durable import until
from support.fakes import document, open_service
from trio.testing import wait_all_tasks_blocked

from scheduler.config import Settings
from scheduler.config.addresses import Address
from scheduler.errors import PortUnusable
from scheduler.metrics.catalogue import READY
from scheduler.web import server
from scheduler.web.app import Guard, make_app
from scheduler.web.board import Board
from scheduler.web.figures import Family
from scheduler.web.hosts import Hosts
from scheduler.web.opening import open_board
from scheduler.web.server import Server

SOMEWHERE = Address("127.0.0.1", 0)
_PATIENCE = 10.0


@asynccontextmanager
async def served(app: ASGIApp) -> AsyncIterator[tuple[Address, httpx2.AsyncClient]]:
    """A server of an application on a free port, and a client of it."""
    with trio.fail_after(60):
        async with Server(app).open(SOMEWHERE) as address:
            base = f"http://{address}"
            async with httpx2.AsyncClient(base_url=base, trust_env=False, timeout=_PATIENCE) as client:
                yield address, client


async def raw(address: Address, request: bytes) -> bytes:
    """The whole answer to what is written; empty where the connection is just closed."""
    stream = await trio.open_tcp_stream(address.host, address.port)
    async with stream:
        answer = b""
        try:
            await stream.send_all(request)
            async for part in stream:
                answer += part
        except trio.BrokenResourceError:
            pass
        return answer


async def endless(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that writes without end."""

    async def parts() -> AsyncGenerator[bytes, None]:
        while True:
            yield bytes(1 << 20)

    async with aclosing(parts()) as stream:
        await StreamingResponse(stream)(scope, receive, send)


async def stalled(address: Address) -> trio.SocketStream:
    """A client that asks, and does not read the answer."""
    asking = trio.socket.socket()
    asking.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    await asking.connect((address.host, address.port))
    stream = trio.SocketStream(asking)
    await stream.send_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await stream.receive_some(1)
    return stream


async def test_a_service_is_measured_and_probed() -> None:
    """Metrics as Prometheus reads them; ready as soon as builds are taken."""
    board = Board()
    async with served(make_app(board, Hosts())) as (_, client), open_service(metrics=SOMEWHERE) as site:
        assert (await client.get("/livez")).status_code == 200
        early = await client.get("/readyz")
        assert (early.status_code, early.text) == (503, "it connects to the broker\n")
        with board.showing(site.service.figures):
            ready = await client.get("/readyz")
            assert (ready.status_code, ready.text) == (200, "ok\n")
            await site.submit(document("a"))
            await until(lambda: len(site.reports) == 1)
            answer = await client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert 'scheduler_builds_ended_total{status="done"} 1.0\n' in answer.text
    assert "process_resident_memory_bytes " in answer.text


async def test_while_it_drains_it_lives_and_is_not_ready_although_builds_are_taken() -> None:
    """So probes see the end before intake closes, and nothing that is sent meanwhile is lost."""
    board = Board()
    async with served(make_app(board, Hosts())) as (_, client), open_service() as site:
        with board.showing(site.service.figures):
            site.service.stop()
            assert "build.create" in site.bus.subjects
            answer = await client.get("/readyz")
            assert (answer.status_code, answer.text) == (503, "it is stopping\n")
            assert (await client.get("/livez")).status_code == 200


async def test_while_builds_are_suspended_it_is_not_ready() -> None:
    """Without a connection it lives, as no restart would help."""
    board = Board()
    async with served(make_app(board, Hosts())) as (_, client), open_service() as site:
        with board.showing(site.service.figures):
            site.bus.disconnect()
            answer = await client.get("/readyz")
            assert answer.status_code == 503
            assert "no connection" in answer.text
            assert (await client.get("/livez")).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example:80"])
async def test_a_host_that_is_not_ours_is_refused(host: str) -> None:
    """A page whose name resolves to this machine reads nothing."""
    async with served(make_app(Board(), Hosts(["ours.example"]))) as (_, client):
        for path in ("/metrics", "/livez", "/nothing"):
            answer = await client.get(path, headers={"host": host})
            assert answer.status_code == 421
            assert "scheduler_" not in answer.text
        assert (await client.get("/livez", headers={"host": "ours.example:80"})).status_code == 200


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /livez HTTP/1.0\r\n\r\n", b" 421 "),
        (b"GET /livez HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n", b" 400 "),
        (b"POST /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", b" 405 "),
        (b"GET /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999999\r\n\r\n", b" 413 "),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n", b" 413 "),
        (b"GET /" + b"x" * 200_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", b" 431 "),
        (b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 200_000 + b"\r\n\r\n", b" 431 "),
        (b"\x00\x01\x02\r\n\r\n", b" 400 "),
    ],
    ids=["no host", "two hosts", "a method", "a body", "chunks", "a long line", "long headers", "no HTTP"],
)  # fmt: skip
async def test_what_is_no_plain_question_is_refused(request_: bytes, status: bytes) -> None:
    """Bodies, long heads, and what is no HTTP; the server goes on."""
    async with served(make_app(Board(), Hosts())) as (address, client):
        answer = await raw(address, request_)
        assert status in answer.partition(b"\r\n")[0] + b" "
        assert (await client.get("/livez")).status_code == 200


async def test_a_stop_does_not_wait_for_a_client_that_does_not_read() -> None:
    """Its socket is closed, although the write to it is shielded from being cancelled."""
    async with Server(endless).open(SOMEWHERE) as address:
        client = await stalled(address)
        await wait_all_tasks_blocked(0.05)
        began = trio.current_time()
    assert trio.current_time() - began < 1.0
    await client.aclose()


async def test_hypercorn_still_writes_under_a_shield() -> None:
    """A canary: without that a stop needs not close sockets any more, nor a write a deadline of ours."""
    config = Config()
    config.errorlog = config.accesslog = None
    connected: list[trio.SocketStream] = []
    cancelled, over = trio.Event(), trio.Event()

    async def serve(stream: trio.SocketStream) -> None:
        connected.append(stream)
        state = ConnectionState({})
        try:
            await TCPServer(ASGIWrapper(endless), config, WorkerContext(None), state, stream)  # type: ignore[arg-type]
        finally:
            over.set()

    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    with trio.fail_after(20):
        async with trio.open_nursery() as outer, trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, serve, [listener])
            client = await stalled(Address(*listener.socket.getsockname()))
            await wait_all_tasks_blocked(0.05)

            async def look() -> None:
                await cancelled.wait()
                await wait_all_tasks_blocked(0.05)
                assert not over.is_set()
                connected[0].socket.close()

            outer.start_soon(look)
            nursery.cancel_scope.cancel()
            cancelled.set()
        await client.aclose()


async def test_a_client_that_does_not_read_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each write has a deadline, so that it holds neither a connection nor memory for ever."""
    monkeypatch.setattr(server, "WRITING", 0.2)
    with trio.fail_after(20):
        serving = Server(endless)
        async with serving.open(SOMEWHERE) as address:
            client = await stalled(address)
            await until(lambda: serving.connections == 0)
            await client.aclose()


async def test_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """One more is closed at once; when another one has ended there is room again."""
    monkeypatch.setattr(server, "MOST_CONNECTIONS", 3)
    ask = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    with trio.fail_after(20):
        serving = Server(make_app(Board(), Hosts()))
        async with serving.open(SOMEWHERE) as address:
            idle = [await trio.open_tcp_stream(address.host, address.port) for _ in range(3)]
            await until(lambda: serving.connections == 3)
            assert await raw(address, ask) == b""
            await idle.pop().aclose()
            await until(lambda: serving.connections == 2)
            assert b" 200 " in await raw(address, ask)
            for one in idle:
                await one.aclose()


async def test_a_fault_in_an_answer_is_told_without_its_content() -> None:
    """To the log with its trace, to the client as one line; the next question is answered."""
    calls: list[str] = []

    async def faulty(scope: Scope, receive: Receive, send: Send) -> None:
        calls.append(scope["path"])
        if len(calls) == 1:
            raise ValueError("hunter2")
        await make_app(Board(), Hosts())(scope, receive, send)

    async with served(Guard(faulty, Hosts())) as (_, client):
        answer = await client.get("/livez")
        assert answer.status_code == 500
        assert "hunter2" not in answer.text
        assert (await client.get("/livez")).status_code == 200


async def test_many_questions_for_metrics_are_answered_with_one_text() -> None:
    """Whoever asks often costs the builds no more than one that asks once a second."""
    made: list[int] = []

    class Counting(Board):
        async def families(self) -> AsyncIterator[Family]:
            made.append(1)
            await trio.lowlevel.checkpoint()
            yield READY, [((), 1)]

    async with served(make_app(Counting(), Hosts())) as (_, client), trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(client.get, "/metrics")
    assert len(made) == 1


async def test_an_address_in_use_is_one_line_with_the_flag() -> None:
    """The process does not begin without what it was told to serve."""
    async with Server(endless).open(SOMEWHERE) as address:
        expected = pytest.RaisesExc(PortUnusable, match=rf"^--metrics: {address} cannot be used: ")
        with pytest.RaisesGroup(expected, flatten_subgroups=True):
            async with open_board(Settings(metrics=address)):
                pytest.fail("two servers have one port")


async def test_a_board_is_served_where_the_settings_name_a_port() -> None:
    """And the turns of the loop are measured."""
    async with open_board(Settings()) as board:
        assert board.turns is None
    async with open_board(Settings(metrics=SOMEWHERE)) as board:
        await trio.lowlevel.checkpoint()
        assert board.turns is not None
        assert board.turns.seconds.copy().total
