"""Durations of requests by subject: recorded while builds run, for priorities and predictions."""

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from scheduler.definition.patterns import FORM, first_match, read_pattern
from scheduler.errors import InvalidRule
from scheduler.text import read_duration, write_duration

Given = Sequence[tuple[str, float]]
"""Pairs of a subject pattern and seconds; the first that matches counts."""

OTHERWISE: Final = 1.0
"""Seconds that a request takes where no duration is known at all."""
_LONGEST: Final = 30 * 86_400.0
"""Seconds that may be given."""
_WEIGHT: Final = 0.2
"""Weight of the newest value: old values fade, and a single odd one changes little."""
_MOST: Final = 10_000
"""Subjects that are remembered; the one unused for longest goes first."""


class Durations:
    """Known durations of requests.

    Args:
        given: durations from a setting; they go before recorded ones.
    """

    def __init__(self, given: Given = ()) -> None:
        self._given = given
        self._recorded: OrderedDict[str, float] = OrderedDict()
        self._sum = 0.0
        self.changed = False
        """Whether anything was recorded since this was last set to False."""

    def __len__(self) -> int:
        return len(self._recorded)

    def record(self, subject: str, seconds: float) -> None:
        """Record that a request took so long."""
        known = self._recorded.pop(subject, None)
        if known is not None:
            self._sum -= known
            seconds = known + _WEIGHT * (seconds - known)
        elif len(self._recorded) >= _MOST:
            self._sum -= self._recorded.popitem(last=False)[1]
        self._recorded[subject] = seconds
        self._sum += seconds
        self.changed = True

    def known(self, subject: str) -> tuple[float, str] | None:
        """Return the seconds of a request, and where from: ``given`` or ``recorded``; None if unknown."""
        given = first_match(self._given, subject, math.nan)
        if not math.isnan(given):
            return given, "given"
        recorded = self._recorded.get(subject)
        return None if recorded is None else (recorded, "recorded")

    def expected(self, subject: str) -> float:
        """Return the seconds that a request will take: where that is unknown, the average of others."""
        known = self.known(subject)
        return self.typical if known is None else known[0]

    @property
    def typical(self) -> float:
        """Seconds that a request takes whose duration is unknown."""
        if self._recorded:
            return max(0.0, self._sum) / len(self._recorded)
        return sum(seconds for _, seconds in self._given) / len(self._given) if self._given else OTHERWISE

    def recorded(self) -> Mapping[str, float]:
        """Recorded seconds by subject."""
        return self._recorded

    def restore(self, document: Any) -> None:
        """Restore the `recorded` of another process; entries of another form are ignored."""
        if isinstance(document, dict):
            for subject, seconds in list(document.items())[-_MOST:]:
                number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
                if number and 0 <= seconds < math.inf and subject not in self._recorded:
                    self.record(subject, float(seconds))
            self.changed = False


def expectation(durations: Durations) -> Callable[[str], float]:
    """`Durations.expected` for many components at a time: each subject is looked up once."""
    found: dict[str, float] = {}

    def expected(subject: str) -> float:
        seconds = found.get(subject)
        if seconds is None:
            seconds = found[subject] = durations.expected(subject)
        return seconds

    return expected


def parse_durations(text: str) -> tuple[tuple[str, float], ...]:
    """Parse ``vpc.create.*=2m30s, *=5`` into pairs of a pattern and seconds.

    Raises:
        InvalidRule: a part of it is not of this form; the message begins with that part.
    """
    pairs = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        pattern, equals, number = (piece.strip() for piece in part.partition("="))
        try:
            seconds = read_duration(number)
        except ValueError:
            equals = ""
        if not equals:
            raise InvalidRule(
                f"{part[:80]!r} is not of the form PATTERN=DURATION, such as vpc.create.*=2m30s"
            )
        read = read_pattern(pattern)
        if read is None:
            raise InvalidRule(f"{part[:80]!r} has a pattern that {FORM}")
        if not 0.0 <= seconds <= _LONGEST:
            raise InvalidRule(
                f"{part[:80]!r} has a duration that is not from 0s to {write_duration(_LONGEST)}"
            )
        pairs.append((read, seconds))
    return tuple(pairs)
