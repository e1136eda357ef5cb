"""Measures the CPU time of a command's start, against that of the libraries which every command needs.

A command that asks a scheduler is measured until it connects: it gets the URL of a port without a listener,
and ends with the line that says so.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import median
from typing import Final

from benchmarks.results import Commands

BASELINE: Final = "import msgspec, nats, trio_asyncio"
_ROUNDS = 3
"""Starts of each command in a round: one start is short, and the machine does other work."""
_CONNECTING: Final[Mapping[str, Sequence[str]]] = {
    "status": ("status", "build"),
    "list": ("list",),
    "watch": ("watch", "build"),
}
"""Commands that end when they would connect, by their name in the table."""
_ENDING: Final[Mapping[str, Sequence[str]]] = {
    "--version": ("--version",),
    "--help": ("--help",),
    "status --help": ("status", "--help"),
    "run --help": ("run", "--help"),
}
"""Commands that end by themselves, by their name in the table."""


def measure(repeat: int) -> Commands:
    """Start all commands in turn, in ``repeat`` rounds, and take the medians."""
    seconds: dict[str, list[float]] = {}
    baseline: list[float] = []
    with _closed_port() as url:
        for _ in range(repeat * _ROUNDS):
            baseline.append(_until_its_end([sys.executable, "-c", BASELINE]))
            for name, tokens in _ENDING.items():
                seconds.setdefault(name, []).append(_until_its_end(_command(tokens)))
            for name, tokens in _CONNECTING.items():
                found = _until_its_first_line(_command([*tokens, "--nats-url", url]))
                seconds.setdefault(name, []).append(found)
    return Commands(median(baseline), {name: median(all_) for name, all_ in seconds.items()})


def _command(tokens: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "scheduler", *tokens]


def _until_its_end(command: Sequence[str]) -> float:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    return _cpu(process)


def _until_its_first_line(command: Sequence[str]) -> float:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    with process.stderr as said:
        said.readline()
        process.kill()
    return _cpu(process)


def _cpu(process: "subprocess.Popen[bytes]") -> float:
    """Await the end of a process; return its CPU time in seconds, user and system."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_utime + usage.ru_stime


@contextmanager
def _closed_port() -> Iterator[str]:
    """Yield the URL of a port that is taken, but has no listener."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"nats://127.0.0.1:{taken.getsockname()[1]}"
