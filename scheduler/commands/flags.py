"""The settings as flags and environment variables, in groups that commands put together as they need.

Each class is flattened into its command's flags. What a flag says is checked here or where it is put to use
(`Settings`, `BusOptions`); whatever is wrong comes out as `InvalidSettings`, one line for a person.

Here stand the groups that nearly every command has. Those of the service are in `service_flags`, those of
simulated connectors in `simulator_flags`: a command that has not got them starts without them.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Final

import attrs
from cyclopts import Parameter

from scheduler.bus.options import DEFAULT_INBOX, BusOptions
from scheduler.commands.parameters import BROKER, LOG, choice, switch, text
from scheduler.config import (
    DEFAULT_SERVERS,
    LogFormat,
    LogLevel,
    Settings,
    flag_of,
    parse_capture,
    parse_providers,
    parse_resend,
    parse_retry_rules,
    parse_rules,
    parse_servers,
    parse_timeouts,
    variables_of,
)
from scheduler.definition.limits import Limits
from scheduler.errors import InvalidSettings

_NAMES = re.compile(r"\b(?:user(?! info)|password|token|credentials|nkey|tls_key|tls_certificate)\b")
_LEADING_NAMES = re.compile(
    r"^(?:credentials|nkey|inbox_prefix|tls_[a-z]+)(?=[:,])|(?<=^tls_certificate, )tls_key(?=:)"
)


@Parameter(name="*")
@attrs.frozen
class BrokerFlags:
    """Where the broker is, and as whom to log in."""

    nats_url: Annotated[
        str,
        text("nats_url", "Address of the broker; several, separated by commas, are tried in turn.", BROKER),
    ] = DEFAULT_SERVERS[0]
    user: Annotated[str | None, text("user", "Log in with this name and --password.", BROKER)] = None
    password: Annotated[
        str | None, text("password", "Its password; safer in the variable, as others can see flags.", BROKER)
    ] = None
    token: Annotated[str | None, text("token", "Log in with a token; safer in the variable.", BROKER)] = None
    credentials: Annotated[Path | None, text("credentials", "Log in with a .creds file.", BROKER)] = None
    nkey: Annotated[Path | None, text("nkey", "Log in with the nkey seed in this file.", BROKER)] = None
    inbox_prefix: Annotated[
        str, text("inbox_prefix", "Subject prefix for replies; must be unique to this user.", BROKER)
    ] = DEFAULT_INBOX
    tls_ca: Annotated[Path | None, text("tls_ca", "Certificates to trust, not the system's.", BROKER)] = None
    tls_certificate: Annotated[
        Path | None, text("tls_certificate", "Certificate to present to the broker.", BROKER)
    ] = None
    tls_key: Annotated[Path | None, text("tls_key", "Key of that certificate.", BROKER)] = None
    tls_hostname: Annotated[
        str | None, text("tls_hostname", "Name to expect in the broker's certificate.", BROKER)
    ] = None
    tls_first: Annotated[bool, switch("tls_first", "Start TLS before the broker's greeting.", BROKER)] = False


@Parameter(name="*")
@attrs.frozen
class QuietLogFlags:
    """What a command logs whose output is not its log, and how."""

    log_level: Annotated[LogLevel, choice("log_level", LogLevel, "Lowest level to log.", LOG)] = "error"
    log_format: Annotated[
        LogFormat, choice("log_format", LogFormat, "auto: readable text in a terminal, JSON elsewhere.", LOG)
    ] = "auto"


BROKER_DEFAULTS = BrokerFlags()
QUIET_LOG_DEFAULTS = QuietLogFlags()
"""The flags of a command where none is given."""

_PARSED: Final = {
    "timeouts": parse_timeouts,
    "resend": parse_resend,
    "capture": parse_capture,
    "capture_providers": parse_providers,
    "rules": parse_rules,
    "retries": parse_retry_rules,
}
"""Settings that are written as one text and kept as several values."""


def settings_of(*groups: attrs.AttrsInstance) -> Settings:
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
