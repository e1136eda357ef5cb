"""Runs builds, each beside the others, and has each reported once.

One build's trouble never reaches another: whatever a build raises ends here.
"""

from collections.abc import Callable

import structlog
import trio
from attrs import evolve

from scheduler.definition.model import Resend
from scheduler.dispatch.connectors import Connectors
from scheduler.dispatch.slots import Slots
from scheduler.errors import Fenced, StoreError
from scheduler.journal.timings import Timings
from scheduler.plan import Plan
from scheduler.plan.summary import parts_of
from scheduler.runtime.executor import Executor, ThreadExecutor
from scheduler.stores import Store
from scheduler.supervision.feed import Feed, Track
from scheduler.supervision.reporting import Reporter
from scheduler.supervision.roster import Held, Roster
from scheduler.walk import Resending, Resumption, Walk

_log = structlog.get_logger()

_FREED_AT_ONCE = 500
"""Parts of a build that is over, freed between two looks at everything else: a millisecond or two."""


class Runner:
    """Runs builds, each in a task of its own.

    Args:
        nursery: of these tasks.
        roster: knows what runs.
        store: where builds are persisted.
        connectors, slots, feed: shared by all builds.
        reporter: where reports go.
        completed: is told the subject of each component that was completed, and the seconds that it took.
        resending: when a request without a reply is sent again.
        on_orphan: is told when a build is left that may be nobody's by now.
        executor: does what takes long beside the loop.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        roster: Roster,
        store: Store,
        *,
        connectors: Connectors,
        slots: Slots,
        feed: Feed,
        reporter: Reporter,
        completed: Callable[[str, float], None] = lambda _subject, _seconds: None,
        resending: Resending = lambda _: Resend.UNSENT,
        on_orphan: Callable[[], None] = lambda: None,
        executor: Executor | None = None,
    ) -> None:
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
        """The walk of a build, and what tells of it, before it begins.

        Args:
            plan: of the build.
            timings: its times.
            key: what the tokens of its reply subjects are made with.
            resumption: how it is resumed, where an earlier process left it and its log says how.
        """
        track = Track(self._feed, plan, timings, self._completed)
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
        """Run a build that is held, from now on."""
        self._roster.begin(held, walk, track)
        self._slots.open(walk.plan, walk.plan.state.rules, held.sender)
        if self._roster.stopping:
            walk.stop()
        self._nursery.start_soon(self._run, held, walk, track, name=f"build {walk.id}")

    def let_go(self, held: Held) -> None:
        """The build does not run here (any more). Idempotent."""
        if self._roster.remove(held):
            self._connectors.forget_build(held.build)

    async def _run(self, held: Held, walk: Walk, track: Track) -> None:
        try:
            await self._run_to_report(walk, track)
        finally:
            self._store.close(walk.id)
            self._slots.close(walk.plan)
            self.let_go(held)
        # Freed at once, hundreds of thousands of objects would keep the other builds waiting.
        parts = parts_of(walk.plan)
        del walk, track
        while parts:
            del parts[-_FREED_AT_ONCE:]
            await trio.lowlevel.checkpoint()

    async def _run_to_report(self, walk: Walk, track: Track) -> None:
        total = len(walk.plan.build.changes)
        _log.info("build started", build=walk.id, action=walk.plan.build.action, changes=total)
        try:
            report = await walk.run()
            self._feed.close(track)
            if report is None:
                _log.info(
                    "build left for the next process",
                    build=walk.id,
                    settled=walk.plan.phases.settled,
                    changes=total,
                )
                self._leave(walk)
                return
            await self._reporter.report(walk.id, evolve(report, accepted=track.timings.accepted))
            self._roster.note_reported(walk.id)
            # Of the whole build, whichever processes had it.
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
            # What is stored of it by now is published by the next process; otherwise that makes it.
            _log.error("the report is not out, and left to the next process", build=walk.id, error=str(error))
        except Exception:  # noqa: BLE001 - it is logged
            # A bug of ours, outside what the walk itself survives: all that can be done is to say so, once.
            _log.exception("internal error: the build ends without a report", build=walk.id)

    def _leave(self, walk: Walk) -> None:
        """Note why a build is left that has not come to its end."""
        if walk.fenced:
            # The process that took it may be gone again by now.
            self._on_orphan()
        elif walk.stuck:
            self._roster.quarantined[walk.id] = "internal error in the scheduler; see its log"
        elif not self._roster.stopping:
            self._roster.quarantined[walk.id] = "its log could not be written; the next process resumes it"
