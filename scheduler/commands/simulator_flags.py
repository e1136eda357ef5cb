"""The flags of simulated connectors; as `scheduler.commands.flags`."""

from scheduler.commands.flags import Flags, flags, given, read
from scheduler.local.simulator import Behaviour
from scheduler.setting import Section


@flags((Behaviour, Section.SIMULATED))
class SimulatorFlags(Flags):
    """How simulated connectors behave."""

    def behaviour(self) -> Behaviour:
        """These flags as the simulator takes them.

        Raises:
            InvalidSettings: an output is not of the form that it must have.
        """
        return Behaviour(**{origin.attribute: read(value, origin.declared) for origin, value in given(self)})


SIMULATOR_DEFAULTS = SimulatorFlags()
"""The flags where none is given."""
