"""Commands of operators: what they change in a plan, while its build runs or after it has failed.

Each function decides: it applies its events to the plan's state at once, and returns the events to be
persisted, in this order. If it raises, nothing was changed.
"""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from scheduler.definition.graph import Vertex
from scheduler.definition.model import UNSENT, Action
from scheduler.definition.rules import read_limits
from scheduler.errors import Refused
from scheduler.journal.events import Cancelled, Event, Limited, Paused, Retried, Settled, Supplied, Unpaused
from scheduler.journal.orders import Order
from scheduler.plan.phases import Phase
from scheduler.plan.plan import Plan
from scheduler.text import count

_LONGEST_REASON = 4_000
"""Characters of an operator's reason that are kept."""
_LONGEST_CLAIM = 256
"""Characters of a name that are kept."""
_OF_A_REPLY = "the reply's "
_LATER = "it was cancelled; try again when what is in flight has ended"


def recorded(plan: Plan, order: Order) -> Order:
    """Return an order as it is kept: without secrets of the build, since everybody who asks is shown it."""
    masked = plan.texts.masked
    return replace(
        order, claim=masked(order.claim, _LONGEST_CLAIM), reason=masked(order.reason, _LONGEST_REASON)
    )


def cancel(plan: Plan, reason: str = "") -> list[Event]:
    """Cancel the build: send nothing new, and await what is in flight.

    Raises:
        Refused: the build is cancelled already.
    """
    if plan.state.cancelled:
        raise Refused("conflict", "it was cancelled before, and what is in flight is awaited")
    # Operators' words are kept without secrets, unlike connectors'.
    cause = f"cancelled: {plan.cut(plan.texts.masked(reason, _LONGEST_REASON))}" if reason else "cancelled"
    return _applied(plan, Cancelled(cause))


def pause(plan: Plan, *, on: bool) -> list[Event]:
    """Pause the build, so that nothing new is sent for now; or resume it.

    Raises:
        Refused: the build is in that state already, or sends nothing new any more.
    """
    if on and plan.state.draining:
        raise Refused("conflict", f"nothing new is sent any more: {plan.texts.cause}")
    if on is plan.state.paused:
        raise Refused("conflict", "it is paused already" if on else "it is not paused")
    return _applied(plan, Paused() if on else Unpaused())


def retry(plan: Plan, vertex: Vertex | None = None, *, behind: bool = False) -> list[Event]:
    """Send a failed change again, or all of them. After the end of the build this begins a new run.

    A late success that was kept beside an error is adopted instead. The operator has seen the failures that
    are not sent again: the build continues without them, and without what depends on them.

    Args:
        plan: the plan of the build.
        vertex: the change; None for all that have failed.
        behind: whether what depends on it, directly or not, is sent again as well, as far as it has failed;
            the change itself may be completed then, and stays so.

    Raises:
        Refused: there is nothing to retry, or the build is cancelled.
    """
    failed = plan.phases.within(Phase.ERRORED)
    chosen = failed if vertex is None else _failed_from(plan, vertex) if behind else [vertex]
    if vertex is not None and not behind and vertex not in failed:
        name, phase = plan.graph.ids[vertex], plan.phases[vertex].value
        raise Refused("conflict", f"{name} is {phase}: only what has failed can be tried again")
    if plan.state.finished and plan.phases.settled - len(failed) == len(plan.phases):
        raise Refused("conflict", "every component is completed: there is nothing to be tried again")
    if not plan.state.finished and plan.state.cancelled:
        raise Refused("conflict", _LATER)
    if not plan.state.finished and not failed:
        raise Refused("conflict", "no component has failed")
    late = {one: plan.state.adoptable[one] for one in chosen if one in plan.state.adoptable}
    events = _applied(plan, _reopened(plan, chosen))
    for one, body in late.items():
        events += _applied(plan, plan.state.ledger.completion(one, body))
    return events


def retry_now(plan: Plan, vertex: Vertex, why: str) -> list[Event]:
    """Give up on the attempt of a change, or on the pause before its next one, and have it sent again.

    The change fails by that, and is retried: it gets all its attempts, and all their time, again. In a build
    that drains this is a retry like any other.

    Args:
        plan: the plan of the build.
        vertex: the change.
        why: error of the attempt that is given up.

    Raises:
        Refused: nothing of the change is in flight, nor did it fail; or the build is cancelled.
    """
    name, phase = plan.graph.ids[vertex], plan.phases[vertex]
    if phase is Phase.ERRORED:
        return retry(plan, vertex)
    if phase is Phase.STARTING:
        raise Refused("conflict", f"{name} is just about to be sent")
    if vertex in plan.gates:
        raise Refused("conflict", f"{name} is a gate: nothing of it is sent that could be sent again")
    if phase not in {Phase.RUNNING, Phase.RETRYING}:
        cure = "only what is in flight, waits for its next attempt or has failed can be sent again now"
        raise Refused("conflict", f"{name} is {phase.value}: {cure}")
    if plan.state.cancelled:
        raise Refused("conflict", _LATER)
    events: list[Event] = [plan.fail(vertex, why)]
    events += _applied(plan, _reopened(plan, [vertex]))
    # They wait again, and nobody was told of it.
    plan.state.take_skips()
    return events


def _failed_from(plan: Plan, vertex: Vertex) -> list[Vertex]:
    """Return what has failed of a change and all that depends on it.

    Raises:
        Refused: nothing of it has, and nothing of it is left over from a run that has ended.
    """
    part = {vertex, *plan.graph.descendants(vertex)}
    errored = plan.phases.within(Phase.ERRORED)
    failed = [one for one in errored if one in part]
    left = part.intersection(plan.phases.within(Phase.SKIPPED, Phase.WAITING))
    if failed or (plan.state.finished and not left <= plan.graph.descendants(*errored)):
        return failed
    ids = plan.graph.ids
    if left and (blocking := plan.graph.ancestors(min(left)).intersection(errored)):
        cure = f"retry that one, or skip it: {ids[min(blocking)]}"
        raise Refused("conflict", f"{ids[min(left)]} depends on what has failed; {cure}")
    raise Refused("conflict", f"nothing has failed of {ids[vertex]} and what depends on it")


def supply(plan: Plan, vertex: Vertex, output: Mapping[str, Any]) -> list[Event]:
    """Complete a change with an output that an operator supplies, without sending it (again).

    A change that waits for its dependencies completes when it is due; any other at once. In a finished build
    a new run begins.

    Raises:
        Refused: the change is completed; it has failed in a cancelled build that is not finished; it is a
            gate; or a ``find``, and its connector could not have returned this output.
        Laborious: rendering it takes long (`Requests.rendering`); nothing was changed.
    """
    phase = plan.phases[vertex]
    name = plan.graph.ids[vertex]
    if phase is Phase.COMPLETED:
        raise Refused("conflict", f"{name} is completed already")
    change = plan.build.changes[vertex]
    if vertex in plan.gates:
        # Who may skip components is not thereby who may approve.
        again = "retry it, and then " if phase is Phase.ERRORED else ""
        cure = f"{again}approve it: {shlex.join(['scheduler', 'approve', plan.build.id, name])}"
        raise Refused("conflict", f"{name} is a gate, and not to be skipped; {cure}")
    if change.action is Action.FIND:
        # Checked as it will be merged: an operator is refused what a connector would be refused.
        refusal = plan.state.ledger.checked_find({**change.fields, **output}).error
        if refusal is not None:
            raise Refused("invalid", f"output: {refusal.removeprefix(_OF_A_REPLY)}")
    if phase is Phase.ERRORED and plan.state.cancelled and not plan.state.finished:
        raise Refused("conflict", _LATER)
    if phase is not Phase.WAITING or plan.state.finished:
        plan.requests.render_first(vertex)
    plan.requests.learn_output(vertex, output)
    events: list[Event] = []
    if plan.state.finished:
        events += _applied(plan, _reopened(plan, [vertex] if phase is Phase.ERRORED else []))
        if phase is Phase.WAITING:
            # In this run the build continues without what is behind a failure.
            phase = plan.phases[vertex]
    events += _applied(plan, Supplied(name, output))
    if phase is not Phase.WAITING:
        events.append(plan.complete_with(vertex, output))
    plan.requests.let_go(vertex)
    return events


def limit(plan: Plan, limits: Mapping[str, int | str]) -> list[Event]:
    """Replace the limits of the build itself.

    Raises:
        InvalidRule: the limits cannot be read.
    """
    read_limits(limits)
    return _applied(plan, Limited(limits))


def _reopened(plan: Plan, chosen: Sequence[Vertex]) -> Retried:
    """Return the event that sets failed changes back to waiting, despite all other failures."""
    names = tuple(plan.graph.ids[vertex] for vertex in chosen)
    return Retried(names, plan.state.run + 1 if plan.state.finished else plan.state.run)


def _applied(plan: Plan, event: Event) -> list[Event]:
    plan.state.apply(event)
    return [event]


def retry_told(plan: Plan, vertex: Vertex | None, *, behind: bool = False) -> tuple[list[Event], str, int]:
    """Decide as `retry` does; also return what will be sent, as a sentence, and the number of components.

    Where nothing would have been sent any more, that is also what was never sent.
    """
    idle = plan.state.halted or plan.state.finished
    expected = set() if idle else set(plan.phases.within(Phase.WAITING))
    events = retry(plan, vertex, behind=behind)
    adopted = sum(isinstance(event, Settled) for event in events)
    chosen = [plan.graph.index[name] for name in getattr(events[0], "components", ())]
    asking = len(plan.gates.intersection(chosen))
    again = len(chosen) - adopted - asking
    due = set(plan.phases.within(Phase.WAITING)) - expected
    total = sum(plan.build.changes[one].action not in UNSENT for one in due)
    text = f"{count(total, 'component')} will be sent"
    if total == again:
        text += " again"
    elif again:
        text += f", {again:,} of them again"
    if asking:
        asks = f"{count(asking, 'gate')} will ask for approval again"
        text = f"{text}; {asks}" if total else asks
    if adopted:
        text += f"; of {adopted} a late success is taken instead"
    return events, text, total + asking + adopted


def supplied(plan: Plan, vertex: Vertex) -> str:
    """Return what `supply` decided, as a sentence for a person."""
    name = plan.graph.ids[vertex]
    if plan.phases[vertex] is Phase.COMPLETED:
        return f"{name} is completed with this output"
    return f"{name} will be completed with this output when it is due"
