"""Opens the tracer of a process, as the environment says."""

from collections.abc import Mapping

from scheduler.runtime.logger import Logger
from scheduler.tracing.tracer import Tracer
from scheduler.tracing.wanted import wanted

log = Logger()

_CURE = "pip install 'nats-build-scheduler[otel]'"


def open_tracer(environment: Mapping[str, str], *, name: str, version: str) -> Tracer:
    """Return the tracer: one that sends spans, where the environment names a collector.

    Args:
        environment: variables of the process.
        name: name of this instance.
        version: version of the scheduler.
    """
    found = wanted(environment)
    if found.problem:
        log.warning("no spans are sent", reason=found.problem)
    if not found.on:
        return Tracer()
    try:
        from scheduler.tracing.exporting import ExportingTracer  # noqa: PLC0415 - it loads the SDK
    except ImportError as error:
        log.warning("no spans are sent: OpenTelemetry's SDK is missing", reason=str(error), cure=_CURE)
        return Tracer()
    resource = {"service.name": "scheduler", "service.version": version, "service.instance.id": name}
    try:
        return ExportingTracer(resource, version)
    except Exception as error:  # noqa: BLE001 - whatever the SDK says of its variables costs no build
        reason = str(error)
        log.error("no spans are sent: a variable of OpenTelemetry cannot be used", reason=reason)  # noqa: TRY400 - a text for an operator
        return Tracer()
