"""The document itself: channels, the operations of the scheduler on them, and its components."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import Any, Final

from scheduler import __version__
from scheduler.asyncapi.channels import Channel, channels
from scheduler.asyncapi.messages import MessageEntry, messages
from scheduler.asyncapi.schemas import Definitions
from scheduler.definition.schema import Schema
from scheduler.definition.subjects import RESERVED_TYPES
from scheduler.permissions import User, users

VERSION: Final = "3.0.0"
"""Version of AsyncAPI."""
SERVICE: Final = "scheduler"
"""User of the shipped permissions whose operations are described."""
_GROUPS: Final = {
    "builds": "Builds, their progress and their reports.",
    "connectors": "Requests to connectors, and what they say.",
    "control": "Questions and commands of operators.",
    "instances": "Schedulers among each other.",
    "streams": "What is kept in JetStream.",
    "broker": "The API of the broker, and service discovery.",
    "ernest": "The store of Ernest, where builds are kept there.",
    "answers": "Answers to requests.",
}
_DESCRIPTION: Final = (
    "Runs builds, dependency graphs of infrastructure components, over NATS. Operations are those of the"
    " scheduler. `x-nats-subjects` has the subjects of a channel in the notation of NATS, and `x-nats-users`"
    " which users of the shipped permissions may publish and subscribe there. Notifications are posted over"
    " HTTP, and are not in this document."
)


def asyncapi() -> dict[str, Any]:
    """Return the AsyncAPI document of all that the scheduler says and hears on the bus."""
    definitions = Definitions()
    known = {name: _message(entry, definitions) for name, entry in messages().items()}
    roles = users()
    return {
        "asyncapi": VERSION,
        "info": {
            "title": "Scheduler",
            "version": __version__,
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
            "tags": [{"name": name, "description": text} for name, text in _GROUPS.items()],
        },
        "defaultContentType": "application/json",
        "servers": {
            "nats": {
                "host": "{host}:4222",
                "protocol": "nats",
                "description": "A broker; builds are kept in its JetStream.",
                "variables": {"host": {"default": "localhost"}},
            }
        },
        "channels": {name: _channel(channel, roles) for name, channel in channels().items()},
        "operations": _operations(roles),
        "components": {"messages": known, "schemas": dict(sorted(definitions.items()))},
    }


def allowed(subjects: Iterable[str], patterns: Iterable[str]) -> bool:
    """Whether the patterns of a user allow some of the subjects of a channel."""
    known = [pattern.split(".") for pattern in patterns]
    return any(_meets(subject.split("."), pattern) for subject in subjects for pattern in known)


def _meets(subject: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a pattern allows a subject; where that begins with ``*``, it is a type, no word of ours."""
    if subject[0] == "*" and (pattern[0] in RESERVED_TYPES or pattern[0].startswith(("$", "_"))):
        return False
    for ours, theirs in zip_longest(subject, pattern, fillvalue=""):
        if not ours or not theirs:
            return False
        if ">" in (ours, theirs):
            return True
        if ours != theirs and "*" not in (ours, theirs):
            return False
    return True


def _message(entry: MessageEntry, definitions: Definitions) -> dict[str, Any]:
    schema = definitions.take(entry.schema)
    if "allOf" not in schema and "$ref" not in schema and schema.get("type") == "object":
        schema = {**schema, "title": entry.name}
    found: dict[str, Any] = {"name": entry.name, "summary": entry.summary, "contentType": entry.content}
    if entry.headers:
        properties = {name: {"type": "string", "description": text} for name, text in entry.headers.items()}
        found["headers"] = {"type": "object", "properties": properties}
    found["payload"] = schema
    if entry.examples:
        found["examples"] = [{"payload": example} for example in entry.examples]
    return found


def _channel(channel: Channel, roles: Iterable[User]) -> dict[str, Any]:
    subjects = channel.subjects
    found: dict[str, Any] = {
        "address": channel.address or None,
        "title": channel.name,
        "description": channel.text,
        "tags": [{"name": channel.group}],
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in channel.messages},
    }
    if channel.parameters:
        found["parameters"] = {
            name: {"description": one.text}
            | ({"enum": [*one.words]} if one.words else {})
            | ({"examples": [one.example]} if one.example else {})
            for name, one in channel.parameters.items()
        }
    found["x-nats-subjects"] = [*subjects]
    found["x-nats-users"] = {
        "publish": [one.name for one in roles if allowed(subjects, (*one.publish, *one.optional))],
        "subscribe": [one.name for one in roles if allowed(subjects, one.subscribe)],
    }
    return found


def _operations(roles: Iterable[User]) -> dict[str, Any]:
    """Return what the scheduler sends and receives, as the shipped permissions allow it."""
    [service] = (one for one in roles if one.name == SERVICE)
    sides: Mapping[str, tuple[str, ...]] = {
        "send": (*service.publish, *service.optional),
        "receive": service.subscribe,
    }
    found: dict[str, Any] = {}
    for channel in channels().values():
        for action, patterns in sides.items():
            if allowed(channel.subjects, patterns):
                found[f"{action}.{channel.name}"] = _operation(channel, action)
    return found


def _operation(channel: Channel, action: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel.name}"},
        "summary": channel.text,
        "messages": [_said(channel.name, name) for name in channel.messages],
    }
    if channel.queue and action == "receive":
        found["bindings"] = {"nats": {"queue": channel.queue}}
    if channel.reply:
        found["reply"] = {
            "channel": {"$ref": f"#/channels/{channel.reply_on}"},
            "messages": [_said(channel.reply_on, name) for name in channel.reply],
        }
    return found


def _said(channel: str, message: str) -> Schema:
    return {"$ref": f"#/channels/{channel}/messages/{message}"}
