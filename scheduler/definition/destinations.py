"""Destinations of notifications: the URLs that an operator or a build names, and the hosts that builds may.

A URL is read by a narrow grammar, so that no two programs can take it for different hosts: ASCII only, no
backslash, no space, no fragment. Its path and its user may be secrets, so messages name nothing but the host.

Every command loads this module, and few meet a URL: patterns are compiled when they are needed.
"""

import re
from collections.abc import Iterable
from functools import cache
from ipaddress import ip_address
from typing import Any, Final, NamedTuple

from scheduler.definition.strictjson import kind
from scheduler.errors import Problem
from scheduler.text import printable

MOST_OF_A_BUILD: Final = 4
"""Most URLs that one build may name."""
LOCAL: Final = ("localhost", "127.0.0.1", "[::1]")
"""Names of this machine; what goes there passes no proxy."""
_LONGEST: Final = 2_048
"""Longest URL, in characters."""
_MOST_SHOWN: Final = 5
"""Allowed hosts that a refusal lists."""
_SHOWN: Final = 100
_PORTS: Final = {"https": 443, "http": 80}
_HOST: Final = (
    r"(?P<host>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?"
)
_CHARACTERS: Final = r"A-Za-z0-9._~!$&'()*+,;=:%-"
_URL: Final = (
    rf"(?P<scheme>https?)://(?:[{_CHARACTERS}]*@)?{_HOST}(?:/[{_CHARACTERS}@/]*)?(?:\?[{_CHARACTERS}@/?]*)?"
)
_FORM: Final = "expected a URL such as https://hooks.example.com/builds"
_HOST_FORM: Final = "is no host, such as hooks.example.com or 127.0.0.1:9000"


class Host(NamedTuple):
    """Host and port that notifications go to."""

    name: str
    """Name in lower case, or an address; one of version 6 in brackets."""
    port: int

    @property
    def local(self) -> bool:
        """Whether it is this machine, so that nobody can listen on the way."""
        return self.name in LOCAL

    def __str__(self) -> str:
        return self.name if self.port == _PORTS["https"] else f"{self.name}:{self.port}"


class Destination(NamedTuple):
    """URL that notifications are sent to."""

    url: str
    host: Host
    encrypted: bool

    def __str__(self) -> str:
        return str(self.host)

    def __repr__(self) -> str:
        return f"Destination({self.host})"


def read_destination(url: str) -> Destination:
    """Read a URL.

    Raises:
        ValueError: it cannot be used; the message repeats nothing that may be a secret.
    """
    if len(url) > _LONGEST:
        msg = f"has {len(url):,} characters, of at most {_LONGEST:,}"
        raise ValueError(msg)
    found = _compiled(_URL).fullmatch(url)
    if found is None:
        raise ValueError(_FORM)
    scheme = found["scheme"]
    host = _host(found["host"], found["port"], _PORTS[scheme])
    if host is None:
        raise ValueError(_FORM)
    return Destination(url, host, encrypted=scheme == "https")


def read_host(text: str) -> Host:
    """Read ``host`` or ``host:port``; without a port it is that of ``https``.

    Raises:
        ValueError: it is neither.
    """
    found = _compiled(_HOST).fullmatch(text)
    host = found and _host(found["host"], found["port"], _PORTS["https"])
    if not host:
        raise ValueError(_HOST_FORM)
    return host


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def _host(name: str, port: str | None, otherwise: int) -> Host | None:
    number = otherwise if port is None else int(port)
    if not 0 < number < 65_536:
        return None
    if name.startswith("["):
        try:
            name = f"[{ip_address(name[1:-1]).compressed}]"
        except ValueError:
            return None
    return Host(name.lower(), number)


class AllowedHosts(NamedTuple):
    """Hosts that builds may name."""

    hosts: frozenset[Host]

    @classmethod
    def of(cls, texts: Iterable[str]) -> "AllowedHosts":
        """Return those of a list of texts.

        Raises:
            ValueError: one of them is no host.
        """
        return cls(frozenset(map(read_host, texts)))

    def refusal(self, destination: Destination) -> str:
        """Return why a build may not name a destination; empty where it may."""
        host = destination.host
        if host not in self.hosts:
            shown = ", ".join(map(str, sorted(self.hosts)[:_MOST_SHOWN]))
            more = f" and {len(self.hosts) - _MOST_SHOWN} more" if len(self.hosts) > _MOST_SHOWN else ""
            named = printable(f"{host.name}:{host.port}", _SHOWN)
            return f"{named!r} is none of the hosts that builds may notify (--notify-hosts): {shown}{more}"
        if not destination.encrypted and not host.local:
            return "it is not encrypted: write https://, as http:// is for this machine alone"
        return ""


def destinations_of(value: Any, allowed: AllowedHosts) -> tuple[list[Destination], list[Problem]]:
    """Read the field ``notify`` of a build.

    Args:
        value: the field: a URL, a list of URLs, or None.
        allowed: hosts that it may name.

    Returns:
        The destinations that may be used, each once, and every problem.
    """
    if value is None:
        return [], []
    listed = isinstance(value, list)
    urls: list[Any] = value if listed else [value]
    if not all(isinstance(url, str) for url in urls):
        found = "a list with other things" if listed else kind(value)
        return [], [Problem("notify", f"expected a URL, or a list of URLs, got {found}")]
    if len(urls) > MOST_OF_A_BUILD:
        return [], [Problem("notify", f"names {len(urls):,} URLs, of at most {MOST_OF_A_BUILD}")]
    destinations: dict[str, Destination] = {}
    problems = []
    for number, url in enumerate(urls):
        place = f"notify[{number}]" if listed else "notify"
        try:
            destination = read_destination(url)
        except ValueError as error:
            problems.append(Problem(place, str(error)))
            continue
        if why := allowed.refusal(destination):
            problems.append(Problem(place, why))
        else:
            destinations[url] = destination
    return list(destinations.values()), problems
