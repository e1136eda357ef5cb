"""Synchronous work on one build, declared: whose it is, and that it may be interrupted.

What a build says sets off work that nobody else has a turn beside. Should it not end,
`scheduler.runtime.watchdog` sends the loop's thread a signal, and the handler raises `Hung` there, but only
while that very work is under way. It has to be caught at one place for each build, which fails that build,
and no other::

    with interruptible(build):
        plan.begin(vertex)

There is one loop in a process, so there is one `interruptible`. It is for the loop's thread only, and for
work without an ``await``: what is raised must never come out inside Trio.
"""

from types import FrameType

from scheduler.errors import Hung


class Interruptible:
    """The work that is under way; costs 0.25 us each time. It does not nest: the inner one counts."""

    __slots__ = ("build", "number", "struck", "why")

    def __init__(self) -> None:
        self.build = ""
        """The build whose work is under way; empty where none is."""
        self.number = 0
        """Counts the pieces of work."""
        self.struck = 0
        """The number of the piece that is to be interrupted."""
        self.why = ""
        """What the one that is interrupted is told."""

    def __call__(self, build: str) -> "Interruptible":
        """Declare work on ``build``; to be entered at once."""
        self.number += 1
        self.build = build
        return self

    def __enter__(self) -> None:
        """The work begins."""

    def __exit__(self, _type: object, _error: object, _trace: object) -> None:
        self.build = ""

    def strike(self, number: int, why: str) -> None:
        """Have `raise_if_struck` interrupt a piece of work, if that is still under way then."""
        self.why = why
        self.struck = number

    def raise_if_struck(self, _number: int, frame: FrameType | None) -> None:
        """The signal's handler: it runs in the loop's thread, between two steps of the interpreter.

        Raises:
            Hung: the work that is under way is the one to be interrupted.
        """
        # Where it has come to its end, it is left to end.
        ending = frame is not None and frame.f_code is Interruptible.__exit__.__code__
        if self.build and self.struck == self.number and not ending:
            self.struck = 0
            raise Hung(self.why)


interruptible = Interruptible()
"""Of this process's loop."""
