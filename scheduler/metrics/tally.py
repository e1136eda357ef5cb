"""Tally of components: what became of them, by type, action and provider.

Types and providers come from builds, and so may be as many as somebody likes. A metric has at most `SERIES`
series: what comes when that many are there is counted as `OTHER`. So is a type or provider that a reference
supplies, and one that could be part of no request.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from scheduler.metrics.histogram import Counted, Histogram

SERIES: Final = 500
"""Most series of a metric."""
OTHER: Final = "other"
OUTCOMES: Final = ("completed", "errored", "skipped")
SECONDS: Final = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1_800.0, 7_200.0)
"""Bounds of durations and waits of components, in seconds."""
_KINDS: Final = SERIES // len(OUTCOMES) - 1
_PAIRS: Final = SERIES // (len(SECONDS) + 3) - 1
"""A histogram has a series for each bound, for infinity, the sum and the count."""
_REMEMBERED: Final = 1_024
"""Subjects that are remembered."""
_LONGEST: Final = 64
"""Characters of a label; a longer one could be part of no request."""
_WORDS: Final = 3
"""Words of a subject: type, action and provider."""

Kind = tuple[str, str, str]
"""Type, action and provider."""
Pair = tuple[str, str]
"""Type and provider."""


class Counts:
    """Numbers of one kind of component."""

    __slots__ = ("attempts", "completed", "errored", "retries", "skipped")

    def __init__(self) -> None:
        self.completed = self.errored = self.skipped = 0
        self.attempts = 0
        """Requests that were handed to the bus."""
        self.retries = 0
        """Attempts that failed and are followed by another one."""


class Meter:
    """Place where what happens to the components of one subject is counted.

    Args:
        counts: numbers of their kind.
        durations: seconds that attempts took.
        waits: seconds from when a component was due until its request left.
    """

    __slots__ = ("counts", "durations", "waits")

    def __init__(self, counts: Counts, durations: Histogram, waits: Histogram) -> None:
        self.counts = counts
        self.durations = durations
        self.waits = waits

    def sent(self, waited: float | None) -> None:
        """Count an attempt that begins; ``waited`` seconds after it was due, where that is known."""
        self.counts.attempts += 1
        if waited is not None:
            self.waits.note(waited)

    def retries(self, seconds: float | None) -> None:
        """Count an attempt that failed after so many seconds, and is followed by another one."""
        self.counts.retries += 1
        if seconds is not None:
            self.durations.note(seconds)

    def settled(self, seconds: float | None, *, completed: bool) -> None:
        """Count an outcome; ``seconds``: of the last attempt, where there was one and that is known."""
        if completed:
            self.counts.completed += 1
        else:
            self.counts.errored += 1
        if seconds is not None:
            self.durations.note(seconds)


class Tallied(NamedTuple):
    """Content of a tally at one moment."""

    kinds: dict[Kind, tuple[int, int, int, int, int]]
    """Completed, errored, skipped, attempts and retries, by kind."""
    pairs: dict[Pair, tuple[Counted, Counted]]
    """Durations and waits, by type and provider."""


class Tally:
    """Tally of all components of this process."""

    def __init__(self) -> None:
        self._meters: dict[str, Meter] = {}
        self._kinds: dict[Kind, Counts] = {}
        self._pairs: dict[Pair, tuple[Histogram, Histogram]] = {}

    def of(self, subject: str) -> Meter:
        """Return the meter for components of a request subject."""
        meter = self._meters.get(subject)
        if meter is None:
            if len(self._meters) >= _REMEMBERED:
                self._meters.clear()
            meter = self._meters[subject] = self._make(subject)
        return meter

    def skipped(self, subjects: Iterable[str]) -> None:
        """Count components that will not be sent, because one before them failed."""
        for subject in subjects:
            self.of(subject).counts.skipped += 1

    def copy(self) -> Tallied:
        """Return what was counted so far."""
        return Tallied(
            {
                kind: (one.completed, one.errored, one.skipped, one.attempts, one.retries)
                for kind, one in self._kinds.items()
            },
            {pair: (durations.copy(), waits.copy()) for pair, (durations, waits) in self._pairs.items()},
        )

    def _make(self, subject: str) -> Meter:
        words = [_label(word) for word in subject.split(".")]
        # A reference in it may have any text.
        type_, action, provider = words if len(words) == _WORDS else (OTHER, OTHER, OTHER)
        kind = (type_, action, provider)
        if kind not in self._kinds and len(self._kinds) >= _KINDS:
            kind = (OTHER, OTHER, OTHER)
        counts = self._kinds.setdefault(kind, Counts())
        pair = (type_, provider)
        if pair not in self._pairs and len(self._pairs) >= _PAIRS:
            pair = (OTHER, OTHER)
        durations, waits = self._pairs.setdefault(pair, (Histogram(SECONDS), Histogram(SECONDS)))
        return Meter(counts, durations, waits)


def _label(word: str) -> str:
    """Return a word of a subject as a label."""
    plain = word.replace("-", "_").replace("_", "a")
    return word if plain.isascii() and plain.isalnum() and len(word) <= _LONGEST else OTHER
