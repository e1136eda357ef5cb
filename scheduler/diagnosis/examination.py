"""Runs all checks of the diagnosis, in an order in which one finding explains the next."""

from typing import Protocol

from scheduler.bus import Bus
from scheduler.config import Settings
from scheduler.definition.template.jsonparts import MAX_RENDERED
from scheduler.diagnosis import Diagnosis, size
from scheduler.diagnosis.commits import check_commits
from scheduler.diagnosis.instances import check_election, check_instances
from scheduler.diagnosis.jetstream import check_jetstream
from scheduler.diagnosis.permissions import check_permissions
from scheduler.diagnosis.versions import check_version
from scheduler.jetstream.api import JetStream
from scheduler.jetstream.codes import MOST_STORED

_RECOMMENDED = 8 * 1024 * 1024
_TYPICAL = 450
"""Bytes of a usual component."""
_ROOM = 8 * 1024
_PENDING = 64 * 1024 * 1024
"""Bytes that a server keeps for a connection that does not read, by default (``max_pending``)."""
_MEGABYTE = 1_000_000


class KnownBus(Bus, Protocol):
    """Bus that knows the server it is connected to."""

    @property
    def url(self) -> str:
        """URL of the server, without secrets."""

    @property
    def server_version(self) -> str:
        """Version of the server."""


async def examine(bus: KnownBus, settings: Settings) -> Diagnosis:
    """Check whether, and how well, a service with these settings would run on this broker.

    Everything that it makes is removed on return, and also when it is cancelled.

    Raises:
        BusError: the connection was lost for good.
    """
    diagnosis = Diagnosis(bus.url, bus.server_version)
    jetstream = settings.store in {"auto", "jetstream"}
    check_version(diagnosis, replicas=settings.replicas, jetstream=jetstream)
    _check_messages(diagnosis, bus.max_payload, settings, jetstream=jetstream)
    _check_pending(diagnosis, bus.max_payload, settings)
    await check_permissions(diagnosis, bus, settings.store, settings.capture_providers)
    there = await check_jetstream(diagnosis, bus, settings)
    if there and jetstream:
        await check_commits(diagnosis, JetStream(bus), settings.replicas)
        await check_instances(diagnosis, JetStream(bus), settings.replicas)
    elif there and settings.store == "ernest":
        await check_election(diagnosis, JetStream(bus), settings.replicas)
    return diagnosis


def _check_messages(diagnosis: Diagnosis, most: int, settings: Settings, *, jetstream: bool) -> None:
    diagnosis.facts["max_payload"] = most
    cure = "raise max_payload in the broker's configuration, up to 8MB"
    component = settings.limits.max_component_bytes
    builds = f"a build or report of about {most // _TYPICAL:,} components fits in a message ({size(most)})"
    larger = "larger ones use the object store" if jetstream else "larger ones cannot be submitted"
    if most < component + _ROOM:
        diagnosis.warn(
            "messages",
            f"a message holds {size(most)}, a component up to {size(component)}: one this large fails",
            f"{cure}; or lower --max-component-bytes",
        )
    elif most > MOST_STORED and jetstream:
        text = f"max_payload is {size(most)}, and JetStream keeps no message over {size(MOST_STORED)}"
        diagnosis.note(
            "messages",
            f"{text}: larger ones use the object store; nats-server recommends at most 8 MiB",
            "lower max_payload in the broker's configuration to 8MB",
        )
    elif most > _RECOMMENDED:
        diagnosis.note("messages", f"{builds}; {larger}; nats-server recommends at most 8 MiB")
    elif most < _RECOMMENDED and not jetstream:
        diagnosis.note("messages", f"{builds}; {larger}", cure)
    else:
        diagnosis.ok("messages", f"{builds}; {larger}")


def _check_pending(diagnosis: Diagnosis, most: int, settings: Settings) -> None:
    largest = min(most, max(settings.limits.max_component_bytes, MAX_RENDERED))
    waiting = settings.max_bytes_in_flight
    if largest > waiting // 4:
        # One request of the largest size counts on top of the others.
        waiting += largest
    text = (
        f"up to {size(waiting)} of requests may wait for a connector that is slow to read; the broker "
        f"disconnects it beyond max_pending, by default {size(_PENDING)} (a broker does not tell its value)"
    )
    if waiting <= _PENDING:
        diagnosis.ok("pending", text)
    else:
        # Twice as much, since some are sent again after a lost connection.
        enough = -(-2 * waiting // _MEGABYTE)
        diagnosis.warn(
            "pending",
            text,
            f"set max_pending to {enough}MB in the broker's configuration; or lower --max-bytes-in-flight",
        )
