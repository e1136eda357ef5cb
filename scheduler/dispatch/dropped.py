"""Counts dropped replies, and logs them without letting a flood of them flood the log."""

from collections import Counter

from scheduler.runtime.log_limits import RateLimitedLog

_DROPPED = "reply dropped"


class DroppedReplies:
    """Number of replies that reached no call, by reason.

    Args:
        log: where they are logged.
    """

    def __init__(self, log: RateLimitedLog | None = None) -> None:
        self.counts: Counter[str] = Counter()
        self._log = log or RateLimitedLog()

    def note(self, reason: str) -> None:
        """Count a reply without a line in the log: its like is expected."""
        self.counts[reason] += 1

    def count(self, reason: str, subject: str = "", **context: str) -> None:
        """Count a reply; logged, but not more than once a second."""
        self.counts[reason] += 1
        # In a flood of messages this may be all the work on each of them.
        if not self._log.leaves_out(_DROPPED):
            total = self.counts.total()
            self._log.warning(_DROPPED, reason=reason, subject=subject, dropped_so_far=total, **context)
