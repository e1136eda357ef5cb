"""Finds the builds that operators name: those that run here, and finished ones in the logs."""

from collections.abc import Callable, Sequence
from typing import Final

import trio

from scheduler.control.finished import FinishedBuilds
from scheduler.definition.graph import Vertex
from scheduler.errors import Refused
from scheduler.journal.events import Event
from scheduler.journal.orders import Order
from scheduler.plan import Plan
from scheduler.recovery.reopening import Reopener
from scheduler.recovery.replaying import Replayer
from scheduler.supervision.explainer import Seen
from scheduler.supervision.roster import Roster
from scheduler.walk import Steering

_ENDING: Final = 5.0
"""Seconds that a build may take from its report to its removal."""


class BuildFinder:
    """Finds builds by id, to look at them or to change them.

    Args:
        roster: the builds that run.
        store: name of the store.
        reopener: begins further runs of finished builds; None if the store keeps none.
        replayer: reads finished builds; None if the store keeps none.
    """

    def __init__(
        self, roster: Roster, store: str, reopener: Reopener | None, replayer: Replayer | None
    ) -> None:
        self._roster = roster
        self._store = store
        self._reopener = reopener
        self._finished = None if replayer is None else FinishedBuilds(replayer)

    async def run(self) -> None:
        """Drop finished builds that are not asked for any more."""
        if self._finished is not None:
            await self._finished.run()

    def is_running(self, build: object) -> bool:
        """Return whether this is the id of a build that is in memory here."""
        return isinstance(build, str) and self._roster.see(build) is not None

    async def find(self, build: str) -> Seen:
        """Return a build as it stands.

        Raises:
            Refused: there is none of this id.
            UnreadableLog, BusError: its log cannot be read.
        """
        seen = self._roster.see(build)
        if seen is None and self._finished is not None:
            seen = await self._finished.seen(build)
        if seen is None:
            raise Refused("unknown", f"there is no build {build!r} here")
        return seen

    async def steer(self, build: str, order: Order) -> tuple[Steering, Seen]:
        """Return the commands of a build that runs here, and the build, to carry out an order.

        Raises:
            CarriedOut: that was done before.
            Refused: it does not run here, or is starting or finishing.
            UnreadableLog, BusError: its log cannot be read.
        """
        seen = self._roster.see(build)
        if seen is not None:
            seen.orders.check_new(order)
        if seen is not None and seen.over:
            raise Refused("conflict", f"{build} is finished ({seen.status})")
        if seen is not None and seen.walk is not None:
            return seen.walk.steer(), seen
        if self._finished is not None and (found := await self._finished.seen(build)) is not None:
            found.orders.check_new(order)
            if not found.plan.state.finished:
                elsewhere = "it may be taken up soon, or be quarantined"
                raise Refused("unavailable", f"{build} is not finished, and not held here: {elsewhere}")
            raise Refused("conflict", f"{build} is finished ({found.status})")
        raise Refused("unknown", f"there is no build {build!r} that runs here")

    async def keeps_running(self, build: str) -> bool:
        """Return whether a build runs here; waits for one whose report is on its way."""
        seen = self._roster.see(build)
        if seen is None or not seen.over:
            return seen is not None
        with trio.move_on_after(_ENDING):
            await self._roster.until_gone(build)
        return self._roster.see(build) is not None

    async def reopen(self, build: str, decide: Callable[[Plan], Sequence[Event]], order: Order) -> Seen:
        """Begin a new run of a finished build, for what is decided by an order, and return the build.

        Raises:
            CarriedOut: that was done before.
            Refused: there is no such build, or it cannot have another run now, or ``decide`` says so.
            UnreadableLog, Fenced, BusError, StoreError: its log cannot be read or written.
        """
        if self._roster.stopping:
            raise Refused("unavailable", "the scheduler is shutting down")
        if self._reopener is None:
            text = f"no build {build!r} runs here, and the store {self._store} keeps none that is finished"
            raise Refused("unknown", f"{text}: submit what is left to be done as a build of its own")
        walk = await self._reopener.reopen(build, decide, order)
        seen = self._roster.see(build)
        if walk is None or seen is None:
            # Another run has just begun; or this one is finished already.
            raise Refused("unavailable", f"{build} is starting or finishing; try again shortly")
        return seen


def vertex_of(plan: Plan, component: str) -> Vertex:
    """Return the vertex of a component.

    Raises:
        Refused: the build has no such component.
    """
    vertex = plan.graph.index.get(component)
    if vertex is None:
        raise Refused("unknown", f"{plan.build.id} has no component {component!r}")
    return vertex
