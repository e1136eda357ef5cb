"""Writes spans as OTLP/JSON: the message ``TracesData``, as files and collectors take it. Pure.

Ids are hexadecimal, 64-bit numbers are text, and enumerations are numbers, as OTLP wants its JSON.
https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from scheduler.tracing.spans import Attributes, Span, SpanEvent, nanoseconds

_OK: Final = 1
_ERROR: Final = 2
_HAS_IS_REMOTE: Final = 0x100
_IS_REMOTE: Final = 0x200


def traces_data(spans: Iterable[Span], *, resource: Attributes, scope: str, version: str) -> dict[str, Any]:
    """Return spans as ``TracesData``.

    Args:
        spans: the spans.
        resource: attributes of what they are about, such as ``service.name``.
        scope: name of what has made them.
        version: its version.
    """
    told = {"scope": {"name": scope, "version": version}, "spans": [_span(span) for span in spans]}
    return {"resourceSpans": [{"resource": {"attributes": _attributes(resource)}, "scopeSpans": [told]}]}


def _span(span: Span) -> dict[str, Any]:
    document: dict[str, Any] = {
        "traceId": span.trace,
        "spanId": span.id,
        "flags": span.flags | _HAS_IS_REMOTE | (_IS_REMOTE if span.parent and span.remote else 0),
        "name": span.name,
        "kind": int(span.kind),
        "startTimeUnixNano": str(nanoseconds(span.start)),
        "endTimeUnixNano": str(nanoseconds(span.end)),
        "attributes": _attributes(span.attributes),
        "events": [_event(event) for event in span.events],
        "links": [{"traceId": span.trace, "spanId": link} for link in span.links],
        "status": {"code": _OK} if span.error is None else {"code": _ERROR, "message": span.error},
    }
    if span.parent:
        document["parentSpanId"] = span.parent
    if span.state:
        document["traceState"] = span.state
    return document


def _event(event: SpanEvent) -> dict[str, Any]:
    document: dict[str, Any] = {"timeUnixNano": str(nanoseconds(event.time)), "name": event.name}
    return document | {"attributes": _attributes(event.attributes)} if event.attributes else document


def _attributes(attributes: Attributes) -> list[dict[str, Any]]:
    return [{"key": key, "value": _value(value)} for key, value in attributes.items()]


def _value(value: str | float | bool) -> Mapping[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    return {"doubleValue": value} if isinstance(value, float) else {"stringValue": value}
