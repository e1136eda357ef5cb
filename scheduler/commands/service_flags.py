"""Settings of the service as flags and variables, like those in `scheduler.commands.flags`."""

from scheduler.commands.flags import Flags, flags
from scheduler.config import Settings
from scheduler.config.web import WebSettings
from scheduler.definition.limits import Limits
from scheduler.setting import Section


@flags((Settings, Section.EMBEDDED))
class EmbeddedFlags(Flags):
    """Flags for the embedded broker."""


@flags((Settings, Section.STORE))
class StoreFlags(Flags):
    """Flags for the store."""


@flags((Settings, Section.REFERENCES), (Limits, Section.LIMITS))
class BuildFlags(Flags):
    """Flags for the bounds of a build."""


@flags(
    (Settings, Section.BUILDS),
    (Settings, Section.TIMES),
    (Settings, Section.LIMITS),
    (Settings, Section.NOTIFICATIONS),
    (Settings, Section.MONITORING),
    (WebSettings, Section.PAGE),
)
class ServiceFlags(Flags):
    """Flags for the work of the service."""


@flags((WebSettings, Section.PAGE), only=("web",))
class PageFlags(Flags):
    """Flag for the page of a scheduler that runs with a command."""


@flags((Settings, Section.LOG))
class LogFlags(Flags):
    """Flags for the log."""


EMBEDDED_DEFAULTS = EmbeddedFlags()
BUILD_DEFAULTS = BuildFlags()
STORE_DEFAULTS = StoreFlags()
SERVICE_DEFAULTS = ServiceFlags()
LOG_DEFAULTS = LogFlags()
PAGE_DEFAULTS = PageFlags()
"""Flags of a command where none is given."""
