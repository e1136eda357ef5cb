"""The page as an application: which request is answered by what, and to whom."""

from collections.abc import Callable
from http.cookies import SimpleCookie
from typing import Final
from urllib.parse import quote

import trio
from attrs import evolve
from starlette.types import Receive, Scope, Send

from scheduler import __version__
from scheduler.control.verbs import Document
from scheduler.errors import Refused
from scheduler.web.board import Board
from scheduler.web.live.following import Following
from scheduler.web.live.hub import BuildSource, Hubs, Source
from scheduler.web.live.overview import OverviewSource
from scheduler.web.page.access import LIFE, Access, Visitor
from scheduler.web.page.files import Files
from scheduler.web.page.openapi import openapi
from scheduler.web.page.orders import Orders
from scheduler.web.page.reads import Reads
from scheduler.web.page.replies import Reply, answer, failure, redirect, stream
from scheduler.web.page.requests import Request, read_body, read_form, read_scope, takes_gzip
from scheduler.web.page.views import Views

_TABS: Final = frozenset({"graph", "timeline", "components", "events", "report", "plan"})
_LOGINS: Final = 4
"""Logins that failed and wait at a time."""
_PAUSE: Final = 0.5
"""Seconds for which one that failed takes its place: nobody tries many tokens."""
_LOGIN_BODY: Final = 16 * 1024
"""Bytes of the form of a login, which anybody may send."""
_UNKNOWN: Final = Refused("unknown", "there is nothing at this path")


class Page:
    """Page of a process.

    Args:
        board: place where the service hangs out what may be used of it.
        access: judges requests.
        hubs: streams, which several share.
        views: what answers are made of.
        prefix: path that all addresses begin with.
    """

    def __init__(
        self,
        board: Board,
        access: Access,
        hubs: Hubs,
        views: Views,
        prefix: str = "",
    ) -> None:
        self._board = board
        self._access = access
        self.hubs = hubs
        """Streams that are open."""
        self._views = views
        self._reads = Reads(views)
        self._orders = Orders(views.desk, access)
        self._prefix = prefix
        self._files = Files()
        self._logins = trio.CapacityLimiter(_LOGINS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request, as ASGI says."""
        request = read_scope(scope, self._prefix)
        if request is None:
            await failure(Refused("invalid", "the address is not encoded as it should be"))(
                scope, receive, send
            )
            return
        visitor = self._access.visitor(request.headers, request.cookies, request.client)
        request = evolve(request, visitor=visitor)
        try:
            match request.method, request.path:
                case "GET", ("api", "stream"):
                    await self._stream(request, None, receive, send)
                    return
                case "GET", ("api", "builds", build, "stream"):
                    await self._stream(request, build, receive, send)
                    return
            reply = await self._reply(request, receive)
        except Refused as refused:
            reply = self._refusal(request, refused)
        await reply(scope, receive, send)

    def _refusal(self, request: Request, refused: Refused) -> Reply:
        if refused.code == "login" and request.path[0] != "api" and self._access.has_login:
            return redirect(
                f"{self._prefix}/login?next={quote('/'.join(map(_quoted, request.path)), safe='')}"
            )
        return failure(refused)

    async def _reply(self, request: Request, receive: Receive) -> Reply:
        match request.method, request.path:
            case "GET" | "HEAD", ("api", *rest):
                return await self._read(request, tuple(rest))
            case "POST", ("api", "builds", build, "orders"):
                return answer(await self._orders.give(request, build, receive))
            case "GET" | "HEAD", ("static", *rest):
                return self._static(request, "/".join(rest))
            case "GET" | "HEAD", ("login",):
                return self._html("login", request.visitor)
            case "POST", ("login",):
                return await self._log_in(request, receive)
            case "POST", ("logout",):
                return self._log_out(request)
            case "GET" | "HEAD", ("",):
                return self._html("index", request.signed_in)
            case "GET" | "HEAD", ("builds", _):
                return self._html("build", request.signed_in)
            case "GET" | "HEAD", ("builds", _, tab, *_) if tab in _TABS:
                return self._html("build", request.signed_in)
            case "GET" | "HEAD" | "POST", _:
                raise _UNKNOWN
            case _:
                return Reply(b"", "text/plain", 405, {"allow": "GET, HEAD, POST"})

    # ---- JSON

    async def _read(self, request: Request, rest: tuple[str, ...]) -> Reply:
        match rest:
            case ("openapi.json",):
                return answer(openapi(), headers={"cache-control": "no-cache"})
            case ("session",):
                return answer(self._session(request.signed_in))
            case ("builds",):
                _ = request.signed_in
                return await self._reads.builds(request)
            case ("builds", build, *behind):
                _ = request.signed_in
                return await self._reads.build(request, build, tuple(behind))
            case _:
                raise _UNKNOWN

    def _session(self, visitor: Visitor) -> Document:
        console = self._board.console
        orders = self._access.may_order(visitor)
        return {
            "user": visitor.user,
            "vouched": visitor.vouched,
            "orders": orders,
            "login": self._access.has_login,
            "lists_ended": console is None or console.lists_ended,
            "csrf": self._access.csrf(visitor) if orders else "",
            "version": __version__,
            "instance": "" if console is None else console.instance,
        }

    async def _stream(self, request: Request, build: str | None, receive: Receive, send: Send) -> None:
        """Stream what happens to a build, or to all of them."""
        _ = request.signed_in
        source: Callable[[], Source] = self._overview
        name = ""
        if build is not None:
            # Whether there is such a build is told before the stream begins.
            await self._views.desk.ask("get", {"id": build, "components": False})
            name, source = f"build {build}", self._build_source(build)
        async with self.hubs.watching(name, source) as mailbox:
            await stream(mailbox, receive, send)

    def _overview(self) -> OverviewSource:
        return OverviewSource(self._views.listings, self._views.details)

    def _build_source(self, build: str) -> Callable[[], BuildSource]:
        console = self._board.console
        if console is None:
            raise Refused("unavailable", self._board.trouble() or "the scheduler stops")
        bus, views = console.bus, self._views
        return lambda: BuildSource(lambda stir: Following(build, bus, views.desk, views.wholes, stir))

    # ---- HTML

    def _html(self, name: str, visitor: Visitor | None, message: str = "", status: int = 200) -> Reply:
        orders = visitor is not None and self._access.may_order(visitor)
        values = {
            "base": f"{self._prefix}/",
            "csrf": self._access.csrf(visitor) if visitor is not None and orders else "",
            "orders": "yes" if orders else "no",
            "user": "" if visitor is None else visitor.user,
            "version": __version__,
            "message": message,
        }
        return Reply(self._files.html(name, values), "text/html; charset=utf-8", status)

    def _static(self, request: Request, path: str) -> Reply:
        file = self._files.get(path)
        if file is None:
            raise _UNKNOWN
        data, etag, encoding = file.data, file.etag, {}
        if file.packed and takes_gzip(request.headers):
            # Each form has a tag of its own, as the tag is a strong one.
            data, etag, encoding = file.packed, f'{etag[:-1]}-gzip"', {"content-encoding": "gzip"}
        headers = {"etag": etag, "cache-control": "no-cache", "vary": "accept-encoding"}
        if etag in request.headers.get("if-none-match", ""):
            return Reply(b"", file.type, 304, headers)
        return Reply(data, file.type, headers=headers | encoding)

    # ---- sessions

    async def _log_in(self, request: Request, receive: Receive) -> Reply:
        if not self._access.has_login:
            raise _UNKNOWN
        # Otherwise another page could have somebody be logged in under a name of its choice.
        self._access.check_origin(request.headers, request.client)
        form = read_form(await read_body(receive, _LOGIN_BODY))
        cookie = self._access.log_in(form.get("token", ""), form.get("name", ""))
        if cookie is None:
            # Whoever has the token never waits for those who guess.
            if self._logins.statistics().tasks_waiting >= _LOGINS:
                raise Refused("busy", "too many logins that failed: try again")
            async with self._logins:
                await trio.sleep(_PAUSE)
            return self._html("login", None, "This is not the token.", 403)
        return redirect(
            f"{self._prefix}/{_below(form.get('next', ''))}", self._set_cookie(request, cookie, round(LIFE))
        )

    def _log_out(self, request: Request) -> Reply:
        self._access.check_origin(request.headers, request.client)
        return redirect(f"{self._prefix}/", self._set_cookie(request, "", 0) if self._access.cookie else {})

    def _set_cookie(self, request: Request, value: str, seconds: int) -> dict[str, str]:
        cookie = SimpleCookie({self._access.cookie: value})[self._access.cookie]
        cookie |= {"path": f"{self._prefix}/", "max-age": seconds, "httponly": True, "samesite": "Strict"}
        proxied = self._access.is_proxy(request.client)
        if proxied and request.headers.get("x-forwarded-proto", "").lower() == "https":
            cookie["secure"] = True
        return {"set-cookie": cookie.OutputString()}


def _quoted(segment: str) -> str:
    return quote(segment, safe="")


def _below(path: str) -> str:
    """Return a path to go to after the login; only one of the page, whatever a link to it said."""
    head = path.partition("?")[0].partition("#")[0].split("/")
    if head[0] != "builds" or not path.isascii() or not path.isprintable() or "\\" in path:
        return ""
    return path
