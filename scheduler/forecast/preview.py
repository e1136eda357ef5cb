"""Preview of a build before it runs: its waves, critical path and time, and what may go wrong."""

from collections import Counter
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Final, NamedTuple

from attrs import field, frozen

from scheduler.definition.graph import Graph, Vertex
from scheduler.definition.model import UNSENT, Build, Change, State
from scheduler.definition.rules import LimitRule
from scheduler.definition.validation import Prepared
from scheduler.forecast.durations import Durations
from scheduler.forecast.references import Question, References, Unreachable
from scheduler.forecast.simulation import Forecast, forecast

UNKNOWN: Final = "?"
"""A word of a subject that a reference supplies; of all patterns only ``*`` matches it."""


class Source(StrEnum):
    """Source of a duration."""

    GIVEN = "given"
    RECORDED = "recorded"
    DEFAULT = "default"
    """The mean of the known durations; 1 s where there are none."""
    NONE = "none"
    """No duration, as nothing is sent."""


class Estimate(NamedTuple):
    """Expected duration of a request."""

    seconds: float
    source: Source


_NOTHING: Final = Estimate(0.0, Source.NONE)


@frozen
class Preview:
    """A build as it is expected to run."""

    build: Build = field(repr=False)
    waves: Sequence[Sequence[Vertex]] = field(repr=False)
    """Components to be done, by the length of the longest chain before each."""
    estimates: Sequence[Estimate] = field(repr=False)
    """Expected durations, for each change."""
    subjects: Sequence[str | None] = field(repr=False)
    """Subjects of the requests, for each change; None where none is sent."""
    forecast: Forecast
    questions: Sequence[Question] = field(repr=False)
    unreachable: Sequence[Unreachable] = field(repr=False)
    untouched: int
    """Number of existing components without a change."""

    @property
    def completed(self) -> int:
        """Number of changes that are completed already."""
        return sum(change.state is State.COMPLETED for change in self.build.changes)

    @property
    def kinds(self) -> dict[str, Counter[str]]:
        """Number of components to be done, by action and type."""
        found: dict[str, Counter[str]] = {}
        for change in self.build.changes:
            if change.state is not State.COMPLETED:
                found.setdefault(change.action.value, Counter())[_word(change.type)] += 1
        return found

    def document(self) -> dict[str, Any]:
        """Return the preview as JSON (OPERATING: "JSON")."""
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
        """Expected duration of a request on each subject."""
        pairs = zip(self.subjects, self.estimates, strict=True)
        return {subject: estimate for subject, estimate in pairs if subject is not None}


def preview(
    prepared: Prepared, durations: Durations, rules: Sequence[LimitRule] = (), *, cap: int | None = None
) -> Preview:
    """Predict a build.

    Args:
        prepared: the build; the limits that it has of its own count too.
        durations: known durations of requests.
        rules: the limits of the service.
        cap: number of its requests that may be in flight in all.
    """
    build, graph = prepared.build, prepared.graph
    subjects = [subject_of(change) for change in build.changes]
    known = {subject: _estimate(durations, subject) for subject in set(subjects) if subject is not None}
    estimates = [_NOTHING if subject is None else known[subject] for subject in subjects]
    done = [vertex for vertex, change in enumerate(build.changes) if change.state is State.COMPLETED]
    seconds = [estimate.seconds for estimate in estimates]
    references = References(prepared)
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
    """Return the subject of the request for a change; None where nothing is sent."""
    if change.action in UNSENT or change.state is State.COMPLETED:
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


def kinds_of(wave: Sequence[Vertex], build: Build) -> Mapping[str, int]:
    """Return the number of components of each type, the most first."""
    return dict(Counter(_word(build.changes[vertex].type) for vertex in wave).most_common())
