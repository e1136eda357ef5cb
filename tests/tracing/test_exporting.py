"""Spans as OpenTelemetry's SDK gets them."""

import threading
import time
from collections.abc import Sequence

import pytest
import trio
from attrs import evolve
from opentelemetry.sdk.trace import ReadableSpan, sampling
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import Sampler, SamplingResult
from opentelemetry.trace import SpanKind, StatusCode
from structlog.testing import capture_logs

from scheduler.tracing import exporting
from scheduler.tracing.backlog import Backlog, weight_of
from scheduler.tracing.build import BuildTrace
from scheduler.tracing.context import TraceContext
from scheduler.tracing.exporting import ExportingTracer
from scheduler.tracing.spans import Attempt, Run, attempt_span, run_span

CONTEXT = TraceContext("a" * 32, "b" * 16, 1, "v=1")
RUN = Run("b1", "prod", "build.create", 1, 10.0, 20.0, "done", {"completed": 2})
ATTEMPT = Attempt("b1", 1, "a", 1, "vpc.create.aws", 14.0, due=10.0, sent=11.0, needs=[("z", 2)])


class Keeping(SpanExporter):
    """Keeps what is exported."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.spans: list[ReadableSpan] = []
        self.seconds = seconds
        self.arrived = threading.Semaphore(0)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        time.sleep(self.seconds)
        self.spans += spans
        self.arrived.release()
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        pass


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG", "OTEL_RESOURCE_ATTRIBUTES"):
        monkeypatch.delenv(name, raising=False)


def tracer(kept: SpanExporter) -> ExportingTracer:
    return ExportingTracer({"service.name": "scheduler", "service.instance.id": "i1"}, "1", kept)


async def test_a_span_arrives_with_its_ids_times_events_and_links() -> None:
    kept = Keeping()
    one = tracer(kept)
    trace = one.begin(CONTEXT, "b1", "m", "build.create")
    one.export(attempt_span(trace, ATTEMPT))
    one.export(run_span(trace, evolve(RUN, error="no")))
    await one.finish(5)
    attempt, run = kept.spans
    assert attempt.context is not None
    assert run.context is not None
    assert f"{attempt.context.trace_id:032x}" == f"{run.context.trace_id:032x}" == "a" * 32
    assert f"{attempt.context.span_id:016x}" == trace.attempt("a", 1)
    assert attempt.parent is not None
    assert f"{attempt.parent.span_id:016x}" == f"{run.context.span_id:016x}" == trace.run(1)
    assert run.parent is not None
    assert (f"{run.parent.span_id:016x}", run.parent.is_remote, attempt.parent.is_remote) == (
        "b" * 16,
        True,
        False,
    )
    assert attempt.context.trace_state.to_header() == "v=1"
    assert (attempt.start_time, attempt.end_time) == (10_000_000_000, 14_000_000_000)
    assert [(event.name, event.timestamp) for event in attempt.events] == [
        ("due", 10_000_000_000),
        ("sent", 11_000_000_000),
    ]
    assert [f"{link.context.span_id:016x}" for link in attempt.links] == [trace.attempt("z", 2)]
    assert (attempt.kind, run.kind) == (SpanKind.CLIENT, SpanKind.INTERNAL)
    assert (attempt.status.status_code, run.status.status_code) == (StatusCode.OK, StatusCode.ERROR)
    assert run.status.description == "no"
    assert attempt.attributes is not None
    assert attempt.attributes["messaging.destination.name"] == "vpc.create.aws"


async def test_a_build_without_a_context_begins_a_trace_of_its_own() -> None:
    kept = Keeping()
    one = tracer(kept)
    trace, other = (one.begin(None, build, "m", "build.create") for build in ("b1", "b2"))
    one.export(run_span(trace, RUN))
    await one.finish(5)
    [run] = kept.spans
    assert run.parent is None
    assert run.context is not None
    assert (f"{run.context.trace_id:032x}", f"{run.context.span_id:016x}") == (trace.trace, trace.run(1))
    assert trace.trace != other.trace
    assert trace.sampled


@pytest.mark.parametrize(
    ("sampler", "argument", "context", "sampled"),
    [
        ("", "", CONTEXT, True),
        ("", "", TraceContext("a" * 32, "b" * 16, 0), False),
        ("always_off", "", CONTEXT, False),
        ("always_on", "", TraceContext("a" * 32, "b" * 16, 0), True),
        ("parentbased_traceidratio", "0", None, False),
        ("parentbased_traceidratio", "0", CONTEXT, True),
    ],
)
async def test_the_sampler_of_the_environment_decides_once_for_all_spans_of_a_build(
    monkeypatch: pytest.MonkeyPatch,
    sampler: str,
    argument: str,
    context: TraceContext | None,
    sampled: bool,
) -> None:
    if sampler:
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
        monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", argument)
    kept = Keeping()
    one = tracer(kept)
    trace = one.begin(context, "b1", "m", "build.create")
    assert trace.sampled is sampled
    one.export(run_span(trace, RUN))
    one.export(attempt_span(trace, ATTEMPT))
    await one.finish(5)
    assert len(kept.spans) == (2 if sampled else 0)


async def test_names_in_the_environment_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "builds")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=prod")
    kept = Keeping()
    one = tracer(kept)
    one.export(run_span(BuildTrace.of(CONTEXT, "b1", "m"), RUN))
    await one.finish(5)
    attributes = kept.spans[0].resource.attributes
    assert attributes["service.name"] == "builds"
    assert attributes["service.instance.id"] == "i1"
    assert attributes["deployment.environment.name"] == "prod"


async def test_what_waits_weighs_nothing_any_more_once_it_was_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "_MOST_BYTES", 10_000)
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1")
    kept = Keeping()
    one = tracer(kept)
    trace = BuildTrace.of(CONTEXT, "b1", "m")
    for _ in range(4):
        one.export(attempt_span(trace, ATTEMPT))
        assert await trio.to_thread.run_sync(kept.arrived.acquire, True, 5)
    await one.finish(5)
    assert [len(span.links) for span in kept.spans] == [1, 1, 1, 1]


async def test_while_too_much_waits_spans_come_without_links_and_events(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A collector may be away for hours, and each link takes the memory of an object of its own."""
    monkeypatch.setattr(exporting, "_MOST_BYTES", 10_000)
    kept = Keeping()
    one = tracer(kept)
    trace = BuildTrace.of(CONTEXT, "b1", "m")
    for _ in range(4):
        one.export(attempt_span(trace, ATTEMPT))
    await one.finish(5)
    assert [(len(span.links), len(span.events)) for span in kept.spans] == [(1, 2), (1, 2), (0, 0), (0, 0)]
    last = kept.spans[-1].attributes or {}
    assert (last["scheduler.links.left_out"], last["scheduler.events.left_out"]) == (1, 2)


def test_what_the_sdk_drops_weighs_nothing_either() -> None:
    trace = BuildTrace.of(CONTEXT, "b1", "m")
    heavy, light = attempt_span(trace, evolve(ATTEMPT, needs=[("z", 1)] * 9)), run_span(trace, RUN)
    backlog = Backlog(2)
    for span in (heavy, light, light):
        backlog.add(span)
    assert backlog.bytes == 2 * weight_of(light)
    backlog.take(5)
    assert backlog.bytes == 0


@pytest.mark.parametrize(("text", "most"), [("", 8_192), ("600", 600), ("many", 8_192), ("0", 8_192)])
def test_the_number_that_may_wait_is_that_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, text: str, most: int
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", text)
    assert exporting._most_waiting() == most


def test_a_header_that_cannot_be_read_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """OpenTelemetry logs it whole, and passwords are given in headers."""
    # Whatever the level of the root logger was left at.
    caplog.set_level("WARNING", exporting._READER_OF_HEADERS)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "Authorization: Bearer hunter2")
    ExportingTracer({}, "1")
    assert "Header format invalid" in caplog.text
    assert "hunter2" not in caplog.text


class Failing(Sampler):
    """A sampler of somebody else's that fails."""

    def should_sample(self, *_: object, **__: object) -> SamplingResult:
        msg = "out of order"
        raise RuntimeError(msg)

    def get_description(self) -> str:
        return "failing"


async def test_a_sampler_that_fails_costs_spans_and_no_build(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Keeping()
    monkeypatch.setattr(sampling, "_get_from_env_or_default", Failing)
    one = tracer(kept)
    with capture_logs() as lines:
        trace = one.begin(CONTEXT, "b1", "m", "build.create")
        one.export(run_span(BuildTrace.of(CONTEXT, "b1", "m"), RUN))
    await one.finish(5)
    assert not trace.sampled
    assert trace.context.span == CONTEXT.span
    assert [line["event"] for line in lines] == [
        "spans of a build are not sent: the sampler has failed",
        "a span is not sent: the SDK has failed",
    ]
    assert not kept.spans


async def test_a_collector_that_does_not_answer_keeps_nobody() -> None:
    one = tracer(Keeping(3.0))
    began = time.perf_counter()
    one.export(run_span(BuildTrace.of(CONTEXT, "b1", "m"), RUN))
    assert time.perf_counter() - began < 0.5
    with trio.fail_after(2):
        await one.finish(0.1)
