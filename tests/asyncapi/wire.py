"""Judges messages by the AsyncAPI document alone, as a program in another language would."""

import json
import re
from collections.abc import Mapping
from typing import Any

from jsonschema import Draft7Validator  # type: ignore[import-untyped]

from scheduler.bus.subjects import matches

_INBOX = "inbox"


class Wire:
    """Messages by the document's schemas.

    Args:
        document: the AsyncAPI document.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._messages = document["components"]["messages"]
        self._channels: dict[str, Any] = document["channels"]
        self._operations = document["operations"].values()
        self._components = {"components": {"schemas": document["components"]["schemas"]}}
        self._validators: dict[str, Draft7Validator] = {}

    def problems(self, name: str, body: Any) -> list[str]:
        """What is wrong with the body of a message."""
        if name not in self._validators:
            schema = {**self._messages[name]["payload"], **self._components}
            Draft7Validator.check_schema(schema)
            self._validators[name] = Draft7Validator(schema)
        return [
            f"{name}{error.json_path[1:]}: {error.message}"
            for error in self._validators[name].iter_errors(body)
        ]

    def channel(self, subject: str) -> str:
        """The channel of a subject; of several the one with the longest subject, as that says most."""
        found: dict[str, str] = {
            pattern: name
            for name, channel in self._channels.items()
            for pattern in channel["x-nats-subjects"]
            if matches(pattern, subject)
        }
        assert found, f"{subject} belongs to no channel"
        return min(found.items(), key=lambda one: (one[0].startswith("*"), one[0].count("*"), ">" in one[0]))[
            1
        ]

    def said(self, channel: str) -> list[str]:
        """The messages of a channel."""
        return [*self._channels[channel]["messages"]]

    def answers(self, channel: str) -> list[str]:
        """The messages that answer those of a channel."""
        link = f"#/channels/{channel}"
        return [
            one["$ref"].rpartition("/")[2]
            for operation in self._operations
            if operation["channel"]["$ref"] == link and "reply" in operation
            for one in operation["reply"]["messages"]
        ]

    def judge(self, names: list[str], data: bytes, headers: Mapping[str, str] | None) -> list[str]:
        """What is wrong with a message that may be any of these; nothing where it is one of them."""
        found: list[str] = []
        for name in names:
            message = self._messages[name]
            content = message["contentType"]
            try:
                body = json.loads(data) if content == "application/json" else data.decode(errors="replace")
            except ValueError as error:
                # An API of the broker takes requests without a body, too.
                body = "" if not data else error
            known = message.get("headers", {}).get("properties", {})
            unknown = [key for key in headers or () if key not in known]
            problems = [*self.problems(name, body), *(f"{name}: header {key}" for key in unknown)]
            if not problems:
                return []
            found += problems
        return found

    @staticmethod
    def is_inbox(subject: str) -> bool:
        return re.match(r"_INBOX\.|_R_\.", subject) is not None
