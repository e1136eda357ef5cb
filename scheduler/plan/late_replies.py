"""Late replies: those to attempts that were given up before.

Each function decides: it applies its events to the plan's state at once, and returns or keeps what is to be
persisted.
"""

from scheduler.journal.events import Settled
from scheduler.plan.outcome import Outcome
from scheduler.plan.phases import Phase
from scheduler.plan.plan import Plan
from scheduler.plan.request import Request


def rescue(plan: Plan, request: Request, outcome: Outcome) -> Settled | None:
    """Use a reply to an earlier attempt for a change that waits for the next one.

    Returns:
        The outcome, where the reply is a success: no other attempt is needed. Otherwise None.
    """
    vertex = request.vertex
    waits = plan.phases[vertex] in {Phase.RETRYING, Phase.WAITING}
    if not waits or not plan.state.attempts.failed(vertex):
        return None
    outcome, kept = plan.requests.look_at(request, outcome)
    if not outcome.completed or kept is None:
        return None
    return plan.applied(plan.state.ledger.completion(vertex, kept))


def adopt(plan: Plan, request: Request, outcome: Outcome) -> bool:
    """Keep a success that came after the change had failed, as ``adoptable`` beside the error.

    Returns:
        Whether it was kept, to be persisted (`take_adopted`): only a success is, and only the first.
    """
    vertex, state = request.vertex, plan.state
    if plan.phases[vertex] is not Phase.ERRORED or vertex not in state.ledger.final:
        return False
    outcome, kept = plan.requests.look_at(request, outcome)
    if not outcome.completed or kept is None or vertex in state.adoptable:
        return False
    state.unpersisted.append(plan.applied(state.ledger.late_success(vertex, kept)))
    return True


def take_adopted(plan: Plan) -> list[Settled]:
    """Take the outcomes to be persisted beside the returned ones, since the last call.

    They are those that `adopt` kept, and those that an earlier process had not persisted yet.
    """
    kept, plan.state.unpersisted = plan.state.unpersisted, []
    return kept
