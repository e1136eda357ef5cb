"""The settings as flags and environment variables, in groups that commands put together as they need.

Each class is flattened into its command's flags. What a flag says is checked here or where it is put to use
(`Settings`, `BusOptions`); whatever is wrong comes out as `InvalidSettings`, one line for a person.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import attrs
from cyclopts import Parameter

from scheduler.bus.options import DEFAULT_INBOX, BusOptions
from scheduler.commands.parameters import (
    BROKER,
    BUILDS,
    LIMITS,
    LOG,
    SIMULATED,
    STORE,
    TIMES,
    choice,
    number,
    switch,
    text,
)
from scheduler.config import (
    DEFAULT_SERVERS,
    LogFormat,
    LogLevel,
    Range,
    Settings,
    StoreName,
    flag_of,
    invalid,
    parse_capture,
    parse_providers,
    parse_resend,
    parse_retry_rules,
    parse_rules,
    parse_servers,
    parse_timeouts,
    variables_of,
)
from scheduler.definition.limits import DEFAULT_LIMITS, Limits
from scheduler.definition.template import OnUnresolved, Templates
from scheduler.errors import InvalidSettings
from scheduler.local.simulator import Behaviour, ReplyTo, parse_output

_NAMES = re.compile(r"\b(?:user(?! info)|password|token|credentials|nkey|tls_key|tls_certificate)\b")
_LEADING_NAMES = re.compile(
    r"^(?:credentials|nkey|inbox_prefix|tls_[a-z]+)(?=[:,])|(?<=^tls_certificate, )tls_key(?=:)"
)


@Parameter(name="*")
@attrs.frozen
class BrokerFlags:
    """Where the broker is, and as whom to log in."""

    nats_url: Annotated[
        str, text("nats_url", "The broker; several, separated by commas, are tried in turn.", BROKER)
    ] = DEFAULT_SERVERS[0]
    user: Annotated[str | None, text("user", "Log in with this name and --password.", BROKER)] = None
    password: Annotated[
        str | None, text("password", "Better in the variable: flags are seen by others.", BROKER)
    ] = None
    token: Annotated[str | None, text("token", "Log in with a token; the same holds.", BROKER)] = None
    credentials: Annotated[Path | None, text("credentials", "Log in with a .creds file.", BROKER)] = None
    nkey: Annotated[Path | None, text("nkey", "Log in with the nkey seed in this file.", BROKER)] = None
    inbox_prefix: Annotated[
        str, text("inbox_prefix", "What answers to us come in on; no other user's.", BROKER)
    ] = DEFAULT_INBOX
    tls_ca: Annotated[Path | None, text("tls_ca", "Certificates to trust, not the system's.", BROKER)] = None
    tls_certificate: Annotated[Path | None, text("tls_certificate", "Our own certificate.", BROKER)] = None
    tls_key: Annotated[Path | None, text("tls_key", "The key to it.", BROKER)] = None
    tls_hostname: Annotated[
        str | None, text("tls_hostname", "The name in the broker's certificate.", BROKER)
    ] = None
    tls_first: Annotated[bool, switch("tls_first", "Start TLS before the broker's greeting.", BROKER)] = False


@Parameter(name="*")
@attrs.frozen
class EmbeddedFlags:
    """A broker of our own."""

    embedded: Annotated[
        bool, switch("embedded", "Run a broker of our own on a free port; --nats-url is not used.", BROKER)
    ] = False
    data_dir: Annotated[
        Path | None,
        text(
            "data_dir",
            "What the embedded broker keeps [default: your data directory; for `run` a temporary one].",
            BROKER,
        ),
    ] = None


_SETTINGS: Final = Settings()


@Parameter(name="*")
@attrs.frozen
class BuildFlags:
    """What a build may be."""

    templates: Annotated[
        Templates | None,
        choice(
            "templates",
            Templates,
            "all: $(...) and {{ }} in fields; ernest: $(...) only"
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
            "What a reference to nothing is: an error, or kept as text"
            " [default: error; with the Ernest store: keep].",
            BUILDS,
            show_default=False,
        ),
    ] = None
    max_changes: Annotated[int, number("max_changes", "Components a build may change.", LIMITS)] = (
        DEFAULT_LIMITS.max_changes
    )
    max_components: Annotated[int, number("max_components", "Components that exist already.", LIMITS)] = (
        DEFAULT_LIMITS.max_components
    )
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
        int, number("max_template_nodes", "Nodes of all expressions of a build.", LIMITS)
    ] = DEFAULT_LIMITS.max_template_nodes
    max_error_bytes: Annotated[
        int, number("max_error_bytes", "Bytes at which error texts are cut.", LIMITS)
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
            " service-store; memory: nowhere, they end with the process.",
            STORE,
        ),
    ] = _SETTINGS.store
    replicas: Annotated[
        int, number("replicas", "Brokers that keep a copy; 3 survive the loss of one.", STORE)
    ] = _SETTINGS.replicas
    capture: Annotated[
        str, text("capture", "Types whose replies are captured: 'vpc,network' [default: all].", STORE)
    ] = ""
    capture_providers: Annotated[
        str,
        text(
            "capture_providers",
            "Providers whose replies are captured, each apart: 'aws,gcp' [default: all, together].",
            STORE,
        ),
    ] = ""
    reply_bytes: Annotated[
        int,
        number("reply_bytes", "Bytes of captured replies, a provider's or all; the oldest go first.", STORE),
    ] = _SETTINGS.reply_bytes


@Parameter(name="*")
@attrs.frozen
class ServiceFlags:
    """How the service works."""

    resend: Annotated[
        str,
        text(
            "resend",
            "What becomes of requests in flight after a restart. unsent: again, if not known to"
            " have left; always: again; never: an error. By subject: 'never, vpc.create.*=always'"
            " [default: unsent].",
            BUILDS,
        ),
    ] = ""
    name: Annotated[str | None, text("name", "This instance's name [default: the host's name].", BUILDS)] = (
        None
    )
    attempt_timeout: Annotated[float, number("attempt_timeout", "For a connector to answer.", TIMES)] = (
        _SETTINGS.attempt_timeout
    )
    timeouts: Annotated[
        str, text("timeouts", "The same by subject: 'vpc.create.*=10m, *.delete.*=300'.", TIMES)
    ] = ""
    start_timeout: Annotated[float, number("start_timeout", "For a connector to be there at all.", TIMES)] = (
        _SETTINGS.start_timeout
    )
    store_timeout: Annotated[float, number("store_timeout", "For the store to answer.", TIMES)] = (
        _SETTINGS.store_timeout
    )
    grace: Annotated[float, number("grace", "For what is in flight, after SIGTERM.", TIMES)] = _SETTINGS.grace
    broker_grace: Annotated[
        float, number("broker_grace", "For the broker to be back, before alarm is raised.", TIMES)
    ] = _SETTINGS.broker_grace
    keep: Annotated[
        float, number("keep", "That a build's log is kept after its end; 0: not at all.", TIMES)
    ] = _SETTINGS.keep
    max_builds: Annotated[int, number("max_builds", "Builds at a time.", LIMITS)] = _SETTINGS.max_builds
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
            "Requests in flight, or begun in a period, by subject: 'vpc.create.*=5, *.create.aws=20/s'.",
            LIMITS,
        ),
    ] = ""
    retries: Annotated[
        str,
        text(
            "retries",
            "Attempts by subject, then the first pause, the longest, and the time in all:"
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


@Parameter(name="*")
@attrs.frozen
class QuietLogFlags:
    """The same, for commands whose output is not their log."""

    log_level: Annotated[LogLevel, choice("log_level", LogLevel, "The least that is worth a line.", LOG)] = (
        "error"
    )
    log_format: Annotated[
        LogFormat, choice("log_format", LogFormat, "auto: readable in a terminal, else JSON.", LOG)
    ] = "auto"


_BEHAVIOUR: Final = Behaviour()


@Parameter(name="*")
@attrs.frozen
class SimulatorFlags:
    """How simulated connectors behave."""

    latency: Annotated[
        float, number("latency", "Time until an answer.", SIMULATED, Range(0.0, 3_600.0, duration=True))
    ] = _BEHAVIOUR.latency
    jitter: Annotated[
        float,
        number("jitter", "Time it may be off by, either way.", SIMULATED, Range(0.0, 3_600.0, duration=True)),
    ] = _BEHAVIOUR.jitter
    failure_rate: Annotated[
        float, number("failure_rate", "The share of requests that fail.", SIMULATED, Range(0.0, 1.0))
    ] = _BEHAVIOUR.failure_rate
    seed: Annotated[
        int, number("seed", "Decides who fails and how long it takes.", SIMULATED, Range(0, 2**63))
    ] = _BEHAVIOUR.seed
    reply_to: Annotated[
        Literal["subject", "inbox", "both"],
        choice("reply_to", ReplyTo, "Answer on <subject>.done, to the reply subject, or both.", SIMULATED),
    ] = _BEHAVIOUR.reply_to
    outputs: Annotated[
        tuple[str, ...],
        text("outputs", "Fields to set, as 'instance.create.*:public_ip=1.2.3.4'; repeatable.", SIMULATED),
    ] = ()

    def behaviour(self) -> Behaviour:
        """These flags as the simulator takes them.

        Raises:
            InvalidSettings: an output is not of the form that it must have.
        """
        outputs = []
        for output in self.outputs:
            try:
                outputs.append(parse_output(output))
            except ValueError:
                allowed = (
                    "is not of the form PATTERN:FIELD=VALUE, such as instance.create.*:public_ip=1.2.3.4"
                )
                raise invalid("outputs", output, allowed) from None
        return Behaviour(
            latency=self.latency,
            jitter=self.jitter,
            failure_rate=self.failure_rate,
            seed=self.seed,
            reply_to=self.reply_to,
            outputs=tuple(outputs),
        )


BROKER_DEFAULTS = BrokerFlags()
EMBEDDED_DEFAULTS = EmbeddedFlags()
BUILD_DEFAULTS = BuildFlags()
STORE_DEFAULTS = StoreFlags()
SERVICE_DEFAULTS = ServiceFlags()
LOG_DEFAULTS = LogFlags()
QUIET_LOG_DEFAULTS = QuietLogFlags()
SIMULATOR_DEFAULTS = SimulatorFlags()
"""The flags of a command where none is given."""

GROUPS: Final = (
    BrokerFlags,
    EmbeddedFlags,
    BuildFlags,
    StoreFlags,
    ServiceFlags,
    LogFlags,
    SimulatorFlags,
)
"""All groups of flags."""
Flags = BrokerFlags | EmbeddedFlags | BuildFlags | StoreFlags | ServiceFlags | LogFlags | QuietLogFlags
_PARSED: Final = {
    "timeouts": parse_timeouts,
    "resend": parse_resend,
    "capture": parse_capture,
    "capture_providers": parse_providers,
    "rules": parse_rules,
    "retries": parse_retry_rules,
}
"""Settings that are written as one text and kept as several values."""


def settings_of(*groups: Flags) -> Settings:
    """The settings that these flags describe; everything they don't mention keeps its default.

    Raises:
        InvalidSettings: a value that cannot be used.
    """
    values: dict[str, Any] = {}
    for group in groups:
        values |= attrs.asdict(group, recurse=False)
    limits = {name: values.pop(name) for name in attrs.fields_dict(Limits) if name in values}
    broker = {name: values.pop(name) for name in attrs.fields_dict(BrokerFlags) if name in values}
    # None is "not given", and what it stands for is made when it is needed.
    values = {name: value for name, value in values.items() if value is not None}
    values |= {name: parse(values[name]) for name, parse in _PARSED.items() if name in values}
    if broker and not values.get("embedded"):
        values["bus"] = _bus_options(broker)
    return Settings(limits=Limits(**limits), **values)


def _bus_options(values: dict[str, Any]) -> BusOptions:
    servers = parse_servers(values.pop("nats_url"))
    try:
        return BusOptions(servers=servers, **values)
    except InvalidSettings as error:
        # It speaks of its attributes, and people know the flags and variables.
        names = _NAMES if "given" in str(error) else _LEADING_NAMES
        raise InvalidSettings(names.sub(_spelled_out, str(error))) from None


def _spelled_out(name: re.Match[str]) -> str:
    return f"{flag_of(name[0])} ({variables_of(name[0])[0]})"
