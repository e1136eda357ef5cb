"""All groups of flags, for code that has to know every flag."""

from typing import Final

from scheduler.commands.flags import BrokerFlags
from scheduler.commands.service_flags import BuildFlags, EmbeddedFlags, LogFlags, ServiceFlags, StoreFlags
from scheduler.commands.simulator_flags import SimulatorFlags

GROUPS: Final = (
    BrokerFlags,
    EmbeddedFlags,
    BuildFlags,
    StoreFlags,
    ServiceFlags,
    LogFlags,
    SimulatorFlags,
)
