"""Replies that a cluster of brokers brought: whichever server goes away, nobody misses them."""

from collections.abc import Callable

from attrs import define, field

from simulation.cluster import HARMLESS
from simulation.knowledge import Attempt, Build
from simulation.scenario import Scenario

_SETTLED = 1.0
"""Seconds within which a new process listens on two servers."""
_MARGIN = 0.5
"""Seconds before its deadline at which a reply is in time."""


@define(eq=False)
class Replies:
    """Replies that reached a remaining server, by attempt."""

    scenario: Scenario
    wrong: Callable[[str], None]
    _attempts: dict[str, str] = field(factory=dict)
    """By the serial of the answer."""
    _arrived: dict[str, float] = field(factory=dict)
    """When the first answer to an attempt did."""
    _started: dict[str, float] = field(factory=dict)
    _gone: float = 0.0
    _calm: bool = False
    """Whether only the loss of one server can cost a reply."""

    def __attrs_post_init__(self) -> None:
        kinds = {fault.kind for fault in self.scenario.faults}
        self._calm = self.scenario.cluster.servers > 1 and kinds <= {"server", *HARMLESS}

    def said(self, serial: str, attempt: str) -> None:
        """A connector says something about an attempt."""
        self._attempts[serial] = attempt

    def arrived(self, serial: str, now: float) -> None:
        """That reaches a server."""
        attempt = self._attempts.get(serial)
        if attempt is not None:
            self._arrived.setdefault(attempt, now)

    def started(self, who: str, now: float) -> None:
        """A process starts."""
        self._started[who] = now

    def gone(self, now: float) -> None:
        """A server goes away."""
        self._gone = now

    def timed_out(self, name: str, build: Build, attempt: Attempt, seconds: float) -> None:
        """Note that an attempt timed out after so many seconds."""
        arrived = self._arrived.get(attempt.id)
        if not self._calm or arrived is None:
            return
        first, who = attempt.departures[0]
        listens = self._started[who] < self._gone - _SETTLED and not build.changed_hands
        if listens and first < arrived < first + seconds - _MARGIN:
            self.wrong(f"G1 {name}: {attempt.id} timed out, and its reply reached a server that stays")
