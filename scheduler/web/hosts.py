"""Which ``Host`` a request may name: so no page of another origin reaches the server by a name of its own.

A page on the internet can have its own name resolve to this machine (DNS rebinding), and the browser then
takes the server for a part of it. Such a request names that host. An address is no such name.
"""

import ipaddress
import re
from collections.abc import Iterable
from typing import Final

_PORT: Final = re.compile(r":[0-9]{0,5}$")


class Hosts:
    """Hosts that a request may name.

    Args:
        names: names beside ``localhost``, in lower case.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._given = frozenset(names)
        self._names = self._given | {"localhost"}

    def named(self, host: str) -> bool:
        """Return whether this is one of the names that were given, without a port."""
        return host.lower().removesuffix(".") in self._given

    def allows(self, host: str) -> bool:
        """Return whether a request with this ``Host`` is for us; a port in it does not matter."""
        if host.startswith("["):
            address, bracket, port = host[1:].partition("]")
            return bool(bracket) and (not port or bool(_PORT.fullmatch(port))) and _is_address(address)
        name = _PORT.sub("", host).lower().removesuffix(".")
        return name in self._names or _is_address(name, 4)


def _is_address(text: str, version: int = 6) -> bool:
    try:
        return ipaddress.ip_address(text).version == version
    except ValueError:
        return False
