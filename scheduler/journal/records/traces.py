"""The trace of a build in its log: headers of the first record.

Headers, since readers of records are strict, and ignore headers that they do not know. Their names are our
own: a server that traces messages looks for ``traceparent``, and appends to logs are none of its business.
"""

from collections.abc import Mapping
from typing import Final

from scheduler.tracing.context import TraceContext, parse_context

TRACEPARENT_HEADER: Final = "Scheduler-Traceparent"
TRACESTATE_HEADER: Final = "Scheduler-Tracestate"


def trace_headers(context: TraceContext) -> dict[str, str]:
    """Return the headers of the first record of a build with this trace."""
    headers: dict[str, str] = {TRACEPARENT_HEADER: context.traceparent}
    return headers | {TRACESTATE_HEADER: context.state} if context.state else headers


def read_trace(headers: Mapping[str, str]) -> TraceContext | None:
    """Read the trace beside the first record of a build; None where there is none that can be read."""
    parent = headers.get(TRACEPARENT_HEADER)
    return None if parent is None else parse_context(parent, headers.get(TRACESTATE_HEADER, ""))
