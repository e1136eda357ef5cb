"""What an operator does to a build that runs: decided by its plan, persisted, and carried out by its walk.

What is asked for takes effect in the same breath in which it is decided, so that nothing else happens in
between; it is acknowledged when it is persisted.
"""

from collections.abc import Mapping
from typing import Any

from scheduler.definition.graph import Vertex
from scheduler.definition.model import Action
from scheduler.definition.template import Laborious
from scheduler.dispatch.router import Connectors
from scheduler.dispatch.slots import Slots
from scheduler.errors import InvalidRule, Refused
from scheduler.journal.events import Event, Extended, Settled, Supplied
from scheduler.plan import Phase, Plan, steering
from scheduler.text import count
from scheduler.walk import Walk

_MOST_SECONDS = 30 * 86_400.0


class Orders:
    """The wheel of one build.

    Args:
        walk: of the build, which is under way.
        connectors: know how long its attempts may take.
        slots: know its limits.

    Raises:
        Refused: it has not begun yet, or has come to its end.
    """

    def __init__(self, walk: Walk, connectors: Connectors, slots: Slots) -> None:
        self._walk = walk
        self._check_is_under_way()
        self._plan = walk.plan
        self._connectors = connectors
        self._slots = slots

    def _check_is_under_way(self) -> None:
        if not self._walk.steerable:
            raise Refused("unavailable", f"{self._walk.id} is starting or finishing; try again shortly")

    async def cancel(self, *, now: bool, reason: str) -> str:
        """Send nothing more; ``now``: nor await what is in flight. Returns a sentence for a person."""
        walk, plan = self._walk, self._plan
        events: list[Event] = []
        if not (now and plan.cancelled):
            events = steering.cancel(plan, reason)
            walk.tell("cancelled")
        in_flight = plan.in_flight
        walk.withdraw_unsent()
        if now:
            walk.give_up_on_replies("given up by an operator, who cancelled the build")
        await walk.persist(*events)
        if not in_flight:
            return "cancelled: nothing was in flight"
        if now:
            return f"cancelled: gave up on {count(in_flight, 'component')} in flight, their outcome unknown"
        return f"cancelled: {count(in_flight, 'component')} in flight will be awaited"

    async def pause(self) -> str:
        """Send nothing new for now."""
        events = steering.pause(self._plan, on=True)
        self._walk.pause()
        self._walk.tell("paused")
        await self._walk.persist(*events)
        return f"paused: nothing new is sent; {count(self._plan.in_flight, 'component')} in flight"

    async def resume(self) -> str:
        """Go on after a pause."""
        events = steering.pause(self._plan, on=False)
        self._walk.tell("resumed")
        try:
            await self._walk.persist(*events)
        finally:
            # What may have been sent before a restart goes out at once: not before the log says so.
            self._walk.unpause()
        return "resumed"

    async def retry(self, vertex: Vertex | None) -> tuple[str, int]:
        """Have what has failed sent again; returns a sentence, and how many components that are."""
        before = self._settled()
        events, text, components = retry(self._plan, vertex)
        self._walk.tell("retried", vertex)
        await self._carry_out(events, before)
        return text, components

    async def supply(self, vertex: Vertex, output: Mapping[str, Any]) -> str:
        """Have a component complete with this output, without being sent (again)."""
        before = self._settled()
        try:
            events = steering.supply(self._plan, vertex, output)
        except Laborious:
            await self._walk.render_now(vertex)
            try:
                self._check_is_under_way()
                before = self._settled()
                events = steering.supply(self._plan, vertex, output)
            finally:
                self._plan.requests.let_go(vertex)
        self._walk.tell("skipped", vertex)
        await self._carry_out(events, before)
        return supplied(self._plan, vertex)

    def _settled(self) -> set[Vertex]:
        return set(self._plan.phases.within(Phase.ERRORED, Phase.SKIPPED))

    async def _carry_out(self, events: list[Event], before: set[Vertex]) -> None:
        walk, plan = self._walk, self._plan
        walk.told_to_wait(sorted(v for v in before if plan.phase(v) is Phase.WAITING))
        for event in events:
            if isinstance(event, Settled):
                walk.end(plan.graph.index[event.component])
            elif isinstance(event, Supplied):
                walk.stir(plan.graph.index[event.component])
        walk.respawn()
        await walk.persist(*events)

    async def extend(self, vertex: Vertex, seconds: float) -> str:
        """Give an attempt that is in flight more time."""
        name = self._plan.graph.ids[vertex]
        if not 0 < seconds <= _MOST_SECONDS:
            raise Refused("invalid", f"seconds: above 0 and at most {_MOST_SECONDS:.0f}")
        call = self._walk.call_of(vertex)
        if call is None:
            phase = self._plan.phase(vertex).value
            raise Refused("conflict", f"{name} is {phase}: only what is in flight can be given more time")
        if call.answered:
            # Behind the outcome the log has no place for it.
            raise Refused("conflict", f"{name} has just been answered: it needs no more time")
        self._connectors.extend(call, seconds)
        self._walk.tell("extended", vertex)
        await self._walk.persist(Extended(name, seconds))
        return f"{name} has {seconds:g} s more"

    async def limit(self, limits: Mapping[str, int | str]) -> str:
        """Give the build other limits of its own."""
        try:
            events = steering.limit(self._plan, limits)
        except InvalidRule as error:
            raise Refused("invalid", f"limits: {error}") from None
        self._slots.change(self._walk, self._plan.rules)
        self._walk.tell("limited")
        await self._walk.persist(*events)
        return f"limits: {', '.join(map(str, self._plan.rules)) or 'none'}"


def retry(plan: Plan, vertex: Vertex | None) -> tuple[list[Event], str, int]:
    """As `Plan.retry`; also returns what is to be sent by that, as a sentence, and how many components it is.

    Where nothing would have been sent any more, that is also what was never sent.
    """
    idle = plan.halted or plan.finished
    expected = set() if idle else set(plan.phases.within(Phase.WAITING))
    events = steering.retry(plan, vertex)
    adopted = sum(isinstance(event, Settled) for event in events)
    again = len(getattr(events[0], "components", ())) - adopted
    due = set(plan.phases.within(Phase.WAITING)) - expected
    total = sum(plan.build.changes[one].action is not Action.NONE for one in due)
    text = f"{count(total, 'component')} will be sent"
    if total == again:
        text += " again"
    elif again:
        text += f", {again:,} of them again"
    if adopted:
        text += f"; of {adopted} a late success is taken instead"
    return events, text, total + adopted


def supplied(plan: Plan, vertex: Vertex) -> str:
    """What `Plan.supply` decided, as a sentence for a person."""
    name = plan.graph.ids[vertex]
    if plan.phase(vertex) is Phase.COMPLETED:
        return f"{name} is completed with this output"
    return f"{name} will be completed with this output when it is due"
