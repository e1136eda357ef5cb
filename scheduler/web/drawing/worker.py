"""Process that orders the components of a build: JSON on standard input, JSON on standard output.

It imports next to nothing, so that it starts quickly, and bounds its own memory: what it gets is not ours.
"""

import os
import resource
import sys
from typing import Final

import msgspec

from scheduler.web.drawing.ordering import order

_MEMORY: Final = 1024 * 1024 * 1024
"""Bytes of address space that it may take."""
_CPU: Final = 15
"""Seconds of processor time that it may take: the service may have died without ending it."""
_NICE: Final = 10
"""Steps by which it goes behind the service."""


class Task(msgspec.Struct):
    """Build to be ordered."""

    rows: list[list[int]]
    needs: list[list[int]]


def main() -> None:
    """Order one build."""
    os.nice(_NICE)
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    bound = _MEMORY if most == resource.RLIM_INFINITY else min(_MEMORY, most)
    resource.setrlimit(resource.RLIMIT_AS, (bound, most))
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU, _CPU))
    task = msgspec.json.decode(sys.stdin.buffer.read(), type=Task)
    sys.stdout.buffer.write(msgspec.json.encode(order(task.rows, task.needs)))


if __name__ == "__main__":
    main()
