"""Script of simulated connectors: times, failures and outputs by subject. Pure.

::

    vpc.create.*:
      seconds: 1s..5s                        # or one time
      fail: {first: 2, error: no capacity}   # or {rate: 0.1}, or 0.1
      output: {zone: eu-west-1a}
    "*":
      seconds: 0.2

The first pattern that matches counts. What a rule does not say is as the flags say.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from attrs import field, frozen

from scheduler.client.timeline import SETTLED, Span
from scheduler.definition.nearly import nearly
from scheduler.definition.patterns import FORM, matches, read_pattern
from scheduler.errors import Problem
from scheduler.text import DURATIONS, read_duration

_LONGEST: Final = 86_400.0
"""Longest time of an answer, in seconds."""
_MOST_FIRST: Final = 1_000
_MEMBERS: Final = ("seconds", "fail", "output")
_FAILING: Final = ("rate", "first", "error")
_SECONDS: Final = f"is no time from 0 to 1d, such as {DURATIONS}, and no range of two, such as 1s..5s"


@frozen
class ScriptRule:
    """Conduct on matching subjects; None where the flags say it."""

    pattern: str
    seconds: tuple[float, float] | None = None
    """Shortest and longest time of an answer."""
    rate: float | None = None
    """Share of requests that fail."""
    first: int = 0
    """Number of requests of each component that fail before one succeeds."""
    error: str = ""
    """Text of a failure."""
    output: Mapping[str, Any] = field(factory=dict, repr=False)


Script = tuple[ScriptRule, ...]


def rule_for(script: Script, subject: str) -> ScriptRule | None:
    """Return the first rule whose pattern matches a subject."""
    return next((rule for rule in script if matches(rule.pattern, subject)), None)


def parse_script(document: Mapping[str, Any]) -> tuple[Script, list[Problem]]:
    """Read the rules of a script, and find every problem, with its place.

    Args:
        document: rules by pattern.
    """
    problems: list[Problem] = []
    rules = [_rule(text, rule, problems) for text, rule in document.items()]
    return tuple(rules), problems


def _rule(text: str, rule: Any, problems: list[Problem]) -> ScriptRule:
    pattern = read_pattern(text)
    if pattern is None:
        problems.append(Problem(text, FORM))
    members = _members(text, rule, _MEMBERS, problems)
    seconds = _range(f"{text}.seconds", members["seconds"], problems) if "seconds" in members else None
    fail = members.get("fail")
    rate, first, error = None, 0, ""
    if isinstance(fail, Mapping):
        failing = _members(f"{text}.fail", fail, _FAILING, problems)
        if "rate" in failing and "first" in failing:
            problems.append(Problem(f"{text}.fail", "has both rate and first; give one of them"))
        rate = _rate(f"{text}.fail.rate", failing["rate"], problems) if "rate" in failing else None
        first, error = failing.get("first", 0), failing.get("error", "")
        if not isinstance(first, int) or isinstance(first, bool) or not 0 <= first <= _MOST_FIRST:
            problems.append(Problem(f"{text}.fail.first", f"is no whole number from 0 to {_MOST_FIRST:,}"))
        if not isinstance(error, str):
            problems.append(Problem(f"{text}.fail.error", "is no text"))
        if not failing.keys() & {"rate", "first"}:
            rate = 1.0
    elif "fail" in members:
        rate = _rate(f"{text}.fail", fail, problems)
    output = members.get("output", {})
    if not isinstance(output, Mapping):
        problems.append(Problem(f"{text}.output", "is no object of fields, such as zone: eu-west-1a"))
        output = {}
    # With `first`, the flags' rate would fail what is to succeed.
    return ScriptRule(pattern or text, seconds, 0.0 if first else rate, first, error, output)


def _members(place: str, value: Any, known: Sequence[str], problems: list[Problem]) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        problems.append(Problem(place, f"is no object; it can have {', '.join(known)}"))
        return {}
    for name in value.keys() - set(known):
        similar = nearly(name, known)
        cure = f"; did you mean '{similar}'?" if similar else f"; there is {', '.join(known)}"
        problems.append(Problem(f"{place}.{name}", f"is not known{cure}"))
    return value


def _rate(place: str, value: Any, problems: list[Problem]) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1:
        return float(value)
    problems.append(Problem(place, "is no share of requests from 0 to 1"))
    return None


def _range(place: str, value: Any, problems: list[Problem]) -> tuple[float, float] | None:
    ends = value.split("..") if isinstance(value, str) else [value]
    times = [time for end in ends if (time := _time(end)) is not None]
    if len(times) != len(ends) or len(times) > 2 or times[0] > times[-1]:
        problems.append(Problem(place, _SECONDS))
        return None
    return times[0], times[-1]


def _time(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        time = read_duration(value) if isinstance(value, str) else float(value)
    except (ValueError, OverflowError):
        return None
    return time if 0 <= time <= _LONGEST else None


def recorded(spans: Iterable[Span]) -> dict[str, Any]:
    """Return the script of what a build did: the times of its attempts by subject, and the share that failed.

    Args:
        spans: times of its components, also of those that were never sent, which say nothing.
    """
    by_subject: dict[str, list[Span]] = {}
    for span in spans:
        if span.subject and span.state in SETTLED and span.working > 0:
            by_subject.setdefault(span.subject, []).append(span)
    return {subject: _observed(found) for subject, found in sorted(by_subject.items())}


def _observed(spans: Sequence[Span]) -> dict[str, Any]:
    times = [end - begin for span in spans for begin, end in span.attempts]
    shortest, longest = (f"{round(time, 3):g}" for time in (min(times), max(times)))
    found: dict[str, Any] = {"seconds": shortest if shortest == longest else f"{shortest}..{longest}"}
    failed = sum(len(span.before) + (span.state == "errored") for span in spans)
    if failed:
        error = next(_errors(spans), "")
        found["fail"] = {"rate": round(failed / len(times), 3)} | ({"error": error} if error else {})
    return found


def _errors(spans: Iterable[Span]) -> Iterator[str]:
    return (span.error for span in spans if span.error)
