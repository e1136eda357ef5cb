"""Several real nats-servers that know each other: a cluster with JetStream, or a hub and its leaf nodes.

Built of `brokers.NatsServer`, so that each can be stopped, killed and paused on its own.
"""

import contextlib
import json
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from support.brokers import DEADLINE, NatsServer

JSON = dict[str, Any]


class Cluster:
    """Servers, each the others' route; gone with the context `cluster`."""

    def __init__(self, folder: Path, size: int, config: JSON, *, jetstream: bool, user_info: str) -> None:
        ports = free_ports(size)
        routes = [f"nats://127.0.0.1:{port}" for port in ports]
        self.servers: list[NatsServer] = []
        for number, port in enumerate(ports):
            place = folder / f"server-{number}"
            place.mkdir()
            settings = {
                "server_name": f"server-{number}",
                "cluster": {"name": "tests", "listen": f"127.0.0.1:{port}", "routes": routes},
                **config,
            }
            server = NatsServer(place, settings, jetstream=jetstream)
            server.user_info = user_info
            self.servers.append(server)
        self._jetstream = jetstream

    @property
    def url(self) -> str:
        """The URLs of all servers."""
        return ",".join(server.url for server in self.servers)

    def start(self) -> None:
        """Start all; they know each other, and JetStream answers, on return."""
        for server in self.servers:
            server.start()
        if self._jetstream:
            self.await_api()
        else:
            for server in self.servers[1:]:
                await_path(self.servers[0], server)

    def await_api(self, deadline: float = 4 * DEADLINE) -> None:
        """Wait until JetStream has a leader, and it every server for a peer."""
        until = time.monotonic() + deadline
        while True:
            with contextlib.suppress(OSError, TimeoutError):
                answers = [ask(server.url, "$JS.API.INFO") for server in self.running]
                if not any("error" in answer for answer in answers):
                    return
            assert time.monotonic() < until, "JetStream is not ready:\n" + self.running[0].log[-3000:]
            time.sleep(0.05)

    @property
    def running(self) -> list[NatsServer]:
        """The servers that are not stopped; one that is paused is among them."""
        return [server for server in self.servers if server.process is not None]

    def named(self, name: str) -> NatsServer:
        """The server of that name."""
        return next(server for server in self.servers if server.config["server_name"] == name)

    def at(self, url: str) -> NatsServer:
        """The server that is reached at a URL."""
        return next(server for server in self.servers if server.url == url)

    def others(self, server: NatsServer) -> list[NatsServer]:
        """All but one."""
        return [other for other in self.servers if other is not server]

    def info(self, stream: str) -> JSON:
        """Ask the leader of a stream for its state; empty if no server answers yet."""
        with contextlib.suppress(OSError, TimeoutError):
            found: JSON = ask(self.running[0].url, f"$JS.API.STREAM.INFO.{stream}")
            return found
        return {}

    def leader(self, stream: str) -> str:
        """The name of the server that leads a stream; empty where there is none."""
        return str((self.info(stream).get("cluster") or {}).get("leader") or "")

    def await_current(self, stream: str, deadline: float = 6 * DEADLINE) -> None:
        """Wait until a stream has a leader, and all its copies are up to date."""
        until = time.monotonic() + deadline
        while True:
            group = self.info(stream).get("cluster") or {}
            replicas = group.get("replicas") or []
            if group.get("leader") and all(one.get("current") for one in replicas):
                return
            assert time.monotonic() < until, f"{stream} is not whole: {group}"
            time.sleep(0.05)

    def lead(self, stream: str, server: NatsServer, deadline: float = 6 * DEADLINE) -> None:
        """Make a server the leader of a stream."""
        name = server.config["server_name"]
        until = time.monotonic() + deadline
        while self.leader(stream) != name:
            assert time.monotonic() < until, f"{name} does not come to lead {stream}"
            with contextlib.suppress(OSError, TimeoutError):
                preferred = {"placement": {"preferred": name}}
                ask(self.running[0].url, f"$JS.API.STREAM.LEADER.STEPDOWN.{stream}", preferred)
            time.sleep(0.1)

    def close(self) -> None:
        """Kill all."""
        for server in self.servers:
            server.kill()


@contextlib.contextmanager
def cluster(
    size: int = 3, config: JSON | None = None, *, jetstream: bool = True, user_info: str = ""
) -> Iterator[Cluster]:
    """Run a fresh cluster for as long as the context lasts; with ``user_info`` as its URLs have it."""
    with tempfile.TemporaryDirectory(prefix="nats-cluster-", ignore_cleanup_errors=True) as folder:
        servers = Cluster(Path(folder), size, config or {}, jetstream=jetstream, user_info=user_info)
        try:
            servers.start()
            yield servers
        finally:
            servers.close()


@contextlib.contextmanager
def hub_and_leaf(
    *, hub_domain: str = "hub", leaf_domain: str = "leaf", deny: tuple[str, ...] = ()
) -> Iterator[tuple[NatsServer, NatsServer]]:
    """Run a hub and a leaf node of the same account, each with a JetStream domain of its own.

    Args:
        hub_domain: the hub's; none where it is empty.
        leaf_domain: the leaf's.
        deny: subjects that do not pass between them.
    """
    with contextlib.ExitStack() as stack:
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="nats-leaf-", ignore_cleanup_errors=True))
        )
        (port,) = free_ports(1)
        remote = {"url": f"nats://127.0.0.1:{port}", "deny_imports": [*deny], "deny_exports": [*deny]}
        leafnodes = {
            "hub": {"listen": f"127.0.0.1:{port}"},
            "leaf": {"remotes": [remote], "reconnect": "100ms"},
        }
        servers = []
        for name, domain in (("hub", hub_domain), ("leaf", leaf_domain)):
            place = folder / name
            place.mkdir()
            server = NatsServer(place, {"server_name": name, "leafnodes": leafnodes[name]}, jetstream=True)
            if domain:
                server.config["jetstream"]["domain"] = domain
            stack.callback(server.kill)
            server.start()
            servers.append(server)
        hub, leaf = servers
        await_path(hub, leaf)
        yield hub, leaf


def await_path(start: NatsServer, end: NatsServer) -> None:
    """Wait until a message gets from one server to another."""
    with Raw(end.url) as there, Raw(start.url) as here:
        there.write("SUB tests.path 1")
        there.flush()
        until = time.monotonic() + DEADLINE
        while True:
            here.write("PUB tests.path 0", "")
            with contextlib.suppress(TimeoutError):
                there.message(0.1)
                return
            assert time.monotonic() < until, "the servers do not reach each other"


def free_ports(number: int) -> list[int]:
    """Ports that nobody listens on: a cluster's servers have to know each other's beforehand."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


class Raw:
    """A connection that speaks the protocol itself; for a word or two."""

    def __init__(self, url: str, seconds: float = 5.0) -> None:
        host, _, port = url.rpartition("/")[2].rpartition("@")[2].rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=seconds)
        self._buffer = b""
        self._line(time.monotonic() + seconds)  # INFO
        options = {"verbose": False, "headers": True, "no_responders": True}
        user, _, password = url.rpartition("/")[2].rpartition("@")[0].partition(":")
        self.write(f"CONNECT {json.dumps(options | ({'user': user, 'pass': password} if user else {}))}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def write(self, *lines: str) -> None:
        """Write lines."""
        self._socket.sendall(b"".join(line.encode() + b"\r\n" for line in lines))

    def flush(self, seconds: float = 5.0) -> None:
        """Wait until the server has taken what was written."""
        self.write("PING")
        until = time.monotonic() + seconds
        while self._line(until) != b"PONG":
            pass

    def message(self, seconds: float) -> bytes:
        """The payload of the next message; TimeoutError where there is none, or nobody listens."""
        until = time.monotonic() + seconds
        while True:
            words = self._line(until).split()
            if words and words[0] in {b"MSG", b"HMSG"}:
                size = int(words[-1]) + 2
                while len(self._buffer) < size:
                    self._read(until)
                data, self._buffer = self._buffer[: size - 2], self._buffer[size:]
                if words[0] == b"HMSG":
                    raise TimeoutError("nobody listens")
                return data
            if words == [b"PING"]:
                self.write("PONG")

    def _line(self, until: float) -> bytes:
        while b"\r\n" not in self._buffer:
            self._read(until)
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line.strip()

    def _read(self, until: float) -> None:
        self._socket.settimeout(max(0.001, until - time.monotonic()))
        data = self._socket.recv(65536)
        if not data:
            raise ConnectionError("the server hung up")
        self._buffer += data


def ask(url: str, subject: str, body: JSON | None = None, seconds: float = 2.0) -> Any:
    """The answer to one request, as JSON; raises TimeoutError where there is none."""
    data = json.dumps(body) if body is not None else ""
    with Raw(url, seconds) as raw:
        raw.write("SUB _INBOX.tests.ask 1", f"PUB {subject} _INBOX.tests.ask {len(data)}", data)
        return json.loads(raw.message(seconds))
