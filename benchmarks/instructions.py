"""Counts the instructions of a whole service, by Valgrind's callgrind.

A shared machine may be twice as fast a minute later, and its clocks tell two versions apart only over many
rounds. Instructions hardly move with that: the same build twice differs by some tenths of a percent. They say
nothing of caches or of the kernel, so they are for finding out what a change saves, not for what it costs.

A service under callgrind takes fifty times as long. So the builds are small, and what a build costs whatever
its size falls away: the cost of a component is the difference of two builds.
"""

import asyncio
import re
import shutil
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import Final

from attrs import evolve

from benchmarks import builds
from benchmarks.environments import InstallationError
from benchmarks.processes import THIS, Installation, Store, scratch
from benchmarks.stage import Stage, ground, staged, until_idle
from scheduler.local.generate import Shape

SMALL: Final = 300
LARGE: Final = 1_300
_TOTALS: Final = re.compile(rb"^totals: (\d+)", re.MULTILINE)
_DUMPED: Final = 60.0
"""Seconds for callgrind to write what it has counted."""
_LOOK: Final = 0.1


async def count(store: Store, shape: Shape, installation: Installation = THIS) -> float:
    """Return the instructions that a service takes for a component: intake, walk, store and report.

    Raises:
        InstallationError: there is no Valgrind.
    """
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise InstallationError(
            "there is no valgrind, which counts instructions: install it, or leave it out"
        )
    with scratch() as folder:
        counted = folder / "callgrind"
        under = (valgrind, "--tool=callgrind", f"--callgrind-out-file={counted}")
        async with ground(folder, store) as on:
            service = staged(on, on, store, installation=evolve(installation, under=under))
            async with service as ready:
                # Modules are loaded and caches filled.
                await _counted(ready, shape, SMALL, counted)
                small = await _counted(ready, shape, SMALL, counted)
                large = await _counted(ready, shape, LARGE, counted)
    return (large - small) / (LARGE - SMALL)


async def _counted(on: Stage, shape: Shape, size: int, counted: Path) -> int:
    """Run a build, and return the instructions since the last one was counted."""
    await on.client.run(builds.make(shape, size))
    await until_idle(on.service)
    command = ["callgrind_control", "--dump", str(on.service.pid)]
    before = set(counted.parent.glob(f"{counted.name}.*"))
    ask = partial(subprocess.run, command, check=True, capture_output=True, timeout=_DUMPED)
    await asyncio.to_thread(ask)
    deadline = time.monotonic() + _DUMPED
    while time.monotonic() < deadline:
        for dump in set(counted.parent.glob(f"{counted.name}.*")) - before:
            if (total := _TOTALS.search(dump.read_bytes())) is not None:
                return int(total[1])
        await asyncio.sleep(_LOOK)
    raise TimeoutError(f"callgrind has written nothing of process {on.service.pid}")
