"""Runs the scheduler, and measures how long its loop is held at a stretch.

``python -m benchmarks.hostile.watched FILE ...`` is the scheduler in every other respect. Each stretch
longer than `SHORT` becomes a line of JSON in the file: seconds of CPU time, which no other process on the
machine makes longer, the task, and where it was when it was looked at. So does each round: all that can run
has a turn, and what comes in meanwhile waits for its end.
"""

import functools
import json
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import trio

from scheduler import cli

SHORT = 0.01
"""Seconds of CPU time of a stretch that does nobody any harm."""
_LONG = 0.05
"""The same where the thread did not run all the time: another one, or another process, did."""
_LOOK = 0.005
"""Seconds between two looks at what the loop does."""
_FRAMES = 24
"""Calls that are told, the innermost first."""


class Watch(trio.abc.Instrument):
    """Takes the time of each step of a task, and of each round of them.

    Args:
        file: where it is told.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._round_began = 0.0
        """CPU time of the thread."""
        self._round_since = 0.0
        self._steps = 0
        self._since = 0.0
        """When the step began, by the clock on the wall; 0: there is none."""
        self._longest = 0.0
        """Seconds of the longest step of the round; its CPU time is at most the round's."""
        self._whose = ""
        self._where: list[str] = []
        self._seen: list[str] = []
        self._thread = threading.main_thread().ident or 0

    def before_run(self) -> None:
        """Begin to look."""
        threading.Thread(target=self._look, daemon=True, name="watch").start()

    def after_io_wait(self, timeout: float) -> None:  # noqa: ARG002 - the port's
        """A round begins."""
        self._round_began, self._round_since = time.thread_time(), time.monotonic()
        self._steps, self._longest = 0, 0.0

    def before_io_wait(self, timeout: float) -> None:  # noqa: ARG002 - the port's
        """A round is over."""
        if self._round_began:
            seconds, taken = time.thread_time() - self._round_began, time.monotonic() - self._round_since
            if seconds > SHORT or taken > _LONG:
                self._note("round", seconds, taken, f"{self._steps:,} steps", [])
                self._note("step", min(seconds, self._longest), self._longest, self._whose, self._where)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002 - the port's
        """A step begins."""
        self._since = time.monotonic()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """A step is over."""
        taken = time.monotonic() - self._since
        self._since = 0.0
        self._steps += 1
        if taken > self._longest:
            self._longest, self._whose, self._where = taken, task.name, self._seen
        if self._seen:
            self._seen = []

    def _note(self, kind: str, seconds: float, taken: float, what: str, where: list[str]) -> None:
        if seconds > SHORT or taken > _LONG:
            times = {"ended": time.perf_counter(), "seconds": seconds, "taken": taken}
            with self._file.open("a") as file:
                file.write(f"{json.dumps({'kind': kind, 'what': what, 'at': where, **times})}\n")

    def _look(self) -> None:
        while True:
            time.sleep(_LOOK)
            since = self._since
            if since and not self._seen and time.monotonic() - since > 2 * SHORT:
                frame = sys._current_frames().get(self._thread)  # noqa: SLF001 - the only way to see it
                if since == self._since:
                    self._seen = _told(frame)


def _told(frame: FrameType | None) -> list[str]:
    calls: list[str] = []
    while frame is not None and len(calls) < _FRAMES:
        code = frame.f_code
        _, ours, rest = code.co_filename.rpartition("/scheduler/")
        place = f"scheduler/{rest}" if ours else Path(code.co_filename).name
        calls.append(f"{place}:{frame.f_lineno} {code.co_name}")
        frame = frame.f_back
    return calls


def main(file: Path, *arguments: str) -> None:
    """Run the scheduler with these arguments."""
    run = trio.run

    @functools.wraps(run)
    def watched(*args: Any, instruments: Any = (), **kwargs: Any) -> Any:
        # Other threads may have a loop of their own.
        mine = [Watch(file)] if threading.current_thread() is threading.main_thread() else []
        return run(*args, instruments=[*instruments, *mine], **kwargs)

    trio.run = watched  # type: ignore[assignment]
    sys.argv = ["scheduler", *arguments]
    sys.exit(cli.main())


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
