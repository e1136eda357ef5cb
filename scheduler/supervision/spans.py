"""Makes the spans of a build that runs here, of its times, when each attempt ends.

Only what no log keeps is noted meanwhile: when an attempt had its slots, what its connector said, when it
was answered. The rest is in the build's timings, of whichever process that is; so the span of an attempt that
an earlier process began is whole, but for these.
"""

from collections.abc import Callable
from typing import Final

from attrs import define, field

from scheduler.definition.graph import Vertex
from scheduler.dispatch.call import Call
from scheduler.journal.timings import Timings
from scheduler.plan import Plan
from scheduler.runtime.pace import paced
from scheduler.tracing.build import BuildTrace
from scheduler.tracing.spans import (
    LONGEST_SAID,
    LONGEST_TEXT,
    MOST_BEATS,
    MOST_LINKS,
    Attempt,
    Beat,
    Run,
    Span,
    attempt_span,
    run_span,
)

_LOST: Final = 10.0
"""Seconds before the end of a log for which spans are made again: a process that was killed may not have sent
them."""
_MOST_AGAIN: Final = 2_000
"""Spans that are made again of one build."""
_LOOKED_AT_AT_ONCE: Final = 5_000
"""Components that are looked at before other builds have a turn: a millisecond or two."""
_AT_ONCE: Final = 10
"""Spans that are made before other builds have a turn: a millisecond or two."""


class LineIds:
    """Ids for lines of the log about a build."""

    __slots__ = ("_plan", "_trace")

    def __init__(self, plan: Plan, trace: BuildTrace) -> None:
        self._plan = plan
        self._trace = trace

    @property
    def trace_id(self) -> str:
        """Id of the trace."""
        return self._trace.trace

    def span_id(self, component: str | None) -> str:
        """Return the id of the span that a line is about: of the build, or the component's last attempt."""
        plan = self._plan
        vertex = None if component is None else plan.graph.index.get(component)
        if component is None or vertex is None:
            return self._trace.run(plan.state.run)
        return self._trace.attempt(component, plan.attempt(vertex))


@define(eq=False)
class _Notes:
    """Notes on an attempt in flight."""

    slot: float | None = None
    answered: float | None = None
    beats: list[Beat] = field(factory=list)
    unseen: int = 0


class BuildSpans:
    """Spans of one build.

    Args:
        export: takes the spans; synchronous.
        plan: plan of the build.
        timings: its times.
        trace: its trace, which is sampled.
    """

    __slots__ = ("_export", "_notes", "_plan", "_timings", "_trace")

    def __init__(
        self, export: Callable[[Span], None], plan: Plan, timings: Timings, trace: BuildTrace
    ) -> None:
        self._export = export
        self._plan = plan
        self._timings = timings
        self._trace = trace
        self._notes: dict[Vertex, _Notes] = {}

    def began(self, vertex: Vertex) -> None:
        """Note that a component has its slots."""
        self._note(vertex).slot = self._timings.clock()

    def answered(self, vertex: Vertex) -> None:
        """Note that the reply to an attempt has come."""
        self._note(vertex).answered = self._timings.clock()

    def beat(self, call: Call) -> None:
        """Note what the connector of an attempt says; of many heartbeats the first ones."""
        pulse, request = call.pulse, call.request
        if pulse is None:
            return
        notes = self._note(request.vertex)
        if len(notes.beats) == MOST_BEATS:
            notes.unseen += 1
            return
        message = self._plan.texts.masked(pulse.message, LONGEST_SAID) if pulse.message else ""
        instance = self._plan.texts.masked(pulse.instance, LONGEST_SAID) if pulse.instance else ""
        notes.beats.append(Beat(self._timings.clock(), pulse.progress, message, instance))

    def _note(self, vertex: Vertex) -> _Notes:
        notes = self._notes.get(vertex)
        if notes is None:
            notes = self._notes[vertex] = _Notes()
        return notes

    def waits(self, vertex: Vertex) -> None:
        """Forget an attempt that did not begin after all."""
        self._notes.pop(vertex, None)

    def failed(self, vertex: Vertex, number: int, error: str, ended: float) -> None:
        """Tell of an attempt that is followed by another one; before the timings are told of it."""
        shown = self._plan.texts.masked(error, LONGEST_TEXT)
        self._tell(vertex, number, self._timings.sent(vertex), ended, shown, retries=True)

    def settled(self, vertex: Vertex, ended: float) -> None:
        """Tell of the last attempt of a component; once the plan and the timings are told of its outcome."""
        plan = self._plan
        error = plan.error(vertex)
        shown = None if error is None else plan.texts.masked(error, LONGEST_TEXT)
        self._tell(vertex, plan.attempt(vertex), self._timings.sent(vertex), ended, shown)

    def _tell(
        self,
        vertex: Vertex,
        number: int,
        sent: float | None,
        ended: float,
        error: str | None,
        *,
        retries: bool = False,
    ) -> None:
        plan, timings = self._plan, self._timings
        notes = self._notes.pop(vertex, None) or _Notes()
        failed = timings.failed(vertex)
        due = failed[-1].again if failed else timings.due(vertex)
        ids, attempt_of = plan.graph.ids, plan.attempt
        # What was completed when the build was submitted has no span.
        needs = [one for one in plan.graph.dependencies[vertex] if timings.ended(one) is not None]
        attempt = Attempt(
            build=plan.build.id,
            run=plan.state.run,
            component=ids[vertex],
            number=number,
            subject=plan.requests.subject(vertex),
            ended=ended,
            due=due,
            slot=notes.slot,
            sent=sent,
            answered=notes.answered,
            beats=notes.beats,
            unseen_beats=notes.unseen,
            needs=[(ids[one], attempt_of(one)) for one in needs[:MOST_LINKS]],
            unseen_needs=max(0, len(needs) - MOST_LINKS),
            gate=vertex in plan.gates,
            error=error,
            retries=retries,
        )
        self._export(attempt_span(self._trace, attempt))

    def ended(self, status: str, error: str | None) -> None:
        """Tell of a run that has ended.

        Args:
            status: that of the report.
            error: first cause, masked; None where every change is completed.
        """
        plan = self._plan
        name = plan.build.fields.get("name")
        run = Run(
            build=plan.build.id,
            name=plan.texts.masked(name, LONGEST_TEXT) if isinstance(name, str) else "",
            action=plan.build.action,
            number=plan.state.run,
            began=self._timings.accepted,
            ended=self._timings.clock(),
            status=status,
            counts=plan.phases.shown(),
            error=error,
        )
        self._export(run_span(self._trace, run))

    async def tell_again(self, latest: float) -> None:
        """Tell once more of the last outcomes in a log, which another process may not have told of in time.

        Args:
            latest: time of the last record, in seconds since 1970.
        """
        timings = self._timings
        since = latest - _LOST
        recent: list[tuple[float, Vertex]] = []
        async for vertex in paced(range(len(self._plan.phases)), every=_LOOKED_AT_AT_ONCE):
            ended = timings.ended(vertex)
            if ended is not None and ended >= since:
                recent.append((ended, vertex))
        recent.sort()
        async for ended, vertex in paced(recent[-_MOST_AGAIN:], every=_AT_ONCE):
            # The build runs by now: an operator may have had a component retried meanwhile.
            if timings.ended(vertex) == ended:
                self.settled(vertex, ended)
