"""Begins the builds of this process: those that are submitted, and those that an earlier process left."""

import secrets
from collections.abc import Callable

import structlog
from attrs import evolve

from scheduler.definition.reply_subjects import draw_key
from scheduler.definition.validation import Prepared
from scheduler.dispatch.senders import UNKNOWN
from scheduler.errors import AlreadyLogged, StoreError
from scheduler.journal.events import Accepted
from scheduler.journal.history import History
from scheduler.journal.records import Status
from scheduler.plan import Phase, Plan
from scheduler.runtime.log_limits import RateLimitedLog
from scheduler.stores import Store
from scheduler.supervision.planner import Planner
from scheduler.supervision.refusals import refused
from scheduler.supervision.roster import Held, Roster
from scheduler.supervision.runner import Runner
from scheduler.tracing.context import TraceContext
from scheduler.tracing.tracer import Tracer
from scheduler.walk import Resumption, Walk, store_failure

_log = structlog.get_logger()

_MOST_LINES = 20
"""Log lines about builds that may hold mistakes, at a time."""
_MOST_HINTS = 5
"""Hints about one build in its log line."""


class Supervisor:
    """Begins builds.

    Args:
        roster: roster that holds the ids of builds.
        planner: makes plans.
        runner: runs the builds that begin.
        store: store of the builds.
        on_orphan: callback for when a build is submitted that has a log and is not held here, with the
            process that wrote the log last; empty where that is not known.
        name: name of this instance; empty where the store is not shared.
        tracer: begins the traces of builds.
    """

    def __init__(
        self,
        roster: Roster,
        planner: Planner,
        runner: Runner,
        store: Store,
        on_orphan: Callable[[str], None] = lambda _: None,
        *,
        name: str = "",
        tracer: Tracer | None = None,
    ) -> None:
        self._roster = roster
        self._planner = planner
        self._runner = runner
        self._store = store
        self._on_orphan = on_orphan
        self._name = name
        self._tracer = tracer or Tracer()
        self._log = RateLimitedLog(_log, burst=_MOST_LINES)

    async def submit(
        self, prepared: Prepared, sender: str = UNKNOWN, context: TraceContext | None = None
    ) -> bool:
        """Accept a build: persist it, and begin it.

        A build submitted again with the same content was accepted before; that changes nothing.

        Args:
            prepared: the build.
            sender: its sender (`senders.sender_of`).
            context: trace context that it came with; None where there is none.

        Returns:
            Whether it is finished already: it was accepted before, and has been reported.

        Raises:
            InvalidBuild: ``running``, ``finished``, ``quarantined``, ``busy``, ``shutting_down`` or
                ``store``.
        """
        build = prepared.build.id
        held = await self._roster.enter(build, prepared.digest, sender)
        if held is None:
            return False
        key = draw_key() if self._store.in_order else ""
        # A store that gives builds back to the next process, and keeps none of our data, has no mark.
        mark = secrets.token_hex(8) if self._store.in_order or not self._store.resumable else ""
        new, finished = True, False
        try:
            trace = self._tracer.begin(context, build, mark, prepared.build.action)
            plan, accepted = await self._planner.accept(prepared, key, mark, trace)
            await self._store.append(build, [accepted])
        except AlreadyLogged as known:
            new, finished = False, known.status == Status.REPORTED
            if known.digest != prepared.digest.hex() or build in self._roster.quarantined:
                held.refusal = self._known(build, known)
                raise refused(*held.refusal) from None
            if not finished:
                self._on_orphan(known.owner)
        except StoreError as error:
            held.refusal = "store", prepared.secrets.mask(store_failure(error), 2_000)
            raise refused(*held.refusal) from None
        except BaseException:
            held.refusal = "internal", "it could not be taken; see the scheduler's log"
            raise
        finally:
            if held.refusal is not None or not new:
                self._runner.let_go(held)
        if new:
            self._log_hints(prepared)
            walk, track = self._runner.prepare(plan, self._planner.timings(plan), key=key)
            self._runner.start(held, walk, track)
            self._roster.begun["submitted"] += 1
        return finished

    def _log_hints(self, prepared: Prepared) -> None:
        if prepared.hints:
            shown = [str(hint) for hint in prepared.hints[:_MOST_HINTS]]
            found = len(prepared.hints)
            self._log.warning("build may hold mistakes", build=prepared.build.id, found=found, hints=shown)

    def _known(self, build: str, known: AlreadyLogged) -> tuple[str, str]:
        """Return the code and the text of the refusal of a build whose id has a log."""
        quarantined = self._roster.quarantined
        if build in quarantined:
            return "quarantined", f"build {build} is quarantined: {quarantined[build]}"
        if known.status == Status.REPORTED:
            text = f"a build {build} with other content has finished; give this one an id of its own"
            return "finished", text
        return "running", f"build {build} is running, with other content"

    async def resume(
        self,
        held: Held,
        plan: Plan,
        accepted: Accepted,
        resumption: Resumption,
        history: History,
        *,
        owner: str = "",
    ) -> Walk:
        """Resume a build that an earlier process left, whose plan was replayed from its log.

        Args:
            held: the build, from `Roster.reserve`.
            plan: plan as the log says.
            accepted: first event of the log.
            resumption: times from the log.
            history: history of the log.
            owner: process that had the build until now; empty where that is not known.

        Raises:
            PlanError: the plan cannot be resumed.
        """
        timings = self._planner.timings_of(plan, history)
        if plan.state.run != history.run:
            timings.begin_run(plan.phases.unsettled(), timings.clock())
        if plan.gates:
            undecided = [gate for gate in plan.gates if plan.phases[gate] is Phase.WAITING]
            resumption = evolve(resumption, waited={gate: timings.waited(gate) for gate in undecided})
        walk, track = self._runner.prepare(plan, timings, key=history.key, resumption=resumption)
        # A watcher that has followed the build so far has seen fewer events than this.
        track.sequence = 2 * len(history.steps)
        track.orders = history.orders
        await walk.prepare()
        # Made of the build as submitted: the one kept differs, if only in its states.
        held.digest = bytes.fromhex(accepted.digest)
        in_flight = plan.phases.in_flight
        _log.info(
            "build taken up",
            build=held.build,
            in_flight=in_flight,
            settled=plan.phases.settled,
            owner_before=owner,
        )
        track.taken_over(in_flight, self._name)
        self._runner.start(held, walk, track)
        if owner and track.spans is not None:
            await track.spans.tell_again(history.latest / 1_000)
        self._roster.begun["taken_over" if owner else "retried"] += 1
        return walk

    def take_up(self, prepared: Prepared) -> Walk | None:
        """Resume a build without a log that an earlier process left unfinished.

        Returns:
            Its walk; None where it is held already, and nothing is changed.

        Raises:
            InvalidBuild: ``busy`` or ``shutting_down``.
        """
        build = prepared.build.id
        if self._roster.holds(build):
            return None
        self._roster.check_room()
        # The store keeps no trace: what an earlier process told of this build stands in another one.
        trace = self._tracer.begin(None, build, "", prepared.build.action)
        plan = self._planner.make(prepared, resumed=True, trace=trace)
        held = self._roster.hold(Held(build, prepared.digest))
        _log.info("build taken up", build=build, in_flight=plan.phases.in_flight, settled=plan.phases.settled)
        walk, track = self._runner.prepare(plan, self._planner.timings(plan), key="")
        self._runner.start(held, walk, track)
        self._roster.begun["taken_over"] += 1
        return walk
