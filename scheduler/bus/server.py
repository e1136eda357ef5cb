"""What the server says of itself to any client that asks.

Every nats-server answers ``$SYS.REQ.USER.INFO`` to clients of any account. With permissions of its own a user
needs to publish on it. Seen with 2.15.
"""

from collections.abc import Mapping

import msgspec
import trio
from attrs import frozen

from scheduler.bus import Bus
from scheduler.errors import NoResponders, NotPermitted

SUBJECT = "$SYS.REQ.USER.INFO"


@frozen
class ServerInfo:
    """The server that we are connected to."""

    name: str
    version: str
    cluster: str
    """The name of its cluster; empty where it is on its own."""
    jetstream: bool
    """Whether JetStream is switched on there; accounts may be kept from it all the same."""


async def server_info(bus: Bus, *, deadline: float = 1.0) -> ServerInfo | None:
    """Ask the server; None where it does not answer within ``deadline`` seconds, or we may not ask.

    Raises:
        BusError: the bus cannot be used.
    """
    with trio.move_on_after(deadline):
        try:
            answer = msgspec.json.decode((await bus.request(SUBJECT, b"")).data)
            server = answer["server"]
            if isinstance(server, Mapping):
                return ServerInfo(
                    name=str(server.get("name", "")),
                    version=str(server.get("ver", "")),
                    cluster=str(server.get("cluster", "")),
                    jetstream=server.get("jetstream") is True,
                )
        except (NoResponders, NotPermitted, msgspec.DecodeError, LookupError, TypeError):
            # An older server, or somebody who answers everything.
            return None
    return None
