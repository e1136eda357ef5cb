"""Yield points of synchronous work, at which a thread beside the loop leaves the interpreter to the loop.

The same code also runs on the loop, for small inputs, and there it must not wait. So the code marks the
points where it could wait (`yield_now`), and the thread that runs it sets what happens there (`yielding`).
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

YieldHook = Callable[[], object]
"""Hook of the yield points: called very often, waits from time to time."""


def _none() -> None:
    """Do nothing: on the loop there is no waiting."""


class _Here(threading.local):
    hook: YieldHook = staticmethod(_none)


_here = _Here()


def yield_now() -> None:
    """Leave the interpreter to others if that is due.

    To be called in every loop over outside input, about once in 50 us; a call costs 0.1 us. In a thread it
    may wait for some milliseconds, so the caller must not hold a lock that the loop takes.
    """
    _here.hook()


def current() -> YieldHook:
    """Return the hook of this thread."""
    return _here.hook


@contextmanager
def yielding(hook: YieldHook) -> Iterator[None]:
    """Set the hook of this thread while the context lasts."""
    before = _here.hook
    _here.hook = hook
    try:
        yield
    finally:
        _here.hook = before
