"""Settings of the service: `settings` declares them, `reading` reads those that are lists of rules."""

from scheduler.config.reading import (
    parse_capture,
    parse_heartbeats,
    parse_providers,
    parse_resend,
    parse_retry_rules,
    parse_rules,
    parse_timeouts,
)
from scheduler.config.settings import (
    DEFAULT_SERVERS,
    RANGES,
    LogFormat,
    LogLevel,
    Settings,
    StoreName,
    default_data_dir,
)

__all__ = [
    "DEFAULT_SERVERS",
    "RANGES",
    "LogFormat",
    "LogLevel",
    "Settings",
    "StoreName",
    "default_data_dir",
    "parse_capture",
    "parse_heartbeats",
    "parse_providers",
    "parse_resend",
    "parse_retry_rules",
    "parse_rules",
    "parse_timeouts",
]
