"""Traces: the W3C context of a build, and the spans that are made of what happens to it.

`context` reads and writes ``traceparent`` and ``tracestate``. `build` derives the ids of all spans of a build
from that, so that each process which has the build tells of the same spans, and nothing is persisted but the
context. `spans` says what a span is made of, `otlp` writes spans as JSON, and `lines` finds the ids for lines
of the log. All of these are pure, and know no library.

`wanted` says by the environment whether spans are sent, and `exporting` sends them: it alone loads
OpenTelemetry, where they are.
"""

from scheduler.tracing.build import BuildTrace
from scheduler.tracing.context import TraceContext, read_context
from scheduler.tracing.spans import Span

__all__ = ["BuildTrace", "Span", "TraceContext", "read_context"]
