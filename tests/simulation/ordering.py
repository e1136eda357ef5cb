"""Checks that components begin in the promised order, by the log of a build.

What one completion makes due begins in the order of the edges, where there are no limits. Where there is one
of a single slot, the most urgent of all that is due has it next, what is due only now included.

It judges what is certain: builds that one process runs from their acceptance on, and no operator steers.
"""

from collections.abc import Callable

from attrs import define, field

from scheduler.definition.rules import LimitRule
from simulation.knowledge import Build
from simulation.operating import JSON
from simulation.rulebook import Rulebook
from simulation.scenario import Scenario


@define(eq=False)
class _Course:
    """The course of one build."""

    urgencies: dict[str, int] = field(factory=dict)
    """Longest path to the end from each component; empty if the process knew better."""
    groups: list[list[str]] = field(factory=list)
    """Components made due together, in the order of the edges."""
    started: list[str] = field(factory=list)
    freed: dict[LimitRule, set[str]] = field(factory=dict)
    """By limit of one slot: what was due when that was given back last, and has not begun."""


class Ordering:
    """Follows the logs of all builds."""

    def __init__(self, scenario: Scenario, rulebook: Rulebook, wrong: Callable[[str], None]) -> None:
        self._rulebook = rulebook
        self._wrong = wrong
        self._bounded = bool(scenario.operating.max_bytes)
        self._courses: dict[str, _Course] = {build["id"]: _Course() for build in scenario.builds}
        self._learned = False
        """Tell whether anything has completed, so that processes know a duration."""

    def accepted(self, build: Build) -> None:
        """A build begins."""
        course = self._courses[build.document["id"]]
        if not self._learned:
            course.urgencies = _urgencies(build)
        course.groups.append(self._due(build, "start"))

    def settled(self, build: Build, component: str, *, in_flight: bool) -> None:
        """A component has settled; ``in_flight``: it had its slots until now."""
        self._learned = True
        course = self._courses[build.document["id"]]
        course.groups.append(self._due(build, component))
        due = {one for one in build.components if self._is_due(build, one)}
        for rule in self._rules(build, component) if in_flight else ():
            if rule.period is None and rule.count == 1:
                course.freed[rule] = due

    def started(self, build: Build, component: str) -> None:
        """The first attempt of a component begins."""
        name = build.document["id"]
        course = self._courses[name]
        if build.deeds or build.changed_hands or build.halted_at or component in course.started:
            return
        if self._bounded:
            # What waits for bytes is overtaken by what is more urgent.
            return
        if "work" in build.components[component].change:
            # While it is rendered others begin.
            return
        if not self._rulebook.limits and not self._rulebook.own_limits(build.document):
            for group in course.groups:
                behind = group[group.index(component) + 1 :] if component in group else []
                if late := [other for other in behind if other in course.started]:
                    self._wrong(
                        f"{name}: {component} is started after {late[0]}, whose edge stands behind its own"
                    )
        rules = self._rules(build, component)
        for rule, due in course.freed.items():
            if rule in rules and course.urgencies:
                for other in sorted(due - set(course.started)):
                    urgent = course.urgencies[other] > course.urgencies[component]
                    # What falls under this limit, and under no other one, could have had the slot.
                    theirs = self._rules(build, other)
                    free = rule in theirs and all(one in rules for one in theirs)
                    if urgent and free and self._is_due(build, other):
                        self._wrong(
                            f"{name}: {component} is started before {other}, which is more urgent: {rule}"
                        )
        course.started.append(component)

    def _is_due(self, build: Build, component: str) -> bool:
        """Tell whether a component waits only for its slots."""
        one = build.components[component]
        if one.settled is not None or one.attempts or one.change["_action"] in {"none", "approve"}:
            return False
        return all(
            (settled := build.components[other].settled) is not None and settled["_state"] == "completed"
            for other in build.needed[component]
        )

    def _due(self, build: Build, source: str) -> list[str]:
        """List the due dependents of ``source``, in the order of its edges, then of changes."""
        edges = [one["destination"] for one in build.document["edges"] if one["source"] == source]
        others = [
            name
            for name, needed in build.needed.items()
            if source in needed or (source == "start" and not needed)
        ]
        return [name for name in dict.fromkeys([*edges, *others]) if self._is_due(build, name)]

    def _rules(self, build: Build, component: str) -> list[LimitRule]:
        change: JSON = build.components[component].change
        subject = f"{change['_component']}.{change['_action']}.{change['_provider']}"
        every = (*self._rulebook.limits, *self._rulebook.own_limits(build.document))
        return [rule for rule in every if rule.matches(subject)]


def _urgencies(build: Build) -> dict[str, int]:
    """The components on the longest way to the end, itself included; for each."""
    found: dict[str, int] = {}

    def length(name: str) -> int:
        if name not in found:
            found[name] = 1 + max(
                (length(other) for other, needed in build.needed.items() if name in needed), default=0
            )
        return found[name]

    for name in build.needed:
        length(name)
    return found
