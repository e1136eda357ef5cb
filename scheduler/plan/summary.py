"""Summaries of a plan: its report, its first event, and its parts."""

from collections.abc import Mapping
from typing import Any

from scheduler.definition.graph import Vertex
from scheduler.definition.strictjson import Raw
from scheduler.journal.events import Accepted
from scheduler.plan.plan import Plan
from scheduler.plan.report import Report
from scheduler.runtime.yielding import yield_now


def report_of(plan: Plan) -> Report:
    """Return the report as things stand; it is complete once `ending.finish` has returned."""
    build, state = plan.build, plan.state
    return Report(
        build.action,
        state.cause,
        build.fields,
        list(state.ledger.existing.values()),
        [_shown(plan, vertex) for vertex in range(len(plan.phases))],
        build.edges,
        {phase: count for phase, count in plan.phases.shown().items() if count},
        state.run,
        plan.mark,
        build.absent,
        cancelled=state.cancelled,
        secrets=plan.prepared.secrets,
    )


def _shown(plan: Plan, vertex: Vertex) -> Mapping[str, Any] | Raw:
    yield_now()
    return plan.state.ledger.shown(vertex, plan.phases[vertex].state)


def accepted_of(plan: Plan) -> Accepted:
    """Return the first event of a build."""
    trace = None if plan.requests.trace is None else plan.requests.trace.context
    document = {**plan.build.fields, **report_of(plan).lists()}
    return Accepted(document, plan.digest, mark=plan.mark, trace=trace)


def parts_of(plan: Plan) -> list[object]:
    """Return the large parts of a plan, for a caller that frees them piece by piece."""
    ledger, build = plan.state.ledger, plan.build
    parts: list[object] = [*build.components, *build.edges, *build.changes, *plan.prepared.templates]
    return [*parts, *ledger.existing.values(), *ledger.final.values()]
