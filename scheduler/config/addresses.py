"""Reads and checks the settings of the HTTP server: its address, and the names by which it is asked."""

import ipaddress
import re
from typing import Final, NamedTuple

from scheduler.setting import invalid

_FORM: Final = "is not [HOST:]PORT: an IP address or localhost, and a number from 0 to 65535"
LOCAL: Final = "127.0.0.1"
"""Address of this machine alone."""
_MOST_PORT: Final = 65_535
_MOST_HOSTS: Final = 64
_NAME: Final = re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]{0,62})(\.[a-z0-9]([a-z0-9-]{0,62}))*")


class Address(NamedTuple):
    """Address that a server listens on."""

    host: str
    """IP address."""
    port: int
    """Port; 0: any free one."""

    @property
    def loopback(self) -> bool:
        """Whether it is of this machine alone."""
        return ipaddress.ip_address(self.host).is_loopback

    @property
    def unspecified(self) -> bool:
        """Whether it stands for all addresses of the machine."""
        return ipaddress.ip_address(self.host).is_unspecified

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str, name: str = "metrics") -> Address | None:
    """Parse ``[HOST:]PORT``; None for an empty text. Without a host it is of this machine alone.

    Args:
        text: the text.
        name: name of the setting.

    Raises:
        InvalidSettings: it is of another form.
    """
    text = text.strip()
    if not text:
        return None
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    if not (port.isascii() and port.isdigit()) or int(port) > _MOST_PORT or bool(colon) != bool(host):
        raise invalid(name, text, _FORM)
    if host in ("", "localhost"):
        host = LOCAL
    try:
        return Address(str(ipaddress.ip_address(host)), int(port))
    except ValueError:
        raise invalid(name, text, _FORM) from None


def parse_http_hosts(text: str) -> tuple[str, ...]:
    """Parse comma-separated names of hosts, each once, in lower case.

    Raises:
        InvalidSettings: one of them is none, or there are too many.
    """
    names = tuple(dict.fromkeys(filter(None, (part.strip().lower() for part in text.split(",")))))
    check_http_hosts(names)
    return names


def check_http_hosts(names: tuple[str, ...]) -> None:
    """Check names of hosts.

    Raises:
        InvalidSettings: as `parse_http_hosts`.
    """
    for name in names:
        if not _NAME.fullmatch(name):
            raise invalid("http_hosts", name, "is not the name of a host, without a port")
    if len(names) > _MOST_HOSTS:
        raise invalid("http_hosts", f"{len(names)} names", f"are more than {_MOST_HOSTS}")
