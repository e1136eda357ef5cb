"""Dask distributed: a scheduler, a worker with a thread for each core, and this process as the client.

The graph is one of `dask.delayed` calls, handed over at once, and not optimised: fusing a chain into one task
would be another graph. Results stay with the worker until the client lets them go.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

from dask import delayed  # type: ignore[import-not-found]
from distributed import Client, wait  # type: ignore[import-not-found]

from benchmarks.peers.driving import CORES, child, end_in_order, read_graph, serve


def noop(*needed: None) -> None:
    """Do nothing, after all that is needed."""


def main(file: str) -> None:
    """Serve runs of a graph."""
    end_in_order()
    graph = read_graph(file)
    needed = {need for needs in graph.values() for need in needs}
    with tempfile.TemporaryDirectory() as folder:
        address = str(Path(folder) / "scheduler.json")
        common = ["--scheduler-file", address, "--no-dashboard"]
        scheduling = [sys.executable, "-m", "distributed.cli.dask_scheduler", *common]
        scheduling += ["--host", "127.0.0.1", "--port", "0"]
        working = [sys.executable, "-m", "distributed.cli.dask_worker", *common]
        working += ["--nthreads", str(CORES), "--no-nanny", "--local-directory", folder]
        with (
            child(scheduling) as scheduler,
            child(working),
            Client(scheduler_file=address, timeout="60s") as client,
        ):
            client.wait_for_workers(1, timeout=60)

            def prepare() -> list[Any]:
                tasks: dict[str, Any] = {}
                for name, needs in graph.items():
                    tasks[name] = delayed(noop, pure=False)(*(tasks[need] for need in needs))
                return [task for name, task in tasks.items() if name not in needed]

            def run(last: list[Any]) -> None:
                wait(client.compute(last, optimize_graph=False), timeout=120)

            serve(prepare, run, scheduler)


if __name__ == "__main__":
    main(sys.argv[1])
