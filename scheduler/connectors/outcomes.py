"""The end of one call of a handler, and the exceptions by which a handler decides it."""

import math
import traceback
from typing import Any, Final

from attrs import field, frozen

from scheduler.definition.limits import DEFAULT_LIMITS
from scheduler.text import CUT

LONGEST_ERROR: Final = DEFAULT_LIMITS.max_error_bytes
"""Bytes of an error's text in a reply."""
_LONGEST_PAUSE: Final = 86_400.0
"""Longest pause that a connector may ask for, in seconds."""
_LONGEST_TRACEBACK: Final = 4_000
"""Characters of a traceback that are kept; its end says the most."""


class Retry(Exception):
    """Raised by a handler that wants to be asked again; the scheduler's rules say whether it is.

    Args:
        message: error text of this attempt.
        after: seconds before which another attempt is useless, at most a day; None: the rules decide.
    """

    def __init__(self, message: str = "", *, after: float | None = None) -> None:
        super().__init__(message or "the connector asks for another attempt")
        # Beyond that the scheduler would not heed it.
        self.after = None if after is None or math.isnan(after) else min(max(after, 0.0), _LONGEST_PAUSE)


class Permanent(Exception):
    """Raised by a handler where another attempt is useless: a quota, an invalid field."""


class Rejected(Permanent):
    """A request that the kit refuses, or a result that it cannot send; the message has the place."""


@frozen
class Outcome:
    """The end of a call; of one that failed where ``error`` is not None."""

    result: Any = field(default=None, repr=False)
    """Value that the handler returned."""
    error: str | None = None
    retryable: bool | None = None
    """Whether another attempt may succeed; None leaves that to the scheduler's rules."""
    retry_after: float | None = None
    """Seconds before which another attempt is useless."""
    traceback: str = field(default="", repr=False)
    """Text of the traceback, for the log; empty for what a handler raised on purpose."""
    interrupted: bool = False
    """Whether it ended because the connector stops: it may have acted, and left no answer."""


def cancelled(reason: str) -> Outcome:
    """Return the end of a call that was cancelled."""
    return Outcome(error=f"cancelled: {reason}", retryable=False)


def busy(why: str, after: float) -> Outcome:
    """Return the end of a request that is not taken now."""
    return Outcome(error=why, retryable=True, retry_after=after)


def timed_out(name: str, seconds: float) -> Outcome:
    """Return the end of a call that took too long."""
    return Outcome(error=f"{name} has not returned within {seconds:g} s")


def failed(error: BaseException, hint: str = "") -> Outcome:
    """Return the end of a call that raised; keeps no reference to the exception.

    Args:
        error: the exception.
        hint: what is probably wrong with the handler, and the cure.
    """
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        # A nursery of the handler's own has put it there.
        error = error.exceptions[0]
    if isinstance(error, Retry):
        return Outcome(error=_cut(str(error)), retryable=True, retry_after=error.after)
    if isinstance(error, Permanent):
        return Outcome(error=_cut(str(error) or "Permanent"), retryable=False)
    name, text = type(error).__name__, _text(error)
    said = f"{name}: {text}" if text else name
    said = f"{hint} ({said})" if hint else said
    return Outcome(error=_cut(said), traceback=_end_of("".join(traceback.format_exception(error))))


def _end_of(text: str) -> str:
    """Return the last lines of a traceback; whole ones, since half a secret would not be masked."""
    return text if len(text) <= _LONGEST_TRACEBACK else text[-_LONGEST_TRACEBACK:].partition("\n")[2]


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as another:  # noqa: BLE001 - the exception is somebody else's
        return f"its text cannot be had: {type(another).__name__}"


def _cut(text: str) -> str:
    """Return a text that JSON can carry, cut with a mark where it is too long."""
    data = text.encode(errors="replace")
    if len(data) <= LONGEST_ERROR:
        return data.decode()
    mark = f"{CUT}{len(data)} bytes)"
    return data[: LONGEST_ERROR - len(mark)].decode(errors="ignore") + mark
