"""Gates: components that wait for a person. They are never sent, and nothing but an approval completes them.

A gate is *reached* when all that it depends on is completed. Its phase stays ``WAITING`` until it is decided,
so it is not in flight: after a failure elsewhere it ends like everything else that was never sent.

Each function that decides applies its event to the plan at once, and returns it to be persisted.
"""

import shlex
from datetime import UTC, datetime
from typing import Final

from scheduler.definition.graph import Vertex
from scheduler.definition.model import APPROVAL
from scheduler.definition.template import Laborious
from scheduler.errors import Refused, TemplateError
from scheduler.journal.events import Settled
from scheduler.journal.orders import Order
from scheduler.plan.phases import Phase
from scheduler.plan.plan import Plan
from scheduler.text import listed

_SHOWN: Final = 5
"""Ids in a refusal."""
_LONGEST_ERROR: Final = 1_000
"""Characters of an error in a refusal."""


def is_reached(plan: Plan, vertex: Vertex) -> bool:
    """Whether a component is a gate that waits for a person now."""
    return (
        vertex in plan.gates
        and plan.phases[vertex] is Phase.WAITING
        and not plan.state.halted
        and not _missing(plan, vertex)
    )


def reached(plan: Plan) -> list[Vertex]:
    """Return the gates that wait for a person now, in the order of the changes."""
    return [vertex for vertex in sorted(plan.gates) if is_reached(plan, vertex)]


def examine(plan: Plan, vertex: Vertex) -> Settled | None:
    """Render a gate as it is reached; return its failure where a reference cannot be resolved.

    Raises:
        Laborious: rendering it takes long (`Requests.rendering`); nothing was changed.
    """
    try:
        rendered = plan.requests.rendered(vertex)
        if not plan.requests.is_rendered(vertex) and (learn := plan.requests.learning(vertex, rendered)):
            # Otherwise it was rendered beside the loop, and searched for secrets there.
            learn()
    except Laborious:
        raise
    except TemplateError as error:
        return plan.fail(vertex, str(error).removeprefix(f"{plan.graph.ids[vertex]}."))
    finally:
        plan.requests.let_go(vertex)
    # It is rendered once more when it is approved, from the same values.
    plan.requests.put_back(vertex)
    return None


def approve(plan: Plan, vertex: Vertex, order: Order) -> Settled:
    """Complete a gate with its rendered fields, and with who approved it, when and why.

    Args:
        plan: the plan of the build.
        vertex: the gate.
        order: order of the person, without secrets (`steering.recorded`).

    Raises:
        Refused: it is no gate, is not reached, or is decided.
        Laborious: rendering it takes long (`Requests.rendering`); nothing was changed.
    """
    check_reached(plan, vertex)
    at = datetime.fromtimestamp(order.time, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return plan.complete_with(vertex, dict(zip(APPROVAL, (order.by, at, order.reason), strict=True)))


def reject(plan: Plan, vertex: Vertex, order: Order) -> Settled:
    """Fail a gate.

    Args:
        plan: the plan of the build.
        vertex: the gate.
        order: order of the person, without secrets (`steering.recorded`).

    Raises:
        Refused: it is no gate, is not reached, or is decided.
    """
    check_reached(plan, vertex)
    by = f" by {order.by}" if order.by else ""
    return plan.fail(vertex, f"rejected{by}: {order.reason}" if order.reason else f"rejected{by}")


def expire(plan: Plan, vertex: Vertex, seconds: float) -> Settled:
    """Fail a gate that nobody has decided within so many seconds."""
    return plan.fail(vertex, f"not approved within {seconds:.12g} s")


def _missing(plan: Plan, vertex: Vertex) -> list[Vertex]:
    """Return what a component depends on directly, and is not completed."""
    phases = plan.phases
    return [one for one in plan.graph.dependencies[vertex] if phases[one] is not Phase.COMPLETED]


def check_reached(plan: Plan, vertex: Vertex) -> None:
    """Raise `Refused` unless a component is a gate that waits for a person now."""
    name, build = plan.graph.ids[vertex], plan.build.id
    if vertex not in plan.gates:
        action = plan.build.changes[vertex].action.value
        raise Refused("conflict", f"{name} is no gate: its _action is {action}, not approve")
    phase = plan.phases[vertex]
    if phase is Phase.COMPLETED:
        by = plan.state.ledger.kept(vertex).get(APPROVAL[0])
        raise Refused("conflict", f"{name} is approved already" + (f", by {by}" if by else ""))
    if phase is Phase.ERRORED:
        error = plan.texts.masked(plan.error(vertex) or "", _LONGEST_ERROR)
        cure = shlex.join(["scheduler", "retry", build, name])
        raise Refused("conflict", f"{name} has failed ({error}): {cure} asks again")
    if plan.state.draining:
        raise Refused("conflict", f"nothing new begins any more: {plan.texts.cause}")
    if plan.state.stopped:
        raise Refused("unavailable", "the scheduler is shutting down; try again shortly")
    if phase is Phase.SKIPPED:
        raise Refused("conflict", f"{name} is left out, since something before it failed")
    if missing := _missing(plan, vertex):
        ids = [plan.graph.ids[one] for one in missing[:_SHOWN]]
        raise Refused("conflict", f"{name} is not reached yet: it waits for {listed(ids, len(missing))}")
