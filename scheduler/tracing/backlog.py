"""Estimates what the spans that wait to be sent weigh, beside the SDK, which bounds only their number."""

import threading
from collections import deque
from collections.abc import Sequence
from typing import Final

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from scheduler.tracing.spans import Span

_A_SPAN: Final = 4_500
"""Bytes of a span of the SDK with its attributes."""
_A_LINK: Final = 650
"""Bytes of one of its links: the SDK keeps some objects for each."""
_AN_EVENT: Final = 700
"""Bytes of one of its events, beside its texts."""


class Backlog:
    """Weights of the spans that wait, in their order: the SDK sends the oldest first, and drops the oldest.

    A span is added on the loop, and taken out in the thread that sends.

    Args:
        most: number of spans that the SDK keeps.
    """

    __slots__ = ("_lock", "_most", "_weights", "bytes")

    def __init__(self, most: int) -> None:
        self.bytes = 0
        """Weight of all, in bytes."""
        self._most = most
        self._weights: deque[int] = deque()
        self._lock = threading.Lock()

    def add(self, span: Span) -> None:
        """Add a span, and forget the oldest one where there are too many, as the SDK does."""
        weight = weight_of(span)
        with self._lock:
            if len(self._weights) >= self._most:
                self.bytes -= self._weights.popleft()
            self._weights.append(weight)
            self.bytes += weight

    def take(self, count: int) -> None:
        """Take out the oldest ones, as they are being sent."""
        with self._lock:
            for _ in range(min(count, len(self._weights))):
                self.bytes -= self._weights.popleft()


class Sending(SpanExporter):
    """Sends spans by another exporter, and tells the backlog of them.

    Args:
        exporter: the other one.
        backlog: weights of the spans that wait.
    """

    def __init__(self, exporter: SpanExporter, backlog: Backlog) -> None:
        self._exporter = exporter
        self._backlog = backlog

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch; called in the SDK's thread."""
        self._backlog.take(len(spans))
        return self._exporter.export(spans)

    def shutdown(self) -> None:
        """Send nothing more."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Send what the other exporter keeps, within so many milliseconds; return whether that went well."""
        return self._exporter.force_flush(timeout_millis)


def weight_of(span: Span) -> int:
    """Return the bytes that a span takes while it waits, roughly."""
    weight = _A_SPAN + _A_LINK * len(span.links) + _AN_EVENT * len(span.events) + len(span.error or "")
    for event in span.events:
        weight += sum(len(text) for text in event.attributes.values() if isinstance(text, str))
    return weight
