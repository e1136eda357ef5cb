"""Reopens finished builds: begins a further run of one, for a command of an operator."""

from collections.abc import Callable, Sequence

import structlog
import trio
from attrs import evolve
from msgspec.structs import replace

from scheduler.definition.reply_subjects import draw_key, is_secret
from scheduler.definition.template import Laborious
from scheduler.errors import Refused
from scheduler.jetstream.streams import log_subject
from scheduler.journal.events import Event, Rekeyed
from scheduler.journal.history import History
from scheduler.journal.orders import ORDER_CARRIED_OUT, Order
from scheduler.journal.records import Status, read_headers
from scheduler.plan import Phase, Plan, late_replies, steering
from scheduler.recovery.adoption import adopt_what_came_late
from scheduler.recovery.orphans import Orphans
from scheduler.recovery.replaying import Replayer
from scheduler.stores.jetstream import JetStreamStore
from scheduler.supervision.planner import Planner
from scheduler.supervision.roster import Roster
from scheduler.supervision.runner import Runner
from scheduler.supervision.supervisor import Supervisor
from scheduler.walk import Walk

_log = structlog.get_logger()

Decide = Callable[[Plan], Sequence[Event]]
"""Changes a plan, and returns the events to be persisted."""


class Reopener:
    """Reopens builds.

    Args:
        store: store with the logs.
        replayer: makes plans of them.
        planner: renders components that take long.
        roster: roster that holds the ids of builds.
        supervisor: resumes the builds that were reopened.
        runner: lets go of those that were not.
        orphans: learn of a build whose record may still be under way when that fails.
    """

    def __init__(
        self,
        store: JetStreamStore,
        replayer: Replayer,
        *,
        planner: Planner,
        roster: Roster,
        supervisor: Supervisor,
        runner: Runner,
        orphans: Orphans,
    ) -> None:
        self._store = store
        self._replayer = replayer
        self._planner = planner
        self._roster = roster
        self._supervisor = supervisor
        self._runner = runner
        self._orphans = orphans

    async def reopen(self, build: str, decide: Decide, order: Order) -> Walk | None:
        """Begin a new run of a finished build.

        Args:
            build: its id.
            decide: decides what the run is for.
            order: order of the operator who wants it.

        Returns:
            The walk; None where the build runs here already.

        Raises:
            CarriedOut: the order was carried out before, as the log says.
            Refused: there is no such build, it is not finished, or ``decide`` refuses.
            UnreadableLog, Fenced, BusError, StoreError: its log cannot be read, or not be written.
        """
        held = await self._roster.reserve(build)
        if held is None:
            return None
        try:
            last = await self._store.logs.last(log_subject(build))
            if last is None:
                raise Refused("unknown", f"there is no build {build}")
            if read_headers(last.headers).status is not Status.REPORTED:
                raise Refused("unavailable", f"{build} is not finished, and not held here; try again shortly")
            history = await self._store.logs.history(log_subject(build))
            history.orders.check_new(order)
            plan, accepted = await self._replayer.replay(history)
            events = await self._decided(plan, history, decide)
            log = self._store.open(
                build,
                sequence=last.sequence,
                n=history.n,
                epoch=history.epoch + 1,
                at=(history.latest + 1) / 1_000,
            )
            order = steering.recorded(plan, replace(order, time=log.clock()))
            await log.append(*events, order=order)
            history.orders.add(order)
            _log.info(ORDER_CARRIED_OUT, build=build, **order.document())
            if isinstance(events[0], Rekeyed):
                history.rekey(events[0].key)
            caught_up = trio.Event()
            caught_up.set()
            resumption = self._replayer.resumption(plan, history, caught_up, self._store.positions.seen)
            resumption = evolve(resumption, starts=await self._replayer.starts(plan, history))
            return await self._supervisor.resume(held, plan, accepted, resumption, history)
        finally:
            if held.walk is None:
                self._store.close(build)
                self._runner.let_go(held)
                # The record may be under way, and then no process works on the build.
                self._orphans.note()

    async def _decided(self, plan: Plan, history: History, decide: Decide) -> list[Event]:
        """Return the events to write: a key where the old one was no secret, the decision, late successes."""
        store, planner = self._store, self._planner
        await adopt_what_came_late(
            store.js, store.replies, plan, history, limits=planner.limits, render=planner.render
        )
        adopted = late_replies.take_adopted(plan)
        try:
            decided = decide(plan)
        except Laborious:
            vertex = plan.requests.laborious
            assert vertex is not None, "it is one of the build"
            await planner.render(plan, vertex)
            decided = decide(plan)
        key: list[Event] = [] if is_secret(history.key) else [Rekeyed(draw_key())]
        errored = [one for one in adopted if plan.phases[plan.graph.index[one.component]] is Phase.ERRORED]
        return [*key, *decided, *errored]
