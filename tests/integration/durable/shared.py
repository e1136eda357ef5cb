"""What several of these tests look for."""

import json
from typing import Any

from integration.builds import component
from integration.durable.reader import LOG, token
from integration.durable.scene import Scene


def request_lines(line: str) -> bool:
    return '"event": "request"' in line


JSON = dict[str, Any]


def held(name: str, gate: str, **behaviour: Any) -> JSON:
    """A change whose connector answers when the gate is open."""
    return component(name, behaviour={"hold": gate, **behaviour})


def has_event(scene: Scene, name: str, event: str, component: str) -> bool:
    """Whether the log says something of a component."""
    messages = scene.reader.messages(LOG, f"scheduler.log.{token(name)}")
    events = [one for message in messages for one in json.loads(message.data)["events"]]
    return any((one["event"], one.get("component")) == (event, component) for one in events)


def await_event(scene: Scene, name: str, event: str, component: str) -> None:
    """Wait until the log says something of a component."""
    scene.until(lambda: has_event(scene, name, event, component), 20, f"{event} of {component}")
