"""Watchdog: a thread that watches the loop and receives the signals that end the process.

*Hangs.* Work on a build that blocks the loop for 5 s (`scheduler.runtime.interruptible`) is named in the log
and interrupted, which fails that build. If this does not end it within another 5 s, the build is recorded as
one that hung a process, and the process ends: the next process continues without that build.

*Signals.* The interpreter runs a signal's handler in the main thread, between two of its steps, and so never
while that thread is stuck. But it writes the signal's number to a file descriptor at once. This thread reads
it and tells the loop. At the second signal the process ends within a second, whatever the loop does.

*C code that does not release the interpreter* also stops this thread. If that code checks for signals, as
regular expressions do, a timer of the kernel makes it release the interpreter to this thread. Otherwise the
kernel ends the process, and only the place is logged. Both timers count the processor time used without a
turn of this thread: a process that is stopped and continued later uses none.
"""

import contextlib
import ctypes
import faulthandler
import math
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, Self

import structlog
import trio

from scheduler.runtime.interruptible import Interruptible, interruptible

_log = structlog.get_logger()

EXIT_HUNG: Final = 70
"""Exit code of a process whose loop hung: the "internal software error" of sysexits.h."""
INTERRUPT_AFTER: Final = 5.0
"""Seconds for which work on one build may block the loop before it is interrupted."""
END_AFTER: Final = 10.0
"""Seconds of such work after which the process ends, if the interruption did not help."""
SILENT_AFTER: Final = 15.0
"""Seconds without a turn of the loop after which the process stops announcing its presence."""
END_LOOP_AFTER: Final = 60.0
"""Seconds without a turn of the loop, for any reason, after which the process ends."""
END_CPU_AFTER: Final = 15.0
"""Processor time without a turn of the watchdog after which the kernel ends the process, in seconds."""
_HARD_EXIT_AFTER = 0.5
"""Seconds from the second signal until the process ends, whatever it is doing; returning a gigabyte takes the
kernel a few tenths more."""
_BEAT = 0.5
"""Seconds between two signs of life of the loop."""
_PERIOD = 1.0
"""Seconds between two checks of the loop."""
_SAYING = 0.5
"""Seconds to log a line: without a reader, writing may never end."""

_LAST_SAYING = 0.05
"""Seconds to log the last line, after the second signal."""
_RECORDING = 4.0
"""Seconds to record a build that hung the process."""
_SHOWN = 6
"""Number of the innermost functions of the loop's thread that are named in the log."""

_STOPPING = (signal.SIGTERM, signal.SIGINT)
_INTERRUPT = signal.SIGURG
"""Signal that no one else sends and the kernel ignores by default, so that a late one does no harm."""
_GIVE_WAY = signal.SIGVTALRM
_LAST_RESORT = signal.SIGPROF
_GIVE_WAY_AFTER = 1.5
"""Processor time without a turn of the watchdog after which it gets one, in seconds."""
_GIVE_WAY_PERIOD = 0.05
_WAY = 0.005
"""Seconds for which the loop's thread then releases the interpreter."""


class Watchdog:
    """Watchdog of the loop in which it is entered, which runs in the main thread.

    Args:
        work: the current work on the loop.
    """

    def __init__(self, work: Interruptible = interruptible) -> None:
        self.still = 0.0
        """Seconds without a turn of the loop, as far as this thread was running."""
        self._record: Callable[[str], object] = lambda _: None
        """Callback of `recording`."""
        self._work = work
        self._turns = 0
        self._turns_seen = 0
        self._work_seen = 0
        self._held = 0.0
        """Seconds for which the current piece of work has blocked the loop."""
        self._interrupted = 0
        """Number of the piece of work that was interrupted last."""
        self._since = 0.0
        """Value of `_held` at the first interruption of that piece, in seconds."""
        self._last = 0.0
        """Value of `_held` at its last interruption, in seconds."""
        self._said = False
        """Whether it was logged that the loop does not turn."""
        self._signals, self._signalled = trio.open_memory_channel[int](2)
        self._received = 0
        self._code = 0
        self._exit_at = math.inf
        self._closed = False
        self._timers = threading.Lock()
        self._timed = True
        """Whether the timers run that end a process without a turn of this thread."""
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def __enter__(self) -> Self:
        self._token = trio.lowlevel.current_trio_token()
        self._loop_thread = threading.get_ident()
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        # Trio's descriptor is restored at the end; until then signals reach Trio only through this thread.
        self._trio_fd = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._handlers: dict[signal.Signals, Any] = {
            number: signal.signal(number, _give_way) for number in (*_STOPPING, _GIVE_WAY)
        }
        self._handlers[_INTERRUPT] = signal.signal(_INTERRUPT, self._work.handle_signal)
        _arm_last_resort()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if math.isinf(self._exit_at):
            # Otherwise the thread stays, and makes sure that the process ends.
            self._closed = True
            self._writer.send(b"\0")
            self._thread.join(_SAYING)
        with self._timers:
            # Before the handlers are removed: without them, the signal of a timer would end the process.
            self._timed = False
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            signal.setitimer(signal.ITIMER_PROF, 0)
        _disarm_last_resort()
        for number, handler in self._handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.set_wakeup_fd(self._trio_fd)
        if not self._thread.is_alive():
            self._reader.close()
            self._writer.close()

    async def beat(self) -> None:
        """Show that the loop turns; never returns."""
        while True:
            self._turns += 1
            await trio.sleep(_BEAT)

    def is_silent(self) -> bool:
        """Tell whether the loop has not turned for so long that it counts as gone; from any thread."""
        return self.still >= SILENT_AFTER

    @contextmanager
    def recording(self, record: Callable[[str], object]) -> Iterator[None]:
        """Record a build that hung the process with this callback, until the context is left.

        Args:
            record: records a build; called in another thread.
        """
        before, self._record = self._record, record
        try:
            yield
        finally:
            self._record = before

    def signals(self) -> AsyncIterator[int]:
        """Return the numbers of SIGTERM and SIGINT as they arrive."""
        return self._signalled

    def _run(self) -> None:
        while not self._closed:
            try:
                self._watch()
            except Exception as error:  # noqa: BLE001 - without this thread no signal has any effect
                _say(_log.error, "internal error: the watchdog failed", exc_info=error)
                time.sleep(_PERIOD)

    def _watch(self) -> None:
        began = time.monotonic()
        for number in self._heard(min(_PERIOD, self._exit_at - began)):
            if number in _STOPPING:
                self._take(number)
        now = time.monotonic()
        if now >= self._exit_at:
            _say(_log.warning, "the loop has not ended, and the process does", within=_LAST_SAYING)
            os._exit(self._code)
        # If this thread was not running either, since the process was stopped, nothing is known.
        self._look(min(now - began, 2 * _PERIOD))

    def _heard(self, timeout: float) -> bytes:
        soon = math.isfinite(self._exit_at)
        with self._timers:
            if self._timed:
                give_way_after = _GIVE_WAY_PERIOD if soon else _GIVE_WAY_AFTER
                signal.setitimer(signal.ITIMER_VIRTUAL, give_way_after, _GIVE_WAY_PERIOD)
                signal.setitimer(signal.ITIMER_PROF, END_CPU_AFTER)
        self._reader.settimeout(max(0.001, timeout))
        try:
            return self._reader.recv(1_024)
        except TimeoutError:
            return b""

    def _take(self, number: int) -> None:
        self._received += 1
        if self._received == 2:
            self._code = 128 + number
            self._exit_at = time.monotonic() + _HARD_EXIT_AFTER
        if self._received > 2:
            return
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._signals.send_nowait, number)

    def _look(self, seconds: float) -> None:
        """Check the loop, ``seconds`` after the last check."""
        turns, number, build = self._turns, self._work.number, self._work.build
        turned, self._turns_seen = turns != self._turns_seen, turns
        same, self._work_seen = bool(build) and number == self._work_seen, number
        if turned and self._said:
            _say(_log.warning, "the loop turns again", seconds=round(self.still))
            self._said = False
        self.still = 0.0 if turned else self.still + seconds
        self._held = self._held + seconds if same and not turned else 0.0
        if self._held >= INTERRUPT_AFTER:
            self._interrupt(number, build)
        elif self.still >= INTERRUPT_AFTER and not self._held and not self._said:
            self._said = True
            _say(_log.error, "the loop does not turn", seconds=round(self.still), where=self._where())
        if self.still >= END_LOOP_AFTER:
            _say(_log.critical, "the loop does not turn, and the process ends", where=self._where())
            os._exit(EXIT_HUNG)

    def _interrupt(self, number: int, build: str) -> None:
        held, where = round(self._held), self._where()
        if self._interrupted != number:
            text = "a build holds the scheduler up: it is interrupted"
            _say(_log.error, text, build=build, seconds=held, where=where)
            self._interrupted, self._since, self._said = number, self._held, True
        elif self._held - self._since >= END_AFTER - INTERRUPT_AFTER:
            text = "a build holds the scheduler up and cannot be interrupted: the process ends"
            _say(_log.critical, text, build=build, seconds=held, where=where)
            _aside(partial(self._record, build), _RECORDING)
            os._exit(EXIT_HUNG)
        elif self._held - self._last < _PERIOD:
            # Signals wake this thread early, but once a second is enough: the work may catch the exception.
            return
        self._last = self._held
        inner = where.partition(" < ")[0]
        self._work.interrupt(
            number, f"it held the scheduler up for {held} s, and was interrupted, in {inner}"
        )
        signal.pthread_kill(self._loop_thread, _INTERRUPT)

    def _where(self) -> str:
        frame = sys._current_frames().get(self._loop_thread)  # noqa: SLF001 - there is no other way
        if frame is not None and frame.f_code is _give_way.__code__:
            frame = frame.f_back
        if frame is None:
            return "an unknown place"
        stack = traceback.StackSummary.extract(traceback.walk_stack(frame), limit=_SHOWN, lookup_lines=False)
        return " < ".join(f"{one.name} ({Path(one.filename).name}:{one.lineno})" for one in stack)


def _give_way(_number: int, _frame: object) -> None:
    """Handle the timer's signal: give the watchdog a turn."""
    time.sleep(_WAY)


def _say(log: Callable[..., Any], event: str, *, within: float = _SAYING, **values: object) -> None:
    """Log a line, or give up after some time."""
    _aside(partial(log, event, **values), within)


def _aside(job: Callable[[], object], seconds: float) -> None:
    """Run a job in its own thread, and wait for it at most so many seconds."""
    thread = threading.Thread(target=job, daemon=True)
    # If no thread can be started, the process ends all the same.
    with contextlib.suppress(RuntimeError):
        thread.start()
        thread.join(seconds)


def _arm_last_resort() -> None:
    """Make the kernel end the process if not even this thread gets a turn, after logging the place.

    The signal's default action would not do: it does not end the first process of a container.
    """
    libc = ctypes.CDLL(None)
    libc.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
    libc.signal.restype = ctypes.c_void_p
    libc.signal(_LAST_RESORT, ctypes.cast(libc["_exit"], ctypes.c_void_p))
    faulthandler.register(_LAST_RESORT, file=2, all_threads=True, chain=True)


def _disarm_last_resort() -> None:
    faulthandler.unregister(_LAST_RESORT)
    signal.signal(_LAST_RESORT, signal.SIG_DFL)
