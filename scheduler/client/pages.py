"""Asks a scheduler for the address of its page."""

import ipaddress
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import quote, urlsplit

import msgspec
import trio

from scheduler.bus import Bus
from scheduler.errors import BusError

_SUBJECT: Final = "$SRV.INFO.scheduler"
_PATIENCE: Final = 0.5
"""Seconds for the answer, which is just a courtesy."""


class _Metadata(msgspec.Struct):
    web: str = ""


class _Info(msgspec.Struct):
    """Part of the answer to INFO that names the page."""

    metadata: _Metadata = msgspec.field(default_factory=_Metadata)


_decode: Final[Any] = msgspec.json.Decoder(_Info).decode


async def page_of_build(bus: Bus, build: str, servers: Iterable[str]) -> str:
    """Return the address of a build's page; empty where the scheduler has none that can be reached.

    Args:
        bus: the connection.
        build: id of the build.
        servers: URLs of the broker; only where that is on this machine, a page on loopback is as well.
    """
    with trio.move_on_after(_PATIENCE):
        try:
            message = await bus.request(_SUBJECT, b"")
            page: str = _decode(message.data).metadata.web
        except (BusError, msgspec.MsgspecError, UnicodeError, RecursionError):
            return ""
        return f"{page}builds/{quote(build, safe='')}" if _is_reachable(page, servers) else ""
    return ""


def _is_reachable(page: str, servers: Iterable[str]) -> bool:
    if not page.isascii() or not page.isprintable() or not page.endswith("/"):
        return False
    host = _host(page)
    if not page.startswith(("http://", "https://")) or not host:
        return False
    return not _is_loopback(host) or all(_is_loopback(_host(server)) for server in servers)


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
