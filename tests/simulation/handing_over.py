"""Judges orderly stops: where another instance is at work, it has the builds soon, and none is refused.

It judges scenarios in which instances are stopped in order, and nothing else goes wrong.
"""

from collections.abc import Callable, Mapping, Sequence

from attrs import define, field

from simulation.cluster import HARMLESS
from simulation.knowledge import Build
from simulation.scenario import Scenario
from simulation.tenures import Tenures

ORDERLY = {"stop", "rolling", "drain", *HARMLESS}
"""Faults beside which a hand-over takes no longer than alone."""
_WITHIN = 4.0
"""Seconds from the signal until another instance has taken a build up; messages may take 0.3 of them."""
_AT_WORK = 4.0
"""Seconds after which an instance that has started takes builds up."""


@define(eq=False)
class HandingOver:
    """Builds that were to be handed over."""

    scenario: Scenario
    wrong: Callable[[str], None]
    builds: Mapping[str, Build]
    interruptions: Mapping[str, Sequence[tuple[float, str]]]
    """What happened to the connection of each process, and when."""
    tenures: Tenures
    _stopped: dict[str, float] = field(factory=dict)
    """When each process got its signal."""
    _waiting: dict[tuple[str, str], float] = field(factory=dict)
    """By build and its owner: when that was stopped."""
    _applies: bool = False

    def __attrs_post_init__(self) -> None:
        self._applies = {fault.kind for fault in self.scenario.faults} <= ORDERLY

    def stopping(self, who: str, now: float) -> None:
        """A process is stopped in order."""
        self._stopped[who] = now
        if not self._applies:
            return
        for name, build in self.builds.items():
            if build.owner == who and build.history.accepted is not None and not build.is_reported:
                self._waiting[name, who] = now

    def refused(self, name: str, now: float) -> None:
        """A client is told that the instance which got its build takes none any more."""
        if self._applies and (others := [who for who in self.interruptions if self._is_at_work(who, now)]):
            self.wrong(f"handing over: {name} is refused for a stop, and {others[0]} is at work")

    def look(self, now: float) -> None:
        """See what is overdue."""
        for (name, who), since in list(self._waiting.items()):
            build = self.builds[name]
            if build.owner != who or build.is_reported:
                del self._waiting[name, who]
            elif now > since + _WITHIN:
                del self._waiting[name, who]
                if others := [other for other in self.interruptions if self._is_at_work(other, since)]:
                    self.wrong(f"handing over: {who} was stopped, {others[0]} is at work, {name} is nobody's")

    def _is_at_work(self, who: str, since: float) -> bool:
        """Tell whether a process has been at work from before that time until now."""
        time, kind = self.interruptions[who][-1]
        there = kind == "connected" and time < since - _AT_WORK
        return there and self.tenures.is_holder(who) and who not in self._stopped
