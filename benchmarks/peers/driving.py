"""Drives a peer: a process in an environment of its own, which runs a graph for each line that it gets.

It prints `READY`, and after each run a line of JSON: the seconds that it took, and those of CPU, of what
schedules and of all processes. Only the standard library and psutil are there beside the peer.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import TypeVar

import psutil  # type: ignore[import-untyped]

from benchmarks.children import die_with_parent, end

_T = TypeVar("_T")
READY = "ready"
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

Graph = Mapping[str, Sequence[str]]
"""Tasks in the order of a build, each with those that it needs."""


def read_graph(file: str) -> Graph:
    """Read the graph that this process was given."""
    graph: Graph = json.loads(Path(file).read_text())
    return graph


@contextmanager
def child(command: Sequence[str]) -> Iterator[int]:
    """Run a program while the context lasts, and yield its process id."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        # Standard output belongs to the protocol.
        stdout=sys.stderr,
        preexec_fn=die_with_parent,  # noqa: PLW1509 - no threads yet
    )
    try:
        yield process.pid
    finally:
        end(process)


def serve(prepare: Callable[[], _T], run: Callable[[_T], None], scheduler: int) -> None:
    """Run the graph whenever a line asks for it, until standard input ends.

    Args:
        prepare: makes the graph in the form of the peer; this is not measured.
        run: runs it, from its hand-over until this process knows that all is done.
        scheduler: process id of what decides which task is next.
    """
    run(prepare())
    _say(READY)
    for _ in sys.stdin:
        prepared = prepare()
        decided, spent, began = _cpu(psutil.Process(scheduler)), _all(), perf_counter()
        run(prepared)
        seconds = perf_counter() - began
        figures = {
            "seconds": seconds,
            "scheduler": _cpu(psutil.Process(scheduler)) - decided,
            "everything": _all() - spent,
        }
        _say(json.dumps(figures))


def end_in_order() -> None:
    """Have SIGTERM leave every context, so that no process stays."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _all() -> float:
    this = psutil.Process()
    return sum(_cpu(process) for process in (this, *this.children(recursive=True)))
