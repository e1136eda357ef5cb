"""Every setting of the service, as one frozen value; whoever holds one knows that it is valid.

A setting has one name in three spellings: ``max_builds`` here, ``--max-builds`` on the command line and
``SCHEDULER_MAX_BUILDS`` in the environment. `scheduler.commands.flags` reads the latter two.
"""

import platform
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal, NamedTuple, TypeAlias, get_args
from urllib.parse import urlsplit

import platformdirs
from attrs import Factory, field, fields, frozen

from scheduler.bus.options import BusOptions
from scheduler.definition.choices import OnUnresolved, Templates
from scheduler.definition.limits import DEFAULT_LIMITS, Limits
from scheduler.definition.model import Resend
from scheduler.definition.patterns import EVERY, FORM, first_match, read_pattern
from scheduler.definition.rules import LimitRule, Retry, parse_limits, parse_retries, retry_for
from scheduler.definition.subjects import token_problem
from scheduler.errors import InvalidRule, InvalidSettings
from scheduler.text import DURATIONS, mask_url, printable, read_duration, write_duration

StoreName: TypeAlias = Literal["auto", "jetstream", "ernest", "memory"]
LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]
LogFormat: TypeAlias = Literal["auto", "json", "console"]
Timeouts: TypeAlias = tuple[tuple[str, float], ...]
"""Pairs of a subject pattern (``vpc.create.*``) and seconds; the first that matches counts."""
Resends: TypeAlias = tuple[tuple[str, Resend], ...]
"""Pairs of a subject pattern and what to do; the first that matches counts."""
Retries: TypeAlias = tuple[tuple[str, Retry], ...]
"""Pairs of a subject pattern and a rule; the first that matches counts."""

DEFAULT_SERVERS = ("nats://127.0.0.1:4222",)
SERVER_VARIABLES = ("NATS_URL", "NATS_URI")
"""The variables for ``--nats-url``, the first that is set; the second is the one that Ernest sets."""

_SECRETS = frozenset({"password", "token"})
_SCHEMES = ("nats", "tls")
_NAME = re.compile(r"[A-Za-z0-9._@:-]{1,128}")
_DAY = 86_400.0
_MEBIBYTE = 1024 * 1024
_GIBIBYTE = 1024 * _MEBIBYTE
_MOST_PROVIDERS = 32
_SPELLED: Final = {"rules": "limits"}
"""Settings whose flag has another name: `Settings.limits` were the bounds of a build first."""
_SHOWN = 100
"""Characters of a wrong value that an error message repeats."""


class Range(NamedTuple):
    """What a number may be: both ends are allowed. Whole numbers are given as ``int``."""

    low: float
    high: float
    duration: bool = False
    """Whether it is a number of seconds, that may be written with units."""

    def __str__(self) -> str:
        if self.duration:
            return f"a duration from {write_duration(self.low)} to {write_duration(self.high)}"
        kind = "a whole number" if self.whole else "a number"
        return f"{kind} from {_plain(self.low)} to {_plain(self.high)}"

    @property
    def whole(self) -> bool:
        """Whether only whole numbers are allowed."""
        return isinstance(self.low, int)


def _plain(number: float) -> str:
    return f"{int(number):,}" if number == int(number) else str(number)


RANGES = {
    "attempt_timeout": Range(0.001, 30 * _DAY, duration=True),
    "start_timeout": Range(0.001, 3_600.0, duration=True),
    "store_timeout": Range(0.001, 3_600.0, duration=True),
    "grace": Range(0.0, 3_600.0, duration=True),
    "broker_grace": Range(0.0, 30 * _DAY, duration=True),
    "keep": Range(0.0, 3_650 * _DAY, duration=True),
    # JetStream has no more.
    "replicas": Range(1, 5),
    "reply_bytes": Range(16 * _MEBIBYTE, 1_024 * _GIBIBYTE),
    "max_builds": Range(1, 1_000_000),
    "max_in_flight": Range(1, 1_000_000),
    "max_in_flight_per_build": Range(1, 1_000_000),
    "max_bytes_in_flight": Range(64 * 1_024, 1_024 * _MEBIBYTE),
    "max_changes": Range(1, 1_000_000),
    "max_components": Range(1, 1_000_000),
    "max_edges": Range(1, 10_000_000),
    # A component stands three levels deep in its build; the parsers recurse, so the stack is the upper bound.
    "max_depth": Range(4, 256),
    # CPython refuses to read integers of more than 4,300 digits.
    "max_digits": Range(20, 4_300),
    "max_component_bytes": Range(1_024, 64 * _MEBIBYTE),
    "max_definition_bytes": Range(1_024, 1_024 * _MEBIBYTE),
    # Ids travel in a header, percent-encoded, thrice as long, beside which the body needs room.
    "max_id_bytes": Range(16, 4_096),
    "max_template_nodes": Range(1, 10_000_000),
    "max_error_bytes": Range(128, 8 * _MEBIBYTE),
}
"""The numbers among the settings, those of `Limits` included."""


def flag_of(name: str) -> str:
    """The flag of the setting ``name``."""
    return "--" + _SPELLED.get(name, name).replace("_", "-")


def variables_of(name: str) -> tuple[str, ...]:
    """The environment variables of the setting ``name``; the first that is set counts."""
    if name == "nats_url":
        return SERVER_VARIABLES
    return (f"SCHEDULER_{_SPELLED.get(name, name).upper()}",)


def invalid(name: str, value: object, allowed: str) -> InvalidSettings:
    """The error for a setting with a wrong value: one line that names it, the value and what is allowed.

    A value that is a secret, or None, is not shown.
    """
    shown = "the value" if name in _SECRETS or value is None else _brief(value)
    return _invalid(name, f"{shown} {allowed}")


def _invalid(name: str, problem: object) -> InvalidSettings:
    return InvalidSettings(f"{flag_of(name)} ({', '.join(variables_of(name))}): {problem}")


def _brief(value: object) -> str:
    if isinstance(value, str):
        return f"'{printable(mask_url(value), _SHOWN)}'"
    return str(value)[:_SHOWN]


def parse_number(name: str, text: str, allowed: Range | None = None) -> float:
    """``text`` as the number that ``name`` takes; an ``int`` where it takes whole numbers.

    Args:
        name: a setting, or another flag.
        text: what was given.
        allowed: the flag's range; that of the setting where it is None.

    Raises:
        InvalidSettings: it is none, is not finite, or is out of range.
    """
    allowed = allowed or RANGES[name]
    kind: Callable[[str], float] = read_duration if allowed.duration else int if allowed.whole else float
    try:
        value = kind(text)
    except ValueError:
        raise invalid(name, text, _is_not(allowed)) from None
    _check_range(name, value, allowed, text if allowed.duration else None)
    return value


def _check_range(name: str, value: float, allowed: Range, written: str | None = None) -> None:
    # Not a number is in no range: every comparison with it is false.
    whole = isinstance(value, int) and not isinstance(value, bool)
    if (allowed.whole and not whole) or not allowed.low <= value <= allowed.high:
        raise invalid(name, value if written is None else written, _is_not(allowed))


def _is_not(allowed: Range) -> str:
    return f"is not {allowed}{f', such as {DURATIONS}' if allowed.duration else ''}"


def parse_servers(text: str) -> tuple[str, ...]:
    """Comma-separated broker addresses, ``nats://`` being added where a scheme is missing.

    Raises:
        InvalidSettings: one of them is no address, or there is none.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise invalid("nats_url", text, "names no server, such as nats://127.0.0.1:4222")
    urls = tuple(part if "://" in part else f"nats://{part}" for part in parts)
    for part, url in zip(parts, urls, strict=True):
        if not _is_server(url):
            # What cannot be read as an address may be a part of somebody's password.
            shown = None if "@" in text else part
            raise invalid("nats_url", shown, f"is not a broker's address: {'|'.join(_SCHEMES)}://host:port")
    return urls


def _is_server(url: str) -> bool:
    if not url.isascii() or not url.isprintable() or " " in url:
        return False
    try:
        parts = urlsplit(url)
        bare = parts.path in {"", "/"} and not parts.query and not parts.fragment
        return bare and parts.scheme in _SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def parse_timeouts(text: str) -> Timeouts:
    """``vpc.create.*=10m, *.delete.*=300`` as pairs of a pattern and seconds.

    Raises:
        InvalidSettings: a part of it is not of this form, or its duration is out of range.
    """
    pairs = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        pattern, equals, seconds = (piece.strip() for piece in part.partition("="))
        try:
            value = read_duration(seconds)
        except ValueError:
            equals = ""
        if not equals:
            raise invalid("timeouts", part, "is not of the form PATTERN=DURATION, such as vpc.create.*=10m")
        pairs.append((_pattern("timeouts", pattern), value))
    _check_timeouts(tuple(pairs))
    return tuple(pairs)


def _check_timeouts(pairs: Timeouts) -> None:
    allowed = RANGES["attempt_timeout"]
    for pattern, seconds in pairs:
        _pattern("timeouts", pattern)
        if not allowed.low <= seconds <= allowed.high:
            raise invalid("timeouts", f"{pattern}={write_duration(seconds)}", f"does not have {allowed}")


def _pattern(name: str, text: str) -> str:
    pattern = read_pattern(text)
    if pattern is None:
        raise invalid(name, text, FORM)
    return pattern


def parse_resend(text: str) -> Resends:
    """``never, vpc.create.*=always`` as pairs of a pattern and what to do; a bare word is for all the rest.

    Raises:
        InvalidSettings: a part of it is not of this form, or there are two bare words.
    """
    pairs: list[tuple[str, Resend]] = []
    rest: list[tuple[str, Resend]] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        pattern, equals, word = (piece.strip() for piece in part.rpartition("="))
        if word not in list(Resend) or (equals and not pattern):
            allowed = f"is neither one of {', '.join(Resend)}, nor PATTERN=WORD, such as vpc.create.*=always"
            raise invalid("resend", part, allowed)
        if equals:
            pairs.append((_pattern("resend", pattern), Resend(word)))
        else:
            rest.append((EVERY, Resend(word)))
    if len(rest) > 1:
        raise invalid("resend", text, "has more than one word that is for all the rest")
    return (*pairs, *rest)


def parse_rules(text: str) -> tuple[LimitRule, ...]:
    """The limits on requests, as `scheduler.definition.rules.parse_limits` reads them.

    Raises:
        InvalidSettings: one of them is none.
    """
    try:
        return parse_limits(text)
    except InvalidRule as error:
        raise _invalid("rules", error) from None


def parse_retry_rules(text: str) -> Retries:
    """When what failed is sent again, as `scheduler.definition.rules.parse_retries` reads it.

    Raises:
        InvalidSettings: a part of it is no such rule.
    """
    try:
        return parse_retries(text)
    except InvalidRule as error:
        raise _invalid("retries", error) from None


def parse_capture(text: str) -> tuple[str, ...]:
    """Comma-separated component types, each once.

    Raises:
        InvalidSettings: one of them cannot be a component's type.
    """
    types = tuple(dict.fromkeys(filter(None, (part.strip() for part in text.split(",")))))
    _check_capture(types)
    return types


def _check_capture(types: tuple[str, ...]) -> None:
    for type_ in types:
        if token_problem("_component", type_) is not None:
            raise invalid("capture", type_, "is no component type, such as vpc")


def parse_providers(text: str) -> tuple[str, ...]:
    """Comma-separated providers, each once.

    Raises:
        InvalidSettings: one of them cannot be a component's provider, or there are too many.
    """
    providers = tuple(dict.fromkeys(filter(None, (part.strip() for part in text.split(",")))))
    _check_providers(providers)
    return providers


def _check_providers(providers: tuple[str, ...]) -> None:
    for provider in providers:
        if token_problem("_provider", provider) is not None:
            raise invalid("capture_providers", provider, "is no provider, such as aws")
    if len(providers) > _MOST_PROVIDERS:
        many = f"{len(providers)} providers"
        raise invalid("capture_providers", many, f"is more than {_MOST_PROVIDERS}: each has a stream")


def _default_data_dir() -> Path:
    return platformdirs.user_data_path("scheduler", appauthor=False)


def _default_name() -> str:
    node = re.sub(r"[^A-Za-z0-9._@:-]", "-", platform.node())[:128]
    return node or "scheduler"


@frozen
class Settings:
    """How the service is to behave.

    Raises:
        InvalidSettings: a value that cannot be used; the message is one line, for the person who set it.
    """

    bus: BusOptions = Factory(lambda: BusOptions(servers=DEFAULT_SERVERS))
    """Where the broker is and how to log in; not looked at where ``embedded`` is set."""
    embedded: bool = False
    """Run a broker of our own, with its data in ``data_dir``."""
    data_dir: Path = field(factory=_default_data_dir)
    name: str = field(factory=_default_name)
    """Names this instance in its log and in its answers to service discovery."""
    store: StoreName = "auto"
    """``auto`` is ``jetstream`` where the broker has it; where it has not, the service does not start."""
    replicas: int = 1
    """Servers that keep a copy of each stream of ours."""
    capture: tuple[str, ...] = ()
    """Component types whose replies are captured while nobody listens; of every type where it is empty."""
    capture_providers: tuple[str, ...] = ()
    """Providers whose replies are captured, each in a stream of its own; of all in one where it is empty."""
    reply_bytes: int = _GIBIBYTE
    """What each stream of captured replies may take; the oldest go first."""
    resend: Resends = ()
    keep: float = 7 * _DAY
    """Seconds that the log of a build is kept after its end."""
    broker_grace: float = 600.0
    """Seconds without the broker, or its quorum, after which that is said loudly."""
    templates: Templates = field()
    """With the Ernest store ``$(...)`` only, if nothing else is said: what its mapper makes relies on it."""
    unresolved: OnUnresolved = field()
    """With the Ernest store it is kept, if nothing else is said, for the same reason."""
    limits: Limits = DEFAULT_LIMITS
    attempt_timeout: float = 3_600.0
    """Seconds until a request without a reply has failed, where ``timeouts`` says nothing else."""
    timeouts: Timeouts = ()
    start_timeout: float = 10.0
    """Seconds during which a request that nobody subscribes to is tried again."""
    store_timeout: float = 30.0
    grace: float = 25.0
    """Seconds that a stop waits for what is in flight."""
    max_builds: int = 10_000
    max_in_flight: int = 2_000
    max_in_flight_per_build: int = 500
    max_bytes_in_flight: int = 8 * _MEBIBYTE
    """Of requests in flight: what other builds' messages stand behind, and what waits in the server."""
    rules: tuple[LimitRule, ...] = ()
    """How many requests may be in flight, and begin, by subject, over all builds."""
    retries: Retries = ()
    """When what failed is sent again, where its build says nothing else."""
    log_level: LogLevel = "info"
    log_format: LogFormat = "auto"

    @templates.default
    def _default_templates(self) -> Templates:
        return Templates.ERNEST if self.store == "ernest" else Templates.ALL

    @unresolved.default
    def _default_unresolved(self) -> OnUnresolved:
        return OnUnresolved.KEEP if self.store == "ernest" else OnUnresolved.ERROR

    def __attrs_post_init__(self) -> None:
        for holder in (self, self.limits):
            for attribute in fields(type(holder)):
                if attribute.name in RANGES:
                    _check_range(attribute.name, getattr(holder, attribute.name), RANGES[attribute.name])
        check_choice("store", self.store, StoreName)
        check_choice("log_level", self.log_level, LogLevel)
        check_choice("log_format", self.log_format, LogFormat)
        _check_timeouts(self.timeouts)
        for name, pairs in (("resend", self.resend), ("retries", self.retries)):
            for pattern, _ in pairs:
                _pattern(name, pattern)
        for rule in self.rules:
            _pattern("rules", rule.pattern)
        _check_capture(self.capture)
        _check_providers(self.capture_providers)
        if not _NAME.fullmatch(self.name):
            raise invalid("name", self.name, "is not 1 to 128 of the characters A-Z a-z 0-9 . _ @ : -")

    def timeout_for(self, subject: str) -> float:
        """Seconds that a request on ``subject`` may take, before the component's own ``_timeout``."""
        return first_match(self.timeouts, subject, self.attempt_timeout)

    def resend_for(self, subject: str) -> Resend:
        """What to do with a request on ``subject`` that may have left."""
        return first_match(self.resend, subject, Resend.UNSENT)

    def retry_for(self, subject: str) -> Retry:
        """When a request on ``subject`` that failed is sent again, where its build says nothing else."""
        return retry_for(self.retries, subject)


def words_of(choices: object) -> list[str]:
    """The words that ``choices``, a ``Literal`` or a ``StrEnum``, leave the choice of."""
    return [str(word) for word in get_args(choices) or choices]  # type: ignore[attr-defined]


def check_choice(name: str, value: str, choices: object) -> None:
    """Check that ``value`` is one of ``choices``, a ``Literal`` or a ``StrEnum``.

    Raises:
        InvalidSettings: it is none of them.
    """
    words = words_of(choices)
    if value not in words:
        raise invalid(name, value, f"is not one of: {', '.join(words)}")
