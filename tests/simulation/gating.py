"""Gates in a scenario: components that wait for people, what those decide, and what must follow from it."""

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from simulation.knowledge import Build
from simulation.scenario import Scenario

JSON: TypeAlias = dict[str, Any]

APPROVER: Final = "approver"
DECISIONS: Final = {"approve": "Approved", "reject": "Rejected"}
"""Commands about gates, and the words for what they do."""
_HASTE: Final = 2.0
"""Seconds by which the time of a gate may seem shorter in the log: it counts from before a commit."""


class Gating:
    """Follows the gates of all builds.

    Args:
        scenario: has the gates.
        wrong: is told of what is wrong.
    """

    def __init__(self, scenario: Scenario, wrong: Callable[[str], None]) -> None:
        self._wrong = wrong
        self._agree = scenario.clocks.agree
        self._asked: set[tuple[str, str, str]] = set()
        self._since: dict[tuple[str, str], float] = {}
        """When everything that a gate depends on was completed."""
        self._told: dict[tuple[str, str], float] = {}
        """When a process told first that a gate asks: the log may say it only after an outage."""
        self._added: dict[tuple[str, str], float] = {}

    def told(self, name: str, events: list[JSON], now: float) -> None:
        """Note what a process tells of a build."""
        for event in events:
            if event.get("event") == "gated":
                self._told.setdefault((name, event["component"]), now)

    def ordered(self, verb: str, build: str, component: str) -> None:
        """Note that an operator asks for something."""
        self._asked.add((verb, build, component))

    def extended(self, name: str, component: str, seconds: float) -> None:
        """Note that an operator has given a gate more time."""
        self._added[name, component] = self._added.get((name, component), 0.0) + seconds

    def note_due(self, name: str, build: Build, now: float, *, afresh: bool = False) -> None:
        """Note which gates are reached by now; ``afresh``: all of those that are not decided are."""
        for component in _gates_of(build):
            if afresh or build.components[component].settled is not None:
                self._since.pop((name, component), None)
                self._told.pop((name, component), None)
                self._added.pop((name, component), None)
            if (name, component) not in self._since and _is_reached(build, component):
                self._since[name, component] = now

    def settled(self, name: str, build: Build, component: str, body: Mapping[str, Any], now: float) -> None:
        """Check that a gate has an outcome for a reason, and say which in the deeds of its build."""
        error = body.get("error", "")
        if body["_state"] == "completed":
            self._decided("approve", name, build, component, now)
            if body.get("approved_by") != APPROVER:
                self._wrong(f"{name}: {component} is approved by {body.get('approved_by')!r}")
        elif error.startswith("rejected"):
            self._decided("reject", name, build, component, now)
        elif error.startswith("not approved within"):
            self._expired(name, build, component, float(error.split()[3]), now)
        else:
            self._wrong(f"{name}: the gate {component} fails by a fault of ours: {error[:200]}")

    def _decided(self, verb: str, name: str, build: Build, component: str, now: float) -> None:
        build.deeds.append((now, DECISIONS[verb], component))
        if (verb, name, component) not in self._asked:
            self._wrong(f"G3 {name}: nobody asked to {verb} {component}, and that is its outcome")

    def _expired(self, name: str, build: Build, component: str, seconds: float, now: float) -> None:
        own = build.components[component].change.get("_timeout")
        added = self._added.get((name, component), 0.0)
        if own is None or abs(own + added - seconds) > 1e-3:
            self._wrong(f"{name}: the time of {component} is over after {seconds} s, and it has {own}")
            return
        begins = [times[name, component] for times in (self._since, self._told) if (name, component) in times]
        if self._agree and begins and now < min(begins) + seconds - _HASTE:
            self._wrong(f"{name}: the time of {component} is over too early")


def is_gate(change: Mapping[str, Any]) -> bool:
    """Whether a component waits for a person."""
    return bool(change["_action"] == "approve")


def _gates_of(build: Build) -> list[str]:
    return [name for name, one in build.components.items() if is_gate(one.change)]


def _is_reached(build: Build, component: str) -> bool:
    if build.components[component].settled is not None:
        return False
    settled = (build.components[other].settled for other in build.needed[component])
    return all(one is not None and one["_state"] == "completed" for one in settled)
