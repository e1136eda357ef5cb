"""Process that orders components: ``worker SERVICE``, with JSON on standard input and standard output.

``SERVICE`` is the process id of the service, with which it ends, even where that is killed.
It imports next to nothing, so that it starts quickly, and bounds its own memory: what it gets is not ours.
"""

import os
import resource
import signal
import sys
from types import FrameType
from typing import Final

import msgspec

from scheduler.web.drawing.ordering import order

_MEMORY: Final = 1024 * 1024 * 1024
"""Bytes of address space that it may take."""
_CPU: Final = 15
"""Seconds of processor time that it may take."""
_LOOK: Final = 0.5
"""Seconds between two looks whether the service is still there."""
_NICE: Final = 10
"""Steps by which it goes behind the service."""


class Task(msgspec.Struct):
    """Build to be ordered."""

    rows: list[list[int]]
    needs: list[list[int]]


def _end_with(service: int) -> None:
    """End this process soon after the one that has started it.

    Args:
        service: process id of that one.
    """

    def look(_number: int, _frame: FrameType | None) -> None:
        if os.getppid() != service:
            os._exit(1)

    signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, _LOOK, _LOOK)


def main() -> None:
    """Order one build."""
    _end_with(int(sys.argv[1]))
    os.nice(_NICE)
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    bound = _MEMORY if most == resource.RLIM_INFINITY else min(_MEMORY, most)
    resource.setrlimit(resource.RLIMIT_AS, (bound, most))
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU, _CPU))
    task = msgspec.json.decode(sys.stdin.buffer.read(), type=Task)
    sys.stdout.buffer.write(msgspec.json.encode(order(task.rows, task.needs)))


if __name__ == "__main__":
    main()
