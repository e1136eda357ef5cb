"""What a build will do, told before it runs: its waves, critical path and time, and what may go wrong."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from functools import partial
from typing import Any, Final, NamedTuple

from attrs import field, frozen

from scheduler.definition.graph import Graph, Vertex
from scheduler.definition.model import Action, Build, Change, State
from scheduler.definition.rules import LimitRule
from scheduler.definition.scope import SeenByItself, Submitted, is_supplied
from scheduler.definition.secrets.names import MASK
from scheduler.definition.secrets.places import is_secret_place
from scheduler.definition.template import Found, Template, Work
from scheduler.definition.validation import Prepared
from scheduler.errors import Problem
from scheduler.forecast.durations import Durations
from scheduler.forecast.simulation import Forecast, forecast
from scheduler.runtime.breath import breathe

UNKNOWN: Final = "?"
"""A word of a subject that a reference supplies; of all patterns only ``*`` matches it."""
_MOST_WORK: Final = 4 * 1024 * 1024
"""Bytes that evaluating references may amount to here."""
_SHOWN: Final = 200
"""Characters of a reference."""


class Source(StrEnum):
    """Where a duration comes from."""

    GIVEN = "given"
    RECORDED = "recorded"
    DEFAULT = "default"
    """The mean of those that are known; 1 s where none is."""
    NONE = "none"
    """It takes no time: nothing is sent."""


class Estimate(NamedTuple):
    """How long a request is expected to take."""

    seconds: float
    source: Source


_NOTHING: Final = Estimate(0.0, Source.NONE)


@frozen
class Question:
    """A reference of which nobody can say before it is due whether it leads to anything."""

    component: str
    place: str
    text: str
    """As it is written, without secrets, cut."""
    why: str


@frozen
class Unreachable:
    """A component that will not complete, as far as can be told: an error, or behind one."""

    component: str
    why: str
    behind: str | None
    """The component that will fail before it; None where it is the one that fails."""


@frozen
class Preview:
    """What is known of a build before it runs."""

    build: Build = field(repr=False)
    waves: Sequence[Sequence[Vertex]] = field(repr=False)
    """What is to be done, by the length of the longest chain before it."""
    estimates: Sequence[Estimate] = field(repr=False)
    """For each change."""
    subjects: Sequence[str | None] = field(repr=False)
    """Of the request for each change; None where none is sent."""
    forecast: Forecast
    questions: Sequence[Question] = field(repr=False)
    unreachable: Sequence[Unreachable] = field(repr=False)
    untouched: int
    """Components that exist, and that no change is about."""

    @property
    def completed(self) -> int:
        """How many changes are completed already."""
        return sum(change.state is State.COMPLETED for change in self.build.changes)

    @property
    def kinds(self) -> dict[str, Counter[str]]:
        """What is to be done: for each action how many of each type."""
        found: dict[str, Counter[str]] = {}
        for change in self.build.changes:
            if change.state is not State.COMPLETED:
                found.setdefault(change.action.value, Counter())[_word(change.type)] += 1
        return found

    def document(self) -> dict[str, Any]:
        """The same as JSON (OPERATING: "JSON")."""
        build, seen = self.build, self.forecast
        ids = [change.id for change in build.changes]
        name = build.fields.get("name")
        kinds = self.kinds
        types: Counter[str] = Counter()
        for counts in kinds.values():
            types.update(counts)
        return {
            "v": 1,
            "id": build.id,
            **({"name": name} if isinstance(name, str) else {}),
            "action": build.action,
            "total": len(ids),
            "completed": self.completed,
            "untouched": self.untouched,
            "actions": {action: counts.total() for action, counts in kinds.items()},
            "types": dict(types),
            "waves": [
                {"n": number, "components": [ids[vertex] for vertex in wave]}
                for number, wave in enumerate(self.waves, 1)
            ],
            "critical_path": [
                {
                    "id": ids[step.vertex],
                    "seconds": step.seconds,
                    "source": self.estimates[step.vertex].source.value,
                    **({"waited": step.waited, "limit": step.limit} if step.limit is not None else {}),
                }
                for step in seen.path
            ],
            "seconds": seen.seconds,
            "lower_bound": seen.lower_bound,
            "limits": [
                {
                    "limit": limit,
                    "waiting": seen.queued[limit],
                    "seconds": seen.lost.get(limit, 0.0),
                    "at_least": bound,
                }
                for limit, bound in seen.bounds.items()
            ],
            "durations": {
                subject: {"seconds": estimate.seconds, "source": estimate.source.value}
                for subject, estimate in self.durations.items()
            },
            "unresolved": [
                {"component": one.component, "place": one.place, "text": one.text, "why": one.why}
                for one in self.questions
            ],
            "unreachable": [
                {
                    "component": one.component,
                    "why": one.why,
                    **({"behind": one.behind} if one.behind is not None else {}),
                }
                for one in self.unreachable
            ],
        }

    @property
    def durations(self) -> dict[str, Estimate]:
        """How long a request on each subject is expected to take."""
        pairs = zip(self.subjects, self.estimates, strict=True)
        return {subject: estimate for subject, estimate in pairs if subject is not None}


def preview(
    prepared: Prepared, durations: Durations, rules: Sequence[LimitRule] = (), *, cap: int | None = None
) -> Preview:
    """Look ahead at a build.

    Args:
        prepared: the build; the limits that it has of its own count too.
        durations: how long requests take.
        rules: the limits of the service.
        cap: how many of its requests may be in flight in all.
    """
    build, graph = prepared.build, prepared.graph
    subjects = [subject_of(change) for change in build.changes]
    known = {subject: _estimate(durations, subject) for subject in set(subjects) if subject is not None}
    estimates = [_NOTHING if subject is None else known[subject] for subject in subjects]
    done = [vertex for vertex, change in enumerate(build.changes) if change.state is State.COMPLETED]
    seconds = [estimate.seconds for estimate in estimates]
    references = _References(prepared)
    return Preview(
        build,
        _waves(graph, set(done)),
        estimates,
        subjects,
        forecast(graph, seconds, subjects, rules, own=prepared.policy.limits, cap=cap),
        list(references.questions()),
        list(references.unreachable()),
        len(build.components) - sum(one.id in graph.index for one in build.components),
    )


def _estimate(durations: Durations, subject: str) -> Estimate:
    known = durations.known(subject)
    return (
        Estimate(durations.typical, Source.DEFAULT) if known is None else Estimate(known[0], Source(known[1]))
    )


def subject_of(change: Change) -> str | None:
    """The subject of its request; None where nothing is sent."""
    if change.action is Action.NONE or change.state is State.COMPLETED:
        return None
    return f"{_word(change.type)}.{change.action.value}.{_word(change.provider)}"


def _word(token: str) -> str:
    return UNKNOWN if token.startswith("$(") or "{{" in token else token


def _waves(graph: Graph, done: set[Vertex]) -> list[list[Vertex]]:
    depths = [0] * len(graph.ids)
    waves: list[list[Vertex]] = []
    for layer in graph.layers():
        for vertex in layer:
            depth = max([depths[one] for one in graph.dependencies[vertex]], default=0)
            if vertex not in done:
                if depth == len(waves):
                    waves.append([])
                waves[depth].append(vertex)
                depth += 1
            depths[vertex] = depth
    for wave in waves:
        # As submitted.
        wave.sort()
    return waves


class _Definitions(Submitted):
    """A build as submitted, where a change of action ``none`` is what its definition says.

    Nothing comes back for it: what refers to it will find what stands there now.
    """

    def find(self, id: str) -> Found | None:  # noqa: A002 - the port's name
        found = super().find(id)
        change = self.changes.get(id)
        if found is None and change is not None and change.action is Action.NONE:
            return Found(self.fields_of(change), definition=True)
        return found


class _References:
    """What can be said of a build's references beyond what refused it at intake."""

    def __init__(self, prepared: Prepared) -> None:
        self.prepared = prepared
        self.graph = prepared.graph
        self.changes = prepared.build.changes
        self.scope = _Definitions(prepared.build)
        self.secrets = prepared.secrets
        self._open: set[Vertex] | None = None
        self._keys: dict[str, frozenset[str]] = {}

    def questions(self) -> Iterator[Question]:
        """What may lead to nothing, and does not say what to do then."""
        for change, template in self._to_be_done():
            for place, target in template.targets():
                if target.guarded or target.root == "component":
                    continue
                why = self._doubt(target.root, target.id, target.keys)
                if why is not None:
                    yield self._question(change, place, target.text, why)

    def _question(self, change: Change, place: str, text: str, why: str) -> Question:
        if is_secret_place(place, change):
            # What stands there is secret wherever no reference is, and within one too.
            return Question(change.id, place, MASK, "what it refers to may not be there when it is due")
        masked = self.secrets.mask_problem(Problem(place, why))
        return Question(change.id, masked.place, self.secrets.mask(text, _SHOWN), masked.message)

    def _doubt(self, root: str, name: str | None, keys: tuple[str | int, ...]) -> str | None:
        if name is None:
            if root == "build" or (root == "path" and keys[:1] not in {("components",), ("changes",), ()}):
                return None
            return "which component it means is known only when it is due"
        if name in self.scope.existing:
            return None
        change = self.scope.changes.get(name)
        if change is None:
            return "only a find can supply this component"
        if change.action is Action.FIND and is_supplied(change):
            return "what a find returns is known only when it is due"
        if not is_supplied(change) or change.action is Action.NONE or not keys:
            return None
        key = str(keys[0])
        return (
            None if key in self._keys_of(change) else f"its definition has no {key!r}: a reply must bring it"
        )

    def _keys_of(self, change: Change) -> frozenset[str]:
        found = self._keys.get(change.id)
        if found is None:
            found = self._keys[change.id] = frozenset(change.fields)
        return found

    def unreachable(self) -> Iterator[Unreachable]:
        """What is certain to fail when it is due, although intake let it pass, and all that is behind it."""
        instant = {
            change.id
            for change in self.changes
            if change.action is Action.NONE and change.state is not State.COMPLETED
        }
        seen: set[Vertex] = set()
        work = Work(_MOST_WORK)
        for change, template in self._to_be_done() if instant else ():
            vertex = self.graph.index[change.id]
            named = {target.id for _, target in template.targets()} & instant - {change.id}
            if vertex in seen or not named or vertex in self._behind_a_find():
                continue
            problems = template.check(
                SeenByItself(self.scope, change) if template.names(change.id) else self.scope,
                partial(self._supplied, change.id),
                suggest=False,
                work=work,
            )
            if problems:
                seen.add(vertex)
                yield Unreachable(change.id, self._said(problems[0], change), None)
                yield from self._behind(vertex, seen)

    def _said(self, problem: Problem, change: Change) -> str:
        place = problem.place.removeprefix(f"{change.id}.")
        secret = is_secret_place(place, change)
        message = "what it refers to will not be there" if secret else problem.message
        return str(self.secrets.mask_problem(Problem(place, message)))

    def _behind(self, vertex: Vertex, seen: set[Vertex]) -> Iterator[Unreachable]:
        name, todo = self.graph.ids[vertex], [vertex]
        while todo:
            for dependent in self.graph.dependents[todo.pop()]:
                if dependent not in seen:
                    seen.add(dependent)
                    todo.append(dependent)
                    yield Unreachable(self.graph.ids[dependent], f"{name} will fail before it", name)

    def _supplied(self, own: str, name: str) -> bool:
        change = self.scope.changes.get(name)
        return change is not None and name != own and change.action is not Action.NONE and is_supplied(change)

    def _behind_a_find(self) -> set[Vertex]:
        """Whoever a find may supply with components of any id."""
        if self._open is None:
            todo = [vertex for vertex, change in enumerate(self.changes) if change.action is Action.FIND]
            self._open = set()
            while todo:
                for dependent in self.graph.dependents[todo.pop()]:
                    if dependent not in self._open:
                        self._open.add(dependent)
                        todo.append(dependent)
        return self._open

    def _to_be_done(self) -> Iterator[tuple[Change, Template]]:
        for change, template in zip(self.changes, self.prepared.templates, strict=True):
            breathe()
            done = change.state is State.COMPLETED or change.action is Action.NONE
            if not done and not template.constant:
                yield change, template


def kinds_of(wave: Sequence[Vertex], build: Build) -> Mapping[str, int]:
    """How many of each type, the most first."""
    return dict(Counter(_word(build.changes[vertex].type) for vertex in wave).most_common())
