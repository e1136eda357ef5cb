"""A tracer that keeps the spans which it is told of."""

from scheduler.tracing.build import BuildTrace
from scheduler.tracing.context import TraceContext
from scheduler.tracing.spans import Span
from scheduler.tracing.tracer import Tracer

OWN = "c" * 32
"""Trace of a build that was submitted without one."""


class KeepingTracer(Tracer):
    """Keeps spans, in the order in which they were told."""

    exports = True

    def __init__(self) -> None:
        self.spans: list[Span] = []

    def begin(self, context: TraceContext | None, build: str, mark: str, action: str) -> BuildTrace | None:
        if context is None:
            return BuildTrace.begun(OWN, build, mark)
        return super().begin(context, build, mark, action)

    def export(self, span: Span) -> None:
        self.spans.append(span)

    def of(self, component: str) -> list[Span]:
        """The spans of a component's attempts."""
        return [one for one in self.spans if one.attributes.get("scheduler.component.id") == component]

    def one(self, component: str) -> Span:
        """The span of the only attempt of a component."""
        [span] = self.of(component)
        return span

    @property
    def runs(self) -> list[Span]:
        """The spans of runs."""
        return [one for one in self.spans if "scheduler.build.run" in one.attributes]
