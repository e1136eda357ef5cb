"""Replays logs: makes the plan of a build as its log says, and what a walk needs to resume it."""

from collections.abc import Awaitable, Callable

import trio

from scheduler.definition.reply_subjects import is_secret
from scheduler.definition.template import INLINE_WORK
from scheduler.definition.validation import Prepared
from scheduler.errors import UnreadableLog
from scheduler.jetstream.streams import log_subject
from scheduler.journal.events import Accepted
from scheduler.journal.history import History
from scheduler.journal.records import Position
from scheduler.plan import Plan
from scheduler.plan.steering import recorded
from scheduler.recovery.rates import recent_starts
from scheduler.runtime.interruptible import interruptible
from scheduler.runtime.pace import TURN, Pace
from scheduler.stores.jetstream import JetStreamStore
from scheduler.stores.slices import encode as encode_in_slices
from scheduler.supervision.explainer import Seen
from scheduler.supervision.planner import Planner
from scheduler.tracing.build import BuildTrace
from scheduler.walk import Resumption

_REPLAYED_AT_ONCE = 100
"""Events replayed before other builds have a turn: about a millisecond."""

Pause = Callable[[], Awaitable[None]]
Reader = Callable[[bytes, Accepted], Awaitable[Prepared]]
"""Reads and checks a build as it was accepted."""


class Replayer:
    """Makes plans of logs. It writes nothing.

    Args:
        store: store with the logs.
        planner: makes plans, and renders components that take long.
        read: reads a build as it was accepted.
    """

    def __init__(self, store: JetStreamStore, planner: Planner, read: Reader) -> None:
        self._store = store
        self._planner = planner
        self._read = read

    async def replay(
        self, history: History, pause: Pause = trio.lowlevel.checkpoint
    ) -> tuple[Plan, Accepted]:
        """Return the plan as a log says, and the first event of the log.

        Args:
            history: history of the log.
            pause: awaited after each slice of the work.

        Raises:
            UnreadableLog: this version cannot understand it.
        """
        accepted = history.accepted
        if accepted is None:
            msg = "its log is empty"
            raise UnreadableLog(msg)
        prepared = await self._read(await encode_in_slices(accepted.document), accepted)
        trace = None
        if history.trace is not None:
            trace = BuildTrace.of(history.trace, prepared.build.id, accepted.mark)
        plan = await self._planner.plan(prepared, accepted.mark, trace)
        pace = Pace(TURN // _REPLAYED_AT_ONCE, pause)
        for step in history.steps:
            work, unlearned = plan.requests.work_left, len(plan.requests.unlearned)
            with interruptible(plan.build.id):
                plan.replay(step)
            await pace.turn(
                work - plan.requests.work_left + (len(plan.requests.unlearned) - unlearned) * INLINE_WORK
            )
        for vertex in plan.requests.unlearned:
            await self._planner.render(plan, vertex)
            plan.requests.learn_request(vertex)
        # Nobody knew the secrets of a build that could not be loaded.
        history.orders.revise(lambda order: recorded(plan, order) if order.verb == "release" else order)
        return plan, accepted

    async def look(self, build: str, pause: Pause) -> tuple[Seen, History]:
        """Return a build as its log says, without taking it up.

        Args:
            build: its id.
            pause: awaited after each slice of the work.

        Raises:
            UnreadableLog: this version cannot understand it.
            BusError: JetStream could not be asked.
        """
        history = await self._store.logs.history(log_subject(build))
        plan, _ = await self.replay(history, pause)
        return await self._planner.recalled(plan, history), history

    async def last_sequence(self, build: str) -> int | None:
        """Return the last sequence of the log of a build; None where there is none.

        Raises:
            BusError: JetStream could not be asked.
        """
        last = await self._store.logs.last(log_subject(build))
        return None if last is None else last.sequence

    async def starts(self, plan: Plan, history: History) -> list[tuple[str, float]]:
        """Return what counts for a build's own rates, as `Resumption.starts`.

        Args:
            plan: plan of the build, as `replay` made it.
            history: history of the log.
        """
        now = max(self._store.wall_clock() * 1_000, history.latest)
        doubt = 0.0 if history.writer == self._store.instance else history.doubt(now)
        return await recent_starts(plan, history, now, doubt)

    def resumption(self, plan: Plan, history: History, caught_up: trio.Event, after: Position) -> Resumption:
        """Return the times that a walk needs to resume where the log ends.

        Args:
            plan: plan of the build, as `replay` made it.
            history: history of the log.
            caught_up: event that is set when the replies that came meanwhile were read.
            after: position up to which captured replies have been handled.
        """
        # Where our clock is behind that of the process before us, or a clock was set, a pause or a deadline
        # has as much time left as it had.
        now = max(self._store.wall_clock() * 1_000, history.latest)
        index = plan.graph.index

        def ago(at: float) -> float:
            return max(0.0, (now - at) / 1_000)

        flights = {index[component]: flight for component, flight in history.in_flight.items()}
        return Resumption(
            caught_up,
            after,
            {vertex: ago(flight.since) for vertex, flight in flights.items()},
            pauses={
                index[component]: max(0.0, (until - now) / 1_000)
                for component, until in history.pauses.items()
            },
            extended={v: flight.extended / 1_000 for v, flight in flights.items() if flight.extended}
            | {index[gate]: more / 1_000 for gate, more in history.extended.items()},
            # While the build is paused, only up to when the pause began to count for the component.
            begun={
                index[component]: max(0.0, (history.held.get(component, now) - began) / 1_000)
                for component, began in history.began.items()
            },
            old={v: flight.key for v, flight in flights.items() if flight.key and not is_secret(flight.key)},
        )
