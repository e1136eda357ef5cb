"""A connector in NATS's service discovery: `nats micro ls` shows it, `nats micro stats` what it did.

Each process is an instance of the service ``connector-<provider>``, and each handler one of its endpoints.
"""

import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import trio

from scheduler import __version__
from scheduler.bus.discovery import Discovery, Identity
from scheduler.connectors.engine import Companion, Running
from scheduler.connectors.handlers import Handler
from scheduler.connectors.schemas import schemas_of
from scheduler.connectors.workload import Workload
from scheduler.errors import BusError
from scheduler.runtime.logger import Logger

_OPENING: Final = 10.0
"""Seconds for the broker to know of the subscriptions."""
_CLOSING: Final = 1.0
"""Seconds to take it back."""
_LONGEST_ERROR: Final = 200
"""Characters of the last error that are told."""
SERVICE: Final = "connector-"
"""Beginning of the service's name."""
MOST: Final = 256 * 1024
"""Characters of all schemas: they travel in one message."""

log = Logger()


class HandlerEndpoint:
    """A handler as service discovery tells of it.

    Args:
        handler: the handler.
        queue_group: queue group in which its requests are taken.
        workload: work of the process.
    """

    def __init__(self, handler: Handler, queue_group: str, workload: Workload) -> None:
        self.name = f"{handler.type}-{handler.action}"
        self.subject = handler.subject
        self.queue_group = queue_group
        self.metadata: Mapping[str, str] = schemas_of(handler)
        self._handler = handler
        self._workload = workload

    @property
    def size(self) -> int:
        """Characters of its schemas."""
        return sum(map(len, self.metadata.values()))

    @property
    def requests(self) -> int:
        """Number of requests that were begun."""
        return self._handler.counts.requests

    @property
    def errors(self) -> int:
        """Number of those that failed."""
        return self._handler.counts.errored

    @property
    def last_error(self) -> str:
        """Text of the last failure, without secrets."""
        return self._handler.counts.last_error[:_LONGEST_ERROR]

    @property
    def processing_ns(self) -> int:
        """Time that all of them took together, in nanoseconds."""
        return round(self._handler.counts.seconds * 1e9)

    @property
    def data(self) -> Mapping[str, Any]:
        """Work at present: calls that may run at a time, and requests that wait in the whole process."""
        return {
            "completed": self._handler.counts.completed,
            "concurrency": self._handler.concurrency,
            "waiting": self._workload.waiting,
            "healthy": not self._workload.stopping,
        }


def discovery(queue_group: str) -> Companion:
    """Return a companion for `Connectors.run` that answers service discovery.

    A broker that forbids it keeps nobody from serving: a warning is logged.

    Args:
        queue_group: queue group in which requests are taken.
    """
    return partial(_answering, queue_group)


@asynccontextmanager
async def _answering(queue_group: str, running: Running) -> AsyncIterator[None]:
    service = make_discovery(queue_group, running)
    try:
        with trio.move_on_after(_OPENING) as patience:
            await service.open()
        if patience.cancelled_caught:
            log.warning("service discovery is not answered", reason="the broker did not confirm it in time")
    except BusError as error:
        log.warning("service discovery is not answered", reason=str(error))
        await service.close()
    try:
        yield
    finally:
        with trio.move_on_after(_CLOSING, shield=True):
            await service.close()


def make_discovery(queue_group: str, running: Running) -> Discovery:
    """Return what answers for a connector, not opened yet."""
    endpoints = [HandlerEndpoint(handler, queue_group, running.workload) for handler in running.handlers]
    if sum(endpoint.size for endpoint in endpoints) > MOST:
        log.warning("service discovery tells no schemas: they are too large for a message", bytes=MOST)
        for endpoint in endpoints:
            endpoint.metadata = {}
    identity = Identity(
        f"{SERVICE}{running.provider}",
        secrets.token_hex(11),
        __version__,
        f"Connector for components of {running.provider}",
        {"instance": running.instance, "provider": running.provider},
    )
    return Discovery(running.bus, identity, endpoints)
