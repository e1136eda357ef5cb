"""Information of the server about itself, given to any client that asks.

Every nats-server answers ``$SYS.REQ.USER.INFO`` to clients of any account. A user with permissions needs to
be allowed to publish on it. Seen with 2.15.
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
    """The server at the other end of the connection."""

    name: str
    version: str
    cluster: str
    """Name of its cluster; empty where it has none."""
    jetstream: bool
    """Whether JetStream is switched on there; an account may still have none."""


async def server_info(bus: Bus, *, deadline: float = 1.0) -> ServerInfo | None:
    """Ask the server; return None if it does not answer within ``deadline`` seconds, or asking is forbidden.

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
            # An older server, or a subscriber that answers everything.
            return None
    return None
