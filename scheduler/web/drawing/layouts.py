"""Makes layouts, and keeps them by the structure of the build."""

import os
import sys
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import structlog
import trio

import scheduler
from scheduler.client.lenient import objects, text
from scheduler.control.verbs import Document
from scheduler.errors import Refused
from scheduler.runtime.caches import ByteCache
from scheduler.runtime.log_limits import RateLimitedLog
from scheduler.web.drawing.waves import Placed, folds_of, longest_chain, place, rows_of, waves_of
from scheduler.web.drawing.worker import Task
from scheduler.web.page.answers import VERSION
from scheduler.web.page.asking import OWNER, Desk
from scheduler.web.page.replies import encoded
from scheduler.web.page.structure import Structure

DEADLINE: Final = 10.0
"""Seconds for the process that orders."""
_KEPT: Final = 32 * 1024 * 1024
"""Bytes of the layouts that are kept."""
_PREDICTION: Final = 3.0
"""Seconds for the prediction, which has the critical path."""

_OURS: Final = ("SCHEDULER_", "NATS_")
"""Beginnings of the variables that are settings."""
_WORKER: Final = "scheduler.web.drawing.worker"


class Layouts:
    """Makes layouts as JSON, one at a time.

    Args:
        desk: place to ask.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._kept: ByteCache[str, bytes] = ByteCache(_KEPT)
        self._turn = trio.Lock()
        self._log = RateLimitedLog(structlog.get_logger())

    async def get(self, build: str, structure: Structure) -> bytes:
        """Return the layout of a build, as `answers.Layout` says.

        Args:
            build: its id.
            structure: its structure; builds of the same one share the layout.
        """
        key = structure.key
        if (known := self._kept.get(key)) is not None:
            return known
        async with self._turn:
            if (known := self._kept.get(key)) is not None:
                return known
            executor = self._desk.executor
            wave = await executor.run(OWNER, partial(waves_of, structure.needs), long=True)
            rows = await executor.run(OWNER, partial(rows_of, wave))
            ordered = await self._ordered(rows, structure)
            critical = await self._predicted(build, structure)
            job = partial(_written, structure, wave, ordered or rows, critical, ordered=ordered is not None)
            made: bytes = await executor.run(OWNER, job, long=True)
            self._kept.keep(key, made, len(made))
            return made

    async def _ordered(self, rows: list[list[int]], structure: Structure) -> list[list[int]] | None:
        """Return the components of each wave in their order; None where that took too long, or failed."""
        if not any(structure.needs):
            return rows
        task = Task(rows, structure.needs)
        data = await self._desk.executor.run(OWNER, partial(msgspec.json.encode, task), long=True)
        # The package may be somewhere that only this process looks.
        path = os.pathsep.join((str(Path(scheduler.__file__).parents[1]), *filter(None, sys.path)))
        command = [sys.executable, "-m", _WORKER]
        # It needs to know no secret.
        env = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
        env["PYTHONPATH"] = path
        try:
            with trio.fail_after(DEADLINE):
                # Killed where it is late: it has nothing to tidy up.
                done = await trio.run_process(
                    command, stdin=data, capture_stdout=True, capture_stderr=True, check=False, env=env,
                    deliver_cancel=_kill,
                )  # fmt: skip
        except trio.TooSlowError:
            self._log.info("a build is drawn in plain waves: to order it took too long", seconds=DEADLINE)
            return None
        except OSError as error:
            self._log.warning("a build is drawn in plain waves: no process can be started", why=str(error))
            return None
        if done.returncode:
            why = done.stderr.decode(errors="replace")[-500:]
            self._log.warning("a build is drawn in plain waves: to order it failed", why=why)
            return None
        found: list[list[int]] = await self._desk.executor.run(
            OWNER, partial(msgspec.json.decode, done.stdout, type=list[list[int]]), long=True
        )
        return found

    async def _predicted(self, build: str, structure: Structure) -> list[int]:
        """Return the critical path as it is predicted; empty where that is not known."""
        with trio.move_on_after(_PREDICTION):
            try:
                plan = await self._desk.ask("plan", {"id": build})
            except Refused:
                return []
            found = (structure.index.get(text(step.get("id"))) for step in objects(plan.get("critical_path")))
            return [vertex for vertex in found if vertex is not None]
        return []


async def _kill(process: trio.Process) -> None:
    process.kill()


def _written(
    structure: Structure, wave: list[int], rows: list[list[int]], critical: list[int], *, ordered: bool
) -> bytes:
    placed: Placed = place(rows)
    document: Document = {
        "version": VERSION,
        "key": structure.key,
        "method": "ordered" if ordered else "waves",
        "ids": structure.ids,
        "types": structure.types,
        "type": structure.type,
        "actions": structure.actions,
        "action": structure.action,
        "providers": structure.providers,
        "provider": structure.provider,
        "gates": structure.gates,
        "x": placed.x,
        "y": placed.y,
        "wave": wave,
        "edges": [
            one for vertex, needs in enumerate(structure.needs) for need in needs for one in (need, vertex)
        ],
        "critical": critical or longest_chain(structure.needs, wave),
        "width": placed.width,
        "height": placed.height,
        "folds": folds_of(placed, wave, structure.type),
    }
    return encoded(document)
