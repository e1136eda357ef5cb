"""Yield points of synchronous work, at which a thread beside the loop leaves the interpreter to the loop.

The same code also runs on the loop, for small inputs, and there it must not wait. So the code marks the
points where it could wait (`breathe`), and the thread that runs it sets what happens there (`breathing`).
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Breath = Callable[[], object]
"""Hook of the yield points: called very often, waits from time to time."""


def _none() -> None:
    """Do nothing: on the loop there is no waiting."""


class _Here(threading.local):
    breath: Breath = staticmethod(_none)


_here = _Here()


def breathe() -> None:
    """Leave the interpreter to others if that is due.

    To be called in every loop over outside input, about once in 50 us; a call costs 0.1 us. In a thread it
    may wait for some milliseconds, so the caller must not hold a lock that the loop takes.
    """
    _here.breath()


def current() -> Breath:
    """Return the hook of this thread."""
    return _here.breath


@contextmanager
def breathing(breath: Breath) -> Iterator[None]:
    """Set the hook of this thread while the context lasts."""
    before = _here.breath
    _here.breath = breath
    try:
        yield
    finally:
        _here.breath = before
