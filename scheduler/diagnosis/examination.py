"""All of the diagnosis, in the order in which one thing explains the next."""

from typing import Protocol

from scheduler.bus import Bus
from scheduler.config import Settings
from scheduler.diagnosis import Diagnosis, size
from scheduler.diagnosis.commits import check_commits
from scheduler.diagnosis.jetstream import check_jetstream
from scheduler.diagnosis.permissions import check_permissions
from scheduler.diagnosis.versions import check_version
from scheduler.jetstream.api import JetStream
from scheduler.jetstream.codes import MOST_STORED

_RECOMMENDED = 8 * 1024 * 1024
_TYPICAL = 450
"""Bytes of a component, as people write them."""
_ROOM = 8 * 1024


class KnownBus(Bus, Protocol):
    """A bus that knows the server it is connected to."""

    @property
    def url(self) -> str:
        """Fit for people."""

    @property
    def server_version(self) -> str:
        """The server's version."""


async def examine(bus: KnownBus, settings: Settings) -> Diagnosis:
    """Find out whether, and how well, a service with these settings would run on this broker.

    Everything that is made for it is gone on return, and when it is cancelled.

    Raises:
        BusError: the connection was given up.
    """
    diagnosis = Diagnosis(bus.url, bus.server_version)
    jetstream = settings.store in {"auto", "jetstream"}
    check_version(diagnosis, replicas=settings.replicas, jetstream=jetstream)
    _check_messages(diagnosis, bus.max_payload, settings, jetstream=jetstream)
    await check_permissions(diagnosis, bus, settings.store, settings.capture_providers)
    if await check_jetstream(diagnosis, bus, settings) and jetstream:
        await check_commits(diagnosis, JetStream(bus), settings.replicas)
    return diagnosis


def _check_messages(diagnosis: Diagnosis, most: int, settings: Settings, *, jetstream: bool) -> None:
    diagnosis.facts["max_payload"] = most
    cure = "raise max_payload in the broker's configuration, up to 8MB"
    component = settings.limits.max_component_bytes
    builds = f"a build or report of about {most // _TYPICAL:,} components fits in a message ({size(most)})"
    larger = "larger ones go through the object store" if jetstream else "larger ones cannot be handed in"
    if most < component + _ROOM:
        diagnosis.warn(
            "messages",
            f"a message holds {size(most)}, a component up to {size(component)}: one that large would fail",
            f"{cure}; or lower --max-component-bytes",
        )
    elif most > MOST_STORED and jetstream:
        text = f"max_payload is {size(most)}, and JetStream keeps no message over {size(MOST_STORED)}"
        diagnosis.note(
            "messages",
            f"{text}: what is larger goes through the object store; nats-server recommends 8 MiB at most",
            "lower max_payload in the broker's configuration to 8MB",
        )
    elif most > _RECOMMENDED:
        diagnosis.note("messages", f"{builds}; {larger}; nats-server recommends 8 MiB at most")
    elif most < _RECOMMENDED and not jetstream:
        diagnosis.note("messages", f"{builds}; {larger}", cure)
    else:
        diagnosis.ok("messages", f"{builds}; {larger}")
