"""Answers over HTTP: their headers, in pieces, and streams of events."""

from collections.abc import Mapping
from typing import Any, Final

import trio
from starlette.types import Receive, Scope, Send

from scheduler.control.questions import NUMBERS as CONTROL_NUMBERS
from scheduler.definition.strictjson import encode
from scheduler.errors import Refused
from scheduler.runtime.background import open_background
from scheduler.runtime.yielding import yield_now
from scheduler.web.live.mailbox import Mailbox

CSP: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""Policy of every page: nothing from elsewhere, and nothing in the text of the page itself."""
NUMBERS: Final = {**CONTROL_NUMBERS, "login": 401, "forbidden": 403, "large": 413, "busy": 429}
"""Status by code of a failure."""
WRITING: Final = 10.0
"""Seconds for a piece of an answer, before the reader is given up."""
_PIECE: Final = 64 * 1024
"""Bytes that are written at a time, each with a deadline of its own."""
_UNCHANGED: Final = 304
_SAFE: Final = {
    "cache-control": "no-store",
    "content-security-policy": CSP,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


class Reply:
    """Answer of known length.

    Args:
        body: what is sent.
        type_: its type.
        status: status of HTTP.
        headers: further headers, or others in the place of those that every answer has.
    """

    def __init__(
        self,
        body: bytes = b"",
        type_: str = "application/json",
        status: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.body = body
        self.status = status
        content = {} if status == _UNCHANGED else {"content-type": type_, "content-length": str(len(body))}
        self.headers = _SAFE | content | dict(headers or {})

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Send it, as ASGI says."""
        await send(_start(self.status, self.headers))
        body = b"" if scope["method"] == "HEAD" else self.body
        for begin in range(0, len(body), _PIECE):
            piece = body[begin : begin + _PIECE]
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def answer(document: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """Return a JSON answer."""
    return Reply(encode(document), status=status, headers=headers)


def encoded(document: Mapping[str, Any]) -> bytes:
    """Return a large document as JSON, member by member; for a thread."""
    parts = []
    for name, value in document.items():
        yield_now()
        parts.append(b"%b:%b" % (encode(name), encode(value)))
    return b"{%b}" % b",".join(parts)


def failure(refused: Refused) -> Reply:
    """Return the answer that refuses."""
    return answer({"error": refused.code, "message": str(refused)[:4_000]}, NUMBERS.get(refused.code, 500))


def redirect(to: str, headers: Mapping[str, str] | None = None) -> Reply:
    """Return the answer that sends a browser elsewhere, by GET."""
    return Reply(b"", "text/plain", 303, {"location": to, **(headers or {})})


async def stream(mailbox: Mailbox, receive: Receive, send: Send) -> None:
    """Send the events of a mailbox until its end, or until the reader has left or does not read."""
    headers = _SAFE | {
        "content-type": "text/event-stream; charset=utf-8",
        # nginx would keep events until it has a page of them.
        "x-accel-buffering": "no",
    }
    async with open_background() as background:
        background.start_soon(_cancel_when_left, receive, background.cancel_scope)
        # Each piece has a deadline of its own: the answer as a whole goes on for as long as somebody reads.
        with trio.move_on_after(WRITING):
            await send(_start(200, headers))
        while (events := await mailbox.next()) is not None:
            for begin in range(0, len(events), _PIECE):
                piece = events[begin : begin + _PIECE]
                with trio.move_on_after(WRITING) as writing:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                if writing.cancelled_caught:
                    return
        with trio.move_on_after(WRITING):
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _cancel_when_left(receive: Receive, scope: trio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


def _start(status: int, headers: Mapping[str, str]) -> dict[str, Any]:
    return {
        "type": "http.response.start",
        "status": status,
        "headers": [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()],
    }
