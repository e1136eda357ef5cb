"""Flags of simulated connectors, in the form of `scheduler.commands.flags`."""

from scheduler.commands.flags import Flags, flags, given, read
from scheduler.local.simulator import Behaviour
from scheduler.setting import Section


@flags((Behaviour, Section.SIMULATED))
class SimulatorFlags(Flags):
    """Behaviour of simulated connectors."""

    def behaviour(self) -> Behaviour:
        """Return these flags in the form of the simulator.

        Raises:
            InvalidSettings: an output does not have the required form.
        """
        return Behaviour(**{origin.attribute: read(value, origin.declared) for origin, value in given(self)})


SIMULATOR_DEFAULTS = SimulatorFlags()
"""Flags when none is given."""
