"""Opens the page: its parts, and the application that answers for it."""

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import trio

from scheduler.config import Settings
from scheduler.config.addresses import Address
from scheduler.runtime.background import open_background
from scheduler.web.board import Board
from scheduler.web.console import Console
from scheduler.web.hosts import Hosts
from scheduler.web.live.hub import Hubs
from scheduler.web.page.access import Access
from scheduler.web.page.page import Page
from scheduler.web.page.views import Views

MOST_CONNECTIONS: Final = 384
"""Connections at a time; more than there may be streams."""
_DEADLINE: Final = 45.0
"""Seconds for an answer: a large build of another instance comes in pages, and is drawn."""


def deadline(path: str) -> float:
    """Return the seconds for an answer; none for a stream, each of whose writes has its own.

    Args:
        path: path as it was sent, encoded: an id may have any character.
    """
    head, _, last = path.rpartition("/")
    streams = last == "stream" and (head.endswith("/api") or head.rpartition("/")[0].endswith("/api/builds"))
    return math.inf if streams else _DEADLINE


@asynccontextmanager
async def open_page(board: Board, settings: Settings, address: Address, hosts: Hosts) -> AsyncIterator[Page]:
    """Open the page until the context is left.

    Args:
        board: place where the service hangs out what may be used of it.
        settings: settings of the process.
        address: address that it is served at.
        hosts: hosts that a request may name.
    """
    access = Access(settings.page, address, hosts)
    views = Views.of(board)
    async with open_background() as background:
        background.start_soon(views.run)
        hubs = Hubs(background)
        board.on_console = partial(_begin, background, hubs)
        try:
            yield Page(board, access, hubs, views, settings.page.prefix)
        finally:
            board.on_console = _nothing
            hubs.stop()


def _nothing(_: Console) -> None:
    """Do nothing: the page is closed."""


def _begin(nursery: trio.Nursery, hubs: Hubs, console: Console) -> None:
    hubs.open()
    nursery.start_soon(_end_streams, hubs, console)


async def _end_streams(hubs: Hubs, console: Console) -> None:
    """End all streams when the service stops, so that their readers look for another one at once."""
    await console.stopping.wait()
    hubs.stop()
