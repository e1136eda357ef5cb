"""Flags of simulated connectors, in the form of `scheduler.commands.flags`."""

from typing import TYPE_CHECKING

import attrs

from scheduler.commands.flags import Flags, flags, given, read
from scheduler.local.simulator import Behaviour
from scheduler.setting import Section

if TYPE_CHECKING:
    from scheduler.definition.validation import Prepared


@flags((Behaviour, Section.SIMULATED))
class SimulatorFlags(Flags):
    """Behaviour of simulated connectors."""

    def behaviour(self) -> Behaviour:
        """Return these flags in the form of the simulator.

        Raises:
            InvalidSettings: an output does not have the required form.
        """
        return Behaviour(**{origin.attribute: read(value, origin.declared) for origin, value in given(self)})


def inventing(behaviour: Behaviour, prepared: "Prepared") -> Behaviour:
    """Return the behaviour that also invents what the references of a build ask for."""
    from scheduler.local.invention import invent  # noqa: PLC0415 - only with a build

    return attrs.evolve(behaviour, invention=invent(prepared, behaviour.outputs))


SIMULATOR_DEFAULTS = SimulatorFlags()
"""Flags when none is given."""
