"""Runs builds beside each other, and reports each once.

One build's fault never reaches another: whatever a build raises ends here.
"""

from collections.abc import Callable

import structlog
import trio
from attrs import evolve

from scheduler.definition.model import Resend
from scheduler.dispatch.client import ConnectorClient
from scheduler.dispatch.slots import Slots
from scheduler.errors import Fenced, StoreError
from scheduler.journal.timings import Timings
from scheduler.metrics.tally import Tally
from scheduler.plan import Plan
from scheduler.plan.summary import parts_of
from scheduler.runtime.executor import Executor, ThreadExecutor
from scheduler.stores import Store
from scheduler.supervision.feed import Feed, Track
from scheduler.supervision.notices import Notices
from scheduler.supervision.reporting import Reporter
from scheduler.supervision.roster import Held, Roster
from scheduler.supervision.spans import BuildSpans, LineIds
from scheduler.tracing.lines import TRACED
from scheduler.tracing.tracer import Tracer
from scheduler.walk import Resending, Resumption, Walk

_log = structlog.get_logger()

_FREED_AT_ONCE = 500
"""Parts of a finished build that are freed before other builds have a turn: a millisecond or two."""


class Runner:
    """Runs builds, each in a task of its own.

    Args:
        nursery: nursery of these tasks.
        roster: roster of the builds that run.
        store: store of the builds.
        connectors, slots, feed: parts that all builds share.
        reporter: sends the reports.
        completed: callback with the subject of each completed component, and the seconds that it took.
        resending: rule, by subject, for sending a request without a reply again.
        on_orphan: callback for when a build is left that no process may work on.
        executor: does long work beside the loop.
        notices: make notifications; None where there are none.
        tally: counts what becomes of components; None where nobody asks for that.
        tracer: takes the spans of builds.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        roster: Roster,
        store: Store,
        *,
        connectors: ConnectorClient,
        slots: Slots,
        feed: Feed,
        reporter: Reporter,
        completed: Callable[[str, float], None] = lambda _subject, _seconds: None,
        resending: Resending = lambda _: Resend.UNSENT,
        on_orphan: Callable[[], None] = lambda: None,
        executor: Executor | None = None,
        notices: Notices | None = None,
        tally: Tally | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self.notices = notices
        self._tally = tally
        self._tracer = tracer or Tracer()
        self._nursery = nursery
        self._roster = roster
        self._store = store
        self._connectors = connectors
        self._slots = slots
        self._feed = feed
        self._reporter = reporter
        self._completed = completed
        self._resending = resending
        self._on_orphan = on_orphan
        self._executor = executor or ThreadExecutor()

    def prepare(
        self, plan: Plan, timings: Timings, *, key: str, resumption: Resumption | None = None
    ) -> tuple[Walk, Track]:
        """Make the walk of a build, and its track, before it begins.

        Args:
            plan: plan of the build.
            timings: its timings.
            key: key of the tokens of its reply subjects.
            resumption: times from its log, where an earlier process left it and there is a log.
        """
        spans = None
        if (trace := plan.requests.trace) is not None:
            TRACED[plan.build.id] = LineIds(plan, trace)
            if self._tracer.exports and trace.sampled:
                spans = BuildSpans(self._tracer.export, plan, timings, trace)
        track = Track(
            self._feed, plan, timings, self._completed, self.notices, tally=self._tally, spans=spans
        )
        walk = Walk(
            plan,
            self._connectors,
            self._store,
            self._slots,
            track,
            key=key,
            priorities=plan.priorities,
            resumption=resumption,
            resending=self._resending,
            executor=self._executor,
        )
        return walk, track

    def start(self, held: Held, walk: Walk, track: Track) -> None:
        """Start the task of a held build."""
        self._roster.begin(held, walk, track)
        self._slots.open(walk.plan, walk.plan.state.rules, held.sender)
        if self._roster.quiet:
            walk.stop()
        self._nursery.start_soon(self._run, held, walk, track, name=f"build {walk.id}")

    def let_go(self, held: Held) -> None:
        """Let go of a build that does not run here (any more). Idempotent."""
        if self._roster.remove(held):
            self._connectors.forget_build(held.build)
            TRACED.pop(held.build, None)

    async def _run(self, held: Held, walk: Walk, track: Track) -> None:
        try:
            await self._run_to_report(walk, track)
        finally:
            self._store.close(walk.id)
            self._slots.close(walk.plan)
            self.let_go(held)
        # Freeing hundreds of thousands of objects at once would keep other builds waiting.
        parts = parts_of(walk.plan)
        del walk, track
        while parts:
            del parts[-_FREED_AT_ONCE:]
            await trio.lowlevel.checkpoint()

    async def _run_to_report(self, walk: Walk, track: Track) -> None:
        total = len(walk.plan.build.changes)
        _log.info("build started", build=walk.id, action=walk.plan.build.action, changes=total)
        try:
            track.begin()
            report = await walk.run()
            if report is not None:
                track.end(report.status, report.error)
            self._feed.close(track)
            if report is None:
                _log.info(
                    "build left for the next process",
                    build=walk.id,
                    settled=walk.plan.phases.settled,
                    changes=total,
                )
                self._roster.ended["left"] += 1
                self._leave(walk)
                return
            report = evolve(report, accepted=track.timings.accepted, orders=track.orders)
            await self._reporter.report(walk.id, report)
            self._roster.note_reported(walk.id)
            self._roster.ended[report.status] += 1
            track.reported()
            # The seconds of the whole build, over all processes that had it.
            seconds = round(track.timings.clock() - track.timings.accepted, 3)
            if report.error is None:
                _log.info("build done", build=walk.id, changes=total, seconds=seconds)
            else:
                _log.warning(
                    "build failed",
                    build=walk.id,
                    error=walk.plan.texts.masked(report.error, 1_000),
                    seconds=seconds,
                )
        except Fenced as error:
            _log.warning(
                "another process has taken the build over: it reports", build=walk.id, error=str(error)
            )
        except StoreError as error:
            # The next process publishes the report if it is stored by now, and makes it otherwise.
            _log.error("the report is not out, and left to the next process", build=walk.id, error=str(error))
        except Exception:  # noqa: BLE001 - it is logged
            # A bug outside the walk's own handling: it can only be logged, once.
            _log.exception("internal error: the build ends without a report", build=walk.id)

    def _leave(self, walk: Walk) -> None:
        """Note why an unfinished build is left."""
        if walk.fenced:
            # The process that took it may be gone again by now.
            self._on_orphan()
        elif walk.stuck:
            self._roster.quarantined[walk.id] = "internal error in the scheduler; see its log"
        elif not self._roster.quiet and not walk.given:
            self._roster.quarantined[walk.id] = "its log could not be written; the next process resumes it"
