"""Every setting of the service, as one frozen value that was checked when it was made.

A setting has one name in three spellings: ``max_builds`` here, ``--max-builds`` on the command line and
``SCHEDULER_MAX_BUILDS`` in the environment. `scheduler.commands.flags` reads the latter two.

One file on purpose: a setting more is one declaration here, and its place in the documentation's table.
"""

import platform
import re
from pathlib import Path
from typing import Final, Literal, TypeAlias

import platformdirs
from attrs import Factory, frozen

from scheduler.bus.options import DEFAULT_SERVER, BusOptions
from scheduler.config.addresses import Address, check_http_hosts, parse_address, parse_http_hosts
from scheduler.config.notifications import (
    check_notify,
    check_notify_hosts,
    parse_notify,
    parse_notify_hosts,
    read_notify,
    read_signing_keys,
)
from scheduler.config.reading import (
    ATTEMPT_TIMEOUT,
    HEARTBEAT,
    Resends,
    Retries,
    Timeouts,
    check_capture,
    check_durations,
    check_providers,
    checked_pattern,
    parse_capture,
    parse_heartbeats,
    parse_providers,
    parse_resend,
    parse_retry_rules,
    parse_rules,
    parse_timeouts,
)
from scheduler.config.web import DEFAULT_WEB, WebSettings
from scheduler.definition.choices import OnUnresolved, Templates
from scheduler.definition.destinations import AllowedHosts, Destination
from scheduler.definition.limits import DEFAULT_LIMITS, Limits
from scheduler.definition.model import Resend
from scheduler.definition.patterns import first_match
from scheduler.definition.rules import LimitRule, Retry, retry_for
from scheduler.setting import Range, Section, check_choice, check_ranges, invalid, setting, settings_in

StoreName: TypeAlias = Literal["auto", "jetstream", "ernest", "memory"]
LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]
LogFormat: TypeAlias = Literal["auto", "json", "console"]

DEFAULT_SERVERS: Final = (DEFAULT_SERVER,)

_NAME = re.compile(r"[A-Za-z0-9._@:-]{1,128}")
_NO_HOME = Path("/nonexistent")
"""Home of users that have none, as Debian names it: nothing can be made there."""
_DAY = 86_400.0
_MEBIBYTE = 1024 * 1024
_GIBIBYTE = 1024 * _MEBIBYTE
_MILLION = Range(1, 1_000_000)
_AN_HOUR = Range(0.001, 3_600.0, duration=True)


def default_data_dir() -> Path:
    """Return this user's data directory, which an embedded broker uses by default.

    A user without a home, as in many containers, has none, and needs none to run the service.
    """
    try:
        return platformdirs.user_data_path("scheduler", appauthor=False)
    except RuntimeError:
        return _NO_HOME / "scheduler"


def _default_name() -> str:
    node = re.sub(r"[^A-Za-z0-9._@:-]", "-", platform.node())[:128]
    return node or "scheduler"


def _default_templates(settings: "Settings") -> Templates:
    """Return ``$(...)`` only for the Ernest store, as the output of its mapper relies on that."""
    return Templates.ERNEST if settings.store == "ernest" else Templates.ALL


def _default_unresolved(settings: "Settings") -> OnUnresolved:
    """Return that the Ernest store keeps a reference which leads to nothing, for the same reason."""
    return OnUnresolved.KEEP if settings.store == "ernest" else OnUnresolved.ERROR


@frozen(kw_only=True)
class Settings:
    """Settings of the service.

    Raises:
        InvalidSettings: a value cannot be used; the message is one line, for the person who set it.
    """

    bus: BusOptions = Factory(lambda: BusOptions(servers=DEFAULT_SERVERS, chosen=False))
    """Address of the broker, and credentials; ignored where ``embedded`` is set."""
    limits: Limits = DEFAULT_LIMITS
    page: WebSettings = DEFAULT_WEB
    embedded: bool = setting(
        False,
        "Run a broker in this process, for this user; ignores --nats-url.",
        Section.EMBEDDED,
    )
    data_dir: Path = setting(
        Factory(default_data_dir),
        "Data of the embedded broker, its token and its port.",
        Section.EMBEDDED,
        otherwise="your data directory; for `run` a temporary one",
    )
    store: StoreName = setting(
        "auto",
        "Where builds are kept. auto: in the broker's JetStream; ernest: in an Ernest"
        " service-store; memory: in this process only.",
        Section.STORE,
        more="See [Stores](production.md#stores).",
    )
    """Kind of the store. ``auto`` is ``jetstream``, without which the service does not start."""
    replicas: int = setting(
        1,
        "Brokers that keep a copy; with 3, one may fail.",
        Section.STORE,
        # JetStream has no more.
        Range(1, 5),
        more="Counts when a stream is made.",
    )
    capture: tuple[str, ...] = setting(
        (),
        "Types whose replies are captured: 'vpc,network'.",
        Section.STORE,
        read=parse_capture,
        otherwise="all",
    )
    """Component types whose replies are captured, also while no process listens; every type where empty."""
    capture_providers: tuple[str, ...] = setting(
        (),
        "Providers whose replies get a stream each: 'aws,gcp'.",
        Section.STORE,
        read=parse_providers,
        otherwise="one stream for all",
        more="See [Room for captured replies](production.md#room-for-captured-replies).",
    )
    """Providers whose replies are captured, each in a stream of its own; all in one stream where empty."""
    reply_bytes: int = setting(
        _GIBIBYTE,
        "Bytes that a stream of captured replies may take; drops the oldest.",
        Section.STORE,
        Range(16 * _MEBIBYTE, 1_024 * _GIBIBYTE),
    )
    templates: Templates = setting(
        Factory(_default_templates, takes_self=True),
        "all: $(...) and {{ }} in fields; ernest: only $(...).",
        Section.REFERENCES,
        otherwise="all; with the Ernest store: ernest",
    )
    unresolved: OnUnresolved = setting(
        Factory(_default_unresolved, takes_self=True),
        "A reference that finds nothing: an error, or kept as text.",
        Section.REFERENCES,
        otherwise="error; with the Ernest store: keep",
    )
    resend: Resends = setting(
        (),
        "Resend requests in flight after a restart. unsent: those not known to have left;"
        " always: all; never: none, they fail. By subject: 'never, vpc.create.*=always'.",
        Section.BUILDS,
        read=parse_resend,
        otherwise="unsent",
        more="See [Durability](durability.md#what-is-sent-again).",
    )
    name: str = setting(
        Factory(_default_name),
        "Name of this instance.",
        Section.BUILDS,
        otherwise="the host's name",
        more="It stands in the log and in service discovery.",
    )
    instance: str = setting(
        "",
        "Name of this instance in a fleet, kept over restarts: it retakes its own lease at once.",
        Section.BUILDS,
        otherwise="another one for each process",
        more="Unlike that of any other instance on the broker. See [Fleet](fleet.md).",
    )
    retries: Retries = setting(
        (),
        "Attempts by subject, then the first pause, the longest pause, and the total time:"
        " 'vpc.create.*=5:1s:1m:10m'.",
        Section.BUILDS,
        read=parse_retry_rules,
        otherwise="one",
        more="A build may say otherwise, see [Retries](builds.md#retries).",
    )
    attempt_timeout: float = setting(
        3_600.0, "How long a connector may take to answer.", Section.TIMES, ATTEMPT_TIMEOUT
    )
    timeouts: Timeouts = setting(
        (),
        "The same, by subject: 'vpc.create.*=10m, *.delete.*=300'.",
        Section.TIMES,
        read=parse_timeouts,
    )
    heartbeats: Timeouts = setting(
        (),
        "Fail an attempt without a heartbeat for so long, by subject: 'vpc.*.*=30'.",
        Section.TIMES,
        read=parse_heartbeats,
        otherwise="no heartbeats are needed",
        more="See [Heartbeats](connectors.md#heartbeats).",
    )
    start_timeout: float = setting(
        10.0, "How long to wait for a connector to subscribe.", Section.TIMES, _AN_HOUR
    )
    store_timeout: float = setting(
        30.0, "How long the store may take to answer.", Section.TIMES, _AN_HOUR, more="Retries included."
    )
    grace: float = setting(
        25.0,
        "How long to wait for requests in flight after SIGTERM.",
        Section.TIMES,
        Range(0.0, 3_600.0, duration=True),
    )
    broker_grace: float = setting(
        600.0,
        "How long the broker may be away before an error is logged.",
        Section.TIMES,
        Range(0.0, 30 * _DAY, duration=True),
    )
    keep: float = setting(
        7 * _DAY,
        "How long to keep a finished build's log (0: delete at once).",
        Section.TIMES,
        Range(0.0, 3_650 * _DAY, duration=True),
    )
    max_builds: int = setting(
        10_000,
        "Builds that run at a time.",
        Section.LIMITS,
        _MILLION,
        more="One [sender](operating.md#limits) has 7/8 of it.",
    )
    max_in_flight: int = setting(
        2_000, "Requests in flight, of all builds.", Section.LIMITS, _MILLION, more="More are queued."
    )
    max_in_flight_per_build: int = setting(500, "Requests in flight, of one build.", Section.LIMITS, _MILLION)
    max_bytes_in_flight: int = setting(
        8 * _MEBIBYTE,
        "Bytes of requests in flight, of all builds.",
        Section.LIMITS,
        Range(64 * 1_024, 1_024 * _MEBIBYTE),
        more="See [Bytes in flight](operating.md#bytes-in-flight).",
    )
    """Bound on bytes in flight: messages of other builds wait behind them, and they wait in the server."""
    rules: tuple[LimitRule, ...] = setting(
        (),
        "Requests in flight, or started in a period, by subject: 'vpc.create.*=5, *.create.aws=20/s'.",
        Section.LIMITS,
        read=parse_rules,
        # `limits` are the bounds of a build, which came first.
        name="limits",
        more="See [Limits](operating.md#limits).",
    )
    notify: tuple[str, ...] = setting(
        (),
        "URLs to post notifications of every build to, separated by commas.",
        Section.NOTIFICATIONS,
        read=parse_notify,
        more="See [Notifications](operating.md#notifications).",
        repr=lambda urls: f"<{len(urls)} URLs>",
    )
    """URLs of the operator's; their paths may be secrets."""
    notify_hosts: tuple[str, ...] = setting(
        (),
        "Hosts that a build may name in its field 'notify': 'hooks.example.com,127.0.0.1:9000'.",
        Section.NOTIFICATIONS,
        read=parse_notify_hosts,
        otherwise="none",
        more="Without it that field has no meaning.",
    )
    notify_secret: str | None = setting(
        None,
        "Secret that signs notifications; safer in the variable, as others can see flags.",
        Section.NOTIFICATIONS,
        repr=False,
    )
    notify_secret_file: Path | None = setting(
        None,
        "File with that secret, or with one on each line while it is replaced.",
        Section.NOTIFICATIONS,
    )
    metrics: Address | None = setting(
        None,
        "Serve metrics and health at this [HOST:]PORT; without HOST on this machine only.",
        Section.MONITORING,
        read=parse_address,
        otherwise="nowhere",
        more="See [Metrics and health](production.md#metrics-and-health).",
    )
    """Address of the HTTP server; None where there is none."""
    http_hosts: tuple[str, ...] = setting(
        (),
        "Names by which metrics and page may be asked: 'scheduler.example.com'.",
        Section.MONITORING,
        read=parse_http_hosts,
        otherwise="`localhost`",
        more="IP addresses are always allowed. A page of another name is refused.",
    )
    log_level: LogLevel = setting("info", "Lowest level to log.", Section.LOG)
    log_format: LogFormat = setting("auto", "auto: readable text in a terminal, JSON elsewhere.", Section.LOG)

    def __attrs_post_init__(self) -> None:
        check_ranges(self)
        check_ranges(self.limits)
        check_choice("store", self.store, StoreName)
        check_choice("log_level", self.log_level, LogLevel)
        check_choice("log_format", self.log_format, LogFormat)
        check_durations("timeouts", self.timeouts, ATTEMPT_TIMEOUT)
        check_durations("heartbeats", self.heartbeats, HEARTBEAT)
        for name, pairs in (("resend", self.resend), ("retries", self.retries)):
            for pattern, _ in pairs:
                checked_pattern(name, pattern)
        for rule in self.rules:
            checked_pattern("limits", rule.pattern)
        check_capture(self.capture)
        check_providers(self.capture_providers)
        check_notify(self.notify)
        check_notify_hosts(self.notify_hosts)
        check_http_hosts(self.http_hosts)
        if self.notifies:
            _ = self.signing_keys()
        for which, value in (("name", self.name), ("instance", self.instance or self.name)):
            if not _NAME.fullmatch(value):
                raise invalid(which, value, "is not 1 to 128 of the characters A-Z a-z 0-9 . _ @ : -")

    @property
    def notifies(self) -> bool:
        """Whether there may be notifications."""
        return bool(self.notify or self.notify_hosts)

    @property
    def destinations(self) -> tuple[Destination, ...]:
        """Destinations of notifications of every build."""
        return read_notify(self.notify)

    @property
    def allowed_hosts(self) -> AllowedHosts | None:
        """Hosts that builds may name; None where their field ``notify`` has no meaning."""
        return AllowedHosts.of(self.notify_hosts) if self.notify_hosts else None

    def signing_keys(self) -> tuple[bytes, ...]:
        """Return the keys that notifications are signed with.

        Raises:
            InvalidSettings: there is none, or the file with it cannot be read.
        """
        return read_signing_keys(self.notify_secret, self.notify_secret_file)

    def timeout_for(self, subject: str) -> float:
        """Return the seconds that a request on ``subject`` may take, without a ``_timeout`` of its own."""
        return first_match(self.timeouts, subject, self.attempt_timeout)

    def heartbeat_for(self, subject: str) -> float | None:
        """Return the seconds within which a connector has to beat again, without a ``_heartbeat``."""
        return first_match(self.heartbeats, subject, None)

    def resend_for(self, subject: str) -> Resend:
        """Return the rule for a request on ``subject`` that may have left."""
        return first_match(self.resend, subject, Resend.UNSENT)

    def retry_for(self, subject: str) -> Retry:
        """Return the rule for a failed request on ``subject``, unless its build has one of its own."""
        return retry_for(self.retries, subject)


RANGES: Final = {
    attribute.name: declared.allowed
    for holder in (Settings, Limits)
    for attribute, declared in settings_in(holder)
    if declared.allowed is not None
}
"""Ranges of the numbers among the settings, by name; those of `Limits` included."""
