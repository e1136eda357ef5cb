"""Answers requests: metrics for Prometheus, and the health of the process for probes."""

from collections.abc import Callable
from typing import Final

import structlog
import trio
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from scheduler.runtime.log_limits import RateLimitedLog
from scheduler.web.board import Board
from scheduler.web.exposition import CONTENT_TYPE, exposition
from scheduler.web.hosts import Hosts

_log = structlog.get_logger()

_DEADLINE: Final = 10.0
"""Seconds for an answer."""
_FRESH: Final = 1.0
"""Seconds for which a text is given again: thousands of questions cost no more than one a second."""
_MOST_BODY: Final = 0
"""Bytes of a request's body; no request that is known here has any."""
_HEADERS: Final = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
_UNAVAILABLE: Final = 503
_NO_VERSION: Final = 505
PATHS: Final = frozenset({"/metrics", "/livez", "/readyz"})
"""Paths of metrics and health."""


class MetricsPage:
    """Text of the metrics, made for all that ask in the same second.

    Args:
        board: place where the figures are.
    """

    def __init__(self, board: Board) -> None:
        self._board = board
        self._text = b""
        self._until = float("-inf")
        self._making = trio.Lock()

    async def text(self) -> bytes:
        """Return the metrics as text; the caller sets the deadline."""
        async with self._making:
            if trio.current_time() >= self._until:
                families = [family async for family in self._board.families()]
                self._text = await self._board.executor.run("metrics", lambda: exposition(families))
                self._until = trio.current_time() + _FRESH
            return self._text


class Guard:
    """Refuses requests that are not for us, or too large; and tells of faults once, without a trace to users.

    Args:
        app: answers the others.
        hosts: hosts that a request may name.
        most_body: bytes that a request may have beside its head.
        deadline: returns the seconds for an answer, by the path as it was sent; without limit for what
            goes on.
    """

    def __init__(
        self,
        app: ASGIApp,
        hosts: Hosts,
        most_body: int = _MOST_BODY,
        deadline: Callable[[str], float] = lambda _: _DEADLINE,
    ) -> None:
        self._app = app
        self._hosts = hosts
        self._most_body = most_body
        self._deadline = deadline
        self._limited_log = RateLimitedLog(_log)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request, as ASGI says."""
        if scope["type"] != "http":
            # Neither WebSockets nor a life span: the server closes what nobody answers.
            return
        refusal = self._refusal(Headers(scope=scope), scope.get("http_version", ""))
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        begun = False

        async def sending(message: dict[str, object]) -> None:
            nonlocal begun
            begun = True
            await send(message)

        path = (scope.get("raw_path") or b"").partition(b"?")[0].decode("latin-1")
        try:
            with trio.fail_after(self._deadline(path)):
                await self._app(scope, receive, sending)  # type: ignore[arg-type]
        except trio.TooSlowError:
            if not begun:
                await _plain("not answered in time", _UNAVAILABLE)(scope, receive, send)
        except Exception:  # noqa: BLE001 - a bug in an answer must cost no build
            self._limited_log.exception(
                "internal error: a request was not answered", path=scope["path"][:200]
            )
            if not begun:
                await _plain("internal error; see the scheduler's log", 500)(scope, receive, send)

    def _refusal(self, headers: Headers, version: str) -> Response | None:
        if version.startswith("2"):
            # A client could have a proxy pass on `Upgrade: h2c`, and from then on speak in its name, with
            # whatever user in the headers: the proxy sees no request any more.
            return _plain("HTTP/1.1 is spoken here", _NO_VERSION)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._hosts.allows(hosts[0]):
            return _plain("this name is not known here: add it to --http-hosts", 421)
        length = headers.get("content-length", "0")
        if (
            "transfer-encoding" in headers
            or not (length.isascii() and length.isdigit())
            or int(length) > self._most_body
        ):
            text = (
                f"a request has at most {self._most_body:,} bytes"
                if self._most_body
                else "a request has no body"
            )
            return _plain(f"{text} here", 413)
        return None


def make_app(board: Board, hosts: Hosts) -> ASGIApp:
    """Return the application.

    Args:
        board: place where the service hangs out its figures.
        hosts: hosts that a request may name.
    """
    return Guard(health_app(board), hosts)


def health_app(board: Board) -> ASGIApp:
    """Return what answers for metrics and health, without a guard."""
    page = MetricsPage(board)

    async def metrics(_request: Request) -> Response:
        return Response(await page.text(), headers=_HEADERS, media_type=CONTENT_TYPE)

    async def livez(_request: Request) -> Response:
        # That the loop answers is all there is to say.
        return _plain("ok")

    async def readyz(_request: Request) -> Response:
        trouble = board.trouble()
        return _plain(trouble, _UNAVAILABLE) if trouble else _plain("ok")

    routes = [Route("/metrics", metrics), Route("/livez", livez), Route("/readyz", readyz)]
    return Starlette(routes=routes)


def _plain(text: str, status: int = 200) -> Response:
    return PlainTextResponse(f"{text}\n", status, headers=_HEADERS)


def beside(health: ASGIApp, page: ASGIApp) -> ASGIApp:
    """Return an application that has both at one address.

    Args:
        health: answers for metrics and health.
        page: answers for all other paths.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await (health if scope["path"] in PATHS else page)(scope, receive, send)

    return app
