"""How often each component of a build was tried, and whether it is tried again."""

from attrs import frozen

from scheduler.definition.graph import Vertex
from scheduler.definition.rules import Retry
from scheduler.plan.outcome import Outcome


@frozen
class Again:
    """There will be another attempt."""

    pause: float
    """Seconds until then."""


class AttemptCounts:
    """The attempts of one build. Nearly all components have one, and nothing is kept of those."""

    def __init__(self) -> None:
        self._failed: dict[Vertex, int] = {}
        self._forgiven: dict[Vertex, int] = {}

    def failed(self, vertex: Vertex) -> int:
        """How many attempts have failed."""
        return self._failed.get(vertex, 0)

    def is_between(self, vertex: Vertex) -> bool:
        """Whether one has failed since an operator had it sent (again)."""
        return self.failed(vertex) > self._forgiven.get(vertex, 0)

    def start_at(self, vertex: Vertex, failed: int) -> None:
        """So many attempts had failed before this process."""
        if failed:
            self._failed[vertex] = max(failed, self.failed(vertex))

    def forgive(self, vertex: Vertex) -> None:
        """An operator has it sent again: it has all its attempts again; their numbers continue."""
        self._forgiven[vertex] = self.failed(vertex)

    def fail(self, vertex: Vertex) -> None:
        """An attempt has failed."""
        self._failed[vertex] = self.failed(vertex) + 1

    def again(
        self, vertex: Vertex, rule: Retry, outcome: Outcome, luck: float, elapsed: float
    ) -> Again | str:
        """Whether there is another attempt after one that has just failed, and is not counted yet.

        Args:
            vertex: which component.
            rule: how often it is tried.
            outcome: of that attempt.
            luck: from 0 to 1, random.
            elapsed: seconds since the first attempt.

        Returns:
            When; or why not, in words to be put behind the error: empty where nothing was to be expected.
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
