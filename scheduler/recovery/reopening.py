"""A build that is over begins a further run, because an operator wants it."""

from collections.abc import Callable, Sequence

import trio

from scheduler.definition.reply_subjects import draw_key, is_secret
from scheduler.definition.template import Laborious
from scheduler.errors import Refused
from scheduler.jetstream.streams import log_subject
from scheduler.journal.events import Event, Rekeyed
from scheduler.journal.history import History
from scheduler.journal.records import Status, read_headers
from scheduler.plan import Phase, Plan
from scheduler.recovery.adoption import adopt_what_came_late
from scheduler.recovery.replaying import Replayer
from scheduler.stores.jetstream import JetStreamStore
from scheduler.stores.positions import ReplyPositions
from scheduler.supervision.supervisor import Supervisor
from scheduler.walk import Walk

Decide = Callable[[Plan], Sequence[Event]]
"""Changes a plan, and says what is to be persisted of that."""


class Reopener:
    """Reopens builds.

    Args:
        store: has the logs.
        replayer: makes plans of them.
        supervisor: runs what was reopened.
        positions: up to where the captured replies were dealt with.
    """

    def __init__(
        self,
        store: JetStreamStore,
        replayer: Replayer,
        supervisor: Supervisor,
        positions: ReplyPositions,
    ) -> None:
        self._store = store
        self.replayer = replayer
        self._supervisor = supervisor
        self._positions = positions

    async def reopen(self, build: str, decide: Decide) -> Walk | None:
        """Begin a new run of a build that is over.

        Args:
            build: its id.
            decide: what the run is for.

        Returns:
            The walk; None where the build runs here already.

        Raises:
            Refused: there is no such build, it is not over, or ``decide`` says so.
            UnreadableLog, Fenced, BusError, StoreError: its log cannot be read, or not be written.
        """
        supervisor = self._supervisor
        held = await supervisor.reserve(build)
        if held is None:
            return None
        try:
            last = await self._store.logs.last(log_subject(build))
            if last is None:
                raise Refused("unknown", f"there is no build {build}")
            if read_headers(last.headers).status is not Status.REPORTED:
                raise Refused("unavailable", f"{build} is not over, and not held here; try again shortly")
            history = await self._store.logs.history(log_subject(build))
            plan, accepted = await self.replayer.replay(history)
            events = await self._decided(plan, history, decide)
            log = self._store.open(
                build,
                sequence=last.sequence,
                n=history.n,
                epoch=history.epoch + 1,
                at=(history.latest + 1) / 1_000,
            )
            await log.append(*events)
            if isinstance(events[0], Rekeyed):
                history.rekey(events[0].key)
            caught_up = trio.Event()
            caught_up.set()
            resumption = self.replayer.resumption(plan, history, caught_up, self._positions.seen)
            return await supervisor.go_on(held, plan, accepted, resumption, history)
        finally:
            if held.walk is None:
                self._store.close(build)
                supervisor.let_go(held)
                # What was to be written may be under way, and then nobody works on the build.
                supervisor.on_orphan()

    async def _decided(self, plan: Plan, history: History, decide: Decide) -> list[Event]:
        """What is to be written: a key where the old one was no secret, the decision, late successes."""
        store, supervisor = self._store, self._supervisor
        await adopt_what_came_late(
            store.js, store.replies, plan, history, limits=supervisor.limits, render=supervisor.render
        )
        adopted = plan.adopted()
        try:
            decided = decide(plan)
        except Laborious:
            vertex = plan.requests.laborious
            assert vertex is not None, "it is one of the build"
            await supervisor.render(plan, vertex)
            decided = decide(plan)
        key: list[Event] = [] if is_secret(history.key) else [Rekeyed(draw_key())]
        errored = [one for one in adopted if plan.phases[plan.graph.index[one.component]] is Phase.ERRORED]
        return [*key, *decided, *errored]
