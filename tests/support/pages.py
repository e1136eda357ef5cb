"""A page on a free port, before a service on a bus in memory, and clients of it."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import httpx2
import trio
from attrs import define, field

from scheduler.config import Settings
from scheduler.config.addresses import Address
from scheduler.config.web import WebSettings
from scheduler.web.app import Guard
from scheduler.web.board import Board
from scheduler.web.hosts import Hosts
from scheduler.web.page.opening import MOST_CONNECTIONS, deadline, open_page
from scheduler.web.page.requests import MOST_BODY
from scheduler.web.server import Server
from support.asking import CHAIN
from support.asking import run as run_build
from support.fakes import JSON, Site, ignore, open_service

HERE = Address("127.0.0.1", 0)
EVERYWHERE = Address("0.0.0.0", 0)  # noqa: S104 - the page is told so; the server listens on loopback
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
    page: Any

    async def read(self, path: str, status: int = 200, **options: Any) -> JSON:
        """Return an answer in JSON, which has to have this status."""
        answer = await self.client.get(path, **options)
        assert answer.status_code == status, answer.text
        found: JSON = answer.json()
        return found

    @asynccontextmanager
    async def stream(self, path: str, **options: Any) -> AsyncIterator[AsyncIterator[Event]]:
        """Read the events of a stream."""
        async with self.client.stream("GET", path, **options) as answer:
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith("text/event-stream")
            yield events(answer)


async def events(answer: httpx2.Response) -> AsyncIterator[Event]:
    """Yield the events of an answer."""
    fields: dict[str, str] = {}
    async for line in answer.aiter_lines():
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif "data" in fields:
            yield Event(fields["event"], int(fields["id"]), json.loads(fields["data"]))
            fields = {}


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
    with trio.fail_after(100):
        async with (
            open_page(board, settings, at, Hosts(hosts)) as app,
            Server(Guard(app, Hosts(hosts), MOST_BODY, deadline), "web", MOST_CONNECTIONS).open(HERE) as address,
            httpx2.AsyncClient(
                base_url=f"http://{address}", trust_env=False, timeout=PATIENCE, limits=httpx2.Limits()
            ) as client,
            open_service(**{"script": ignore, **options}) as site,
        ):
            with board.showing(site.service.figures, site.service.console):
                if value is not None:
                    await run_build(site, value)
                yield Visited(client, address, board, site, app)
