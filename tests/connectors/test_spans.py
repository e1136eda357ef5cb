"""Spans of calls, below the attempts of the scheduler."""

# ruff: noqa: ARG001 - a test asks for the clock by naming it

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import structlog
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, get_current_span, get_tracer
from support.connecting import JSON, open_connector
from support.fake_bus import FakeBus
from trio.testing import MockClock

from scheduler.connectors import Connectors, Context, Permanent
from scheduler.connectors import spans as kit
from scheduler.tracing.context import TraceContext, read_context

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
HEADERS = {"TraceParent": f"00-{TRACE}-{SPAN}-01", "tracestate": "vendor=1"}


class Collector:
    """Has the spans that an SDK in this process ends."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        return self._exporter.get_finished_spans()


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    collector = Collector()
    monkeypatch.setattr(kit, "_tracer", collector.provider.get_tracer("scheduler.connectors"))
    yield collector
    collector.provider.shutdown()


def context_of(span: ReadableSpan) -> tuple[str, str]:
    assert span.context is not None
    return f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}"


async def test_a_call_is_a_span_below_its_attempt(
    collector: Collector, fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    connectors, seen = Connectors("aws"), []

    @connectors.create("vpc")
    async def create(context: Context) -> None:
        seen.append(dict(context.trace))

    async with open_connector(connectors, fake_bus) as peer:
        await peer.reply(peer.ask(headers=HEADERS))
    [span] = collector.spans
    assert (span.name, span.kind) == ("process vpc.create.aws", SpanKind.SERVER)
    assert span.parent is not None
    assert (f"{span.parent.span_id:016x}", span.parent.is_remote) == (SPAN, True)
    trace, own = context_of(span)
    assert trace == TRACE
    assert span.status.status_code is StatusCode.OK
    assert span.attributes is not None
    assert span.attributes["scheduler.component.id"] == "vpc::a"
    assert span.attributes["messaging.message.id"] == "b/a/1"
    assert seen == [{"traceparent": f"00-{TRACE}-{own}-01", "tracestate": "vendor=1"}]


@pytest.mark.parametrize("backend", ["trio", "asyncio", "thread"])
async def test_what_a_handler_does_hangs_below_its_call_on_every_backend(
    collector: Collector, fake_bus: FakeBus, backend: str
) -> None:
    """By the current span, as instrumented libraries find it."""
    connectors = Connectors("aws", backend="asyncio" if backend == "asyncio" else "trio")
    tracer = collector.provider.get_tracer("library")

    def work() -> None:
        with tracer.start_as_current_span("inner"):
            pass

    if backend == "thread":
        connectors.create("vpc")(work)
    else:

        @connectors.create("vpc")
        async def create() -> None:
            work()

    async with open_connector(connectors, fake_bus) as peer:
        await peer.reply(peer.ask(headers=HEADERS))
    inner, call = collector.spans
    assert inner.parent is not None
    assert call.context is not None
    assert inner.parent.span_id == call.context.span_id
    assert not get_current_span().get_span_context().is_valid


async def test_two_calls_at_a_time_have_a_span_each(
    collector: Collector, fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    connectors = Connectors("aws")
    seen: dict[str, str] = {}

    @connectors.create("vpc")
    async def create(request: JSON) -> None:
        seen[request["name"]] = f"{get_current_span().get_span_context().trace_id:032x}"

    async with open_connector(connectors, fake_bus) as peer:
        for name in "12":
            parent = f"00-{name * 32}-{SPAN}-01"
            peer.ask(body={"name": name}, attempt=f"b/{name}/1", key=name, headers={"traceparent": parent})
        for subject in ("scheduler.reply.o.aws.1", "scheduler.reply.o.aws.2"):
            await peer.reply(subject)
    assert seen == {"1": "1" * 32, "2": "2" * 32}


async def test_a_failure_is_told_without_secrets(
    collector: Collector, fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    connectors = Connectors("aws")

    @connectors.create("vpc")
    async def create() -> None:
        raise Permanent("refused: hunter2hunter2")

    async with open_connector(connectors, fake_bus) as peer:
        await peer.reply(peer.ask(body={"password": "hunter2hunter2"}, headers=HEADERS))
    [span] = collector.spans
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description is not None
    assert span.status.description.startswith("refused: ")
    assert "hunter2" not in span.to_json()


async def test_without_an_sdk_what_a_handler_asks_for_hangs_below_the_attempt(
    fake_bus: FakeBus, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kit, "_tracer", get_tracer("nobody set up an SDK"))
    connectors = Connectors("aws")
    seen: list[Mapping[str, str]] = []

    @connectors.create("vpc")
    async def create(context: Context) -> None:
        seen.append(context.trace)

    async with open_connector(connectors, fake_bus) as peer:
        await peer.reply(peer.ask(headers=HEADERS))
    assert read_context(seen[0]) == TraceContext(TRACE, SPAN, 1, "vendor=1")


async def test_without_a_trace_there_is_no_span(
    collector: Collector, fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    connectors = Connectors("aws")
    seen: list[Any] = []

    @connectors.create("vpc")
    async def create(context: Context) -> None:
        seen.append(dict(context.trace))

    async with open_connector(connectors, fake_bus) as peer:
        await peer.reply(peer.ask(headers={"traceparent": "nonsense"}))
    assert seen == [{}]
    assert not collector.spans


async def test_lines_of_the_log_have_the_ids_of_the_call(
    collector: Collector, fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    connectors, seen = Connectors("aws"), []

    @connectors.create("vpc")
    async def create() -> None:
        seen.append(structlog.contextvars.get_contextvars())

    async with open_connector(connectors, fake_bus) as peer:
        await peer.reply(peer.ask(headers=HEADERS))
    assert (seen[0]["trace_id"], seen[0]["span_id"]) == context_of(collector.spans[0])


async def test_no_reply_and_no_heartbeat_has_a_trace_in_its_headers(
    collector: Collector, fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    connectors = Connectors("aws")

    @connectors.create("vpc")
    async def create(context: Context) -> None:
        context.progress(0.5)

    async with open_connector(connectors, fake_bus) as peer:
        await peer.reply(peer.ask(headers=HEADERS))
    assert fake_bus.published
    assert not any(one.headers for one in fake_bus.published)
