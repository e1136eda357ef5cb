"""Runs an async function so that a seed decides everything: the clock, the schedule, every random number."""

import heapq
import random
import secrets
import signal
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar
from unittest import mock

import structlog
import trio
import trio._core._run as trio_run
from support.fake_jetstream import Later
from trio.testing import MockClock

from simulation.labour import Labour

T = TypeVar("T")

_NEVER = 1e9
_MOST_STEPS = 5_000
"""Steps that tasks may make at one time: who makes more goes round in circles."""
_LONGEST = 60
"""Seconds of real time that a run may take."""


class Clockwork(Later):
    """The clock of a run: what happens in the world happens between two turns of Trio's tasks.

    It moves on when no task can run, as Trio's mock clock does by itself; what is due in the world is then
    done right here. A task of its own, which wakes up for every message, would cost half of the whole run.
    """

    def __init__(self) -> None:
        super().__init__()
        self.clock = MockClock(autojump_threshold=0)
        self.labour = Labour(self.clock)
        """Return the cost of rendering."""
        # Of its own accord it would jump to Trio's next deadline.
        self.clock._autojump = self._move_on  # type: ignore[method-assign]

    def at(self, when: float, job: Callable[[], None]) -> None:
        """As there; no task is needed."""
        heapq.heappush(self._heap, (when, next(self._number), job))

    def _move_on(self) -> None:
        runner = trio_run.GLOBAL_RUN_CONTEXT.runner
        heap, clock = self._heap, self.clock
        while not runner.runq:
            deadline = runner.deadlines.next_deadline()
            if not heap or deadline <= heap[0][0]:
                clock._virtual_base = max(clock._virtual_base, min(deadline, _NEVER))
                return
            when, _, job = heapq.heappop(heap)
            # Set, not moved by a difference: what is due at a time is to see exactly that time.
            clock._virtual_base = max(clock._virtual_base, when)
            job()


class Stuck(Exception):
    """A run does not come to its end, in real time."""


class _Watch(trio.abc.Instrument):
    """Ends a run in which tasks run and run, and time does not pass."""

    def __init__(self, clock: MockClock) -> None:
        self.scope = trio.CancelScope()
        self.busy = ""
        """Return the task that ran last."""
        self._clock = clock
        self._time = -1.0
        self._steps = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        now = self._clock._virtual_base
        if now != self._time:
            self._time, self._steps = now, 0
        self._steps += 1
        if self._steps > _MOST_STEPS and not self.busy:
            self.busy = f"{task.name}, in {_place(task)}"
            self.scope.cancel()


def _place(task: trio.lowlevel.Task) -> str:
    """The functions that a task is in, the innermost last."""
    frames = [frame for frame, _ in task.iter_await_frames()]
    return " > ".join(f"{frame.f_code.co_qualname}:{frame.f_lineno}" for frame in frames)


def run(
    seed: int, main: Callable[[Clockwork], Awaitable[T]], log: Callable[[str, dict[str, Any]], None]
) -> T:
    """Run ``main`` under Trio, on a mock clock that begins at 0 and jumps.

    Args:
        seed: decides in what order tasks run, and what the package gets of ``random`` and ``secrets``.
        main: what to run; it is given what calls functions at their times.
        log: is told of what the package logs as an error, with its level in it.

    Raises:
        Stuck: it took too long.
    """
    source = random.Random(f"package {seed}")
    before = random.getstate()
    random.seed(source.random())
    trio_run._r.seed(seed)
    work = Clockwork()
    watch = _Watch(work.clock)

    async def watched() -> T:
        with watch.scope:
            return await main(work)
        msg = f"seed {seed} does not get beyond {trio.current_time():.4f} s: {watch.busy}"
        raise Stuck(msg)

    try:
        with _alarm(seed), _patched(source), _logging(log), work.labour.charged():
            return trio.run(watched, clock=work.clock, instruments=[watch, work.labour])
    finally:
        random.setstate(before)


@contextmanager
def _patched(source: random.Random) -> Iterator[None]:
    patches: list[Any] = [
        mock.patch.object(trio_run, "_ALLOW_DETERMINISTIC_SCHEDULING", new=True),
        mock.patch.object(secrets, "token_hex", lambda size=32: source.randbytes(size).hex()),
        mock.patch.object(secrets, "token_bytes", lambda size=32: source.randbytes(size)),
        mock.patch.object(secrets, "randbelow", source.randrange),
        mock.patch.object(time, "monotonic", trio.current_time),
        # How long our own code takes is no part of the simulation, but for what is charged as work.
        mock.patch.object(time, "perf_counter", trio.current_time),
    ]
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in reversed(patches):
            patch.stop()


@contextmanager
def _logging(log: Callable[[str, dict[str, Any]], None]) -> Iterator[None]:
    def tell(_: Any, level: str, event: MutableMapping[str, Any]) -> str:
        log(level, dict(event))
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(processors=[tell], wrapper_class=structlog.make_filtering_bound_logger(40))
    try:
        yield
    finally:
        structlog.configure(**before)


@contextmanager
def _alarm(seed: int) -> Iterator[None]:
    def ring(_: int, __: FrameType | None) -> None:
        raise Stuck(f"seed {seed} does not end within {_LONGEST} s")

    # There is one such timer in a process, and the test that the run is part of may have set it.
    before = signal.signal(signal.SIGALRM, ring)
    left, interval = signal.setitimer(signal.ITIMER_REAL, _LONGEST)
    began = time.monotonic()
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(0.001, left - time.monotonic() + began), interval)
