"""Attempts: how often each component of a build was tried, and whether it is tried again."""

from attrs import frozen

from scheduler.definition.graph import Vertex
from scheduler.definition.rules import Retries, Retry, retry_for
from scheduler.plan.outcome import Outcome


@frozen
class Again:
    """Decision for another attempt."""

    pause: float
    """Seconds until the next attempt."""


class RetryRules(dict[str, Retry]):
    """Retry rules of the changes of one build that have none of their own, by subject; found once for each.

    Args:
        own: rule of the build.
        retries: the operator's rules, used where the build has none.
    """

    __slots__ = ("_own", "_retries")

    def __init__(self, own: Retry | None, retries: Retries) -> None:
        super().__init__()
        self._own = own
        self._retries = retries

    def __missing__(self, subject: str) -> Retry:
        rule = self[subject] = self._own or retry_for(self._retries, subject)
        return rule


class AttemptCounts:
    """Counts the attempts of one build. Nearly all components need one, and take no memory here."""

    def __init__(self) -> None:
        self._failed: dict[Vertex, int] = {}
        self._forgiven: dict[Vertex, int] = {}

    def failed(self, vertex: Vertex) -> int:
        """Return the number of failed attempts."""
        return self._failed.get(vertex, 0)

    def is_between(self, vertex: Vertex) -> bool:
        """Whether an attempt has failed since the change was first sent, or an operator retried it."""
        return self.failed(vertex) > self._forgiven.get(vertex, 0)

    def start_at(self, vertex: Vertex, failed: int) -> None:
        """Set the number of attempts that failed before this process."""
        if failed:
            self._failed[vertex] = max(failed, self.failed(vertex))

    def forgive(self, vertex: Vertex) -> None:
        """Give a change all its attempts again, for an operator's retry. Their numbers continue."""
        self._forgiven[vertex] = self.failed(vertex)

    def fail(self, vertex: Vertex) -> None:
        """Count a failed attempt."""
        self._failed[vertex] = self.failed(vertex) + 1

    def again(
        self, vertex: Vertex, rule: Retry, outcome: Outcome, luck: float, elapsed: float
    ) -> Again | str:
        """Decide whether another attempt follows one that has just failed, and is not counted yet.

        Args:
            vertex: the component.
            rule: its retry rule.
            outcome: outcome of the failed attempt.
            luck: random number from 0 to 1.
            elapsed: seconds since the first attempt.

        Returns:
            The pause; or the reason against another attempt, as text to append to the error: empty where none
            was to be expected.
        """
        tried = self.failed(vertex) + 1 - self._forgiven.get(vertex, 0)
        if rule.attempts == 1:
            return ""
        if not outcome.retryable:
            return "" if tried == 1 else f" (attempt {tried} of {rule.attempts}; not retryable)"
        if tried >= rule.attempts:
            return f" (after {tried} attempts)"
        pause = max(rule.pause(tried, luck), outcome.retry_after or 0.0)
        if rule.total is not None and elapsed + pause >= rule.total:
            return f" (after {tried} of {rule.attempts} attempts: total_timeout of {rule.total:g} s)"
        return Again(pause)
