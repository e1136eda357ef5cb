"""Declares synchronous work on one build, so that it can be interrupted.

A build's content starts work during which no other task runs. If that does not end,
`scheduler.runtime.watchdog` sends the loop's thread a signal, and the handler raises `Hung` there, but only
while that very work is running. `Hung` has to be caught at one place for each build, which fails that build
and no other::

    with interruptible(build):
        ...

or, where it is one call, and one for each component: ``interruptible.call(build, plan.begin, vertex)``.

A process has one loop, so there is one `interruptible`. It is for the loop's thread only, and for work
without ``await``: the exception must never be raised inside Trio.
"""

from collections.abc import Callable
from types import FrameType
from typing import Final, TypeVar, TypeVarTuple, Unpack

from scheduler.errors import Hung

_Ts = TypeVarTuple("_Ts")
_T = TypeVar("_T")


class Interruptible:
    """Current work; entering it costs 0.25 us. It does not nest: the inner one counts."""

    __slots__ = ("build", "interrupted", "number", "why")

    def __init__(self) -> None:
        self.build = ""
        """Id of the build whose work is running; empty if none is."""
        self.number = 0
        """Number of the current piece of work."""
        self.interrupted = 0
        """Number of the piece to be interrupted."""
        self.why = ""
        """Message of the interruption."""

    def __call__(self, build: str) -> "Interruptible":
        """Declare work on ``build``; to be entered at once."""
        self.number += 1
        self.build = build
        return self

    def __enter__(self) -> None:
        """Begin the work."""

    def __exit__(self, _type: object, _error: object, _trace: object) -> None:
        self.build = ""

    def call(self, build: str, work: Callable[[Unpack[_Ts]], _T], *args: *_Ts) -> _T:
        """Call ``work`` on ``build``, and return what it returns."""
        self.number += 1
        self.build = build
        try:
            return work(*args)
        finally:
            self.build = ""

    def interrupt(self, number: int, why: str) -> None:
        """Make `handle_signal` interrupt a piece of work, if it is still running then."""
        self.why = why
        self.interrupted = number

    def handle_signal(self, _number: int, frame: FrameType | None) -> None:
        """Handle the signal; called in the loop's thread, between two steps of the interpreter.

        Raises:
            Hung: the current work is the piece to be interrupted.
        """
        # Work that is just ending is left alone.
        ending = frame is not None and frame.f_code in _ENDS
        if self.build and self.interrupted == self.number and not ending:
            self.interrupted = 0
            raise Hung(self.why)


_ENDS: Final = (Interruptible.__exit__.__code__, Interruptible.call.__code__)
interruptible = Interruptible()
"""Current work on the loop of this process."""
