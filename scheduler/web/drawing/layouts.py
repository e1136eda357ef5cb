"""Makes layouts, and keeps them by the structure of the build."""

import math
import os
import sys
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import structlog
import trio
from attrs import field, frozen

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
PROVISIONAL: Final = 60.0
"""Seconds for which a layout is kept that lacks something by accident: the next one may have it."""

_OURS: Final = ("SCHEDULER_", "NATS_")
"""Beginnings of the variables that are settings."""
_WORKER: Final = "scheduler.web.drawing.worker"


@frozen(eq=False)
class Layout:
    """Layout as JSON."""

    body: bytes = field(repr=False)
    """JSON, as `answers.Layout` says."""
    until: float = math.inf
    """Time until which it is good, Trio clock."""

    @property
    def final(self) -> bool:
        """Whether it will always be this one."""
        return self.until == math.inf


class Layouts:
    """Makes layouts as JSON, one at a time.

    Args:
        desk: place to ask.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._kept: ByteCache[str, Layout] = ByteCache(_KEPT)
        self._turn = trio.Lock()
        self._log = RateLimitedLog(structlog.get_logger())

    async def get(self, build: str, structure: Structure) -> Layout:
        """Return the layout of a build.

        Args:
            build: its id.
            structure: its structure; builds of the same one share the layout.
        """
        if (known := self._known(structure.key)) is not None:
            return known
        async with self._turn:
            if (known := self._known(structure.key)) is not None:
                return known
            executor = self._desk.executor
            wave = await executor.run(OWNER, partial(waves_of, structure.needs), long=True)
            rows = await executor.run(OWNER, partial(rows_of, wave))
            ordered = await self._ordered(rows, structure)
            critical = await self._predicted(build, structure)
            job = partial(
                _written, structure, wave, ordered or rows, critical or [], ordered=ordered is not None
            )
            body: bytes = await executor.run(OWNER, job, long=True)
            complete = ordered is not None and critical is not None
            made = Layout(body, math.inf if complete else trio.current_time() + PROVISIONAL)
            self._kept.keep(structure.key, made, len(body))
            return made

    def _known(self, key: str) -> Layout | None:
        known = self._kept.get(key)
        return known if known is not None and trio.current_time() < known.until else None

    async def _ordered(self, rows: list[list[int]], structure: Structure) -> list[list[int]] | None:
        """Return the components of each wave in their order; None where that took too long, or failed."""
        if not any(structure.needs):
            return rows
        task = Task(rows, structure.needs)
        data = await self._desk.executor.run(OWNER, partial(msgspec.json.encode, task), long=True)
        # The package may be somewhere that only this process looks.
        path = os.pathsep.join((str(Path(scheduler.__file__).parents[1]), *filter(None, sys.path)))
        command = [sys.executable, "-m", _WORKER, str(os.getpid())]
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
            self._log.warning(
                "a build is drawn in plain waves: to order it failed", why=why, code=done.returncode
            )
            return None
        found: list[list[int]] = await self._desk.executor.run(
            OWNER, partial(msgspec.json.decode, done.stdout, type=list[list[int]]), long=True
        )
        return found

    async def _predicted(self, build: str, structure: Structure) -> list[int] | None:
        """Return the critical path as it is predicted, empty where there is none; None where nobody said."""
        with trio.move_on_after(_PREDICTION):
            try:
                plan = await self._desk.ask("plan", {"id": build})
            except Refused as refused:
                return None if refused.code == "unavailable" else []
            found = (structure.index.get(text(step.get("id"))) for step in objects(plan.get("critical_path")))
            return [vertex for vertex in found if vertex is not None]
        return None


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
