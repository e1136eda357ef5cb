"""The end of a run: when everything is done, or nothing more can be."""

from scheduler.definition.graph import Vertex
from scheduler.errors import IllegalTransition, Stuck
from scheduler.journal.events import Finished, Settled, Withdrawn
from scheduler.plan.phases import Phase
from scheduler.plan.plan import Plan


def finish(plan: Plan) -> Finished:
    """Return the event that ends the run. It is not applied here: nothing follows it in this process.

    Raises:
        Stuck: something is in flight; or nothing is, and nothing explains why changes are not completed.
    """
    phases, build = plan.phases, plan.build.id
    if phases.in_flight:
        raise Stuck(f"{phases.in_flight} changes are in flight at the end of build {build}")
    if not plan.state.draining and (left := phases.within(Phase.WAITING, Phase.RETRYING)):
        waiting = [plan.graph.ids[vertex] for vertex in left[:5]]
        raise Stuck(f"build {build} is not halted, has nothing in flight, and {waiting} never began")
    return Finished(plan.state.cause)


def give_up_retrying(plan: Plan, vertex: Vertex) -> Settled:
    """Fail a change that waits for another attempt: the build was halted, so there will be none.

    Raises:
        IllegalTransition: the change does not wait for another attempt.
    """
    if plan.phases[vertex] is not Phase.RETRYING:
        msg = f"{plan.graph.ids[vertex]} is {plan.phases[vertex].name}, and not to be tried again"
        raise IllegalTransition(msg)
    return plan.fail(vertex, f"{plan.state.last_errors[vertex]} (not tried again: the build was halted)")


def abandon(plan: Plan, why: str) -> list[Settled | Withdrawn]:
    """Fail everything in flight, with its outcome unknown, and halt the build."""
    ended: list[Settled | Withdrawn] = []
    for vertex in range(len(plan.phases)):
        phase = plan.phases[vertex]
        if phase is Phase.STARTING:
            ended.append(plan.withdraw(vertex))
        elif phase is Phase.RUNNING:
            ended.append(plan.fail(vertex, why))
        elif phase is Phase.RETRYING:
            error = plan.state.last_errors[vertex]
            ended.append(plan.fail(vertex, f"{error} (not tried again: {why})"))
    plan.state.halt(why)
    return ended
