"""A connector of the kit that sends its spans to a collector: ``traced.py NATS_URL GATE``.

What is of the type ``net`` waits for the file GATE, and says so in the file GATE.waits.
"""

import sys
import time
from pathlib import Path

import trio
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from scheduler.connectors import Connectors, Context

connectors = Connectors("aws")
gate = Path(sys.argv[2])


@connectors.create("vpc", "net")
def create(context: Context) -> None:
    """Create it, with a span of its own as an instrumented library makes it."""
    if ".net." not in f".{context.subject}":
        return
    gate.with_suffix(".waits").touch()
    while not gate.exists():
        time.sleep(0.02)
    with trace.get_tracer("library").start_as_current_span("inner"):
        context.progress(0.5, "half")


provider = TracerProvider()
# Each is sent when it ends: what blocks the loop for that is this test's own business.
provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)
trio.run(connectors.run, sys.argv[1])
