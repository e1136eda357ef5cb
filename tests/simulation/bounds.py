"""Bounds what one build costs another: unless something else holds a component, it is sent soon when due."""

from collections.abc import Callable

from simulation.knowledge import Build
from simulation.rulebook import Rulebook
from simulation.scenario import Scenario

_SOON = 0.35
"""Seconds from the record that makes a component due until its request leaves, whatever other builds do. The
word that the record is stored may take 0.3 of them (`World.latency`)."""
_ACCEPTED = 0.6
"""Seconds more after an acceptance: its word comes first, and then a record of the starts has to arrive."""


class Bounds:
    """Watches the builds of a scenario in which nothing goes wrong, and no limit holds anything back."""

    def __init__(self, scenario: Scenario, rulebook: Rulebook, wrong: Callable[[str], None]) -> None:
        self._wrong = wrong
        self._due: dict[tuple[str, str], float] = {}
        """By build and component: when the last of its dependencies was settled, as the log says."""
        held_up = scenario.faults or scenario.operating.orders or scenario.operating.max_bytes
        self._applies = not (held_up or rulebook.limits or scenario.clocks.settings)
        self._rulebook = rulebook

    def settled(self, build: Build, component: str | None, now: float) -> None:
        """A component is settled, or (None) the build is accepted."""
        name = build.document["id"]
        for other, needed in build.needed.items():
            if component is None or component in needed:
                self._due[name, other] = now if component is not None else now + _ACCEPTED

    def moved(self, build: Build) -> None:
        """Another process takes a build up that was given away: what is due waits until that has read it."""
        for component in build.components:
            if (build.document["id"], component) in self._due:
                self._due[build.document["id"], component] = float("inf")

    def left(self, build: Build, component: str, now: float) -> None:
        """The request of a component leaves for the first time."""
        one = build.components[component]
        if not self._applies or one.tries > 1 or "work" in one.change:
            return
        if self._rulebook.own_limits(build.document):
            return
        due = self._due[build.document["id"], component]
        if now > due + _SOON:
            self._wrong(f"G8 {build.document['id']}: {component} leaves {now - due:.3f} s after it is due")
