"""Child processes that do not outlive their parent. It needs nothing beyond the standard library."""

import ctypes
import signal
import subprocess
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1
_GOODBYE = 10.0


def _die() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


die_with_parent: Callable[[], None] | None = _die if sys.platform == "linux" else None
"""Runs in the child before its program: it is killed when its parent ends, however that ends."""


def end(process: "subprocess.Popen[bytes]") -> None:
    """End a process if it still runs: first with a request, then by force."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_GOODBYE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(_GOODBYE)
