"""Profiles a service with py-spy, from outside and beside measurements without it.

py-spy tells where the interpreter is, some hundred times a second, as long as it runs Python code. It samples
by the clock on the wall, knows nothing of system calls, and makes the process dearer. So only the *shares* in
a thread are its own: the CPU time that they are shares of is what the kernel counted in builds without it,
apart for the loop's thread and for those beside it, and the time in the kernel is a row of its own.
"""

import shutil
import signal
import subprocess
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Final

import psutil  # type: ignore[import-untyped]

from benchmarks import builds
from benchmarks.processes import NotReadyError, running, scratch
from benchmarks.profiling.shares import Profile, Spent, combine
from benchmarks.stage import Stage, until_idle
from scheduler.local.generate import Shape

_RATE: Final = 200
"""Samples a second."""
_BUILDS: Final = 3
"""Builds of a round with py-spy, and of one without."""
_READY: Final = 30.0
_ATTACHED: Final = "Sampling process"


async def profile(on: Stage, shape: Shape, size: int, repeat: int) -> Profile:
    """Run builds without py-spy and with it in turn."""
    plain, slowed = [], []
    lines: list[str] = []
    with scratch() as folder:
        for _ in range(repeat):
            plain.append(await _spend(on, shape, size))
            with _sampled(on.service.pid, folder, lines):
                slowed.append(await _spend(on, shape, size))
    spent = Spent(*(median(getattr(one, name) for one in plain) for name in ("loop", "beside", "system")))
    cost = median(after.total / before.total for before, after in zip(plain, slowed, strict=True))
    return combine(lines, on.service.pid, spent, cost=cost, of=(on.store, shape, size))


async def _spend(on: Stage, shape: Shape, size: int) -> Spent:
    before = _times(on.service)
    for _ in range(_BUILDS):
        await on.client.run(builds.make(shape, size))
    await until_idle(on.service)
    grown = [after - then for after, then in zip(_times(on.service), before, strict=True)]
    return Spent(*(one / (_BUILDS * size) for one in grown))


def _times(process: psutil.Process) -> tuple[float, float, float]:
    whole = process.cpu_times()
    # Threads of earlier work have ended: their time is in that of the process alone.
    loop = next(thread.user_time for thread in process.threads() if thread.id == process.pid)
    return loop, whole.user - loop, whole.system


@contextmanager
def _sampled(pid: int, folder: Path, lines: list[str]) -> Iterator[None]:
    """Sample a process while the context lasts; the stacks are added to ``lines``.

    Raises:
        NotReadyError: py-spy is missing, or must not look into the process.
    """
    output, log = folder / "profile.txt", folder / "profile.log"
    log.unlink(missing_ok=True)
    command = [_binary(), "record", "--pid", str(pid), "--gil", "--threads", "--full-filenames", "--function"]
    command += ["--rate", str(_RATE), "--format", "raw", "--output", str(output)]
    with running(command, log=log) as process:
        _await(process, log)
        yield
        process.send_signal(signal.SIGINT)
        process.wait(_READY)
    lines += output.read_text().splitlines()


def _binary() -> str:
    found = shutil.which("py-spy", path=sysconfig.get_path("scripts")) or shutil.which("py-spy")
    if found is None:
        raise NotReadyError("there is no py-spy: pip install py-spy")
    return found


def _await(process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + _READY
    while _ATTACHED not in (said := log.read_text()):
        if process.poll() is not None or time.monotonic() > deadline:
            raise NotReadyError(f"py-spy does not look into the service: {said.strip()}")
        time.sleep(0.01)
