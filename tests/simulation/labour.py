"""Work takes time: what is charged for rendering moves the clock; and there are builds that take long.

Where it is done on the loop, time passes for everybody in one step of a task, which is noted if it is long.
In a thread it passes beside everything else.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeAlias, TypeVar
from unittest import mock

import outcome
import trio
from trio.testing import MockClock

from scheduler.definition.shapes import shapes_within
from scheduler.definition.template import Work, references, sandbox
from scheduler.runtime.caches import ByteCache

JSON: TypeAlias = dict[str, Any]
T = TypeVar("T")

UNIT = 25e-9
"""Seconds of a unit of work, at the very worst."""
LONGEST = 0.010
"""Seconds for which the loop may be kept."""
BOUNDLESS = "boundless"
"""Part of the id of a component that takes more work than one may."""
_NUMBERS = [0] * 3_200
"""Few bytes that take much work: what is read where others wait must be small."""
_ONE = '(components["first"].numbers | tojson | length)'
"""Of what the first one returns, which nobody knows at intake."""
_KNOWN = "(build.numbers | tojson | length)"


class Labour(trio.abc.Instrument):
    """Charges the clock.

    Args:
        clock: of the run.
    """

    def __init__(self, clock: MockClock) -> None:
        self.tell: Callable[[str, float], None] = lambda *_: None
        """Is told of each task that kept the loop for too long, and for how many seconds."""
        self._clock = clock
        self._step = 0.0
        self._beside: float | None = None
        """Seconds of the job that is done as if in a thread; None while there is none."""

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._step = 0.0

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if self._step > LONGEST:
            self.tell(task.name, self._step)

    def _charge(self, units: int) -> None:
        seconds = units * UNIT
        if self._beside is not None:
            self._beside += seconds
        else:
            self._step += seconds
            self._clock._virtual_base += seconds

    async def beside(self, work: Callable[..., T], *args: Any, limiter: Any = None, **_: Any) -> T:
        """As `trio.to_thread.run_sync`: it takes as long as its work is charged, and no thread."""
        await trio.lowlevel.checkpoint()
        if limiter is not None:
            await limiter.acquire_on_behalf_of(work)
        try:
            self._beside = 0.0
            result = outcome.capture(work, *args)
            seconds, self._beside = self._beside, None
            if seconds:
                await trio.sleep(seconds)
            return result.unwrap()
        finally:
            if limiter is not None:
                limiter.release_on_behalf_of(work)

    @contextmanager
    def charged(self) -> Iterator[None]:
        """Charge for whatever work is taken off meanwhile."""
        spend = Work.spend

        def charge(work: Work, units: int) -> None:
            left = work.left
            # What is refused is not done.
            spend(work, units)
            self._charge(left - work.left)

        patches: tuple[Any, ...] = (
            mock.patch.object(Work, "spend", charge),
            mock.patch.object(trio.to_thread, "run_sync", self.beside),
            # What is known from an earlier run would cost nothing.
            mock.patch.object(references, "_known", ByteCache(1 << 22)),
            mock.patch.object(sandbox, "_codes", ByteCache(1 << 22)),
        )
        shapes_within.cache_clear()
        with ExitStack() as stack:
            for patch in patches:
                stack.enter_context(patch)
            yield


def laborious(seed: int) -> JSON | None:
    """Sometimes a build more, that takes long to be rendered; and some of it longer than it may."""
    rng = random.Random(f"laborious {seed}")
    if rng.random() > 0.08:
        return None
    changes = [_change("first", 0), {**_change("known", 0), "work": f"{{{{ {' ~ '.join([_KNOWN] * 25)} }}}}"}]
    changes[0]["numbers"] = _NUMBERS
    changes += [_change(f"long{number}", rng.choice((2, 4, 6))) for number in range(rng.choice((2, 6)))]
    if rng.random() < 0.7:
        changes.append(_change(BOUNDLESS, 75))
    rng.shuffle(changes)
    return {
        "id": "laborious",
        "name": "build that takes long",
        "action": "build.create",
        "components": [],
        "changes": changes,
        "edges": [
            {"source": "first", "destination": change["_component_id"], "length": 1}
            for change in changes
            if change["_component_id"] != "first"
        ],
        "numbers": _NUMBERS[:1_200],
    }


def _change(name: str, times: int) -> JSON:
    change: JSON = {
        "_component_id": name,
        "_component": "vpc",
        "_action": "create",
        "_provider": "aws",
        "_state": "waiting",
        "note": f"laborious {name}",
    }
    if times:
        change["work"] = _work(times)
    return change


def _work(times: int) -> str:
    return "{{ " + " ~ ".join([_ONE] * times) + " }}"
