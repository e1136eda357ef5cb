"""Many bytes in flight, and a connector that does not read."""

import json
import socket

import pytest

from integration.builds import build, component
from integration.conftest import World, WorldFactory
from integration.harness import states

pytestmark = pytest.mark.integration

BUDGET = 1_000_000
REQUEST = 60_000
"""Bytes of a request of the large build."""


class Stalled:
    """A connector that subscribes, and does not read what it is sent before it is told to."""

    def __init__(self, port: int, subject: str) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        self._socket.settimeout(20)
        self._socket.connect(("127.0.0.1", port))
        self._file = self._socket.makefile("rb")
        assert self._file.readline().startswith(b"INFO")
        options = json.dumps({"verbose": False, "headers": True, "no_responders": True})
        self._send(f"CONNECT {options}\r\nSUB {subject} stalled 1\r\nPING\r\n")
        assert self._file.readline() == b"PONG\r\n"

    def _send(self, text: str) -> None:
        self._socket.sendall(text.encode())

    def read(self) -> int:
        """Read all that waits; the number of bytes of the requests. It fails where the server has hung up."""
        self._send("PING\r\n")
        total = 0
        while (line := self._file.readline()) != b"PONG\r\n":
            assert line.startswith((b"HMSG", b"PING")), f"cut off: {line!r}"
            if line.startswith(b"HMSG"):
                size = int(line.split()[-1])
                self._file.read(size + 2)
                total += size
        return total

    def close(self) -> None:
        self._file.close()
        self._socket.close()


def large(provider: str, number: int) -> dict[str, object]:
    """A build of a few kilobytes whose components take 60 KB each."""
    text = "x" * (REQUEST - 1_000)
    there = [{"_component_id": "text::1", "_component": "text", "_provider": provider, "text": text}]
    changes = [
        component(f"vm::{one}", _provider=provider, data='{{ components["text::1"].text }}')
        for one in range(number)
    ]
    return build(*changes, components=there)


def test_a_connector_that_does_not_read_is_not_cut_off(start_world: WorldFactory) -> None:
    """What waits for it stays below what the server keeps; other builds go on beside it."""
    world: World = start_world({"max_pending": 2 * BUDGET, "write_deadline": "60s"})
    scheduler = world.scheduler("--store", "memory", "--max-bytes-in-flight", str(BUDGET))
    stalled = Stalled(world.server.port, "*.create.aws")
    try:
        world.connectors("*.create.fast")
        submitter = world.submitter()
        submitter.accepted(large("aws", 200))
        for _ in range(20):
            healthy = build(component("vm::1", _provider="fast"))
            submitter.accepted(healthy)
            assert states(submitter.done(healthy)) == {"vm::1": "completed"}
        busy = large("fast", 6)
        submitter.accepted(busy)
        assert set(states(submitter.done(busy)).values()) == {"completed"}
        assert BUDGET / 4 < stalled.read() <= BUDGET / 2
        assert "Slow Consumer" not in world.server.log
        assert not [line for line in scheduler.err if "disconnected" in line]
    finally:
        stalled.close()
