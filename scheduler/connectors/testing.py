"""A bus without a broker, for tests of handlers: one request goes in, and its reply comes out."""

import json
import secrets
from collections.abc import Callable, Mapping
from typing import Any, Final

import trio
from attrs import define, field, frozen

from scheduler.bus import Handler, HeaderBlock, Headers, Message
from scheduler.connectors.attempts import ATTEMPT, HEARTBEAT, KEY
from scheduler.connectors.engine import Engine
from scheduler.definition.strictjson import encode
from scheduler.definition.subjects import attempt_header
from scheduler.errors import MessageTooLarge

_REPLY: Final = "scheduler.reply.test.test.test"
_BEAT: Final = "scheduler.beat.test.test.test"
MAX_PAYLOAD: Final = 1024 * 1024
"""Bytes of a message, as in a broker without settings."""


@frozen
class _Sent:
    generation: int = 1
    refused: MessageTooLarge | None = None
    withdrawn: bool = False

    def withdraw(self) -> bool:
        """It has left."""
        return False


@define(eq=False)
class _Subscription:
    bus: "LoneBus"
    subject: str

    async def unsubscribe(self) -> None:
        """End it."""
        await trio.lowlevel.checkpoint()
        self.bus.handlers.pop(self.subject, None)


@define(eq=False)
class LoneBus:
    """A `Bus` that nobody else is on; what is published goes to a function."""

    heard: Callable[[str, bytes], None]
    handlers: dict[str, Handler] = field(factory=dict)

    max_payload = MAX_PAYLOAD
    connected = True
    clustered = False
    behind = False
    generation = 1

    def publish(
        self,
        subject: str,
        data: bytes,
        *,
        reply: str = "",  # noqa: ARG002 - the port's
        headers: Headers | HeaderBlock = None,  # noqa: ARG002 - the port's
    ) -> _Sent:
        """Hand a message to the function."""
        if len(data) > self.max_payload:
            raise MessageTooLarge(f"a message on {subject!r}", len(data), self.max_payload)
        self.heard(subject, data)
        return _Sent()

    async def request(
        self,
        subject: str,
        data: bytes,
        *,
        headers: Mapping[str, str] | None = None,
        then: Handler | None = None,
    ) -> Message:
        """Refuse: nobody would answer."""
        raise NotImplementedError

    async def subscribe(self, subject: str, handler: Handler, *, queue: str = "") -> _Subscription:  # noqa: ARG002
        """Note a subscription."""
        await trio.lowlevel.checkpoint()
        self.handlers[subject] = handler
        return _Subscription(self, subject)

    def new_inbox(self) -> str:
        """Return an inbox."""
        return "_INBOX.test"

    async def flush(self) -> None:
        """Do nothing: what was published has arrived."""
        await trio.lowlevel.checkpoint()

    def on_connected(self, handler: Callable[[], None]) -> None:
        """Do nothing: it is never away."""

    def drop_buffered(self, reason: str) -> None:
        """Do nothing: there is none."""

    def before_sending(self, guard: Callable[[], object]) -> None:
        """Do nothing: nothing waits."""

    def withhold(self, stays: Callable[[str], bool] | None) -> None:
        """Do nothing: nothing waits."""

    def on_refused(self, handler: Callable[[str], bool | None]) -> Callable[[], None]:  # noqa: ARG002
        """Do nothing: all is allowed."""
        return lambda: None


def component_for(subject: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Return a component as a scheduler would send it: with the ids that ``body`` lacks."""
    type_, action, provider = subject.split(".")
    ids = {
        "service": "test",
        "_component_id": f"{type_}::test",
        "_component": type_,
        "_action": action,
        "_provider": provider,
        "_state": "running",
    }
    return {**ids, **body}


@frozen
class Trial:
    """A request that is to be tried; see `Connectors.test_async`."""

    subject: str
    body: Mapping[str, Any]
    key: str = ""
    attempt: str = ""
    on_beat: Callable[[dict[str, Any]], None] | None = None


async def try_out(engine_on: Callable[[LoneBus], Engine], trial: Trial) -> dict[str, Any]:
    """Run an engine for one request, and return the reply.

    Args:
        engine_on: function that returns the engine for a bus.
        trial: the request.
    """
    answered = trio.Event()
    reply: dict[str, Any] = {}

    def hear(to: str, data: bytes) -> None:
        if to == _REPLY:
            reply.update(json.loads(data))
            answered.set()
        elif to == _BEAT and trial.on_beat is not None:
            trial.on_beat(json.loads(data))

    bus = LoneBus(hear)
    drawn = f"test/{secrets.token_hex(8)}"
    headers = {
        ATTEMPT: attempt_header(trial.attempt or drawn),
        KEY: attempt_header(trial.key or drawn),
        HEARTBEAT: _BEAT,
    }
    async with trio.open_nursery() as nursery:
        engine = engine_on(bus)
        await nursery.start(engine.run)
        data = encode(component_for(trial.subject, trial.body))
        bus.handlers[trial.subject](Message(trial.subject, data, _REPLY, headers))
        await answered.wait()
        engine.stopping.set()
    return reply
