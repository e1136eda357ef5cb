"""Server of a few lines that sends exactly what a test wants, and records its input."""

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

INFO: dict[str, Any] = {
    "server_id": "scripted",
    "version": "2.15.0",
    "headers": True,
    "max_payload": 1024 * 1024,
    "proto": 1,
}


class ScriptedServer:
    """Speaks as much NATS as a handshake takes; runs in a thread, so trio and asyncio may both talk to it."""

    def __init__(self, info: dict[str, Any]) -> None:
        self.info = info
        self.received = b""
        """All that came in after the handshake, on all connections."""
        self.connects: list[dict[str, Any]] = []
        """The options of each CONNECT."""
        self.answer_pings = threading.Event()
        self.answer_pings.set()
        self.refuse_with = ""
        """Answer instead of the handshake's PONG."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._peers: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._owed: list[socket.socket] = []
        self._start(self._accept)

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self._listener.getsockname()[1]}"

    @property
    def connections(self) -> int:
        return len(self.connects)

    def send(self, data: bytes) -> None:
        """Say something on the newest connection."""
        self._peers[-1].sendall(data)

    def pay_pongs(self) -> None:
        """Send the PONGs that were held back."""
        self.answer_pings.set()
        with self._lock:
            owed, self._owed = self._owed, []
        for peer in owed:
            peer.sendall(b"PONG\r\n")

    def hang_up(self) -> None:
        """End the newest connection."""
        self._peers[-1].shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        for one in (*self._peers, self._listener):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        for thread in self._threads:
            thread.join(5)

    def _start(self, run: Any, *args: Any) -> None:
        thread = threading.Thread(target=run, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self._listener.accept()
                self._peers.append(peer)
                self._start(self._serve, peer)

    def _serve(self, peer: socket.socket) -> None:
        with contextlib.suppress(OSError):
            peer.sendall(b"INFO " + json.dumps(self.info).encode() + b"\r\n")
            buffer = b""
            while b"PING\r\n" not in buffer:
                buffer += self._read(peer)
            hello, _, rest = buffer.partition(b"PING\r\n")
            self.connects.append(json.loads(hello.split(b" ", 1)[1]))
            if self.refuse_with:
                peer.sendall(f"-ERR '{self.refuse_with}'\r\n".encode())
                peer.shutdown(socket.SHUT_RDWR)
                return
            peer.sendall(b"PONG\r\n")
            data = rest
            while True:
                with self._lock:
                    self.received += data
                    for _ in range(data.count(b"PING\r\n")):
                        if self.answer_pings.is_set():
                            peer.sendall(b"PONG\r\n")
                        else:
                            self._owed.append(peer)
                data = self._read(peer)

    @staticmethod
    def _read(peer: socket.socket) -> bytes:
        data = peer.recv(65536)
        if not data:
            raise ConnectionResetError
        return data


@contextlib.contextmanager
def scripted_server(**info: Any) -> Iterator[ScriptedServer]:
    """Run one; keyword arguments go into its INFO."""
    server = ScriptedServer({**INFO, **info})
    try:
        yield server
    finally:
        server.close()
