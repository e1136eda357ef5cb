"""Puts the trace context of an attempt into its request."""

from functools import partial
from typing import Final, Protocol

from scheduler.bus import Bus, HeaderBlock, Outgoing
from scheduler.bus.subjects import HeaderForm
from scheduler.definition.subjects import HeaderValue
from scheduler.errors import MessageTooLarge
from scheduler.tracing.context import TRACEPARENT, TRACESTATE, TraceContext

_PARENT: Final = HeaderForm(TRACEPARENT)
_PARENT_AND_STATE: Final = HeaderForm(TRACEPARENT, TRACESTATE)


class Publish(Protocol):
    """Function that publishes a request."""

    def __call__(self, subject: str, data: bytes, *, reply: str, headers: HeaderBlock) -> Outgoing:
        """Publish a request; see `Bus.publish`."""


def traced(bus: Bus, context: TraceContext) -> Publish:
    """Return a function that publishes a request with this trace context behind its headers."""
    return partial(_publish, bus, context)


def _publish(
    bus: Bus, context: TraceContext, subject: str, data: bytes, *, reply: str, headers: HeaderBlock
) -> Outgoing:
    if context.state:
        block = _PARENT_AND_STATE.added(headers, context.traceparent, HeaderValue(context.state))
    else:
        block = _PARENT.added(headers, context.traceparent)
    try:
        return bus.publish(subject, data, reply=reply, headers=block)
    except MessageTooLarge:
        # No component is to fail because it is traced.
        return bus.publish(subject, data, reply=reply, headers=headers)
