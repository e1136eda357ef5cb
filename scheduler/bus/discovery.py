"""Answers NATS's service discovery, so that ``nats micro ls`` shows the process (ADR-32).

A client that gets an answer may send requests, so discovery is opened when they are taken, and not before.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from attrs import define, field, frozen

from scheduler.bus import Bus, Message, Outgoing, Presence, Subscription
from scheduler.definition.strictjson import encode
from scheduler.definition.subjects import UNANSWERABLE, may_be_answered
from scheduler.errors import BusError
from scheduler.runtime.log_limits import RateLimitedLog

_TYPE = "io.nats.micro.v1"


class Served(Protocol):
    """A subject that is served, as answers tell of it."""

    @property
    def name(self) -> str:
        """Name: letters, digits, ``-`` and ``_``."""

    @property
    def subject(self) -> str:
        """Subject of its requests."""

    @property
    def queue_group(self) -> str:
        """Queue group in which requests are taken."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """Facts for clients, such as schemas."""

    @property
    def requests(self) -> int:
        """Number of requests so far."""

    @property
    def errors(self) -> int:
        """Number of those that failed."""

    @property
    def last_error(self) -> str:
        """Text of the last failure."""

    @property
    def processing_ns(self) -> int:
        """Time that all requests took together, in nanoseconds."""

    @property
    def data(self) -> Mapping[str, Any]:
        """Further counts; empty where there are none."""


_MOST_WAITING: Final = 4 * 1024 * 1024
"""Bytes of answers that wait to leave, beyond which questions get none."""


@define
class ServiceEndpoint:
    """A subject that is served, and its counters."""

    name: str
    subject: str
    queue_group: str
    requests: int = 0
    errors: int = 0
    last_error: str = ""
    processing_ns: int = 0
    metadata: Mapping[str, str] = field(factory=dict)
    data: Mapping[str, Any] = field(factory=dict)

    def served(self, seconds: float, error: str = "") -> None:
        """Count a request that took so long and was refused with ``error``, or was not."""
        self.requests += 1
        self.processing_ns += round(seconds * 1e9)
        if error:
            self.errors += 1
            self.last_error = error[:200]


@frozen
class Identity:
    """Identity of the service that answers."""

    name: str
    id: str
    version: str
    description: str = ""
    metadata: Mapping[str, str] = field(factory=dict)


class Discovery:
    """Answers the three questions of ADR-32: to all services, to all of our name, and to this instance.

    Of each instance every question is to be answered. Its subscriptions are in a queue group all the same,
    which has no other member: so they can be on a connection that another one stands in for.

    Args:
        bus: connection for questions and answers; not the one for replies, which would wait behind thousands
            of questions.
        identity: identity of this instance.
        endpoints: subjects that are served.
        presence: answers PING in our place while it can. The loop subscribes all the same, once the presence
            has begun: as long as either is subscribed, no client is told that there is no responder.
        counters: return further members of the answer to STATS.
    """

    def __init__(
        self,
        bus: Bus,
        identity: Identity,
        endpoints: Sequence[Served],
        presence: Presence | None = None,
        counters: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        self._bus = bus
        self._counters = counters
        self._presence = presence
        self._identity = identity
        self._endpoints = endpoints
        self._started = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        self._subscriptions: list[Subscription] = []
        self._waiting: deque[tuple[Outgoing, int]] = deque()
        """Answers that may still wait to leave, and their sizes."""
        self._bytes = 0
        """Size of these."""
        self._log = RateLimitedLog()

    async def open(self) -> None:
        """Subscribe, and answer from now on."""
        if self._presence is not None:
            # Before the loop listens: a question that came to both in between would be answered by neither.
            await self._presence.announce(self._subjects("PING"), encode(self.ping()))
        group = f"{self._identity.name}.{self._identity.id}"
        answers = {"PING": self.ping, "INFO": self.info, "STATS": self.stats}
        for verb, answer in answers.items():
            handler = self._handler(answer, self._presence if verb == "PING" else None)
            for subject in self._subjects(verb):
                self._subscriptions.append(await self._bus.subscribe(subject, handler, queue=group))

    def _subjects(self, verb: str) -> list[str]:
        name, id_ = self._identity.name, self._identity.id
        return [f"$SRV.{verb}{tail}" for tail in ("", f".{name}", f".{name}.{id_}")]

    async def close(self) -> None:
        """Stop answering."""
        while self._subscriptions:
            await self._subscriptions.pop().unsubscribe()

    def ping(self) -> dict[str, Any]:
        """Return the answer to PING."""
        return self._answer("ping")

    def info(self) -> dict[str, Any]:
        """Return the answer to INFO."""
        endpoints = [
            {
                "name": one.name,
                "subject": one.subject,
                "queue_group": one.queue_group,
                "metadata": one.metadata,
            }
            for one in self._endpoints
        ]
        return {**self._answer("info"), "description": self._identity.description, "endpoints": endpoints}

    def stats(self) -> dict[str, Any]:
        """Return the answer to STATS."""
        endpoints = [
            {
                "name": one.name,
                "subject": one.subject,
                "queue_group": one.queue_group,
                "num_requests": one.requests,
                "num_errors": one.errors,
                "last_error": one.last_error,
                "processing_time": one.processing_ns,
                "average_processing_time": one.processing_ns // one.requests if one.requests else 0,
                **({"data": one.data} if one.data else {}),
            }
            for one in self._endpoints
        ]
        answer = {**self._answer("stats"), "started": self._started, "endpoints": endpoints}
        return {**answer, **self._counters()}

    def _answer(self, kind: str) -> dict[str, Any]:
        return {
            "type": f"{_TYPE}.{kind}_response",
            "name": self._identity.name,
            "id": self._identity.id,
            "version": self._identity.version,
            "metadata": self._identity.metadata,
        }

    def _handler(
        self, answer: Callable[[], dict[str, Any]], instead: Presence | None
    ) -> Callable[[Message], None]:
        def handle(message: Message) -> None:
            if not message.reply or (instead is not None and instead.answering):
                return
            if not may_be_answered(message.reply):
                self._log.warning(UNANSWERABLE, subject=message.subject, reply=message.reply[:500])
                return
            if not self._has_room():
                self._log.warning("discovery not answered", error=f"{self._bytes} bytes of answers wait")
                return
            try:
                data = encode(answer())
                self._waiting.append((self._bus.publish(message.reply, data), len(data)))
                self._bytes += len(data)
            except BusError as error:
                self._log.warning("discovery not answered", error=str(error))

        return handle

    def _has_room(self) -> bool:
        """Return whether another answer may wait: it is a hundred times as large as its question."""
        waiting = self._waiting
        while waiting and (waiting[0][0].generation or waiting[0][0].refused):
            self._bytes -= waiting.popleft()[1]
        return self._bytes < _MOST_WAITING
