"""The settings of the service as flags and variables; as `scheduler.commands.flags`."""

from scheduler.commands.flags import Flags, flags
from scheduler.config import Settings
from scheduler.definition.limits import Limits
from scheduler.setting import Section


@flags((Settings, Section.EMBEDDED))
class EmbeddedFlags(Flags):
    """A broker of our own."""


@flags((Settings, Section.STORE))
class StoreFlags(Flags):
    """Where builds are kept."""


@flags((Settings, Section.REFERENCES), (Limits, Section.LIMITS))
class BuildFlags(Flags):
    """What a build may be."""


@flags((Settings, Section.BUILDS), (Settings, Section.TIMES), (Settings, Section.LIMITS))
class ServiceFlags(Flags):
    """How the service works."""


@flags((Settings, Section.LOG))
class LogFlags(Flags):
    """What is logged, and how."""


EMBEDDED_DEFAULTS = EmbeddedFlags()
BUILD_DEFAULTS = BuildFlags()
STORE_DEFAULTS = StoreFlags()
SERVICE_DEFAULTS = ServiceFlags()
LOG_DEFAULTS = LogFlags()
"""The flags of a command where none is given."""
