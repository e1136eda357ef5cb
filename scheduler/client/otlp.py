"""Writes a build that has ended as a trace, by the functions that make the spans of one that runs. Pure.

The spans have the ids that they had, or would have had, while it ran. Of a build that was submitted without a
trace, a trace of its own is made up, and the same each time. What no log keeps is missing: when an attempt
had its slots, what its connector said, and why an attempt failed that was followed by another one.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from scheduler import __version__
from scheduler.client.lenient import number, objects, text, texts, whole
from scheduler.client.timeline import SETTLED
from scheduler.tracing.build import BuildTrace, derive
from scheduler.tracing.context import SAMPLED
from scheduler.tracing.otlp import traces_data
from scheduler.tracing.spans import MOST_LINKS, Attempt, Run, Span, attempt_span, run_span

_TRACE_ID: Final = re.compile(r"[0-9a-f]{32}")
_SPAN_ID: Final = re.compile(r"[0-9a-f]{16}")
_A_LINE: Final = 64
"""Spans in one line, each of 10 KB at most: readers of such files take lines of a mebibyte."""
_FAILED: Final = "this attempt failed, and another one followed"


def trace_of(answer: Mapping[str, Any], build: str) -> BuildTrace:
    """Return the trace of a build, by the answer to ``get``; one that is made up where it has none.

    Args:
        answer: the answer.
        build: id of the build.
    """
    told = answer.get("trace")
    told = told if isinstance(told, Mapping) else {}
    trace, first, parent = text(told.get("id")), text(told.get("span")), text(told.get("parent"))
    if _TRACE_ID.fullmatch(trace) and _SPAN_ID.fullmatch(first):
        return BuildTrace(
            trace, first, parent if _SPAN_ID.fullmatch(parent) else "", SAMPLED, text(told.get("state"))
        )
    seed = ("", build, repr(number(answer.get("accepted"))))
    made_up = derive(*seed, "1") + derive(*seed, "2")
    return BuildTrace.begun(made_up, build, "")


def spans_of(answer: Mapping[str, Any], build: str) -> list[Span]:
    """Return the spans of a build that has ended: its last run, and the attempts of its components.

    Args:
        answer: answer to ``get`` with its graph.
        build: id of the build.
    """
    trace, run = trace_of(answer, build), max(1, whole(answer.get("run"), 1))
    components = {name: one for one in objects(answer.get("components")) if (name := text(one.get("id")))}
    spans: list[Span] = []
    for name, one in components.items():
        spans += (
            attempt_span(trace, attempt) for attempt in _attempts(name, one, components, build=build, run=run)
        )
    ends = [span.end for span in spans]
    ended = number(answer.get("ended"))
    began = number(answer.get("accepted"))
    if ended is None:
        ended = max(ends, default=number(answer.get("now")) or 0.0)
    if began is None:
        began = min((span.start for span in spans), default=ended)
    counts = answer.get("counts")
    counts = counts if isinstance(counts, Mapping) else {}
    status = text(answer.get("status"))
    failed = text(answer.get("error")) or f"it is {status}"
    whole_run = Run(
        build=build,
        name=text(answer.get("name")),
        action=text(answer.get("action")) or "build",
        number=run,
        began=began,
        ended=ended,
        status=status,
        counts={state: whole(count) for state, count in counts.items()},
        error=None if status == "done" else failed,
    )
    return [run_span(trace, whole_run), *spans]


def _attempts(
    name: str,
    one: Mapping[str, Any],
    components: Mapping[str, Mapping[str, Any]],
    *,
    build: str,
    run: int,
) -> Iterator[Attempt]:
    """Yield the attempts of a component, the last one last; none where it never was due, or was skipped."""
    state, ended = text(one.get("state")), number(one.get("ended"))
    if ended is None or state not in SETTLED or state == "skipped":
        return
    last, due = max(1, whole(one.get("attempt"), 1)), number(one.get("due"))
    needs = [need for need in texts(one.get("needs")) if number(components.get(need, {}).get("ended"))]
    common: dict[str, Any] = {
        "build": build,
        "run": run,
        "component": name,
        "subject": text(one.get("subject")),
        "needs": [(need, max(1, whole(components[need].get("attempt"), 1))) for need in needs[:MOST_LINKS]],
        "unseen_needs": max(0, len(needs) - MOST_LINKS),
        "gate": one.get("gate") is True,
    }
    failed = objects(one.get("failed"))[-(last - 1) :] if last > 1 else []
    for back, earlier in zip(range(len(failed), 0, -1), failed, strict=True):
        stopped = number(earlier.get("failed"))
        if stopped is not None:
            yield Attempt(
                number=last - back,
                ended=stopped,
                due=due,
                sent=number(earlier.get("sent")),
                error=_FAILED,
                retries=True,
                **common,
            )
            due = number(earlier.get("again"))
    sent, done = number(one.get("sent")), state == "completed"
    yield Attempt(
        number=last,
        ended=ended,
        due=due,
        sent=sent,
        answered=ended if done and sent is not None else None,
        error=None if done else text(one.get("error")) or state,
        **common,
    )


def lines_of(spans: Sequence[Span]) -> Iterator[dict[str, Any]]:
    """Yield spans as messages ``TracesData`` of OTLP, each for a line of a file."""
    resource = {"service.name": "scheduler", "service.version": __version__}
    for start in range(0, len(spans), _A_LINE):
        part = spans[start : start + _A_LINE]
        yield traces_data(part, resource=resource, scope="scheduler", version=__version__)
