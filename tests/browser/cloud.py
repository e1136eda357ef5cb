"""Connectors of the kit that send their spans to a collector: ``cloud.py NATS_URL SECONDS TYPE ...``."""

import sys

import trio
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from scheduler.connectors import Connectors, Context

connectors = Connectors("aws", concurrency=1_000)
seconds = float(sys.argv[2])
FIELDS = ("vpc", "network", "security_group", "instance", "internet_gateway", "nat_gateway", "volume")
"""What references ask for, each with ``_aws_id``."""


@connectors.create(*sys.argv[3:])
async def create(context: Context) -> dict[str, str]:
    """Take a while, and invent what a cloud would return."""
    await trio.sleep(seconds)
    return {f"{field}_aws_id": f"{field}-{context.component}" for field in FIELDS}


provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(), max_queue_size=20_000))
trace.set_tracer_provider(provider)
trio.run(connectors.run, sys.argv[1])
provider.shutdown()
