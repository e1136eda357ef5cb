"""A page on a free port, before a service on a bus in memory, and clients of it."""

import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import h11
import httpx2
import trio
from attrs import define, field

from scheduler.config import Settings
from scheduler.config.addresses import Address
from scheduler.config.web import WebSettings
from scheduler.web.app import Guard
from scheduler.web.board import Board
from scheduler.web.hosts import Hosts
from scheduler.web.live.hub import Hubs
from scheduler.web.page.opening import MOST_CONNECTIONS, deadline, open_page
from scheduler.web.page.requests import MOST_BODY
from scheduler.web.server import Server
from support.asking import CHAIN
from support.asking import run as run_build
from support.fakes import JSON, Site, ignore, open_service

HERE = Address("127.0.0.1", 0)
EVERYWHERE = Address("0.0.0.0", 0)
TOKEN = "0123456789abcdef01234567"
PATIENCE = 10.0


@define
class Event:
    """Server-sent event."""

    name: str
    revision: int
    data: JSON = field(repr=False)


@define
class Visited:
    """Page, and the service behind it."""

    client: httpx2.AsyncClient
    address: Address
    board: Board
    site: Site
    hubs: Hubs

    async def read(self, path: str, status: int = 200, **options: Any) -> JSON:
        """Return an answer in JSON, which has to have this status."""
        answer = await self.client.get(path, **options)
        assert answer.status_code == status, answer.text
        found: JSON = answer.json()
        return found

    @asynccontextmanager
    async def stream(self, path: str) -> AsyncIterator["Reader"]:
        """Open a stream of events."""
        reader = await open_stream(self.address, path)
        async with reader.stream:
            assert reader.status == 200
            yield reader


@define
class Reader:
    """Reader of a stream of events."""

    stream: trio.SocketStream
    http: h11.Connection
    status: int = 0
    lines: list[bytes] = field(factory=list)
    rest: bytes = b""
    over: bool = False

    async def event(self) -> Any:
        """Return what comes next of the answer."""
        while (event := self.http.next_event()) is h11.NEED_DATA:
            self.http.receive_data(await self.stream.receive_some())
        return event

    async def next(self) -> Event | None:
        """Return the next event; None after the last one."""
        fields: dict[str, bytes] = {}
        while True:
            while self.lines:
                line = self.lines.pop(0)
                if line:
                    name, _, value = line.partition(b": ")
                    fields[name.decode()] = value
                elif fields.get("event") == b"ping":
                    fields = {}
                elif "data" in fields:
                    return Event(fields["event"].decode(), int(fields["id"]), json.loads(fields["data"]))
            event = await self.event()
            if isinstance(event, h11.Data):
                *lines, self.rest = (self.rest + bytes(event.data)).split(b"\n")
                self.lines += lines
            elif isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
                self.over = isinstance(event, h11.EndOfMessage)
                return None

    async def until(self, name: str) -> Event:
        """Return the next event of this name."""
        while (event := await self.next()) is not None:
            if event.name == name:
                return event
        raise AssertionError(name)


async def open_stream(address: Address, path: str, *, buffer: int = 0) -> Reader:
    """Ask for a stream, on a connection of its own.

    Args:
        address: address of the server.
        path: path of the stream.
        buffer: bytes that the kernel keeps for the reader; 0: as usual.
    """
    asking = trio.socket.socket()
    if buffer:
        asking.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    await asking.connect((address.host, address.port))
    http = h11.Connection(h11.CLIENT)
    reader = Reader(trio.SocketStream(asking), http)
    request = h11.Request(method="GET", target=path, headers=[("host", "localhost")])
    await reader.stream.send_all(http.send(request) + http.send(h11.EndOfMessage()))
    reader.status = (await reader.event()).status_code
    return reader


def of(build: str, *rest: str) -> str:
    """Return the path of a build's JSON."""
    return "/".join(["/api/builds", *(quote(one, safe="") for one in (build, *rest))])


@asynccontextmanager
async def visited(
    value: JSON | None = CHAIN,
    *,
    at: Address = HERE,
    hosts: tuple[str, ...] = (),
    page: dict[str, Any] | None = None,
    **options: Any,
) -> AsyncIterator[Visited]:
    """Serve a page, with a build whose first requests nobody has answered yet.

    Args:
        value: the build; None for none.
        at: address that the page takes itself to be served at.
        hosts: names by which it may be asked.
        page: settings of the page.
        options: of the service.
    """
    settings = Settings(page=WebSettings(**(page or {})), http_hosts=hosts)
    board = Board()
    guarded = (Hosts(hosts), MOST_BODY, deadline)
    with trio.fail_after(100):
        async with (
            open_page(board, settings, at, Hosts(hosts)) as app,
            Server(Guard(app, *guarded), "web", MOST_CONNECTIONS).open(HERE) as address,
            httpx2.AsyncClient(
                base_url=f"http://{address}", trust_env=False, timeout=PATIENCE, limits=httpx2.Limits()
            ) as client,
            open_service(**{"script": ignore, **options}) as site,
        ):
            board.page = f"http://{address}/"
            with board.showing(site.service.figures, site.service.console):
                if value is not None:
                    await run_build(site, value)
                yield Visited(client, address, board, site, app.hubs)
