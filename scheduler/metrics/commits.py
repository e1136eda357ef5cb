"""Tally of commits: how long they take, how large they are, and what goes wrong."""

from typing import Any, Final

from scheduler.metrics.histogram import Histogram

SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0)
"""Bounds of durations of commits, in seconds."""
BYTES: Final = (1_024.0, 4_096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0)
"""Bounds of sizes of records, in bytes."""


class CommitTally:
    """Tally of the commits of all builds of this process.

    A record is one of a log in JetStream, or a change that an Ernest store is asked for.
    """

    __slots__ = ("conflicts", "retries", "seconds", "sizes")

    def __init__(self) -> None:
        self.seconds = Histogram(SECONDS)
        """Seconds from when a record was made until it was known to be stored."""
        self.sizes = Histogram(BYTES)
        """Bytes of the records."""
        self.retries = 0
        """Attempts to store a record that had no answer, or a refusal that passes."""
        self.conflicts = 0
        """Records that were refused, because another process had written; an Ernest store refuses none."""

    def note(self, seconds: float, size: int) -> None:
        """Count a record that is stored."""
        self.seconds.note(seconds)
        self.sizes.note(size)

    def document(self) -> dict[str, Any]:
        """Return the numbers as members of a JSON document; quantiles are upper bounds, in seconds."""
        seconds = self.seconds.copy()
        count = seconds.total
        return {
            "count": count,
            "retries": self.retries,
            "conflicts": self.conflicts,
            "mean": round(seconds.sum / count, 6) if count else None,
            "p50": seconds.quantile(0.5),
            "p99": seconds.quantile(0.99),
        }
