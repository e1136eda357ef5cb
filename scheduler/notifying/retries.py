"""Retries of notifications: what an answer means, and how long to wait before the next try."""

from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import Enum, auto
from typing import Final

TRIES: Final = 10
"""Tries of one notification, the first included."""
_FIRST_PAUSE: Final = 7.0
"""Longest pause before the second try, in seconds; each one after that is twice as long: an hour in all."""
_JITTER: Final = 0.5
"""Largest share by which a pause is shorter, so that senders do not come back together."""
_LONGEST_REQUEST: Final = 900.0
"""Longest pause that a receiver may ask for, in seconds."""
_GONE: Final = 410
_BUSY: Final = frozenset({408, 425, 429})
"""Refusals that pass."""


class Verdict(Enum):
    """Meaning of an answer."""

    DELIVERED = auto()
    AGAIN = auto()
    """Another try may succeed."""
    REFUSED = auto()
    """No other try would."""
    GONE = auto()
    """Nothing more is to be sent to this URL."""


def verdict_of(status: int) -> Verdict:
    """Return the meaning of a status; a redirect is not followed, and so a refusal."""
    if 200 <= status < 300:
        return Verdict.DELIVERED
    if status == _GONE:
        return Verdict.GONE
    return Verdict.AGAIN if status >= 500 or status in _BUSY else Verdict.REFUSED


def pause_after(tries: int, luck: float, asked: float | None = None) -> float | None:
    """Return the seconds before the next try; None where there is none.

    Args:
        tries: tries so far.
        luck: random number from 0 to 1.
        asked: seconds that the receiver asks for.
    """
    if tries >= TRIES:
        return None
    pause = _FIRST_PAUSE * 2.0 ** (tries - 1) * (1.0 - _JITTER * luck)
    return pause if asked is None else max(pause, asked)


def read_retry_after(text: str, now: float) -> float | None:
    """Read the header ``Retry-After``: seconds, or a date.

    Args:
        text: the header.
        now: the time, seconds since 1970.

    Returns:
        The seconds, at most 15 minutes; None where it says nothing that can be read.
    """
    text = text.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), _LONGEST_REQUEST)
    try:
        date = parsedate_to_datetime(text)
        until = (date if date.tzinfo is not None else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
    return min(max(0.0, until - now), _LONGEST_REQUEST)
