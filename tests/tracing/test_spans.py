"""Spans of a build, and OTLP/JSON."""

import base64
import json
from typing import Any

import pytest
from attrs import evolve
from google.protobuf import json_format
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from scheduler.tracing.build import BuildTrace
from scheduler.tracing.context import TraceContext
from scheduler.tracing.otlp import traces_data
from scheduler.tracing.spans import (
    MOST_LINKS,
    Attempt,
    Beat,
    Kind,
    Run,
    attempt_span,
    nanoseconds,
    run_span,
)

TRACE = BuildTrace.of(TraceContext("a" * 32, "b" * 16, 1, "v=1"), "b1", "m")
RUN = Run("b1", "prod", "build.create", 1, 10.0, 20.0, "done", {"completed": 2, "errored": 0})
ATTEMPT = Attempt(
    build="b1",
    run=1,
    component="vpc::a",
    number=1,
    subject="vpc.create.aws",
    due=10.0,
    slot=10.5,
    sent=11.0,
    beats=(Beat(12.0, 0.5, "half", "c-1"), Beat(13.0)),
    answered=14.0,
    ended=14.25,
    needs=[("net::a", 2)],
)


def test_a_run_hangs_below_the_span_that_the_build_was_submitted_in() -> None:
    span = run_span(TRACE, RUN)
    assert (span.name, span.kind, span.parent, span.remote) == ("build.create", Kind.INTERNAL, "b" * 16, True)
    assert (span.trace, span.id, span.state) == ("a" * 32, TRACE.run(1), "v=1")
    assert (span.start, span.end, span.error) == (10.0, 20.0, None)
    assert span.attributes == {
        "scheduler.build.id": "b1",
        "scheduler.build.action": "build.create",
        "scheduler.build.run": 1,
        "scheduler.build.status": "done",
        "scheduler.build.name": "prod",
        "scheduler.components.completed": 2,
    }


def test_a_further_run_has_a_span_of_its_own_below_the_same_one() -> None:
    span = run_span(TRACE, evolve(RUN, number=2, status="error", error="vpc::a: no"))
    assert (span.id, span.parent, span.error) == (TRACE.run(2), "b" * 16, "vpc::a: no")


def test_an_attempt_hangs_below_its_run_with_its_events_and_links() -> None:
    span = attempt_span(TRACE, ATTEMPT)
    assert (span.name, span.kind, span.parent) == ("request vpc.create.aws", Kind.CLIENT, TRACE.run(1))
    assert span.id == TRACE.attempt("vpc::a", 1)
    assert (span.start, span.end) == (10.0, 14.25)
    assert [(event.name, event.time) for event in span.events] == [
        ("due", 10.0),
        ("slot", 10.5),
        ("sent", 11.0),
        ("heartbeat", 12.0),
        ("heartbeat", 13.0),
        ("answered", 14.0),
    ]
    assert span.events[3].attributes == {
        "scheduler.progress": 0.5,
        "scheduler.message": "half",
        "scheduler.connector.instance": "c-1",
    }
    assert span.links == (TRACE.attempt("net::a", 2),)
    assert span.attributes["messaging.system"] == "nats"
    assert span.attributes["messaging.destination.name"] == "vpc.create.aws"
    assert span.attributes["scheduler.component.id"] == "vpc::a"


def test_an_attempt_that_never_was_sent_lasts_from_due_to_its_end() -> None:
    span = attempt_span(TRACE, evolve(ATTEMPT, slot=None, sent=None, answered=None, beats=(), error="no"))
    assert [event.name for event in span.events] == ["due"]
    assert (span.start, span.end, span.error) == (10.0, 14.25, "no")


def test_no_span_ends_before_it_begins() -> None:
    span = attempt_span(TRACE, evolve(ATTEMPT, due=99.0, slot=None, sent=None))
    assert span.start == span.end == 14.25
    span = run_span(TRACE, evolve(RUN, began=99.0))
    assert span.start == span.end == 20.0


def test_a_gate_is_no_request() -> None:
    span = attempt_span(TRACE, evolve(ATTEMPT, subject="approval.approve.person", gate=True))
    assert (span.name, span.kind) == ("approve approval", Kind.INTERNAL)
    assert not any(name.startswith("messaging.") for name in span.attributes)


def test_of_many_dependencies_the_first_ones_are_linked() -> None:
    needs = [(f"c::{n}", 1) for n in range(MOST_LINKS + 2)]
    span = attempt_span(TRACE, evolve(ATTEMPT, needs=needs, unseen_needs=3, unseen_beats=7))
    assert len(span.links) == MOST_LINKS
    assert span.attributes["scheduler.links.left_out"] == 5
    assert span.attributes["scheduler.heartbeats.left_out"] == 7


def test_times_are_exact_to_the_microsecond() -> None:
    assert nanoseconds(1_764_565_200.123456) == 1_764_565_200_123_456_000


def test_the_json_is_what_otlp_says_of_its_messages() -> None:
    """OTLP has ids in hexadecimal, where JSON of protobuf has them in base64; the rest is the same."""
    spans = [run_span(TRACE, RUN), attempt_span(TRACE, evolve(ATTEMPT, error="no"))]
    made = traces_data(spans, resource={"service.name": "scheduler"}, scope="scheduler", version="1")
    data = json_format.Parse(json.dumps(_with_base64(made)), TracesData())
    [resource] = data.resource_spans
    [scope] = resource.scope_spans
    run, attempt = scope.spans
    assert resource.resource.attributes[0].value.string_value == "scheduler"
    assert (scope.scope.name, scope.scope.version) == ("scheduler", "1")
    assert (run.trace_id.hex(), run.span_id.hex()) == ("a" * 32, TRACE.run(1))
    assert (run.parent_span_id.hex(), run.trace_state) == ("b" * 16, "v=1")
    assert (run.flags, attempt.flags) == (0x301, 0x101)
    assert (run.status.code, attempt.status.code, attempt.status.message) == (1, 2, "no")
    assert (attempt.kind, run.kind) == (3, 1)
    assert attempt.start_time_unix_nano == 10_000_000_000
    assert [event.name for event in attempt.events][-1] == "answered"
    assert attempt.links[0].span_id.hex() == TRACE.attempt("net::a", 2)


def test_a_root_names_no_parent() -> None:
    trace = BuildTrace.begun("c" * 32, "b1", "m")
    made = traces_data([run_span(trace, RUN)], resource={}, scope="s", version="1")
    [span] = made["resourceSpans"][0]["scopeSpans"][0]["spans"]
    assert "parentSpanId" not in span
    assert span["flags"] == 0x101


def _with_base64(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_base64(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        key: base64.b64encode(bytes.fromhex(one)).decode()
        if key in {"traceId", "spanId", "parentSpanId"}
        else _with_base64(one)
        for key, one in value.items()
    }


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (True, {"boolValue": True}),
        (5, {"intValue": "5"}),
        (0.5, {"doubleValue": 0.5}),
        ("a", {"stringValue": "a"}),
    ],
)
def test_each_kind_of_value_has_its_form(value: Any, written: Any) -> None:
    made = traces_data([], resource={"x": value}, scope="s", version="1")
    assert made["resourceSpans"][0]["resource"]["attributes"] == [{"key": "x", "value": written}]
