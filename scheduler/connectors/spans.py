"""The span of a call, below the span of its attempt in the scheduler.

It is made by OpenTelemetry's interface: without its SDK, which is the program's to set up, nobody is told of
the call, and what the handler asks others for hangs below the attempt itself.
"""

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from opentelemetry.context import Context, attach, detach
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    get_tracer,
    set_span_in_context,
)

from scheduler import __version__
from scheduler.tracing.context import TraceContext

_tracer: Final = get_tracer("scheduler.connectors", __version__)

_T = TypeVar("_T")


class CallSpan:
    """Span of one call.

    Args:
        parent: context of the attempt.
        subject: subject of the request.
        attempt: id of the attempt; empty where it has none.
        build: id of the build.
        component: id of the component.
    """

    __slots__ = ("_context", "_span", "context")

    def __init__(
        self, parent: TraceContext, subject: str, *, attempt: str, build: str, component: str
    ) -> None:
        attributes = {
            "messaging.system": "nats",
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.name": subject,
            "scheduler.build.id": build,
            "scheduler.component.id": component,
        }
        if attempt:
            attributes["messaging.message.id"] = attempt
        above = set_span_in_context(NonRecordingSpan(_remote(parent)), Context())
        self._span = _tracer.start_span(
            f"process {subject}", above, SpanKind.SERVER, {key: one for key, one in attributes.items() if one}
        )
        self._context = set_span_in_context(self._span, above)
        found = self._span.get_span_context()
        self.context = TraceContext(
            f"{found.trace_id:032x}",
            f"{found.span_id:016x}",
            int(found.trace_flags),
            found.trace_state.to_header(),
        )
        """Context of what the handler asks others for."""

    async def around(self, call: Callable[[], Awaitable[_T]]) -> _T:
        """Await a call, with the span as the current one for what it runs, on whichever loop or thread."""
        token = attach(self._context)
        try:
            return await call()
        finally:
            detach(token)

    def end(self, error: str | None) -> None:
        """End the span.

        Args:
            error: why the call failed, without secrets; None where it did not.
        """
        if error is None:
            self._span.set_status(Status(StatusCode.OK))
        else:
            self._span.set_status(Status(StatusCode.ERROR, error))
        self._span.end()


def _remote(context: TraceContext) -> SpanContext:
    state = TraceState.from_header([context.state]) if context.state else None
    flags = TraceFlags(context.flags)
    return SpanContext(int(context.trace, 16), int(context.span, 16), True, flags, state)
