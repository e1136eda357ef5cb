"""How long Trio's tasks keep the loop to themselves: by CPU time, so that a busy machine tells no lies."""

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
    """A task ran for so long without anybody else having a turn."""

    seconds: float
    """Of CPU time of the loop's thread."""
    task: str
    where: str = ""
    """Where it was after `Stretches.looks_after`; empty where nobody looked."""


@define(eq=False)
class Stretches(trio.abc.Instrument):
    """Records the longest stretches between two turns of a Trio run."""

    longest: list[Stretch] = field(factory=list)
    """The longest first."""
    kept: int = 10
    looks_after: float = 0.0
    """Seconds into a stretch from which on it is noted where it is, by a thread; 0: it never is."""
    _began: float = 0.0
    _cpu: float = 0.0
    _where: str = ""

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._where = ""
        self._began = time.perf_counter()
        self._cpu = time.thread_time()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        seconds = time.thread_time() - self._cpu
        self._began = 0.0
        if len(self.longest) < self.kept or seconds > self.longest[-1].seconds:
            self.longest.append(Stretch(seconds, task.name, self._where))
            self.longest.sort(reverse=True)
            del self.longest[self.kept :]

    @property
    def most(self) -> Stretch:
        """The longest."""
        return self.longest[0]

    def look(self, thread: int, over: threading.Event) -> None:
        """Note where long stretches are, from another thread."""
        while not over.wait(self.looks_after / 4):
            if self._began and not self._where and time.perf_counter() - self._began > self.looks_after:
                frames = traceback.extract_stack(sys._current_frames()[thread])[-8:]
                places = (
                    f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in frames
                )
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
