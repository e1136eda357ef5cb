"""The scheduler, with a look at how long its loop is held at a stretch.

``python -m benchmarks.hostile.watched FILE ...`` is the scheduler in every other respect. Each stretch that
is longer than the ones before, and than `SHORT`, becomes a line of JSON in the file: seconds of CPU time,
which no other process on the machine makes longer, the task, and where it was when it was looked at.
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
"""Seconds that are no matter."""
_LOOK = 0.005
"""Seconds between two looks at what the loop does."""
_FRAMES = 24
"""Calls that are told, the innermost first."""


class Watch(trio.abc.Instrument):
    """Takes the time of each step of a task.

    Args:
        file: where it is told.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._longest = SHORT
        self._began = 0.0
        self._since = 0.0
        """When the step began, by the clock on the wall; 0: there is none."""
        self._seen: list[str] = []
        self._thread = threading.main_thread().ident or 0

    def before_run(self) -> None:
        """Begin to look."""
        threading.Thread(target=self._look, daemon=True, name="watch").start()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002 - the port's
        """A step begins."""
        self._began = time.thread_time()
        self._since = time.monotonic()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """A step is over."""
        seconds = time.thread_time() - self._began
        self._since = 0.0
        if seconds > self._longest:
            self._longest = seconds
            seen = {"seconds": seconds, "task": task.name, "at": self._seen}
            with self._file.open("a") as file:
                file.write(f"{json.dumps(seen)}\n")
        if self._seen:
            self._seen = []

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
        return run(*args, instruments=[*instruments, Watch(file)], **kwargs)

    trio.run = watched  # type: ignore[assignment]
    sys.argv = ["scheduler", *arguments]
    sys.exit(cli.main())


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
