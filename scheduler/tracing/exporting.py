"""Sends spans to a collector, by OpenTelemetry's SDK; the only module of the service that loads it.

Spans are made when they have ended, with the ids that `scheduler.tracing.build` derives. The SDK samples them
and bounds them as its variables say, and sends them in a thread of its own. What waits for that thread is
bounded as well: where the collector does not keep up, the oldest spans are dropped, and no build waits.
"""

import logging
import os
import random
from functools import lru_cache
from typing import Final

import trio
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.environment_variables import OTEL_BSP_MAX_QUEUE_SIZE
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from scheduler.runtime.log_limits import RateLimitedLog
from scheduler.runtime.logger import Logger
from scheduler.tracing.backlog import Backlog, Sending
from scheduler.tracing.build import BuildTrace
from scheduler.tracing.context import SAMPLED, TraceContext
from scheduler.tracing.spans import Kind, Span, bare, nanoseconds
from scheduler.tracing.tracer import Tracer

SCOPE: Final = "scheduler"
"""Name of what makes the spans."""
_MOST_WAITING: Final = 8_192
"""Spans that wait to be sent: four times the SDK's default, as a large build may end within seconds."""
_MOST_BYTES: Final = 64 * 1024 * 1024
"""Bytes of spans that wait, from which on spans are without links and events: 100 MB are the most then."""
_READER_OF_HEADERS: Final = "opentelemetry.util.re"
"""Logger on which OpenTelemetry shows a part of ``OTEL_EXPORTER_OTLP_HEADERS`` that it cannot read."""
_KINDS: Final = {
    Kind.INTERNAL: SpanKind.INTERNAL,
    Kind.SERVER: SpanKind.SERVER,
    Kind.CLIENT: SpanKind.CLIENT,
}

log = Logger()


class _GivenIds(IdGenerator):
    """Generator of ids that returns those of the span which is being made."""

    def __init__(self) -> None:
        self.trace = self.span = 0

    def generate_trace_id(self) -> int:
        return self.trace

    def generate_span_id(self) -> int:
        return self.span


class ExportingTracer(Tracer):
    """Sends spans to a collector.

    Args:
        resource: attributes of this process, beside those of the environment, which win.
        version: version of the scheduler.
        exporter: sends; by default to where the environment says.
    """

    __slots__ = ("_backlog", "_ids", "_log", "_provider", "_tracer")

    exports = True

    def __init__(self, resource: dict[str, str], version: str, exporter: SpanExporter | None = None) -> None:
        # Idempotent.
        logging.getLogger(_READER_OF_HEADERS).addFilter(_without_headers)
        named = OTELResourceDetector().detect().attributes
        own = {key: value for key, value in resource.items() if key not in named}
        self._log = RateLimitedLog()
        self._ids = _GivenIds()
        # At exit nothing is waited for: `finish` did that, with a deadline.
        self._provider = TracerProvider(
            resource=Resource.create(own), shutdown_on_exit=False, id_generator=self._ids
        )
        most = _most_waiting()
        self._backlog = Backlog(most)
        sending = Sending(exporter or OTLPSpanExporter(), self._backlog)
        self._provider.add_span_processor(BatchSpanProcessor(sending, max_queue_size=most))
        self._tracer = self._provider.get_tracer(SCOPE, version)

    def begin(self, context: TraceContext | None, build: str, mark: str, action: str) -> BuildTrace:
        """Return the trace of a build: the one that it was submitted with, or else a new one.

        The sampler decides once, and for all spans of the build, whichever process makes them.
        """
        if context is None:
            trace = BuildTrace.begun(f"{random.SystemRandom().getrandbits(128) or 1:032x}", build, mark)
        else:
            trace = BuildTrace.of(context, build, mark)
        flags = trace.flags & ~SAMPLED | (SAMPLED if self._is_sampled(trace, action) else 0)
        return BuildTrace(trace.trace, trace.first, trace.parent, flags, trace.state)

    def _is_sampled(self, trace: BuildTrace, action: str) -> bool:
        try:
            above = _below(trace, trace.parent, remote=True)
            sampler = self._provider.sampler
            decided = sampler.should_sample(above, int(trace.trace, 16), action, SpanKind.INTERNAL)
        except Exception as error:  # noqa: BLE001 - a sampler may be anybody's, and costs no build
            self._log.error(
                "spans of a build are not sent: the sampler has failed", reason=repr(error)[:1_000]
            )
            return False
        return decided.decision is Decision.RECORD_AND_SAMPLE

    def export(self, span: Span) -> None:
        """Hand a span to the SDK; a bare one while what waits is too large."""
        try:
            self._hand_over(bare(span) if self._backlog.bytes > _MOST_BYTES else span)
        except Exception as error:  # noqa: BLE001 - a sampler may be anybody's, and costs no build
            self._log.error("a span is not sent: the SDK has failed", reason=repr(error)[:1_000])

    def _hand_over(self, span: Span) -> None:
        self._ids.trace, self._ids.span = int(span.trace, 16), int(span.id, 16)
        made = self._tracer.start_span(
            span.name,
            _below(span, span.parent, remote=span.remote),
            _KINDS[span.kind],
            span.attributes,
            [Link(_context_of(span, link)) for link in span.links],
            nanoseconds(span.start),
        )
        if made.is_recording():
            self._backlog.add(span)
            for event in span.events:
                made.add_event(event.name, event.attributes or None, nanoseconds(event.time))
            if span.error is None:
                made.set_status(Status(StatusCode.OK))
            else:
                made.set_status(Status(StatusCode.ERROR, span.error))
        made.end(nanoseconds(span.end))

    async def finish(self, seconds: float) -> None:
        """Send the spans that wait; past the deadline the thread is left to itself, and they are lost."""
        with trio.move_on_after(seconds) as scope:
            await trio.to_thread.run_sync(self._provider.shutdown, abandon_on_cancel=True)
        if scope.cancelled_caught:
            log.warning("not all spans were sent: the collector did not answer in time", seconds=seconds)


def _without_headers(record: logging.LogRecord) -> bool:
    """Keep a header out of a line of the log: it is mostly a password for the collector."""
    if record.args:
        record.args = ("(not shown, as it may be a secret)",)
    return True


def _most_waiting() -> int:
    """Return the number of spans that may wait, as the environment says, or else ours."""
    text = os.environ.get(OTEL_BSP_MAX_QUEUE_SIZE, "").strip()
    if text.isdecimal() and int(text):
        return int(text)
    if text:
        why = f"{OTEL_BSP_MAX_QUEUE_SIZE} is {text[:100]!r}: expected a number above 0"
        log.warning("a variable of OpenTelemetry is ignored", reason=why, used=_MOST_WAITING)
    return _MOST_WAITING


def _context_of(span: Span | BuildTrace, id_: str, *, remote: bool = False) -> SpanContext:
    state = _state(span.state) if span.state else None
    return SpanContext(int(span.trace, 16), int(id_, 16), remote, TraceFlags(span.flags), state)


@lru_cache(maxsize=64)
def _state(text: str) -> TraceState:
    # Read once, and shared: each span of a build has it, and so has each of its links.
    return TraceState.from_header([text])


def _below(span: Span | BuildTrace, parent: str, *, remote: bool) -> Context:
    """Return the context of a span below another one; of the root, where there is none."""
    empty = Context()
    if not parent:
        return empty
    return set_span_in_context(NonRecordingSpan(_context_of(span, parent, remote=remote)), empty)
