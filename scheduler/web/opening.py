"""Opens the board of a process, and serves it, and the page, where the settings say so."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import structlog

from scheduler.config import Settings
from scheduler.config.addresses import Address
from scheduler.web.board import Board
from scheduler.web.loop import measured_loop

_log = structlog.get_logger()


@asynccontextmanager
async def open_board(settings: Settings) -> AsyncIterator[Board]:
    """Open the board, and serve it until the context is left.

    Raises:
        PortUnusable: an address of the settings cannot be listened on.
    """
    page = settings.page.address(embedded=settings.embedded)
    async with AsyncExitStack() as stack:
        board = Board()
        if settings.metrics is not None:
            board.turns = await stack.enter_async_context(measured_loop())
        # One address may have both; but each free port is another one.
        shared = page is not None and page == settings.metrics and page.port != 0
        if settings.metrics is not None and not shared:
            await _serve_metrics(stack, board, settings, settings.metrics)
        if page is not None:
            await _serve_page(stack, board, settings, page, metrics=shared)
        yield board


# The libraries take a tenth of a second to load, so that is done where they are needed.


async def _serve_metrics(stack: AsyncExitStack, board: Board, settings: Settings, at: Address) -> None:
    from scheduler.web.app import make_app  # noqa: PLC0415
    from scheduler.web.hosts import Hosts  # noqa: PLC0415
    from scheduler.web.server import Server  # noqa: PLC0415

    app = make_app(board, Hosts(settings.http_hosts))
    address = await stack.enter_async_context(Server(app).open(at))
    _log.info("metrics and health are served", address=str(address))


async def _serve_page(
    stack: AsyncExitStack, board: Board, settings: Settings, at: Address, *, metrics: bool
) -> None:
    from scheduler.web.app import Guard, beside, health_app  # noqa: PLC0415
    from scheduler.web.hosts import Hosts  # noqa: PLC0415
    from scheduler.web.page.opening import MOST_CONNECTIONS, deadline, open_page  # noqa: PLC0415
    from scheduler.web.page.requests import MOST_BODY  # noqa: PLC0415
    from scheduler.web.server import Server  # noqa: PLC0415

    hosts = Hosts(settings.http_hosts)
    page = await stack.enter_async_context(open_page(board, settings, at, hosts))
    app = beside(health_app(board), page) if metrics else page
    server = Server(Guard(app, hosts, MOST_BODY, deadline), "web", MOST_CONNECTIONS)
    address = await stack.enter_async_context(server.open(at))
    if not settings.embedded:
        # Otherwise it is printed, below the broker's address.
        _log.info("the page is served", address=f"http://{address}{settings.page.prefix}/")
    board.page = _told(address, settings)


def _told(address: Address, settings: Settings) -> str:
    """Return the address of the page as others are told; empty where none is known that they can use."""
    told, path = str(address), f"{settings.page.prefix}/"
    if address.unspecified:
        if not settings.http_hosts:
            return ""
        told = f"{settings.http_hosts[0]}:{address.port}"
    return f"http://{told}{path}"
