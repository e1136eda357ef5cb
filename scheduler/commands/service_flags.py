"""The settings of the service as flags and variables; as `scheduler.commands.flags`."""

from pathlib import Path
from typing import Annotated, Final, Literal

import attrs
from cyclopts import Parameter

from scheduler.commands.parameters import (
    BUILDS,
    LIMITS,
    LOG,
    STORE,
    TIMES,
    choice,
    number,
    switch,
    text,
)
from scheduler.config import LogFormat, LogLevel, Settings, StoreName
from scheduler.definition.choices import OnUnresolved, Templates
from scheduler.definition.limits import DEFAULT_LIMITS

_SETTINGS: Final = Settings()


@Parameter(name="*")
@attrs.frozen
class EmbeddedFlags:
    """A broker of our own."""

    embedded: Annotated[
        bool, switch("embedded", "Run a broker in this process, on a free port; ignores --nats-url.")
    ] = False
    data_dir: Annotated[
        Path | None,
        text(
            "data_dir",
            "Data of the embedded broker [default: your data directory; for `run` a temporary one].",
        ),
    ] = None


@Parameter(name="*")
@attrs.frozen
class BuildFlags:
    """What a build may be."""

    templates: Annotated[
        Templates | None,
        choice(
            "templates",
            Templates,
            "all: $(...) and {{ }} in fields; ernest: only $(...)"
            " [default: all; with the Ernest store: ernest].",
            BUILDS,
            show_default=False,
        ),
    ] = None
    unresolved: Annotated[
        OnUnresolved | None,
        choice(
            "unresolved",
            OnUnresolved,
            "A reference that finds nothing: an error, or kept as text"
            " [default: error; with the Ernest store: keep].",
            BUILDS,
            show_default=False,
        ),
    ] = None
    max_changes: Annotated[int, number("max_changes", "Components that a build may change.", LIMITS)] = (
        DEFAULT_LIMITS.max_changes
    )
    max_components: Annotated[
        int, number("max_components", "Existing components that a build may list.", LIMITS)
    ] = DEFAULT_LIMITS.max_components
    max_edges: Annotated[int, number("max_edges", "Edges of a build.", LIMITS)] = DEFAULT_LIMITS.max_edges
    max_depth: Annotated[int, number("max_depth", "Levels of nesting in JSON.", LIMITS)] = (
        DEFAULT_LIMITS.max_depth
    )
    max_digits: Annotated[int, number("max_digits", "Digits of a whole number.", LIMITS)] = (
        DEFAULT_LIMITS.max_digits
    )
    max_component_bytes: Annotated[
        int, number("max_component_bytes", "Bytes of a submitted component.", LIMITS)
    ] = DEFAULT_LIMITS.max_component_bytes
    max_definition_bytes: Annotated[
        int, number("max_definition_bytes", "Bytes of a build from the object store.", LIMITS)
    ] = DEFAULT_LIMITS.max_definition_bytes
    max_id_bytes: Annotated[int, number("max_id_bytes", "Bytes of a component's id.", LIMITS)] = (
        DEFAULT_LIMITS.max_id_bytes
    )
    max_template_nodes: Annotated[
        int, number("max_template_nodes", "Nodes of all expressions of a build together.", LIMITS)
    ] = DEFAULT_LIMITS.max_template_nodes
    max_error_bytes: Annotated[
        int, number("max_error_bytes", "Bytes after which an error text is cut.", LIMITS)
    ] = DEFAULT_LIMITS.max_error_bytes


@Parameter(name="*")
@attrs.frozen
class StoreFlags:
    """Where builds are kept."""

    store: Annotated[
        Literal["auto", "jetstream", "ernest", "memory"],
        choice(
            "store",
            StoreName,
            "Where builds are kept. auto: in the broker's JetStream; ernest: in an Ernest"
            " service-store; memory: in this process only.",
            STORE,
        ),
    ] = _SETTINGS.store
    replicas: Annotated[int, number("replicas", "Brokers that keep a copy; with 3, one may fail.", STORE)] = (
        _SETTINGS.replicas
    )
    capture: Annotated[
        str,
        text(
            "capture",
            "Types whose replies are captured: 'vpc,network' [default: all].",
            STORE,
        ),
    ] = ""
    capture_providers: Annotated[
        str,
        text(
            "capture_providers",
            "Providers whose replies get a stream each: 'aws,gcp' [default: one stream for all].",
            STORE,
        ),
    ] = ""
    reply_bytes: Annotated[
        int,
        number("reply_bytes", "Bytes that a stream of captured replies may take; drops the oldest.", STORE),
    ] = _SETTINGS.reply_bytes


@Parameter(name="*")
@attrs.frozen
class ServiceFlags:
    """How the service works."""

    resend: Annotated[
        str,
        text(
            "resend",
            "Resend requests in flight after a restart. unsent: those not known to have left;"
            " always: all; never: none, they fail. By subject: 'never, vpc.create.*=always'"
            " [default: unsent].",
            BUILDS,
        ),
    ] = ""
    name: Annotated[str | None, text("name", "Name of this instance [default: the host's name].", BUILDS)] = (
        None
    )
    attempt_timeout: Annotated[
        float, number("attempt_timeout", "How long a connector may take to answer.", TIMES)
    ] = _SETTINGS.attempt_timeout
    timeouts: Annotated[
        str, text("timeouts", "The same, by subject: 'vpc.create.*=10m, *.delete.*=300'.", TIMES)
    ] = ""
    start_timeout: Annotated[
        float, number("start_timeout", "How long to wait for a connector to subscribe.", TIMES)
    ] = _SETTINGS.start_timeout
    store_timeout: Annotated[
        float, number("store_timeout", "How long the store may take to answer.", TIMES)
    ] = _SETTINGS.store_timeout
    grace: Annotated[
        float, number("grace", "How long to wait for requests in flight after SIGTERM.", TIMES)
    ] = _SETTINGS.grace
    broker_grace: Annotated[
        float, number("broker_grace", "How long the broker may be away before an error is logged.", TIMES)
    ] = _SETTINGS.broker_grace
    keep: Annotated[
        float, number("keep", "How long to keep a finished build's log (0: delete at once).", TIMES)
    ] = _SETTINGS.keep
    max_builds: Annotated[int, number("max_builds", "Builds that run at a time.", LIMITS)] = (
        _SETTINGS.max_builds
    )
    max_in_flight: Annotated[int, number("max_in_flight", "Requests in flight, of all builds.", LIMITS)] = (
        _SETTINGS.max_in_flight
    )
    max_in_flight_per_build: Annotated[
        int, number("max_in_flight_per_build", "Requests in flight, of one build.", LIMITS)
    ] = _SETTINGS.max_in_flight_per_build
    max_bytes_in_flight: Annotated[
        int, number("max_bytes_in_flight", "Bytes of requests in flight, of all builds.", LIMITS)
    ] = _SETTINGS.max_bytes_in_flight
    rules: Annotated[
        str,
        text(
            "rules",
            "Requests in flight, or started in a period, by subject: 'vpc.create.*=5, *.create.aws=20/s'.",
            LIMITS,
        ),
    ] = ""
    retries: Annotated[
        str,
        text(
            "retries",
            "Attempts by subject, then the first pause, the longest pause, and the total time:"
            " 'vpc.create.*=5:1s:1m:10m' [default: one].",
            BUILDS,
        ),
    ] = ""


@Parameter(name="*")
@attrs.frozen
class LogFlags:
    """What is logged, and how."""

    log_level: Annotated[LogLevel, choice("log_level", LogLevel, "The least that is worth a line.", LOG)] = (
        _SETTINGS.log_level
    )
    log_format: Annotated[
        LogFormat, choice("log_format", LogFormat, "auto: readable in a terminal, else JSON.", LOG)
    ] = _SETTINGS.log_format


EMBEDDED_DEFAULTS = EmbeddedFlags()
BUILD_DEFAULTS = BuildFlags()
STORE_DEFAULTS = StoreFlags()
SERVICE_DEFAULTS = ServiceFlags()
LOG_DEFAULTS = LogFlags()
"""The flags of a command where none is given."""
