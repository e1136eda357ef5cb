"""Posts with httpx2, which is loaded where notifications are configured and nowhere else.

No redirect is followed, TLS is verified against the system's certificates, cookies are not kept, and of a
long body of an answer nothing is read. Proxies are those of ``HTTPS_PROXY`` and ``NO_PROXY``, as an
operator's way out of a network often is one; this machine is reached without.
"""

import logging
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Final

import httpx2
import trio

from scheduler import __version__
from scheduler.definition.destinations import LOCAL
from scheduler.errors import InvalidSettings, NotPosted
from scheduler.notifying.poster import Answer
from scheduler.text import mask_url, printable

_PHASES: Final = httpx2.Timeout(connect=5.0, write=5.0, read=10.0, pool=5.0)
_WHOLE: Final = 15.0
"""Deadline of a post, in seconds: a receiver that sends a byte now and then meets every other one."""
_MOST_BODY: Final = 16 * 1024
"""Longest body of an answer that is read, in bytes, so that its connection can be used again."""
_DIGITS: Final = 10
_NO_CONTENT: Final = 204
_KEPT: Final = httpx2.Limits(max_connections=None, max_keepalive_connections=16, keepalive_expiry=30.0)
_HEADERS: Final = {
    "content-type": "application/json",
    "user-agent": f"nats-build-scheduler/{__version__}",
    # An answer is not unpacked.
    "accept-encoding": "identity",
}
_SHOWN: Final = 200
_CLOSING: Final = 0.3
"""Seconds for closing connections, whatever else is cancelled."""


class HttpPoster:
    """Poster by HTTP.

    Args:
        client: client that posts.
    """

    def __init__(self, client: httpx2.AsyncClient) -> None:
        self._client = client

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Implement `Poster.post`."""
        answer: Answer | None = None
        why = f"no answer within {_WHOLE:g} s"
        with trio.move_on_after(_WHOLE):
            try:
                async with self._client.stream("POST", url, content=body, headers=headers) as response:
                    answer = Answer(response.status_code, response.headers.get("retry-after", ""))
                    await _read_short(response)
                # It refers to the response, which refers to it.
                del response.stream
            except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError) as error:
                # Once there is a status, a connection that breaks changes nothing.
                why = _reason(error)
        if answer is None:
            raise NotPosted(why)
        return answer


async def _read_short(response: httpx2.Response) -> None:
    """Read a short body, and nothing of another one, whose connection is closed then.

    It is not unpacked. Reading only the beginning would leave generators behind.
    """
    length = "0" if response.status_code == _NO_CONTENT else response.headers.get("content-length", "")
    if length.isascii() and length.isdigit() and len(length) < _DIGITS and int(length) <= _MOST_BODY:
        async for _ in response.aiter_raw():
            pass


def _reason(error: BaseException) -> str:
    """Return why there is no answer: the name of an error, and the first text among its causes."""
    cause: BaseException | None = error
    while cause is not None and not str(cause):
        cause = cause.__cause__ or cause.__context__
    shown = "" if cause is None else printable(mask_url(str(cause)), _SHOWN)
    return f"{type(error).__name__} {shown}".strip()


@asynccontextmanager
async def open_poster() -> AsyncIterator[HttpPoster]:
    """Open a poster.

    Raises:
        InvalidSettings: the proxy of the environment cannot be used.
    """
    for name in ("httpx2", "httpcore2"):
        # They log URLs, whose paths may be secrets.
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        client = await trio.to_thread.run_sync(_client)
    except (ImportError, ValueError, httpx2.InvalidURL) as error:
        shown = printable(mask_url(str(error)), _SHOWN)
        msg = f"the proxy in HTTPS_PROXY, HTTP_PROXY or ALL_PROXY cannot be used: {shown}"
        raise InvalidSettings(msg) from None
    try:
        yield HttpPoster(client)
    finally:
        with trio.move_on_after(_CLOSING, shield=True):
            await client.aclose()


def _client() -> httpx2.AsyncClient:
    """Return a client; reading the system's certificates takes 20 ms."""
    return httpx2.AsyncClient(
        headers=_HEADERS,
        verify=ssl.create_default_context(),
        timeout=_PHASES,
        limits=_KEPT,
        follow_redirects=False,
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        trust_env=True,
        mounts={f"all://{name}": None for name in LOCAL},
    )
