"""Opens the board of a process, and serves it where the settings name a port."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from scheduler.config import Settings
from scheduler.web.board import Board
from scheduler.web.loop import measured_loop

_log = structlog.get_logger()


@asynccontextmanager
async def open_board(settings: Settings) -> AsyncIterator[Board]:
    """Open the board, and serve it until the context is left.

    Raises:
        PortUnusable: the address of the settings cannot be listened on.
    """
    if settings.metrics is None:
        yield Board()
        return
    # They take a tenth of a second to load.
    from scheduler.web.app import make_app  # noqa: PLC0415
    from scheduler.web.hosts import Hosts  # noqa: PLC0415
    from scheduler.web.server import Server  # noqa: PLC0415

    async with measured_loop() as turns:
        board = Board(turns)
        app = make_app(board, Hosts(settings.http_hosts))
        async with Server(app).open(settings.metrics) as address:
            _log.info("metrics and health are served", address=str(address))
            yield board
