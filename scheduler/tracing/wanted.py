"""Whether spans are sent, by the standard variables of OpenTelemetry. Pure."""

from collections.abc import Mapping
from typing import Final

from attrs import frozen

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_EXPORTERS: Final = "OTEL_TRACES_EXPORTER"
_DISABLED: Final = "OTEL_SDK_DISABLED"
PROTOCOL: Final = "http/protobuf"
_LONGEST: Final = 100
"""Characters of a value that a message shows."""


@frozen
class Wanted:
    """Answer of the environment."""

    on: bool
    """Whether spans are to be sent."""
    problem: str = ""
    """Reason why they are not, although somebody seems to want it; empty where there is none."""


def wanted(environment: Mapping[str, str]) -> Wanted:
    """Return whether spans are to be sent.

    They are where an endpoint is named, or ``OTEL_TRACES_EXPORTER`` is ``otlp``: a service that has never
    heard of OpenTelemetry is not to look for a collector.
    """
    if _first(environment, (_DISABLED,)).lower() == "true":
        return Wanted(False)
    exporters = [one for part in _first(environment, (_EXPORTERS,)).split(",") if (one := part.strip())]
    if exporters and "otlp" not in exporters:
        if exporters == ["none"]:
            return Wanted(False)
        return Wanted(False, f"{_EXPORTERS} is {','.join(exporters)!r}: expected 'otlp' or 'none'")
    if not exporters and not _first(environment, _ENDPOINTS):
        return Wanted(False)
    for name in _PROTOCOLS:
        if protocol := _first(environment, (name,)):
            # The first one that is set counts.
            return Wanted(True) if protocol == PROTOCOL else _wrong(name, protocol)
    return Wanted(True)


def _wrong(name: str, protocol: str) -> Wanted:
    return Wanted(False, f"{name} is {protocol[:_LONGEST]!r}: expected {PROTOCOL!r}")


def _first(environment: Mapping[str, str], names: tuple[str, ...]) -> str:
    """Return the first of these variables that is set and not empty."""
    return next((value for name in names if (value := environment.get(name, "").strip())), "")
