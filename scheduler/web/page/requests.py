"""Requests as the page reads them: path, parameters and body; each problem is told with its cure."""

import re
from typing import Final, TypeVar
from urllib.parse import parse_qsl, unquote_to_bytes

import msgspec
from attrs import field, frozen
from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.types import Receive, Scope

from scheduler.errors import Refused
from scheduler.web.page.access import Visitor

MOST_BODY: Final = 256 * 1024
"""Bytes of a request's body: an order may have an output."""
_MOST_PARAMETERS: Final = 64

_LOGIN: Final = (
    "log in: a token is needed, which a program sends as `Authorization: Bearer TOKEN`,"
    " or a user whom a proxy names"
)
_NOT_AT_ALL: Final = re.compile(r"q\s*=\s*0(\.0*)?")

_T = TypeVar("_T")


@frozen
class Request:
    """Request to the page, by one who may read or who has yet to log in."""

    method: str
    path: tuple[str, ...]
    """Segments of its path below the prefix, decoded: an id may have any character."""
    parameters: dict[str, str]
    headers: Headers = field(repr=False)
    cookies: dict[str, str] = field(repr=False)
    client: str
    """IP address that it comes from."""
    visitor: Visitor | None = None

    @property
    def signed_in(self) -> Visitor:
        """Visitor who asks.

        Raises:
            Refused: ``login``: nobody who may.
        """
        if self.visitor is None:
            raise Refused("login", _LOGIN)
        return self.visitor

    def text(self, name: str) -> str:
        """Return a parameter; empty where it is not given."""
        return self.parameters.get(name, "")

    def number(self, name: str, otherwise: int, *, low: int, high: int) -> int:
        """Return a whole number of the parameters.

        Raises:
            Refused: it is none, or out of its range.
        """
        text = self.parameters.get(name)
        if text is None:
            return otherwise
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise Refused("invalid", f"{name}: a whole number from {low} to {high:,} is required")
        return value


def read_scope(scope: Scope, prefix: str) -> Request | None:
    """Read the head of a request; None where its path is not below the prefix, or no text.

    Args:
        scope: as ASGI says.
        prefix: path that all addresses begin with; a proxy may have taken it away.
    """
    raw: bytes = scope.get("raw_path") or b""
    path = raw.partition(b"?")[0]
    begin = prefix.encode()
    if begin and (path == begin or path.startswith(begin + b"/")):
        path = path[len(begin) :]
    headers = Headers(scope=scope)
    try:
        segments = tuple(unquote_to_bytes(one).decode() for one in path.removeprefix(b"/").split(b"/"))
        query = scope.get("query_string", b"").decode("ascii")
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=_MOST_PARAMETERS, errors="strict")
    except ValueError:
        return None
    cookies = cookie_parser(headers.get("cookie", ""))
    client = scope.get("client") or ("", 0)
    return Request(scope["method"], segments, dict(pairs), headers, cookies, str(client[0]))


def takes_gzip(headers: Headers) -> bool:
    """Return whether who asks takes an answer by gzip, and says so."""
    for one in headers.get("accept-encoding", "").lower().split(","):
        name, _, weight = one.partition(";")
        if name.strip() == "gzip":
            return not _NOT_AT_ALL.fullmatch(weight.strip())
    return False


async def read_body(receive: Receive, most: int = MOST_BODY) -> bytes:
    """Read the body of a request.

    Args:
        receive: as ASGI says.
        most: bytes that it may have.

    Raises:
        Refused: ``large``: it has more.
    """
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise Refused("invalid", "the request is incomplete")
        body += message.get("body", b"")
        if len(body) > most:
            raise Refused("large", f"a request has at most {most:,} bytes here")
        if not message.get("more_body"):
            return bytes(body)


def read_form(body: bytes) -> dict[str, str]:
    """Read the fields of a form.

    Raises:
        Refused: it is none.
    """
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_MOST_PARAMETERS))
    except ValueError:
        raise Refused("invalid", "a form is required") from None


def read_json(body: bytes, form: type[_T]) -> _T:
    """Read a body of JSON.

    Raises:
        Refused: it is none, or a member is missing or wrong.
    """
    try:
        return msgspec.json.decode(body, type=form)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise Refused("invalid", f"the body cannot be read: {error}") from None
