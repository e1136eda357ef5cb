"""Traces over a real broker, to a collector of our own: a small HTTP server that reads OTLP."""

import json
import socket
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.propagate import inject
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from support.brokers import nats_server
from support.receivers import Receiver, answering, run_receiver

from integration.builds import chain, component
from integration.conftest import World
from integration.harness import Process, Scheduler, eventually

pytestmark = pytest.mark.integration

TRACED = Path(__file__).with_name("traced.py")


class Collector:
    """Has the spans that any process sends."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        receiver.answer = answering(200, content_type="application/x-protobuf")
        self.url = f"http://127.0.0.1:{receiver.port}"

    @property
    def spans(self) -> list[tuple[str, Any]]:
        """The spans so far, each with the name of its service."""
        found = []
        for post in list(self._receiver.posts):
            assert post.path == "/v1/traces"
            for resource in ExportTraceServiceRequest.FromString(post.body).resource_spans:
                named = {one.key: one.value.string_value for one in resource.resource.attributes}
                found += [
                    (named["service.name"], span) for scope in resource.scope_spans for span in scope.spans
                ]
        return found

    def named(self, name: str, component: str = "") -> list[Any]:
        """The spans of a name, and of a component where one is given."""
        return [
            span
            for _, span in self.spans
            if span.name == name
            and (not component or attributes(span).get("scheduler.component.id") == component)
        ]


def attributes(span: Any) -> dict[str, Any]:
    return {
        one.key: one.value.string_value or one.value.int_value or one.value.double_value
        for one in span.attributes
    }


@pytest.fixture
def collector() -> Iterator[Collector]:
    with run_receiver() as receiver:
        yield Collector(receiver)


@pytest.fixture
def world() -> Iterator[World]:
    """A world whose broker has JetStream."""
    with ExitStack() as stack:
        yield World(stack, stack.enter_context(nats_server(jetstream=True)))


def test_one_trace_leads_from_the_submitter_through_a_restart_to_the_connectors(
    world: World, collector: Collector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And ``scheduler timeline --otlp`` writes the same spans as were sent."""
    otel = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}
    env = {"NATS_URL": world.server.url, **otel}
    gate = tmp_path / "gate"
    first = world.scheduler("--store=jetstream", env=env)
    named = {"OTEL_SERVICE_NAME": "connector", **otel}
    document = chain(component("vpc::a"), component("net::b"))
    client = world.client()
    requests = client.listen("vpc.create.aws", "net.create.aws")
    reports = client.listen("build.*.done", "build.*.error")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "submitter")
    submitter = TracerProvider(shutdown_on_exit=False)
    submitter.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(f"{collector.url}/v1/traces")))
    with Process(sys.executable, str(TRACED), world.server.url, str(gate), env=named) as connector:
        eventually(lambda: "connector is ready" in connector.output + connector.errors, "connector")
        with submitter.get_tracer("test").start_as_current_span("submit"):
            carrier: dict[str, str] = {}
            inject(carrier)
            headers = {name.title(): value for name, value in carrier.items()}
            client.publish_with("build.create", json.dumps(document).encode(), "", headers)
        eventually(gate.with_suffix(".waits").exists, "the request")
        first.kill()
        second = world.scheduler("--store=jetstream", env=env)
        gate.touch()
        report = reports.first(lambda message: message.json["id"] == document["id"])
        assert report.subject == "build.create.done"
        path = tmp_path / "spans.jsonl"
        command = world.command("timeline", document["id"], "--otlp", str(path))
        assert command.code == 0, command.errors
        started = second.await_log("build taken up", build=document["id"])
        second.end()
        eventually(lambda: len(collector.named("process net.create.aws")) == 1, "the connector's span")
    submitter.shutdown()

    spans = collector.spans
    assert {span.trace_id for _, span in spans} == {spans[0][1].trace_id}
    by_id = defaultdict(list)
    for _, span in spans:
        by_id[span.span_id].append(span)
    [submit] = collector.named("submit")
    [run] = collector.named("build.create")
    a, *again = collector.named("request vpc.create.aws", "vpc::a")
    [b] = collector.named("request net.create.aws", "net::b")
    [call_a] = collector.named("process vpc.create.aws")
    [call_b] = collector.named("process net.create.aws")
    [inner] = collector.named("inner")
    assert {one.span_id for one in again} <= {a.span_id}
    assert submit.parent_span_id == b""
    assert run.parent_span_id == submit.span_id
    assert a.parent_span_id == b.parent_span_id == run.span_id
    assert (call_a.parent_span_id, call_b.parent_span_id) == (a.span_id, b.span_id)
    assert inner.parent_span_id == call_b.span_id
    assert [link.span_id for link in b.links] == [a.span_id]
    assert run.start_time_unix_nano <= a.start_time_unix_nano <= b.start_time_unix_nano
    assert b.end_time_unix_nano <= run.end_time_unix_nano
    assert [event.name for event in b.events][-1] == "answered"
    assert {name for name, _ in spans} == {"submitter", "scheduler", "connector"}
    assert {one for _, span in spans for one in [span.parent_span_id]} <= {b"", *by_id}

    flags = carrier["traceparent"][-2:]
    # A request that was sent again has the same context.
    contexts = {(message.subject, message.headers["traceparent"]) for message in requests}
    assert contexts == {
        ("vpc.create.aws", f"00-{a.trace_id.hex()}-{a.span_id.hex()}-{flags}"),
        ("net.create.aws", f"00-{a.trace_id.hex()}-{b.span_id.hex()}-{flags}"),
    }
    assert started["trace_id"] == submit.trace_id.hex()
    assert started["span_id"] == run.span_id.hex()
    exported = [
        span
        for line in path.read_text().splitlines()
        for span in json.loads(line)["resourceSpans"][0]["scopeSpans"][0]["spans"]
    ]
    assert {span["spanId"] for span in exported} == {one.span_id.hex() for one in (run, a, b)}
    assert {span["traceId"] for span in exported} == {submit.trace_id.hex()}


def test_without_a_collector_nothing_goes_on_the_wire(world: World) -> None:
    """No header in a request, none in a log; a context that comes is passed on all the same."""
    scheduler = world.scheduler("--store=jetstream", env={"NATS_URL": world.server.url})
    world.connectors()
    client = world.client()
    heard = client.listen("vpc.create.aws", "scheduler.log.>")
    reports = client.listen("build.*.done")
    plain, traced = chain(component("vpc::1")), chain(component("vpc::2"))
    client.publish("build.create", plain)
    reports.first(lambda message: message.json["id"] == plain["id"])
    assert not [name for message in heard for name in message.headers if "trace" in name.lower()]
    parent = f"00-{'a' * 32}-{'b' * 16}-01"
    client.publish_with("build.create", json.dumps(traced).encode(), "", {"TRACEPARENT": parent})
    reports.first(lambda message: message.json["id"] == traced["id"])
    [request] = [one for one in heard if one.subject == "vpc.create.aws" and "traceparent" in one.headers]
    assert request.headers["traceparent"].startswith(f"00-{'a' * 32}-")
    scheduler.end()


def test_a_command_submits_in_the_trace_of_its_environment(world: World) -> None:
    """As a step of a CI system that sets TRACEPARENT."""
    world.scheduler("--store=memory", env={"NATS_URL": world.server.url})
    world.connectors()
    heard = world.client().listen("build.create", "vpc.create.aws")
    parent = f"00-{'a' * 32}-{'b' * 16}-01"
    env = {"NATS_URL": world.server.url, "TRACEPARENT": parent, "TRACESTATE": "v=1"}
    command = world.started(Scheduler("run", "-", env=env))
    command.write(json.dumps(chain(component("vpc::1"))), end=True)
    assert command.wait() == 0, command.errors
    submitted, request = heard.count(2)[:2]
    assert (submitted.headers["traceparent"], submitted.headers["tracestate"]) == (parent, "v=1")
    assert request.headers["traceparent"].startswith(f"00-{'a' * 32}-")


def test_a_variable_that_cannot_be_used_costs_the_spans_and_no_build(world: World) -> None:
    env = {"NATS_URL": world.server.url, "OTEL_TRACES_EXPORTER": "otlp"}
    scheduler = world.scheduler("--store=memory", env={**env, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "100000"})
    world.connectors()
    world.submitter().run(chain(component("vpc::1")))
    line = scheduler.await_log("no spans are sent: a variable of OpenTelemetry cannot be used")
    assert "max_export_batch_size" in line["reason"]
    scheduler.end()


def test_a_collector_that_is_away_delays_neither_builds_nor_the_end(world: World) -> None:
    """And it is said that spans were not sent."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        env = {"NATS_URL": world.server.url, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}
        scheduler = world.scheduler("--store=memory", env=env)
        world.connectors()
        submitter = world.submitter()
        submitter.run(chain(*(component(f"vpc::{number}") for number in range(5))))
        began = time.monotonic()
        code, _ = scheduler.stop()
        assert code == 0
        assert time.monotonic() - began < 10
        assert "not all spans were sent" in scheduler.errors
