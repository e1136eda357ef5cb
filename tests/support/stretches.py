"""Measures how long Trio's tasks hold the loop: in CPU time, which a busy machine does not distort."""

import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import trio
from attrs import define, field


@define(order=True)
class Stretch:
    """The loop was kept for so long."""

    seconds: float
    """Of CPU time of the loop's thread."""
    task: str
    """Name of the task."""
    where: str = ""
    """Place of the task after `Stretches.looks_after`; empty if it was not examined."""


@define(eq=False)
class Stretches(trio.abc.Instrument):
    """Records the longest stretches of a Trio run, of a task and of a round.

    A round is every task that can run, each once: what becomes ready meanwhile waits for its end.
    """

    tasks: list[Stretch] = field(factory=list)
    """The longest of one task between two checkpoints, the longest first."""
    rounds: list[Stretch] = field(factory=list)
    """The longest rounds, the longest first; with how many tasks there were, and the longest of them."""
    kept: int = 10
    looks_after: float = 0.0
    """Seconds into a stretch from which on it is noted where it is, by a thread; 0: it never is."""
    _began: float = 0.0
    _task_began: float = 0.0
    _round_began: float = 0.0
    _in_round: int = 0
    _heaviest: Stretch = field(factory=lambda: Stretch(0.0, ""))
    _where: str = ""

    def after_io_wait(self, timeout: float) -> None:
        self._in_round = 0
        self._heaviest = Stretch(0.0, "")
        self._round_began = time.thread_time()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._where = ""
        self._began = time.perf_counter()
        self._task_began = time.thread_time()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if not self._began:
            return
        seconds = time.thread_time() - self._task_began
        self._began = 0.0
        self._in_round += 1
        stretch = Stretch(seconds, task.name, self._where)
        self._note(self.tasks, stretch)
        self._heaviest = max(self._heaviest, stretch)

    def before_io_wait(self, timeout: float) -> None:
        if self._round_began:
            heaviest = self._heaviest
            whose = f"{self._in_round} tasks, {heaviest.seconds * 1e3:.1f} ms of {heaviest.task}"
            self._note(self.rounds, Stretch(time.thread_time() - self._round_began, whose, heaviest.where))

    def _note(self, stretches: list[Stretch], stretch: Stretch) -> None:
        if len(stretches) < self.kept or stretch.seconds > stretches[-1].seconds:
            stretches.append(stretch)
            stretches.sort(reverse=True)
            del stretches[self.kept :]

    def look(self, thread: int, over: threading.Event) -> None:
        """Note where long stretches are, from another thread."""
        while not over.wait(self.looks_after / 4):
            if self._began and not self._where and time.perf_counter() - self._began > self.looks_after:
                frames = traceback.extract_stack(sys._current_frames()[thread])[-8:]
                places = (f"{one.filename.rpartition('/')[2]}:{one.lineno} {one.name}" for one in frames)
                self._where = " > ".join(places)


@contextmanager
def measured_stretches(looks_after: float = 0.0) -> Iterator[Stretches]:
    """Record what happens meanwhile in this run of Trio."""
    stretches = Stretches(looks_after=looks_after)
    over = threading.Event()
    looker = threading.Thread(target=stretches.look, args=(threading.get_ident(), over), daemon=True)
    if looks_after:
        looker.start()
    trio.lowlevel.add_instrument(stretches)
    try:
        yield stretches
    finally:
        trio.lowlevel.remove_instrument(stretches)
        over.set()
        if looks_after:
            looker.join()
