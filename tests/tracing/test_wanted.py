"""Whether spans are sent, by the environment."""

import sys

import pytest
from structlog.testing import capture_logs

from scheduler.tracing.opening import open_tracer
from scheduler.tracing.tracer import Tracer
from scheduler.tracing.wanted import wanted

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}
PROTOCOL, OWN_PROTOCOL = "OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"


@pytest.mark.parametrize(
    "environment",
    [
        ENDPOINT,
        {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces"},
        {"OTEL_TRACES_EXPORTER": "otlp"},
        {"OTEL_TRACES_EXPORTER": "console, otlp"},
        ENDPOINT | {PROTOCOL: "http/protobuf", "OTEL_SDK_DISABLED": "false"},
        ENDPOINT | {OWN_PROTOCOL: "http/protobuf", PROTOCOL: "grpc"},
    ],
)
def test_spans_are_sent_where_a_collector_is_named(environment: dict[str, str]) -> None:
    assert wanted(environment).on


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": " "},
        {"OTEL_SERVICE_NAME": "scheduler", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://127.0.0.1:4318"},
        ENDPOINT | {"OTEL_SDK_DISABLED": "TRUE"},
        ENDPOINT | {"OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_spans_are_not_sent_where_nobody_wants_it(environment: dict[str, str]) -> None:
    assert (wanted(environment).on, wanted(environment).problem) == (False, "")
    assert type(open_tracer(environment, name="a", version="1")) is Tracer


def test_without_the_extra_the_cure_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the module cannot be imported, since the SDK is not there."""
    monkeypatch.setitem(sys.modules, "scheduler.tracing.exporting", None)
    with capture_logs() as lines:
        assert type(open_tracer(ENDPOINT, name="a", version="1")) is Tracer
    [line] = lines
    assert line["event"] == "no spans are sent: OpenTelemetry's SDK is missing"
    assert line["cure"] == "pip install 'nats-build-scheduler[otel]'"


def test_what_cannot_be_done_is_named_with_the_cure() -> None:
    found = wanted(ENDPOINT | {PROTOCOL: "grpc"})
    assert (found.on, found.problem) == (False, f"{PROTOCOL} is 'grpc': expected 'http/protobuf'")
    found = wanted({"OTEL_TRACES_EXPORTER": "zipkin"})
    assert (found.on, found.problem) == (False, "OTEL_TRACES_EXPORTER is 'zipkin': expected 'otlp' or 'none'")


@pytest.mark.parametrize("name", [PROTOCOL, OWN_PROTOCOL])
def test_of_two_variables_the_one_that_is_wrong_is_named(name: str) -> None:
    problem = wanted(ENDPOINT | {PROTOCOL: "http/protobuf"} | {name: "grpc"}).problem
    assert problem == f"{name} is 'grpc': expected 'http/protobuf'"
