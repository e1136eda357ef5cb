"""Requests as a scheduler sends them, for a build that there is not."""

import secrets
from collections.abc import Mapping
from typing import Any, Final

from attrs import field, frozen

from scheduler.definition.model import Action
from scheduler.definition.reply_subjects import REPLY, owner_of
from scheduler.definition.strictjson import encode
from scheduler.definition.subjects import token_problem
from scheduler.errors import InvalidSettings
from scheduler.text import printable

HEARTBEAT: Final = "Scheduler-Heartbeat"
WITHIN: Final = "Scheduler-Heartbeat-Within"
_KEY: Final = "Scheduler-Component-Key"
_BEAT: Final = "scheduler.beat."
_CANCEL: Final = "scheduler.cancel."
UNKNOWN: Final = ("check_connector", "kept, although nobody knows it")
"""Field that no connector knows, with its value."""


@frozen
class Target:
    """Subject of a connector."""

    type: str
    action: str
    provider: str

    @classmethod
    def of(cls, subject: str) -> "Target":
        """Read ``vpc.create.aws``.

        Raises:
            InvalidSettings: no request of a build has this subject.
        """
        tokens = subject.split(".")
        if len(tokens) != 3:
            raise InvalidSettings(
                f"{printable(subject, 80)!r} is no subject of requests, such as vpc.create.aws"
            )
        type_, action, provider = tokens
        for name, token in (("_component", type_), ("_provider", provider)):
            if problem := token_problem(name, token):
                raise InvalidSettings(f"{printable(subject, 80)}: {printable(problem)}")
        verbs = [verb for verb in Action if verb is not Action.NONE]
        if action not in verbs:
            known = ", ".join(verbs)
            raise InvalidSettings(f"{subject}: {printable(action, 80)!r} is no action; there are {known}")
        return cls(type_, action, provider)

    @property
    def subject(self) -> str:
        """Subject of requests."""
        return f"{self.type}.{self.action}.{self.provider}"

    @property
    def cancels(self) -> str:
        """Subject on which a connector hears which attempts are given up."""
        return f"{_CANCEL}{self.subject}"


@frozen
class Request:
    """Request for one component, as it goes out."""

    target: Target
    build: str
    component: str
    attempt: str
    key: str
    token: str
    body: bytes = field(repr=False)
    within: float | None = None
    """Seconds between heartbeats that are asked for; None where none has to come."""

    @property
    def reply(self) -> str:
        """Subject on which the reply is awaited."""
        return f"{REPLY}{self._address}"

    @property
    def beat(self) -> str:
        """Subject on which heartbeats are awaited."""
        return f"{_BEAT}{self._address}"

    @property
    def _address(self) -> str:
        return f"{owner_of(self.build)}.{self.target.provider}.{self.token}"

    @property
    def headers(self) -> dict[str, str]:
        """Headers of the request."""
        headers = {"Nats-Msg-Id": self.attempt, _KEY: self.key, HEARTBEAT: self.beat}
        if self.within is not None:
            headers[WITHIN] = f"{self.within:g}"
        return headers

    @property
    def ids(self) -> dict[str, str]:
        """Fields that a reply has to repeat."""
        return ids_of(self.target, self.build, self.component)

    def given_up(self, reason: str) -> bytes:
        """Return the message that says that this attempt is given up."""
        return encode(
            {
                "attempt": self.attempt,
                "key": self.key,
                "build": self.build,
                "component": self.component,
                "reason": reason,
            }
        )


def ids_of(target: Target, build: str, component: str) -> dict[str, str]:
    """Return the fields that say which component of which build is meant."""
    return {
        "service": build,
        "_component_id": component,
        "_component": target.type,
        "_action": target.action,
        "_provider": target.provider,
    }


class Requests:
    """Makes requests for components of a build of their own: no cloud and no scheduler knows its ids.

    Args:
        target: subject of the connector.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self.build = f"check-{secrets.token_hex(4)}"
        ours = f"{owner_of(self.build)}.{target.provider}.*"
        self.replies = f"{REPLY}{ours}"
        """Pattern of the reply subjects."""
        self.beats = f"{_BEAT}{ours}"
        """Pattern of the subjects of heartbeats."""

    def first(self, name: str, fields: Mapping[str, Any] | bytes, within: float | None = None) -> Request:
        """Return the first attempt for a new component.

        Args:
            name: name of the component in this check.
            fields: its fields; bytes go out as they are.
            within: seconds between heartbeats to ask for.
        """
        component = f"{self.target.type}::{name}"
        body = fields if isinstance(fields, bytes) else self._body(component, fields)
        return self._attempt(1, component, body, within)

    def next(self, request: Request) -> Request:
        """Return the second attempt for the component of a request, under the same key."""
        return self._attempt(2, request.component, request.body, request.within)

    def _attempt(self, number: int, component: str, body: bytes, within: float | None) -> Request:
        key = f"{self.build}/{component}"
        return Request(
            self.target, self.build, component, f"{key}/{number}", key, secrets.token_hex(16), body, within
        )

    def _body(self, component: str, fields: Mapping[str, Any]) -> bytes:
        ids = ids_of(self.target, self.build, component)
        return encode({**fields, **dict([UNKNOWN]), **ids, "_state": "running"})
