"""Work that may run in a thread beside the loop lets the loop have the interpreter now and then.

It is the same code that runs on the loop for what is small, and there it must not wait. So it says where it
could wait (`breathe`), and who runs it in a thread says what happens there (`breathing`).
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Breath = Callable[[], object]
"""Called very often; waits now and then, with nothing of the work held."""


def _none() -> None:
    """On the loop nobody waits."""


class _Here(threading.local):
    breath: Breath = staticmethod(_none)


_here = _Here()


def breathe() -> None:
    """Let others have the interpreter, where that is due.

    To be called in every loop over what came from outside, about once in 50 us: it costs a tenth of one. In a
    thread it may wait for some milliseconds; so no lock may be held that the loop takes.
    """
    _here.breath()


def current() -> Breath:
    """What `breathe` calls in this thread."""
    return _here.breath


@contextmanager
def breathing(breath: Breath) -> Iterator[None]:
    """Within this, and in this thread, `breathe` calls ``breath``."""
    before = _here.breath
    _here.breath = breath
    try:
        yield
    finally:
        _here.breath = before
