"""A request as it came in: its ids, and the subjects that it names."""

import math
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final
from urllib.parse import unquote

from attrs import define, field

from scheduler.bus import Message
from scheduler.connectors.outcomes import Rejected
from scheduler.definition.strictjson import decode, kind
from scheduler.definition.subjects import may_be_answered
from scheduler.errors import InvalidJSON
from scheduler.tracing.context import TraceContext, read_context

ATTEMPT: Final = "Nats-Msg-Id"
KEY: Final = "Scheduler-Component-Key"
HEARTBEAT: Final = "Scheduler-Heartbeat"
WITHIN: Final = "Scheduler-Heartbeat-Within"
IDS: Final = ("service", "_component_id", "_component", "_action", "_provider")
"""Fields of a component that a handler cannot change."""
_WORD = r"[A-Za-z0-9_=-]{1,64}"
_BEAT: Final = re.compile(rf"scheduler\.beat\.{_WORD}\.{_WORD}\.{_WORD}")
_REPLY: Final = re.compile(rf"scheduler\.reply\.{_WORD}(?:\.{_WORD}\.{_WORD})?")
_SHORTEST_WITHIN: Final = 0.3
"""Shortest time between beats that is kept to, in seconds."""


@define(eq=False)
class Attempt:
    """One request for one component."""

    subject: str
    data: bytes = field(repr=False)
    reply: str = ""
    """Subject of the reply; empty: the shared subject ``<subject>.done`` or ``.error``."""
    id: str = ""
    """Attempt id; empty where the request has none."""
    key: str = ""
    """Key over all attempts of the component; empty where the request has none."""
    heartbeat: str = ""
    """Subject for heartbeats; empty where none are wanted."""
    within: float = math.inf
    """Seconds within which the next heartbeat has to come."""
    trace: TraceContext | None = None
    """Context of its span in the scheduler; None where the build has no trace."""
    cancelled: str | None = None
    """Reason why the scheduler gave it up; None while it has not."""

    @property
    def size(self) -> int:
        """Bytes that it holds, about."""
        return len(self.data) + 1_024


def read_attempt(message: Message) -> Attempt:
    """Read the head of a request; the body is left alone.

    Subjects that a request names are used only where they can be nothing but a reply or a heartbeat: whoever
    may send requests must not publish with the rights of the connector.
    """
    headers = message.headers or {}
    reply, heartbeat = message.reply, headers.get(HEARTBEAT, "")
    if not (_REPLY.fullmatch(reply) or may_be_answered(reply)):
        reply = ""
    if not _BEAT.fullmatch(heartbeat):
        heartbeat = ""
    id_, key = headers.get(ATTEMPT, ""), headers.get(KEY, "")
    if "%" in id_ or "%" in key:
        id_, key = unquote(id_), unquote(key)
    attempt = Attempt(message.subject, message.data, reply, id_, key, heartbeat)
    if WITHIN in headers:
        attempt.within = _seconds(headers[WITHIN])
    attempt.trace = read_context(headers)
    return attempt


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return math.inf
    return max(value, _SHORTEST_WITHIN) if value > 0 else math.inf


def read_fields(data: bytes) -> dict[str, Any]:
    """Read the body of a request: the component.

    Raises:
        Rejected: it is not a JSON object.
    """
    try:
        value = decode(data)
    except InvalidJSON as error:
        raise Rejected(f"the request cannot be read: {error}") from None
    if type(value) is not dict:
        raise Rejected(f"the request is {kind(value)}, not a component")
    return value


def ids_of(fields: Mapping[str, Any], attempt: Attempt) -> dict[str, Any]:
    """Return the ids of a component; those that are missing, as far as the subject tells them."""
    ids = {**_known(attempt.subject)}
    for name in IDS:
        if name in fields:
            ids[name] = fields[name]
    return ids


# A connector's subjects are those of its handlers.
@lru_cache(maxsize=1_024)
def _known(subject: str) -> Mapping[str, str]:
    """Return the ids that a subject tells."""
    type_, action, provider = subject.split(".")
    return {"_component": type_, "_action": action, "_provider": provider}
