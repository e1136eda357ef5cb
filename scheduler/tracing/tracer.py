"""Decides what becomes of the traces of builds; here, that they are passed on and nobody is told."""

from scheduler.tracing.build import BuildTrace
from scheduler.tracing.context import TraceContext
from scheduler.tracing.spans import Span


class Tracer:
    """Passes traces on, and tells nobody of spans; `exporting.ExportingTracer` sends them to a collector."""

    __slots__ = ()

    exports = False
    """Whether spans are sent to a collector."""

    def begin(
        self,
        context: TraceContext | None,
        build: str,
        mark: str,
        action: str,  # noqa: ARG002 - the port's
    ) -> BuildTrace | None:
        """Return the trace of a build that is accepted; None where it has none.

        Args:
            context: context that it was submitted with; None where there is none.
            build: id of the build.
            mark: mark of its acceptance; empty where there is none.
            action: its action.
        """
        return None if context is None else BuildTrace.of(context, build, mark)

    def export(self, span: Span) -> None:
        """Send a span to the collector, some time. Synchronous; must not block or raise."""

    async def finish(self, seconds: float) -> None:
        """Send the spans that wait, for so many seconds at most; to be called once, at the end."""
