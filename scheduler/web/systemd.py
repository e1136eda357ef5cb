"""Tells systemd how the process is, as `sd_notify(3)` says: over the socket that ``NOTIFY_SOCKET`` names.

It is ready when builds are taken. The watchdog of systemd hears of the loop alone: a loop that does not turn
tells nothing, and a turn that comes much too late does not count.
"""

import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import structlog
import trio
from attrs import define, field

from scheduler.runtime.log_limits import RateLimitedLog
from scheduler.web.board import Board

_PERIOD: Final = 2.0
"""Seconds between two looks at the status."""
_UNTIL_READY: Final = 0.25
_LONGEST: Final = 400
"""Characters of a status."""
READY: Final = "READY=1"
STOPPING: Final = "STOPPING=1"
WATCHDOG: Final = "WATCHDOG=1"


@define(eq=False)
class SdNotify:
    """Socket to systemd."""

    _socket: socket.socket
    _address: str
    _log: RateLimitedLog = field(factory=lambda: RateLimitedLog(structlog.get_logger(), clock=time.monotonic))

    def send(self, *lines: str) -> None:
        """Send lines; never waits, and never raises: systemd may not read."""
        try:
            self._socket.sendto("\n".join(lines).encode(), socket.MSG_DONTWAIT, self._address)
        except OSError as error:
            self._log.warning("systemd was not told", reason=str(error))


@contextmanager
def open_sd_notify(variables: Mapping[str, str] = os.environ) -> Iterator[SdNotify | None]:
    """Open the socket that ``NOTIFY_SOCKET`` names; None where it names none.

    Args:
        variables: variables of the environment; a name that begins with ``@`` is one of no file.
    """
    name = variables.get("NOTIFY_SOCKET", "")
    if not name.startswith(("/", "@")):
        yield None
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to:
        notify = SdNotify(to, f"\0{name[1:]}" if name.startswith("@") else name)
        try:
            yield notify
        finally:
            notify.send(STOPPING)


def watchdog_of(variables: Mapping[str, str] = os.environ, pid: int | None = None) -> float | None:
    """Return the seconds within which systemd wants to hear of this process again; None where it does not.

    Args:
        variables: variables of the environment.
        pid: id of this process.
    """
    microseconds, whose = variables.get("WATCHDOG_USEC", ""), variables.get("WATCHDOG_PID", "")
    if whose and whose != str(os.getpid() if pid is None else pid):
        return None
    if not (microseconds.isascii() and microseconds.isdigit()) or not int(microseconds):
        return None
    return int(microseconds) / 1e6


async def keep_told(notify: SdNotify, board: Board, watchdog: float | None = None) -> None:
    """Tell of the status, and that the loop turns; never returns.

    Args:
        notify: socket to systemd.
        board: place where the figures of the service are.
        watchdog: seconds within which systemd wants to hear again; None where it does not.
    """
    period = _PERIOD if watchdog is None else min(_PERIOD, watchdog / 4)
    told, ready, stopping = "", False, False
    due = trio.current_time()
    while True:
        lines = []
        figures = board.figures
        if figures is not None and figures.health.stopping() and not stopping:
            stopping = True
            lines.append(STOPPING)
        elif figures is not None and figures.health.open() and not ready:
            ready = True
            lines.append(READY)
        status = (board.trouble() if figures is None else figures.status())[:_LONGEST]
        if status != told:
            told = status
            lines.append(f"STATUS={status}")
        if watchdog is not None and trio.current_time() - due <= watchdog / 2:
            lines.append(WATCHDOG)
        if lines:
            notify.send(*lines)
        due = trio.current_time() + (period if ready else min(period, _UNTIL_READY))
        await trio.sleep_until(due)
